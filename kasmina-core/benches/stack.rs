//! The cuts of a whole-stack launch: every one that spreads the matrix over the device, beside the one that the model in `cut.rs` chooses.
//! `cargo bench -p kasmina-core --bench stack`, on a machine with a GPU. What a stack costs beside launches, graphs and the grid is in
//! `cargo xtask bench --only stack`.
//!
//! Microseconds a layer, medians, of the pass's launches captured and replayed as a graph of several steps, without the host.

use std::process::ExitCode;
use std::sync::Arc;

use kasmina_core::cuda::{
    CudaLayer, DeviceMatMut, DeviceMatRef, Engine, KERNELS, LayerStack, StackCut,
};
use kasmina_core::{Blueprint, ForwardOptions, InitialSeed, Layer, SeedLayout, State};
use kasmina_gpu_test::{Body, Failed};
use kasmina_sys::{CaptureMode, Device, DeviceBuffer, Event, Graph, Stream};

const LAYERS: usize = 48;
const SEEDS: usize = 16;
const WARM_UP: usize = 3;
const BATCH: usize = 8;

const BENCHES: &[(&str, Body)] = &[("cuts", cuts)];

fn main() -> ExitCode {
    kasmina_gpu_test::bench_main("kasmina-core", &KERNELS, BENCHES)
}

struct Bench {
    engine: Arc<Engine>,
    stream: Stream,
    layers: Vec<CudaLayer>,
    matrices: Vec<DeviceBuffer<f32>>,
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
        let (engine, options) = (Arc::clone(engine), [ForwardOptions::new()]);
        Ok(Self { engine, stream, layers, matrices, size: (rows, hidden), options })
    }

    fn fused(&mut self, stack: &mut LayerStack) -> Result<String, Failed> {
        let (first, rest) = self.matrices.split_at_mut(1);
        let mut layers: Vec<&mut CudaLayer> = self.layers.iter_mut().collect();
        let (x, mut y) = (read(&first[0], self.size)?, write(&mut rest[LAYERS - 1], self.size)?);
        Ok(stack.forward(&mut layers, x, &mut y, &self.options)?.to_string())
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

/// Every cut that spreads the matrix over the device, best first: what the model in `cut.rs` is held against.
fn cuts(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    for (rows, hidden) in [(32usize, 768usize), (8, 4096), (256, 1024)] {
        for grown in [false, true] {
            let mut bench = Bench::new(&engine, rows, hidden, grown)?;
            let mut stack = LayerStack::new(&engine, &bench.stream);
            let mut found = Vec::new();
            let chosen = bench.replayed(9, |bench| bench.fused(&mut stack).map(drop))?;
            found.push((middle(&chosen), format!("chosen: {}", bench.fused(&mut stack)?)));
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
                        let times = bench.replayed(5, |bench| bench.fused(&mut stack).map(drop))?;
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
