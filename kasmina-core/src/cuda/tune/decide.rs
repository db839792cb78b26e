//! From a pass's matrices to the way it runs: the tuner's word, else the ladder's rung with the table's cut; and further down
//! where a launch is refused.

use kasmina_sys::Stream;
use kasmina_telemetry::tune::Asked;
use kasmina_tma::{LoadPath, Reason, Selection};

use super::Decision;
use super::candidates::{fits, possible_paths};
use super::choice::{Candidate, Choice};
use super::fallback::{Taken, is_refusal, stepping_down};
use super::key::{Key, Pass};
use super::measure::{measure, resources};
use super::source::{TuneReport, TunedPass, TuningSource, WhyTable};
use super::variant::Variant;
use crate::SeedLayout;
use crate::cuda::columns::Columns;
use crate::cuda::engine::Engine;
use crate::cuda::error::CudaError;
use crate::cuda::job::View;
use crate::cuda::loading;

/// How a pass ran.
pub(in crate::cuda) struct Ran<R> {
    pub(in crate::cuda) result: R,
    pub(in crate::cuda) variant: Variant,
    pub(in crate::cuda) path: Selection,
    pub(in crate::cuda) source: TuningSource,
}

/// What a pass over `views` is to run with. Measures it where that is the mode, and waits then.
///
/// `homes` are the streams that the pass will be joined with, beside the columns' own.
pub(in crate::cuda) fn decide(
    columns: &Columns,
    key: &Key,
    views: &[View],
    homes: &[&Stream],
) -> Decision {
    let engine = &columns.engine;
    let captured = || {
        let all = std::iter::once(&columns.stream).chain(homes.iter().copied());
        // One that does not answer is not waited for.
        all.into_iter().any(|stream| stream.is_capturing().unwrap_or(true))
    };
    let check = |candidate: &Candidate| check(engine, key, columns.layout, views, candidate);
    match engine.tuner().ask(key, || identity(engine, key), check) {
        Asked::Decided(decision) => decision,
        // Nothing can be waited for then. Another run may measure it.
        Asked::Measure if captured() => {
            let reason = "the stream is being captured".to_owned();
            let source = TuningSource::Table { because: WhyTable::Unmeasurable { reason } };
            Decision { candidate: None, source }
        }
        Asked::Measure => tune(columns, key, views).0,
    }
}

/// Measures what a pass over matrices like `views` runs best with, and keeps it.
fn tune(columns: &Columns, key: &Key, views: &[View]) -> (Decision, Option<Choice>) {
    let engine = &columns.engine;
    let rows = views.first().map_or(1, |view| view.rows.max(1));
    let paths = possible_paths(engine, key, views);
    let outcome = measure(engine, key, rows, columns.layout, &paths);
    if let Ok(choice) = &outcome {
        for trial in choice.trials.iter().filter(|trial| trial.failed.is_some()) {
            let reason = trial.failed.as_deref().unwrap_or_default();
            tracing::debug!("autotuning: {key}: {} is out: {reason}", trial.candidate);
        }
    }
    let kept =
        engine.tuner().keep(key, identity(engine, key), outcome.as_ref().map_err(Clone::clone));
    (kept, outcome.ok())
}

/// The same, added to a report.
pub(in crate::cuda) fn tune_for_report(
    columns: &Columns,
    key: &Key,
    views: &[View],
    report: &mut TuneReport,
) {
    let (decision, choice) = tune(columns, key, views);
    let candidate = decision.candidate.unwrap_or(Variant::of(key, key.ladder).table());
    let trials = choice.map_or_else(Vec::new, |choice| choice.trials);
    let failed = trials
        .iter()
        .filter_map(|trial| Some(format!("{}: {}", trial.candidate, trial.failed.as_deref()?)));
    report.passes.push(TunedPass {
        shape: key.to_string(),
        kernel: Variant::of(key, candidate.path).name(),
        choice: candidate.to_string(),
        source: decision.source,
        failed: failed.collect(),
    });
}

