//! Two stacks of the same layers, one driven by plain calls and one by a runner.

use std::sync::Arc;

use kasmina_core::cuda::{
    CudaError, CudaLayer, Engine, RunnerOptions, SharedLayer, SharedMatrix, SharedPart, SharedStep,
    StepEnd, StepRun, StepRunner,
};
use kasmina_core::{Element, Layer};
use kasmina_gpu_test::{Failed, ensure};
use kasmina_sys::Stream;
use parking_lot::Mutex;

use crate::step_twins::{Parts, Stack};

/// What must be equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Equal {
    /// Every bit of everything.
    Everything,
    /// Every bit of outputs and input gradients; sums over rows within their rounding, and both go on from the plain ones.
    Matrices,
}

pub(crate) struct Twins<T: Element> {
    pub(crate) plain: Stack<T>,
    pub(crate) layers: Vec<SharedLayer>,
    x: Vec<SharedMatrix<T>>,
    g: Vec<SharedMatrix<T>>,
    /// Steps as they were asked for, by which passes they have.
    steps: Vec<(bool, bool, SharedStep<T>)>,
    pub(crate) runner: StepRunner,
    equal: Equal,
    /// Records of statistics that were not the same bits, and parameters and gradients.
    pub(crate) others: [usize; 2],
}

impl<T: Element> Twins<T> {
    pub(crate) fn new(
        engine: &Arc<Engine>,
        layers: &[Layer],
        rows: usize,
        options: RunnerOptions,
        equal: Equal,
    ) -> Result<Self, Failed> {
        let (one, two) = (Stream::new(engine.context())?, Stream::new(engine.context())?);
        let hidden = layers.first().map_or(1, |layer| layer.layout().hidden());
        let shared = |layer| -> Result<SharedLayer, Failed> {
            Ok(Arc::new(Mutex::new(CudaLayer::from_layer(layer, engine, &two)?)))
        };
        let memory = |_| SharedMatrix::<T>::zeroed(&two, rows, hidden);
        let count = 0..layers.len() + 1;
        Ok(Self {
            plain: Stack::new(engine, &one, &one, layers, rows)?,
            layers: layers.iter().map(shared).collect::<Result<_, _>>()?,
            x: count.clone().map(memory).collect::<Result<_, _>>()?,
            g: count.map(memory).collect::<Result<_, _>>()?,
            steps: Vec::new(),
            runner: StepRunner::new(engine, &two, options),
            equal,
            others: [0; 2],
        })
    }

    pub(crate) fn fill(&mut self, x: &[T], grad_y: &[T]) -> Result<(), Failed> {
        self.plain.fill(x, grad_y)?;
        self.runner.wait()?;
        self.x[0].write(x)?;
        self.g[self.layers.len()].write(grad_y)?;
        Ok(())
    }

    fn shared_step(&mut self, parts: &Parts) -> Result<SharedStep<T>, CudaError> {
        let probed = parts.options.iter().any(|options| !options.probes().is_empty());
        let plain = !probed && parts.options.iter().all(|o| *o == Default::default());
        let known = self.steps.iter().find(|(f, b, _)| (*f, *b) == (parts.forward, parts.backward));
        if let Some((.., step)) = known.filter(|_| plain) {
            return Ok(step.clone());
        }
        let part = |i: usize| {
            let part = SharedPart::new(&self.x[i]).options(&parts.options[i]);
            let part = if parts.forward { part.y(&self.x[i + 1]) } else { part };
            match parts.backward {
                true => part.gradients(&self.g[i + 1], &self.g[i]),
                false => part,
            }
        };
        let all = (0..self.layers.len()).map(part).collect();
        let step = SharedStep::apart(&self.layers, all)?;
        if plain {
            self.steps.push((parts.forward, parts.backward, step.clone()));
        }
        Ok(step)
    }

    pub(crate) fn run(&mut self, parts: &Parts) -> Result<StepRun, CudaError> {
        let step = self.shared_step(parts)?;
        let mut end = StepEnd::new();
        if let Some(optimizer) = &parts.optimizer {
            end = end.optimizer(optimizer);
        }
        self.runner.run(&step, &if parts.advance { end.advance() } else { end })
    }

    /// The same step on both. Where one refuses the other must in the same words.
    pub(crate) fn step(&mut self, parts: &Parts) -> Result<(), Failed> {
        let a = self.plain.plain(parts).map_err(|error| error.to_string());
        let b = self.run(parts).map(drop).map_err(|error| error.to_string());
        ensure(a == b, || format!("{parts:?}: the runner {b:?}, but plain {a:?}"))?;
        match self.equal {
            Equal::Everything => Ok(()),
            Equal::Matrices => self.compare(),
        }
    }

