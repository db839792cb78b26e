//! Stacks of layers in one launch against calls of each layer: outputs, states and counters bit for bit, statistics bit for bit where
//! the cut is the same.

use std::sync::Arc;

use half::{bf16, f16};
use kasmina_core::cuda::{
    CudaError, CudaLayer, DeviceMatMut, DeviceMatRef, Engine, LayerStack, OwnLaunches, StackCut,
    StackError, StackReport,
};
use kasmina_core::{Element, Error, ForwardOptions, Layer, SeedLayout, StabilityMode};
use kasmina_gpu_test::{Body, Cases, Failed, ensure};
use kasmina_sys::{Device, DeviceBuffer, Stream};

use crate::common::Draw;
use crate::layer::{self, Case};
use crate::stack_twins::{Framed, Life, Twins, layers, life, pointwise, state, values};

pub(crate) const TESTS: &[(&str, Body)] = &[
    ("a_stack_has_the_bits_of_its_layers_through_random_lives", random_lives),
    ("a_stacks_gradients_are_those_of_its_layers_through_random_lives", random_trainings),
    ("a_stacks_statistics_have_the_bits_of_launches_with_its_cut", same_cut),
    ("a_stack_gives_the_same_bits_every_time", repeated),
    ("a_stack_overwrites_its_input_where_it_may", in_place),
    ("a_deep_stack_is_a_few_launches", deep),
    ("what_is_no_stack_is_refused", refused),
];

fn random_lives(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    Cases::from_environment(300)?.check(&life(), |life| match life.case.dtype {
        0 => live::<f32>(&engine, &life),
        1 => live::<f16>(&engine, &life),
        _ => live::<bf16>(&engine, &life),
    })
}

fn live<T: Element>(engine: &Arc<Engine>, life: &Life) -> Result<(), Failed> {
    let mut draw = Draw(life.case.values);
    let layers = layers(life, &mut draw)?;
    let mut twins = Twins::<T>::new(engine, &layers, life)?;
    for _ in 0..life.case.epochs {
        for _ in 0..1 + draw.next() % 3 {
            let x = values(life.case.rows * life.case.hidden, &mut draw, life.case.wild);
            let options: Vec<ForwardOptions> = match draw.next() % 3 {
                0 => {
                    vec![
                        ForwardOptions::new();
                        if draw.next().is_multiple_of(2) { 1 } else { layers.len() }
                    ]
                }
                _ => twins
                    .plain
                    .iter()
                    .map(|l| layer::options(&l.last_synchronized(), &mut draw))
                    .collect(),
            };
            let report = twins.forward(&x, &options)?;
            if draw.next().is_multiple_of(2) {
                twins.compare(false, &report)?;
            }
            twins.each("the end of the step", |_, layer| Ok(layer.advance_step()?))?;
        }
        let given = draw.next();
        twins.each("the commands", |i, layer| {
            let mut draw = Draw(given ^ i as u64);
            let host = layer.last_synchronized();
            let mut answers = Vec::new();
            for seed in 0..layer.layout().seeds() {
                if let Some(command) = layer::command(&host, seed, &mut draw)? {
                    answers
                        .push(layer.command(seed, command, "").map_err(|error| error.to_string()));
                }
            }
            Ok(answers)
        })?;
        twins.each("the epoch", |_, layer| Ok(format!("{:?}", layer.end_epoch()?.outcome)))?;
    }
    let x = values(life.case.rows * life.case.hidden, &mut draw, life.case.wild);
    let report = twins.forward(&x, &[ForwardOptions::new()])?;
    twins.compare(false, &report)
}

fn random_trainings(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    Cases::from_environment(300)?.check(&life(), |life| match life.case.dtype {
        0 => train::<f32>(&engine, &life),
        1 => train::<f16>(&engine, &life),
        _ => train::<bf16>(&engine, &life),
    })
}

