//! What an engine remembers of choices: from the disk at a fatbin's first use, from measurements, and from refusals.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::cache::{self, Choices, Identity};
use super::choice::{Candidate, Choice, Key};
use super::mode::{Autotune, AutotuneMode};
use super::source::{TuningSource, WhyTable};

/// How a pass is to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision<C> {
    /// `None`: the table's, on the ladder's rung.
    pub candidate: Option<C>,
    /// Why.
    pub source: TuningSource,
}

/// What the tuner knows of a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked<C> {
    /// How it is to run.
    Decided(Decision<C>),
    /// Nothing, and the mode is to measure it now.
    Measure,
}

#[derive(Debug)]
struct State<K, C> {
    /// By fatbin.
    loaded: HashMap<String, Choices<C>>,
    decided: HashMap<K, Decision<C>>,
    problems: Vec<String>,
    warned: HashSet<String>,
}

/// The choices of one device.
#[derive(Debug)]
pub struct Tuner<K, C> {
    settings: Autotune,
    state: Mutex<State<K, C>>,
    /// Takes what went wrong, each text once.
    told: fn(&str),
    /// Grows whenever something is decided otherwise than before.
    revision: AtomicU64,
}

impl<K: Key, C: Candidate> Tuner<K, C> {
    /// One that knows nothing yet. `told` takes what goes wrong, each text once.
    pub fn new(settings: Autotune, told: fn(&str)) -> Self {
        let state = State {
            loaded: HashMap::new(),
            decided: HashMap::new(),
            problems: Vec::new(),
            warned: HashSet::new(),
        };
        let state = Mutex::new(state);
        let tuner = Self { settings, state, told, revision: AtomicU64::new(0) };
        if let Some(problem) = tuner.settings.problem() {
            let text = format!("{problem}; it counts as load");
            tuner.note(&mut tuner.state.lock(), text);
        }
        tuner
    }

