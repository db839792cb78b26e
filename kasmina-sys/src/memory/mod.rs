//! Memory of the device and page-locked memory of the host, with owners, and copies between them.
//!
//! A [`DeviceBuffer`] belongs to the stream that it was allocated on, its *home*: it is there for whatever comes later on that
//! stream, and is freed after whatever came before. Work on any other stream has to be joined with the home on both sides.
//! The copies of this module do that by themselves, so no sequence of safe calls reads memory that is not yet, or no longer,
//! there, or that something else is writing; kernels and graphs are launched by unsafe calls whose contract asks for the same.
//!
//! ```no_run
//! use kasmina_sys::{Context, DeviceBuffer, Driver, PinnedBuffer, PinnedKind, Stream};
//!
//! let context = Context::primary(Driver::load()?.device(0)?)?;
//! let stream = Stream::new(&context)?;
//! let words = DeviceBuffer::from_host(&stream, &[1u32, 2, 3, 4])?;
//!
//! // At once, but the host waits:
//! assert_eq!(words.slice(1..3)?.to_vec()?, [2, 3]);
//!
//! // While the host does something else; reading waits for the copy.
//! let mut landing = PinnedBuffer::<u32>::zeroed(&context, 4, PinnedKind::Cached)?;
//! words.copy_to_pinned(&mut landing, &stream)?;
//! assert_eq!(landing.as_slice()?, [1, 2, 3, 4]);
//! # Ok::<(), kasmina_sys::Error>(())
//! ```

mod buffer;
mod copy;
mod pinned;
mod pointer;
mod pool;
mod slice;
mod watch;

use crate::error::Error;

pub use buffer::DeviceBuffer;
pub use pinned::{PinnedBuffer, PinnedKind};
pub use pointer::DevicePointer;
pub use pool::{Allocator, MemoryPool, NoPool, PoolUsage};
pub(crate) use pool::{Pools, free_on};
pub use slice::{DeviceSlice, DeviceSliceMut};
pub use watch::{AllocationId, AllocationWatch};

/// Types that may cross between host and device byte by byte: every bit pattern is a value, and there is no padding.
///
/// Implemented for everything that is [`bytemuck::Pod`], which a `#[repr(C)]` struct can derive.
pub trait DeviceCopy: bytemuck::Pod + Send + Sync {}

impl<T: bytemuck::Pod + Send + Sync> DeviceCopy for T {}

/// The bytes of `len` elements, checked against the address space as Rust sees it.
fn bytes_of<T>(len: usize) -> Result<usize, Error> {
    let limit = isize::MAX as usize;
    len.checked_mul(size_of::<T>()).filter(|&bytes| bytes <= limit).ok_or(Error::TooLarge {
        elements: len,
        element_bytes: size_of::<T>(),
        limit,
    })
}

fn same_length(what: &'static str, from: usize, to: usize) -> Result<(), Error> {
    if from == to {
        return Ok(());
    }
    Err(Error::Length { what, from, to })
}
