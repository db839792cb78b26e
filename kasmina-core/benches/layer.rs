//! What a layer costs on the CPU, each figure beside its denominator from the same run.
//!
//! `cargo bench -p kasmina-core --bench layer` measures with criterion and ends with a table of ratios.
//! Activations are 4096 × 4096 f32 (64 MiB a matrix, more than the caches hold). The shape can be set with
//! KASMINA_BENCH_ROWS and KASMINA_BENCH_COLUMNS.

use std::path::Path;
use std::time::Duration;

use candle_core::{DType, Device, Tensor};
use criterion::{BatchSize, Criterion};
use kasmina_core::{
    Activation, AdamW, Blueprint, Command, ForwardOptions, Germination, InitialSeed, Layer, MatMut,
    MatRef, Objective, OverheadOptions, SeedLayout, Stability, StabilityMode, State,
};
use kasmina_telemetry::TelemetryScope;
use kasmina_telemetry::transport::{Published, Transport};
use rayon::prelude::*;

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// All seeds alike.
fn layer(layout: SeedLayout, state: State, blueprint: Blueprint, mode: StabilityMode) -> Layer {
    let mut builder = Layer::builder(layout).stability(Stability::new(mode));
    if state.owns_parameters() {
        for seed in 0..layout.seeds() {
            let blueprint = Some(blueprint.clone());
            let initial = InitialSeed { state, alpha: 0.5, blueprint, ..InitialSeed::default() };
            builder = builder.seed(seed, initial);
        }
    }
    builder.build().expect("a legal layer")
}

struct Matrices {
    columns: usize,
    x: Vec<f32>,
    g: Vec<f32>,
    out: Vec<f32>,
}

impl Matrices {
    fn new(rows: usize, columns: usize) -> Self {
        let wave = |k: usize| (k.wrapping_mul(2_654_435_761) >> 7 & 0xffff) as f32 / 32768.0 - 1.0;
        let x: Vec<f32> = (0..rows * columns).into_par_iter().map(wave).collect();
        Self { columns, g: x.clone(), out: vec![1.0; x.len()], x }
    }

    fn forward(&mut self, layer: &mut Layer, options: &ForwardOptions) {
        let x = MatRef::contiguous(&self.x, self.columns).expect("whole rows");
        let y = MatMut::contiguous(&mut self.out, self.columns).expect("whole rows");
        layer.forward(x, y, options).expect("forward");
    }

    fn forward_in_place(&mut self, layer: &mut Layer) {
        let x = MatMut::contiguous(&mut self.out, self.columns).expect("whole rows");
        layer.forward_in_place(x, &ForwardOptions::new().inference()).expect("forward");
    }

    fn backward(&mut self, layer: &mut Layer) {
        let x = MatRef::contiguous(&self.x, self.columns).expect("whole rows");
        let g = MatRef::contiguous(&self.g, self.columns).expect("whole rows");
        let out = MatMut::contiguous(&mut self.out, self.columns).expect("whole rows");
        layer.backward(x, g, out, &ForwardOptions::new()).expect("backward");
    }

    /// The denominator of forward: one copy on the same threads, in pieces as large as can be.
    fn memcpy(&mut self) {
        let piece = self.x.len().div_ceil(rayon::current_num_threads());
        self.out
            .par_chunks_mut(piece)
            .zip(self.x.par_chunks(piece))
            .for_each(|(to, from)| to.copy_from_slice(from));
    }

    /// The denominator of backward: read two, write one.
    fn triad(&mut self) {
        let piece = self.x.len().div_ceil(rayon::current_num_threads());
        let arch = pulp::Arch::new();
        self.out
            .par_chunks_mut(piece)
            .zip(self.x.par_chunks(piece).zip(self.g.par_chunks(piece)))
            .for_each(|(to, (x, g))| {
                arch.dispatch(|| {
                    for ((to, x), g) in to.iter_mut().zip(x).zip(g) {
                        *to = x + 0.5 * g;
                    }
                });
            });
    }
}

