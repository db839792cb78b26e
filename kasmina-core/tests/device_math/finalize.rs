//! Finalizing against the oracle, from x and g through programs and column sums to every gradient, and bit for
//! bit against the CPU backend's formulas written out again.

use kasmina_core::{Bounds, State};
use kasmina_oracle as oracle;
use proptest::prelude::*;

use crate::lower::{ATTENTION, EXPANSION, RESIDUAL, alpha, lower, lower_taps, weight};
use crate::shim::{
    self, ColumnProgram, ColumnTotals, PATH, RECONSTRUCTION, STRAIGHT_THROUGH, shim,
};

/// Gradients in the parameters' order, and that of alpha.
type Gradients = (Vec<f32>, f64);

fn finalize(
    kind: u32,
    parameters: &[f32],
    alpha: f32,
    totals: &[ColumnTotals],
    factor: f64,
) -> Gradients {
    assert_eq!(parameters.len(), totals.len() + usize::from(kind != ATTENTION));
    let mut gradients = vec![0.0; parameters.len()];
    // SAFETY: parameters, gradients and totals of as many columns.
    let of_alpha = unsafe {
        (shim().finalize_pointwise)(
            kind,
            parameters.as_ptr(),
            totals.len() as u32,
            alpha,
            totals.as_ptr(),
            factor,
            gradients.as_mut_ptr(),
        )
    };
    (gradients, of_alpha)
}

fn finalize_taps(parameters: &[f32], alpha: f32, lags: &[f64], factor: f64) -> Gradients {
    assert_eq!(parameters.len(), lags.len() + 1);
    let mut gradients = vec![0.0; parameters.len()];
    // SAFETY: a tap for each lag, and a scale.
    let of_alpha = unsafe {
        (shim().finalize_taps)(
            parameters.as_ptr(),
            lags.len() as u32,
            alpha,
            lags.as_ptr(),
            factor,
            gradients.as_mut_ptr(),
        )
    };
    (gradients, of_alpha)
}

/// The factor of a reconstruction's sums, and the loss.
fn reconstruction(rows: usize, c: usize, squares: f64) -> (f64, f64) {
    let (mut factor, mut loss) = (0.0, 0.0);
    // SAFETY: single numbers.
    unsafe {
        (shim().reconstruction)(rows as u64, c as u64, squares, &raw mut factor, &raw mut loss);
    }
    (factor, loss)
}

proptest! {
    /// `finalize` of src/cpu/sums.rs and src/cpu/stencil.rs, written out again: the same bits.
    #[test]
    fn finalizing_rounds_as_the_cpu(
        columns in prop::collection::vec((weight(), -5.0f64..5.0, -5.0f64..5.0, -5.0f64..5.0), 1..30),
        s in weight(),
        alpha in alpha(),
        factor in prop_oneof![Just(1.0f64), 1e-4f64..0.1],
    ) {
        let mut parameters: Vec<f32> = columns.iter().map(|c| c.0).collect();
        parameters.push(s);
        let totals: Vec<ColumnTotals> = columns
            .iter()
            .map(|&(_, g, gx, gx_on)| ColumnTotals { g, gx, gx_on })
            .collect();
        let (a, s) = (factor * f64::from(alpha), f64::from(s));
        let expected = |sums: &[f64]| -> (Vec<f32>, f64) {
            let products = parameters.iter().zip(sums).map(|(w, s)| f64::from(*w) * s);
            let total = products.fold(0.0, |total, product| total + product);
            let mut gradients: Vec<f32> = sums.iter().map(|sum| (a * s * sum) as f32).collect();
            gradients.push((a * total) as f32);
            (gradients, total)
        };
        let sums = |f: fn(&ColumnTotals) -> f64| totals.iter().map(f).collect::<Vec<f64>>();
        let skipped = sums(|t| t.gx).iter().fold(0.0, |a, b| a + b);

        let (gradients, total) = expected(&sums(|t| t.g));
        let found = finalize(RESIDUAL, &parameters, alpha, &totals, factor);
        prop_assert_eq!(found, (gradients.clone(), s * total));
        prop_assert_eq!(
            finalize_taps(&parameters, alpha, &sums(|t| t.g), factor),
            (gradients, s * total - totals[0].g)
        );
        let (gradients, total) = expected(&sums(|t| t.gx_on));
        let found = finalize(EXPANSION, &parameters, alpha, &totals, factor);
        prop_assert_eq!(found, (gradients, s * total - skipped));

        let weights = &parameters[..totals.len()];
        let top = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum = weights.iter().fold(0.0, |sum, w| sum + f64::from(w - top).exp());
        let p: Vec<f64> =
            weights.iter().map(|w| f64::from((f64::from(w - top).exp() / sum) as f32)).collect();
        let mean = p.iter().zip(&totals).fold(0.0, |mean, (p, t)| mean + p * t.gx);
        let gradients: Vec<f32> =
            p.iter().zip(&totals).map(|(p, t)| (a * p * (t.gx - mean)) as f32).collect();
        let found = finalize(ATTENTION, weights, alpha, &totals, factor);
        prop_assert_eq!(found, (gradients, mean - skipped));
    }
}