fn train<T: Element>(engine: &Arc<Engine>, life: &Life) -> Result<(), Failed> {
    let mut draw = Draw(life.case.values);
    let layers = layers(life, &mut draw)?;
    let mut twins = Twins::<T>::new(engine, &layers, life)?;
    for _ in 0..1 + draw.next() % 3 {
        let x = values(life.case.rows * life.case.hidden, &mut draw, life.case.wild);
        let grad_y: Vec<T> = (0..x.len()).map(|_| T::from_f32(draw.unit())).collect();
        let mut options = vec![ForwardOptions::new()];
        if draw.next().is_multiple_of(2) {
            let drawn =
                twins.plain.iter().map(|l| layer::options(&l.last_synchronized(), &mut draw));
            options = drawn.collect();
        }
        if options.iter().any(ForwardOptions::is_inference) {
            options = vec![ForwardOptions::new(); layers.len()];
        }
        let report = twins.forward(&x, &options)?;
        twins.compare(false, &report)?;
        let report = twins.backward(&grad_y, &options)?;
        twins.compare_gradients(&report, life.case.wild)?;
        twins.each("the optimizer's step", |_, layer| {
            layer.optimizer_step(&crate::layer_pair::ADAMW)?;
            Ok(layer.advance_step()?)
        })?;
        twins.compare(false, &report)?;
    }
    Ok(())
}

/// The same life with layers that all go into one launch.
fn together(mut life: Life) -> Life {
    let elements = if life.case.dtype == 0 { 4 } else { 8 };
    life.case.hidden = life.case.hidden.next_multiple_of(elements);
    (life.padding, life.offset, life.mixed, life.one_chunk) = (0, 0, 0, true);
    life.case.rows = life.case.rows.max(1);
    life.case.telemetry = 0;
    life.layers = life.layers.max(2);
    if life.case.mode == StabilityMode::Strict {
        life.case.mode = StabilityMode::Adaptive;
    }
    life
}

fn same_cut(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let exact = std::cell::Cell::new(0);
    Cases::from_environment(200)?.check(&life(), |life| {
        let life = together(life);
        let found = match life.case.dtype {
            0 => apart::<f32>(&engine, &life),
            1 => apart::<f16>(&engine, &life),
            _ => apart::<bf16>(&engine, &life),
        };
        exact.set(exact.get() + u32::from(found?));
        Ok(())
    })?;
    ensure(exact.get() > 0, || "no case had one round of rows for each block".to_owned())
}

/// Whether blocks have one round of rows each, so that statistics have to agree bit for bit.
fn apart<T: Element>(engine: &Arc<Engine>, life: &Life) -> Result<bool, Failed> {
    let mut exact = false;
    let mut draw = Draw(life.case.values);
    let layers = layers(life, &mut draw)?;
    let mut twins = Twins::<T>::new(engine, &layers, life)?;
    let mut apart = LayerStack::new(engine, twins.plain[0].stream());
    apart.force_cut(life.cut.map(|(packets, lanes, held)| StackCut { packets, lanes, held }));
    for _ in 0..2 {
        let x: Vec<T> = values(life.case.rows * life.case.hidden, &mut draw, life.case.wild);
        twins.matrices[0].set(&x)?;
        twins.x.set(&x)?;
        let options = [ForwardOptions::new()];
        let mut all: Vec<&mut CudaLayer> = twins.plain.iter_mut().collect();
        let mut places =
            twins.matrices.iter_mut().map(Framed::write).collect::<Result<Vec<_>, _>>()?;
        apart.forward_apart(&mut all, &mut places, &options)?;
        let mut all: Vec<&mut CudaLayer> = twins.stacked.iter_mut().collect();
        let report =
            twins.stack.forward(&mut all, twins.x.read()?, &mut twins.y.write()?, &options)?;
        let (a, b) = (twins.matrices[layers.len()].bytes()?, twins.y.bytes()?);
        ensure(a == b, || format!("outputs differ: {report}"))?;
        let [fused] = &report.fused[..] else {
            return Err(format!("one launch, not {report}").into());
        };
        let (columns, rows) = fused.tile;
        let tiles = (life.case.hidden as u32).div_ceil(columns);
        exact = fused.blocks == tiles * (life.case.rows as u32).div_ceil(rows);
        twins.compare(exact, &report)?;

        let grad_y: Vec<T> = (0..x.len()).map(|_| T::from_f32(draw.unit())).collect();
        twins.gradients[layers.len()].set(&grad_y)?;
        twins.grad_y.set(&grad_y)?;
        let mut all: Vec<&mut CudaLayer> = twins.plain.iter_mut().collect();
        let inputs = twins.matrices.iter_mut().map(Framed::write).collect::<Result<Vec<_>, _>>()?;
        let mut places =
            twins.gradients.iter_mut().map(Framed::write).collect::<Result<Vec<_>, _>>()?;
        apart.backward_apart(&mut all, &inputs, &mut places, &options)?;
        let mut all: Vec<&mut CudaLayer> = twins.stacked.iter_mut().collect();
        let (from, to) = (twins.grad_y.read()?, &mut twins.grad_x.write()?);
        let report = twins.stack.backward(&mut all, twins.x.read()?, from, to, &options)?;
        let (a, b) = (twins.gradients[0].bytes()?, twins.grad_x.bytes()?);
        ensure(a == b, || format!("dL/dx differs: {report}"))?;
        let one_round = report.fused.iter().all(|fused| {
            let tiles = (life.case.hidden as u32).div_ceil(fused.tile.0);
            fused.blocks == tiles * (life.case.rows as u32).div_ceil(fused.tile.1)
        });
        match one_round && exact {
            true => twins.compare(true, &report)?,
            false => twins.compare_gradients(&report, life.case.wild)?,
        }
    }
    Ok(exact)
}

