//! What an engine remembers of choices: from the disk at a fatbin's first use, from measurements, and from refusals.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

pub(in crate::cuda) use super::cache::Identity;
use super::cache::{self, Choices};
use super::choice::{Candidate, Choice};
use super::key::{Key, Pass};
use super::mode::{Autotune, AutotuneMode};
use super::source::{TuningSource, WhyTable};

/// How a pass is to run.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cuda) struct Decision {
    /// `None`: the table's, on the ladder's rung.
    pub(in crate::cuda) candidate: Option<Candidate>,
    pub(in crate::cuda) source: TuningSource,
}

/// What the tuner knows of a key.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cuda) enum Asked {
    Decided(Decision),
    /// Nothing, and the mode is to measure it now.
    Measure,
}

#[derive(Debug, Default)]
struct State {
    /// By fatbin.
    loaded: HashMap<String, Choices>,
    decided: HashMap<Key, Decision>,
    problems: Vec<String>,
    warned: HashSet<String>,
}

/// The choices of one device.
#[derive(Debug)]
pub(in crate::cuda) struct Tuner {
    settings: Autotune,
    state: Mutex<State>,
    /// Grows whenever something is decided otherwise than before.
    revision: AtomicU64,
}

impl Tuner {
    pub(in crate::cuda) fn new(settings: Autotune) -> Self {
        let tuner = Self { settings, state: Mutex::default(), revision: AtomicU64::new(0) };
        if let Some(problem) = tuner.settings.problem() {
            let text = format!("{problem}; it counts as load");
            tuner.note(&mut tuner.state.lock(), text);
        }
        tuner
    }

    /// What to do for `key`. `check` says whether a choice from the disk can run here; `identity` names its file.
    pub(in crate::cuda) fn ask(
        &self,
        key: &Key,
        identity: impl FnOnce() -> Option<Identity>,
        check: impl FnOnce(&Candidate) -> Result<(), String>,
    ) -> Asked {
        let mut state = self.state.lock();
        if let Some(decision) = state.decided.get(key) {
            return Asked::Decided(decision.clone());
        }
        if key.pass == Pass::Reconstruct {
            return Asked::Decided(table(key, WhyTable::NotTunable));
        }
        if self.settings.mode() == AutotuneMode::Off {
            return Asked::Decided(table(key, WhyTable::Off));
        }
        let found = identity().and_then(|identity| self.find(&mut state, key, &identity));
        let decision = match found {
            None if self.settings.mode() == AutotuneMode::Tune => return Asked::Measure,
            None => table(key, WhyTable::NotMeasured),
            Some((identity, choice)) => {
                match choice.candidate.check().and_then(|()| check(&choice.candidate)) {
                    Ok(()) => Decision {
                        candidate: Some(choice.candidate),
                        source: TuningSource::cached(&choice),
                    },
                    Err(reason) => {
                        let text = format!("the measured choice for {key} is dropped: {reason}");
                        self.note(&mut state, text);
                        self.forget(&mut state, key, &identity);
                        if self.settings.mode() == AutotuneMode::Tune {
                            return Asked::Measure;
                        }
                        table(key, WhyTable::Dropped { reason })
                    }
                }
            }
        };
        state.decided.insert(*key, decision.clone());
        Asked::Decided(decision)
    }

    /// Keeps what was measured, here and on the disk; or that it could not be.
    pub(super) fn keep(
        &self,
        key: &Key,
        identity: Option<Identity>,
        outcome: Result<&Choice, String>,
    ) -> Decision {
        let mut state = self.state.lock();
        let decision = match outcome {
            Ok(choice) => {
                self.store(&mut state, key, identity, choice);
                let source = TuningSource::tuned(choice);
                Decision { candidate: Some(choice.candidate), source }
            }
            Err(reason) => {
                self.note(&mut state, format!("{key} could not be measured: {reason}"));
                table(key, WhyTable::Unmeasurable { reason })
            }
        };
        self.decide(&mut state, key, decision.clone());
        decision
    }

    /// What should have run was refused and `instead` ran: so it does from now on, and a choice on the disk goes.
    pub(in crate::cuda) fn fell_back(
        &self,
        key: &Key,
        identity: Option<Identity>,
        instead: Candidate,
        reason: String,
    ) -> TuningSource {
        let mut state = self.state.lock();
        self.note(&mut state, format!("{key} now runs as {instead}, because {reason}"));
        if let Some(identity) = identity {
            self.forget(&mut state, key, &identity);
        }
        let source = TuningSource::FellBack { reason };
        let decision = Decision { candidate: Some(instead), source: source.clone() };
        self.decide(&mut state, key, decision);
        source
    }