    /// What to do for `key`. `check` says whether a choice from the disk can run here; `identity` names its file.
    pub fn ask(
        &self,
        key: &K,
        identity: impl FnOnce() -> Option<Identity>,
        check: impl FnOnce(&C) -> Result<(), String>,
    ) -> Asked<C> {
        let mut state = self.state.lock();
        if let Some(decision) = state.decided.get(key) {
            return Asked::Decided(decision.clone());
        }
        if !key.is_tunable() {
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
                    Ok(()) => {
                        let source = TuningSource::cached(&choice);
                        Decision { candidate: Some(choice.candidate), source }
                    }
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
        state.decided.insert(key.clone(), decision.clone());
        Asked::Decided(decision)
    }

    /// Keeps what was measured, here and on the disk; or that it could not be.
    pub fn keep(
        &self,
        key: &K,
        identity: Option<Identity>,
        outcome: Result<&Choice<C>, String>,
    ) -> Decision<C> {
        let mut state = self.state.lock();
        let decision = match outcome {
            Ok(choice) => {
                self.store(&mut state, key, identity, choice);
                let source = TuningSource::tuned(choice);
                Decision { candidate: Some(choice.candidate.clone()), source }
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
    pub fn fell_back(
        &self,
        key: &K,
        identity: Option<Identity>,
        instead: C,
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

    fn decide(&self, state: &mut State<K, C>, key: &K, decision: Decision<C>) {
        let candidate = decision.candidate.clone();
        let before = state.decided.insert(key.clone(), decision);
        if before.is_none_or(|before| before.candidate != candidate) {
            self.revision.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Grows whenever something is decided otherwise than before.
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Relaxed)
    }

    /// What went wrong with files and choices so far.
    pub fn problems(&self) -> Vec<String> {
        self.state.lock().problems.clone()
    }

    /// The choice for a key in its file, which is read once.
    fn find(
        &self,
        state: &mut State<K, C>,
        key: &K,
        identity: &Identity,
    ) -> Option<(Identity, Choice<C>)> {
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

    fn store(
        &self,
        state: &mut State<K, C>,
        key: &K,
        identity: Option<Identity>,
        choice: &Choice<C>,
    ) {
        let (Some(folder), Some(identity)) = (self.settings.folder(), identity) else { return };
        let written = cache::update(folder, &identity, |all| {
            all.insert(key.to_string(), choice.clone());
        });
        if let Err(problem) = written {
            self.note(state, format!("a measured choice is not kept: {problem}"));
        }
    }

    fn forget(&self, state: &mut State<K, C>, key: &K, identity: &Identity) {
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

    /// Tells once what has not been said before.
    fn note(&self, state: &mut State<K, C>, text: String) {
        /// Beyond so many nobody reads on.
        const MOST: usize = 100;
        if state.warned.len() < MOST && state.warned.insert(text.clone()) {
            (self.told)(&text);
            state.problems.push(text);
        }
    }
}

fn table<C>(key: &impl Key, because: WhyTable) -> Decision<C> {
    let source = match because {
        WhyTable::Off | WhyTable::NotMeasured if key.is_forced() => TuningSource::Forced,
        because => TuningSource::Table { because },
    };
    Decision { candidate: None, source }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::testing::{Kernel, Way, choice};
    use super::*;

    fn key(forced: bool) -> Kernel {
        Kernel { forced, tunable: true }
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

    fn tuner(mode: AutotuneMode, folder: &Path) -> Tuner<Kernel, Way> {
        Tuner::new(Autotune::new(mode).in_folder(folder), |_| {})
    }

    fn ask(tuner: &Tuner<Kernel, Way>) -> Asked<Way> {
        tuner.ask(&key(false), identity, |_| Ok(()))
    }

    fn source(asked: Asked<Way>) -> TuningSource {
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
        let kept = first.keep(&key(false), identity(), Ok(&choice(7)));
        assert_eq!(ask(&first), Asked::Decided(kept.clone()));
        assert!(matches!(kept.source, TuningSource::Tuned { .. }));
        // Another process.
        let other = ask(&of(AutotuneMode::Load));
        let Asked::Decided(decision) = other else { panic!("{other:?}") };
        assert_eq!(decision.candidate, kept.candidate);
        assert!(matches!(decision.source, TuningSource::Cached { .. }));
        let off = TuningSource::Table { because: WhyTable::Off };
        assert_eq!(source(ask(&of(AutotuneMode::Off))), off);
        let forced = of(AutotuneMode::Off).ask(&key(true), identity, |_| Ok(()));
        assert_eq!(source(forced), TuningSource::Forced);
    }

    #[test]
    fn an_impossible_choice_is_dropped_told_and_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let of = |mode| tuner(mode, folder.path());
        let poison = choice(1_000_000);
        of(AutotuneMode::Tune).keep(&key(false), identity(), Ok(&poison));
        let loads = of(AutotuneMode::Load);
        let dropped = source(ask(&loads));
        assert!(dropped.to_string().contains("ways are 1000000"), "{dropped}");
        assert!(loads.problems()[0].contains("ways are 1000000"));
        assert_eq!(source(ask(&loads)), dropped, "also the second time");
        assert_eq!(loads.problems().len(), 1, "told once");
        assert_eq!(ask(&of(AutotuneMode::Tune)), Asked::Measure, "it is gone");
        // One that is possible as such and not here.
        of(AutotuneMode::Tune).keep(&key(false), identity(), Ok(&choice(7)));
        let no = |_: &Way| Err("no bulk copies here".to_owned());
        let asked = of(AutotuneMode::Load).ask(&key(false), identity, no);
        assert!(source(asked).to_string().contains("no bulk copies here"));
    }

    #[test]
    fn what_was_refused_is_not_tried_again_here_or_by_the_next_process() {
        let folder = tempfile::tempdir().expect("a folder");
        let of = |mode| tuner(mode, folder.path());
        of(AutotuneMode::Tune).keep(&key(false), identity(), Ok(&choice(7)));
        let loads = of(AutotuneMode::Load);
        assert!(matches!(source(ask(&loads)), TuningSource::Cached { .. }));
        let instead = Way(5);
        let told = loads.fell_back(&key(false), identity(), instead, "it was refused".to_owned());
        assert_eq!(told, TuningSource::FellBack { reason: "it was refused".to_owned() });
        let decision = Decision { candidate: Some(instead), source: told };
        assert_eq!(ask(&loads), Asked::Decided(decision));
        assert_eq!(ask(&of(AutotuneMode::Tune)), Asked::Measure);
    }

    #[test]
    fn a_measurement_that_failed_is_told_and_not_repeated() {
        let folder = tempfile::tempdir().expect("a folder");
        let tunes = tuner(AutotuneMode::Tune, folder.path());
        tunes.keep(&key(false), identity(), Err("no memory".to_owned()));
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
