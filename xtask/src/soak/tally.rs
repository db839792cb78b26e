//! What a soak did, counted, and a digest of everything that the engine gave.

use std::fmt;

use kasmina_core::State;

/// Counts of a run.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) lives: usize,
    pub(super) passes: usize,
    /// Passes that agreed with the oracle, and the largest error as a share of what is allowed.
    pub(super) judged: usize,
    worst_pass: f64,
    /// Passes too close to a kink, and passes with values that only bit-exact rules hold for.
    pub(super) kinks: usize,
    pub(super) unguarded: usize,
    updates: usize,
    worst_update: f64,
    pub(super) skipped: usize,
    pub(super) commands: usize,
    pub(super) refused: usize,
    pub(super) transitions: usize,
    pub(super) saved: usize,
    pub(super) restored: usize,
    pub(super) migrated: usize,
    /// Faults that were injected and came out as errors, by kind.
    pub(super) faults: std::collections::BTreeMap<&'static str, usize>,
    /// What a backend counts beside.
    notes: std::collections::BTreeMap<&'static str, u64>,
    /// Epochs that seeds spent in each state.
    pub(super) seen: [usize; 11],
    digest: crc32fast::Hasher,
}

impl Tally {
    pub(super) fn agreed(&mut self, worst: f64) {
        self.judged += 1;
        self.worst_pass = self.worst_pass.max(worst);
    }

    pub(super) fn updated(&mut self, worst: f64) {
        self.updates += 1;
        self.worst_update = self.worst_update.max(worst);
    }

    pub(super) fn fault(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    /// Counts one of a backend's own doings.
    pub(super) fn note(&mut self, what: &'static str) {
        self.add(what, 1);
    }

    /// Counts some of them.
    pub(super) fn add(&mut self, what: &'static str, more: u64) {
        *self.notes.entry(what).or_default() += more;
    }

    /// Adds what the engine gave; the same seed gives the same bytes.
    pub(super) fn digest(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
    }

    /// The digest of the run so far.
    pub(super) fn checksum(&self) -> u32 {
        self.digest.clone().finalize()
    }

    /// What a run must have come past to mean anything: each state, each fault, and most passes judged.
    pub(super) fn coverage(&self, kinds: &[&'static str]) -> Result<(), String> {
        if let Some(code) = self.seen.iter().position(|epochs| *epochs == 0) {
            return Err(format!("no seed was ever {}", State::NAMES[code]));
        }
        if 2 * self.judged < self.passes {
            return Err(format!("only {} of {} passes could be judged", self.judged, self.passes));
        }
        if let Some((what, _)) = self.notes.iter().find(|(_, count)| **count == 0) {
            return Err(format!("there were no {what}"));
        }
        for kind in kinds {
            if !self.faults.contains_key(kind) {
                return Err(format!("no fault of the kind {kind:?} was injected"));
            }
        }
        if self.restored == 0 || self.migrated == 0 || self.updates == 0 || self.skipped == 0 {
            return Err("nothing was restored, migrated, updated or skipped".to_owned());
        }
        Ok(())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lives, passes, judged, kinks, unguarded, .. } = self;
        writeln!(
            f,
            "{lives} layers, {passes} passes: {judged} agree with the oracle (worst {:.3} of the bound), {kinks} too close to a \
             kink, {unguarded} with values that only the exact rules hold for",
            self.worst_pass
        )?;
        writeln!(
            f,
            "{} updates agree with the oracle's (worst {:.3} of the bound), {} refused for damaged gradients",
            self.updates, self.worst_update, self.skipped
        )?;
        writeln!(
            f,
            "{} commands, {} refused as the table says, {} transitions",
            self.commands, self.refused, self.transitions
        )?;
        writeln!(
            f,
            "{} checkpoints saved, each loaded at once and again at the end; {} restored, {} migrated",
            self.saved, self.restored, self.migrated
        )?;
        for (what, count) in &self.notes {
            writeln!(f, "{what}: {count}")?;
        }
        for (kind, count) in &self.faults {
            writeln!(f, "fault: {kind}, {count} times")?;
        }
        for (name, epochs) in State::NAMES.iter().zip(&self.seen) {
            write!(f, "{name} {epochs}  ")?;
        }
        write!(f, "seed-epochs\ndigest {:08x}", self.checksum())
    }
}
