//! Restoring a lifecycle from a checkpoint: the only way out of ROLLED_BACK.

use std::sync::Arc;

use super::{Cause, Lifecycle, Transition};
use crate::{BlueprintId, Command, Error, Result, State};

/// What a restore changed.
#[derive(Debug, Default)]
#[must_use = "commands that waited are reported here and nowhere else"]
pub struct RestoreOutcome {
    /// One entry for every seed whose state changed, by seed.
    pub transitions: Vec<Transition>,
    /// Commands that waited and are gone with the state they were meant for.
    pub withdrawn: Vec<(usize, Command)>,
}

impl Lifecycle {
    /// Puts everything back to what `saved` holds: rows, parameters, optimizer state, random stream,
    /// epoch, step, and commands that waited when it was saved. The history goes on: entries of this
    /// layer are kept and the restore is added to them; a layer without any takes those of `saved`.
    ///
    /// # Errors
    /// [`Error::Shape`] if `saved` has another layout; nothing has changed then.
    pub fn restore(&mut self, saved: Self, why: impl Into<String>) -> Result<RestoreOutcome> {
        let shape = |lifecycle: &Self| (lifecycle.layout.hidden(), lifecycle.layout.chunk());
        if saved.layout != self.layout {
            return Err(Error::Shape {
                what: "the checkpoint's [hidden, chunk]",
                found: shape(&saved),
                needed: shape(self),
            });
        }
        let why: Arc<str> = why.into().into();
        let mut outcome = RestoreOutcome::default();
        let old = std::mem::replace(self, saved);
        let limit = self.config.history_limit;
        if !old.history.is_empty() {
            let dropped = old.history.dropped();
            self.history.replace(old.history.iter().cloned(), limit, dropped);
        }
        outcome.withdrawn = old
            .waiting
            .into_iter()
            .map(|(seed, waiting)| (seed as usize, waiting.command))
            .collect();
        for seed in old.dirty {
            self.mark_dirty(seed as usize);
        }
        for seed in 0..self.layout.seeds() {
            let (before, after) = (old.table.row(seed), self.table.row(seed));
            if before.state != State::Dormant || after.state != State::Dormant {
                self.mark_dirty(seed);
            }
            if before.state == after.state {
                continue;
            }
            let code = if after.blueprint == BlueprintId::NONE {
                before.blueprint
            } else {
                after.blueprint
            };
            let transition = Transition {
                epoch: old.epoch,
                step: old.step,
                seed: seed as u32,
                from: before.state,
                to: after.state,
                cause: Cause::Restore,
                blueprint: (code != BlueprintId::NONE).then_some(BlueprintId(code)),
                why: Arc::clone(&why),
            };
            tracing::info!(
                target: "kasmina::lifecycle", seed, from = %before.state, to = %after.state,
                cause = Cause::Restore.name(), why = &*why, "seed changed its state"
            );
            self.history.push(transition.clone());
            outcome.transitions.push(transition);
        }
        Ok(outcome)
    }
}
