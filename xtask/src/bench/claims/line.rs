//! What is held against what: claims × workloads × two ways of doing the same.

use std::fmt;

use kasmina_core::DType;
use serde::{Deserialize, Serialize};

use super::super::case::{Case, Matrices, Seeds, Work, has_words};

/// What the source system promised a gain for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Claim {
    /// "TMA", for what memory bounds.
    Tma,
    /// "Shared-memory backward".
    Backward,
    /// "Hierarchical reduction".
    Reduction,
    /// "Persistent kernels".
    Persistence,
    /// All of them, on mixed workloads.
    Together,
}

impl Claim {
    /// From the least to the most, in percent.
    #[must_use]
    pub fn promised(self) -> (f64, f64) {
        match self {
            Self::Tma => (30.0, 50.0),
            Self::Backward => (25.0, 40.0),
            Self::Reduction => (20.0, 35.0),
            Self::Persistence => (15.0, 25.0),
            Self::Together => (70.0, 150.0),
        }
    }

    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Tma, Self::Backward, Self::Reduction, Self::Persistence, Self::Together];
}

/// Layers of [`Steps`]: all chunks have an expansion on path that trains.
pub const CHUNK: usize = 64;

/// Forward through some layers and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Steps {
    /// So small that launching them takes longer than running them.
    Small,
    /// So large that the memory's speed is all that counts.
    Large,
    /// One after the other.
    Mix,
}

impl Steps {
    /// Layers, and their matrices; of the mix those of both.
    #[must_use]
    pub fn stacks(self) -> Vec<(usize, Matrices)> {
        let small = (48, Matrices { rows: 32, hidden: 768, dtype: DType::F32 });
        let large = (8, Matrices { rows: 8192, hidden: 4096, dtype: DType::Bf16 });
        match self {
            Self::Small => vec![small],
            Self::Large => vec![large],
            Self::Mix => vec![small, large],
        }
    }
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// A pass of one layer.
    Pass(Case),
    /// Σ of so many f32.
    Sum {
        /// How many.
        elements: usize,
    },
    /// Σ of each of the equal segments of so many f32.
    Segments {
        /// How many.
        elements: usize,
        /// Elements of a segment.
        segment: usize,
    },
    /// Statistics of the chunks of a matrix.
    Chunks {
        /// Which.
        matrices: Matrices,
        /// Columns of a chunk.
        chunk: usize,
    },
    /// Forward and backward through many layers.
    Steps(Steps),
}

/// How it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// The source's design: a program for each row and seed, pointer loads, raw telemetry reduced by a launch a metric, gradients by
    /// float atomics.
    Programs,
    /// Our kernels with the rung of 16-byte loads forced.
    PlainLoads,
    /// Our kernels by the rung that the ladder chooses.
    Ladder,
    /// Atomics for each element.
    AtomicElements,
    /// Atomics for each warp.
    AtomicWarps,
    /// Atomics for each row and seed.
    AtomicRows,
    /// One thread for each segment.
    ThreadASegment,
    /// One thread for each seed.
    ThreadASeed,
    /// Our reductions.
    Hierarchical,
    /// Our passes, launched one by one.
    Launches,
    /// The small layers' passes as a CUDA graph, the large ones' launched.
    Graph,
    /// The small layers' passes by the resident grid, the large ones' launched.
    Grid,
}

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// What was promised a gain.
    pub claim: Claim,
    /// What is done.
    pub workload: Workload,
    /// How it is done without.
    pub off: Way,
    /// How it is done with it.
    pub on: Way,
}

impl Line {
    /// Whether the resident grid is on the device for it.
    #[must_use]
    pub fn needs_grid(&self) -> bool {
        [self.off, self.on].contains(&Way::Grid)
    }
}

/// Elements of the flat reductions: 64 MiB, the matrix of the others.
const ELEMENTS: usize = 1 << 24;

