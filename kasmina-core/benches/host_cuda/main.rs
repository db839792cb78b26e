//! What dormant Kasmina layers cost a host that trains on a GPU: MLPs and small transformers in candle, with them and without.
//!
//! `cargo bench -p kasmina-core --features candle-cuda --bench host_cuda` takes a block of steps of each variant in turn, in an order
//! drawn anew, and compares the times of each round: what disturbs the machine for longer than a round disturbs all variants alike. A
//! block is queued without a wait and waited for at its end. In the end every weight of each variant must train, and all variants'
//! weights must agree to the bit, as dormant layers change nothing.
//!
//! `KASMINA_BENCH_ROUNDS` sets the rounds. Words after `--` choose rows: those whose names have one of them. With `--default-pool` the
//! device's pool gives freed memory back at every wait, as it does unless told otherwise.

#[path = "../hosts/mod.rs"]
mod hosts;

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use candle_core::{DType, Device};
use kasmina_core::candle::KasminaCudaLayer;
use kasmina_core::cuda::Engine;
use kasmina_core::{ForwardOptions, Layer, SeedLayout};
use kasmina_telemetry::TelemetryMode;

use hosts::rounds::{self, Rounds};
use hosts::{CHUNK, Host, Mlp, Network, Place, Shape, There, Transformer, Watch};

/// What stands where the host's activations are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seeds {
    /// Nothing: the host alone.
    None,
    /// Dormant seeds that measure nothing.
    Dormant,
    /// The same with the telemetry of activations.
    Activations,
    /// With the telemetry of gradients, too.
    Both,
    /// Both in every [`EVERY`]th step.
    Sampled,
}

/// Steps from one sampled step to the next.
const EVERY: usize = 8;

impl Seeds {
    fn place(self, columns: usize, device: &Device, engine: &Arc<Engine>) -> Result<Place> {
        if self == Self::None {
            return Ok(None);
        }
        let mut layer = Layer::builder(SeedLayout::new(columns, CHUNK)?).build()?;
        if self == Self::Sampled {
            layer.set_telemetry_mode(TelemetryMode::sampling(EVERY as u32, 1.0)?)?;
        }
        let module = KasminaCudaLayer::new(&layer, device, engine)?;
        Ok(Some(Box::new(match self {
            Self::Dormant => module.with_options(ForwardOptions::new().without_telemetry()),
            Self::Activations => module.without_gradient_statistics(),
            _ => module,
        })))
    }
}

impl Watch for KasminaCudaLayer {
    fn end_step(&self) -> Result<()> {
        Ok(self.advance_step()?)
    }
}

/// Shortest block, in seconds.
const BLOCK: f64 = 0.005;
/// What the rounds of a row take, unless they would be too few.
const ROW: f64 = 0.6;
const ROUNDS: std::ops::RangeInclusive<usize> = 12..=200;

/// Batch, width, layers.
const MLPS: [(usize, usize, usize, DType); 6] = [
    (1024, 2048, 4, DType::F32),
    (4096, 2048, 4, DType::F32),
    (1024, 2048, 4, DType::BF16),
    (4096, 4096, 2, DType::BF16),
    (64, 256, 4, DType::F32),
    (256, 1024, 4, DType::F32),
];

/// Batch, tokens, width, blocks.
const TRANSFORMERS: [(usize, usize, usize, usize, DType); 5] = [
    (16, 256, 512, 4, DType::F32),
    (8, 512, 1024, 2, DType::F32),
    (16, 256, 512, 4, DType::BF16),
    (8, 512, 1024, 2, DType::BF16),
    (4, 64, 256, 2, DType::F32),
];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("run it with --bench");
        return Ok(());
    }
    let words: Vec<_> = arguments.iter().filter(|word| !word.starts_with("--")).cloned().collect();
    let thread = Device::new_cuda(0)?;
    let engine = KasminaCudaLayer::engine(&thread)?;
    println!("{}; medians and 95 % intervals", engine.context().device().name()?);
    if !arguments.iter().any(|argument| argument == "--default-pool") {
        keep_memory(&thread)?;
    }

    println!("\nCandle in the stream of the thread, as `Device::new_cuda` has it");
    let there = There::new(thread)?;
    let every_step = [Seeds::None, Seeds::Dormant, Seeds::Activations, Seeds::Both];
    let bench =
        Bench { there: &there, engine: &engine, words: &words, variants: &every_step, multiple: 1 };
    let mut agree = bench.rows(&MLPS, &TRANSFORMERS)?;
    println!("\nThe same, sampled in every {EVERY}th step");
    let sampled = [Seeds::None, Seeds::Sampled];
    let bench = Bench { variants: &sampled, multiple: EVERY, ..bench };
    agree &= bench.rows(&MLPS[2..6], &TRANSFORMERS[4..])?;

    println!("\nCandle in a stream of its own, without events");
    let device = Device::new_cuda_with_stream(0)?;
    // SAFETY: everything is used in this thread and in this stream.
    unsafe { device.as_cuda_device()?.disable_event_tracking() };
    let there = There::new(device)?;
    let bench =
        Bench { there: &there, engine: &engine, words: &words, variants: &every_step, multiple: 1 };
    agree &= bench.rows(&MLPS[..3], &TRANSFORMERS[2..3])?;
    ensure!(agree, "not what a host with dormant seeds must be: see above");
    Ok(())
}

