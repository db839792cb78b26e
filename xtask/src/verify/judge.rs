//! Compares what a backend computed with what a case expects, by the tolerances of the case format.
//!
//! Every comparison gives a ratio, error over bound; above 1 it is a failure. Exact comparisons give 0 or
//! infinity. The tolerances of the format stand in the constants here and nowhere else.

use std::fmt;

use super::case::Case;
use super::plane::{Plane, Storage};

/// t of "|a − e| ≤ t·(|e| + rms(e over the chunk's finite elements))".
fn element_tolerance(storage: Storage) -> f64 {
    match storage {
        Storage::F32 => 2e-5,
        Storage::F16 => 2e-3,
        Storage::Bf16 => 1.6e-2,
    }
}

/// "‖a − e‖ ≤ 1e-4·‖e‖ + 1e-6·‖g‖·‖x‖ (sanitized x)".
const GRADIENT_RELATIVE: f64 = 1e-4;
const GRADIENT_PRODUCT: f64 = 1e-6;
/// "mean within 1e-5·(|mean| + σ), variance within 1e-5 relative (+1e-12)".
const STATISTIC: f64 = 1e-5;
const VARIANCE_FLOOR: f64 = 1e-12;
/// Elements of a matrix are judged until this many have failed.
const SHOWN: usize = 8;

/// A matrix that a backend computed.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// `[rows, hidden]`.
    pub values: Vec<f64>,
    /// The stored bits, from backends that store; the oracle computes in f64 and has none.
    pub stored: Option<Plane>,
}

impl Output {
    /// A stored matrix.
    #[must_use]
    pub fn stored(plane: Plane) -> Self {
        Self { values: plane.values(), stored: Some(plane) }
    }

    /// Whether element `i` is a copy of that of `source`, bit for bit.
    fn copies(&self, source: &Plane, i: usize) -> bool {
        match &self.stored {
            Some(plane) => plane.storage == source.storage && plane.bits[i] == source.bits[i],
            None => self.values[i].to_bits() == source.storage.widen(source.bits[i]).to_bits(),
        }
    }
}

/// What a backend computed for one seed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SeedOutcome {
    /// Parameter gradients in the kind's order, where it computed any.
    pub parameters: Option<Vec<Vec<f64>>>,
    /// dL/dα, where it computed it.
    pub alpha: Option<f64>,
    /// Reconstruction loss, where it computed it.
    pub reconstruction: Option<f64>,
    /// n, mean, variance, min, max, dead, nonfinite; NaN for what is not there.
    pub telemetry: [f64; 7],
    /// norm, variance, max|g|; NaN for what is not there.
    pub grad_stats: [f64; 3],
}

/// What a backend computed for a case.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The output.
    pub y: Output,
    /// The input's gradient.
    pub grad_x: Output,
    /// One a seed.
    pub seeds: Vec<SeedOutcome>,
    /// What the backend found wrong with itself: two ways to the same numbers that disagreed.
    pub disagreements: Vec<Failure>,
}

/// One comparison that failed.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// What was compared, with its place.
    pub what: String,
    /// What was computed.
    pub computed: f64,
    /// What was expected.
    pub expected: f64,
    /// The largest error allowed.
    pub bound: f64,
    /// Error over bound.
    pub ratio: f64,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, computed, expected, bound, .. } = self;
        write!(f, "{what}: is {computed:e}, expected {expected:e} ")?;
        if *bound == 0.0 {
            write!(f, "exactly")
        } else {
            write!(f, "± {bound:.3e} ({:.3} times the bound)", self.ratio)
        }
    }
}

/// The result of judging one outcome.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Verdict {
    /// The largest ratio of any comparison.
    pub worst: f64,
    /// Where it was.
    pub worst_at: String,
    /// Failed comparisons; of each matrix and chunk only the first few.
    pub failures: Vec<Failure>,
}

impl Outcome {
    /// This outcome as a faultless backend would store it: rounded to the case's storage type, and
    /// copies as they are.
    #[must_use]
    pub fn stored(mut self, case: &Case) -> Self {
        let store = |output: &Output, source: &Plane| {
            let values = output.values.iter().copied();
            let mut plane = Plane::from_values(case.x.storage, values);
            for i in (0..case.seeds.len()).filter(|i| !case.seeds[*i].changes_output()) {
                for k in elements(case, i) {
                    plane.bits[k] = source.bits[k];
                }
            }
            Output::stored(plane)
        };
        self.y = store(&self.y, &case.x);
        self.grad_x = store(&self.grad_x, &case.grad_y);
        self
    }
}

impl Verdict {
    /// Whether nothing failed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }

