//! Forward and back through many layers: by launches of the source's design or of our passes, as a graph, and by the resident grid.
//!
//! The activations of a stack lie one behind the other, and so do its gradients: a small stack stays in the second-level cache, a
//! large one is many times as large.

mod resident;
mod stack;

use half::bf16;
use kasmina_core::SeedLayout;
use kasmina_core::cuda::{CudaError, ExecutorError};

use super::super::case::{Ceiling, Matrices};
use super::super::measure::{Bench, Failure};
use super::agree::Judge;
use super::gain::{Found, Side};
use super::line::{CHUNK, Steps, Way};
use super::passes::fastest;
use resident::Resident;
use stack::Stack;

/// The stacks of both designs, and what has been timed of them. Made for the first line that needs them.
#[derive(Default)]
pub(super) struct Stacks {
    small: Option<Pair<f32>>,
    large: Option<Pair<bf16>>,
    resident: Option<Resident>,
    /// A side is in several lines.
    timed: Vec<((Steps, Way), Side)>,
}

/// The same stack in both designs.
struct Pair<T: kasmina_core::Element> {
    source: Stack<T>,
    ours: Stack<T>,
    /// How far they were from one another.
    disagreement: f64,
}

impl<T: kasmina_core::Element> Pair<T> {
    fn new(bench: &Bench, layers: usize, matrices: Matrices) -> Result<Self, Failure> {
        let mut source = Stack::new(bench, Way::Programs, layers, matrices)?;
        let mut ours = Stack::new(bench, Way::Launches, layers, matrices)?;
        source.run()?;
        ours.run()?;
        let mut judge = Judge::default();
        source.compare(&mut ours, &mut judge)?;
        Ok(Self { source, ours, disagreement: judge.worst() })
    }
}

impl Stacks {
    /// Measures a line.
    pub(super) fn line(
        &mut self,
        bench: &Bench,
        steps: Steps,
        off: Way,
        on: Way,
    ) -> Result<Found, Failure> {
        let needs = |which: Steps| steps == which || steps == Steps::Mix;
        if needs(Steps::Small) && self.small.is_none() {
            let [(layers, matrices), ..] = Steps::Small.stacks()[..] else { return Err(none()) };
            self.small = Some(Pair::new(bench, layers, matrices)?);
        }
        if needs(Steps::Large) && self.large.is_none() {
            let [(layers, matrices), ..] = Steps::Large.stacks()[..] else { return Err(none()) };
            self.large = Some(Pair::new(bench, layers, matrices)?);
        }
        if [off, on].iter().any(|way| matches!(way, Way::Graph | Way::Grid))
            && self.resident.is_none()
        {
            let small = self.small.as_mut().ok_or_else(none)?;
            self.resident = Some(Resident::new(bench, &mut small.ours)?);
        }
        let floor = match steps {
            Steps::Large => Some(self.floor(bench)?),
            Steps::Small | Steps::Mix => None,
        };
        let (off, on) = (self.side(bench, steps, off)?, self.side(bench, steps, on)?);
        // The grid has been checked by now.
        let mut disagreement = 0f64;
        if needs(Steps::Small) {
            disagreement = self.small.as_ref().map_or(0.0, |pair| pair.disagreement);
        }
        if needs(Steps::Large) {
            let large = self.large.as_ref().map_or(0.0, |pair| pair.disagreement);
            disagreement = disagreement.max(large);
        }
        if let Some(resident) = &self.resident {
            disagreement = disagreement.max(resident.disagreement());
        }
        Ok(Found { off, on, floor, disagreement })
    }

    /// One way, timed once for all lines.
    fn side(&mut self, bench: &Bench, steps: Steps, way: Way) -> Result<Side, Failure> {
        if let Some((_, known)) = self.timed.iter().find(|(which, _)| *which == (steps, way)) {
            return Ok(known.clone());
        }
        let side = match way {
            Way::Programs => self.source(bench, steps)?,
            _ => self.ours(bench, steps, way)?,
        };
        self.timed.push(((steps, way), side.clone()));
        Ok(side)
    }

