//! Runs the cases of one shape and type on the device, with the ceilings that they need, one after the other.

use std::sync::Arc;

use kasmina_core::cuda::{
    CudaError, CudaLayer, DeviceMatMut, DeviceMatRef, Engine, ReadOnly, TwoReadsOneWrite,
};
use kasmina_core::{AdamW, Element, ForwardOptions};

use super::buffers::{Set, Sets, count};
use super::case::{Case, Ceiling, Matrices, Work};
use super::clock::Clock;
use super::row::{CeilingRow, Measured, Row};

/// A device, ready to be measured.
#[derive(Debug)]
pub struct Bench {
    engine: Arc<Engine>,
    clock: Clock,
    l2: u64,
}

/// What was measured on the matrices of one shape and type.
#[derive(Debug, Default)]
pub struct Group {
    /// The ceilings.
    pub ceilings: Vec<CeilingRow>,
    /// One a case.
    pub rows: Vec<Row>,
    /// Whether the device is lost, and nothing more can be measured.
    pub lost: bool,
}

impl Bench {
    /// A bench on the device of `engine`, with the stream of `clock`; its second-level cache has `l2` bytes.
    #[must_use]
    pub fn new(engine: Arc<Engine>, clock: Clock, l2: u64) -> Self {
        Self { engine, clock, l2 }
    }

    /// Measures `cases`, all of them of `matrices`. What fails is in the rows.
    #[must_use]
    pub fn group<T: Element>(&self, matrices: Matrices, cases: &[Case]) -> Group {
        let mut group = Group::default();
        let mut sets = match self.sets::<T>(matrices) {
            Ok(sets) => sets,
            Err(why) => {
                group.lost = why.lost;
                group.rows.extend(cases.iter().map(|case| Row::failed(*case, &why.text)));
                return group;
            }
        };
        for case in cases {
            if group.lost {
                group.rows.push(Row::failed(*case, "the device was lost before"));
                continue;
            }
            let (measured, throttled) = self.clock.watch().during(|| {
                self.ceiling(case.ceiling(), matrices, &mut sets, &mut group.ceilings)
                    .and_then(|ceiling| self.case(case, &mut sets, ceiling))
            });
            group.rows.push(match measured {
                Ok(measured) => {
                    Row { case: *case, outcome: Ok(Measured { throttled, ..measured }) }
                }
                Err(error) => {
                    group.lost = error.is_sticky();
                    Row::failed(*case, &error.to_string())
                }
            });
        }
        group
    }

    /// Where kernels are.
    pub(super) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// What times.
    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Bytes of the second-level cache.
    pub(super) fn l2(&self) -> u64 {
        self.l2
    }

    pub(super) fn sets<T: Element>(&self, matrices: Matrices) -> Result<Sets<T>, Failure> {
        let context = self.engine.context();
        let (free, _) = context.memory_info().map_err(CudaError::from)?;
        let found =
            count(matrices.bytes(), self.l2, free).map_err(|why| Failure::text(why.to_string()))?;
        Sets::new(self.clock.stream(), matrices.rows, matrices.hidden, found).map_err(Failure::from)
    }

    /// The ceiling, measured before the first case that needs it.
    pub(super) fn ceiling<T: Element>(
        &self,
        kind: Ceiling,
        matrices: Matrices,
        sets: &mut Sets<T>,
        known: &mut Vec<CeilingRow>,
    ) -> Result<f64, CudaError> {
        if let Some(row) = known.iter().find(|row| row.kind == kind) {
            return Ok(row.bytes_per_millisecond());
        }
        let stream = self.clock.stream();
        let found = match kind {
            Ceiling::Copy => {
                let timing = self.clock.time(|turn| {
                    let Set { x, mut y, .. } = sets.set(turn)?;
                    Ok(y.copy_from_device(x, stream)?)
                })?;
                CeilingRow::new(kind, matrices, timing, None)
            }
            Ceiling::TwoReadsOneWrite => {
                let kernel = TwoReadsOneWrite::new(&self.engine)?;
                self.best_grid(kind, matrices, |turn, blocks| {
                    let Set { x, g, mut grad_x, .. } = sets.set(turn)?;
                    kernel.run(stream, x, g, &mut grad_x, blocks)
                })?
            }
            Ceiling::Read => {
                let kernel = ReadOnly::new(&self.engine)?;
                self.best_grid(kind, matrices, |turn, blocks| {
                    let Set { x, mut grad_x, .. } = sets.set(turn)?;
                    kernel.run(stream, x, &mut grad_x, blocks)
                })?
            }
        };
        let rate = found.bytes_per_millisecond();
        known.push(found);
        Ok(rate)
    }

