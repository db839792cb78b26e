//! What the host and a resident grid tell each other, byte for byte as `kernels/resident_records.cuh` has it.

use bytemuck::{Pod, Zeroable};

use crate::cuda::geometry::Geometry;
use crate::cuda::params::{BackwardParams, FinalizeParams, ForwardParams};

/// Steps in flight at most: `kBoard`.
pub(super) const BOARD: usize = 64;
/// Waits that an item keeps itself: `kOwnWaits`.
const OWN_WAITS: usize = 2;
/// `kNoCounter`.
pub(super) const NO_COUNTER: u32 = u32::MAX;

pub(super) const KIND_FORWARD: u32 = 0;
pub(super) const KIND_BACKWARD: u32 = 1;
pub(super) const KIND_FINALIZE: u32 = 2;
pub(super) const KIND_COLLECT_CHUNKS: u32 = 3;
pub(super) const KIND_COLLECT_GRADIENTS: u32 = 4;

/// Bits of the mailbox's word below the number of its steps, `kStopBits`, and what they can say.
pub(super) const STOP_BITS: u32 = 2;
pub(super) const STOP_NO: u64 = 0;
pub(super) const STOP_DRAIN: u64 = 1;

pub(super) const FAULT_WORKER_WAITED: u8 = 1;
pub(super) const FAULT_KERNEL_WAITED: u8 = 2;

/// `Wait`: for an earlier item of the step that is cut in another way.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub(super) struct Wait {
    pub(super) counter: u32,
    pub(super) counters: u32,
    pub(super) arrivals: u32,
    pub(super) tile_columns: u32,
}

/// `CollectParams`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub(super) struct CollectParams {
    pub(super) accumulators: u64,
    pub(super) totals: u64,
    pub(super) geometry: Geometry,
}

/// `Item`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub(super) struct Item {
    pub(super) kind: u32,
    pub(super) element: u32,
    pub(super) counting: u32,
    pub(super) blocks: u32,
    pub(super) counter: u32,
    waits: u32,
    first_wait: u32,
    padding: u32,
    own: [Wait; OWN_WAITS],
    params: [u64; 24],
}

const _: () = assert!(size_of::<Item>() == 256 && size_of::<CollectParams>() == 80);
const _: () = assert!(size_of::<ForwardParams>() <= 192 && size_of::<BackwardParams>() <= 192);
const _: () = assert!(size_of::<FinalizeParams>() <= 192);

impl Item {
    /// An item for which nobody waits and that waits for nobody.
    pub(super) fn new<P: Pod>(kind: u32, blocks: u32, params: &P) -> Self {
        let mut item = Self { kind, blocks, counter: NO_COUNTER, ..Self::zeroed() };
        let bytes = bytemuck::bytes_of(params);
        bytemuck::bytes_of_mut(&mut item.params)[..bytes.len()].copy_from_slice(bytes);
        item
    }

    /// The parameters, which are a `P`.
    pub(super) fn params<P: Pod>(&self) -> P {
        bytemuck::pod_read_unaligned(&bytemuck::bytes_of(&self.params)[..size_of::<P>()])
    }

    /// Gives it its waits; those that it cannot keep itself go to the end of `all`.
    pub(super) fn set_waits(&mut self, waits: &[Wait], all: &mut Vec<Wait>) {
        self.waits = waits.len() as u32;
        if waits.len() <= OWN_WAITS {
            self.own[..waits.len()].copy_from_slice(waits);
        } else {
            self.first_wait = all.len() as u32;
            all.extend(waits);
        }
    }
}

/// `Step`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub(super) struct StepRecord {
    pub(super) items: u64,
    pub(super) waits: u64,
    pub(super) counters: u64,
    pub(super) count: u32,
    pub(super) blocks: u32,
    pub(super) offset: u32,
    pub(super) run: u32,
}

const _: () = assert!(size_of::<StepRecord>() == 40);

/// `Mail`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(super) struct Mail {
    pub(super) step: u64,
    pub(super) after: u64,
}

/// `Mailbox`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(super) struct Mailbox {
    pub(super) word: u64,
    unused: [u64; 7],
    pub(super) slots: [Mail; BOARD],
}

const _: () = assert!(size_of::<Mailbox>() == 64 + 16 * BOARD);

/// `Report`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(super) struct Report {
    pub(super) from_mailbox: u64,
    pub(super) ended: u64,
    pub(super) asked: u64,
    pub(super) fault: u64,
    pub(super) answered: u64,
    unused: [u64; 3],
}

/// Bytes of `Control`, which is the device's alone.
pub(super) const CONTROL_BYTES: usize = 80 + BOARD * (4 + 80 + 32);

/// `ResidentParams`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(super) struct ResidentParams {
    pub(super) mailbox: u64,
    pub(super) report: u64,
    pub(super) control: u64,
    pub(super) generation: u64,
    pub(super) idle_ns: u64,
    pub(super) watchdog_ns: u64,
    pub(super) workers: u32,
    padding: u32,
}

const _: () = assert!(size_of::<ResidentParams>() == 56);

impl ResidentParams {
    pub(super) fn new(
        [mailbox, report, control]: [u64; 3],
        workers: u32,
        [idle_ns, watchdog_ns]: [u64; 2],
    ) -> Self {
        let generation = 0;
        Self { mailbox, report, control, generation, idle_ns, watchdog_ns, workers, padding: 0 }
    }

    /// The same for the grid of this generation.
    pub(super) fn of(self, generation: u64) -> Self {
        Self { generation, ..self }
    }
}
