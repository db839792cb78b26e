//! What dormant Kasmina layers cost a host that trains: MLPs and small transformers in candle, with them and without, on the CPU.
//!
//! `cargo bench -p kasmina-core --bench host` takes one step of each variant in turn, in an order drawn anew, and compares the
//! times of each round: what disturbs the machine for longer than a round disturbs all variants alike. Before a figure is printed,
//! every weight of each variant must have changed, and all variants' weights must agree to the bit, as dormant layers change nothing.
//! `KASMINA_BENCH_ROUNDS` sets the rounds.

#[path = "../hosts/mod.rs"]
mod hosts;

use anyhow::{Result, ensure};
use candle_core::{DType, Device};
use kasmina_core::candle::KasminaLayer;
use kasmina_core::{ForwardOptions, Layer, SeedLayout};

use hosts::rounds::{self, Rounds};
use hosts::{CHUNK, Host, Mlp, Network, Place, Shape, There, Transformer, Watch};

/// What stands where the host's activations are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seeds {
    /// Nothing: the host alone.
    None,
    /// Dormant seeds that measure nothing.
    Dormant,
    /// Dormant seeds with the telemetry of activations and gradients.
    Watched,
}

const VARIANTS: [Seeds; 3] = [Seeds::None, Seeds::Dormant, Seeds::Watched];

impl Seeds {
    fn place(self, columns: usize) -> Result<Place> {
        if self == Self::None {
            return Ok(None);
        }
        let layer = Layer::builder(SeedLayout::new(columns, CHUNK)?).build()?;
        let options = ForwardOptions::new();
        let options = if self == Self::Watched { options } else { options.without_telemetry() };
        Ok(Some(Box::new(KasminaLayer::new(layer).with_options(options))))
    }
}

impl Watch for KasminaLayer {
    fn end_step(&self) -> Result<()> {
        self.layer().advance_step();
        Ok(())
    }
}

fn main() -> Result<()> {
    // `cargo test --benches` runs this, too: a few rounds of small hosts, to see that it works.
    let bench = std::env::args().any(|argument| argument == "--bench");
    let rounds = rounds::asked()?.unwrap_or(if bench { 300 } else { 3 });
    println!(
        "{} threads, {rounds} rounds; median and 95 % interval\n",
        rayon::current_num_threads()
    );
    println!(
        "{:<42} {:>6} {:>9}  {:>26}  {:>26}",
        "host", "layers", "ms a step", "dormant seeds", "and telemetry"
    );
    let there = There::new(Device::Cpu)?;
    let shape = Shape { batch: 0, length: 1, width: 64, depth: 2, dtype: DType::F32 };
    let width = if bench { 1024 } else { shape.width };
    for batch in [64, 256, 1024] {
        row::<Mlp>(&Shape { batch, width, ..shape }, &there, rounds)?;
    }
    let width = if bench { 256 } else { shape.width };
    for batch in [4, 16] {
        row::<Transformer>(&Shape { batch, length: 64, width, ..shape }, &there, rounds)?;
    }
    Ok(())
}

/// Trains all variants of a host and prints what the seeds cost it.
fn row<N: Network>(shape: &Shape, there: &There, rounds: usize) -> Result<()> {
    let new = |seeds: Seeds| Host::<N>::new(shape, there, &|columns| seeds.place(columns));
    let mut hosts = VARIANTS.into_iter().map(new).collect::<Result<Vec<_>>>()?;
    let measured = Rounds::take(rounds, VARIANTS.len(), |variant| hosts[variant].step())?;
    let name = N::name(shape);
    let faults = hosts::faults(&hosts)?;
    ensure!(faults.is_empty(), "{name}, variants {VARIANTS:?}:\n{}", faults.join("\n"));
    let [dormant, watched] = [1, 2].map(|variant| measured.share(variant));
    println!(
        "{name:<42} {:>6} {:>9.2}  {:>26}  {:>26}",
        N::places(shape),
        measured.milliseconds(),
        dormant.to_string(),
        watched.to_string()
    );
    Ok(())
}
