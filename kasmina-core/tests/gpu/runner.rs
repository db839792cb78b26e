//! The runner: the bits of plain calls in every mode and while it tries, a choice that its own numbers bear out, and modes that fail.

use std::sync::Arc;
use std::time::Duration;

use half::{bf16, f16};
use kasmina_core::cuda::{
    Choice, CudaError, CudaLayer, Engine, ExecutionMode, ExecutorOptions, PersistentExecutor,
    RunnerOptions, SharedLayer, SharedMatrix, SharedPart, SharedStep, StepEnd, StepGraphError,
    StepRunner, StepRunnerReport, Trials, Way,
};
use kasmina_core::{
    AdamW, Blueprint, Command, Element, ForwardOptions, Germination, InitialSeed, Layer,
    SeedLayout, Stability, StabilityMode, State, Strategy,
};
use kasmina_gpu_test::{Body, Cases, Failed, ensure};
use kasmina_sys::{Device, Stream};
use parking_lot::Mutex;
use proptest::prelude::any;
use proptest::prop_oneof;
use proptest::strategy::{Just, Strategy as Drawn};

use crate::common::Draw;
use crate::drawn_step::{self, DrawnStep};
use crate::layer::{self, Case};
use crate::layer_pair::ADAMW;
use crate::runner_twins::{Equal, Twins};
use crate::step_twins::Parts;

pub(crate) const TESTS: &[(&str, Body)] = &[
    ("a_runner_has_the_bits_of_plain_calls_through_random_lives", random_lives),
    ("a_runner_tries_decides_and_keeps_to_it", decides),
    ("a_runner_may_use_the_grid_for_what_sums_nothing", grid_for_forward),
    ("a_change_of_what_runs_is_tried_again_in_time", tried_again),
    ("a_way_that_fails_is_dropped_and_told", failing_ways),
    ("a_grid_that_is_lost_is_survived", lost_grid),
    ("a_stream_may_come_behind_a_run", joined),
    ("what_is_no_step_is_refused", refusals),
];

/// Few steps, so that random lives come through whole searches.
fn short() -> Trials {
    Trials::new().warm_up(1).steps(1).rounds(1).again_after(3)
}

fn options(mode: ExecutionMode) -> RunnerOptions {
    RunnerOptions::new().mode(mode).trials(short())
}

#[derive(Clone, Debug)]
struct Life {
    case: Case,
    layers: usize,
    mode: ExecutionMode,
    other_sums: bool,
    /// What a grid can run.
    pointwise: bool,
}

fn life() -> impl Drawn<Value = Life> {
    let mode = prop_oneof![
        1 => Just(ExecutionMode::Launch),
        2 => Just(ExecutionMode::Graph),
        3 => Just(ExecutionMode::Persistent),
        4 => Just(ExecutionMode::Auto),
    ];
    let pointwise = prop_oneof![1 => Just(false), 2 => Just(true)];
    (layer::case(), 1usize..=4, mode, any::<bool>(), pointwise).prop_map(
        |(mut case, layers, mode, other_sums, pointwise)| {
            if pointwise {
                // Rows at multiples of 16 bytes, and nothing that is measured beforehand.
                case.hidden = case.hidden.next_multiple_of(8);
                if case.mode == StabilityMode::Strict {
                    case.mode = StabilityMode::Adaptive;
                }
            }
            Life { case, layers, mode, other_sums, pointwise }
        },
    )
}

fn random_lives(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let executor = ExecutorOptions::new().idle(Duration::from_millis(2));
    let executor = Arc::new(PersistentExecutor::new(&engine, executor)?);
    let (others, steps) = (std::cell::Cell::new([0; 2]), std::cell::Cell::new([0u64; 3]));
    Cases::from_environment(60)?.check(&life(), |life| {
        let (other, ways) = match life.case.dtype {
            0 => live::<f32>(&engine, &executor, &life),
            1 => live::<f16>(&engine, &executor, &life),
            _ => live::<bf16>(&engine, &executor, &life),
        }?;
        let known = others.get();
        others.set([0, 1].map(|i| known[i] + other[i]));
        let all = steps.get();
        steps.set([0, 1, 2].map(|i| all[i] + ways[i]));
        Ok(())
    })?;
    println!(
        "  steps by each way {:?}; {:?} records of statistics, and learned numbers, of other bits",
        steps.get(),
        others.get()
    );
    ensure(steps.get().iter().all(|steps| *steps > 0), || "a way was never gone".to_owned())
}

