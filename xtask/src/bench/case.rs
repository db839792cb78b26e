//! What is measured: passes × shapes × chunks × types, and the bytes that each moves.

use std::fmt;

use kasmina_core::{DType, Layer, SeedLayout, Stability};
use serde::{Deserialize, Serialize};

pub use super::seeds::Seeds;

/// What runs the passes, which decides how large the matrices are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// Large and middling matrices, one whose time is that of its launches, and a tall one.
    Gpu,
    /// The same without the largest, which takes seconds, and gigabytes for a cold cache.
    Cpu,
}

impl On {
    /// Rows and columns.
    #[must_use]
    pub fn shapes(self, quick: bool) -> &'static [(usize, usize)] {
        match (self, quick) {
            (Self::Gpu, false) => {
                &[(8192, 8192), (4096, 4096), (1024, 4096), (32, 768), (65536, 768)]
            }
            (Self::Gpu, true) => &[(8192, 8192), (32, 768)],
            (Self::Cpu, false) => &[(4096, 4096), (1024, 4096), (32, 768), (65536, 768)],
            (Self::Cpu, true) => &[(4096, 4096), (32, 768)],
        }
    }

    /// That at which peers are timed.
    #[must_use]
    pub fn peers_shape(self) -> (usize, usize) {
        match self {
            Self::Gpu => (8192, 8192),
            Self::Cpu => (4096, 4096),
        }
    }
}

const CHUNKS: [usize; 3] = [16, 64, 512];
const QUICK_CHUNKS: [usize; 1] = [64];
const DTYPES: [DType; 2] = [DType::F32, DType::Bf16];

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// x to y.
    Forward,
    /// The same, and x counted into the seeds' statistics.
    ForwardTelemetry,
    /// The same with y in the place of x.
    ForwardInPlace,
    /// g to `grad_x`, all parameter gradients, and g counted into the seeds' gradient statistics.
    Backward,
    /// Forward with telemetry, backward.
    ForwardBackward,
    /// The same, optimizer, `advance_step`.
    Step,
}

const PASSES: [(Work, Seeds); 20] = [
    (Work::Forward, Seeds::Dormant),
    (Work::ForwardTelemetry, Seeds::Dormant),
    (Work::ForwardInPlace, Seeds::Dormant),
    (Work::Forward, Seeds::Residual),
    (Work::ForwardTelemetry, Seeds::Residual),
    (Work::Backward, Seeds::Dormant),
    (Work::Backward, Seeds::ResidualTrains),
    (Work::Backward, Seeds::ExpansionTrains),
    (Work::ForwardBackward, Seeds::ExpansionTrains),
    (Work::Step, Seeds::OneInEight),
    (Work::ForwardTelemetry, Seeds::Filter1),
    (Work::ForwardTelemetry, Seeds::Filter3),
    (Work::ForwardTelemetry, Seeds::Filter16),
    (Work::Backward, Seeds::Filter1),
    (Work::Backward, Seeds::Filter3),
    (Work::Backward, Seeds::Filter16),
    (Work::ForwardTelemetry, Seeds::Bottleneck),
    (Work::Backward, Seeds::Bottleneck),
    (Work::ForwardTelemetry, Seeds::Dense),
    (Work::Backward, Seeds::Dense),
];

/// What the device can do at best, measured in the same run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ceiling {
    /// The driver's device-to-device copy of the matrix; on a processor, `memcpy` on one or all threads.
    Copy,
    /// A kernel, or a loop, that reads two such matrices and writes one.
    TwoReadsOneWrite,
    /// A kernel, or a loop, that reads such a matrix.
    Read,
}

/// Matrices that a group of cases shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Matrices {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub hidden: usize,
    /// Storage type.
    pub dtype: DType,
}

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// What is timed.
    pub work: Work,
    /// On which layer.
    pub seeds: Seeds,
    /// Columns of a seed.
    pub chunk: usize,
    /// On which matrices.
    #[serde(flatten)]
    pub matrices: Matrices,
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forward => "forward",
            Self::ForwardTelemetry => "forward + telemetry",
            Self::ForwardInPlace => "in place + telemetry",
            Self::Backward => "backward",
            Self::ForwardBackward => "forward + backward",
            Self::Step => "step",
        })
    }
}

