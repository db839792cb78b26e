//! The graft strategies in use, each once, so that a seed's row holds a two-byte code.

use super::table::NO_STRATEGY;
use crate::graft::Strategy;
use crate::{Error, Result};

/// Strategies with the number of seeds that use each; a slot nobody uses is free for the next.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Strategies {
    slots: Vec<Option<(Strategy, u32)>>,
}

impl Strategies {
    /// Slots as they were saved, their counts still to be made by [`Strategies::count`].
    pub(crate) fn from_slots(slots: Vec<Option<Strategy>>) -> Self {
        Self { slots: slots.into_iter().map(|slot| slot.map(|strategy| (strategy, 0))).collect() }
    }

    /// The code of `strategy`, counted once more.
    pub(crate) fn acquire(&mut self, strategy: &Strategy) -> Result<u16> {
        let mut free = None;
        for (code, slot) in self.slots.iter_mut().enumerate() {
            match slot {
                Some((known, users)) if known == strategy => {
                    *users += 1;
                    return Ok(code as u16);
                }
                Some(_) => {}
                None => free = free.or(Some(code)),
            }
        }
        let limit = usize::from(NO_STRATEGY);
        let code = free.unwrap_or(self.slots.len());
        if code >= limit {
            return Err(Error::TooLarge {
                what: "distinct graft strategies in use",
                value: code as u64 + 1,
                limit: limit as u64,
            });
        }
        if code == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[code] = Some((strategy.clone(), 1));
        Ok(code as u16)
    }

    /// One seed less uses `code`.
    pub(crate) fn release(&mut self, code: u16) {
        if let Some(slot) = self.slots.get_mut(usize::from(code))
            && let Some((_, users)) = slot
        {
            *users -= 1;
            if *users == 0 {
                *slot = None;
            }
        }
    }

    /// Counts a seed that was loaded with `code`; `false` if no strategy has it.
    pub(crate) fn count(&mut self, code: u16) -> bool {
        match self.slots.get_mut(usize::from(code)) {
            Some(Some((_, users))) => {
                *users += 1;
                true
            }
            _ => false,
        }
    }

    pub(crate) fn get(&self, code: u16) -> Option<&Strategy> {
        self.slots.get(usize::from(code))?.as_ref().map(|(strategy, _)| strategy)
    }

    pub(crate) fn slots(&self) -> impl Iterator<Item = Option<&Strategy>> {
        self.slots.iter().map(|slot| slot.as_ref().map(|(strategy, _)| strategy))
    }

    /// Slots whose strategy no seed uses: a file that was written by this crate has none.
    pub(crate) fn unused(&self) -> Option<usize> {
        self.slots.iter().position(|slot| matches!(slot, Some((_, 0))))
    }
}
