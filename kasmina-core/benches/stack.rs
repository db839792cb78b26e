//! Stacks of small layers: a launch for each layer, a graph of those launches, and one launch for all of them.
//! `cargo bench -p kasmina-core --bench stack`, on a machine with a GPU.
//!
//! Microseconds a layer, medians. *queued* is the time between two events around a batch of steps, divided by their number and by the layers, so
//! that the host's part counts where it is the slower of the two; *host* is that part alone; *device* is the same launches captured and
//! replayed as a graph of several steps, without the host.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use kasmina_core::cuda::{
    CudaLayer, DeviceMatMut, DeviceMatRef, Engine, KERNELS, LayerStack, Room, StackCut, Step,
    StepGraph, StepGraphOptions,
};
use kasmina_core::{Blueprint, ForwardOptions, InitialSeed, Layer, SeedLayout, State};
use kasmina_gpu_test::{Body, Failed, Measurement, record};
use kasmina_sys::{CaptureMode, Device, DeviceBuffer, Event, Graph, Stream};

const LAYERS: usize = 48;
const SEEDS: usize = 16;
const REPEATS: usize = 41;
const WARM_UP: usize = 3;
const BATCH: usize = 8;

const BENCHES: &[(&str, Body)] = &[
    ("rows_32x768", |device| every_way(device, 32, 768)),
    ("rows_8x4096", |device| every_way(device, 8, 4096)),
    ("rows_256x1024", |device| every_way(device, 256, 1024)),
    ("cuts", cuts),
];

fn main() -> ExitCode {
    kasmina_gpu_test::bench_main("kasmina-core", &KERNELS, BENCHES)
}

struct Bench {
    engine: Arc<Engine>,
    stream: Stream,
    layers: Vec<CudaLayer>,
    matrices: Vec<DeviceBuffer<f32>>,
    gradients: Vec<DeviceBuffer<f32>>,
    size: (usize, usize),
    options: [ForwardOptions; 1],
}

fn read(
    b: &DeviceBuffer<f32>,
    (rows, hidden): (usize, usize),
) -> Result<DeviceMatRef<'_, f32>, Failed> {
    Ok(DeviceMatRef::new(b.as_slice(), rows, hidden, hidden)?)
}

fn write(
    b: &mut DeviceBuffer<f32>,
    (rows, hidden): (usize, usize),
) -> Result<DeviceMatMut<'_, f32>, Failed> {
    Ok(DeviceMatMut::new(b.as_mut_slice(), rows, hidden, hidden)?)
}

impl Bench {
    /// With every second seed on path as an expansion, or none.
    fn new(engine: &Arc<Engine>, rows: usize, hidden: usize, grown: bool) -> Result<Self, Failed> {
        let stream = Stream::new(engine.context())?;
        let layout = SeedLayout::new(hidden, hidden / SEEDS)?;
        let mut builder = Layer::builder(layout);
        for seed in (0..layout.seeds()).filter(|seed| grown && seed % 2 == 0) {
            let initial = InitialSeed {
                state: State::FineTuning,
                alpha: 0.5,
                blueprint: Some(Blueprint::MlpExpansion),
                ..InitialSeed::default()
            };
            builder = builder.seed(seed, initial);
        }
        let layer = builder.build()?;
        let layers = (0..LAYERS).map(|_| CudaLayer::from_layer(&layer, engine, &stream));
        let layers = layers.collect::<Result<_, _>>()?;
        let wave = |i: usize| ((i * 2_654_435_761) % 1999) as f32 / 1000.0 - 1.0;
        let values: Vec<f32> = (0..rows * hidden).map(wave).collect();
        let matrices = (0..=LAYERS).map(|_| DeviceBuffer::from_host(&stream, &values));
        let matrices = matrices.collect::<Result<_, _>>()?;
        let gradients = (0..=LAYERS).map(|_| DeviceBuffer::from_host(&stream, &values));
        let gradients = gradients.collect::<Result<_, _>>()?;
        let (engine, options) = (Arc::clone(engine), [ForwardOptions::new()]);
        Ok(Self { engine, stream, layers, matrices, gradients, size: (rows, hidden), options })
    }

