//! Which reductions are measured: quantities × shapes × types × ways.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::super::case::has_words;

/// Columns and rows of the matrices: 256 MiB in either type.
const ROWS: usize = 8192;
/// Elements that are cut into segments.
const SEGMENTED: usize = 1 << 26;
const SEGMENTS: [usize; 6] = [16, 63, 64, 256, 4096, 1 << 20];
const QUICK_SEGMENTS: [usize; 4] = [16, 64, 4096, 1 << 20];
/// The short segments of [`Shape::Uneven`].
pub(super) const SHORT: usize = 64;

/// What is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quantity {
    /// Σ x.
    Sum,
    /// Least and greatest value.
    Bounds,
    /// The same with the places of their first occurrence.
    Extrema,
    /// Sum, sum of squares and extremes with places, in one read.
    Summary,
    /// How many elements are greater than a threshold.
    Count,
    /// Mean, Σ (x − mean)² and extremes, in one read.
    Statistics,
    /// Σ over rows of the products of two matrices' elements, for each column.
    Products,
}

/// Of which elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// Of all of so many.
    Flat {
        /// As many.
        elements: usize,
    },
    /// Of each so many consecutive ones.
    Segments {
        /// All together.
        elements: usize,
        /// Of a segment.
        segment: usize,
    },
    /// The same, the segments given by offsets.
    Offsets {
        /// All together.
        elements: usize,
        /// From one offset to the next.
        segment: usize,
    },
    /// Between offsets: half of the elements in one segment, the others in segments of 64.
    Uneven {
        /// All together.
        elements: usize,
    },
    /// Of each column of a row-major matrix.
    Columns {
        /// Rows.
        rows: usize,
        /// Columns.
        columns: usize,
    },
    /// Of each so many columns of a row-major matrix, as a layer's seeds are.
    Chunks {
        /// Rows.
        rows: usize,
        /// Columns.
        columns: usize,
        /// Columns of a chunk.
        chunk: usize,
    },
}

/// Of what type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scalar {
    /// `f32`.
    F32,
    /// `bf16`.
    Bf16,
    /// `f64`.
    F64,
    /// `i32`.
    I32,
    /// `i64`.
    I64,
}

/// In which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// Partial results in a tree, launched by default: what a user gets who says nothing.
    Hierarchical,
    /// Partial results folded into atomic cells.
    Atomic,
    /// One worker for each result.
    Direct,
    /// As the first, launched in the way that was measured to be fastest for the length, in this run.
    Tuned,
}

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReductionLine {
    /// What is computed.
    pub quantity: Quantity,
    /// Of which elements.
    pub shape: Shape,
    /// Of what type.
    #[serde(rename = "dtype")]
    pub scalar: Scalar,
    /// In which way.
    pub way: Way,
}

impl Scalar {
    /// Bytes of an element.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::Bf16 => 2,
            Self::F32 | Self::I32 => 4,
            Self::F64 | Self::I64 => 8,
        }
    }
}

impl Shape {
    /// Elements that are read of one array.
    #[must_use]
    pub fn elements(self) -> usize {
        match self {
            Self::Flat { elements }
            | Self::Segments { elements, .. }
            | Self::Offsets { elements, .. }
            | Self::Uneven { elements } => elements,
            Self::Columns { rows, columns } | Self::Chunks { rows, columns, .. } => rows * columns,
        }
    }

    /// Where segments of a row of elements begin and end; `None` where they are none of a row.
    #[must_use]
    pub fn cuts(self) -> Option<Vec<u64>> {
        let every = |elements: usize, segment: usize| {
            let ends = (0..elements).step_by(segment).chain([elements]);
            ends.map(|end| end as u64).collect::<Vec<_>>()
        };
        match self {
            Self::Flat { elements } => Some(vec![0, elements as u64]),
            Self::Segments { elements, segment } | Self::Offsets { elements, segment } => {
                Some(every(elements, segment))
            }
            Self::Uneven { elements } => {
                // A quarter in short segments on each side of the long one.
                let (from, to) = (elements / 4, elements - elements / 4);
                let short = (0..=from).step_by(SHORT).chain((to..=elements).step_by(SHORT));
                Some(short.map(|cut| cut as u64).collect())
            }
            Self::Columns { .. } | Self::Chunks { .. } => None,
        }
    }
}

impl ReductionLine {
    /// Bytes that are read.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let arrays = if self.quantity == Quantity::Products { 2 } else { 1 };
        arrays * self.shape.elements() * self.scalar.bytes()
    }

    /// Whether CUB has the same: sums and, for our extremes, maxima of f32, flat and in segments, which it takes from offsets alone.
    #[must_use]
    pub fn has_cub(&self) -> bool {
        let quantity = matches!(self.quantity, Quantity::Sum | Quantity::Bounds);
        let shape = !matches!(self.shape, Shape::Columns { .. } | Shape::Chunks { .. });
        quantity && shape && self.scalar == Scalar::F32 && self.way == Way::Hierarchical
    }
}