fn repeated(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    Cases::from_environment(40)?.check(&life(), |life| match life.case.dtype {
        0 => twice::<f32>(&engine, &life),
        1 => twice::<f16>(&engine, &life),
        _ => twice::<bf16>(&engine, &life),
    })
}

fn twice<T: Element>(engine: &Arc<Engine>, life: &Life) -> Result<(), Failed> {
    let draw = Draw(life.case.values);
    let mut found: Option<Vec<Vec<u8>>> = None;
    for _ in 0..2 {
        let mut draw = Draw(draw.0);
        let mut life = life.clone();
        // So many that blocks have several rounds.
        life.case.rows = life.case.rows * 16 + 1;
        let layers = layers(&life, &mut draw)?;
        let mut twins = Twins::<T>::new(engine, &layers, &life)?;
        let mut all = Vec::new();
        for _ in 0..2 {
            let x: Vec<T> = values(life.case.rows * life.case.hidden, &mut draw, life.case.wild);
            let _ = twins.forward(&x, &[ForwardOptions::new()])?;
            let grad_y: Vec<T> = (0..x.len()).map(|_| T::from_f32(draw.unit())).collect();
            let _ = twins.backward(&grad_y, &[ForwardOptions::new()])?;
        }
        for layer in &mut twins.stacked {
            all.push(state(layer)?.to_bytes()?);
        }
        match &found {
            None => found = Some(all),
            Some(before) => ensure(*before == all, || "another run gave other bits".to_owned())?,
        }
    }
    Ok(())
}

fn in_place(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    Cases::from_environment(60)?.check(&life(), |life| match life.case.dtype {
        0 => overwrite::<f32>(&engine, &life),
        1 => overwrite::<f16>(&engine, &life),
        _ => overwrite::<bf16>(&engine, &life),
    })
}

fn overwrite<T: Element>(engine: &Arc<Engine>, life: &Life) -> Result<(), Failed> {
    let mut draw = Draw(life.case.values);
    let layers = layers(life, &mut draw)?;
    let mut twins = Twins::<T>::new(engine, &layers, life)?;
    let x = values(life.case.rows * life.case.hidden, &mut draw, life.case.wild);
    let inference = [ForwardOptions::new().inference()];
    let _ = twins.forward(&x, &inference)?;
    twins.x.set(&x)?;
    // The layers' own calls say which of them would need its input.
    let mut first = None;
    for layer in &mut twins.plain {
        let mut scratch =
            Framed::<T>::new(layer.stream(), (life.case.rows, life.case.hidden), life)?;
        scratch.set(&x)?;
        match layer.forward_in_place(&mut scratch.write()?, &ForwardOptions::new()) {
            Err(CudaError::Engine(error @ Error::InPlaceNeedsInput { .. })) => {
                first.get_or_insert(error);
            }
            other => other?,
        }
    }
    let mut all: Vec<&mut CudaLayer> = twins.stacked.iter_mut().collect();
    let found =
        twins.stack.forward_in_place(&mut all, &mut twins.x.write()?, &[ForwardOptions::new()]);
    match (first, found) {
        (Some(error), found) => {
            ensure(found == Err(error.clone().into()), || format!("{found:?}, but {error}"))?
        }
        (None, found) => {
            let _ = found?;
            twins.x.set(&x)?;
        }
    }
    let mut all: Vec<&mut CudaLayer> = twins.stacked.iter_mut().collect();
    let report = twins.stack.forward_in_place(&mut all, &mut twins.x.write()?, &inference)?;
    let (a, b) = (twins.y.bytes()?, twins.x.bytes()?);
    ensure(a == b, || format!("in place is not the same: {report}"))
}

