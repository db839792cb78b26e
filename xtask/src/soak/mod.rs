//! `cargo xtask soak`: full lives of random layers for many epochs, with faults, beside replays that must agree.
//!
//! - `life` is a layer with everything that happens to it, `commands` what is asked of it, `model` the lifecycle's replay and `judge` the f64 oracle's.
//! - `subject` is what a life needs of a layer, and the CPU's; `gpu` is one that moves between CPU and GPU, `liar` for tests one that lies.
//! - `faults` keeps the checkpoints, and injects what goes wrong; `user` is a blueprint that panics on demand.
//! - `resources` watches memory, files and threads, `tally` counts and keeps a digest: the same seed gives the same run.
//!
//! A failure ends the run and names seed and epoch; `--seed` with that number comes to the same place.

mod commands;
mod faults;
mod gpu;
mod judge;
#[cfg(test)]
mod liar;
mod life;
mod model;
mod resources;
mod subject;
mod tally;
mod user;

use std::io::Write;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use kasmina_core::Layer;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use faults::Shelf;
use gpu::{Gpu, Moving};
use life::Life;
use resources::Sample;
use subject::Subject;
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
    /// Where the layers live; with `cuda` they run on the first GPU, and move between it and the CPU
    #[arg(long, value_enum, default_value_t = Backend::Cpu)]
    backend: Backend,
    /// Let faults take all memory of the GPU for moments; other programs on it may fail by that
    #[arg(long)]
    fill_memory: bool,
}

/// The values of `--backend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Backend {
    /// The CPU
    Cpu,
    /// The first GPU, and the CPU in turn; an error where there is no GPU
    Cuda,
}

const QUICK: u32 = 400;
/// Epochs of one layer's life.
const LIFE: std::ops::RangeInclusive<usize> = 10..=30;
/// Lines of the memory curve.
const CURVE: usize = 10;

/// Runs the command: 0 where everything agreed, 2 where there is no GPU to run on, 1 otherwise.
#[must_use]
pub fn main(args: &Args) -> ExitCode {
    if args.fill_memory && args.backend == Backend::Cpu {
        eprintln!("error: --fill-memory is of a GPU's memory; give --backend cuda with it");
        return ExitCode::FAILURE;
    }
    user::silence_injected_panics();
    match args.backend {
        Backend::Cpu => {
            let watch = |moment: Moment| match moment {
                Moment::Boundary(epoch) => Ok(Sample::take(epoch)),
                Moment::Death(_) => Ok(None),
            };
            soak::<Layer>(args, &(), watch)
        }
        Backend::Cuda => match Gpu::find(args.fill_memory) {
            Ok(gpu) => soak_gpu(args, &gpu),
            Err(why) => {
                eprintln!("error: there is no GPU for the soak: {why}; --backend cpu needs none");
                ExitCode::from(2)
            }
        },
    }
}

fn soak_gpu(args: &Args, gpu: &Rc<Gpu>) -> ExitCode {
    match gpu.name() {
        Ok(name) => println!("on {name}"),
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    }
    // With a layer alive, streams, threads and memory come and go as they are used.
    let watch = |moment: Moment| match moment {
        Moment::Boundary(_) => Ok(None),
        Moment::Death(epoch) => {
            let device = Some(gpu.memory()?);
            Ok(Sample::take(epoch).map(|sample| Sample { device, ..sample }))
        }
    };
    soak::<Moving>(args, gpu, watch)
}

/// When the process may be looked at.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// After an epoch.
    Boundary(usize),
    /// After a life, before the next one.
    Death(usize),
}

/// Runs, and says what came of it.
fn soak<S: Subject>(
    args: &Args,
    home: &S::Home,
    watch: impl Fn(Moment) -> Result<Option<Sample>, String>,
) -> ExitCode {
    let epochs = if args.quick { QUICK } else { args.epochs } as usize;
    let started = Instant::now();
    let mut samples = Vec::new();
    let outcome = run::<S>(home, args.seed, epochs, |moment| {
        samples.extend(watch(moment)?);
        Ok(())
    });
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
        line(&sample.to_string());
    }
    let (tally, kinds) = match outcome {
        Ok(found) => found,
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
    say("coverage", tally.coverage(&kinds).map(|()| "every state and every fault".to_owned()));
    match cfg!(target_os = "linux") {
        true => say("leaks", resources::judge(&samples)),
        false => say("leaks", Ok("not looked for: there is no /proc".to_owned())),
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The whole run, and the faults that it was to inject; `watch` is called where the process may be looked at.
fn run<S: Subject>(
    home: &S::Home,
    seed: u64,
    epochs: usize,
    mut watch: impl FnMut(Moment) -> Result<(), String>,
) -> Result<(Tally, Vec<&'static str>), String> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut tally = Tally::default();
    let user = Arc::new(user::Shift::default());
    let registry = life::registry(&user)?;
    let mut shelf = Shelf::new(registry.clone(), S::faults(home))?;
    let draw = |rng: &mut ChaCha8Rng, tally: &mut Tally| -> Result<_, String> {
        tally.lives += 1;
        let life = Life::<S>::draw(home, rng, &registry, &user)?;
        Ok((life, rng.random_range(LIFE)))
    };
    let (mut life, mut left) = draw(&mut rng, &mut tally)?;
    for epoch in 0..epochs {
        let at = |error| format!("seed {seed}, epoch {epoch}: {error}");
        one_epoch(&mut life, &mut shelf, &mut rng, &mut tally).map_err(at)?;
        watch(Moment::Boundary(epoch)).map_err(at)?;
        left -= 1;
        if left == 0 && epoch + 1 < epochs {
            life.subject.finish(&mut tally).map_err(at)?;
            shelf.next_life();
            watch(Moment::Death(epoch)).map_err(at)?;
            (life, left) = draw(&mut rng, &mut tally).map_err(at)?;
        }
    }
    life.subject.finish(&mut tally)?;
    watch(Moment::Death(epochs))?;
    match shelf.check_all()? {
        again if again == tally.saved => Ok((tally, shelf.kinds().to_vec())),
        again => Err(format!("{again} checkpoints of {}", tally.saved)),
    }
}

fn one_epoch<S: Subject>(
    life: &mut Life<S>,
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