    /// Forward, and with `both` back.
    fn launches(&mut self, both: bool) -> Result<(), Failed> {
        let (size, options) = (self.size, &self.options[0]);
        for (i, layer) in self.layers.iter_mut().enumerate() {
            let (before, behind) = self.matrices.split_at_mut(i + 1);
            layer.forward(read(&before[i], size)?, &mut write(&mut behind[0], size)?, options)?;
        }
        for (i, layer) in self.layers.iter_mut().enumerate().rev().filter(|_| both) {
            let (before, behind) = self.gradients.split_at_mut(i + 1);
            let (x, from) = (read(&self.matrices[i], size)?, read(&behind[0], size)?);
            layer.backward(x, from, &mut write(&mut before[i], size)?, options)?;
        }
        Ok(())
    }

    fn replay(&mut self, graph: &mut StepGraph, both: bool) -> Result<(), Failed> {
        let size = self.size;
        let x = self.matrices.iter_mut().map(|b| write(b, size));
        let g = self.gradients.iter_mut().map(|b| write(b, size));
        let (mut x, mut g) = (x.collect::<Result<Vec<_>, _>>()?, g.collect::<Result<Vec<_>, _>>()?);
        let step = Step::chain(&mut self.layers, &mut x)?.chain_gradients(&mut g)?.forward();
        Ok(graph.replay(if both { step.backward() } else { step })?)
    }

    fn fused(&mut self, stack: &mut LayerStack, both: bool) -> Result<String, Failed> {
        let (first, rest) = self.matrices.split_at_mut(1);
        let mut layers: Vec<&mut CudaLayer> = self.layers.iter_mut().collect();
        let (x, mut y) = (read(&first[0], self.size)?, write(&mut rest[LAYERS - 1], self.size)?);
        let report = stack.forward(&mut layers, x, &mut y, &self.options)?;
        if !both {
            return Ok(report.to_string());
        }
        let (to, from) = self.gradients.split_at_mut(1);
        let (from, mut to) = (read(&from[LAYERS - 1], self.size)?, write(&mut to[0], self.size)?);
        Ok(format!(
            "{report}; back: {}",
            stack.backward(&mut layers, x, from, &mut to, &self.options)?
        ))
    }

    /// Microseconds a layer of batches of `body`: between events, and on the host.
    fn queued(
        &mut self,
        mut body: impl FnMut(&mut Self) -> Result<(), Failed>,
    ) -> Result<(Vec<f64>, Vec<f64>), Failed> {
        let (start, end) =
            (Event::timed(self.engine.context())?, Event::timed(self.engine.context())?);
        let (mut device, mut host) = (Vec::new(), Vec::new());
        for batch in 0..WARM_UP + REPEATS {
            start.record(&self.stream)?;
            let began = Instant::now();
            for _ in 0..BATCH {
                body(self)?;
            }
            let queued = began.elapsed();
            end.record(&self.stream)?;
            end.synchronize()?;
            if batch >= WARM_UP {
                let layers = (BATCH * LAYERS) as f64;
                device.push(f64::from(end.milliseconds_since(&start)?) * 1e3 / layers);
                host.push(queued.as_secs_f64() * 1e6 / layers);
            }
        }
        Ok((device, host))
    }

    /// Microseconds a layer of what `body` launches, captured BATCH times and replayed.
    fn replayed(
        &mut self,
        repeats: usize,
        mut body: impl FnMut(&mut Self) -> Result<(), Failed>,
    ) -> Result<Vec<f64>, Failed> {
        // What goes up before a pass is there then.
        body(self)?;
        let stream = self.stream.clone();
        stream.synchronize()?;
        let mut outcome = Ok(());
        let graph = Graph::capture(&stream, CaptureMode::ThreadLocal, |_| {
            outcome = (0..BATCH).try_for_each(|_| body(self));
            Ok(())
        })?;
        outcome?;
        let graph = graph.instantiate()?;
        let (start, end) =
            (Event::timed(self.engine.context())?, Event::timed(self.engine.context())?);
        let mut device = Vec::new();
        for batch in 0..WARM_UP + repeats {
            start.record(&stream)?;
            // SAFETY: everything that the launches name is kept here, and the stream is waited for.
            unsafe { graph.launch(&stream) }?;
            end.record(&stream)?;
            end.synchronize()?;
            if batch >= WARM_UP {
                device.push(
                    f64::from(end.milliseconds_since(&start)?) * 1e3 / (BATCH * LAYERS) as f64,
                );
            }
        }
        Ok(device)
    }
}