fn deep(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let case = Case {
        rows: 33,
        hidden: 768,
        chunk: 48,
        dtype: 0,
        mode: StabilityMode::Adaptive,
        owning: 4,
        wild: false,
        telemetry: 0,
        scope: 5,
        epochs: 1,
        values: 7,
    };
    let life =
        Life { case, layers: 300, mixed: 0, padding: 0, offset: 0, cut: None, one_chunk: true };
    let mut draw = Draw(11);
    let mut layers = Vec::new();
    for _ in 0..life.layers {
        layers.push(layer::layer_of(&life.case, &mut draw, pointwise)?);
    }
    let mut twins = Twins::<f32>::new(&engine, &layers, &life)?;
    for _ in 0..3 {
        let x = values(33 * 768, &mut draw, false);
        let report = twins.forward(&x, &[ForwardOptions::new()])?;
        ensure(report.fused.len() == 3 && report.fused_layers() == 300, || report.to_string())?;
        ensure(report.own.is_empty() && report.to_string().contains("128..256"), || {
            report.to_string()
        })?;
    }
    twins.compare(false, &StackReport::default())?;
    // Who ran it is in the layers' own reports.
    let kernel = twins.stacked[0].report().forward.and_then(|forward| forward.kernel);
    ensure(
        kernel
            .as_ref()
            .is_some_and(|kernel| kernel.starts_with("kasmina_stack_forward_f32_packet")),
        || format!("{kernel:?}"),
    )
}

fn refused(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let (stream, other) = (Stream::new(engine.context())?, Stream::new(engine.context())?);
    let of = |hidden, stream: &Stream| -> Result<CudaLayer, Failed> {
        let layer = Layer::builder(SeedLayout::new(hidden, 8)?).build()?;
        Ok(CudaLayer::from_layer(&layer, &engine, stream)?)
    };
    let (mut a, mut b) = (of(64, &stream)?, of(64, &stream)?);
    let (mut wide, mut elsewhere) = (of(72, &stream)?, of(64, &other)?);
    let mut stack = LayerStack::new(&engine, &stream);
    let x = DeviceBuffer::<f32>::zeroed(&stream, 4 * 64)?;
    let mut y = DeviceBuffer::<f32>::zeroed(&stream, 4 * 64)?;
    let one = ForwardOptions::new();
    let mut run = |layers: &mut [&mut CudaLayer], rows: usize, options: &[ForwardOptions]| {
        stack.forward(
            layers,
            DeviceMatRef::new(x.as_slice(), 4, 64, 64)?,
            &mut DeviceMatMut::new(y.as_mut_slice(), rows, 64, 64)?,
            options,
        )
    };
    let expect = |found: Result<StackReport, CudaError>, error: CudaError| {
        ensure(found == Err(error.clone()), || format!("{found:?}, but {error}"))
    };
    let (width, stream_of) =
        (StackError::Width { layer: 1, found: 72, needed: 64 }, StackError::Stream { layer: 1 });
    expect(run(&mut [], 4, &[]), StackError::Empty.into())?;
    expect(run(&mut [&mut a, &mut wide], 4, std::slice::from_ref(&one)), width.into())?;
    expect(run(&mut [&mut a, &mut elsewhere], 4, std::slice::from_ref(&one)), stream_of.into())?;
    let probed = [one.clone().probe(3, 0.5)];
    expect(run(&mut [&mut a, &mut b], 4, &probed), StackError::Probes { seed: 3 }.into())?;
    let three = vec![one.clone(); 3];
    let given = StackError::Options { given: 3, layers: 2 };
    expect(run(&mut [&mut a, &mut b], 4, &three), given.into())?;
    expect(run(&mut [&mut a, &mut b], 4, &[]), StackError::Options { given: 0, layers: 2 }.into())?;
    let shape = CudaError::Shape { what: "y", found: (3, 64), needed: (4, 64) };
    expect(run(&mut [&mut a, &mut b], 3, std::slice::from_ref(&one)), shape)?;
    for layer in [&a, &b] {
        ensure(layer.layer_state().telemetry.passes == 0, || {
            "a refused pass was counted".to_owned()
        })?;
    }
    // A single layer has nobody to share a launch with.
    let report = run(&mut [&mut a], 4, &[one])?;
    ensure(report.own == [(0, OwnLaunches::Alone)] && report.fused.is_empty(), || {
        report.to_string()
    })
}