fn live<T: Element>(
    engine: &Arc<Engine>,
    executor: &Arc<PersistentExecutor>,
    life: &Life,
) -> Result<([usize; 2], [u64; 3]), Failed> {
    let mut draw = Draw(life.case.values);
    let layers = drawn_step::layers(&life.case, life.layers, &mut draw, |case, draw| {
        if !life.pointwise {
            return layer::layer(case, draw);
        }
        crate::executor::layer(case.hidden, case.chunk, case.mode, case.owning, draw)
    })?;
    // Forward passes by the grid count with other sums as well.
    let equal = match life.mode {
        ExecutionMode::Launch | ExecutionMode::Graph => Equal::Everything,
        ExecutionMode::Persistent | ExecutionMode::Auto => Equal::Matrices,
    };
    let options = options(life.mode).sums_may_differ(life.other_sums);
    let mut twins = Twins::<T>::new(engine, &layers, life.case.rows, options, equal)?;
    twins.runner = std::mem::replace(
        &mut twins.runner,
        StepRunner::new(engine, &Stream::new(engine.context())?, RunnerOptions::new()),
    )
    .with_executor(executor);
    for _ in 0..1 + life.case.epochs {
        for _ in 0..2 + draw.next() % 8 {
            one_step(&mut twins, life, &mut draw)?;
            if draw.next().is_multiple_of(3) {
                twins.compare()?;
            }
        }
        let values = draw.next();
        twins.each("the commands", |i, layer| {
            let mut draw = Draw(values ^ i as u64);
            let host = layer.last_synchronized();
            let mut given = Vec::new();
            for seed in 0..layer.layout().seeds() {
                let birth = life.pointwise && host.state(seed)? == State::Dormant;
                let command = match birth {
                    true => germination(&host, &mut draw)?,
                    false => layer::command(&host, seed, &mut draw)?,
                };
                if let Some(command) = command {
                    given.push(layer.command(seed, command, "").map_err(|e| e.to_string()));
                }
            }
            Ok(given)
        })?;
        // Statistics may differ in their last bits, and reports have them.
        twins.each("the epoch", |_, layer| Ok(format!("{:?}", layer.end_epoch()?.outcome)))?;
    }
    twins.compare()?;
    let ways = twins.runner.report().ways;
    // Nothing that is learned hangs on what was measured, unless that is allowed.
    let fixed = life.mode == ExecutionMode::Auto && !life.other_sums;
    ensure(!fixed || twins.others[1] == 0, || format!("{:?}", twins.others))?;
    Ok((twins.others, [0, 1, 2].map(|i| ways[i].steps)))
}

/// A birth that a grid can go along with, now and then.
fn germination(layer: &Layer, draw: &mut Draw) -> Result<Option<Command>, Failed> {
    let pointwise = [Blueprint::Residual, Blueprint::AttentionHead, Blueprint::MlpExpansion];
    let names = layer.registry().iter().filter(|(_, kind)| pointwise.contains(kind));
    let names: Vec<_> = names.map(|(name, _)| name.to_owned()).collect();
    let id = layer.registry().find(&names[draw.below(names.len())])?;
    let strategy = Strategy::FixedRamp { steps: 2 };
    let birth = Command::Germinate(Germination { strategy, ..Germination::new(id) });
    Ok(draw.next().is_multiple_of(3).then_some(birth))
}

