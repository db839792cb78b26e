//! What every streaming pass of a layer reads of it on the device: column programs and flags, bounds, who is watched.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kasmina_sys::{DeviceBuffer, Kernel, KernelArguments, LaunchConfig, Stream};

use super::engine::Engine;
use super::error::CudaError;
use super::params::RawBounds;
use super::residents::Residents;
use super::tape::{Piece, Tape};
use super::uploads::Uploads;
use crate::SeedLayout;

/// Device memory of one layer that its passes share. All of it belongs to one stream.
#[derive(Debug)]
pub(super) struct Columns {
    /// Steps of executors that use what is below: first, so that they are waited for before it goes.
    pub(super) residents: Residents,
    pub(super) engine: Arc<Engine>,
    pub(super) stream: Stream,
    pub(super) layout: SeedLayout,
    /// {on, off, bias, polarity}, one a column.
    pub(super) programs: DeviceBuffer<[f32; 4]>,
    /// Bits of `params`, one byte a column.
    pub(super) flags: DeviceBuffer<u8>,
    /// The host's copy, from which tiles' flags and the choice of kernels are made.
    pub(super) host_flags: Vec<u8>,
    /// Grows whenever the flags change; what was made from them is of one generation.
    pub(super) generation: u64,
    pub(super) bounds: DeviceBuffer<RawBounds>,
    /// Outputs so far that did not fit their type.
    pub(super) saturated: DeviceBuffer<u64>,
    /// For what goes up while passes are queued.
    pub(super) uploads: Uploads,
    /// One byte a seed: whether it is measured; `None` while all are.
    pub(super) watched: Option<DeviceBuffer<u8>>,
    /// Where the passes' launches go.
    pub(super) tape: Tape,
    /// Tells layers apart, for as long as the process lives.
    pub(super) id: u64,
    /// Grows whenever launches that were written down before may not be right any more: memory that they name was made anew, or a
    /// list that they read, or what they are chosen by.
    revision: AtomicU64,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

impl Columns {
    /// All columns copied, nothing guarded, all seeds watched.
    pub(super) fn new(
        engine: &Arc<Engine>,
        stream: &Stream,
        layout: SeedLayout,
    ) -> Result<Self, CudaError> {
        let columns = layout.hidden();
        Ok(Self {
            residents: Residents::default(),
            engine: Arc::clone(engine),
            stream: stream.clone(),
            layout,
            programs: DeviceBuffer::zeroed(stream, columns)?,
            flags: DeviceBuffer::zeroed(stream, columns)?,
            host_flags: vec![0; columns],
            generation: 0,
            bounds: DeviceBuffer::zeroed(stream, 1)?,
            saturated: DeviceBuffer::zeroed(stream, 1)?,
            uploads: Uploads::new(stream.context())?,
            watched: None,
            tape: Tape::default(),
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            revision: AtomicU64::new(0),
        })
    }

    /// Notes that launches that were written down before may not be right any more.
    pub(super) fn changed(&self) {
        self.revision.fetch_add(1, Ordering::Relaxed);
    }

    /// Grows with each such note.
    pub(super) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Relaxed)
    }

    /// Queues a kernel of a pass, or writes it down.
    ///
    /// # Safety
    /// As for [`Kernel::launch`]; of what is written down, whoever launches it vouches for that.
    pub(super) unsafe fn launch<A: KernelArguments>(
        &self,
        piece: Piece,
        kernel: &Kernel<A>,
        config: &LaunchConfig,
        arguments: A,
    ) -> Result<(), CudaError> {
        // SAFETY: by the caller's word.
        unsafe { self.tape.launch(&self.stream, piece, kernel, config, arguments) }
    }

    /// Whether any column has a flag among `bits`.
    pub(super) fn any(&self, bits: u8) -> bool {
        self.host_flags.iter().any(|flags| flags & bits != 0)
    }

    /// The flags that any column has.
    pub(super) fn all_flags(&self) -> u8 {
        self.host_flags.iter().fold(0, |all, flags| all | flags)
    }

    /// Address of the watched bytes, 0 while all seeds are.
    pub(super) fn watched_address(&self) -> u64 {
        self.watched.as_ref().map_or(0, DeviceBuffer::address)
    }
}