/// What a pass over a dormant layer does, in candle operations: the copy, and each chunk's statistics over
/// its finite elements.
fn candle_dormant(x: &Tensor, chunk: usize) -> candle_core::Result<Vec<Tensor>> {
    let (rows, columns) = x.dims2()?;
    let y = x.copy()?;
    let chunks = x.reshape((rows, columns / chunk, chunk))?.transpose(0, 1)?.contiguous()?;
    let flat = chunks.reshape((columns / chunk, rows * chunk))?;
    let finite = flat.abs()?.lt(f64::INFINITY)?;
    let fill = |value: f32| Tensor::full(value, (), x.device())?.broadcast_as(flat.shape());
    let count = finite.to_dtype(DType::F32)?.sum_keepdim(1)?;
    let known = finite.where_cond(&flat, &fill(0.0)?)?;
    let mean = known.sum_keepdim(1)?.div(&count)?;
    let residual = finite.where_cond(&known.broadcast_sub(&mean)?, &fill(0.0)?)?;
    let variance = residual.sqr()?.sum_keepdim(1)?.div(&count)?;
    let min = finite.where_cond(&flat, &fill(f32::INFINITY)?)?.min(1)?;
    let max = finite.where_cond(&flat, &fill(f32::NEG_INFINITY)?)?.max(1)?;
    let dead = flat.abs()?.le(1e-8)?.to_dtype(DType::F32)?.sum(1)?;
    Ok(vec![y, count, mean, variance, min, max, dead])
}

/// The same with a blended residual in every chunk, guarded as adaptive mode guards.
fn candle_residual(x: &Tensor, bias: &Tensor, chunk: usize) -> candle_core::Result<Vec<Tensor>> {
    let mut out = candle_dormant(x, chunk)?;
    let zeros = x.zeros_like()?;
    // A NaN fails the comparison and becomes 0 with the tiny ones.
    let kept = x.abs()?.ge(1e-8)?.where_cond(x, &zeros)?.clamp(-1e6f32, 1e6f32)?;
    out[0] = kept.broadcast_add(bias)?.clamp(-1e6f32, 1e6f32)?;
    Ok(out)
}

fn passes(c: &mut Criterion, rows: usize, columns: usize) {
    let mut m = Matrices::new(rows, columns);
    let options = ForwardOptions::new();
    let layout = |chunk| SeedLayout::new(columns, chunk).expect("a legal layout");
    let residual = Blueprint::Residual;
    let mut group = c.benchmark_group("pass");
    group
        .sample_size(30)
        .measurement_time(Duration::from_secs(3))
        .warm_up_time(Duration::from_millis(500));

    group.bench_function("memcpy", |b| b.iter(|| m.memcpy()));
    for chunk in [1, 16, 64, 256] {
        let mut dormant =
            layer(layout(chunk), State::Dormant, residual.clone(), StabilityMode::Adaptive);
        group.bench_function(format!("forward dormant telemetry chunk {chunk}"), |b| {
            b.iter(|| m.forward(&mut dormant, &options));
        });
    }
    let mut dormant = layer(layout(64), State::Dormant, residual.clone(), StabilityMode::Adaptive);
    group.bench_function("forward dormant in place telemetry chunk 64", |b| {
        b.iter(|| m.forward_in_place(&mut dormant));
    });
    dormant.set_telemetry_scope(TelemetryScope::Off);
    group.bench_function("forward dormant without telemetry", |b| {
        b.iter(|| m.forward(&mut dormant, &options));
    });
    group.bench_function("forward dormant in place without telemetry", |b| {
        b.iter(|| m.forward_in_place(&mut dormant));
    });
    let mut blended =
        layer(layout(64), State::FineTuning, residual.clone(), StabilityMode::Adaptive);
    group.bench_function("forward residual telemetry chunk 64", |b| {
        b.iter(|| m.forward(&mut blended, &options));
    });

    group.bench_function("triad", |b| b.iter(|| m.triad()));
    group.bench_function("backward residual trainable chunk 64", |b| {
        b.iter(|| m.backward(&mut blended))
    });
    let mut expansion =
        layer(layout(64), State::FineTuning, Blueprint::MlpExpansion, StabilityMode::Adaptive);
    group.bench_function("backward expansion trainable chunk 64", |b| {
        b.iter(|| m.backward(&mut expansion));
    });
    let mut dormant = layer(layout(64), State::Dormant, residual, StabilityMode::Adaptive);
    group.bench_function("backward dormant chunk 64", |b| b.iter(|| m.backward(&mut dormant)));

    let x = Tensor::from_slice(&m.x, (rows, columns), &Device::Cpu).expect("a tensor");
    let bias = Tensor::ones(columns, DType::F32, &Device::Cpu).expect("a tensor");
    group.sample_size(10).measurement_time(Duration::from_secs(5));
    group.bench_function("candle dormant telemetry chunk 64", |b| {
        b.iter(|| candle_dormant(&x, 64).expect("candle"));
    });
    group.bench_function("candle residual telemetry chunk 64", |b| {
        b.iter(|| candle_residual(&x, &bias, 64).expect("candle"));
    });
    group.finish();
}