impl fmt::Display for Ceiling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Copy => "copy",
            Self::TwoReadsOneWrite => "2 reads 1 write",
            Self::Read => "1 read",
        })
    }
}

impl fmt::Display for Matrices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}×{} {}", self.rows, self.hidden, self.dtype)
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}, {}, chunk {}", self.work, self.seeds, self.matrices, self.chunk)
    }
}

impl Matrices {
    /// Bytes of one matrix.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        (self.rows * self.hidden) as u64 * self.element_bytes()
    }

    fn element_bytes(&self) -> u64 {
        if self.dtype == DType::F32 { 4 } else { 2 }
    }
}

impl Ceiling {
    /// Bytes that it reads and writes.
    #[must_use]
    pub fn bytes(self, matrices: &Matrices) -> u64 {
        match self {
            Self::Copy => 2 * matrices.bytes(),
            Self::TwoReadsOneWrite => 3 * matrices.bytes(),
            Self::Read => matrices.bytes(),
        }
    }
}

impl Case {
    /// The ceiling that it is compared with: that of the reads and writes that it is made of. For what is made of both, forward
    /// and backward, the copy.
    #[must_use]
    pub fn ceiling(&self) -> Ceiling {
        match (self.work, self.seeds.needs_x()) {
            (Work::Backward, true) => Ceiling::TwoReadsOneWrite,
            (Work::ForwardInPlace, _) if self.seeds == Seeds::Dormant => Ceiling::Read,
            _ => Ceiling::Copy,
        }
    }

    /// Bytes of matrices that are read and written: x and y forward, in place x alone where all is dormant; g and `grad_x` backward, and there also the columns of x
    /// that gradients are computed from. Parameters and optimizer state are not counted.
    ///
    /// # Errors
    /// A chunk that does not fit the columns.
    pub fn bytes(&self) -> kasmina_core::Result<u64> {
        let matrix = self.matrices.bytes();
        Ok(match self.work {
            Work::ForwardInPlace if self.seeds == Seeds::Dormant => matrix,
            Work::Forward | Work::ForwardTelemetry | Work::ForwardInPlace => 2 * matrix,
            Work::Backward => 2 * matrix + self.x_bytes()?,
            Work::ForwardBackward | Work::Step => 4 * matrix + self.x_bytes()?,
        })
    }

    fn x_bytes(&self) -> kasmina_core::Result<u64> {
        if !self.seeds.needs_x() {
            return Ok(0);
        }
        let layout = self.layout()?;
        let busy = (0..layout.seeds()).filter(|seed| self.seeds.is_busy(*seed));
        let columns: usize = busy.map(|seed| layout.columns(seed).len()).sum();
        Ok((columns * self.matrices.rows) as u64 * self.matrices.element_bytes())
    }

    /// Operations of the products of matrices, as the blueprints count them; `None` where bytes alone count.
    ///
    /// # Errors
    /// A chunk that does not fit the columns.
    pub fn operations(&self) -> kasmina_core::Result<Option<u64>> {
        let forward = self.seeds.operations(&self.layout()?, self.matrices.rows);
        let times = match self.work {
            Work::Forward | Work::ForwardTelemetry | Work::ForwardInPlace => 1,
            Work::Backward => 2,
            Work::ForwardBackward | Work::Step => 3,
        };
        Ok(forward.map(|forward| times * forward))
    }

    /// Whether it is measured there: large products of matrices take a processor seconds each.
    fn is_for(&self, on: On) -> bool {
        let chunks: &[usize] = if on == On::Cpu { &QUICK_CHUNKS } else { &CHUNKS };
        !self.seeds.are_matrices() || chunks.contains(&self.chunk)
    }

