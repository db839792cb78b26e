//! Components available: each is made and used once, here and now, as a user would.

use std::collections::BTreeSet;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use kasmina_core::graft::{GraftSignals, GraftStep, Strategy};
use kasmina_core::{
    Command, Controller, Device, ForwardOptions, Germination, HeuristicController, Layer, MatMut,
    MatRef, Registry, SeedLayout, Stability, StabilityMode, State, controller,
};
use kasmina_oracle::lifecycle as oracle;
use kasmina_sys::{KernelImage, Stream};
use kasmina_telemetry::transport::Transport;
use kasmina_telemetry::{
    ReductionOptions, ReductionStrategy, TelemetryMode, TelemetryReport, TelemetryScope, reduce,
    write_json_lines, write_open_metrics,
};
use kasmina_tma::LoadPath;

use super::line::{Line, Outcome};
use crate::bench::clock::Clock;
use crate::bench::measure::Bench;
use crate::bench::stacks;
use crate::bench::throttle::Watch;

type Probe = fn() -> Result<String, String>;

const COMPONENTS: [(&str, Probe); 10] = [
    ("the lifecycle: 11 states, every command", lifecycle),
    ("blueprints: the six kinds, and germination", blueprints),
    ("graft strategies", strategies),
    ("stability modes", stability),
    ("telemetry: modes, scopes, both exporters", telemetry),
    ("reduction strategies", reductions),
    ("the load ladder", ladder),
    ("the heuristic controller", heuristic),
    ("checkpoints", checkpoints),
    ("published reports", published),
];

/// Runs the check.
pub(super) fn check() -> Vec<Line> {
    let mut lines: Vec<Line> =
        COMPONENTS.iter().map(|(what, probe)| Line::new(*what, Outcome::of(probe()))).collect();
    let kernels = kasmina_sys::KERNELS
        .iter()
        .chain(&kasmina_tma::KERNELS)
        .chain(&kasmina_telemetry::cuda::KERNELS)
        .chain(&kasmina_core::cuda::KERNELS);
    lines.push(embedded(&kernels.collect::<Vec<_>>()));
    let device = Device::auto();
    lines.push(Line::new(
        "a GPU",
        match &device.because {
            None => Outcome::Passed(format!("Device::auto() is {}", device.device)),
            Some(reason) => Outcome::NotChecked(reason.to_string()),
        },
    ));
    lines.push(Line::new(
        "ways to execute a step: calls, graphs, the resident grid",
        match device.because {
            None => Outcome::of(ways(device.device)),
            Some(reason) => Outcome::NotChecked(reason.to_string()),
        },
    ));
    lines
}

/// A stack of small layers by every way, on the device.
fn ways(device: Device) -> Result<String, String> {
    let engine = device.engine().map_err(text)?.ok_or("the device is the CPU")?;
    let info = engine.context().device().info().map_err(text)?;
    let stream = Stream::new(engine.context()).map_err(text)?;
    let clock = Clock::new(&stream, 3, Watch::gpu(engine.context().device())).map_err(text)?;
    let bench = Bench::new(engine, clock, info.l2_cache.into());
    let lines = stacks::line::stacks(true, Some("half fine-tuning back"));
    let found = stacks::measure(&bench, &lines, &[]);
    for row in &found.rows {
        row.outcome.as_ref().map_err(|why| format!("{}: {why}", row.line))?;
    }
    match found.rows.len() {
        0 => Err("there is no way".to_owned()),
        ways => Ok(format!("{ways} give the bits of the layers' own calls")),
    }
}

