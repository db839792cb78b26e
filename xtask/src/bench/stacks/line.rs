//! Which stacks are measured: shapes × seeds × passes × ways.

use std::fmt;

use kasmina_core::{Blueprint, InitialSeed, Layer, Objective, Result, SeedLayout, State, Strategy};
use kasmina_sys::ComputeCapability;
use serde::{Deserialize, Serialize};

use super::super::case::has_words;

/// Layers of a stack.
pub const LAYERS: usize = 48;
/// Steps whose latency is timed, for each repetition of the other lines.
pub const STEPS_A_REPETITION: usize = 100;

/// Steps of a graft: far more than are timed.
const GRAFT_STEPS: u32 = 1_000_000;

/// Rows, columns, and columns of a seed: 16 seeds a layer.
const SHAPES: [(usize, usize, usize); 3] = [(32, 768, 48), (8, 4096, 256), (256, 1024, 64)];
/// All, the denominator first; those that keep a grid on the device come last.
const WAYS: [Way; 11] = [
    Way::Launches,
    Way::GraphWithRoom,
    Way::Graph,
    Way::GraphProgrammatic,
    Way::WholeStack,
    Way::WholeStackCaptured,
    Way::Items,
    Way::ItemsCaptured,
    Way::Grid,
    Way::GridWaited,
    Way::GridFromDevice,
];
/// As many of them can do a whole step.
const STEPS: usize = 4;
const LATENCY_SHAPES: [(usize, usize, usize); 2] = [(1, 64, 64), (32, 768, 48)];

/// What the layers' seeds do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Life {
    /// Nothing.
    Dormant,
    /// Every second one is a residual in fine-tuning.
    Residuals,
    /// One in four is an expansion that trains on the task's loss beside the output; each step ends with `advance_step`.
    Training,
    /// The same are grafted in, alpha moving in every step.
    Grafting,
}

/// What of a step is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Passes {
    /// Forward through all layers.
    Forward,
    /// And back.
    Both,
    /// And the optimizer's step, and `advance_step`.
    Step,
}

/// How it is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// The layers' own calls on a stream.
    Launches,
    /// A `StepGraph` with room for what the lifecycle may bring.
    GraphWithRoom,
    /// A `StepGraph` for what runs now alone.
    Graph,
    /// The same with programmatic edges.
    GraphProgrammatic,
    /// A `LayerStack`: all layers in one launch, or a few.
    WholeStack,
    /// Its launches captured and replayed, so that the host has no part in it.
    WholeStackCaptured,
    /// The grid's own items, by a launch each.
    Items,
    /// Those launches captured and replayed.
    ItemsCaptured,
    /// A `PersistentExecutor` with the next steps queued behind each.
    Grid,
    /// The same, each step waited for on the host.
    GridWaited,
    /// The same, handed over by a kernel of the stream.
    GridFromDevice,
}

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackLine {
    /// Rows of each matrix, f32.
    pub rows: usize,
    /// Columns.
    pub hidden: usize,
    /// Columns of a seed.
    pub chunk: usize,
    /// What the seeds do.
    pub life: Life,
    /// What is timed.
    pub passes: Passes,
    /// How it is executed.
    pub way: Way,
}

/// What runs a step whose latency is timed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// A `StepRunner` that launches.
    Launches,
    /// One that replays a graph.
    Graph,
    /// A `PersistentExecutor`.
    #[default]
    Grid,
}

/// One layer forward, submitted and waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyLine {
    /// Rows of each matrix, f32.
    pub rows: usize,
    /// Columns.
    pub hidden: usize,
    /// Columns of a seed.
    pub chunk: usize,
    /// What runs it; older files have the grid alone.
    #[serde(default)]
    pub by: Service,
}

/// The layers of a stack, which its ways share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layers {
    /// Rows of each matrix.
    pub rows: usize,
    hidden: usize,
    chunk: usize,
    life: Life,
}

impl Way {
    /// Whether a launch has all layers, or a grid that stays: not one or more for each layer.
    #[must_use]
    pub fn stays(self) -> bool {
        use Way::{Grid, GridFromDevice, GridWaited, WholeStack, WholeStackCaptured};
        matches!(self, WholeStack | WholeStackCaptured | Grid | GridWaited | GridFromDevice)
    }