fn middle(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn every_way(device: Device, rows: usize, hidden: usize) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    println!(
        "{LAYERS} layers of [{rows}, {hidden}] f32 in {SEEDS} chunks, telemetry on; {}, driver for CUDA {}; medians of {REPEATS} batches of \
         {BATCH} forward passes, microseconds a layer",
        device.name()?,
        device.driver().version(),
    );
    for (grown, both) in [(false, false), (true, false), (true, true)] {
        let mut bench = Bench::new(&engine, rows, hidden, grown)?;
        let life = if grown { "8 of 16 expansions" } else { "dormant" };
        let passes = if both { "forward and backward" } else { "forward" };
        let mut denominator = None;
        let mut tell = |way: &str, values: &[f64]| -> Result<(), Failed> {
            let name = format!("stack/{rows}x{hidden}/{life}/{passes}/{way}");
            record(device, &Measurement { name: &name, unit: "us a layer", values })?;
            let of = *denominator.get_or_insert(middle(values));
            println!("    {:.2} times stream launches", of / middle(values));
            Ok(())
        };
        let (queued, host) = bench.queued(|bench| bench.launches(both))?;
        tell("launches, queued", &queued)?;
        tell("launches, host", &host)?;
        let exact = StepGraphOptions::new().room(Room::Exact);
        let mut graph = StepGraph::new(&bench.stream, exact);
        let (queued, host) = bench.queued(|bench| bench.replay(&mut graph, both))?;
        tell("graph, queued", &queued)?;
        tell("graph, host", &host)?;
        let mut stack = LayerStack::new(&engine, &bench.stream);
        println!("  {}", bench.fused(&mut stack, both)?);
        let (queued, host) = bench.queued(|bench| bench.fused(&mut stack, both).map(drop))?;
        tell("stack, queued", &queued)?;
        tell("stack, host", &host)?;
        let device_us = bench.replayed(REPEATS, |bench| bench.fused(&mut stack, both).map(drop))?;
        tell("stack, device", &device_us)?;
    }
    Ok(())
}

/// Every cut that spreads the matrix over the device, best first: what the model in `cut.rs` is held against.
fn cuts(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    for (rows, hidden) in [(32usize, 768usize), (8, 4096), (256, 1024)] {
        for grown in [false, true] {
            let mut bench = Bench::new(&engine, rows, hidden, grown)?;
            let mut stack = LayerStack::new(&engine, &bench.stream);
            let mut found = Vec::new();
            let chosen = bench.replayed(9, |bench| bench.fused(&mut stack, false).map(drop))?;
            found.push((middle(&chosen), format!("chosen: {}", bench.fused(&mut stack, false)?)));
            for held in [1u32, 2, 4] {
                for packets in [2u32, 4, 6, 8, 12, 16, 24, 32, 48, 64] {
                    for lanes in [1u32, 2, 4, 8, 16, 32] {
                        let tiles = (hidden as u32).div_ceil(4 * packets);
                        let blocks = tiles * (rows as u32).div_ceil(lanes * held);
                        let idle = lanes * held > rows as u32;
                        if packets * lanes > 256 || idle || !(40..=264).contains(&blocks) {
                            continue;
                        }
                        stack.force_cut(Some(StackCut { packets, lanes, held }));
                        let times =
                            bench.replayed(5, |bench| bench.fused(&mut stack, false).map(drop))?;
                        found.push((
                            middle(&times),
                            format!(
                                "{packets} packets, {lanes} lanes, {held} rows: {blocks} blocks"
                            ),
                        ));
                    }
                }
            }
            let chosen = found[0].clone();
            found.sort_by(|a, b| a.0.total_cmp(&b.0));
            println!("[{rows}, {hidden}] grown {grown}: {:.3} us a layer {}", chosen.0, chosen.1);
            for (us, cut) in found.iter().take(8).chain(found.iter().rev().take(1)) {
                println!("    {us:.3}  {cut}");
            }
        }
    }
    Ok(())
}
