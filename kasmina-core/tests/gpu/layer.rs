//! Random layers that live and train on the CPU and on the GPU side by side, and change sides.

use half::{bf16, f16};
use kasmina_core::cuda::Engine;
use kasmina_core::{
    Activation, Blueprint, Command, Element, ForwardOptions, Germination, InitialSeed, Layer,
    LifecycleConfig, SeedLayout, SeedSignals, Stability, StabilityMode, State, Strategy,
};
use kasmina_gpu_test::{Body, Cases, Failed, ensure};
use kasmina_sys::Device;
use kasmina_telemetry::{TelemetryMode, TelemetryScope};
use proptest::prelude::*;

use crate::common::Draw;
use crate::layer_pair::{OBJECTIVES, OWNING, Pair};

pub(crate) const TESTS: &[(&str, Body)] =
    &[("layers_live_and_train_as_on_the_cpu_and_change_sides", random_lives)];

/// A life: everything else is drawn from `values`.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) rows: usize,
    pub(crate) hidden: usize,
    pub(crate) chunk: usize,
    pub(crate) dtype: usize,
    pub(crate) mode: StabilityMode,
    /// How many of eight seeds own parameters.
    pub(crate) owning: u64,
    pub(crate) wild: bool,
    pub(crate) telemetry: usize,
    pub(crate) scope: usize,
    pub(crate) epochs: usize,
    pub(crate) values: u64,
}

pub(crate) fn case() -> impl Strategy_<Value = Case> {
    let sizes = (1usize..60, prop_oneof![2 => 1usize..80, 2 => (1usize..20).prop_map(|n| 16 * n)])
        .prop_flat_map(|(rows, hidden)| {
            let chunk = prop_oneof![1 => 1..=hidden, 2 => (0u32..7).prop_map(move |k| (1 << k).min(hidden))];
            (prop_oneof![8 => Just(rows), 1 => Just(0)], Just(hidden), chunk)
        });
    let mode = prop_oneof![
        Just(StabilityMode::Fast),
        Just(StabilityMode::Adaptive),
        Just(StabilityMode::Strict)
    ];
    let rest = (0u64..=8, any::<bool>(), 0usize..3, 0usize..6, 1usize..4, any::<u64>());
    (sizes, 0usize..3, mode, rest).prop_map(|((rows, hidden, chunk), dtype, mode, rest)| {
        let (owning, wild, telemetry, scope, epochs, values) = rest;
        // Without guards a NaN on path is in every sum, and nothing can be compared.
        let wild = wild && mode != StabilityMode::Fast;
        Case { rows, hidden, chunk, dtype, mode, owning, wild, telemetry, scope, epochs, values }
    })
}

use proptest::strategy::Strategy as Strategy_;

fn random_lives(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    Cases::from_environment(150)?.check(&case(), |case| match case.dtype {
        0 => life::<f32>(&engine, &case),
        1 => life::<f16>(&engine, &case),
        _ => life::<bf16>(&engine, &case),
    })
}

pub(crate) fn blueprint(draw: &mut Draw) -> Blueprint {
    let activations = [Activation::Relu, Activation::Gelu, Activation::Silu, Activation::Tanh];
    let activation = activations[(draw.next() % 4) as usize];
    match draw.next() % 6 {
        0 => Blueprint::Residual,
        1 => Blueprint::AttentionHead,
        2 => Blueprint::MlpExpansion,
        3 => Blueprint::ConvFilter { taps: 1 + (draw.next() % 16) as usize },
        4 => Blueprint::Bottleneck { width: 1 + (draw.next() % 9) as usize, activation },
        _ => Blueprint::Dense { activation },
    }
}

/// Strategies whose decisions do not hang on the last bit of a measurement.
fn strategy(draw: &mut Draw) -> Strategy {
    match draw.next() % 5 {
        0 => Strategy::FixedRamp { steps: 2 },
        1 => Strategy::PerformanceLinked { steps: 4, gain: 4.0, max_speed: 4.0 },
        2 => Strategy::DriftControlled { steps: 3, max_drift: 1e6 },
        3 => Strategy::DriftControlled { steps: 3, max_drift: 0.0 },
        _ => Strategy::GradNormGated { steps: 3, low: 0.0, high: 1e30 },
    }
}

