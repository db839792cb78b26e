//! Warps: operations that lanes do together.

use std::ffi::c_void;
use std::ptr;

use super::abi::Complete;

/// Lanes of a warp.
pub(super) const LANES: u32 = 32;

/// Lanes that have come to an operation, and wait for the others of its mask.
#[derive(Clone, Debug)]
pub(super) struct Meeting {
    pub(super) mask: u32,
    pub(super) arrived: u32,
    pub(super) operands: [*mut c_void; 32],
    pub(super) complete: Option<Complete>,
}

/// A warp of a block.
#[derive(Debug)]
pub(super) struct Warp {
    /// Lanes that have not exited.
    present: u32,
    meetings: Vec<Meeting>,
}

impl Warp {
    pub(super) fn new(present: u32) -> Self {
        Self { present, meetings: Vec::new() }
    }

    /// A lane comes to an operation. Answers the meeting where it is complete.
    pub(super) fn arrive(
        &mut self,
        lane: u32,
        mask: u32,
        operand: *mut c_void,
        complete: Option<Complete>,
    ) -> Result<Option<Meeting>, String> {
        if mask >> lane & 1 == 0 {
            return Err(format!(
                "lane {lane} at an operation of the lanes {mask:#010x}, which it is none of"
            ));
        }
        let own = 1 << lane;
        let index = match self.meetings.iter().position(|meeting| meeting.mask == mask) {
            Some(index) => index,
            None => {
                let operands = [ptr::null_mut(); 32];
                self.meetings.push(Meeting { mask, arrived: 0, operands, complete });
                self.meetings.len() - 1
            }
        };
        let meeting = &mut self.meetings[index];
        if !same(meeting.complete, complete) {
            return Err(format!(
                "lanes of the mask {mask:#010x} are at different operations of their warp"
            ));
        }
        meeting.arrived |= own;
        meeting.operands[lane as usize] = operand;
        Ok(self.completed(index))
    }

    /// A lane is gone: a meeting that waited for it alone is complete.
    pub(super) fn exit(&mut self, lane: u32) -> Option<Meeting> {
        self.present &= !(1 << lane);
        (0..self.meetings.len()).find_map(|index| self.completed(index))
    }

    fn completed(&mut self, index: usize) -> Option<Meeting> {
        let meeting = &self.meetings[index];
        (meeting.mask & self.present & !meeting.arrived == 0)
            .then(|| self.meetings.swap_remove(index))
    }
}

fn same(a: Option<Complete>, b: Option<Complete>) -> bool {
    a.map(|a| a as usize) == b.map(|b| b as usize)
}