    /// How the columns are split.
    ///
    /// # Errors
    /// A chunk that does not fit the columns.
    pub fn layout(&self) -> kasmina_core::Result<SeedLayout> {
        SeedLayout::new(self.matrices.hidden, self.chunk)
    }

    /// The layer, not yet on a device.
    ///
    /// # Errors
    /// A chunk that does not fit the columns.
    pub fn layer(&self) -> kasmina_core::Result<Layer> {
        let layout = self.layout()?;
        let mut builder = Layer::builder(layout).stability(Stability::new(self.seeds.mode()));
        for seed in 0..layout.seeds() {
            if let Some(initial) = self.seeds.initial(seed, layout.columns(seed).len())? {
                builder = builder.seed(seed, initial);
            }
        }
        builder.build()
    }
}

/// Whether every word of `text` stands in a line's name, where × may be written x; always without a text.
pub(super) fn has_words(name: &str, text: Option<&str>) -> bool {
    let plain = |text: &str| text.to_lowercase().replace('×', "x");
    let name = plain(name);
    text.is_none_or(|text| plain(text).split_whitespace().all(|word| name.contains(word)))
}

/// Every case that is to be measured; cases of the same matrices stand together.
#[must_use]
pub fn cases(on: On, quick: bool, only: Option<&str>) -> Vec<Case> {
    let shapes = on.shapes(quick);
    let chunks: &[_] = if quick { &QUICK_CHUNKS } else { &CHUNKS };
    let mut cases = Vec::new();
    for &(rows, hidden) in shapes {
        for dtype in DTYPES {
            let matrices = Matrices { rows, hidden, dtype };
            for (work, seeds) in PASSES {
                for &chunk in chunks.iter().filter(|chunk| **chunk <= hidden) {
                    cases.push(Case { work, seeds, chunk, matrices });
                }
            }
        }
    }
    cases.retain(|case| case.is_for(on) && has_words(&case.to_string(), only));
    cases
}

#[cfg(test)]
mod tests {
    use kasmina_core::State;

    use super::*;

    const SMALL: Matrices = Matrices { rows: 10, hidden: 64, dtype: DType::Bf16 };

    fn case(work: Work, seeds: Seeds, chunk: usize) -> Case {
        Case { work, seeds, chunk, matrices: SMALL }
    }

    #[test]
    fn bytes_are_those_of_the_matrices_that_a_pass_touches() {
        let matrix = 10 * 64 * 2;
        let table = [
            (case(Work::Forward, Seeds::Residual, 4), 2 * matrix, Ceiling::Copy),
            (case(Work::ForwardInPlace, Seeds::Dormant, 4), matrix, Ceiling::Read),
            (case(Work::ForwardInPlace, Seeds::Residual, 4), 2 * matrix, Ceiling::Copy),
            (case(Work::Backward, Seeds::Dormant, 4), 2 * matrix, Ceiling::Copy),
            (case(Work::Backward, Seeds::ResidualTrains, 4), 2 * matrix, Ceiling::Copy),
            (
                case(Work::Backward, Seeds::ExpansionTrains, 5),
                3 * matrix,
                Ceiling::TwoReadsOneWrite,
            ),
            (case(Work::ForwardBackward, Seeds::ExpansionTrains, 4), 5 * matrix, Ceiling::Copy),
            (case(Work::Backward, Seeds::Filter3, 4), 3 * matrix, Ceiling::TwoReadsOneWrite),
            (case(Work::ForwardTelemetry, Seeds::Dense, 4), 2 * matrix, Ceiling::Copy),
            // Two of sixteen seeds read their columns of x.
            (case(Work::Step, Seeds::OneInEight, 4), 4 * matrix + matrix / 8, Ceiling::Copy),
        ];
        for (case, bytes, ceiling) in table {
            assert_eq!((case.bytes(), case.ceiling()), (Ok(bytes), ceiling), "{case}");
        }
        // 16 chunks of 4 columns, 10 rows, 2 operations a weight; backward twice as many.
        let forward = 16 * 10 * 2 * 16;
        let operations = |work| case(work, Seeds::Dense, 4).operations();
        assert_eq!(operations(Work::ForwardTelemetry), Ok(Some(forward)));
        assert_eq!(operations(Work::Backward), Ok(Some(2 * forward)));
        assert_eq!(operations(Work::Step), Ok(Some(3 * forward)));
        assert_eq!(Ceiling::Copy.bytes(&SMALL), 2 * matrix);
        assert_eq!(Ceiling::TwoReadsOneWrite.bytes(&SMALL), 3 * matrix);
        assert_eq!(Matrices { dtype: DType::F32, ..SMALL }.bytes(), 2 * matrix);
    }

