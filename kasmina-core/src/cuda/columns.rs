//! What every streaming pass of a layer reads of it on the device: column programs and flags, bounds, who is watched.

use std::sync::Arc;

use kasmina_sys::{DeviceBuffer, Stream};

use super::engine::Engine;
use super::error::CudaError;
use super::executor::Residents;
use super::params::RawBounds;
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
}

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
        })
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