/// A seed over rows of plain data.
#[derive(Clone, Debug)]
struct Case {
    kind: u32,
    rows: usize,
    c: usize,
    parameters: Vec<f32>,
    alpha: f32,
    bounds: Bounds,
    x: Vec<f32>,
    g: Vec<f32>,
}

fn case() -> impl Strategy<Value = Case> {
    let ends = prop::sample::select(vec![(-1e6f32, 1e6f32), (-1.0, 1.25)]);
    (RESIDUAL..=EXPANSION, 1usize..40, 1usize..12, alpha(), ends, any::<bool>()).prop_flat_map(
        |(kind, rows, c, alpha, (lower, upper), guarded)| {
            let numbers = |n: usize| prop::collection::vec(-2.0f32..2.0, n);
            let count = c + usize::from(kind != ATTENTION);
            (numbers(count), numbers(rows * c), numbers(rows * c)).prop_map(
                move |(parameters, x, g)| Case {
                    kind,
                    rows,
                    c,
                    parameters,
                    alpha,
                    bounds: Bounds { guarded, epsilon: 1e-8, lower, upper },
                    x,
                    g,
                },
            )
        },
    )
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

impl Case {
    fn oracle(&self, state: State, objective: oracle::Objective) -> oracle::OracleLayer {
        let (kind, names): (_, &[&str]) = match self.kind {
            RESIDUAL => (oracle::Kind::Residual, &["weight", "scale"]),
            ATTENTION => (oracle::Kind::AttentionHead, &["weight"]),
            EXPANSION => (oracle::Kind::MlpExpansion, &["weight", "scale"]),
            _ => (oracle::Kind::ConvFilter, &["weight", "scale"]),
        };
        let last = self.parameters.len() - (names.len() - 1);
        let tensors = [&self.parameters[..last], &self.parameters[last..]];
        let params =
            names.iter().zip(tensors).map(|(n, v)| oracle::Parameter::new(n, wide(v))).collect();
        let Bounds { guarded, epsilon, lower, upper } = self.bounds;
        oracle::OracleLayer {
            rows: self.rows,
            hidden: self.c,
            chunk: self.c,
            stability: oracle::Stability {
                mode: if guarded {
                    oracle::StabilityMode::Adaptive
                } else {
                    oracle::StabilityMode::Fast
                },
                epsilon: epsilon.into(),
                lower: lower.into(),
                upper: upper.into(),
                sigmas: 6.0,
            },
            seeds: vec![oracle::OracleSeed {
                kind,
                state: state as u8,
                alpha: self.alpha.into(),
                objective,
                params,
            }],
        }
    }

    /// The column sums of a pass over the programs at an alpha.
    fn totals(&self, pass: u32, alpha: f32) -> Vec<ColumnTotals> {
        let programs = lower(self.kind, &self.parameters, self.c, alpha);
        let own = shim::Bounds::from(self.bounds);
        let mut totals = vec![ColumnTotals::default(); self.c];
        // SAFETY: c programs and totals, and rows × c of x and g.
        unsafe {
            (shim().sum_columns)(
                pass,
                programs.as_ptr(),
                &raw const own,
                self.x.as_ptr(),
                self.g.as_ptr(),
                self.rows,
                self.c,
                totals.as_mut_ptr(),
            );
        }
        totals
    }

    /// Every parameter's gradient within f32 rounding of the oracle's, measured against the data.
    fn check(&self, found: &[f32], expected: &oracle::SeedGradients) -> Result<(), TestCaseError> {
        let expected: Vec<f64> =
            expected.parameters.iter().flatten().flat_map(|p| p.values.clone()).collect();
        prop_assert_eq!(found.len(), expected.len());
        let size = (self.rows * self.c) as f64;
        for (found, expected) in found.iter().zip(&expected) {
            let limit = 2e-6 * expected.abs() + 1e-6 * size;
            let off = (f64::from(*found) - expected).abs();
            prop_assert!(off <= limit, "{found} for {expected} in {self:?}");
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn gradients_are_the_oracles(case in case()) {
        let (x, g) = (wide(&case.x), wide(&case.g));
        let none = oracle::Probe::none();

        let layer = case.oracle(State::FineTuning, oracle::Objective::StraightThrough);
        prop_assume!(layer.margin(&x, &none).expect("a legal layer") > 1e-5);
        let expected = layer.backward(&x, &g).expect("a legal layer");
        let totals = case.totals(PATH, case.alpha);
        let (found, of_alpha) = finalize(case.kind, &case.parameters, case.alpha, &totals, 1.0);
        case.check(&found, &expected.seeds[0])?;
        let want = expected.seeds[0].alpha.expect("a trainable seed on path");
        let limit = 2e-6 * want.abs() + 1e-6 * (case.rows * case.c) as f64;
        prop_assert!((of_alpha - want).abs() <= limit, "{of_alpha} for {want} in {case:?}");

        let layer = case.oracle(State::Training, oracle::Objective::StraightThrough);
        if layer.margin(&x, &none).expect("a legal layer") > 1e-5 {
            let expected = layer.backward(&x, &g).expect("a legal layer");
            let totals = case.totals(STRAIGHT_THROUGH, 1.0);
            let (found, _) = finalize(case.kind, &case.parameters, 1.0, &totals, 1.0);
            case.check(&found, &expected.seeds[0])?;
        }

        let layer = case.oracle(State::Training, oracle::Objective::Reconstruction);
        let expected = layer.backward(&x, &g).expect("a legal layer");
        let totals = case.totals(RECONSTRUCTION, 1.0);
        let programs = lower(case.kind, &case.parameters, case.c, 1.0);
        // SAFETY: one of each.
        let of = |(p, t): (&ColumnProgram, &ColumnTotals)| unsafe { (shim().squares_of)(p, t) };
        let squares = programs.iter().zip(&totals).map(of).sum();
        let (factor, loss) = reconstruction(case.rows, case.c, squares);
        let (found, _) = finalize(case.kind, &case.parameters, 1.0, &totals, factor);
        case.check(&found, &expected.seeds[0])?;
        let want = expected.seeds[0].reconstruction.expect("a loss");
        // Each T(x) − x is rounded where x is of size 2 to 64.
        let limit = 1e-6 * want + 1e-5 * want.sqrt();
        prop_assert!((loss - want).abs() <= limit, "{loss} for {want}");
    }

    #[test]
    fn filter_gradients_are_the_oracles(
        taps in 1usize..17,
        rows in 1usize..20,
        c in 1usize..24,
        alpha in alpha(),
        data in prop::collection::vec(-2.0f32..2.0, 17 + 2 * 20 * 24),
    ) {
        let (parameters, rest) = data.split_at(taps + 1);
        let (x, rest) = rest.split_at(rows * c);
        let case = Case {
            kind: 3,
            rows,
            c,
            parameters: parameters.to_vec(),
            alpha,
            bounds: Bounds { guarded: false, epsilon: 0.0, lower: 0.0, upper: 0.0 },
            x: x.to_vec(),
            g: rest[..rows * c].to_vec(),
        };
        let (x, g) = (wide(&case.x), wide(&case.g));
        // Σ g[i]·x[i−j] over all rows.
        let lags = |g: &[f64]| -> Vec<f64> {
            (0..taps)
                .map(|j| {
                    let rows = g.chunks(c).zip(x.chunks(c));
                    rows.map(|(g, x)| (j..c).map(|i| g[i] * x[i - j]).sum::<f64>()).sum()
                })
                .collect()
        };
        let layer = case.oracle(State::FineTuning, oracle::Objective::StraightThrough);
        let expected = layer.backward(&x, &g).expect("a legal layer");
        let (found, of_alpha) = finalize_taps(parameters, alpha, &lags(&g), 1.0);
        case.check(&found, &expected.seeds[0])?;
        let want = expected.seeds[0].alpha.expect("a trainable seed on path");
        prop_assert!((of_alpha - want).abs() <= 1e-9 * (1.0 + want.abs()), "{of_alpha} for {want}");

        // T(x) − x through the taps at alpha = 1.
        let filter = wide(&lower_taps(parameters, 1.0));
        let difference: Vec<f64> = x
            .chunks(c)
            .flat_map(|x| {
                let filter = &filter;
                (0..c).map(move |i| {
                    (0..taps.min(i + 1)).map(|j| filter[j] * x[i - j]).sum::<f64>() - x[i]
                })
            })
            .collect();
        let layer = case.oracle(State::Training, oracle::Objective::Reconstruction);
        let expected = layer.backward(&x, &g).expect("a legal layer");
        let squares = difference.iter().map(|d| d * d).sum();
        let (factor, loss) = reconstruction(rows, c, squares);
        let (found, _) = finalize_taps(parameters, 1.0, &lags(&difference), factor);
        case.check(&found, &expected.seeds[0])?;
        let want = expected.seeds[0].reconstruction.expect("a loss");
        // Each T(x) − x is rounded where x is of size 2 to 64.
        let limit = 1e-6 * want + 1e-5 * want.sqrt();
        prop_assert!((loss - want).abs() <= limit, "{loss} for {want}");
    }
}

#[test]
fn without_rows_nothing_is_divided_by_0() {
    assert_eq!(reconstruction(0, 5, 0.0), (2.0, 0.0));
}