    /// Notes a comparison of `computed` with `expected`, `error` apart where `bound` is allowed.
    fn note(
        &mut self,
        what: impl FnOnce() -> String,
        computed: f64,
        expected: f64,
        error: f64,
        bound: f64,
    ) -> bool {
        let ratio = if error == 0.0 { 0.0 } else { error / bound };
        // NaN arises where the computed value is NaN and the expected one is not.
        let ratio = if ratio.is_nan() { f64::INFINITY } else { ratio };
        let failed = ratio > 1.0;
        if ratio > self.worst || failed {
            let what = what();
            if ratio > self.worst {
                self.worst = ratio;
                self.worst_at.clone_from(&what);
            }
            if failed {
                self.failures.push(Failure { what, computed, expected, bound, ratio });
            }
        }
        failed
    }

    /// A number within `bound`; NaN and infinities must be met exactly.
    fn number(
        &mut self,
        what: impl FnOnce() -> String,
        computed: f64,
        expected: f64,
        bound: f64,
    ) -> bool {
        let same = computed == expected || computed.is_nan() && expected.is_nan();
        let error = if same { 0.0 } else { (computed - expected).abs() };
        let bound = if expected.is_finite() { bound } else { 0.0 };
        self.note(what, computed, expected, error, bound)
    }
}

/// Judges what a backend computed for a case.
///
/// An outcome whose sizes are not the case's is a fault of the backend's wiring and fails as such.
#[must_use]
pub fn judge(case: &Case, outcome: &Outcome) -> Verdict {
    let mut verdict = Verdict::default();
    for failure in &outcome.disagreements {
        verdict.worst = f64::INFINITY;
        verdict.worst_at.clone_from(&failure.what);
        verdict.failures.push(failure.clone());
    }
    let n = case.rows * case.hidden;
    let sizes = [
        ("elements of y", outcome.y.values.len(), n),
        ("elements of grad_x", outcome.grad_x.values.len(), n),
        ("seeds", outcome.seeds.len(), case.seeds.len()),
    ];
    for (what, found, expected) in sizes {
        let what = || format!("number of {what}");
        if verdict.number(what, found as f64, expected as f64, 0.0) {
            return verdict;
        }
    }
    let sanitized = Sanitized::of(case);
    for i in 0..case.seeds.len() {
        let matrices = [
            ("y", &outcome.y, &case.expect.y, &case.x),
            ("grad_x", &outcome.grad_x, &case.expect.grad_x, &case.grad_y),
        ];
        for (name, output, expected, source) in matrices {
            if case.seeds[i].changes_output() {
                judge_chunk(&mut verdict, case, i, name, output, expected);
            } else {
                judge_copy(&mut verdict, case, i, name, output, source);
            }
        }
        judge_gradients(&mut verdict, case, i, &outcome.seeds[i], &sanitized);
        judge_statistics(&mut verdict, case, i, &outcome.seeds[i]);
    }
    verdict
}

/// ‖g‖·‖x‖ needs the sanitized x; the bounds of strict mode are of the whole input.
struct Sanitized {
    x: Vec<f64>,
    g: Vec<f64>,
}

impl Sanitized {
    fn of(case: &Case) -> Self {
        use kasmina_oracle::stability;
        let raw = case.x.values();
        let bounds = stability::bounds(&case.stability, &raw);
        let clean = |x| stability::sanitize_input(&case.stability, bounds, x).value;
        Self { x: raw.into_iter().map(clean).collect(), g: case.grad_y.values() }
    }

    /// ‖g‖·‖x‖ over one chunk's finite elements.
    fn product(&self, case: &Case, i: usize) -> f64 {
        let of = |m: &[f64]| norm(elements(case, i).map(|k| m[k]).filter(|v| v.is_finite()));
        of(&self.g) * of(&self.x)
    }
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|v| v * v).sum::<f64>().sqrt()
}

/// Flat indices of a chunk's elements, row by row.
fn elements(case: &Case, i: usize) -> impl Iterator<Item = usize> {
    let (hidden, columns) = (case.hidden, case.columns(i));
    (0..case.rows).flat_map(move |r| columns.clone().map(move |c| r * hidden + c))
}

fn place(case: &Case, i: usize, name: &str, k: usize) -> String {
    let (row, column) = (k / case.hidden, k % case.hidden);
    format!("seed {i} {name}[{row}, {column}]")
}