fn one_step<T: Element>(twins: &mut Twins<T>, life: &Life, draw: &mut Draw) -> Result<(), Failed> {
    let DrawnStep { x, grad_y, parts: all } =
        drawn_step::step(&twins.plain, life.case.wild, 6, draw);
    twins.fill(&x, &grad_y)?;
    let forward = Parts { backward: false, optimizer: None, advance: false, ..all.clone() };
    match draw.next() % 8 {
        0..3 => twins.step(&forward),
        3 => twins.step(&Parts { optimizer: None, ..all }),
        // In two, as with a loss of one's own between them.
        4 => {
            let back = Parts { forward: false, ..all };
            twins.step(&forward)?;
            twins.step(&back)
        }
        _ => twins.step(&all),
    }
}

/// Layers of residuals in fine-tuning, and the matrices of a step.
struct Small {
    layers: Vec<SharedLayer>,
    x: Vec<SharedMatrix<f32>>,
    g: Vec<SharedMatrix<f32>>,
}

fn seeded(state: Option<State>, blueprint: Blueprint) -> Result<Layer, Failed> {
    let mut builder = Layer::builder(SeedLayout::new(256, 64)?);
    if let Some(state) = state {
        let strategy = Strategy::FixedRamp { steps: 4 };
        let blueprint = Some(blueprint);
        let initial =
            InitialSeed { state, alpha: 1.0, blueprint, strategy, ..InitialSeed::default() };
        builder = builder.seed(1, initial);
    }
    Ok(builder.build()?)
}

fn small(engine: &Arc<Engine>, streams: &[Stream], layer: &Layer) -> Result<Small, Failed> {
    let mut layers: Vec<SharedLayer> = Vec::new();
    for stream in streams {
        layers.push(Arc::new(Mutex::new(CudaLayer::from_layer(layer, engine, stream)?)));
    }
    let memory = |_| -> Result<SharedMatrix<f32>, Failed> {
        let matrix = SharedMatrix::zeroed(&streams[0], 16, 256)?;
        matrix.write(&(0..16 * 256).map(|i| (i % 17) as f32 - 8.0).collect::<Vec<_>>())?;
        Ok(matrix)
    };
    let count = 0..layers.len() + 1;
    let x = count.clone().map(memory).collect::<Result<_, _>>()?;
    Ok(Small { layers, x, g: count.map(memory).collect::<Result<_, _>>()? })
}

/// The choice is the way of the least median, but for the margin.
fn bears_out(report: &StepRunnerReport, margin: f64) -> Result<(), Failed> {
    let medians = report.ways.iter().filter_map(|way| Some((way.way, way.median_us?)));
    let least = medians.clone().map(|(_, median)| median).fold(f64::MAX, f64::min);
    let chosen = medians.clone().find(|(way, _)| Some(*way) == report.way);
    ensure(chosen.is_some_and(|(_, median)| median <= least * (1.0 + margin)), || {
        format!("{report}")
    })
}

fn decides(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let layer = seeded(Some(State::FineTuning), Blueprint::MlpExpansion)?;
    let small = small(&engine, &vec![stream.clone(); 12], &layer)?;
    for other_sums in [false, true] {
        let options = RunnerOptions::new().mode(ExecutionMode::Auto).sums_may_differ(other_sums);
        let mut runner = StepRunner::new(&engine, &stream, options);
        let step = SharedStep::both(&small.layers, &small.x, &small.g)?;
        let end = StepEnd::new().advance();
        for _ in 0..200 {
            let _run = runner.run(&step, &end)?;
        }
        runner.wait()?;
        let report = runner.report();
        println!("  {report}");
        let tried = if other_sums { 3 } else { 2 };
        let blocks: Vec<_> = report.ways.iter().map(|way| way.blocks).collect();
        ensure(blocks.iter().filter(|blocks| **blocks == 5).count() == tried, || {
            format!("{report}")
        })?;
        ensure((report.searches, report.trial_steps) == (1, 50 * tried as u64), || {
            format!("{report}")
        })?;
        bears_out(&report, 0.03)?;
        // All other steps went the chosen way.
        let kept = report.ways.iter().find(|way| Some(way.way) == report.way);
        let others = 200 - 50 * tried as u64;
        ensure(kept.is_some_and(|way| way.steps == 50 + others), || format!("{report}"))?;
    }
    Ok(())
}

