//! What is reduced: kernels' names, and the memory in which what blocks find comes together.

/// Words of a fixed-point sum: `kExactWords` of `kernels/reduce_exact.cuh`.
const EXACT: u64 = 68;

/// A flat reduction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flat {
    /// Σ x.
    Sum,
    /// Extremes and their places.
    Extrema,
    /// Extremes.
    Bounds,
    /// Sum, sum of squares, extremes and their places.
    Summary,
    /// The count of a predicate.
    Count,
    /// Welford's state with extremes.
    Statistics,
}

impl Flat {
    /// As kernels are named.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Extrema => "extrema",
            Self::Bounds => "bounds",
            Self::Summary => "summary",
            Self::Count => "count",
            Self::Statistics => "statistics",
        }
    }

    /// Whether there are kernels with eight loads under way.
    pub(super) fn has_eight(self) -> bool {
        matches!(self, Self::Sum | Self::Extrema | Self::Bounds)
    }

    /// Words of the cells of one result, as `kernels/reduce_cells.cuh` asserts them.
    pub(super) fn cell_words(self, float: bool) -> u64 {
        match self {
            Self::Sum => sum_words(float),
            Self::Extrema => 4,
            Self::Bounds => 3,
            Self::Summary => sum_words(float) + EXACT + 4,
            Self::Count => 1,
            Self::Statistics => 5 + 2 * EXACT,
        }
    }
}

/// A reduction of segments or of columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quantity {
    Sum,
    Extrema,
    Statistics,
}

impl Quantity {
    /// As kernels are named.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Extrema => "extrema",
            Self::Statistics => "statistics",
        }
    }

    /// Bytes of a partial result, of values of `value` bytes.
    pub(super) fn record_bytes(self, value: usize) -> u64 {
        let extremes = (2 * value as u64).next_multiple_of(8);
        match self {
            Self::Sum => 16,
            Self::Extrema => 8 + extremes,
            Self::Statistics => 40 + extremes,
        }
    }

    /// Words of the cells of one result.
    pub(super) fn cell_words(self, float: bool) -> u64 {
        match self {
            Self::Sum => sum_words(float),
            Self::Extrema => 3,
            Self::Statistics => 5 + 2 * EXACT,
        }
    }
}

fn sum_words(float: bool) -> u64 {
    if float { EXACT + 1 } else { 2 }
}

/// How what several blocks find of one result comes together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meeting {
    /// Records of so many bytes, merged in a tree.
    Tree { record_bytes: u64 },
    /// Cells of so many words, into which they are folded.
    Cells { words: u64 },
}
