//! The tensor map itself: 128 opaque bytes that a kernel is given, and the form of it that memory cannot outlive.

use std::fmt;
use std::marker::PhantomData;

use bytemuck::{Pod, Zeroable};
use kasmina_sys::{Context, DeviceCopy, DeviceSlice, DeviceSliceMut, KernelArgument, raw};

use crate::encode::{self, EncodeError};
use crate::geometry::Geometry;
use crate::request::TensorMapRequest;
use crate::violation::{Field, Limit, Violation, require};

/// Quadwords of a tensor map.
const QUADWORDS: usize = 16;

/// A tensor map as the hardware reads it. Pass it to a kernel by value, as `const __grid_constant__ CUtensorMap`, or upload
/// it and let the kernel acquire it (`fence.proxy.tensormap`).
///
/// These are bytes: nothing in them keeps the memory alive that they point to. [`BoundTensorMap`] does.
#[repr(C, align(128))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct TensorMap([u64; QUADWORDS]);

const _: () = {
    // The driver writes through a pointer to its own type, and kernels declare that type.
    assert!(size_of::<TensorMap>() == 128 && size_of::<raw::CUtensorMap>() == 128);
    assert!(align_of::<TensorMap>() >= align_of::<raw::CUtensorMap>());
};

// SAFETY: plain bytes of the size and alignment of the kernel's `CUtensorMap` parameter.
unsafe impl KernelArgument for TensorMap {}

impl TensorMap {
    /// All zeros, which the hardware does not accept: room for a map.
    pub const ZERO: Self = Self([0; QUADWORDS]);

    /// Has the driver encode a request, after a check of the device's capability. The map is made on the host, in the time
    /// of a function call; `context` is made current for it.
    ///
    /// # Safety
    /// Whoever launches a kernel with the map, or with a copy of it, has to know that the memory which the request
    /// describes is there until the kernel is done. [`BoundTensorMap::encode`] is this with a borrow that sees to it.
    ///
    /// # Errors
    /// The device is too old for the request, the driver lacks the function, or it refuses what the rules allow.
    pub unsafe fn encode(
        context: &Context,
        request: &TensorMapRequest,
    ) -> Result<Self, EncodeError> {
        encode::encode(context, request)
    }

    /// A copy for the same geometry at another address, without encoding the rest again.
    ///
    /// `request` has to be for the geometry that this map was encoded from: a map cannot be asked for it. With another one the
    /// result is the old geometry at the new address.
    ///
    /// # Safety
    /// As for [`TensorMap::encode`]; and the old geometry has to fit the memory at the new address.
    ///
    /// # Errors
    /// The driver lacks the function or refuses the address.
    pub unsafe fn replace_address(
        &self,
        context: &Context,
        request: &TensorMapRequest,
    ) -> Result<Self, EncodeError> {
        encode::replace_address(context, *self, request)
    }

    /// The bytes. What they mean is the hardware's secret.
    pub fn as_bytes(&self) -> &[u8; 128] {
        bytemuck::cast_ref(&self.0)
    }

    /// For the driver to write through.
    pub(crate) fn as_raw(&mut self) -> *mut raw::CUtensorMap {
        std::ptr::from_mut(self).cast()
    }
}

impl fmt::Debug for TensorMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TensorMap(")?;
        for (i, quadword) in self.0.iter().enumerate() {
            write!(f, "{}{quadword:016x}", if i == 0 { "" } else { " " })?;
        }
        f.write_str(")")
    }
}

/// A tensor map that borrows the memory it points to: while it lives, that memory cannot be freed, and, made from a mutable
/// slice, not be used otherwise either. A kernel argument like [`TensorMap`].
///
/// The borrow ends on the host's clock and a kernel on the device's: the contract of a launch covers the rest of the way, and
/// memory that is freed on its own stream meanwhile is freed after the kernel.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BoundTensorMap<'a> {
    map: TensorMap,
    memory: PhantomData<&'a [u8]>,
}

// SAFETY: transparent over `TensorMap`.
unsafe impl KernelArgument for BoundTensorMap<'_> {}

impl<'a> BoundTensorMap<'a> {
    /// Has the driver encode a map of `memory`, whose first element is the tensor's. `T` need not be the geometry's type, as
    /// packed elements have none of their own; the bytes have to suffice.
    ///
    /// # Errors
    /// The memory is too small or not aligned, or see [`TensorMap::encode`].
    pub fn encode<T: DeviceCopy>(
        memory: DeviceSlice<'a, T>,
        geometry: &Geometry,
    ) -> Result<Self, EncodeError> {
        let request = request_in(memory, geometry)?;
        Ok(Self::bind(encode::encode(memory.home().context(), &request)?))
    }

    /// The same for memory that the kernel will write through the map.
    ///
    /// # Errors
    /// As for [`BoundTensorMap::encode`].
    pub fn encode_mut<T: DeviceCopy>(
        memory: &'a mut DeviceSliceMut<'_, T>,
        geometry: &Geometry,
    ) -> Result<Self, EncodeError> {
        Self::encode(memory.as_slice(), geometry)
    }

    /// The map without its borrow.
    ///
    /// # Safety
    /// As for [`TensorMap::encode`]: the memory has to be there until the last kernel that is given the map is done.
    pub unsafe fn unbound(self) -> TensorMap {
        self.map
    }

    /// The bytes. What they mean is the hardware's secret.
    pub fn as_bytes(&self) -> &[u8; 128] {
        self.map.as_bytes()
    }

    /// Ties a map to the memory that the caller made it from.
    pub(crate) fn bind(map: TensorMap) -> Self {
        Self { map, memory: PhantomData }
    }
}

impl fmt::Debug for BoundTensorMap<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bound{:?}", self.map)
    }
}

/// The request for the tensor that begins where `memory` does.
pub(crate) fn request_in<T: DeviceCopy>(
    memory: DeviceSlice<'_, T>,
    geometry: &Geometry,
) -> Result<TensorMapRequest, Violation> {
    check_fit(memory, geometry)?;
    geometry.at(memory.address())
}

/// The tensor must end inside of `memory`.
pub(crate) fn check_fit<T: DeviceCopy>(
    memory: DeviceSlice<'_, T>,
    geometry: &Geometry,
) -> Result<(), Violation> {
    let limit = Limit::AtMost(memory.bytes() as i128);
    require(Field::Footprint, geometry.footprint(), limit, "(the memory's)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_prints_as_hexadecimal_quadwords_and_starts_as_zeros() {
        let mut map = TensorMap::ZERO;
        map.0[0] = 0x1234_5678_9abc_def0;
        let text = format!("{map:?}");
        assert!(text.starts_with("TensorMap(123456789abcdef0 0000000000000000 "), "{text}");
        assert_eq!(text.len(), "TensorMap()".len() + QUADWORDS * 16 + QUADWORDS - 1);
        assert_eq!(<TensorMap as Zeroable>::zeroed(), TensorMap::ZERO);
        assert_ne!(map, TensorMap::ZERO);
        assert_eq!(align_of::<BoundTensorMap<'_>>(), 128);
    }
}