/// Every line that has all words of `only`.
#[must_use]
pub fn lines(only: Option<&str>) -> Vec<Line> {
    let pass = |work, seeds, dtype| {
        let matrices = Matrices { rows: 8192, hidden: 8192, dtype };
        Workload::Pass(Case { work, seeds, chunk: CHUNK, matrices })
    };
    let forward = |seeds, dtype| pass(Work::ForwardTelemetry, seeds, dtype);
    let backward = |dtype| pass(Work::Backward, Seeds::ExpansionTrains, dtype);
    let (f32, bf16) = (DType::F32, DType::Bf16);
    let matrices = Matrices { rows: 4096, hidden: 4096, dtype: f32 };
    let sum = Workload::Sum { elements: ELEMENTS };
    let segments = Workload::Segments { elements: ELEMENTS, segment: 64 };
    let chunks = Workload::Chunks { matrices, chunk: CHUNK };
    let [small, large, mix] = [Steps::Small, Steps::Large, Steps::Mix].map(Workload::Steps);
    use Claim::{Backward, Persistence, Reduction, Tma, Together};
    let all = [
        (Tma, forward(Seeds::Dormant, f32), Way::PlainLoads, Way::Ladder),
        (Tma, forward(Seeds::ExpansionTrains, f32), Way::PlainLoads, Way::Ladder),
        (Tma, forward(Seeds::ExpansionTrains, bf16), Way::PlainLoads, Way::Ladder),
        (Tma, backward(f32), Way::PlainLoads, Way::Ladder),
        (Tma, forward(Seeds::Dormant, f32), Way::Programs, Way::Ladder),
        (Tma, forward(Seeds::ExpansionTrains, f32), Way::Programs, Way::Ladder),
        (Tma, forward(Seeds::ExpansionTrains, bf16), Way::Programs, Way::Ladder),
        (Backward, backward(f32), Way::Programs, Way::PlainLoads),
        (Backward, backward(f32), Way::Programs, Way::Ladder),
        (Backward, backward(bf16), Way::Programs, Way::Ladder),
        (Reduction, sum, Way::AtomicElements, Way::Hierarchical),
        (Reduction, sum, Way::AtomicWarps, Way::Hierarchical),
        (Reduction, segments, Way::ThreadASegment, Way::Hierarchical),
        (Reduction, chunks, Way::AtomicRows, Way::Hierarchical),
        (Reduction, chunks, Way::ThreadASeed, Way::Hierarchical),
        (Persistence, small, Way::Launches, Way::Grid),
        (Persistence, small, Way::Launches, Way::Graph),
        (Persistence, small, Way::Graph, Way::Grid),
        (Together, small, Way::Programs, Way::Grid),
        (Together, large, Way::Programs, Way::Launches),
        (Together, mix, Way::Programs, Way::Graph),
        (Together, mix, Way::Programs, Way::Grid),
    ];
    let lines = all.into_iter().map(|(claim, workload, off, on)| Line { claim, workload, off, on });
    lines.filter(|line| has_words(&line.to_string(), only)).collect()
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tma => "TMA",
            Self::Backward => "shared-memory backward",
            Self::Reduction => "hierarchical reduction",
            Self::Persistence => "persistent kernels",
            Self::Together => "together",
        })
    }
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (layers, matrices)) in self.stacks().into_iter().enumerate() {
            let and = if i == 0 { "" } else { " and " };
            write!(f, "{and}{layers} layers of {matrices}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass(case) => case.fmt(f),
            Self::Sum { elements } => write!(f, "sum of {elements} f32"),
            Self::Segments { elements, segment } => {
                write!(f, "sums of segments of {segment} of {elements} f32")
            }
            Self::Chunks { matrices, chunk } => {
                write!(f, "statistics of chunks of {chunk}, {matrices}")
            }
            Self::Steps(steps) => write!(f, "forward and back, {steps}, chunk {CHUNK}"),
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Programs => "a program a row and seed",
            Self::PlainLoads => "our pass, 16-byte loads",
            Self::Ladder => "our pass, best rung",
            Self::AtomicElements => "an atomic an element",
            Self::AtomicWarps => "an atomic a warp",
            Self::AtomicRows => "atomics a row and seed",
            Self::ThreadASegment => "a thread a segment",
            Self::ThreadASeed => "a thread a seed",
            Self::Hierarchical => "hierarchical",
            Self::Launches => "our passes, launched",
            Self::Graph => "graph",
            Self::Grid => "resident grid",
        })
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}, {} against {}", self.claim, self.workload, self.on, self.off)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_claim_has_lines_and_every_line_is_there_once() {
        let all = lines(None);
        for claim in Claim::ALL {
            let (least, most) = claim.promised();
            assert!(0.0 < least && least < most, "{claim}");
            assert!(all.iter().any(|line| line.claim == claim), "{claim}");
        }
        for (i, line) in all.iter().enumerate() {
            assert!(!all[..i].contains(line), "{line} twice");
            assert_ne!(line.off, line.on, "{line}");
        }
        // A claim's lines stand together, in the order of the claims.
        let order = |line: &Line| Claim::ALL.iter().position(|claim| *claim == line.claim);
        assert!(all.is_sorted_by_key(order));
    }

    #[test]
    fn a_filter_takes_the_lines_that_have_all_its_words() {
        let names =
            |text| -> Vec<String> { lines(Some(text)).iter().map(ToString::to_string).collect() };
        assert_eq!(
            names("TMA 8192x8192 dormant 16-byte"),
            [
                "TMA: forward + telemetry, dormant, 8192×8192 f32, chunk 64, our pass, best rung against our pass, 16-byte loads"
            ]
        );
        let mix = "48 layers of 32×768 f32 and 8 layers of 8192×4096 bf16";
        assert!(names("together graph")[0].contains(mix));
        assert_eq!(names("persistent").len(), 3);
        assert_eq!(names("").len(), lines(None).len());
        assert!(names("sideways").is_empty());
    }
}