fn embedded(images: &[&KernelImage]) -> Line {
    let absent: Vec<String> = images
        .iter()
        .filter_map(|image| image.fatbin().err())
        .map(|reason| reason.to_string())
        .collect();
    let outcome = if images.is_empty() {
        Outcome::Failed("no crate has kernels".to_owned())
    } else if absent.is_empty() {
        Outcome::Passed(format!("{} fatbins are embedded in this program", images.len()))
    } else {
        Outcome::NotChecked(format!("{} of {} are not: {}", absent.len(), images.len(), absent[0]))
    };
    Line::new("GPU kernels embedded", outcome)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn lifecycle() -> Result<String, String> {
    let registry = Registry::builtin();
    let germinate = Command::Germinate(Germination::new(registry.find("residual").map_err(text)?));
    let commands = [
        (germinate, oracle::Command::Germinate),
        (Command::Promote, oracle::Command::Promote),
        (Command::Graft, oracle::Command::Graft),
        (Command::Stabilize, oracle::Command::Stabilize),
        (Command::Evaluate, oracle::Command::Evaluate),
        (Command::FineTune, oracle::Command::FineTune),
        (Command::Fossilize, oracle::Command::Fossilize),
        (Command::Cull, oracle::Command::Cull),
        (Command::Cancel, oracle::Command::Cancel),
        (Command::Reset, oracle::Command::Reset),
    ];
    let mut pairs = 0;
    for code in 0..=oracle::LAST {
        let state = State::try_from(code).map_err(text)?;
        let lists = (state.on_path(), state.trainable());
        if lists != (oracle::on_path(code), oracle::trainable(code)) {
            return Err(format!("{state} is in other lists than the oracle's"));
        }
        for (ours, theirs) in &commands {
            let expected = oracle::transition(code, *theirs).map(|row| row.to);
            if ours.target(state).map(State::code) != expected {
                return Err(format!("{ours} from {state} leads elsewhere than the oracle's table"));
            }
            pairs += 1;
        }
    }
    match State::try_from(oracle::LAST + 1) {
        Ok(state) => Err(format!("there is a state {state} past the last")),
        Err(_) => Ok(format!("{pairs} pairs of state and command against the oracle's table")),
    }
}

fn blueprints() -> Result<String, String> {
    const KINDS: [&str; 6] =
        ["residual", "attention_head", "mlp_expansion", "conv_filter", "bottleneck", "dense"];
    let mut layer = layer(KINDS.len())?;
    for (seed, kind) in KINDS.iter().enumerate() {
        let blueprint = layer.registry().find(kind).map_err(text)?;
        let command = Command::Germinate(Germination::new(blueprint));
        layer.command(seed, command, "validate").map_err(text)?;
    }
    let outcome = layer.end_epoch().outcome;
    let grown = layer.lifecycle().grown_seeds().count();
    if outcome.transitions.len() != KINDS.len() || grown != KINDS.len() {
        return Err(format!("{grown} of {} kinds germinated", KINDS.len()));
    }
    Ok(format!("{} germinated in one layer", KINDS.join(", ")))
}

fn strategies() -> Result<String, String> {
    let all = [
        Strategy::default(),
        Strategy::performance_linked(),
        Strategy::drift_controlled(),
        Strategy::grad_norm_gated(),
    ];
    let healthy = GraftSignals {
        step: 1,
        advanced: 0,
        start: 0.0,
        share: 0.0,
        loss: Some(0.9),
        initial_loss: Some(1.0),
        best_loss: Some(0.9),
        weight_drift: Some(0.01),
        gradient_norm: Some(0.5),
    };
    for strategy in &all {
        match strategy.advance(&healthy) {
            GraftStep::Share(share) if share > 0.0 && share < 1.0 => {}
            other => return Err(format!("{} answers {other:?} to health", strategy.name())),
        }
    }
    let names: BTreeSet<&str> = all.iter().map(Strategy::name).collect();
    if names.len() != all.len() {
        return Err("two strategies have one name".to_owned());
    }
    Ok(format!("{} each rise on healthy signals", names.into_iter().collect::<Vec<_>>().join(", ")))
}

fn stability() -> Result<String, String> {
    let run = |mode| -> Result<Vec<f32>, String> {
        let initial = kasmina_core::InitialSeed {
            state: State::Fossilized,
            alpha: 1.0,
            blueprint: Some(kasmina_core::Blueprint::Residual),
            ..Default::default()
        };
        let layout = SeedLayout::new(4, 2).map_err(text)?;
        let builder = Layer::builder(layout).stability(Stability::new(mode)).seed(0, initial);
        forward(&mut builder.build().map_err(text)?, &[f32::NAN, 1e9, f32::NAN, 1e9])
    };
    for (mode, guarded) in [
        (StabilityMode::Fast, false),
        (StabilityMode::Adaptive, true),
        (StabilityMode::Strict, true),
    ] {
        let y = run(mode)?;
        let is_guarded = y[0].is_finite() && y[1] < 1e9;
        let is_left = y[2].is_nan() && y[3] == 1e9;
        if is_guarded != guarded || !is_left {
            return Err(format!("{mode:?} gives {y:?}"));
        }
    }
    Ok("a NaN and 1e9 through each mode, on path and dormant".to_owned())
}

fn telemetry() -> Result<String, String> {
    let sampling = TelemetryMode::sampling(2, 0.5).map_err(text)?;
    for mode in [TelemetryMode::Production, TelemetryMode::Debug, sampling] {
        for scope in [TelemetryScope::All, TelemetryScope::DormantOnly, TelemetryScope::Off] {
            let mut layer = layer(2)?;
            layer.set_telemetry_mode(mode).map_err(text)?;
            layer.set_telemetry_scope(scope);
            let x = [0.5; 32];
            forward(&mut layer, &x)?;
            let report = layer.end_epoch().telemetry;
            let measured = report.iter().any(|seed| seed.mean.is_some());
            if scope == TelemetryScope::Off && measured {
                return Err(format!("{} measures what is switched off", mode.name()));
            }
            if mode == TelemetryMode::Production && scope != TelemetryScope::Off && !measured {
                return Err("production measures nothing".to_owned());
            }
            let (mut lines, mut metrics) = (Vec::new(), Vec::new());
            write_json_lines(&report, &mut lines).map_err(text)?;
            write_open_metrics(&report, &mut metrics).map_err(text)?;
            if lines.is_empty() || !metrics.ends_with(b"# EOF\n") {
                return Err("an exporter wrote no whole report".to_owned());
            }
        }
    }
    Ok("3 modes × 3 scopes, each report as JSON lines and as OpenMetrics".to_owned())
}

fn reductions() -> Result<String, String> {
    let x: Vec<f32> = (0..10_000).map(|i| (i % 97) as f32).collect();
    let expected: f64 = x.iter().map(|x| f64::from(*x)).sum();
    use ReductionStrategy::{Atomic, Direct, Hierarchical};
    for strategy in [Hierarchical, Atomic, Direct] {
        let options = ReductionOptions { strategy, ..ReductionOptions::default() };
        // Whole numbers: every order of addition is exact.
        if reduce::sum(&x, &options) != Some(expected) {
            return Err(format!("{strategy:?} sums to {:?}", reduce::sum(&x, &options)));
        }
    }
    Ok(format!("three strategies sum {} values to {expected}", x.len()))
}

fn ladder() -> Result<String, String> {
    let names: Vec<String> = LoadPath::LADDER.iter().map(ToString::to_string).collect();
    for (path, name) in LoadPath::LADDER.iter().zip(&names) {
        if name.parse::<LoadPath>().map_err(text)? != *path {
            return Err(format!("{name} is read as another rung"));
        }
    }
    Ok(names.join(", "))
}

fn heuristic() -> Result<String, String> {
    let mut layer = layer(4)?;
    let config = controller::HeuristicConfig::new(layer.registry()).map_err(text)?;
    let mut controller = HeuristicController::new(config).map_err(text)?;
    forward(&mut layer, &[0.5; 64])?;
    let report = layer.end_epoch().telemetry;
    let decisions = controller.decide(layer.lifecycle(), &report);
    match decisions.is_empty() {
        true => Ok("made, and decides nothing after one usual epoch".to_owned()),
        false => Err(format!("it decides {} things after one usual epoch", decisions.len())),
    }
}

fn checkpoints() -> Result<String, String> {
    let folder = tempfile::tempdir().map_err(text)?;
    let path = folder.path().join("layer.safetensors");
    let mut layer = layer(3)?;
    forward(&mut layer, &[0.25; 48])?;
    layer.save(&path).map_err(text)?;
    let loaded = Layer::load(&path, layer.registry()).map_err(text)?;
    let (before, after) = (layer.layer_state().to_bytes(), loaded.layer_state().to_bytes());
    let (before, after) = (before.map_err(text)?, after.map_err(text)?);
    if before != after {
        return Err("a loaded layer saves other bytes".to_owned());
    }
    Ok(format!("saved, loaded and saved again: the same {} bytes", before.len()))
}

fn published() -> Result<String, String> {
    let (give, taken) = mpsc::channel();
    let consumer = move |report: &Arc<TelemetryReport>| Ok(give.send(report.windows)?);
    let mut transport = Transport::new(2, consumer).map_err(text)?;
    let mut layer = layer(2)?;
    for _ in 0..8 {
        forward(&mut layer, &[0.5; 16])?;
        transport.publish(layer.end_epoch().telemetry);
    }
    let closed = transport.close(Duration::from_secs(10)).map_err(text)?;
    let windows: u64 = taken.try_iter().sum();
    if windows != 8 || closed.status.lost > 0 || !closed.undelivered.is_empty() {
        return Err(format!("{windows} of 8 windows arrived: {:?}", closed.status));
    }
    Ok(format!("8 windows arrived in {} reports, whatever merged", closed.status.delivered))
}

/// A dormant layer of `seeds` chunks of 8 columns.
fn layer(seeds: usize) -> Result<Layer, String> {
    let layout = SeedLayout::new(8 * seeds, 8).map_err(text)?;
    Layer::builder(layout).build().map_err(text)
}

fn forward(layer: &mut Layer, x: &[f32]) -> Result<Vec<f32>, String> {
    let hidden = layer.layout().hidden();
    let mut y = vec![0.0; x.len()];
    let out = MatMut::contiguous(&mut y, hidden).map_err(text)?;
    let view = MatRef::contiguous(x, hidden).map_err(text)?;
    layer.forward(view, out, &ForwardOptions::new()).map_err(text)?;
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kasmina_sys::ImageState;

    #[test]
    fn each_is_there() {
        for (what, probe) in COMPONENTS {
            probe().unwrap_or_else(|error| panic!("{what}: {error}"));
        }
    }

    #[test]
    fn kernels_that_are_absent_are_told_and_none_at_all_is_a_failure() {
        let absent = KernelImage { package: "p", name: "k", state: ImageState::NotBuilt };
        let Outcome::NotChecked(reason) = embedded(&[&absent]).outcome else { panic!("absent") };
        assert!(reason.contains("build-kernels"), "{reason}");
        assert!(embedded(&[]).outcome.is_failure());
    }
}
