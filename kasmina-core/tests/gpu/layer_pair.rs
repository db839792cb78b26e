//! One layer on the CPU and one on the GPU that are to be the same, and how they are compared.

use std::sync::Arc;

use kasmina_core::cuda::{CudaLayer, DeviceMatMut, DeviceMatRef, Engine};
use kasmina_core::lifecycle::GrownSeed;
use kasmina_core::{
    AdamW, Blueprint, DType, Element, ForwardOptions, Layer, MatMut, MatRef, Objective,
    StabilityMode, State,
};
use kasmina_gpu_test::{Failed, ensure};
use kasmina_sys::{DeviceBuffer, Stream};

use crate::common::Draw;

/// Far from the optimizer's division by nearly nothing, where the last bit of a gradient would decide an update's sign: with
/// this ε an update differs by no more than a hundredth of what its gradient does.
pub(crate) const ADAMW: AdamW = AdamW {
    learning_rate: 1e-2,
    beta1: 0.9,
    beta2: 0.999,
    epsilon: 1.0,
    weight_decay: 0.01,
    clip_norm: None,
};

pub(crate) struct Pair {
    pub(crate) cpu: Layer,
    pub(crate) gpu: CudaLayer,
    pub(crate) stream: Stream,
    pub(crate) rows: usize,
    /// The greatest |x| that a guarded branch has seen, within the default bounds.
    greatest: f64,
}

/// What both made of the same input.
struct Outputs<T> {
    cpu: Vec<T>,
    gpu: Vec<T>,
}

impl Pair {
    pub(crate) fn new(engine: &Arc<Engine>, layer: Layer, rows: usize) -> Result<Self, Failed> {
        let stream = Stream::new(engine.context())?;
        let gpu = CudaLayer::from_layer(&layer, engine, &stream)?;
        Ok(Self { cpu: layer, gpu, stream, rows, greatest: 0.0 })
    }

    /// One forward and backward pass on fresh data, compared; the device's matrices are of another stream than the layer's
    /// in half of the steps.
    pub(crate) fn pass<T: Element>(
        &mut self,
        draw: &mut Draw,
        options: &ForwardOptions,
        wild: bool,
    ) -> Result<(), Failed> {
        let hidden = self.cpu.layout().hidden();
        let n = self.rows * hidden;
        let x: Vec<T> = (0..n).map(|_| T::from_f32(draw.value(wild))).collect();
        let magnitudes = x.iter().map(|x| f64::from(x.to_f32()).abs().min(1e6));
        self.greatest = magnitudes.fold(self.greatest, f64::max);
        let grad_y: Vec<T> = (0..n).map(|_| T::from_f32(draw.unit())).collect();
        let same_parameters = self.same_parameters()?;
        let other = Stream::new(self.stream.context())?;
        let home = if draw.next().is_multiple_of(2) { &self.stream } else { &other };
        let on_x = DeviceBuffer::from_host(home, &x)?;
        let blank = || vec![T::from_f32(-77.0); n];

        let mut y = Outputs { cpu: blank(), gpu: blank() };
        let mut on_y = DeviceBuffer::from_host(home, &y.gpu)?;
        let rows = self.rows;
        let host = |data| MatRef::<T>::contiguous(data, hidden);
        self.cpu.forward(host(&x)?, MatMut::contiguous(&mut y.cpu, hidden)?, options)?;
        self.gpu.forward(
            DeviceMatRef::new(on_x.as_slice(), rows, hidden, hidden)?,
            &mut DeviceMatMut::new(on_y.as_mut_slice(), rows, hidden, hidden)?,
            options,
        )?;
        on_y.copy_to_host(&mut y.gpu)?;
        self.compare("y", &x, &y, options, &same_parameters, true)?;
        if options.is_inference() {
            return Ok(());
        }

        let mut grad_x = Outputs { cpu: blank(), gpu: blank() };
        let on_grad_y = DeviceBuffer::from_host(home, &grad_y)?;
        let mut on_grad_x = DeviceBuffer::from_host(home, &grad_x.gpu)?;
        let to = MatMut::contiguous(&mut grad_x.cpu, hidden)?;
        self.cpu.backward(host(&x)?, host(&grad_y)?, to, options)?;
        self.gpu.backward(
            DeviceMatRef::new(on_x.as_slice(), rows, hidden, hidden)?,
            DeviceMatRef::new(on_grad_y.as_slice(), rows, hidden, hidden)?,
            &mut DeviceMatMut::new(on_grad_x.as_mut_slice(), rows, hidden, hidden)?,
            options,
        )?;
        on_grad_x.copy_to_host(&mut grad_x.gpu)?;
        self.compare("grad_x", &grad_y, &grad_x, options, &same_parameters, false)
    }

    /// For each seed, whether both have the bits of its parameters.
    fn same_parameters(&mut self) -> Result<Vec<bool>, Failed> {
        self.gpu.synchronize()?;
        let bits = |grown: Option<&GrownSeed>| -> Option<Vec<u32>> {
            Some(grown?.parameters().iter().map(|p| p.to_bits()).collect())
        };
        let seeds = 0..self.cpu.layout().seeds();
        let pairs = seeds.map(|seed| {
            bits(self.cpu.lifecycle().grown(seed)) == bits(self.gpu.lifecycle().grown(seed))
        });
        Ok(pairs.collect())
    }