fn seeds(c: &mut Criterion) {
    const SEEDS: usize = 100_000;
    let layout = SeedLayout::new(SEEDS, 1).expect("a legal layout");
    let mut group = c.benchmark_group("seeds");
    group.sample_size(30).measurement_time(Duration::from_secs(3));
    let dormant = || layer(layout, State::Dormant, Blueprint::Residual, StabilityMode::Adaptive);
    let mut idle = dormant();
    group.bench_function("epoch boundary, 100,000 seeds, no command", |b| {
        b.iter(|| idle.end_epoch())
    });
    let bottleneck = Blueprint::Bottleneck { width: 2, activation: Activation::Gelu };
    group.bench_function("epoch boundary, 100,000 seeds, 1,000 germinate", |b| {
        b.iter_batched(
            || {
                let mut layer = dormant();
                let id = layer.registry().find("bottleneck").expect("built in");
                for seed in (0..SEEDS).step_by(100) {
                    let germination = Germination::new(id).objective(Objective::Probe);
                    layer.command(seed, Command::Germinate(germination), "bench").expect("legal");
                }
                layer
            },
            |mut layer| {
                let report = layer.end_epoch();
                (layer, report)
            },
            BatchSize::PerIteration,
        );
    });
    let mut grown = layer(layout, State::FineTuning, Blueprint::Residual, StabilityMode::Adaptive);
    grown.refresh_plan().expect("registered");
    group.bench_function("lowering one changed seed of 100,000", |b| {
        b.iter(|| {
            grown.set_parameters(77_777, &[0.5, 1.0]).expect("finite");
            assert_eq!(grown.refresh_plan().expect("registered"), 1);
        });
    });
    let layout = SeedLayout::new(1024, 64).expect("a legal layout");
    let mut trained = layer(layout, State::FineTuning, bottleneck, StabilityMode::Adaptive);
    let mut m = Matrices::new(256, 1024);
    group.bench_function("step of 16 bottlenecks on 256 × 1024", |b| {
        b.iter(|| {
            m.forward(&mut trained, &ForwardOptions::new());
            m.backward(&mut trained);
            assert!(trained.optimizer_step(&AdamW::default()).skipped.is_empty());
            trained.advance_step();
        });
    });
    group.finish();
}