fn grid_for_forward(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let small = small(&engine, &vec![stream.clone(); 12], &seeded(None, Blueprint::Residual)?)?;
    let options = RunnerOptions::new().mode(ExecutionMode::Auto);
    let mut runner = StepRunner::new(&engine, &stream, options);
    let forward = SharedStep::forward(&small.layers, &small.x)?;
    let back = SharedStep::backward(&small.layers, &small.x, &small.g)?;
    // In turn, as around a loss: one kind is tried after the other.
    for _ in 0..400 {
        let _run = runner.run(&forward, &StepEnd::new())?;
        let _run = runner.run(&back, &StepEnd::new().optimizer(&ADAMW).advance())?;
    }
    runner.wait()?;
    let back_report = runner.report();
    println!("  backward: {back_report}");
    ensure(back_report.ways[2].excluded.is_some() && back_report.searches == 1, || {
        format!("{back_report}")
    })?;
    let _run = runner.run(&forward, &StepEnd::new())?;
    runner.wait()?;
    let report = runner.report();
    println!("  forward: {report}");
    ensure(report.ways[2].blocks == 5 && report.searches == 1, || format!("{report}"))?;
    bears_out(&report, 0.03)
}

fn tried_again(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let layer = seeded(Some(State::Germinated), Blueprint::Residual)?;
    let small = small(&engine, &vec![stream.clone(); 3], &layer)?;
    let trials = Trials::new().rounds(1).steps(2).warm_up(1).again_after(40);
    let mut runner = StepRunner::new(
        &engine,
        &stream,
        RunnerOptions::new().mode(ExecutionMode::Auto).trials(trials),
    );
    let step = SharedStep::both(&small.layers, &small.x, &small.g)?;
    let end = StepEnd::new().optimizer(&ADAMW).advance();
    let run = |steps: u64, runner: &mut StepRunner| -> Result<StepRunnerReport, Failed> {
        for _ in 0..steps {
            let _run = runner.run(&step, &end)?;
        }
        Ok(runner.report())
    };
    let report = run(20, &mut runner)?;
    ensure(report.searches == 1, || format!("{report}"))?;
    // An epoch in which nothing changes is no reason.
    for layer in &small.layers {
        layer.lock().end_epoch()?;
    }
    let report = run(60, &mut runner)?;
    ensure(report.searches == 1, || format!("{report}"))?;
    // A seed begins to train: tried again, now that 40 steps have gone.
    for layer in &small.layers {
        let mut layer = layer.lock();
        layer.command(1, Command::Promote, "")?;
        layer.end_epoch()?;
    }
    let report = run(20, &mut runner)?;
    ensure(report.searches == 2, || format!("{report}"))?;
    // Another change so soon waits.
    small.layers[0].lock().set_stability(Stability::new(StabilityMode::Strict))?;
    let report = run(15, &mut runner)?;
    ensure(report.searches == 2, || format!("{report}"))?;
    let report = run(40, &mut runner)?;
    ensure(report.searches == 3, || format!("{report}"))?;
    runner.wait()?;
    Ok(())
}

fn excluded(report: &StepRunnerReport, way: Way) -> &str {
    report.ways[way as usize].excluded.as_deref().unwrap_or("nothing against it")
}