    /// Chunks off path are copies of `source`, bit for bit. Where the parameters have the same bits, pointwise branches do,
    /// too; and filters in the forward pass. All others agree within the storage type's rounding, and a share of the largest
    /// value of the chunk's row, as their sums are in another order.
    fn compare<T: Element>(
        &self,
        what: &str,
        source: &[T],
        outputs: &Outputs<T>,
        options: &ForwardOptions,
        same_parameters: &[bool],
        forward: bool,
    ) -> Result<(), Failed> {
        let layout = self.cpu.layout();
        let strict = self.cpu.stability().mode == StabilityMode::Strict;
        for (seed, &same) in same_parameters.iter().enumerate() {
            let probe = options.probes().iter().find(|probe| probe.seed == seed);
            let state = self.cpu.state(seed)?;
            let alpha = probe.map_or(self.cpu.alpha(seed)?, |probe| probe.alpha);
            let runs = (probe.is_some() || state.on_path()) && alpha > 0.0;
            let exact = same && !strict && self.is_exact(seed, forward)?;
            for row in 0..self.rows {
                let at = row * layout.hidden();
                let range = at + layout.columns(seed).start..at + layout.columns(seed).end;
                let largest = outputs.cpu[range.clone()]
                    .iter()
                    .map(|v| v.to_f32().abs())
                    .filter(|v| v.is_finite())
                    .fold(0.0, f32::max);
                for i in range {
                    let (cpu, gpu) = (outputs.cpu[i], outputs.gpu[i]);
                    let (a, b) = (cpu.to_f32(), gpu.to_f32());
                    let close = tolerance::<T>() * largest.max(1e-3);
                    let good = match runs {
                        false => {
                            bytemuck::bytes_of(&gpu) == bytemuck::bytes_of(&source[i])
                                && bytemuck::bytes_of(&gpu) == bytemuck::bytes_of(&cpu)
                        }
                        _ if a.is_nan() || b.is_nan() => a.is_nan() && b.is_nan(),
                        true if exact => a.to_bits() == b.to_bits(),
                        true => a == b || (a - b).abs() <= close,
                    };
                    ensure(good, || {
                        format!(
                            "{what}[{row}, {}] of seed {seed} ({state}, alpha {alpha}, exact {exact}): {b} on the GPU, {a} on the CPU",
                            i - at
                        )
                    })?;
                }
            }
        }
        Ok(())
    }

    /// Whether both backends round a branch alike: its arithmetic is per column, or a sum in a fixed order.
    fn is_exact(&self, seed: usize, forward: bool) -> Result<bool, Failed> {
        let Some(grown) = self.cpu.lifecycle().grown(seed) else { return Ok(true) };
        Ok(match self.cpu.registry().get(grown.blueprint())? {
            Blueprint::Residual | Blueprint::MlpExpansion => true,
            Blueprint::ConvFilter { .. } => forward,
            _ => false,
        })
    }

    /// Everything that both layers know after a pass or a step.
    pub(crate) fn compare_states<T: Element>(&mut self) -> Result<(), Failed> {
        let gpu = self.gpu.to_layer()?;
        for seed in 0..self.cpu.layout().seeds() {
            let (a, b) = (self.cpu.lifecycle().grown(seed), gpu.lifecycle().grown(seed));
            let row = |layer: &Layer| format!("{:?}", layer.lifecycle().table().get(seed));
            let (cpu_row, gpu_row) = (row(&self.cpu), row(&gpu));
            ensure(cpu_row == gpu_row, || format!("seed {seed}: {gpu_row}, but {cpu_row}"))?;
            match (a, b) {
                (Some(a), Some(b)) => self.compare_grown::<T>(seed, a, b)?,
                (None, None) => {}
                _ => return Err(format!("seed {seed} owns parameters on one side").into()),
            }
        }
        let (a, b) = (self.cpu.chunk_stats(), gpu.chunk_stats());
        for (seed, (a, b)) in a.iter().zip(b).enumerate() {
            let counts = (a.n, a.dead, a.nonfinite) == (b.n, b.dead, b.nonfinite);
            let good = counts
                && (a.min.to_bits(), a.max.to_bits()) == (b.min.to_bits(), b.max.to_bits())
                && near(a.mean, b.mean, 1e-5, (a.m2 / a.n.max(1) as f64).sqrt())
                && near(a.m2, b.m2, 1e-4, 0.0);
            ensure(good, || format!("statistics of seed {seed}: {b:?}, but {a:?}"))?;
        }
        let (a, b) = (self.cpu.gradient_stats(), gpu.gradient_stats());
        for (seed, (a, b)) in a.iter().zip(b).enumerate() {
            let good = (a.n, a.nonfinite, a.max_abs) == (b.n, b.nonfinite, b.max_abs)
                && near(a.mean, b.mean, 1e-5, f64::from(a.max_abs))
                && near(a.m2, b.m2, 1e-4, 0.0)
                && near(a.sum_squares, b.sum_squares, 1e-4, 0.0);
            ensure(good, || format!("gradient statistics of seed {seed}: {b:?}, but {a:?}"))?;
        }
        let (a, b) = (&self.cpu.layer_state().telemetry, &gpu.layer_state().telemetry);
        ensure((a.passes, a.measured) == (b.passes, b.measured), || {
            format!("passes {} and {}, but {} and {}", b.passes, b.measured, a.passes, a.measured)
        })?;
        let saturated = T::DTYPE != DType::F32 || a.saturated == b.saturated;
        ensure(saturated, || format!("{} saturated, but {}", b.saturated, a.saturated))?;
        ensure(a.histograms == b.histograms, || "histograms differ".to_owned())
    }