    #[test]
    fn every_combination_is_there_once_and_fits() {
        let all = cases(On::Gpu, false, None);
        // 512 fits all shapes.
        assert_eq!(
            all.len(),
            On::Gpu.shapes(false).len() * DTYPES.len() * PASSES.len() * CHUNKS.len()
        );
        for (i, case) in all.iter().enumerate() {
            assert!(!all[..i].contains(case), "{case} twice");
            assert!(case.layout().is_ok() && case.bytes().is_ok(), "{case}");
            let operations = case.operations().expect("it fits");
            assert_eq!(operations.is_some(), case.seeds.are_matrices(), "{case}");
        }
        let quick = cases(On::Gpu, true, None);
        assert_eq!(quick.len(), 2 * DTYPES.len() * PASSES.len());
        assert!(quick.iter().all(|case| all.contains(case) && case.chunk == 64));
        // What a processor does, a GPU does, too.
        for quick in [false, true] {
            let cpu = cases(On::Cpu, quick, None);
            assert!(!cpu.is_empty() && cpu.iter().all(|case| all.contains(case)));
            let matrices = |case: &&Case| case.seeds.are_matrices();
            assert!(cpu.iter().filter(matrices).all(|case| case.chunk == 64));
            assert!(cpu.iter().any(|case| matrices(&case)));
            for on in [On::Gpu, On::Cpu] {
                assert!(on.shapes(quick).contains(&on.peers_shape()));
            }
        }
    }

    #[test]
    fn a_filter_takes_the_lines_that_have_all_its_words() {
        let names = |text| -> Vec<String> {
            cases(On::Gpu, true, Some(text)).iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            names("Backward 8192x8192 bf16 residual"),
            ["backward, residual trains, fast, 8192×8192 bf16, chunk 64"]
        );
        assert_eq!(names("step").len(), 4);
        assert_eq!(names("32×768 step").len(), 2);
        assert_eq!(names("").len(), cases(On::Gpu, true, None).len());
        assert!(names("sideways").is_empty());
    }

    #[test]
    fn layers_are_what_their_names_say() {
        let states = |seeds| -> Vec<State> {
            let layer = case(Work::Step, seeds, 4).layer().expect("it fits");
            (0..16).map(|seed| layer.state(seed).expect("a seed")).collect()
        };
        let count =
            |seeds, state| states(seeds).into_iter().filter(|found| *found == state).count();
        assert_eq!(count(Seeds::Dormant, State::Dormant), 16);
        assert_eq!(count(Seeds::Residual, State::Fossilized), 16);
        assert_eq!(count(Seeds::ResidualTrains, State::FineTuning), 8);
        assert_eq!(count(Seeds::ResidualTrains, State::Grafting), 8);
        assert_eq!(count(Seeds::ExpansionTrains, State::Grafting), 16);
        for kind in [Seeds::Filter1, Seeds::Filter3, Seeds::Filter16, Seeds::Bottleneck] {
            assert_eq!(count(kind, State::Grafting), 16, "{kind}");
        }
        assert_eq!(count(Seeds::Dense, State::Grafting), 16);
        assert_eq!(count(Seeds::OneInEight, State::Grafting), 2);
        assert_eq!(count(Seeds::OneInEight, State::Dormant), 14);
    }
}