/// What handing a report to another thread costs the training thread, when that takes it at once and when it lags.
fn transport(c: &mut Criterion) {
    const SEEDS: usize = 100_000;
    let layout = SeedLayout::new(SEEDS, 1).expect("a legal layout");
    let mut watched = layer(layout, State::Dormant, Blueprint::Residual, StabilityMode::Adaptive);
    let mut m = Matrices::new(8, SEEDS);
    m.forward(&mut watched, &ForwardOptions::new());
    m.backward(&mut watched);
    let report = watched.end_epoch().telemetry;
    let mut group = c.benchmark_group("transport");
    group.sample_size(30).measurement_time(Duration::from_secs(3));
    let free = Transport::new(2, |_| Ok(())).expect("a thread");
    let stuck = Transport::new(1, |_| {
        loop {
            std::thread::park();
        }
    })
    .expect("a thread");
    // One for the consumer to be stuck with, one to merge into.
    stuck.publish(report.clone());
    while stuck.publish(report.clone()) == Published::Queued {}
    for (name, transport) in [("taken at once", &free), ("merged", &stuck)] {
        group.bench_function(format!("report of 100,000 seeds, {name}"), |b| {
            b.iter_batched(
                || report.clone(),
                |report| transport.publish(report),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// Median of a finished benchmark in seconds, from criterion's own files.
fn median(group: &str, name: &str) -> Option<f64> {
    let directory = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".into());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(directory);
    let name: String =
        name.chars().map(|c| if "/\\?*:\"<>|".contains(c) { '_' } else { c }).collect();
    let file = root.join("criterion").join(group).join(name).join("new/estimates.json");
    let text = std::fs::read_to_string(file).ok()?;
    let json: serde_json::Value = serde_json::from_str(&text).ok()?;
    Some(json["median"]["point_estimate"].as_f64()? * 1e-9)
}

fn ratios(rows: usize, columns: usize) {
    let bytes = (rows * columns * size_of::<f32>()) as f64;
    println!("\n{rows} × {columns} f32, {} threads", rayon::current_num_threads());
    println!("{:<50} {:>10} {:>8} {:>12}", "", "ms", "GB/s", "ratio");
    let line = |name: &str, moved: f64, denominator: Option<&str>| {
        let Some(time) = median("pass", name) else { return };
        let ratio = denominator.and_then(|d| median("pass", d)).map(|d| d / time);
        let ratio = ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"));
        println!(
            "{name:<50} {:>10.3} {:>8.2} {ratio:>12}",
            time * 1e3,
            moved * bytes / time * 1e-9
        );
    };
    line("memcpy", 2.0, None);
    for chunk in [1, 16, 64, 256] {
        line(&format!("forward dormant telemetry chunk {chunk}"), 2.0, Some("memcpy"));
    }
    line("forward residual telemetry chunk 64", 2.0, Some("memcpy"));
    line("forward dormant without telemetry", 2.0, Some("memcpy"));
    line("forward dormant in place telemetry chunk 64", 1.0, Some("memcpy"));
    line("forward dormant in place without telemetry", 0.0, None);
    line("triad", 3.0, None);
    line("backward dormant chunk 64", 2.0, Some("triad"));
    line("backward residual trainable chunk 64", 3.0, Some("triad"));
    line("backward expansion trainable chunk 64", 3.0, Some("triad"));
    for kind in ["dormant", "residual"] {
        let candle = format!("candle {kind} telemetry chunk 64");
        line(&candle, 2.0, Some("memcpy"));
        let ours = median("pass", &format!("forward {kind} telemetry chunk 64"));
        if let (Some(ours), Some(candle)) = (ours, median("pass", &candle)) {
            println!("{kind} with telemetry, candle's time over ours: {:.0}", candle / ours);
        }
    }
}

/// What telemetry costs, as a layer measures it itself for its reports.
fn overheads(rows: usize, columns: usize) {
    let m = Matrices::new(rows, columns);
    let view = |data| MatRef::contiguous(data, columns).expect("whole rows");
    println!("\ncost of telemetry in percent of the pass without it [95 % interval], noise");
    for (state, chunk) in [
        (State::Dormant, 1),
        (State::Dormant, 16),
        (State::Dormant, 64),
        (State::Dormant, 256),
        (State::FineTuning, 64),
    ] {
        let layout = SeedLayout::new(columns, chunk).expect("a legal layout");
        let mut layer = layer(layout, state, Blueprint::Residual, StabilityMode::Adaptive);
        for grad_y in [None, Some(view(&m.g))] {
            let cost = layer
                .measure_telemetry_overhead(view(&m.x), grad_y, &OverheadOptions::default())
                .expect("a pass that takes time");
            let name = format!("{:?}, {state}, chunk {chunk}", cost.of.pass);
            println!(
                "{name:<50} {:>8.1} [{:.1}, {:.1}], {:.1}",
                cost.percent, cost.low_percent, cost.high_percent, cost.noise_percent
            );
        }
    }
}

fn main() {
    let (rows, columns) =
        (setting("KASMINA_BENCH_ROWS", 4096), setting("KASMINA_BENCH_COLUMNS", 4096));
    let mut criterion = Criterion::default().configure_from_args();
    passes(&mut criterion, rows, columns);
    seeds(&mut criterion);
    transport(&mut criterion);
    criterion.final_summary();
    ratios(rows, columns);
    overheads(rows, columns);
}
