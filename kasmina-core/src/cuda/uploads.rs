//! Small uploads that never make the host wait: page-locked slots, each reused once its copy is done.

use kasmina_sys::{
    Context, DeviceBuffer, DeviceCopy, DeviceSliceMut, PinnedBuffer, PinnedKind, Stream,
};
use parking_lot::Mutex;

use super::error::CudaError;

/// Bytes of the slots that are there from the start, and the least size of a slot.
const SLOT_BYTES: usize = 64 << 10;
/// Slots from the start. A training step of a layer takes up to six; a page-locked allocation in the middle of one may hold
/// up the device.
const SLOTS: usize = 16;

/// Slots of page-locked memory.
#[derive(Debug)]
pub(super) struct Uploads {
    context: Context,
    slots: Mutex<Vec<PinnedBuffer<u8>>>,
}

impl Uploads {
    pub(super) fn new(context: &Context) -> Result<Self, CudaError> {
        let slot = || PinnedBuffer::zeroed(context, SLOT_BYTES, PinnedKind::WriteCombined);
        let slots = (0..SLOTS).map(|_| slot()).collect::<Result<_, _>>()?;
        Ok(Self { context: context.clone(), slots: Mutex::new(slots) })
    }

    /// Queues a copy of `values` to `to` on `stream`, after everything queued on its home so far, and makes the home wait for
    /// it. Where every slot is in flight there is a new one.
    pub(super) fn write<T: DeviceCopy>(
        &self,
        stream: &Stream,
        to: &mut DeviceSliceMut<'_, T>,
        values: &[T],
    ) -> Result<(), CudaError> {
        const WHAT: &str = "an upload";
        if values.len() != to.len() {
            let (from, to) = (values.len(), to.len());
            return Err(kasmina_sys::Error::Length { what: WHAT, from, to }.into());
        }
        let bytes: &[u8] = bytemuck::cast_slice(values);
        if bytes.is_empty() {
            return Ok(());
        }
        if stream.is_capturing()? {
            return Err(kasmina_sys::Error::Capturing { what: WHAT }.into());
        }
        let mut slots = self.slots.lock();
        let slot = self.free_slot(&mut slots, bytes.len())?;
        slot.as_mut_slice()?[..bytes.len()].copy_from_slice(bytes);
        stream.join(to.home())?;
        // SAFETY: the slot has at least so many bytes and is not written before the end of this copy, which is noted below; the
        // elements are held exclusively, and the join makes them be there.
        unsafe { stream.copy_raw_to_device(to.address(), slot.address().cast(), bytes.len()) }?;
        let noted = slot.in_use_by(stream).and_then(|()| to.home().join(stream));
        if noted.is_err() {
            // Nobody would know when the slot is free: the host waits in the note's place.
            stream.synchronize()?;
        }
        Ok(noted?)
    }

    /// A new buffer with `values`, there for whatever comes later on `home`.
    pub(super) fn buffer<T: DeviceCopy>(
        &self,
        home: &Stream,
        values: &[T],
    ) -> Result<DeviceBuffer<T>, CudaError> {
        let mut buffer = DeviceBuffer::unwritten(home, values.len())?;
        self.write(home, &mut buffer.as_mut_slice(), values)?;
        Ok(buffer)
    }

    fn free_slot<'a>(
        &self,
        slots: &'a mut Vec<PinnedBuffer<u8>>,
        bytes: usize,
    ) -> Result<&'a mut PinnedBuffer<u8>, CudaError> {
        let mut found = None;
        for (i, slot) in slots.iter().enumerate() {
            if slot.len() >= bytes && slot.is_ready()? {
                found = Some(i);
                break;
            }
        }
        let at = match found {
            Some(at) => at,
            None => {
                let size = bytes.next_power_of_two().max(SLOT_BYTES);
                slots.push(PinnedBuffer::zeroed(&self.context, size, PinnedKind::WriteCombined)?);
                slots.len() - 1
            }
        };
        Ok(&mut slots[at])
    }
}