    /// The same of both, to each layer.
    pub(crate) fn each<R: PartialEq + std::fmt::Debug>(
        &mut self,
        what: &str,
        mut body: impl FnMut(usize, &mut CudaLayer) -> Result<R, Failed>,
    ) -> Result<(), Failed> {
        for (i, (plain, run)) in self.plain.layers.iter_mut().zip(&self.layers).enumerate() {
            let (a, b) = (body(i, plain)?, body(i, &mut run.lock())?);
            ensure(a == b, || format!("{what} of layer {i}: the runner {b:?}, but plain {a:?}"))?;
        }
        Ok(())
    }

    /// Everything of both.
    pub(crate) fn compare(&mut self) -> Result<(), Failed> {
        self.runner.wait()?;
        let plain = self.plain.x.iter().chain(&self.plain.g);
        for (i, (a, b)) in plain.zip(self.x.iter().chain(&self.g)).enumerate() {
            let (a, b) = (a.to_vec()?, b.read()?);
            let (a, b): (&[u8], &[u8]) = (bytemuck::cast_slice(&a), bytemuck::cast_slice(&b));
            let at = a.iter().zip(b).position(|(a, b)| a != b);
            ensure(at.is_none(), || {
                let at = at.unwrap_or(0) / size_of::<T>();
                format!("matrix {i} differs first in element {at}: {}", self.runner.report())
            })?;
        }
        for i in 0..self.layers.len() {
            let (plain, run) = (&mut self.plain.layers[i], &self.layers[i]);
            let mut run = run.lock();
            plain.synchronize()?;
            run.synchronize()?;
            let (a, b) = (plain.layer_state().to_bytes()?, run.layer_state().to_bytes()?);
            if a == b {
                continue;
            }
            ensure(self.equal == Equal::Matrices, || {
                let of = |layer: &CudaLayer| {
                    format!("{:?}, {:?}", layer.chunk_stats(), layer.lifecycle().table())
                };
                let report = self.runner.report();
                format!("layer {i}: {report}\nplain {}\nrunner {}", of(plain), of(&run))
            })?;
            let others = near_states(i, plain, &run)?;
            self.others = [0, 1].map(|i| self.others[i] + others[i]);
            let plain = plain.to_layer()?;
            run.replace(&plain)?;
        }
        match self.equal {
            Equal::Matrices => Ok(()),
            Equal::Everything => {
                self.each("what the optimizer did", |_, layer| Ok(layer.take_optimizer_summaries()))
            }
        }
    }
}

/// That two layers differ by no more than the order of sums; how many records of statistics, and how many parameters and gradients, are
/// other bits.
fn near_states(at: usize, a: &CudaLayer, b: &CudaLayer) -> Result<[usize; 2], Failed> {
    let mut others = [0; 2];
    let near = |a: f64, b: f64, scale: f64| {
        a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-4 * scale
    };
    let table = |layer: &CudaLayer| format!("{:?}", layer.lifecycle().table());
    ensure(table(a) == table(b), || format!("layer {at}: {} and {}", table(a), table(b)))?;
    for (seed, (a, b)) in a.chunk_stats().iter().zip(b.chunk_stats()).enumerate() {
        let counts = (a.n, a.dead, a.nonfinite) == (b.n, b.dead, b.nonfinite);
        let deviation = (a.m2 / a.n.max(1) as f64).sqrt();
        // Where all values are alike, m2 is what is left of their rounding.
        let rounding = 1e-10 * a.n as f64 * a.mean * a.mean;
        let good = counts
            && near(a.mean, b.mean, deviation.max(1e-10 * a.mean.abs()))
            && near(a.m2, b.m2, a.m2.max(rounding));
        ensure(good, || format!("layer {at}, statistics of seed {seed}: {b:?}, but {a:?}"))?;
        others[0] += usize::from(a != b);
    }
    for seed in 0..a.layout().seeds() {
        let values = |layer: &CudaLayer| -> Vec<f32> {
            let all = layer.parameters(seed).into_iter().flatten();
            let gradients = layer.gradients(seed).into_iter().flatten();
            all.chain(gradients).flat_map(|(_, values)| values.to_vec()).collect()
        };
        let (a, b) = (values(a), values(b));
        ensure(a.len() == b.len(), || format!("layer {at}, seed {seed}: other gradients"))?;
        let scale = a.iter().map(|v| f64::from(v.abs())).fold(1e-30, f64::max);
        for (a, b) in a.iter().zip(&b) {
            ensure(near(f64::from(*a), f64::from(*b), scale), || {
                format!("layer {at}, seed {seed}: {b:e}, but {a:e}")
            })?;
            others[1] += usize::from(a.to_bits() != b.to_bits());
        }
    }
    Ok(others)
}
