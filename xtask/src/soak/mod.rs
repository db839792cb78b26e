//! `cargo xtask soak`: full lives of random layers for many epochs, with faults, beside replays that must agree.
//!
//! - `life` is a layer with everything that happens to it, `commands` what is asked of it, `model` the lifecycle's replay and `judge` the f64 oracle's.
//! - `faults` keeps the checkpoints, and injects what goes wrong; `user` is a blueprint that panics on demand.
//! - `resources` watches memory, files and threads, `tally` counts and keeps a digest: the same seed gives the same run.
//!
//! A failure ends the run and names seed and epoch; `--seed` with that number comes to the same place.

mod commands;
mod faults;
mod judge;
mod life;
mod model;
mod resources;
mod tally;
mod user;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use faults::Shelf;
use life::Life;
use resources::Sample;
use tally::Tally;

/// Arguments of `cargo xtask soak`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many epochs; each has several training steps
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(8..))]
    epochs: u32,
    /// Seed of everything that is drawn; the same seed gives the same run
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// 400 epochs, for continuous integration
    #[arg(long, conflicts_with = "epochs")]
    quick: bool,
}

const QUICK: u32 = 400;
/// Epochs of one layer's life.
const LIFE: std::ops::RangeInclusive<usize> = 10..=30;
/// Lines of the memory curve.
const CURVE: usize = 10;

/// Runs the command.
#[must_use]
pub fn main(args: &Args) -> ExitCode {
    user::silence_injected_panics();
    let epochs = if args.quick { QUICK } else { args.epochs } as usize;
    let started = Instant::now();
    let mut samples = Vec::new();
    let outcome = run(args.seed, epochs, |epoch| samples.extend(Sample::take(epoch)));
    let mut out = std::io::stdout().lock();
    // Only a broken pipe can fail here, and then nobody reads it.
    let mut line = |text: &str| drop(writeln!(out, "{text}"));
    line(&format!(
        "{epochs} epochs in {:.1} s, seed {}",
        started.elapsed().as_secs_f64(),
        args.seed
    ));
    let every = samples.len().div_ceil(CURVE).max(1);
    for sample in samples.iter().step_by(every).chain(samples.last()) {
        let Sample { epoch, resident, files, threads } = sample;
        line(&format!(
            "epoch {epoch:>5}: {resident:>7} KiB resident, {files} files, {threads} threads"
        ));
    }
    let tally = match outcome {
        Ok(tally) => tally,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    line(&tally.to_string());
    let mut failed = false;
    let mut say = |what: &str, outcome: Result<String, String>| match outcome {
        Ok(text) => line(&format!("{what}: {text}")),
        Err(error) => {
            failed = true;
            eprintln!("error: {what}: {error}");
        }
    };
    say("coverage", tally.coverage().map(|()| "every state and every fault".to_owned()));
    match cfg!(target_os = "linux") {
        true => say("leaks", resources::judge(&samples)),
        false => say("leaks", Ok("not looked for: there is no /proc".to_owned())),
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The whole run; `at_boundary` is called after each epoch.
fn run(seed: u64, epochs: usize, mut at_boundary: impl FnMut(usize)) -> Result<Tally, String> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut tally = Tally::default();
    let user = Arc::new(user::Shift::default());
    let registry = life::registry(&user)?;
    let mut shelf = Shelf::new(registry.clone())?;
    let mut life = Life::draw(&mut rng, &registry, &user)?;
    let mut left = rng.random_range(LIFE);
    tally.lives = 1;
    for epoch in 0..epochs {
        let at = |error| format!("seed {seed}, epoch {epoch}: {error}");
        if left == 0 {
            life = Life::draw(&mut rng, &registry, &user).map_err(at)?;
            left = rng.random_range(LIFE);
            tally.lives += 1;
            shelf.next_life();
        }
        left -= 1;
        one_epoch(&mut life, &mut shelf, &mut rng, &mut tally).map_err(at)?;
        at_boundary(epoch);
    }
    let again = shelf.check_all()?;
    if again == tally.saved {
        Ok(tally)
    } else {
        Err(format!("{again} checkpoints of {}", tally.saved))
    }
}

fn one_epoch(
    life: &mut Life,
    shelf: &mut Shelf,
    rng: &mut ChaCha8Rng,
    tally: &mut Tally,
) -> Result<(), String> {
    for _ in 0..rng.random_range(1..=5) {
        life.step(rng, tally)?;
        if rng.random_bool(0.15) {
            shelf.inject(life, rng, tally)?;
        }
    }
    life.end_epoch(rng, tally)?;
    if rng.random_bool(0.3) {
        shelf.save(life, tally)?;
    }
    if rng.random_bool(if life.is_rolled_back() { 0.5 } else { 0.1 }) {
        shelf.restore(life, rng, tally)?;
    }
    if rng.random_bool(0.05) {
        faults::migrate(shelf.folder(), tally)?;
    }
    Ok(())
}