pub(crate) fn layer(case: &Case, draw: &mut Draw) -> Result<Layer, Failed> {
    layer_of(case, draw, blueprint)
}

/// The same with seeds of `blueprint`'s kinds.
pub(crate) fn layer_of(
    case: &Case,
    draw: &mut Draw,
    blueprint: fn(&mut Draw) -> Blueprint,
) -> Result<Layer, Failed> {
    let layout = SeedLayout::new(case.hidden, case.chunk)?;
    let config =
        LifecycleConfig { stabilization_steps: 1, embargo_epochs: 1, ..LifecycleConfig::default() };
    let scopes = [TelemetryScope::Off, TelemetryScope::DormantOnly];
    let mode = match case.telemetry {
        0 => TelemetryMode::Production,
        1 => TelemetryMode::Debug,
        _ => TelemetryMode::sampling(2, 0.5)?,
    };
    let mut builder = Layer::builder(layout)
        .lifecycle(config)
        .stability(Stability::new(case.mode))
        .telemetry_mode(mode)
        .telemetry_scope(scopes.get(case.scope).copied().unwrap_or(TelemetryScope::All))
        .rng_seed(case.values);
    for seed in 0..layout.seeds() {
        if draw.next() % 8 >= case.owning {
            continue;
        }
        let mut kind = blueprint(draw);
        // An outlier is clamped to a bound, and what a bottleneck adds to it is less than the bound's rounding: whether the
        // result is clamped, and its gradient masked, hangs on the last bit. tests/gpu/matrices.rs accounts for that.
        while case.wild && matches!(kind, Blueprint::Bottleneck { .. } | Blueprint::Dense { .. }) {
            kind = blueprint(draw);
        }
        let specs = kind.parameters(layout.chunk_len(seed))?;
        let c = layout.chunk_len(seed) as f32;
        let parameters = specs.specs().iter().map(|spec| {
            // Matrices of many columns would sum to huge values.
            let scale = if spec.shape.len() == 2 { 1.0 / c.sqrt() } else { 1.0 };
            (0..spec.shape.iter().product()).map(|_| scale * draw.unit()).collect()
        });
        let parameters = Some(parameters.collect());
        let initial = InitialSeed {
            state: OWNING[(draw.next() % 7) as usize],
            alpha: [0.0, 0.3, 1.0][(draw.next() % 3) as usize],
            blueprint: Some(kind),
            objective: OBJECTIVES[(draw.next() % 3) as usize],
            strategy: strategy(draw),
            parameters,
        };
        builder = builder.seed(seed, initial);
    }
    Ok(builder.build()?)
}

pub(crate) fn options(layer: &Layer, draw: &mut Draw) -> ForwardOptions {
    let mut options = ForwardOptions::new();
    let grown: Vec<usize> = layer.lifecycle().grown_seeds().map(|(seed, _)| seed).collect();
    for seed in grown {
        if draw.next().is_multiple_of(6) {
            options = options.probe(seed, [0.0, 0.4, 1.0][(draw.next() % 3) as usize]);
        }
    }
    match draw.next() % 6 {
        0 => options.inference(),
        1 => options.without_telemetry(),
        _ => options,
    }
}

