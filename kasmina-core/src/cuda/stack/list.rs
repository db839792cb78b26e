//! What launches are told of their layers, on the device: a list for each launch of a pass, kept from call to call.

use bytemuck::Pod;
use kasmina_sys::{DeviceBuffer, DeviceCopy, Stream};

use crate::cuda::error::CudaError;
use crate::cuda::uploads::Uploads;

#[derive(Debug)]
struct List<R: DeviceCopy> {
    host: Vec<R>,
    device: DeviceBuffer<R>,
}

/// The lists of one pass, by the order of its launches.
#[derive(Debug)]
pub(super) struct Lists<R: DeviceCopy> {
    kept: Vec<List<R>>,
}

impl<R: DeviceCopy> Default for Lists<R> {
    fn default() -> Self {
        Self { kept: Vec::new() }
    }
}

impl<R: DeviceCopy + Pod> Lists<R> {
    /// Address of the list of the `index`-th launch, of which those before it were asked for; it goes up where it has changed.
    pub(super) fn address(
        &mut self,
        index: usize,
        stream: &Stream,
        uploads: &Uploads,
        host: Vec<R>,
    ) -> Result<u64, CudaError> {
        let bytes = bytemuck::cast_slice::<R, u8>;
        if let Some(known) = self.kept.get(index).filter(|known| bytes(&known.host) == bytes(&host))
        {
            return Ok(known.device.address());
        }
        if self.kept.get(index).is_none_or(|known| known.device.len() != host.len()) {
            let device = DeviceBuffer::unwritten(stream, host.len())?;
            let list = List { host: Vec::new(), device };
            match self.kept.get_mut(index) {
                Some(known) => *known = list,
                None => self.kept.push(list),
            }
        }
        let at = index.min(self.kept.len() - 1);
        let known = &mut self.kept[at];
        // Cleared first, so that a failed upload is not taken for a done one.
        known.host.clear();
        uploads.write(stream, &mut known.device.as_mut_slice(), &host)?;
        known.host = host;
        Ok(known.device.address())
    }
}
