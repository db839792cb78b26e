//! Passes of one large layer: our kernels by their best rung and by 16-byte loads, and the source's design.

use half::bf16;
use kasmina_core::cuda::{
    CudaError, CudaLayer, DeviceMatMut, DeviceMatRef, Expansions, SourceLayer,
};
use kasmina_core::{DType, Element, ForwardOptions, SeedLayout};
use kasmina_sys::DeviceSliceMut;
use kasmina_telemetry::{ChunkStats, GradientStats};
use kasmina_tma::LoadPath;

use super::super::buffers::Set;
use super::super::case::{Case, Seeds, Work};
use super::super::clock::Clock;
use super::super::measure::{Bench, Failure};
use super::super::summary::Timing;
use super::agree::Judge;
use super::expansions;
use super::gain::{Found, Side};
use super::line::Way;

/// Alphas of a graft that is under way.
const ALPHA: (f32, f32) = (0.25, 0.75);

/// A layer in one of the designs.
pub(super) enum Design {
    Ours(Box<CudaLayer>),
    Source(Box<SourceLayer>),
}

/// Gradients of a layer's parameters: of weight, scale and alpha, as [`SourceLayer::gradients`] has them.
type Gradients = [Vec<f32>; 3];

/// What a pass has computed.
struct Output {
    matrix: Vec<f32>,
    chunks: Vec<ChunkStats>,
    backward: Option<(Vec<GradientStats>, Gradients)>,
}

/// Measures a line.
pub(super) fn line(bench: &Bench, case: &Case, off: Way, on: Way) -> Result<Found, Failure> {
    match case.matrices.dtype {
        DType::F32 => of_type::<f32>(bench, case, off, on),
        DType::Bf16 => of_type::<bf16>(bench, case, off, on),
        DType::F16 => Err(Failure::text("the source's design has no f16 here".to_owned())),
    }
}

fn of_type<T: Element>(bench: &Bench, case: &Case, off: Way, on: Way) -> Result<Found, Failure> {
    let mut sets = bench.sets::<T>(case.matrices)?;
    let mut ceilings = Vec::new();
    let ceiling = bench.ceiling(case.ceiling(), case.matrices, &mut sets, &mut ceilings)?;
    let layout = case.layout().map_err(CudaError::from)?;
    let expansions = (case.seeds != Seeds::Dormant).then(|| expansions::draw(layout, ALPHA, 0));
    let rows = case.matrices.rows;
    let design = |way| Design::new(bench, way, (layout, rows), expansions.as_ref());
    let (mut off, mut on) = (design(off)?, design(on)?);
    let mut judge = Judge::default();
    let found = off.once(sets.set(0)?, case)?;
    let expected = on.once(sets.set(0)?, case)?;
    compare(&mut judge, case.matrices.dtype, layout, &found, &expected).map_err(Failure::text)?;
    drop((found, expected));
    let mut time = |design: &mut Design| {
        design.side(bench.clock(), case.work, |design, turn| design.run(sets.set(turn)?, case))
    };
    let (off, on) = (time(&mut off)?, time(&mut on)?);
    let floor = case.bytes().map_err(CudaError::from)? as f64 / ceiling;
    Ok(Found { off, on, floor: Some(floor), disagreement: judge.worst() })
}

fn compare(
    judge: &mut Judge,
    dtype: DType,
    layout: SeedLayout,
    found: &Output,
    expected: &Output,
) -> Result<(), String> {
    judge.elements("the matrix", dtype, &found.matrix, &expected.matrix)?;
    let (Some((a_stats, a)), Some((e_stats, e))) = (&found.backward, &expected.backward) else {
        return judge.chunks(&found.chunks, &expected.chunks);
    };
    judge.gradients(a_stats, e_stats)?;
    same_gradients(judge, layout, (a, e), e_stats)
}