    /// The source's design, by the number of programs a block that is fastest.
    fn source(&mut self, bench: &Bench, steps: Steps) -> Result<Side, Failure> {
        if let Some(resident) = &mut self.resident {
            resident.clear();
        }
        let small = self.small.as_mut().filter(|_| steps != Steps::Large);
        let large = self.large.as_mut().filter(|_| steps != Steps::Small);
        let mut stacks = (small.map(|pair| &mut pair.source), large.map(|pair| &mut pair.source));
        let (timing, how) = fastest(
            bench.clock(),
            &mut stacks,
            |(small, large), programs| {
                small.as_mut().map_or(Ok(()), |stack| stack.set_programs(programs))?;
                large.as_mut().map_or(Ok(()), |stack| stack.set_programs(programs))
            },
            |(small, large), _| {
                small.as_mut().map_or(Ok(()), |stack| stack.run())?;
                large.as_mut().map_or(Ok(()), |stack| stack.run())
            },
        )?;
        let (small, large) = stacks;
        let launches =
            small.map_or(0, |stack| stack.launches()) + large.map_or(0, |stack| stack.launches());
        Ok(Side { timing, launches, how })
    }

    /// Our kernels: small layers as `way` says, large ones launched.
    fn ours(&mut self, bench: &Bench, steps: Steps, way: Way) -> Result<Side, Failure> {
        let mut small = self.small.as_mut().filter(|_| steps != Steps::Large);
        let mut large = self.large.as_mut().filter(|_| steps != Steps::Small);
        let mut resident = self.resident.as_mut();
        match (way, &mut resident) {
            (Way::Grid, Some(resident)) => resident.check_grid()?,
            (_, Some(resident)) => resident.clear(),
            _ => {}
        }
        let timing = bench.clock().time(|_| {
            match (way, &mut small, &mut resident) {
                (_, None, _) => {}
                (Way::Graph, Some(_), Some(resident)) => resident.launch_graph()?,
                (Way::Grid, Some(_), Some(resident)) => resident.launch_on_grid()?,
                // Never another way than the one that is shown.
                (Way::Graph | Way::Grid, Some(_), None) => {
                    return Err(ExecutorError::NotPrepared.into());
                }
                (_, Some(pair), _) => pair.ours.run()?,
            }
            large.as_mut().map_or(Ok(()), |pair| pair.ours.run())
        })?;
        let of_small = match (way, &small) {
            (_, None) => 0,
            (Way::Graph | Way::Grid, Some(_)) => 1,
            (_, Some(pair)) => pair.ours.launches(),
        };
        let launches = of_small + large.map_or(0, |pair| pair.ours.launches());
        let how = match (way, resident) {
            (Way::Graph, _) => "cuGraphLaunch".to_owned(),
            (Way::Grid, Some(resident)) => resident.report(),
            _ => "stream launches".to_owned(),
        };
        Ok(Side { timing, launches, how })
    }

    /// What copies of as many bytes take as the large layers' passes need: x and y; x, dL/dy and dL/dx.
    fn floor(&self, bench: &Bench) -> Result<f64, Failure> {
        let [(layers, matrices), ..] = Steps::Large.stacks()[..] else { return Err(none()) };
        let mut sets = bench.sets::<bf16>(matrices)?;
        let rate = |kind, sets: &mut _| bench.ceiling(kind, matrices, sets, &mut Vec::new());
        let copy = rate(Ceiling::Copy, &mut sets)?;
        let stream = rate(Ceiling::TwoReadsOneWrite, &mut sets)?;
        let bytes = matrices.bytes() as f64;
        Ok(layers as f64 * (2.0 * bytes / copy + 3.0 * bytes / stream))
    }
}

/// Stacks are made before they are asked for.
fn none() -> Failure {
    Failure::text("there is no such stack of layers".to_owned())
}

fn layout(matrices: Matrices) -> Result<SeedLayout, CudaError> {
    Ok(SeedLayout::new(matrices.hidden, CHUNK)?)
}

#[cfg(test)]
mod tests {
    use kasmina_core::DType;

    use super::*;

    #[test]
    fn stacks_are_of_the_types_that_they_are_made_with() {
        let dtypes = |steps: Steps| -> Vec<DType> {
            steps.stacks().iter().map(|(_, matrices)| matrices.dtype).collect()
        };
        assert_eq!(dtypes(Steps::Small), [DType::F32]);
        assert_eq!(dtypes(Steps::Large), [DType::Bf16]);
        assert_eq!(dtypes(Steps::Mix), [DType::F32, DType::Bf16]);
    }
}
