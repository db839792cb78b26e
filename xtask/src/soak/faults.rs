//! Checkpoints under bad conditions: saved, loaded, restored and migrated, and every injected fault an error that changes nothing.

use std::path::{Path, PathBuf};

use kasmina_core::{Layer, LayerState, Registry};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::life::{Life, Replay};
use super::subject::Subject;
use super::tally::Tally;

/// Faults that every run must have injected; [`Subject::faults`] are those of a backend.
pub(super) const KINDS: [&str; 5] = [
    "a folder that is not there",
    "no room for the file",
    "a truncated checkpoint",
    "a flipped byte",
    PANICS,
];
const PANICS: &str = "a blueprint that panics";
/// A file of schema 1, as `kasmina-core/tests/checkpoint_v1.rs` has it.
const SCHEMA_1: &[u8] =
    include_bytes!("../../../kasmina-core/tests/data/layer-schema-1.safetensors");

/// A checkpoint on the disk with what it has to bring back.
#[derive(Debug)]
pub(super) struct Saved {
    /// Of the bytes, which are not kept: a run's own memory must not grow with it.
    sum: u32,
    /// Of the layer that lives now.
    replay: Option<Box<Replay>>,
}

/// All checkpoints of a run, in a folder that goes with it.
#[derive(Debug)]
pub(super) struct Shelf {
    folder: tempfile::TempDir,
    registry: Registry,
    /// What is injected.
    kinds: Vec<&'static str>,
    saved: Vec<Saved>,
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Shelf {
    /// An empty one, for faults of every backend and some `more`.
    pub(super) fn new(registry: Registry, more: &[&'static str]) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(text)?;
        let kinds = KINDS.iter().chain(more).copied().collect();
        Ok(Self { folder, registry, kinds, saved: Vec::new() })
    }

    /// The faults that a run must have injected.
    pub(super) fn kinds(&self) -> &[&'static str] {
        &self.kinds
    }

    fn path(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("{number}.safetensors"))
    }

    /// Saves the layer, loads the file, and saves that: the same bytes.
    pub(super) fn save<S: Subject>(
        &mut self,
        life: &mut Life<S>,
        tally: &mut Tally,
    ) -> Result<(), String> {
        let number = self.saved.len();
        life.subject.save(&self.path(number))?;
        let bytes = life.subject.look()?.to_bytes().map_err(text)?;
        let replay = Some(Box::new(life.replay.clone()));
        self.saved.push(Saved { sum: crc32fast::hash(&bytes), replay });
        self.check(number)?;
        tally.digest(&bytes);
        tally.saved += 1;
        Ok(())
    }

    /// Puts the layer back to one of its own checkpoints, if it has any.
    pub(super) fn restore<S: Subject>(
        &self,
        life: &mut Life<S>,
        rng: &mut ChaCha8Rng,
        tally: &mut Tally,
    ) -> Result<(), String> {
        let saved = self.saved.iter().enumerate();
        let own: Vec<_> =
            saved.filter_map(|(number, saved)| Some((number, saved.replay.as_ref()?))).collect();
        let Some((number, replay)) = own.get(rng.random_range(0..own.len().max(1))) else {
            return Ok(());
        };
        life.subject.restore(&self.path(*number), &self.registry)?;
        life.replay = (***replay).clone();
        life.settings_restored()?;
        tally.restored += 1;
        life.agree()
    }

    /// The layer is gone, and its replays with it; its files stay.
    pub(super) fn next_life(&mut self) {
        self.saved.iter_mut().for_each(|saved| saved.replay = None);
    }

    /// Each checkpoint of the run once more, however old.
    pub(super) fn check_all(&self) -> Result<usize, String> {
        (0..self.saved.len()).try_for_each(|number| self.check(number))?;
        Ok(self.saved.len())
    }

    /// One fault; the layer's state is the same bytes afterwards.
    pub(super) fn inject<S: Subject>(
        &self,
        life: &mut Life<S>,
        rng: &mut ChaCha8Rng,
        tally: &mut Tally,
    ) -> Result<(), String> {
        let before = life.subject.look()?.to_bytes().map_err(text)?;
        // It needs a user's seed on path, which is seldom there.
        let kind = match tally.faults.contains_key(PANICS) {
            false if rng.random_bool(0.5) => PANICS,
            _ => self.kinds[rng.random_range(0..self.kinds.len())],
        };
        let happened = match kind {
            "a folder that is not there" => {
                let path = self.folder.path().join("nowhere").join("layer.safetensors");
                refused(kind, life.subject.save(&path))?;
                true
            }
            "no room for the file" => self.without_room(life, &before)?,
            "a truncated checkpoint" => {
                let cut = &before[..rng.random_range(0..before.len())];
                refused(kind, LayerState::from_bytes(cut, &self.registry))?;
                true
            }
            "a flipped byte" => {
                let mut damaged = before.clone();
                let at = rng.random_range(0..damaged.len());
                damaged[at] ^= 1 << rng.random_range(0..8);
                match LayerState::from_bytes(&damaged, &self.registry) {
                    // Blanks in the header mean nothing.
                    Ok(state) if state.to_bytes().map_err(text)? != before => {
                        return Err(format!("a flipped bit in byte {at} loads as another layer"));
                    }
                    _ => true,
                }
            }
            PANICS => {
                let happened = life.panicking_pass(tally)?;
                if happened {
                    // What a panic left half done is thrown away, as a caller would.
                    let state = LayerState::from_bytes(&before, &self.registry).map_err(text)?;
                    life.replace(state, &self.registry)?;
                }
                happened
            }
            own => life.subject.inject(own)?,
        };
        if happened {
            tally.fault(kind);
        }
        // A pass that was not refused has been counted.
        if kind == PANICS && !happened {
            return life.agree();
        }
        match life.subject.look()?.to_bytes().map_err(text)? == before {
            true => life.agree(),
            false => Err(format!("{kind} changed the layer")),
        }
    }

    /// The system refuses a file of this size in the middle of the write; the old file stays whole.
    fn without_room<S: Subject>(&self, life: &mut Life<S>, before: &[u8]) -> Result<bool, String> {
        let path = self.folder.path().join("full.safetensors");
        life.subject.save(&path)?;
        let Some(limit) = room::Limit::of(before.len() as u64 / 2) else { return Ok(false) };
        let outcome = life.subject.save(&path);
        drop(limit);
        refused("no room for the file", outcome)?;
        let kept = std::fs::read(&path).map_err(text)?;
        let files = std::fs::read_dir(self.folder.path()).map_err(text)?.count();
        // The shelf's own files and this one: nothing temporary.
        if kept != before || files != self.saved.len() + 1 {
            return Err("a file that had no room left a damaged one or a temporary one".to_owned());
        }
        std::fs::remove_file(&path).map_err(text)?;
        Ok(true)
    }
}

/// A file of an older schema loads, and what it is saved as loads as the same.
pub(super) fn migrate(folder: &Path, tally: &mut Tally) -> Result<(), String> {
    let registry = Registry::builtin();
    let old = LayerState::from_bytes(SCHEMA_1, &registry).map_err(text)?;
    let path = folder.join("migrated.safetensors");
    kasmina_core::checkpoint::save(&old, &path).map_err(text)?;
    let new = kasmina_core::checkpoint::load(&path, &registry).map_err(text)?;
    std::fs::remove_file(&path).map_err(text)?;
    if old.to_bytes().map_err(text)? != new.to_bytes().map_err(text)? {
        return Err("a migrated layer is another one when it is loaded again".to_owned());
    }
    tally.migrated += 1;
    Ok(())
}

impl Shelf {
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A checkpoint loads as what was saved.
    fn check(&self, number: usize) -> Result<(), String> {
        let path = self.path(number);
        let loaded = Layer::load(&path, &self.registry)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        let bytes = loaded.layer_state().to_bytes().map_err(text)?;
        match crc32fast::hash(&bytes) == self.saved[number].sum {
            true => Ok(()),
            false => Err(format!("{} loads as another layer", path.display())),
        }
    }
}

pub(super) fn refused<T, E: std::fmt::Display>(
    kind: &str,
    outcome: Result<T, E>,
) -> Result<(), String> {
    match outcome {
        Ok(_) => Err(format!("{kind} was no error")),
        Err(error) if error.to_string().is_empty() => Err(format!("{kind} has no words")),
        Err(_) => Ok(()),
    }
}

/// A limit on the size of files, which a write meets as it meets a full disk: with an error in its middle.
mod room {
    /// The limit, for as long as it lives.
    pub(super) struct Limit(libc::rlimit);

    impl Limit {
        /// `None` where the system refuses it.
        pub(super) fn of(bytes: u64) -> Option<Self> {
            let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            // SAFETY: ignoring this signal installs no handler; a write past the limit then is an error and not the process's end.
            unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
            // SAFETY: the struct is ours and as large as the system expects.
            let found = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut before) };
            let limit = libc::rlimit { rlim_cur: bytes, ..before };
            // SAFETY: as above; it is read only.
            let set = unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &limit) };
            (found == 0 && set == 0).then_some(Self(before))
        }
    }

    impl Drop for Limit {
        fn drop(&mut self) {
            // SAFETY: the struct is ours, and the old limit is within the hard one, which was not touched.
            unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &self.0) };
        }
    }
}