    /// A kernel by the grid that is fastest; `launch` is told the turn and the blocks.
    fn best_grid(
        &self,
        kind: Ceiling,
        matrices: Matrices,
        mut launch: impl FnMut(usize, u32) -> Result<(), CudaError>,
    ) -> Result<CeilingRow, CudaError> {
        let mut best: Option<CeilingRow> = None;
        for blocks in TwoReadsOneWrite::grids(&self.engine, matrices.bytes() as usize) {
            let timing = self.clock.time(|turn| launch(turn, blocks))?;
            let row = CeilingRow::new(kind, matrices, timing, Some(blocks));
            let rate = CeilingRow::bytes_per_millisecond;
            if best.as_ref().is_none_or(|best| rate(&row) > rate(best)) {
                best = Some(row);
            }
        }
        // There is always a grid.
        best.ok_or(CudaError::NoImage)
    }

    fn case<T: Element>(
        &self,
        case: &Case,
        sets: &mut Sets<T>,
        ceiling: f64,
    ) -> Result<Measured, CudaError> {
        let Matrices { rows, hidden, .. } = case.matrices;
        let mut layer = CudaLayer::from_layer(&case.layer()?, &self.engine, self.clock.stream())?;
        let (measured, plain) = (ForwardOptions::new(), ForwardOptions::new().without_telemetry());
        let optimizer = AdamW::default();
        let timing = self.clock.time(|turn| {
            let Set { x, y, g, grad_x } = sets.set(turn)?;
            let [x, g] = [x, g].map(|data| DeviceMatRef::new(data, rows, hidden, hidden));
            let [y, grad_x] = [y, grad_x].map(|data| DeviceMatMut::new(data, rows, hidden, hidden));
            let (x, g, mut y, mut grad_x) = (x?, g?, y?, grad_x?);
            match case.work {
                Work::Forward => layer.forward(x, &mut y, &plain),
                Work::ForwardTelemetry => layer.forward(x, &mut y, &measured),
                Work::ForwardInPlace => layer.forward_in_place(&mut y, &measured),
                Work::Backward => layer.backward(x, g, &mut grad_x, &measured),
                Work::ForwardBackward => {
                    layer.forward(x, &mut y, &measured)?;
                    layer.backward(x, g, &mut grad_x, &measured)
                }
                Work::Step => {
                    layer.forward(x, &mut y, &measured)?;
                    layer.backward(x, g, &mut grad_x, &measured)?;
                    layer.optimizer_step(&optimizer)?;
                    layer.advance_step()
                }
            }
        })?;
        let report = layer.report();
        let forward = report.forward.map(|r| r.kernel.unwrap_or_else(|| "copy".to_owned()));
        let backward = report.backward.map(|r| r.kernel.unwrap_or_else(|| "copy".to_owned()));
        let kernels = forward.into_iter().chain(backward).collect();
        let operations = case.operations()?;
        Ok(Measured::new(case.bytes()?, operations, timing, ceiling, sets.count(), kernels))
    }
}

/// Why something was not measured.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) text: String,
    /// Whether the device is lost.
    pub(super) lost: bool,
}

impl Failure {
    /// One that leaves the device as it was.
    pub(super) fn text(text: String) -> Self {
        Self { text, lost: false }
    }
}

impl From<kasmina_sys::Error> for Failure {
    fn from(error: kasmina_sys::Error) -> Self {
        CudaError::from(error).into()
    }
}

impl From<kasmina_telemetry::cuda::CudaError> for Failure {
    fn from(error: kasmina_telemetry::cuda::CudaError) -> Self {
        match error {
            kasmina_telemetry::cuda::CudaError::Driver(error) => error.into(),
            other => Self::text(other.to_string()),
        }
    }
}

impl From<CudaError> for Failure {
    fn from(error: CudaError) -> Self {
        Self { text: error.to_string(), lost: error.is_sticky() }
    }
}
