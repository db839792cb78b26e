//! Parts of device memory, borrowed: of a buffer, or of memory that someone else owns.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use crate::error::Error;
use crate::memory::watch::Life;
use crate::memory::{AllocationWatch, DeviceCopy, DevicePointer, bytes_of};
use crate::raw::CUdeviceptr;
use crate::stream::Stream;

/// Elements on the device that are not written while this lives, by safe code.
pub struct DeviceSlice<'a, T: DeviceCopy> {
    address: CUdeviceptr,
    len: usize,
    home: &'a Stream,
    life: Option<&'a Arc<Life>>,
    elements: PhantomData<&'a [T]>,
}

impl<'a, T: DeviceCopy> DeviceSlice<'a, T> {
    /// Memory that someone else owns: PyTorch, another crate, the CUDA runtime.
    ///
    /// # Safety
    /// For as long as `'a`, and until what was queued with the slice is done, `len` elements lie at `address` in memory that
    /// the context of `home` can reach. What comes later on `home` sees them as they are meant to be read, and nothing writes
    /// them unless ordered after `home`.
    ///
    /// # Errors
    /// [`Error::TooLarge`]: so many elements do not fit the address space.
    pub unsafe fn from_raw(
        home: &'a Stream,
        address: CUdeviceptr,
        len: usize,
    ) -> Result<Self, Error> {
        fits::<T>(address, len)?;
        Ok(Self::of(home, address, len, None))
    }

    pub(super) fn of(
        home: &'a Stream,
        address: CUdeviceptr,
        len: usize,
        life: Option<&'a Arc<Life>>,
    ) -> Self {
        Self { address, len, home, life, elements: PhantomData }
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes.
    pub fn bytes(&self) -> usize {
        // Checked where the slice was made.
        self.len * size_of::<T>()
    }

    /// The address on the device.
    pub fn address(&self) -> CUdeviceptr {
        self.address
    }

    /// The address as a kernel takes it.
    pub fn pointer(&self) -> DevicePointer<T> {
        DevicePointer::new(self.address)
    }

    /// The stream that the memory belongs to.
    pub fn home(&self) -> &'a Stream {
        self.home
    }

    /// Tells when the buffer is gone that this is a part of; `None` for memory of someone else's.
    pub fn watch(&self) -> Option<AllocationWatch> {
        self.life.map(|life| AllocationWatch(Arc::clone(life)))
    }

    /// The elements of `range`.
    ///
    /// # Errors
    /// [`Error::Range`]: they do not lie within this slice.
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Result<Self, Error> {
        let (start, len) = resolve(&range, self.len)?;
        // Within the slice, whose end was checked to have an address.
        let address = self.address + (start * size_of::<T>()) as u64;
        Ok(Self::of(self.home, address, len, self.life))
    }

    /// The elements before `at`, and the others.
    ///
    /// # Errors
    /// [`Error::Range`]: `at` is past the end.
    pub fn split_at(&self, at: usize) -> Result<(Self, Self), Error> {
        Ok((self.slice(..at)?, self.slice(at..)?))
    }
}

impl<T: DeviceCopy> Clone for DeviceSlice<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: DeviceCopy> Copy for DeviceSlice<'_, T> {}

impl<T: DeviceCopy> fmt::Debug for DeviceSlice<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceSlice")
            .field("address", &format_args!("{:#x}", self.address))
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// Elements on the device that nothing else in safe code reads or writes while this lives.
pub struct DeviceSliceMut<'a, T: DeviceCopy> {
    /// What it covers. Never handed out for longer than this value is borrowed.
    all: DeviceSlice<'a, T>,
    elements: PhantomData<&'a mut [T]>,
}

impl<'a, T: DeviceCopy> DeviceSliceMut<'a, T> {
    /// Memory that someone else owns: PyTorch, another crate, the CUDA runtime.
    ///
    /// # Safety
    /// As for [`DeviceSlice::from_raw`], and nothing else reads or writes the elements unless ordered after `home`.
    ///
    /// # Errors
    /// [`Error::TooLarge`]: so many elements do not fit the address space.
    pub unsafe fn from_raw(
        home: &'a Stream,
        address: CUdeviceptr,
        len: usize,
    ) -> Result<Self, Error> {
        fits::<T>(address, len)?;
        Ok(Self::of(DeviceSlice::of(home, address, len, None)))
    }