/// Every reduction whose line has all words of `only`, each once. A quick run has fewer lengths and types, and one way.
#[must_use]
pub fn reductions(quick: bool, only: Option<&str>) -> Vec<ReductionLine> {
    let mut lines = Vec::new();
    flat(quick, &mut lines);
    segments(quick, &mut lines);
    matrices(quick, &mut lines);
    if !quick {
        strategies(&mut lines);
        tuned(&mut lines);
    }
    let mut once: Vec<ReductionLine> = Vec::new();
    for line in lines {
        if has_words(&line.to_string(), only) && !once.contains(&line) {
            once.push(line);
        }
    }
    once
}

fn default(quantity: Quantity, shape: Shape, scalar: Scalar) -> ReductionLine {
    ReductionLine { quantity, shape, scalar, way: Way::Hierarchical }
}

fn flat(quick: bool, lines: &mut Vec<ReductionLine>) {
    let step = if quick { 4 } else { 2 };
    for log in (12..=30).step_by(step).chain([30]) {
        for quantity in [Quantity::Sum, Quantity::Bounds] {
            lines.push(default(quantity, Shape::Flat { elements: 1 << log }, Scalar::F32));
        }
    }
    // 1 GiB of each.
    let types = [Scalar::F32, Scalar::Bf16, Scalar::F64, Scalar::I32];
    for scalar in types.into_iter().take(if quick { 2 } else { types.len() }) {
        for quantity in [
            Quantity::Sum,
            Quantity::Bounds,
            Quantity::Extrema,
            Quantity::Count,
            Quantity::Summary,
            Quantity::Statistics,
        ] {
            let elements = (1 << 30) / scalar.bytes();
            lines.push(default(quantity, Shape::Flat { elements }, scalar));
        }
    }
}

fn segments(quick: bool, lines: &mut Vec<ReductionLine>) {
    let elements = SEGMENTED;
    for &segment in if quick { &QUICK_SEGMENTS[..] } else { &SEGMENTS[..] } {
        for quantity in [Quantity::Sum, Quantity::Bounds, Quantity::Statistics] {
            lines.push(default(quantity, Shape::Segments { elements, segment }, Scalar::F32));
        }
        lines.push(default(Quantity::Sum, Shape::Offsets { elements, segment }, Scalar::F32));
    }
    lines.push(default(Quantity::Sum, Shape::Uneven { elements }, Scalar::F32));
}

fn matrices(quick: bool, lines: &mut Vec<ReductionLine>) {
    let types = [(Scalar::F32, 8192), (Scalar::Bf16, 16384)];
    let chunks: &[usize] = if quick { &[64] } else { &[1, 64, 4096] };
    for (scalar, columns) in types.into_iter().take(if quick { 1 } else { types.len() }) {
        for quantity in [Quantity::Sum, Quantity::Bounds, Quantity::Products] {
            lines.push(default(quantity, Shape::Columns { rows: ROWS, columns }, scalar));
        }
        for &chunk in chunks {
            let shape = Shape::Chunks { rows: ROWS, columns, chunk };
            lines.push(default(Quantity::Statistics, shape, scalar));
        }
    }
}

/// The three strategies at the same work.
fn strategies(lines: &mut Vec<ReductionLine>) {
    for way in [Way::Hierarchical, Way::Atomic, Way::Direct] {
        let mut line = |quantity, shape, scalar| {
            lines.push(ReductionLine { quantity, shape, scalar, way });
        };
        // One block over gigabytes takes seconds, and says no more.
        for log in [12, 16, 20, 24, 28].into_iter().filter(|log| way != Way::Direct || *log < 28) {
            for quantity in [Quantity::Sum, Quantity::Extrema, Quantity::Statistics] {
                line(quantity, Shape::Flat { elements: 1 << log }, Scalar::F32);
                if log == 24 {
                    line(quantity, Shape::Flat { elements: 1 << log }, Scalar::I64);
                }
            }
        }
        // Where blocks share a segment.
        let shape = Shape::Segments { elements: SEGMENTED, segment: 1 << 20 };
        line(Quantity::Sum, shape, Scalar::F32);
        line(Quantity::Statistics, shape, Scalar::F32);
        // A quarter of them, since one group of lanes alone takes tens of milliseconds.
        line(Quantity::Sum, Shape::Uneven { elements: SEGMENTED / 4 }, Scalar::F32);
        line(Quantity::Sum, Shape::Columns { rows: ROWS, columns: 8192 }, Scalar::F32);
        let shape = Shape::Chunks { rows: ROWS, columns: 8192, chunk: 64 };
        line(Quantity::Statistics, shape, Scalar::F32);
    }
}