/// Launches by `decision`; what is refused is told, remembered, and the next way is tried: the ladder's rung with the table's
/// cut, and then the rungs below it. A rung that the caller asked for is never left.
///
/// # Errors
/// No way to load the matrices, a failure that is no refusal, or the last refusal.
pub(in crate::cuda) fn run<R>(
    engine: &Engine,
    key: &Key,
    views: &[View],
    ladder: Selection,
    decision: Decision,
    mut launch: impl FnMut(&Variant, &Candidate) -> Result<R, CudaError>,
) -> Result<Ran<R>, CudaError> {
    let select = |path: LoadPath| loading::select(engine, key.dtype, views, Some(path));
    let table = |path: LoadPath| Variant::of(key, path).table();
    let first = decision
        .candidate
        .filter(|candidate| candidate.path == ladder.path || select(candidate.path).is_ok());
    let own = Some(table(ladder.path)).filter(|own| first != Some(*own));
    let below = LoadPath::LADDER
        .into_iter()
        .filter(|path| key.forced.is_none() && *path > ladder.path && select(*path).is_ok());
    let ways = first.into_iter().chain(own).chain(below.map(table));
    let outcome = stepping_down(
        ways,
        |candidate| launch(&Variant::of(key, candidate.path), candidate),
        is_refusal,
    );
    // There is at least the table's own way, so that an outcome without one is not to be had.
    let Taken { result, way: taken, refused } =
        outcome.map_err(|error| error.unwrap_or(CudaError::NoImage))?;
    let source = match refused.first() {
        None => decision.source,
        Some((candidate, error)) => {
            let reason = format!("{candidate} was refused: {error}");
            engine.tuner().fell_back(key, identity(engine, key), taken, reason)
        }
    };
    let path = if taken.path == ladder.path {
        ladder
    } else {
        explained(select(taken.path)?, key, &source)
    };
    Ok(Ran { result, variant: Variant::of(key, taken.path), path, source })
}

/// A rung that was not the ladder's own, with the reason that it was taken for.
fn explained(selection: Selection, key: &Key, source: &TuningSource) -> Selection {
    let Selection { path, mut passed_by, .. } = selection;
    for passed in &mut passed_by {
        if let Reason::AnotherForced(_) = passed.reason {
            passed.reason = match source {
                TuningSource::FellBack { reason } => Reason::Refused(reason.clone()),
                _ => Reason::Slower(path),
            };
        }
    }
    Selection { path, forced: key.forced.is_some(), passed_by }
}

/// Whether a choice from the disk can run on these matrices.
fn check(
    engine: &Engine,
    key: &Key,
    layout: SeedLayout,
    views: &[View],
    candidate: &Candidate,
) -> Result<(), String> {
    if key.forced.is_some_and(|path| path != candidate.path) {
        return Err(format!("it is {}, and another rung is asked for", candidate.path));
    }
    loading::select(engine, key.dtype, views, Some(candidate.path))
        .map_err(|error| error.to_string())?;
    let variant = Variant::of(key, candidate.path);
    let rows = views.first().map_or(1, |view| view.rows.max(1));
    let machine = engine.machine(1);
    let geometry = variant.cut(rows, layout, machine, candidate.tuning);
    let resources = resources(engine, &variant).map_err(|error| error.to_string())?;
    fits(&variant, &geometry, machine, resources)
}

fn identity(engine: &Engine, key: &Key) -> Option<super::Identity> {
    // A pass without dL/dy is not tuned: it is a use of kernels that are made for more.
    if key.pass == Pass::Reconstruct {
        return None;
    }
    engine.identity(&Variant::of(key, LoadPath::Scalar).image())
}

#[cfg(test)]
mod tests {
    use kasmina_tma::PassedBy;

    use super::super::key::Work;
    use super::*;
    use crate::DType;
    use crate::cuda::variants::Counting;

    #[test]
    fn a_rung_that_was_measured_or_fallen_to_is_not_called_asked_for() {
        let layout = SeedLayout::new(64, 8).expect("a layout");
        let what = (Counting::Packet, Work::Copy);
        let key =
            Key::new(Pass::Forward, DType::F32, what, layout, &[], (LoadPath::TensorMap, None));
        let passed = |reason| vec![PassedBy { path: LoadPath::TensorMap, reason }];
        let path = LoadPath::Bulk;
        let selection =
            Selection { path, forced: true, passed_by: passed(Reason::AnotherForced(path)) };
        let tuned = TuningSource::Cached { milliseconds: 1.0, table_milliseconds: 2.0 };
        let found = explained(selection.clone(), &key, &tuned);
        assert_eq!(
            found,
            Selection { path, forced: false, passed_by: passed(Reason::Slower(path)) }
        );
        let fell = TuningSource::FellBack { reason: "no".to_owned() };
        let found = explained(selection, &key, &fell);
        assert_eq!(found.passed_by, passed(Reason::Refused("no".to_owned())));
    }
}