    /// Whether a device of this capability has it.
    #[must_use]
    pub fn is_possible(self, capability: ComputeCapability) -> bool {
        self != Self::GraphProgrammatic || capability >= ComputeCapability::new(9, 0)
    }
}

impl Passes {
    /// Passes of a layer; a whole step counts as one.
    #[must_use]
    pub fn count(self) -> usize {
        match self {
            Self::Forward | Self::Step => 1,
            Self::Both => 2,
        }
    }
}

impl StackLine {
    /// What its layers are.
    #[must_use]
    pub fn layers(&self) -> Layers {
        let Self { rows, hidden, chunk, life, .. } = *self;
        Layers { rows, hidden, chunk, life }
    }

    /// Whether a step leaves the layers other than it found them: every way then begins with new ones.
    #[must_use]
    pub fn advances(&self) -> bool {
        self.passes == Passes::Step || matches!(self.life, Life::Training | Life::Grafting)
    }

    /// One of the layers, not yet on a device.
    ///
    /// # Errors
    /// A chunk that does not fit the columns.
    pub fn layer(&self) -> Result<Layer> {
        let layout = SeedLayout::new(self.hidden, self.chunk)?;
        let mut builder = Layer::builder(layout);
        if let Some((every, initial)) = self.life.initial() {
            for seed in (0..layout.seeds()).step_by(every) {
                builder = builder.seed(seed, initial.clone());
            }
        }
        builder.build()
    }
}

impl Life {
    /// How far the seeds are apart that do something, and what they begin as.
    fn initial(self) -> Option<(usize, InitialSeed)> {
        let expansion = |state| InitialSeed {
            state,
            alpha: 0.0,
            blueprint: Some(Blueprint::MlpExpansion),
            strategy: Strategy::FixedRamp { steps: GRAFT_STEPS },
            ..InitialSeed::default()
        };
        Some(match self {
            Self::Dormant => return None,
            Self::Residuals => {
                let initial = InitialSeed {
                    state: State::FineTuning,
                    alpha: 1.0,
                    blueprint: Some(Blueprint::Residual),
                    objective: Objective::StraightThrough,
                    strategy: Strategy::FixedRamp { steps: 1 },
                    parameters: None,
                };
                (2, initial)
            }
            Self::Training => (4, expansion(State::Training)),
            Self::Grafting => (4, expansion(State::Grafting)),
        })
    }
}

impl LatencyLine {
    /// The layer, not yet on a device.
    ///
    /// # Errors
    /// A chunk that does not fit the columns.
    pub fn layer(&self) -> Result<Layer> {
        Layer::builder(SeedLayout::new(self.hidden, self.chunk)?).build()
    }
}

/// Every stack whose line has all words of `only`; lines of the same layers stand together.
#[must_use]
pub fn stacks(quick: bool, only: Option<&str>) -> Vec<StackLine> {
    let shapes = if quick { &SHAPES[..1] } else { &SHAPES[..] };
    let mut lines = Vec::new();
    for &(rows, hidden, chunk) in shapes {
        let mut of = |life, passes, ways: &[Way]| {
            lines.extend(ways.iter().map(|&way| StackLine {
                rows,
                hidden,
                chunk,
                life,
                passes,
                way,
            }));
        };
        for life in [Life::Dormant, Life::Residuals] {
            for passes in [Passes::Forward, Passes::Both] {
                of(life, passes, &WAYS);
            }
        }
        // Neither the grid nor a stack has a way of its own for what comes behind the passes.
        for life in [Life::Training, Life::Grafting] {
            for passes in [Passes::Forward, Passes::Step] {
                of(life, passes, &WAYS[..STEPS]);
            }
        }
    }
    lines.retain(|line| has_words(&line.to_string(), only));
    lines
}

/// Every latency whose line has all words of `only`.
#[must_use]
pub fn latencies(only: Option<&str>) -> Vec<LatencyLine> {
    let all = [Service::Launches, Service::Graph, Service::Grid];
    let line = |(rows, hidden, chunk)| all.map(|by| LatencyLine { rows, hidden, chunk, by });
    let mut lines: Vec<LatencyLine> = LATENCY_SHAPES.into_iter().flat_map(line).collect();
    lines.retain(|line| has_words(&line.to_string(), only));
    lines
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dormant => "dormant",
            Self::Residuals => "half fine-tuning",
            Self::Training => "a quarter training",
            Self::Grafting => "a quarter grafting",
        })
    }
}