    fn decide(&self, state: &mut State, key: &Key, decision: Decision) {
        let candidate = decision.candidate;
        let before = state.decided.insert(*key, decision);
        if before.is_none_or(|before| before.candidate != candidate) {
            self.revision.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Grows whenever something is decided otherwise than before.
    pub(in crate::cuda) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Relaxed)
    }

    /// What went wrong with files and choices so far.
    pub(in crate::cuda) fn problems(&self) -> Vec<String> {
        self.state.lock().problems.clone()
    }

    /// The choice for a key in its file, which is read once.
    fn find(
        &self,
        state: &mut State,
        key: &Key,
        identity: &Identity,
    ) -> Option<(Identity, Choice)> {
        let folder = self.settings.folder()?;
        if !state.loaded.contains_key(&identity.image) {
            let choices = cache::load(folder, identity).unwrap_or_else(|problem| {
                self.note(state, format!("measured choices are not used: {problem}"));
                Choices::new()
            });
            state.loaded.insert(identity.image.clone(), choices);
        }
        let choice = state.loaded.get(&identity.image)?.get(&key.to_string())?;
        Some((identity.clone(), choice.clone()))
    }

    fn store(&self, state: &mut State, key: &Key, identity: Option<Identity>, choice: &Choice) {
        let (Some(folder), Some(identity)) = (self.settings.folder(), identity) else { return };
        let written = cache::update(folder, &identity, |all| {
            all.insert(key.to_string(), choice.clone());
        });
        if let Err(problem) = written {
            self.note(state, format!("a measured choice is not kept: {problem}"));
        }
    }

    fn forget(&self, state: &mut State, key: &Key, identity: &Identity) {
        let key = key.to_string();
        let known = state.loaded.get_mut(&identity.image).and_then(|all| all.remove(&key));
        let Some(folder) = self.settings.folder().filter(|_| known.is_some()) else { return };
        let written = cache::update(folder, identity, |all| {
            // Another process may have measured anew meanwhile.
            if all.get(&key) == known.as_ref() {
                all.remove(&key);
            }
        });
        if let Err(problem) = written {
            self.note(state, format!("a choice that is no good is not removed: {problem}"));
        }
    }

    /// Logs once what has not been said before.
    fn note(&self, state: &mut State, text: String) {
        /// Beyond so many nobody reads on.
        const MOST: usize = 100;
        if state.warned.len() < MOST && state.warned.insert(text.clone()) {
            tracing::warn!("autotuning: {text}");
            state.problems.push(text);
        }
    }
}

