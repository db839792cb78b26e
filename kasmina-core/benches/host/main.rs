//! What dormant Kasmina layers cost a host that trains: an MLP and a small transformer in candle, with them and without, on the CPU.
//!
//! `cargo bench -p kasmina-core --bench host` takes one step of each variant in turn, in an order drawn anew, and compares the
//! times of each round: what disturbs the machine for longer than a round disturbs all variants alike. Before a figure is printed,
//! every weight of each variant must have changed, as a host that trains only in part makes the seeds look dearer or cheaper than
//! they are, and all variants' weights must agree to the bit, as dormant layers change nothing. `KASMINA_BENCH_ROUNDS` sets the rounds.

mod hosts;
mod rounds;

use anyhow::{Result, ensure};

use hosts::{Host, Mlp, Seeds, Transformer};
use rounds::Rounds;

const VARIANTS: [Seeds; 3] = [Seeds::None, Seeds::Dormant, Seeds::Watched];

fn main() -> Result<()> {
    // `cargo test --benches` runs this, too: a few rounds of small hosts, to see that it works.
    let bench = std::env::args().any(|argument| argument == "--bench");
    let rounds = std::env::var("KASMINA_BENCH_ROUNDS").ok().and_then(|text| text.parse().ok());
    let rounds = rounds.unwrap_or(if bench { 300 } else { 3 });
    println!(
        "{} threads, {rounds} rounds; median and 95 % interval\n",
        rayon::current_num_threads()
    );
    println!("{:<58} {:>9}  {:>26}  {:>26}", "host", "ms a step", "dormant seeds", "and telemetry");
    let wide = if bench { 1024 } else { 64 };
    for batch in [64, 256, 1024] {
        row::<Mlp>(&hosts::Shape { batch, length: 1, width: wide }, rounds)?;
    }
    let width = if bench { 256 } else { 64 };
    for batch in [4, 16] {
        row::<Transformer>(&hosts::Shape { batch, length: 64, width }, rounds)?;
    }
    Ok(())
}

/// Trains all variants of a host and prints what the seeds cost it.
fn row<H: Host>(shape: &hosts::Shape, rounds: usize) -> Result<()> {
    let mut hosts =
        VARIANTS.map(|seeds| H::new(shape, seeds)).into_iter().collect::<Result<Vec<_>>>()?;
    let measured = Rounds::take(rounds, VARIANTS.len(), |variant| hosts[variant].step())?;
    let alone = hosts[0].weights().bits()?;
    for (host, seeds) in hosts.iter().zip(VARIANTS) {
        let untrained = host.weights().untrained()?;
        ensure!(untrained.is_empty(), "{}, {seeds:?}: {untrained:?} did not train", host.name());
        ensure!(
            host.weights().bits()? == alone,
            "{seeds:?} seeds changed the weights of {}",
            host.name()
        );
    }
    let [dormant, watched] = [1, 2].map(|variant| measured.share(variant));
    println!(
        "{:<58} {:>9.2}  {:>26}  {:>26}",
        hosts[0].name(),
        measured.milliseconds(),
        dormant.to_string(),
        watched.to_string()
    );
    Ok(())
}