    /// The caller holds the elements exclusively for `'a`.
    pub(super) fn of(all: DeviceSlice<'a, T>) -> Self {
        Self { all, elements: PhantomData }
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.all.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.len == 0
    }

    /// Bytes.
    pub fn bytes(&self) -> usize {
        self.all.bytes()
    }

    /// The address on the device.
    pub fn address(&self) -> CUdeviceptr {
        self.all.address
    }

    /// The address as a kernel takes it.
    pub fn pointer(&self) -> DevicePointer<T> {
        self.all.pointer()
    }

    /// The stream that the memory belongs to.
    pub fn home(&self) -> &'a Stream {
        self.all.home
    }

    /// Tells when the buffer is gone that this is a part of; `None` for memory of someone else's.
    pub fn watch(&self) -> Option<AllocationWatch> {
        self.all.watch()
    }

    /// The same elements, to be read.
    pub fn as_slice(&self) -> DeviceSlice<'_, T> {
        self.all
    }

    /// The same elements, to be read from now on.
    pub fn into_slice(self) -> DeviceSlice<'a, T> {
        self.all
    }

    /// The same elements for a shorter time.
    pub fn reborrow(&mut self) -> DeviceSliceMut<'_, T> {
        DeviceSliceMut::of(self.all)
    }

    /// The elements of `range`, to be read.
    ///
    /// # Errors
    /// [`Error::Range`]: they do not lie within this slice.
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Result<DeviceSlice<'_, T>, Error> {
        self.all.slice(range)
    }

    /// The elements of `range`.
    ///
    /// # Errors
    /// [`Error::Range`]: they do not lie within this slice.
    pub fn slice_mut(
        &mut self,
        range: impl RangeBounds<usize>,
    ) -> Result<DeviceSliceMut<'_, T>, Error> {
        self.all.slice(range).map(DeviceSliceMut::of)
    }

    /// The elements before `at`, and the others.
    ///
    /// # Errors
    /// [`Error::Range`]: `at` is past the end.
    pub fn split_at_mut(self, at: usize) -> Result<(Self, Self), Error> {
        let (before, after) = self.all.split_at(at)?;
        Ok((Self::of(before), Self::of(after)))
    }
}

impl<T: DeviceCopy> fmt::Debug for DeviceSliceMut<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceSliceMut")
            .field("address", &format_args!("{:#x}", self.all.address))
            .field("len", &self.all.len)
            .finish_non_exhaustive()
    }
}

/// That `len` elements from `address` on end within the address space.
fn fits<T>(address: CUdeviceptr, len: usize) -> Result<(), Error> {
    bytes_of::<T>(len)?;
    DevicePointer::<T>::new(address).offset(len).map(drop)
}

/// Start and length of `range` among `len` elements.
fn resolve(range: &impl RangeBounds<usize>, len: usize) -> Result<(usize, usize), Error> {
    // Saturation cannot make a bad range good: `usize::MAX` is never within the elements, whose bytes are counted in `isize`
    // or, for elements of no size, whose offsets are all zero.
    let start = match range.start_bound() {
        Bound::Included(&at) => at,
        Bound::Excluded(&at) => at.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&at) => at.saturating_add(1),
        Bound::Excluded(&at) => at,
        Bound::Unbounded => len,
    };
    if start <= end && end <= len {
        return Ok((start, end - start));
    }
    Err(Error::Range { start, end, len })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bound() -> impl Strategy<Value = Bound<usize>> {
        let at = prop_oneof![0..20usize, usize::MAX - 1..=usize::MAX];
        prop_oneof![
            at.clone().prop_map(Bound::Included),
            at.prop_map(Bound::Excluded),
            Just(Bound::Unbounded)
        ]
    }

    proptest! {
        #[test]
        fn ranges_are_what_they_are_for_slices(start in bound(), end in bound(), len in 0..16usize) {
            let host: Vec<usize> = (0..len).collect();
            // Slices panic where the bounds overflow; there is no such element, so that is no range either.
            let overflows = start == Bound::Excluded(usize::MAX) || end == Bound::Included(usize::MAX);
            let expected = if overflows { None } else { host.get((start, end)) };
            let found = resolve(&(start, end), len);
            match (found, expected) {
                (Ok((start, len)), Some(part)) => prop_assert_eq!(&host[start..start + len], part),
                (Err(Error::Range { .. }), None) => {}
                (found, expected) => prop_assert!(false, "{:?} for {:?}", found, expected),
            }
        }
    }
}