/// The next command of a seed's life, now and then a drastic one.
pub(crate) fn command(
    layer: &Layer,
    seed: usize,
    draw: &mut Draw,
) -> Result<Option<Command>, Failed> {
    let drastic = draw.next().is_multiple_of(5);
    if draw.next().is_multiple_of(3) {
        return Ok(None);
    }
    let ids: Vec<_> = layer.registry().iter().map(|(name, _)| name.to_owned()).collect();
    Ok(Some(match layer.state(seed)? {
        State::Dormant if draw.next().is_multiple_of(4) => {
            let id = layer.registry().find(&ids[draw.next() as usize % ids.len()])?;
            let objective = OBJECTIVES[(draw.next() % 3) as usize];
            Command::Germinate(Germination {
                objective,
                strategy: strategy(draw),
                ..Germination::new(id)
            })
        }
        State::Germinated | State::Training if drastic => Command::Cancel,
        State::Germinated => Command::Promote,
        State::Grafting | State::Evaluating | State::FineTuning if drastic => Command::Cull,
        State::Training => Command::Graft,
        State::Grafting => Command::Stabilize,
        State::Stabilization => Command::Evaluate,
        State::Evaluating => Command::FineTune,
        State::FineTuning => Command::Fossilize,
        State::Culled | State::Cancelled => Command::Reset,
        _ => return Ok(None),
    }))
}

fn life<T: Element>(engine: &std::sync::Arc<Engine>, case: &Case) -> Result<(), Failed> {
    let mut draw = Draw(case.values);
    let mut pair = Pair::new(engine, layer(case, &mut draw)?, case.rows)?;
    for _ in 0..case.epochs {
        for _ in 0..1 + draw.next() % 4 {
            let options = options(&pair.cpu, &mut draw);
            pair.pass::<T>(&mut draw, &options, case.wild)?;
            pair.compare_states::<T>()?;
            let signals = SeedSignals::loss(f64::from(draw.unit()) + 2.0);
            for seed in 0..pair.cpu.layout().seeds() {
                if draw.next().is_multiple_of(3) && pair.cpu.lifecycle().grown(seed).is_some() {
                    pair.cpu.record(seed, signals)?;
                    pair.gpu.record(seed, signals)?;
                }
            }
            match draw.next() % 8 {
                0 => pair.exchange(engine, true)?,
                1 => pair.exchange(engine, false)?,
                // Gradients of huge inputs cancel: what is left decides updates, and is each side's rounding.
                _ if case.wild => {
                    pair.cpu.zero_gradients();
                    pair.gpu.zero_gradients()?;
                    pair.cpu.advance_step();
                    pair.gpu.advance_step()?;
                }
                2 => {
                    pair.cpu.zero_gradients();
                    pair.gpu.zero_gradients()?;
                }
                3 => {
                    let modes =
                        [StabilityMode::Fast, StabilityMode::Adaptive, StabilityMode::Strict];
                    let first = if case.wild { 1 } else { 0 };
                    let at = first + draw.next() as usize % (3 - first);
                    let stability = Stability::new(modes[at]);
                    pair.cpu.set_stability(stability)?;
                    pair.gpu.set_stability(stability)?;
                }
                _ => {
                    pair.step()?;
                    pair.compare_states::<T>()?;
                }
            }
        }
        for seed in 0..pair.cpu.layout().seeds() {
            if let Some(command) = command(&pair.cpu, seed, &mut draw)? {
                let a = pair.cpu.command(seed, command.clone(), "").map_err(|e| e.to_string());
                let b = pair.gpu.command(seed, command, "").map_err(|e| e.to_string());
                ensure(a == b, || format!("seed {seed}: {b:?}, but {a:?}"))?;
            }
        }
        let (a, b) = (pair.cpu.end_epoch(), pair.gpu.end_epoch()?);
        ensure(a.outcome.transitions == b.outcome.transitions, || {
            format!("{:?}, but {:?}", b.outcome.transitions, a.outcome.transitions)
        })?;
        let (a, b) = (a.telemetry, b.telemetry);
        b.check()?;
        ensure(
            (a.epoch, a.steps, &a.state, &a.blueprint)
                == (b.epoch, b.steps, &b.state, &b.blueprint),
            || "the reports differ".to_owned(),
        )?;
        ensure(!b.hardware.is_empty() && !b.kernel.is_empty(), || "who ran it?".to_owned())?;
        pair.compare_states::<T>()?;
        // So that what is compared stays small: both go on from the same parameters.
        pair.exchange(engine, draw.next().is_multiple_of(2))?;
    }
    Ok(())
}