    fn compare_grown<T: Element>(
        &self,
        seed: usize,
        a: &GrownSeed,
        b: &GrownSeed,
    ) -> Result<(), Failed> {
        let state = self.cpu.state(seed)?;
        let tolerance = f64::from(tolerance::<T>());
        let differ = |what: &str, a: &dyn std::fmt::Debug, b: &dyn std::fmt::Debug| {
            Failed::from(format!("{what} of seed {seed} ({state}): {b:?}, but {a:?}"))
        };
        let lists = |what: &str, a: &[f32], b: &[f32], scale: f64| -> Result<(), Failed> {
            let largest = a.iter().map(|v| f64::from(v.abs())).fold(scale, f64::max);
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                if !near(f64::from(*a), f64::from(*b), tolerance, largest) {
                    return Err(differ(&format!("{what} {i}"), a, b));
                }
            }
            if a.len() == b.len() { Ok(()) } else { Err(differ(what, &a.len(), &b.len())) }
        };
        lists("parameter", a.parameters(), b.parameters(), 0.1)?;
        let c = self.cpu.layout().chunk_len(seed);
        // Gradients are sums of this many terms of the order of 1, which may cancel.
        let terms = (self.rows * c) as f64;
        match (a.gradients(), b.gradients()) {
            (Some(a), Some(b)) => lists("gradient", a, b, 0.05 * terms.sqrt())?,
            (None, None) => {}
            (a, b) => return Err(differ("gradients", &a.is_some(), &b.is_some())),
        }
        // The CPU's squares of T(x) − x have the rounding of each, the GPU's follow from other sums.
        let rounding =
            a.reconstruction().map_or(0.0, |loss| loss.abs().sqrt() * 4.0 * 1.2e-7 * self.greatest);
        let pairs = [
            (
                "alpha gradient",
                a.alpha_gradient().map(f64::from),
                b.alpha_gradient().map(f64::from),
                terms.sqrt(),
            ),
            ("reconstruction", a.reconstruction(), b.reconstruction(), 0.01 + rounding / tolerance),
            // A reconstruction's may be its loss.
            ("loss", a.loss(), b.loss(), 0.01 + rounding / tolerance),
        ];
        for (what, a, b, scale) in pairs {
            let good = match (a, b) {
                (Some(a), Some(b)) => near(a, b, tolerance, scale),
                (a, b) => a.is_none() && b.is_none(),
            };
            if !good {
                return Err(differ(what, &a, &b));
            }
        }
        if a.updates() != b.updates() || a.objective() != b.objective() {
            return Err(differ("updates", &a.updates(), &b.updates()));
        }
        Ok(())
    }

    /// The optimizer's step on both, and the end of the training step.
    pub(crate) fn step(&mut self) -> Result<(), Failed> {
        // A seed that is skipped has no more updates than before, which is compared.
        let _ = self.cpu.optimizer_step(&ADAMW);
        self.gpu.optimizer_step(&ADAMW)?;
        self.cpu.advance_step();
        Ok(self.gpu.advance_step()?)
    }

    /// The CPU goes on with what the GPU has, or the other way round.
    pub(crate) fn exchange(&mut self, engine: &Arc<Engine>, to_cpu: bool) -> Result<(), Failed> {
        if to_cpu {
            self.cpu = self.gpu.to_layer()?;
        } else {
            self.gpu = CudaLayer::from_layer(&self.cpu, engine, &self.stream)?;
        }
        Ok(())
    }
}

/// Relative to the largest value: order of sums in f32; for 16 bits, rounding of the operands as well.
fn tolerance<T: Element>() -> f32 {
    match T::DTYPE {
        DType::F32 => 2e-4,
        DType::F16 => 1e-2,
        DType::Bf16 => 4e-2,
    }
}

/// Whether two numbers agree within a share of the larger and of `scale`; those that are no numbers only with their like.
fn near(a: f64, b: f64, share: f64, scale: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= share * a.abs().max(b.abs()).max(scale)
}

/// States of seeds that own parameters, and objectives, for random layers.
pub(crate) const OWNING: [State; 7] = [
    State::Germinated,
    State::Training,
    State::Grafting,
    State::Stabilization,
    State::Evaluating,
    State::FineTuning,
    State::Fossilized,
];
pub(crate) const OBJECTIVES: [Objective; 3] =
    [Objective::StraightThrough, Objective::Reconstruction, Objective::Probe];
