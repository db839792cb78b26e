//! What has to come out: the same data on the host, reduced in f64 with compensated sums.

use std::fmt;

use bytemuck::Pod;
use kasmina_telemetry::Element;
use rayon::prelude::*;

use super::line::{Quantity, ReductionLine, Shape, Way};

/// 64-bit words of the pattern that the data repeat: 32 MiB.
const WORDS: usize = 4 << 20;
/// Elements that one thread takes at a time.
const PIECE: usize = 1 << 16;

/// The data: the same 32 MiB over and over, any bits of which are numbers between 1 and 2 as f32 and bf16, and positive as every other type.
/// `cub_reference.cu` makes the same.
pub(super) struct Pattern(Vec<u64>);

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a pattern of {} bytes", Self::BYTES)
    }
}

impl Pattern {
    /// Bytes after which the data repeat.
    pub(super) const BYTES: usize = 8 * WORDS;

    /// Computes it.
    pub(super) fn new() -> Self {
        let mut state = 1_u32;
        let mut word = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            u64::from(0x3f80_3f80 | state >> 9 & 0x007f_007f)
        };
        // The lower half first, as in memory.
        Self(std::iter::repeat_with(|| word() | word() << 32).take(WORDS).collect())
    }

    /// Itself, as it lies in memory.
    pub(super) fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }

    /// The data as elements: the `i`-th of all.
    fn elements<T: Element + Pod>(&self) -> impl Fn(usize) -> f64 + Sync + '_ {
        let all: &[T] = bytemuck::cast_slice(&self.0);
        // A power of two, as every element's size is one.
        let last = all.len() - 1;
        move |i| all.get(i & last).map_or(f64::NAN, |x| x.to_f64())
    }

    /// A value that some elements are greater than and some not.
    pub(super) fn threshold<T: Element + Pod>() -> T {
        let bytes = [0xa0, 0x3f].repeat(size_of::<T>() / 2);
        bytemuck::pod_read_unaligned(&bytes)
    }
}

/// A sum and what rounding took from it (Neumaier 1974).
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    sum: f64,
    lost: f64,
}

impl Sum {
    fn add(&mut self, x: f64) {
        let sum = self.sum + x;
        let (large, small) = if self.sum.abs() >= x.abs() { (self.sum, x) } else { (x, self.sum) };
        self.lost += (large - sum) + small;
        self.sum = sum;
    }

    fn merge(&mut self, other: Self) {
        self.add(other.sum);
        self.lost += other.lost;
    }

    fn total(self) -> f64 {
        self.sum + self.lost
    }
}

/// Everything that is asked of some elements.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub(super) n: u64,
    pub(super) sum: f64,
    /// Σ |x|, by which a sum's error is judged.
    pub(super) magnitude: f64,
    pub(super) squares: f64,
    pub(super) mean: f64,
    /// Σ (x − mean)².
    pub(super) m2: f64,
    pub(super) min: (f64, u64),
    pub(super) max: (f64, u64),
    pub(super) above: u64,
}

#[derive(Clone, Copy)]
struct Found {
    n: u64,
    sum: Sum,
    magnitude: Sum,
    squares: Sum,
    min: (f64, u64),
    max: (f64, u64),
    above: u64,
}

impl Found {
    const NOTHING: Self = Self {
        n: 0,
        sum: Sum { sum: 0.0, lost: 0.0 },
        magnitude: Sum { sum: 0.0, lost: 0.0 },
        squares: Sum { sum: 0.0, lost: 0.0 },
        min: (f64::INFINITY, u64::MAX),
        max: (f64::NEG_INFINITY, u64::MAX),
        above: 0,
    };

    fn push(&mut self, x: f64, at: u64, threshold: f64) {
        self.n += 1;
        self.sum.add(x);
        self.magnitude.add(x.abs());
        self.squares.add(x * x);
        if x < self.min.0 {
            self.min = (x, at);
        }
        if x > self.max.0 {
            self.max = (x, at);
        }
        self.above += u64::from(x > threshold);
    }

    /// `later` has the elements after these.
    fn merge(mut self, later: Self) -> Self {
        self.n += later.n;
        self.sum.merge(later.sum);
        self.magnitude.merge(later.magnitude);
        self.squares.merge(later.squares);
        if later.min.0 < self.min.0 {
            self.min = later.min;
        }
        if later.max.0 > self.max.0 {
            self.max = later.max;
        }
        self.above += later.above;
        self
    }
}