fn table(key: &Key, because: WhyTable) -> Decision {
    let source = match key.forced {
        Some(_) if matches!(because, WhyTable::Off | WhyTable::NotMeasured) => TuningSource::Forced,
        _ => TuningSource::Table { because },
    };
    Decision { candidate: None, source }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use kasmina_tma::LoadPath;

    use super::super::key::Work;
    use super::*;
    use crate::cuda::geometry::Tuning;
    use crate::cuda::variants::Counting;
    use crate::{DType, SeedLayout};

    fn key(forced: Option<LoadPath>) -> Key {
        let layout = SeedLayout::new(64, 8).expect("a layout");
        let what = (Counting::Packet, Work::Copy);
        Key::new(Pass::Forward, DType::F32, what, layout, &[], (LoadPath::TensorMap, forced))
    }

    fn identity() -> Option<Identity> {
        let text = || "x".to_owned();
        Some(Identity {
            device: text(),
            multiprocessors: 1,
            driver: text(),
            image: text(),
            kernels: text(),
            version: text(),
        })
    }

    fn choice(tuning: Tuning) -> Choice {
        let candidate = Candidate { path: LoadPath::Bulk, tuning };
        Choice { candidate, milliseconds: 1.0, table_milliseconds: 2.0, when: 0, trials: vec![] }
    }

    fn tuner(mode: AutotuneMode, folder: &Path) -> Tuner {
        Tuner::new(Autotune::new(mode).in_folder(folder))
    }

    fn ask(tuner: &Tuner) -> Asked {
        tuner.ask(&key(None), identity, |_| Ok(()))
    }

    fn source(asked: Asked) -> TuningSource {
        match asked {
            Asked::Decided(decision) => decision.source,
            Asked::Measure => panic!("it was to be decided"),
        }
    }

    #[test]
    fn modes_decide_whether_to_look_and_whether_to_measure() {
        let folder = tempfile::tempdir().expect("a folder");
        let of = |mode| tuner(mode, folder.path());
        assert_eq!(ask(&of(AutotuneMode::Tune)), Asked::Measure);
        let nothing = TuningSource::Table { because: WhyTable::NotMeasured };
        assert_eq!(source(ask(&of(AutotuneMode::Load))), nothing);
        let first = of(AutotuneMode::Tune);
        let kept = first.keep(&key(None), identity(), Ok(&choice(Tuning::BULK)));
        assert_eq!(ask(&first), Asked::Decided(kept.clone()));
        assert!(matches!(kept.source, TuningSource::Tuned { .. }));
        // Another process.
        let other = ask(&of(AutotuneMode::Load));
        let Asked::Decided(decision) = other else { panic!("{other:?}") };
        assert_eq!(decision.candidate, kept.candidate);
        assert!(matches!(decision.source, TuningSource::Cached { .. }));
        let off = TuningSource::Table { because: WhyTable::Off };
        assert_eq!(source(ask(&of(AutotuneMode::Off))), off);
        let forced = of(AutotuneMode::Off).ask(&key(Some(LoadPath::Bulk)), identity, |_| Ok(()));
        assert_eq!(source(forced), TuningSource::Forced);
    }

    #[test]
    fn an_impossible_choice_is_dropped_told_and_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let of = |mode| tuner(mode, folder.path());
        let poison = choice(Tuning { stages: 1_000_000, ..Tuning::BULK });
        of(AutotuneMode::Tune).keep(&key(None), identity(), Ok(&poison));
        let loads = of(AutotuneMode::Load);
        let dropped = source(ask(&loads));
        assert!(dropped.to_string().contains("stages are 1000000"), "{dropped}");
        assert!(loads.problems()[0].contains("stages are 1000000"));
        assert_eq!(source(ask(&loads)), dropped, "also the second time");
        assert_eq!(loads.problems().len(), 1, "told once");
        assert_eq!(ask(&of(AutotuneMode::Tune)), Asked::Measure, "it is gone");
        // One that is possible as such and not here.
        of(AutotuneMode::Tune).keep(&key(None), identity(), Ok(&choice(Tuning::BULK)));
        let no = |_: &Candidate| Err("no bulk copies here".to_owned());
        let asked = of(AutotuneMode::Load).ask(&key(None), identity, no);
        assert!(source(asked).to_string().contains("no bulk copies here"));
    }

    #[test]
    fn what_was_refused_is_not_tried_again_here_or_by_the_next_process() {
        let folder = tempfile::tempdir().expect("a folder");
        let of = |mode| tuner(mode, folder.path());
        of(AutotuneMode::Tune).keep(&key(None), identity(), Ok(&choice(Tuning::BULK)));
        let loads = of(AutotuneMode::Load);
        assert!(matches!(source(ask(&loads)), TuningSource::Cached { .. }));
        let instead = Candidate { path: LoadPath::CpAsync, tuning: Tuning::PLAIN };
        let told = loads.fell_back(&key(None), identity(), instead, "it was refused".to_owned());
        assert_eq!(told, TuningSource::FellBack { reason: "it was refused".to_owned() });
        let decision = Decision { candidate: Some(instead), source: told };
        assert_eq!(ask(&loads), Asked::Decided(decision));
        assert_eq!(ask(&of(AutotuneMode::Tune)), Asked::Measure);
    }

    #[test]
    fn a_measurement_that_failed_is_told_and_not_repeated() {
        let folder = tempfile::tempdir().expect("a folder");
        let tunes = tuner(AutotuneMode::Tune, folder.path());
        tunes.keep(&key(None), identity(), Err("no memory".to_owned()));
        assert!(source(ask(&tunes)).to_string().contains("no memory"));
        assert!(tunes.problems()[0].contains("no memory"));
    }

    #[test]
    fn a_damaged_file_is_told_once_and_survived() {
        let folder = tempfile::tempdir().expect("a folder");
        let identity = identity().expect("one");
        std::fs::write(cache::file(folder.path(), &identity), b"{").expect("it is written");
        let loads = tuner(AutotuneMode::Load, folder.path());
        for _ in 0..3 {
            let nothing = TuningSource::Table { because: WhyTable::NotMeasured };
            assert_eq!(source(ask(&loads)), nothing);
        }
        assert_eq!(loads.problems().len(), 1, "{:?}", loads.problems());
    }
}