/// Lets the device's pool keep what candle frees. As it is, the pool gives everything back at each wait, and a block's first step has to
/// ask for it again, which takes longer than the step; a run that does not wait behind every few steps pays that once.
fn keep_memory(device: &Device) -> Result<()> {
    use candle_core::cuda_backend::cudarc::driver::sys;
    device.synchronize()?;
    let mut pool: sys::CUmemoryPool = std::ptr::null_mut();
    let mut bytes = u64::MAX;
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: candle has made a context of device 0; both pointers are to live values of the types that the calls take.
    unsafe {
        sys::cuDeviceGetDefaultMemPool(&mut pool, 0).result()?;
        sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut bytes).cast()).result()?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Bench<'a> {
    there: &'a There,
    engine: &'a Arc<Engine>,
    words: &'a [String],
    /// The first is what the others are compared with.
    variants: &'a [Seeds],
    /// Steps of a block are a multiple of this.
    multiple: usize,
}

impl Bench<'_> {
    fn rows(
        &self,
        mlps: &[(usize, usize, usize, DType)],
        transformers: &[(usize, usize, usize, usize, DType)],
    ) -> Result<bool> {
        print!("{:<42} {:>6} {:>9} {:>6}", "host", "layers", "ms a step", "queued");
        for seeds in &self.variants[1..] {
            print!("  {:>24}", format!("{seeds:?}"));
        }
        println!("  rounds × steps");
        let mut agree = true;
        for &(batch, width, depth, dtype) in mlps {
            agree &= self.row::<Mlp>(&Shape { batch, length: 1, width, depth, dtype })?;
        }
        for &(batch, length, width, depth, dtype) in transformers {
            agree &= self.row::<Transformer>(&Shape { batch, length, width, depth, dtype })?;
        }
        Ok(agree)
    }

    /// Trains all variants of a host and prints what the seeds cost it; whether all have trained, to the same weights.
    fn row<N: Network>(&self, shape: &Shape) -> Result<bool> {
        let name = N::name(shape);
        if !self.words.is_empty() && !self.words.iter().any(|word| name.contains(word)) {
            return Ok(true);
        }
        let new = |seeds: &Seeds| {
            let place = |columns| seeds.place(columns, &self.there.device, self.engine);
            Host::<N>::new(shape, self.there, &place)
        };
        let mut hosts = self.variants.iter().map(new).collect::<Result<Vec<_>>>()?;
        // Seconds of the host alone: until all was queued, and until all was done.
        let mut alone = (0.0, 0.0);
        let mut block = |variant: usize, steps: usize| -> Result<f64> {
            let started = Instant::now();
            for _ in 0..steps {
                hosts[variant].step()?;
            }
            let queued = started.elapsed().as_secs_f64();
            self.there.device.synchronize()?;
            let done = started.elapsed().as_secs_f64();
            if variant == 0 {
                alone = (alone.0 + queued, alone.1 + done);
            }
            Ok(done)
        };
        // The first steps load kernels and choose algorithms. All variants make the same steps: they are compared.
        let mut second = 0.0;
        for variant in (0..self.variants.len()).rev() {
            block(variant, self.multiple.max(3))?;
            second = block(variant, 2 * self.multiple)? / (2 * self.multiple) as f64;
        }
        let least = (BLOCK / second).ceil().max(1.0) as usize;
        let steps = least.next_multiple_of(self.multiple);
        let round = second * (steps * self.variants.len()) as f64;
        let rounds = rounds::asked()?
            .unwrap_or(((ROW / round) as usize).clamp(*ROUNDS.start(), *ROUNDS.end()));
        let measured =
            Rounds::take(rounds, self.variants.len(), |variant| block(variant, steps).map(drop))?;
        let (layers, step) = (N::places(shape), measured.milliseconds() / steps as f64);
        print!("{name:<42} {layers:>6} {step:>9.3} {:>4.0} %", 100.0 * alone.0 / alone.1);
        for variant in 1..self.variants.len() {
            print!("  {:>24}", measured.share(variant).to_string());
        }
        println!("  {rounds} × {steps}");
        let faults = hosts::faults(&hosts)?;
        for fault in &faults {
            println!("  {fault}, of the variants {:?}", self.variants);
        }
        Ok(faults.is_empty())
    }
}