impl fmt::Display for Passes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forward => "forward",
            Self::Both => "forward and back",
            Self::Step => "whole step",
        })
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Launches => "stream launches",
            Self::GraphWithRoom => "graph with room",
            Self::Graph => "graph",
            Self::GraphProgrammatic => "graph with programmatic edges",
            Self::WholeStack => "whole-stack kernel",
            Self::WholeStackCaptured => "whole-stack kernel, captured",
            Self::Items => "the grid's items launched",
            Self::ItemsCaptured => "the grid's items as a graph",
            Self::Grid => "resident grid",
            Self::GridWaited => "resident grid, each waited for",
            Self::GridFromDevice => "resident grid, from the device",
        })
    }
}

impl fmt::Display for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rows, hidden, chunk, life } = self;
        write!(f, "stack of {LAYERS}, {life}, {rows}×{hidden} f32, chunk {chunk}")
    }
}

impl fmt::Display for StackLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}, {}", self.layers(), self.passes, self.way)
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Launches => "stream launches",
            Self::Graph => "a graph",
            Self::Grid => "the resident grid",
        })
    }
}

impl fmt::Display for LatencyLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rows, hidden, chunk, by } = self;
        write!(f, "latency of {by}, {rows}×{hidden} f32, chunk {chunk}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_there_once_and_has_its_layer() {
        let all = stacks(false, None);
        assert_eq!(all.len(), SHAPES.len() * 2 * 2 * (WAYS.len() + STEPS));
        for (i, line) in all.iter().enumerate() {
            assert!(!all[..i].contains(line), "{line} twice");
            let layer = line.layer().expect("it fits");
            let busy = layer.lifecycle().grown_seeds().count();
            let expected = match line.life {
                Life::Dormant => 0,
                Life::Residuals => 8,
                Life::Training | Life::Grafting => 4,
            };
            assert_eq!(busy, expected, "{line}");
            // What a step changes has no other ways.
            assert!(!line.advances() || WAYS[..STEPS].contains(&line.way), "{line}");
            assert!(line.advances() || line.passes != Passes::Step);
            assert_eq!(layer.layout().seeds(), 16);
        }
        assert!(stacks(true, None).iter().all(|line| all.contains(line)));
        assert!(latencies(None).iter().all(|line| line.layer().is_ok()));
        // Lines of the same layers are neighbours.
        assert_eq!(all.chunk_by(|a, b| a.layers() == b.layers()).count(), SHAPES.len() * 4);
    }

    #[test]
    fn a_filter_takes_the_lines_that_have_all_its_words() {
        assert_eq!(stacks(true, Some("stack dormant forward graph")).len(), 8);
        assert_eq!(stacks(false, Some("8x4096 resident back")).len(), 6);
        assert_eq!(stacks(true, Some("whole-stack")).len(), 8);
        assert_eq!(stacks(true, Some("from the device dormant")).len(), 2);
        assert_eq!(stacks(true, Some("whole step grafting")).len(), 4);
        assert!(stacks(false, Some("bf16")).is_empty());
        assert_eq!(latencies(Some("latency 1x64")).len(), 3);
        assert_eq!(latencies(Some("latency grid")).len(), 2);
        // What the command before this one wrote.
        let old = r#"{"rows":1,"hidden":64,"chunk":64}"#;
        let old: LatencyLine = serde_json::from_str(old).expect("it is read");
        assert_eq!(old.to_string(), "latency of the resident grid, 1×64 f32, chunk 64");
        assert!(latencies(Some("stack")).is_empty());
    }

    #[test]
    fn programmatic_edges_are_asked_of_devices_that_have_them() {
        let ways = |capability| -> usize {
            let possible = |line: &&StackLine| line.way.is_possible(capability);
            stacks(true, None).iter().filter(possible).count()
        };
        assert_eq!(ways(ComputeCapability::new(9, 0)), 60);
        assert_eq!(ways(ComputeCapability::new(8, 9)), 52);
    }
}