/// Parameter gradients, seed by seed. ‖x‖ is taken for ‖g‖, which it is drawn like.
pub(super) fn same_gradients(
    judge: &mut Judge,
    layout: SeedLayout,
    (found, expected): (&Gradients, &Gradients),
    gradients: &[GradientStats],
) -> Result<(), String> {
    for (seed, gradient) in gradients.iter().enumerate() {
        let product = gradient.sum_squares;
        let parts = [layout.columns(seed), seed..seed + 1, seed..seed + 1];
        let names = ["weight", "scale", "alpha"];
        for (((name, part), a), e) in names.into_iter().zip(parts).zip(found).zip(expected) {
            let name = || format!("the gradient of {name} of seed {seed}");
            let of = |values: &Vec<f32>| values.get(part.clone()).unwrap_or_default().to_vec();
            judge.vector(name, &of(a), &of(e), product)?;
        }
    }
    Ok(())
}

impl Design {
    pub(super) fn new(
        bench: &Bench,
        way: Way,
        (layout, rows): (SeedLayout, usize),
        expansions: Option<&Expansions>,
    ) -> Result<Self, CudaError> {
        let (engine, stream) = (bench.engine(), bench.clock().stream());
        if way == Way::Programs {
            let layer = SourceLayer::new(engine, stream, layout, rows, expansions)?;
            return Ok(Self::Source(Box::new(layer)));
        }
        let layer = expansions::layer(layout, expansions)?;
        let mut layer = CudaLayer::from_layer(&layer, engine, stream)?;
        if way == Way::PlainLoads {
            layer.force_path(Some(LoadPath::Vector16));
        }
        Ok(Self::Ours(Box::new(layer)))
    }

    /// Forward with telemetry.
    pub(super) fn forward<T: Element>(
        &mut self,
        x: kasmina_sys::DeviceSlice<'_, T>,
        y: &mut DeviceSliceMut<'_, T>,
        (rows, hidden): (usize, usize),
    ) -> Result<(), CudaError> {
        match self {
            Self::Source(layer) => layer.forward(x, y),
            Self::Ours(layer) => {
                let x = DeviceMatRef::new(x, rows, hidden, hidden)?;
                let mut y = DeviceMatMut::new(y.reborrow(), rows, hidden, hidden)?;
                layer.forward(x, &mut y, &ForwardOptions::new())
            }
        }
    }

    /// Backward with telemetry and all gradients.
    pub(super) fn backward<T: Element>(
        &mut self,
        x: kasmina_sys::DeviceSlice<'_, T>,
        g: kasmina_sys::DeviceSlice<'_, T>,
        grad_x: &mut DeviceSliceMut<'_, T>,
        (rows, hidden): (usize, usize),
    ) -> Result<(), CudaError> {
        match self {
            Self::Source(layer) => layer.backward(x, g, grad_x),
            Self::Ours(layer) => {
                let [x, g] = [x, g].map(|data| DeviceMatRef::new(data, rows, hidden, hidden));
                let mut grad_x = DeviceMatMut::new(grad_x.reborrow(), rows, hidden, hidden)?;
                layer.backward(x?, g?, &mut grad_x, &ForwardOptions::new())
            }
        }
    }

    fn run<T: Element>(&mut self, set: Set<'_, T>, case: &Case) -> Result<(), CudaError> {
        let Set { x, mut y, g, mut grad_x } = set;
        let shape = (case.matrices.rows, case.matrices.hidden);
        match case.work {
            Work::Backward => self.backward(x, g, &mut grad_x, shape),
            _ => self.forward(x, &mut y, shape),
        }
    }

    /// Runs it once on matrices whose output was zeros before, and brings everything to the host.
    fn once<T: Element>(&mut self, mut set: Set<'_, T>, case: &Case) -> Result<Output, CudaError> {
        let (x, g) = (set.x, set.g);
        let is_backward = case.work == Work::Backward;
        let to = if is_backward { &mut set.grad_x } else { &mut set.y };
        let home = to.home().clone();
        to.fill_zero(&home)?;
        let shape = (case.matrices.rows, case.matrices.hidden);
        match is_backward {
            true => self.backward(x, g, to, shape)?,
            false => self.forward(x, to, shape)?,
        }
        let matrix = widened(&to.as_slice().to_vec()?);
        let backward = match is_backward {
            true => Some(self.gradients()?),
            false => None,
        };
        let chunks = match self {
            _ if is_backward => Vec::new(),
            Self::Source(layer) => layer.chunk_stats()?,
            Self::Ours(layer) => {
                layer.synchronize()?;
                layer.chunk_stats().to_vec()
            }
        };
        Ok(Output { matrix, chunks, backward })
    }

