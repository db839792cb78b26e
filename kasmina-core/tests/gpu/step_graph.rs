//! What a replayed step promises beside its numbers: no graph anew, no waiting, refusals that change nothing.

use kasmina_core::cuda::{
    CudaError, CudaLayer, DeviceMatMut, DeviceMatRef, Engine, Instantiation, LayerStep, Room, Step,
    StepGraph, StepGraphError, StepGraphOptions,
};
use kasmina_core::{
    Activation, AdamW, Blueprint, Command, ForwardOptions, Germination, InitialSeed, Layer,
    LifecycleConfig, SeedLayout, Stability, StabilityMode, State, Strategy,
};
use kasmina_gpu_test::{Body, Failed, ensure, not_applicable, without_waiting};
use kasmina_sys::{CaptureMode, ComputeCapability, Device, DeviceBuffer, Graph, Stream};
use kasmina_telemetry::TelemetryMode;

use crate::common::Draw;
use crate::layer_pair::ADAMW;
use crate::step_twins::{Parts, Stack, Twins};

pub(crate) const TESTS: &[(&str, Body)] = &[
    ("a_life_of_every_kind_makes_no_graph_anew", whole_lives),
    ("an_exact_graph_is_made_anew_where_its_launches_change", exact),
    ("programmatic_replays_are_the_plain_calls", programmatic),
    ("sampling_alternates_between_two_graphs", sampling),
    ("an_unchanged_step_changes_nothing_in_the_graph", unchanged),
    ("a_replay_does_not_wait", no_waiting),
    ("what_cannot_be_replayed_is_told_and_changes_nothing", refusals),
    ("matrices_apart_and_at_new_places", apart),
];

pub(crate) fn has_programmatic(device: Device) -> Result<bool, Failed> {
    Ok(device.info()?.capability >= ComputeCapability::new(9, 0))
}

pub(crate) fn options(exact: bool, programmatic: bool) -> StepGraphOptions {
    let room = if exact { Room::Exact } else { Room::Lifecycle };
    StepGraphOptions::new().room(room).programmatic(programmatic)
}

const KINDS: [Blueprint; 6] = [
    Blueprint::Residual,
    Blueprint::AttentionHead,
    Blueprint::MlpExpansion,
    Blueprint::ConvFilter { taps: 5 },
    Blueprint::Bottleneck { width: 3, activation: Activation::Gelu },
    // Large: 96² + 96 parameters.
    Blueprint::Dense { activation: Activation::Tanh },
];
const CHUNK: usize = 96;
const ROWS: usize = 40;

/// A dormant stack with room for a seed of every kind.
fn dormant(mode: StabilityMode) -> Result<Vec<Layer>, Failed> {
    let layer = |seed| -> Result<Layer, Failed> {
        let layout = SeedLayout::new(KINDS.len() * CHUNK, CHUNK)?;
        let config = LifecycleConfig {
            stabilization_steps: 1,
            embargo_epochs: 1,
            ..LifecycleConfig::default()
        };
        let builder = Layer::builder(layout).lifecycle(config).stability(Stability::new(mode));
        Ok(builder.rng_seed(seed).build()?)
    };
    [1, 2].into_iter().map(layer).collect()
}

fn fill(twins: &mut Twins<f32>, draw: &mut Draw) -> Result<(), Failed> {
    let n = twins.plain.rows * twins.plain.hidden;
    let mut values = || (0..n).map(|_| draw.value(false)).collect::<Vec<f32>>();
    let (x, grad_y) = (values(), values());
    twins.fill(&x, &grad_y)
}

