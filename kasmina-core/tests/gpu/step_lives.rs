//! Replayed steps against plain calls, bit for bit, through random lives of random stacks.

use std::sync::Arc;

use half::{bf16, f16};
use kasmina_core::cuda::{CudaLayer, Engine};
use kasmina_core::{Element, SeedSignals, Stability, StabilityMode};
use kasmina_gpu_test::{Body, Cases, Failed};
use kasmina_sys::{Device, Stream};
use kasmina_telemetry::{TelemetryMode, TelemetryScope};
use proptest::prelude::*;

use crate::common::Draw;
use crate::drawn_step::{self, DrawnStep};
use crate::layer::{self, Case};
use crate::step_graph::{has_programmatic, options};
use crate::step_twins::{Parts, Twins};

pub(crate) const TESTS: &[(&str, Body)] =
    &[("replays_are_the_plain_calls_through_random_lives", random_lives)];

#[derive(Clone, Debug)]
struct Life {
    case: Case,
    layers: usize,
    exact: bool,
    programmatic: bool,
    elsewhere: bool,
}

fn life() -> impl Strategy<Value = Life> {
    let rest = (1usize..=4, any::<bool>(), any::<bool>(), any::<bool>());
    (layer::case(), rest).prop_map(|(case, (layers, exact, programmatic, elsewhere))| Life {
        case,
        layers,
        exact,
        programmatic,
        elsewhere,
    })
}

fn random_lives(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let has_programmatic = has_programmatic(device)?;
    Cases::from_environment(80)?.check(&life(), |mut life| {
        life.programmatic &= has_programmatic;
        match life.case.dtype {
            0 => live::<f32>(&engine, &life),
            1 => live::<f16>(&engine, &life),
            _ => live::<bf16>(&engine, &life),
        }
    })
}

fn live<T: Element>(engine: &Arc<Engine>, life: &Life) -> Result<(), Failed> {
    let mut draw = Draw(life.case.values);
    let layers = drawn_step::layers(&life.case, life.layers, &mut draw, layer::layer)?;
    let other = Stream::new(engine.context())?;
    let home = life.elsewhere.then_some(&other);
    let graph = options(life.exact, life.programmatic);
    let mut twins = Twins::<T>::new(engine, home, &layers, life.case.rows, graph)?;
    for _ in 0..1 + life.case.epochs {
        for _ in 0..1 + draw.next() % 5 {
            one_step(&mut twins, life, &mut draw)?;
            between(&mut twins, life, &mut draw)?;
            if draw.next().is_multiple_of(2) {
                twins.compare()?;
            }
        }
        commands(&mut twins, &mut draw)?;
        twins.each("the epoch's report", |_, layer| {
            let report = layer.end_epoch()?;
            Ok((format!("{:?}", report.outcome), format!("{:?}", report.telemetry)))
        })?;
    }
    one_step(&mut twins, life, &mut draw)?;
    twins.compare()
}

fn one_step<T: Element>(twins: &mut Twins<T>, life: &Life, draw: &mut Draw) -> Result<(), Failed> {
    let DrawnStep { x, grad_y, parts: all } =
        drawn_step::step(&twins.plain, life.case.wild, 3, draw);
    twins.fill(&x, &grad_y)?;
    match draw.next() % 8 {
        // Plain calls between the replays.
        0 => {
            twins.plain.plain(&all)?;
            Ok(twins.replayed.plain(&all)?)
        }
        1 => twins.step(&Parts { backward: false, optimizer: None, advance: false, ..all }),
        2 => twins.step(&Parts { optimizer: None, ..all }),
        // In two, as with a loss of one's own between them.
        3 => {
            let back = Parts { forward: false, ..all.clone() };
            twins.step(&Parts { backward: false, optimizer: None, advance: false, ..all })?;
            twins.step(&back)
        }
        _ => twins.step(&all),
    }
}

/// What a user may do between two steps.
fn between<T: Element>(twins: &mut Twins<T>, life: &Life, draw: &mut Draw) -> Result<(), Failed> {
    let what = draw.next() % 10;
    let modes = [StabilityMode::Fast, StabilityMode::Adaptive, StabilityMode::Strict];
    let first = usize::from(life.case.wild);
    let mode = modes[first + draw.below(3 - first)];
    let telemetry = match draw.next() % 3 {
        0 => TelemetryMode::Production,
        1 => TelemetryMode::Debug,
        _ => TelemetryMode::sampling(2, 0.5)?,
    };
    let scopes = [TelemetryScope::All, TelemetryScope::DormantOnly, TelemetryScope::Off];
    let scope = scopes[draw.below(3)];
    let (values, loss) = (draw.next(), f64::from(draw.unit()) + 2.0);
    twins.each("what was done between", |_, layer| {
        let mut draw = Draw(values);
        match what {
            0 => layer.set_stability(Stability::new(mode))?,
            1 => layer.set_telemetry_mode(telemetry)?,
            2 => layer.set_telemetry_scope(scope),
            3 => layer.zero_gradients()?,
            4 => layer.synchronize()?,
            5 => *layer = moved(layer)?,
            6 => {
                let seeds: Vec<usize> =
                    layer.lifecycle().grown_seeds().map(|(seed, _)| seed).collect();
                for seed in seeds {
                    layer.record(seed, SeedSignals::loss(loss))?;
                    if !layer.state(seed)?.trainable() {
                        continue;
                    }
                    let count = layer.parameters(seed).map_or(0, |p| p.map(|(_, v)| v.len()).sum());
                    let values: Vec<f32> = (0..count).map(|_| 0.3 * draw.unit()).collect();
                    layer.set_parameters(seed, &values)?;
                }
            }
            _ => {}
        }
        Ok(())
    })
}

/// The same layer as another value, on the same stream.
fn moved(layer: &mut CudaLayer) -> Result<CudaLayer, Failed> {
    let host = layer.to_layer()?;
    Ok(CudaLayer::from_layer(&host, layer.engine(), layer.stream())?)
}

fn commands<T: Element>(twins: &mut Twins<T>, draw: &mut Draw) -> Result<(), Failed> {
    let values = draw.next();
    twins.each("the commands", |i, layer| {
        let mut draw = Draw(values ^ i as u64);
        let host = layer.last_synchronized();
        let mut given = Vec::new();
        for seed in 0..layer.layout().seeds() {
            if let Some(command) = layer::command(&host, seed, &mut draw)? {
                given.push(layer.command(seed, command, "").map_err(|error| error.to_string()));
            }
        }
        Ok(given)
    })
}
