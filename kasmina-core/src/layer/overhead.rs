//! What telemetry costs this layer, measured: the layer's own passes, timed with it and without it.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use kasmina_telemetry::{
    OverheadPass, OverheadRound, OverheadSubject, TelemetryMode, TelemetryOverhead,
};

use super::pass::LoweredLayer;
use super::{Layer, TelemetryState};
use crate::cpu::{Gradients, RawMat, RawMatMut, Scratch};
use crate::{Element, Error, ForwardOptions, MatMut, MatRef, Result};

const MAX_ROUNDS: u32 = 100_000;
/// A timing is this many passes at most, however short they are.
const MAX_REPEATS: u32 = 100_000;

/// How long [`Layer::measure_telemetry_overhead`] measures: three timings a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverheadOptions {
    /// Rounds, each timing passes without telemetry, with it, and without it; 6 to 100,000, default 31.
    pub rounds: u32,
    /// Shortest timing: shorter passes are repeated within one until it is about this long. At most 1 s,
    /// default 1 ms.
    pub timing: Duration,
}

impl Default for OverheadOptions {
    fn default() -> Self {
        Self { rounds: 31, timing: Duration::from_millis(1) }
    }
}

impl OverheadOptions {
    fn validate(&self) -> Result<()> {
        let value =
            |what: &str, value, legal| Err(Error::Value { what: what.into(), value, legal });
        if !(TelemetryOverhead::MIN_ROUNDS as u32..=MAX_ROUNDS).contains(&self.rounds) {
            return value("rounds", self.rounds.into(), "6 to 100,000");
        }
        if self.timing > Duration::from_secs(1) {
            return value("timing (seconds)", self.timing.as_secs_f64(), "at most 1");
        }
        Ok(())
    }
}

impl Layer {
    /// What telemetry was measured to cost, as long as that holds; later reports carry it.
    ///
    /// `None` before [`Layer::measure_telemetry_overhead`], and again once the mode, the scope, the
    /// stability or the state of a seed has changed, or a checkpoint was restored: another pass was
    /// measured then.
    pub fn telemetry_overhead(&self) -> Option<&TelemetryOverhead> {
        self.overhead.as_ref()
    }

    /// Measures what telemetry, as it is set, costs a pass of this layer, and keeps the number for the
    /// reports. Times out-of-place forward passes over `x [rows, hidden]` with this layer's programs, and
    /// with `grad_y` of the same shape the backward pass behind each. Nothing but that number changes in the
    /// layer (and what waits to be lowered is, as by a pass); results and statistics of these passes are
    /// dropped. It takes 3 × `rounds` timings (about 0.1 s, or 93 passes where they take longer than 1 ms),
    /// and memory for one matrix like `x`, or two.
    ///
    /// The number is what this pass takes longer on this machine at this moment, with `x` as warm in the
    /// caches as its size lets it be; what else the machine does is in its interval and its noise. In debug
    /// mode it has the histograms in it. In sampling mode measured passes are timed and their cost is
    /// spread over the passes between them. With scope `off` the same code is timed twice, which gives 0
    /// within the noise.
    ///
    /// ```
    /// use kasmina_core::{Layer, MatRef, OverheadOptions, SeedLayout};
    ///
    /// let mut layer = Layer::builder(SeedLayout::new(64, 16)?).build()?;
    /// let x = vec![0.5f32; 32 * 64];
    /// let options = OverheadOptions { rounds: 6, ..OverheadOptions::default() };
    /// let cost = layer.measure_telemetry_overhead(MatRef::contiguous(&x, 64)?, None, &options)?;
    /// println!("{:.1} % [{:.1}, {:.1}]", cost.percent, cost.low_percent, cost.high_percent);
    /// assert_eq!(layer.end_epoch().telemetry.overhead_percent(), Some(cost.percent));
    /// # Ok::<(), kasmina_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] if a matrix does not fit, [`Error::Zero`] if it has no rows, [`Error::Value`] for
    /// options out of range,
    /// [`Error::UnregisteredBlueprint`] as a pass, [`Error::Telemetry`] if the times came out as none (give more of
    /// `timing`); a number that was there stays.
    pub fn measure_telemetry_overhead<T: Element>(
        &mut self,
        x: MatRef<'_, T>,
        grad_y: Option<MatRef<'_, T>>,
        options: &OverheadOptions,
    ) -> Result<TelemetryOverhead> {
        options.validate()?;
        let (rows, columns) = x.shape();
        self.check_shape("x", (rows, columns), rows)?;
        if let Some(grad_y) = &grad_y {
            self.check_shape("grad_y", grad_y.shape(), rows)?;
        }
        if rows == 0 {
            return Err(Error::Zero { what: "rows" });
        }
        self.refresh_plan()?;
        let period = match self.state.telemetry.mode {
            TelemetryMode::Sampling { every, .. } => every,
            TelemetryMode::Production | TelemetryMode::Debug => NonZeroU32::MIN,
        };
        let pass = match grad_y {
            None => OverheadPass::Forward,
            Some(_) => OverheadPass::ForwardBackward,
        };
        let lowered = LoweredLayer {
            plan: &self.plan,
            lifecycle: &self.state.lifecycle,
            stability: &self.state.stability,
            probed: &[],
        };
        let matrix = || vec![T::from_f32(0.0); rows * columns];
        let mut rehearsal = Rehearsal {
            lowered,
            telemetry: self.state.telemetry.clone(),
            scratch: Scratch::default(),
            period,
            x,
            y: matrix(),
            grad: grad_y.map(|grad_y| (grad_y, matrix())),
        };
        let rounds = rehearsal.rounds(options)?;
        let epoch = self.state.lifecycle.epoch().into();
        let of = OverheadSubject { pass, rows, columns, epoch, period: period.get() };
        let overhead = TelemetryOverhead::from_rounds(&rounds, of)?;
        self.overhead = Some(overhead);
        Ok(overhead)
    }
}