/// Takes every seed of both layers from the cradle to the end, kind after kind; after every boundary the very next replay must be
/// what plain calls are.
fn whole_life(twins: &mut Twins<f32>) -> Result<(), Failed> {
    let mut draw = Draw(7);
    let all = Parts::all(twins.plain.layers.len(), &ADAMW);
    for round in 0..9usize {
        for (seed, kind) in KINDS.iter().enumerate() {
            twins.each("a command", |_, layer| {
                // One kind after the other is born, so that each comes to a graph that others run in.
                let command = match layer.state(seed)? {
                    State::Dormant if round >= seed / 2 => {
                        let id = layer
                            .registry()
                            .iter()
                            .position(|(_, found)| found.kind() == kind.kind());
                        let name = layer.registry().iter().nth(id.unwrap_or(0));
                        let id = layer.registry().find(name.map_or("", |(name, _)| name))?;
                        let strategy = Strategy::FixedRamp { steps: 3 };
                        Command::Germinate(Germination { strategy, ..Germination::new(id) })
                    }
                    State::Germinated => Command::Promote,
                    State::Training => Command::Graft,
                    State::Grafting => Command::Stabilize,
                    State::Stabilization => Command::Evaluate,
                    State::Evaluating if seed.is_multiple_of(3) => Command::Cull,
                    State::Evaluating => Command::FineTune,
                    State::FineTuning => Command::Fossilize,
                    _ => return Ok(None),
                };
                Ok(Some(layer.command(seed, command, "").map_err(|error| error.to_string())))
            })?;
        }
        twins.each("the epoch", |_, layer| Ok(format!("{:?}", layer.end_epoch()?.outcome)))?;
        for _ in 0..4 {
            fill(twins, &mut draw)?;
            twins.step(&all)?;
            twins.compare()?;
        }
    }
    let ran = |layer: &CudaLayer| layer.lifecycle().table().states().contains(&State::Fossilized);
    ensure(twins.replayed.layers.iter().all(ran), || "no seed came to its end".to_owned())
}

fn whole_lives(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    for mode in [StabilityMode::Fast, StabilityMode::Adaptive, StabilityMode::Strict] {
        let layers = dormant(mode)?;
        let mut twins = Twins::new(&engine, None, &layers, ROWS, options(false, false))?;
        whole_life(&mut twins)?;
        let report = twins.graph.report();
        ensure(report.instantiations == 1, || format!("{mode:?}: {report}"))?;
        ensure(report.last_instantiation == Some(Instantiation::First), || format!("{report}"))?;
        ensure(report.updates_in_place > 0 && report.unchanged > 0, || format!("{report}"))?;
    }
    Ok(())
}

fn exact(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let layers = dormant(StabilityMode::Strict)?;
    let mut twins = Twins::new(&engine, None, &layers, ROWS, options(true, false))?;
    whole_life(&mut twins)?;
    let report = twins.graph.report();
    ensure(report.instantiations > 1 && report.skipped == 0, || format!("{report}"))?;
    ensure(report.instantiations < report.replays, || format!("{report}"))
}

fn programmatic(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    if !has_programmatic(device)? {
        let layers = dormant(StabilityMode::Fast)?;
        let mut twins = Twins::<f32>::new(&engine, None, &layers, ROWS, options(false, true))?;
        let parts = Parts::all(2, &ADAMW);
        let refused = twins.replayed.replay(&mut twins.graph, &parts);
        let told =
            matches!(refused, Err(CudaError::StepGraph(StepGraphError::Programmatic { .. })));
        ensure(told, || format!("{refused:?}"))?;
        return Err(not_applicable("the device has no programmatic edges"));
    }
    for mode in [StabilityMode::Adaptive, StabilityMode::Strict] {
        let layers = dormant(mode)?;
        whole_life(&mut Twins::new(&engine, None, &layers, ROWS, options(false, true))?)?;
    }
    Ok(())
}

fn sampling(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let mut layers = dormant(StabilityMode::Adaptive)?;
    for layer in &mut layers {
        layer.set_telemetry_mode(TelemetryMode::sampling(3, 1.0)?)?;
    }
    let mut twins = Twins::new(&engine, None, &layers, ROWS, options(false, false))?;
    let (mut draw, all) = (Draw(3), Parts::all(2, &ADAMW));
    for _ in 0..12 {
        fill(&mut twins, &mut draw)?;
        twins.step(&all)?;
    }
    twins.compare()?;
    let report = twins.graph.report();
    ensure(report.instantiations == 2, || format!("{report}"))
}