/// Of the elements that `at` gives the places of, in their order.
fn reduce(
    count: usize,
    threshold: f64,
    value: impl Fn(usize) -> f64 + Sync,
    place: impl Fn(usize) -> u64 + Sync,
) -> Expected {
    let pieces = count.div_ceil(PIECE);
    let range = |piece: usize| piece * PIECE..((piece + 1) * PIECE).min(count);
    let found = (0..pieces)
        .into_par_iter()
        .map(|piece| {
            let mut found = Found::NOTHING;
            range(piece).for_each(|i| found.push(value(i), place(i), threshold));
            found
        })
        .reduce(|| Found::NOTHING, Found::merge);
    let mean = found.sum.total() / found.n.max(1) as f64;
    let deviations = (0..pieces)
        .into_par_iter()
        .map(|piece| {
            let mut sum = Sum::default();
            range(piece).for_each(|i| sum.add((value(i) - mean).powi(2)));
            sum
        })
        .reduce(Sum::default, |mut a, b| {
            a.merge(b);
            a
        });
    Expected {
        n: found.n,
        sum: found.sum.total(),
        magnitude: found.magnitude.total(),
        squares: found.squares.total(),
        mean,
        m2: deviations.total(),
        min: found.min,
        max: found.max,
        above: found.above,
    }
}

/// What has to come out of a line, one for each result.
pub(super) fn expected<T: Element + Pod>(pattern: &Pattern, line: &ReductionLine) -> Vec<Expected> {
    let x = pattern.elements::<T>();
    let threshold = Pattern::threshold::<T>().to_f64();
    if let Some(cuts) = line.shape.cuts() {
        let segments: Vec<(usize, usize)> =
            cuts.windows(2).map(|cut| (cut[0] as usize, cut[1] as usize)).collect();
        let one = |&(from, to): &(usize, usize)| {
            reduce(to - from, threshold, |i| x(from + i), |i| i as u64)
        };
        return segments.par_iter().map(one).collect();
    }
    let (rows, columns, chunk) = match line.shape {
        Shape::Columns { rows, columns } => (rows, columns, 1),
        Shape::Chunks { rows, columns, chunk } => (rows, columns, chunk),
        _ => return Vec::new(),
    };
    // Both factors are in one array, one behind the other.
    let right = rows * columns;
    let products = line.quantity == Quantity::Products;
    let chunks = (0..columns.div_ceil(chunk)).into_par_iter();
    chunks
        .map(|number| {
            let first = number * chunk;
            let width = chunk.min(columns - first);
            let value = |i: usize| {
                let at = i / width * columns + first + i % width;
                if products { x(at) * x(right + at) } else { x(at) }
            };
            reduce(rows * width, threshold, value, |i| i as u64)
        })
        .collect()
}

impl Expected {
    /// The fields of a result and how far each may be off; in the order of [`super::ours::Results`].
    pub(super) fn fields(&self, line: &ReductionLine) -> Vec<(&'static str, f64, f64)> {
        let largest = self.max.0.abs().max(self.min.0.abs());
        let n = self.n as f64;
        // As `Reducer::sum_into` promises.
        let additions = if line.way == Way::Direct { n / 512.0 } else { n / f64::from(1 << 20) };
        let rounding = (additions + 100.0) * f64::EPSILON / 2.0;
        let sum = ("sum", self.sum, rounding * self.magnitude);
        let (least, greatest) = (("min", self.min.0, 0.0), ("max", self.max.0, 0.0));
        let places = [("arg min", self.min.1 as f64, 0.0), ("arg max", self.max.1 as f64, 0.0)];
        match line.quantity {
            Quantity::Sum | Quantity::Products => vec![sum],
            Quantity::Bounds => vec![least, greatest],
            Quantity::Extrema => vec![least, greatest, places[0], places[1]],
            Quantity::Summary => {
                // A square is rounded before it is added.
                let squares = ("sum of squares", self.squares, 2.0 * rounding * self.squares);
                vec![sum, squares, least, greatest, places[0], places[1]]
            }
            Quantity::Count => vec![("count", self.above as f64, 0.0)],
            Quantity::Statistics => {
                // As the device tests judge them.
                let mean = ("mean", self.mean, 1e-13 * largest);
                let m2 = ("m2", self.m2, 1e-9 * self.m2 + n * (largest * 1e-15).powi(2));
                vec![("n", n, 0.0), mean, m2, least, greatest]
            }
        }
    }
}

/// The largest error over its bound, where all results are what they have to be.
///
/// # Errors
/// The first that is not, in words.
pub(super) fn judge(
    line: &ReductionLine,
    found: &[Vec<f64>],
    expected: &[Expected],
) -> Result<f64, String> {
    if found.len() != expected.len() {
        return Err(format!("{} results instead of {}", found.len(), expected.len()));
    }
    let mut worst = 0.0f64;
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let fields = expected.fields(line);
        if found.len() != fields.len() {
            return Err(format!("{} numbers of a result instead of {}", found.len(), fields.len()));
        }
        for (found, (name, expected, bound)) in found.iter().zip(fields) {
            worst = worst.max(within(|| format!("{name} of result {i}"), *found, expected, bound)?);
        }
    }
    Ok(worst)
}