/// The default launch, and the one that is measured for the length. Last: a choice that was measured is kept for later launches.
fn tuned(lines: &mut Vec<ReductionLine>) {
    for way in [Way::Hierarchical, Way::Tuned] {
        for log in (12..=28).step_by(4) {
            for scalar in [Scalar::F32, Scalar::Bf16] {
                for quantity in [Quantity::Sum, Quantity::Bounds, Quantity::Statistics] {
                    let shape = Shape::Flat { elements: 1 << log };
                    lines.push(ReductionLine { quantity, shape, scalar, way });
                }
            }
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sum => "sum",
            Self::Bounds => "least and greatest",
            Self::Extrema => "extremes with places",
            Self::Summary => "all in one read",
            Self::Count => "count",
            Self::Statistics => "statistics",
            Self::Products => "products",
        })
    }
}

/// A power of two as such.
fn power(elements: usize) -> String {
    if elements.is_power_of_two() && elements > 4096 {
        return format!("2^{}", elements.ilog2());
    }
    elements.to_string()
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F64 => "f64",
            Self::I32 => "i32",
            Self::I64 => "i64",
        })
    }
}

impl ReductionLine {
    /// What is reduced, in words.
    #[must_use]
    pub fn subject(&self) -> String {
        let scalar = self.scalar;
        match self.shape {
            Shape::Flat { elements } => format!("{} {scalar}", power(elements)),
            Shape::Segments { elements, segment } => {
                format!("{} {scalar} in segments of {}", power(elements), power(segment))
            }
            Shape::Offsets { elements, segment } => {
                format!("{} {scalar} between offsets {} apart", power(elements), power(segment))
            }
            Shape::Uneven { elements } => {
                let elements = power(elements);
                format!("{elements} {scalar} between offsets, half in one segment, others {SHORT}")
            }
            Shape::Columns { rows, columns } => format!("columns of {rows}×{columns} {scalar}"),
            Shape::Chunks { rows, columns, chunk } => {
                format!("chunks of {chunk} columns of {rows}×{columns} {scalar}")
            }
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hierarchical => "hierarchical",
            Self::Atomic => "atomic",
            Self::Direct => "direct",
            Self::Tuned => "tuned",
        })
    }
}

impl fmt::Display for ReductionLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reduction, {}, {}, {}", self.quantity, self.subject(), self.way)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_there_once_and_names_are_apart() {
        let all = reductions(false, None);
        let mut names: Vec<String> = all.iter().map(ToString::to_string).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all.len());
        let quick = reductions(true, None);
        assert!(quick.iter().all(|line| all.contains(line)) && quick.len() < all.len() / 2);
        assert!(quick.iter().all(|line| line.way == Way::Hierarchical));
        // The lengths that the tables have.
        for log in (12..=30).step_by(2) {
            let line = default(Quantity::Sum, Shape::Flat { elements: 1 << log }, Scalar::F32);
            assert!(all.contains(&line) && line.has_cub(), "{line}");
        }
        for segment in [16, 64, 256, 4096, 1 << 20] {
            let shape = Shape::Segments { elements: SEGMENTED, segment };
            for quantity in [Quantity::Sum, Quantity::Bounds] {
                assert!(all.contains(&default(quantity, shape, Scalar::F32)), "{segment}");
            }
        }
        // Tuning changes what later launches do.
        let first = all.iter().position(|line| line.way == Way::Tuned).expect("some are tuned");
        assert!(all[first..].iter().all(|line| line.way == Way::Tuned));
    }

    #[test]
    fn cuts_are_ascending_and_cover_everything() {
        for line in reductions(false, None) {
            let Some(cuts) = line.shape.cuts() else {
                assert!(!line.has_cub(), "{line}");
                continue;
            };
            let elements = line.shape.elements() as u64;
            assert_eq!((cuts[0], cuts[cuts.len() - 1]), (0, elements), "{line}");
            assert!(cuts.is_sorted_by(|a, b| a < b), "{line}");
            if let Shape::Uneven { .. } = line.shape {
                let lengths: Vec<u64> = cuts.windows(2).map(|cut| cut[1] - cut[0]).collect();
                assert_eq!(lengths.iter().filter(|length| **length == elements / 2).count(), 1);
                assert!(lengths.iter().all(|length| [64, elements / 2].contains(length)));
            }
        }
        let shape = Shape::Segments { elements: 10, segment: 4 };
        assert_eq!(shape.cuts(), Some(vec![0, 4, 8, 10]));
    }

    #[test]
    fn a_filter_takes_the_lines_that_have_all_its_words() {
        assert_eq!(reductions(true, Some("reduction sum f32 2^28")).len(), 1);
        assert_eq!(reductions(false, Some("segments of 64 sum")).len(), 1);
        assert_eq!(reductions(false, Some("8192x8192 columns products")).len(), 1);
        assert!(reductions(false, Some("stack")).is_empty());
        let bytes = |only| reductions(false, Some(only))[0].bytes();
        assert_eq!(bytes("products f32"), 512 << 20);
        assert_eq!(bytes("count bf16"), 1 << 30);
    }
}