fn unchanged(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let mut layers = dormant(StabilityMode::Adaptive)?;
    let initial = InitialSeed {
        state: State::Grafting,
        alpha: 0.25,
        blueprint: Some(Blueprint::MlpExpansion),
        // A ramp moves alpha in every step: in device memory, with no change of the graph.
        strategy: Strategy::FixedRamp { steps: 1000 },
        ..InitialSeed::default()
    };
    layers.push(Layer::builder(layers[0].layout()).seed(1, initial).build()?);
    let mut twins = Twins::new(&engine, None, &layers, ROWS, options(false, false))?;
    let (mut draw, all) = (Draw(3), Parts::all(3, &ADAMW));
    for _ in 0..20 {
        fill(&mut twins, &mut draw)?;
        twins.step(&all)?;
    }
    twins.compare()?;
    let report = twins.graph.report().clone();
    ensure((report.instantiations, report.recordings) == (1, 3), || format!("{report:?}"))?;
    ensure((report.replays, report.unchanged) == (20, 19), || format!("{report:?}"))?;
    // Another learning rate is exchanged in place, of the layer that has something to step.
    let slower = AdamW { learning_rate: 1e-4, ..ADAMW };
    fill(&mut twins, &mut draw)?;
    twins.step(&Parts::all(3, &slower))?;
    twins.compare()?;
    let report = twins.graph.report();
    ensure((report.instantiations, report.links_changed) == (1, 1), || format!("{report:?}"))
}

fn no_waiting(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let mut layers = dormant(StabilityMode::Strict)?;
    for kind in KINDS {
        let initial = InitialSeed {
            state: State::Grafting,
            alpha: 0.25,
            blueprint: Some(kind),
            strategy: Strategy::FixedRamp { steps: 1000 },
            ..InitialSeed::default()
        };
        layers.push(Layer::builder(layers[0].layout()).seed(1, initial).build()?);
    }
    let stream = Stream::new(engine.context())?;
    let mut stack = Stack::<f32>::new(&engine, &stream, &stream, &layers, ROWS)?;
    let mut graph = StepGraph::new(&stream, StepGraphOptions::new());
    let all = Parts::all(layers.len(), &ADAMW);
    for _ in 0..3 {
        stack.replay(&mut graph, &all)?;
    }
    stream.synchronize()?;
    // Unchanged, with another learning rate, and unchanged again.
    let slower = Parts::all(layers.len(), &AdamW { learning_rate: 1e-4, ..ADAMW });
    without_waiting(&stream, || {
        for parts in [&all, &slower, &slower] {
            stack.replay(&mut graph, parts)?;
        }
        Ok(())
    })?;
    Ok(stream.synchronize()?)
}

fn refusals(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let layers = dormant(StabilityMode::Adaptive)?;
    let stream = Stream::new(engine.context())?;
    let mut stack = Stack::<f32>::new(&engine, &stream, &stream, &layers, ROWS)?;
    let mut graph = StepGraph::new(&stream, StepGraphOptions::new());
    let all = Parts::all(2, &ADAMW);
    stack.replay(&mut graph, &all)?;
    let before = stack.states()?;
    let refused = |outcome: Result<(), CudaError>, text: &str| {
        let error = outcome.err().map(|error| error.to_string()).unwrap_or_default();
        ensure(error.contains(text), || format!("{error:?} does not say {text:?}"))
    };

    let broken = Parts::all(2, &AdamW { learning_rate: -1.0, ..ADAMW });
    ensure(stack.replay(&mut graph, &broken).is_err(), || "a negative rate".to_owned())?;
    // A matrix of another shape.
    stack.rows -= 1;
    let mut y = DeviceBuffer::<f32>::zeroed(&stream, ROWS * stack.hidden)?;
    {
        let Stack { layers, x, rows, hidden, .. } = &mut stack;
        let x = DeviceMatRef::new(x[0].as_slice(), *rows, *hidden, *hidden)?;
        let mut y = DeviceMatMut::new(y.as_mut_slice(), ROWS, *hidden, *hidden)?;
        let part = LayerStep::new(x).y(&mut y);
        let step = Step::apart(&mut layers[..1], vec![part])?.forward();
        refused(graph.replay(step), "y is [40, 576], but [39, 576] is needed")?;
        // A part that lacks a matrix.
        let step = Step::apart(&mut layers[..1], vec![LayerStep::new(x)])?;
        refused(graph.replay(step.forward()), "layer 0 of a step has no y")?;
        let counted = Step::apart(layers, vec![LayerStep::new(x)]).err();
        let expected = StepGraphError::Count { what: "matrices of layers", found: 1, needed: 2 };
        ensure(counted.as_ref() == Some(&expected), || format!("{counted:?}"))?;
    }
    stack.rows += 1;
    // A layer of another stream.
    let other = Stream::new(engine.context())?;
    let mut elsewhere = Stack::<f32>::new(&engine, &other, &other, &layers, ROWS)?;
    refused(
        elsewhere.replay(&mut graph, &all),
        "layer 0 of a step queues its work on another stream",
    )?;
    // A probe of a seed that owns nothing.
    let probe = Parts { options: vec![ForwardOptions::new().probe(0, 0.5); 2], ..all.clone() };
    ensure(stack.replay(&mut graph, &probe).is_err(), || "a probe of nothing".to_owned())?;
    // A stream that somebody captures.
    let captured = Graph::capture(&stream, CaptureMode::Relaxed, |_| {
        let outcome = stack.replay(&mut graph, &all);
        let text = outcome.err().map(|error| error.to_string()).unwrap_or_default();
        match text.contains("captur") {
            true => Ok(()),
            false => Err(kasmina_sys::Error::NulInName { name: text }),
        }
    });
    captured?;
    let after = stack.states()?;
    ensure(before == after, || "a refusal changed a layer".to_owned())?;
    ensure(graph.report().replays == 1, || format!("{}", graph.report()))?;
    stack.replay(&mut graph, &all)?;
    Ok(stream.synchronize()?)
}

