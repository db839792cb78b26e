//! What the machine tells the race detector, and where an access may go.

use super::FaultKind;
use super::grid::{Grid, Id};
use super::races::{Atomic, Manner, Race, Races, Side};

/// Bits of an access's kind, as images report it.
const WRITE: u32 = 1;
const VOLATILE: u32 = 2;
const UNALIGNED: u32 = 4;

pub(super) const READ: Manner = Manner { writes: false, atomic: false };
pub(super) const WRITTEN: Manner = Manner { writes: true, atomic: false };
pub(super) const CHANGED: Manner = Manner { writes: true, atomic: true };

/// Where an access goes.
enum Target {
    /// Memory that others may access, too.
    Common,
    /// Memory that nobody writes.
    Constant,
    Nowhere,
}

impl Grid<'_> {
    /// An access of a kernel's code. `from` is the address behind the instruction.
    pub(super) fn access(&mut self, id: Id, address: u64, bytes: u64, kind: u32, from: u64) {
        if self.completing {
            return;
        }
        let writes = kind & WRITE != 0;
        let access = if writes { "a write" } else { "a read" };
        match self.target(id, address, bytes, writes) {
            Target::Constant => {}
            Target::Nowhere => self.illegal_at(id, access, address, bytes, from),
            Target::Common => {
                if kind & UNALIGNED == 0
                    && bytes.is_power_of_two()
                    && !address.is_multiple_of(bytes)
                {
                    let kind = FaultKind::MisalignedAddress { access, address, alignment: bytes };
                    return self.fail(Some(id), kind);
                }
                let manner = Manner { writes, atomic: kind & VOLATILE != 0 };
                self.watch(id, |races| races.access(id, address, bytes, manner, from));
            }
        }
    }

    /// An atomic access of a kernel's code.
    pub(super) fn atomic(
        &mut self,
        id: Id,
        address: u64,
        bytes: u64,
        kind: Atomic,
        order: u32,
        from: u64,
    ) {
        match self.target(id, address, bytes, kind != Atomic::Load) {
            Target::Constant => {}
            Target::Nowhere => self.illegal_at(id, "an atomic access", address, bytes, from),
            Target::Common => {
                self.watch(id, |races| races.atomic(id, address, bytes, kind, order, from))
            }
        }
    }

    /// An access of the machine's own for a thread.
    pub(super) fn note(&mut self, id: Id, address: u64, bytes: u64, manner: Manner) {
        self.watch(id, |races| races.access(id, address, bytes, manner, 0));
    }

    /// Asks the detector, where there is one, and fails with what it finds.
    pub(super) fn watch(&mut self, id: Id, ask: impl FnOnce(&mut Races) -> Option<Race>) {
        let Some(races) = &mut self.races else { return };
        if let Some(race) = ask(races) {
            let words = self.describe(id, &race);
            self.fail(Some(id), FaultKind::Race(words));
        }
    }

    /// Tells the detector, where there is one.
    pub(super) fn tell(&mut self, what: impl FnOnce(&mut Races)) {
        if let Some(races) = &mut self.races {
            what(races);
        }
    }

    fn target(&mut self, id: Id, address: u64, bytes: u64, writes: bool) -> Target {
        let shared = &self.blocks.of(id).shared;
        if let Some(at) = shared.address_of(address as *const u8) {
            let inside = shared.at(at, bytes as usize).is_some();
            return if inside { Target::Common } else { Target::Nowhere };
        }
        if self.is_parameter(address, bytes) {
            return if writes { Target::Nowhere } else { Target::Constant };
        }
        if self.is_allocated(address, bytes) || self.kernel.code.contains(address, bytes) {
            return Target::Common;
        }
        Target::Nowhere
    }

    fn illegal_at(&mut self, id: Id, access: &'static str, address: u64, bytes: u64, from: u64) {
        let place = self
            .kernel
            .code
            .place(from.wrapping_sub(1))
            .map_or_else(String::new, |place| format!(", at {place}"));
        self.fail(Some(id), FaultKind::IllegalAddress { access, address, bytes, place });
    }

    fn describe(&self, id: Id, race: &Race) -> String {
        let place = self
            .blocks
            .get(id.block)
            .and_then(|block| block.shared.address_of(race.address as *const u8))
            .map_or_else(|| format!("{:#x}", race.address), |at| format!("shared {at:#x}"));
        let side = |side: &Side| {
            let at = match side.from {
                0 => String::new(),
                from => self
                    .kernel
                    .code
                    .place(from - 1)
                    .map_or_else(String::new, |place| format!(" at {place}")),
            };
            format!("{} by {}{at}", side.what, side.by)
        };
        format!("at {place}: {}, and before it, unordered, {}", side(&race.new), side(&race.old))
    }
}