/// The layer's passes beside the layer: its programs, a copy of its telemetry, matrices of their own.
struct Rehearsal<'a, T> {
    lowered: LoweredLayer<'a>,
    telemetry: TelemetryState,
    scratch: Scratch,
    period: NonZeroU32,
    x: MatRef<'a, T>,
    y: Vec<T>,
    grad: Option<(MatRef<'a, T>, Vec<T>)>,
}

impl<T: Element> Rehearsal<'_, T> {
    fn rounds(&mut self, options: &OverheadOptions) -> Result<Vec<OverheadRound>> {
        let (with, without) = (ForwardOptions::new(), ForwardOptions::new().without_telemetry());
        // Touches the pages, wakes the threads, and says how long a pass is.
        self.time(1, &with)?;
        let pass = self.time(2, &without)?.as_secs_f64() / 2.0;
        let repeats = options.timing.as_secs_f64() / pass.max(1e-9);
        let repeats = (repeats.ceil() as u32).clamp(1, MAX_REPEATS);
        (0..options.rounds)
            .map(|_| {
                let before = self.time(repeats, &without)?;
                let with = self.time(repeats, &with)?;
                let after = self.time(repeats, &without)?;
                Ok(OverheadRound { before, with, after })
            })
            .collect()
    }

    /// The time of some passes, each one that the mode measures if `options` let it.
    fn time(&mut self, passes: u32, options: &ForwardOptions) -> Result<Duration> {
        let start = Instant::now();
        for _ in 0..passes {
            self.pass(options)?;
        }
        Ok(start.elapsed())
    }

    fn pass(&mut self, options: &ForwardOptions) -> Result<()> {
        let (rows, hidden) = self.x.shape();
        let telemetry = &mut self.telemetry;
        // On to a pass that is measured; other seeds have their turn each time. After 2^64 passes the
        // sequence starts again.
        telemetry.passes =
            telemetry.passes.checked_next_multiple_of(u64::from(self.period.get())).unwrap_or(0);
        let x = RawMat::new(self.x);
        let mut y = MatMut::new(&mut self.y, rows, hidden, hidden)?;
        self.lowered.forward(telemetry, x, RawMatMut::new(&mut y), false, options)?;
        if let Some((grad_y, grad_x)) = &mut self.grad {
            let mut grad_x = MatMut::new(grad_x, rows, hidden, hidden)?;
            let gradients = Gradients { y: RawMat::new(*grad_y), x: RawMatMut::new(&mut grad_x) };
            self.lowered.backward(telemetry, &mut self.scratch, x, Some(gradients), options)?;
        }
        Ok(())
    }
}