/// Matrices of each layer's own, with padding, at other places in every step, and fewer rows in some.
fn apart(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let layers = dormant(StabilityMode::Adaptive)?;
    let stream = Stream::new(engine.context())?;
    let mut plain = CudaLayer::from_layer(&layers[0], &engine, &stream)?;
    let mut replayed = [CudaLayer::from_layer(&layers[0], &engine, &stream)?];
    let mut graph = StepGraph::new(&stream, StepGraphOptions::new());
    let hidden = plain.layout().hidden();
    let (mut draw, plain_options) = (Draw(5), ForwardOptions::new());
    let mut kept = Vec::new();
    for step in 0..6usize {
        let (rows, stride) = (ROWS - 7 * (step % 3), hidden + 8 * (step % 2));
        let values =
            |draw: &mut Draw| (0..rows * stride).map(|_| draw.unit()).collect::<Vec<f32>>();
        let x = DeviceBuffer::from_host(&stream, &values(&mut draw))?;
        let g = DeviceBuffer::from_host(&stream, &values(&mut draw))?;
        let mut out = Vec::new();
        for _ in 0..4 {
            out.push(DeviceBuffer::<f32>::zeroed(&stream, rows * stride)?);
        }
        let read = |b| DeviceMatRef::new(DeviceBuffer::as_slice(b), rows, hidden, stride);
        let write = |b| DeviceMatMut::new(DeviceBuffer::as_mut_slice(b), rows, hidden, stride);
        {
            let mut out = out.iter_mut().map(write).collect::<Result<Vec<_>, _>>()?;
            let [y, grad_x, y_too, grad_x_too] = &mut out[..] else { return Ok(()) };
            plain.forward(read(&x)?, y, &plain_options)?;
            plain.backward(read(&x)?, read(&g)?, grad_x, &plain_options)?;
            let part = LayerStep::new(read(&x)?).y(y_too).gradients(read(&g)?, grad_x_too);
            graph.replay(Step::apart(&mut replayed, vec![part])?.forward().backward())?;
        }
        for (a, b) in [(0, 2), (1, 3)] {
            let bits = |b: &DeviceBuffer<f32>| -> Result<Vec<u32>, Failed> {
                Ok(b.to_vec()?.iter().map(|v| v.to_bits()).collect())
            };
            crate::common::same("a matrix", &bits(&out[b])?, &bits(&out[a])?)?;
        }
        // So that the next ones lie elsewhere.
        kept.push((x, g, out));
    }
    let states = [plain.to_layer()?, replayed[0].to_layer()?];
    let [a, b] = states.map(|layer| layer.layer_state().to_bytes());
    ensure(a? == b?, || "the states differ".to_owned())?;
    ensure(graph.report().instantiations == 1, || format!("{}", graph.report()))
}