fn failing_ways(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let other = Stream::new(engine.context())?;
    let forced = ExecutorOptions::new().by_launches("the test wants it");
    // A graph refuses layers on two streams, and there is no grid: launches alone are left.
    let small_ = small(&engine, &[stream.clone(), other], &seeded(None, Blueprint::Residual)?)?;
    let step = SharedStep::forward(&small_.layers, &small_.x)?;
    let options = options(ExecutionMode::Auto).executor(forced.clone());
    let mut runner = StepRunner::new(&engine, &stream, options);
    for _ in 0..20 {
        let _run = runner.run(&step, &StepEnd::new())?;
    }
    runner.wait()?;
    let report = runner.report();
    println!("  {report}");
    ensure(report.way == Some(Way::Launch) && report.choice == Choice::Only, || {
        format!("{report}")
    })?;
    ensure(excluded(&report, Way::Graph).contains("another stream"), || format!("{report}"))?;
    ensure(excluded(&report, Way::Persistent) == "the test wants it", || format!("{report}"))?;
    ensure(report.ways[0].steps == 20, || format!("{report}"))?;
    // Asked for, they launch as well, and say why.
    for (mode, text) in
        [(ExecutionMode::Graph, "another stream"), (ExecutionMode::Persistent, "wants it")]
    {
        let options = RunnerOptions::new().mode(mode).executor(forced.clone());
        let mut runner = StepRunner::new(&engine, &stream, options);
        let run = runner.run(&step, &StepEnd::new())?;
        run.wait()?;
        let way = mode.way().unwrap_or(Way::Launch);
        ensure(run.way() == Way::Launch, || format!("{}", runner.report()))?;
        ensure(excluded(&runner.report(), way).contains(text), || format!("{}", runner.report()))?;
    }
    // A filter begins to run where the grid was chosen.
    let layer = seeded(Some(State::Germinated), Blueprint::ConvFilter { taps: 3 })?;
    let small_ = small(&engine, &vec![stream.clone(); 2], &layer)?;
    let step = SharedStep::both(&small_.layers, &small_.x, &small_.g)?;
    let options = RunnerOptions::new().mode(ExecutionMode::Persistent);
    let mut runner = StepRunner::new(&engine, &stream, options);
    let run = runner.run(&step, &StepEnd::new())?;
    run.wait()?;
    ensure(run.way() == Way::Persistent, || format!("{}", runner.report()))?;
    for layer in &small_.layers {
        let mut layer = layer.lock();
        layer.command(1, Command::Promote, "")?;
        layer.end_epoch()?;
    }
    let run = runner.run(&step, &StepEnd::new())?;
    run.wait()?;
    ensure(run.way() == Way::Launch, || format!("{}", runner.report()))?;
    ensure(excluded(&runner.report(), Way::Persistent).contains("filter"), || {
        format!("{}", runner.report())
    })
}

/// A grid that cannot come, since another one has the multiprocessors, and which its watchdog ends.
fn lost_grid(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let small = small(&engine, &vec![stream.clone(); 2], &seeded(None, Blueprint::Residual)?)?;
    let step = SharedStep::forward(&small.layers, &small.x)?;
    let executor = Arc::new(crate::executor_queue::lost(&engine)?);
    let mut runner =
        StepRunner::new(&engine, &stream, RunnerOptions::new().mode(ExecutionMode::Persistent))
            .with_executor(&executor);
    for _ in 0..3 {
        let run = runner.run(&step, &StepEnd::new())?;
        run.wait()?;
        ensure(run.way() == Way::Launch, || format!("{}", runner.report()))?;
    }
    let mut layer = small.layers[0].lock();
    layer.synchronize()?;
    let n = layer.chunk_stats()[0].n;
    ensure(n == 3 * 16 * 64, || format!("{n} elements were counted in 3 steps"))?;
    let report = runner.report();
    ensure(excluded(&report, Way::Persistent).contains("watchdog"), || format!("{report}"))
}