/// The error over its bound; one that is not within it is an error, a NaN too.
pub(super) fn within(
    what: impl FnOnce() -> String,
    found: f64,
    expected: f64,
    bound: f64,
) -> Result<f64, String> {
    let error = (found - expected).abs();
    if error <= bound {
        return Ok(if bound > 0.0 { error / bound } else { 0.0 });
    }
    Err(format!("{} is {found:e}, not {expected:e} (bound {bound:e})", what()))
}

#[cfg(test)]
mod tests {
    use super::super::line::{Scalar, reductions};
    use super::*;

    fn line(quantity: Quantity, shape: Shape) -> ReductionLine {
        ReductionLine { quantity, shape, scalar: Scalar::F32, way: Way::Hierarchical }
    }

    #[test]
    fn every_type_sees_positive_numbers_on_both_sides_of_its_threshold() {
        fn check<T: Element + Pod>(pattern: &Pattern) {
            let line = line(Quantity::Count, Shape::Flat { elements: 10_000 });
            let all = expected::<T>(pattern, &line);
            let [found] = all[..] else { panic!("one result") };
            assert!(found.min.0 > 0.0 && found.max.0.is_finite() && found.n == 10_000, "{found:?}");
            assert!(found.above > 1000 && found.above < 9000, "{found:?}");
        }
        let pattern = Pattern::new();
        assert_eq!(pattern.bytes().len(), Pattern::BYTES);
        // The first word of the generator, low byte first.
        let first = 0x3f80_3f80 | (1_664_525_u32.wrapping_add(1_013_904_223)) >> 9 & 0x007f_007f;
        assert_eq!(pattern.bytes()[..4], first.to_le_bytes());
        check::<f32>(&pattern);
        check::<half::bf16>(&pattern);
        check::<f64>(&pattern);
        check::<i32>(&pattern);
        check::<i64>(&pattern);
    }

    #[test]
    fn shapes_are_cut_as_they_say() {
        let pattern = Pattern::new();
        let x: Vec<f64> = (0..60).map(pattern.elements::<f32>()).collect();
        let sums = |shape, quantity| -> Vec<f64> {
            expected::<f32>(&pattern, &line(quantity, shape)).iter().map(|e| e.sum).collect()
        };
        let near = |found: Vec<f64>, by: &[f64]| {
            assert_eq!(found.len(), by.len());
            found.iter().zip(by).for_each(|(a, b)| assert!((a - b).abs() < 1e-12, "{a} {b}"));
        };
        let total = |range: std::ops::Range<usize>| x[range].iter().sum::<f64>();
        let segments = Shape::Segments { elements: 10, segment: 4 };
        near(sums(segments, Quantity::Sum), &[total(0..4), total(4..8), total(8..10)]);
        let columns = Shape::Columns { rows: 2, columns: 3 };
        near(sums(columns, Quantity::Sum), &[x[0] + x[3], x[1] + x[4], x[2] + x[5]]);
        let by: Vec<f64> = (0..3).map(|j| x[j] * x[6 + j] + x[3 + j] * x[9 + j]).collect();
        near(sums(columns, Quantity::Products), &by);
        let chunks = Shape::Chunks { rows: 2, columns: 3, chunk: 2 };
        near(sums(chunks, Quantity::Statistics), &[x[0] + x[1] + x[3] + x[4], x[2] + x[5]]);
    }

    #[test]
    fn what_is_off_by_more_than_its_bound_is_named() {
        let pattern = Pattern::new();
        let line = line(Quantity::Statistics, Shape::Segments { elements: 1000, segment: 300 });
        let expected = expected::<f32>(&pattern, &line);
        let exact = |e: &Expected| -> Vec<f64> { e.fields(&line).iter().map(|f| f.1).collect() };
        let mut found: Vec<Vec<f64>> = expected.iter().map(exact).collect();
        assert_eq!(judge(&line, &found, &expected), Ok(0.0));
        found[2][1] *= 1.0 + 1e-13;
        let worst = judge(&line, &found, &expected).expect("within its bound");
        assert!(worst > 0.0 && worst < 1.0, "{worst}");
        found[2][1] += 1e-6;
        let error = judge(&line, &found, &expected).expect_err("it is off");
        assert!(error.contains("mean of result 2"), "{error}");
        found[2][1] = f64::NAN;
        assert!(judge(&line, &found, &expected).is_err());
        found.pop();
        let error = judge(&line, &found, &expected).expect_err("one is missing");
        assert_eq!(error, "3 results instead of 4");
    }

    #[test]
    fn every_line_has_fields_to_be_judged_by() {
        let pattern = Pattern::new();
        let small = line(Quantity::Sum, Shape::Flat { elements: 100 });
        let [one] = expected::<f32>(&pattern, &small)[..] else { panic!("one result") };
        for line in reductions(false, None) {
            assert!(!one.fields(&line).is_empty(), "{line}");
        }
    }
}