/// "|a − e| ≤ t·(|e| + rms(e over the chunk's finite elements))".
fn judge_chunk(
    verdict: &mut Verdict,
    case: &Case,
    i: usize,
    name: &str,
    output: &Output,
    expected: &[f64],
) {
    let t = element_tolerance(case.x.storage);
    let finite = || elements(case, i).map(|k| expected[k]).filter(|v| v.is_finite());
    let count = finite().count();
    let rms = if count == 0 { 0.0 } else { norm(finite()) / (count as f64).sqrt() };
    let mut failed = 0;
    for k in elements(case, i) {
        let (a, e) = (output.values[k], expected[k]);
        let what = || place(case, i, name, k);
        failed += usize::from(verdict.number(what, a, e, t * (e.abs() + rms)));
        if failed == SHOWN {
            return;
        }
    }
}

/// "where the seed is not on path, or alpha = 0, bit for bit the input, NaN included".
fn judge_copy(
    verdict: &mut Verdict,
    case: &Case,
    i: usize,
    name: &str,
    output: &Output,
    source: &Plane,
) {
    let mut failed = 0;
    for k in elements(case, i).filter(|k| !output.copies(source, *k)) {
        let what = || format!("{}, a copy,", place(case, i, name, k));
        let expected = source.storage.widen(source.bits[k]);
        // The bits differ even where the values compare equal.
        verdict.note(what, output.values[k], expected, f64::INFINITY, 0.0);
        failed += 1;
        if failed == SHOWN {
            return;
        }
    }
}

fn judge_gradients(
    verdict: &mut Verdict,
    case: &Case,
    i: usize,
    outcome: &SeedOutcome,
    sanitized: &Sanitized,
) {
    let expect = &case.expect.seeds[i];
    let floor = GRADIENT_PRODUCT * sanitized.product(case, i);
    let mut tensor = |name: &str, computed: Option<&[f64]>, expected: Option<&[f64]>| {
        match (computed, expected) {
            (None, None) => {}
            (Some(a), Some(e)) if a.len() == e.len() => {
                let bound = GRADIENT_RELATIVE * norm(e.iter().copied()) + floor;
                let error = norm(a.iter().zip(e).map(|(a, e)| a - e));
                // The element that is furthest out stands for the tensor in the message.
                let off = |k: &usize| (a[*k] - e[*k]).abs();
                let k = (0..e.len()).max_by(|p, q| off(p).total_cmp(&off(q))).unwrap_or(0);
                let (at, told) = (a.get(k), e.get(k));
                let what = || format!("seed {i} {name}, norm of the error, furthest out at [{k}],");
                let (at, told) = (at.copied().unwrap_or(0.0), told.copied().unwrap_or(0.0));
                verdict.note(what, at, told, error, bound);
            }
            (a, e) => {
                let what = || format!("seed {i} {name}, number of values,");
                let len = |v: Option<&[f64]>| v.map_or(0, <[f64]>::len) as f64;
                verdict.note(what, len(a), len(e), f64::INFINITY, 0.0);
            }
        }
    };
    let names = case.seeds[i].parameters.iter().map(|t| t.name);
    let computed = outcome.parameters.as_ref();
    let expected = expect.parameters.as_ref();
    for (p, name) in names.enumerate() {
        let get = |v: Option<&'_ Vec<Vec<f64>>>| v.and_then(|v| v.get(p)).cloned();
        let (a, e) = (get(computed), get(expected));
        let name = format!("gradient of {name}");
        tensor(&name, a.as_deref(), e.as_deref());
    }
    let one = |v: &Option<f64>| v.as_ref().map(std::slice::from_ref).map(<[f64]>::to_vec);
    let (a, e) = (one(&outcome.alpha), one(&expect.alpha));
    tensor("gradient of alpha", a.as_deref(), e.as_deref());
    let (a, e) = (one(&outcome.reconstruction), one(&expect.reconstruction));
    tensor("reconstruction", a.as_deref(), e.as_deref());
}

fn judge_statistics(verdict: &mut Verdict, case: &Case, i: usize, outcome: &SeedOutcome) {
    let expect = &case.expect.seeds[i];
    let [_, mean, variance, ..] = expect.telemetry;
    let bounds = [
        ("n", 0.0),
        ("mean", STATISTIC * (mean.abs() + variance.sqrt())),
        ("variance", STATISTIC * variance + VARIANCE_FLOOR),
        ("min", 0.0),
        ("max", 0.0),
        ("dead", 0.0),
        ("nonfinite", 0.0),
    ];
    let rows = outcome.telemetry.iter().zip(&expect.telemetry);
    for ((name, bound), (a, e)) in bounds.into_iter().zip(rows) {
        verdict.number(|| format!("seed {i} telemetry {name}"), *a, *e, bound);
    }
    let names = ["norm", "variance", "max"];
    let rows = outcome.grad_stats.iter().zip(&expect.grad_stats);
    for (name, (a, e)) in names.into_iter().zip(rows) {
        let what = || format!("seed {i} gradient {name}");
        verdict.number(what, *a, *e, STATISTIC * e.abs());
    }
}