/// Copies on another stream come behind a step in every mode.
fn joined(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let elsewhere = Stream::new(engine.context())?;
    let small = small(&engine, &vec![stream.clone(); 8], &seeded(None, Blueprint::Residual)?)?;
    let step = SharedStep::forward(&small.layers, &small.x)?;
    let reader = Arc::new(Mutex::new(CudaLayer::from_layer(
        &seeded(None, Blueprint::Residual)?,
        &engine,
        &elsewhere,
    )?));
    let out = SharedMatrix::<f32>::zeroed(&elsewhere, 16, 256)?;
    let copy = SharedStep::forward(&[reader], &[small.x[8].clone(), out.clone()])?;
    let launch = RunnerOptions::new().mode(ExecutionMode::Launch);
    for mode in [ExecutionMode::Launch, ExecutionMode::Graph, ExecutionMode::Persistent] {
        let mut runner = StepRunner::new(&engine, &stream, RunnerOptions::new().mode(mode));
        let mut other = StepRunner::new(&engine, &elsewhere, launch.clone());
        for round in 0..20 {
            small.x[0].write(&vec![round as f32; 16 * 256])?;
            runner.run(&step, &StepEnd::new())?.join(&elsewhere)?;
            let copied = other.run(&copy, &StepEnd::new())?;
            copied.wait()?;
            let found = out.read()?;
            ensure(found.iter().all(|value| *value == round as f32), || {
                format!("{mode}: {} in round {round}", found[0])
            })?;
        }
    }
    Ok(())
}

fn refusals(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let small = small(&engine, &vec![stream.clone(); 2], &seeded(None, Blueprint::Residual)?)?;
    let told = |outcome: Result<SharedStep<f32>, CudaError>, text: &str| {
        let error = outcome.err().map(|error| error.to_string()).unwrap_or_default();
        ensure(error.contains(text), || format!("{error:?} does not say {text:?}"))
    };
    let x = &small.x;
    told(SharedStep::forward(&small.layers, &x[..2]), "2 activations; its layers need 3")?;
    let twice = [small.layers[0].clone(), small.layers[0].clone()];
    told(SharedStep::forward(&twice, x), "layers 0 and 1 of a step are the same")?;
    let in_place = vec![SharedPart::new(&x[0]).y(&x[0])];
    told(SharedStep::apart(&small.layers[..1], in_place), "reads x and writes y, which share")?;
    let lacking = vec![SharedPart::new(&x[0]).y(&x[1]), SharedPart::new(&x[1])];
    told(SharedStep::apart(&small.layers, lacking), "layer 1 of a step has no y")?;
    let narrow = SharedMatrix::<f32>::zeroed(&stream, 16, 128)?;
    let wrong = vec![SharedPart::new(&narrow).y(&x[0])];
    told(SharedStep::apart(&small.layers[..1], wrong), "x is [16, 128], but [16, 256] is needed")?;
    // What is wrong with the step is refused alike in every mode, and changes nothing.
    let part = |options: &ForwardOptions| vec![SharedPart::new(&x[0]).y(&x[1]).options(options)];
    let probed = part(&ForwardOptions::new().probe(0, 0.5));
    let probed = SharedStep::apart(&small.layers[..1], probed)?;
    let step = SharedStep::forward(&small.layers, x)?;
    let broken = StepEnd::new().optimizer(&AdamW { learning_rate: -1.0, ..ADAMW });
    for mode in [
        ExecutionMode::Launch,
        ExecutionMode::Graph,
        ExecutionMode::Persistent,
        ExecutionMode::Auto,
    ] {
        let mut runner = StepRunner::new(&engine, &stream, options(mode));
        let before = small.layers[0].lock().layer_state().to_bytes()?;
        for _ in 0..8 {
            let outcome = runner.run(&probed, &StepEnd::new()).err();
            ensure(matches!(outcome, Some(CudaError::Engine(_))), || format!("{outcome:?}"))?;
            let outcome = runner.run(&step, &broken).err();
            ensure(matches!(outcome, Some(CudaError::Engine(_))), || format!("{outcome:?}"))?;
        }
        let after = small.layers[0].lock().layer_state().to_bytes()?;
        ensure(before == after, || format!("{mode}: a refusal changed a layer"))?;
        runner.run(&step, &StepEnd::new())?.wait()?;
    }
    let count = StepGraphError::Count { what: "activations", found: 2, needed: 3 };
    ensure(count.to_string().contains("activations"), || count.to_string())
}