    /// Statistics of dL/dy, and the parameters' gradients. Waits.
    pub(super) fn gradients(&mut self) -> Result<(Vec<GradientStats>, Gradients), CudaError> {
        match self {
            Self::Source(layer) => Ok((layer.gradient_stats()?, layer.gradients()?)),
            Self::Ours(layer) => {
                layer.synchronize()?;
                Ok((layer.gradient_stats().to_vec(), gradients_of(layer)))
            }
        }
    }

    /// Times it; the source's design with as many programs a block as are fastest.
    fn side(
        &mut self,
        clock: &Clock,
        work: Work,
        mut body: impl FnMut(&mut Self, usize) -> Result<(), CudaError>,
    ) -> Result<Side, CudaError> {
        let launches = self.launches(work);
        if let Self::Source(_) = self {
            let (timing, how) = fastest(clock, self, Self::set_programs, body)?;
            return Ok(Side { timing, launches, how });
        }
        let timing = clock.time(|turn| body(self, turn))?;
        Ok(Side { timing, launches, how: self.how() })
    }

    pub(super) fn set_programs(&mut self, programs: u32) -> Result<(), CudaError> {
        match self {
            Self::Source(layer) => layer.set_programs_a_block(programs),
            Self::Ours(_) => Ok(()),
        }
    }

    /// Kernels that a pass launches, as far as they are told apart.
    fn launches(&self, work: Work) -> usize {
        let is_backward = work == Work::Backward;
        match self {
            Self::Source(_) => SourceLayer::launches()[usize::from(is_backward)],
            // The streaming kernel, and what finalizes the gradients.
            Self::Ours(_) => 1 + usize::from(is_backward),
        }
    }

    fn how(&self) -> String {
        let Self::Ours(layer) = self else { return String::new() };
        let report = layer.report();
        let forward = report.forward.and_then(|report| report.kernel);
        let backward = report.backward.and_then(|report| report.kernel);
        forward.into_iter().chain(backward).collect::<Vec<_>>().join(", ")
    }
}

/// Times the source's design with every number of programs a block, and leaves it with the one that is fastest; beside the times is
/// what is said of it.
pub(super) fn fastest<S>(
    clock: &Clock,
    state: &mut S,
    set: impl Fn(&mut S, u32) -> Result<(), CudaError>,
    mut body: impl FnMut(&mut S, usize) -> Result<(), CudaError>,
) -> Result<(Timing, String), CudaError> {
    let mut best: Option<(f64, u32, Timing)> = None;
    for programs in SourceLayer::PROGRAMS_A_BLOCK {
        set(state, programs)?;
        let timing = clock.time(|turn| body(state, turn))?;
        let median = timing.summary().map_or(f64::INFINITY, |summary| summary.median);
        if best.as_ref().is_none_or(|(least, ..)| median < *least) {
            best = Some((median, programs, timing));
        }
    }
    // There is always one.
    let (_, programs, timing) = best.ok_or(CudaError::NoImage)?;
    set(state, programs)?;
    let s = if programs == 1 { "" } else { "s" };
    Ok((timing, format!("blocks of {programs} program{s}, the fastest of 1, 4 and 8")))
}

/// As the source's layers have them: of all columns, of all seeds, of all seeds.
fn gradients_of(layer: &CudaLayer) -> Gradients {
    let mut all = [(); 3].map(|()| Vec::new());
    for seed in 0..layer.layout().seeds() {
        for (name, values) in layer.gradients(seed).into_iter().flatten() {
            all[usize::from(name != "weight")].extend_from_slice(values);
        }
        all[2].extend(layer.alpha_gradient(seed));
    }
    all
}

pub(super) fn widened<T: Element>(values: &[T]) -> Vec<f32> {
    let mut wide = vec![0.0; values.len()];
    T::widen(values, &mut wide);
    wide
}
