//! Addresses on the device that know what they point at.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

use crate::error::Error;
use crate::memory::bytes_of;
use crate::raw::CUdeviceptr;

/// The address of elements of type `T` on the device, as a kernel takes it. Owns nothing and promises nothing: what it points
/// at may be gone.
///
/// It has the size and layout of the C pointer, and every bit pattern is a value, so it may also stand in structs that are
/// passed or copied to the device.
#[repr(transparent)]
pub struct DevicePointer<T> {
    address: CUdeviceptr,
    element: PhantomData<fn() -> T>,
}

impl<T> DevicePointer<T> {
    /// The null pointer.
    pub const fn null() -> Self {
        Self::new(0)
    }

    /// A pointer to any address. Making one is harmless; a kernel that follows it is launched by an unsafe call.
    pub const fn new(address: CUdeviceptr) -> Self {
        Self { address, element: PhantomData }
    }

    /// The address.
    pub const fn address(self) -> CUdeviceptr {
        self.address
    }

    /// Whether it is null.
    pub const fn is_null(self) -> bool {
        self.address == 0
    }

    /// The same address, pointing at something else.
    pub const fn cast<U>(self) -> DevicePointer<U> {
        DevicePointer::new(self.address)
    }

    /// The address `elements` further on.
    ///
    /// # Errors
    /// [`Error::TooLarge`]: that is past the end of the address space.
    pub fn offset(self, elements: usize) -> Result<Self, Error> {
        let past = || Error::TooLarge {
            elements,
            element_bytes: size_of::<T>(),
            limit: usize::try_from(u64::MAX - self.address).unwrap_or(usize::MAX),
        };
        let bytes = bytes_of::<T>(elements)?;
        self.address.checked_add(bytes as u64).map(Self::new).ok_or_else(past)
    }
}

impl<T> Clone for DevicePointer<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for DevicePointer<T> {}

impl<T> Default for DevicePointer<T> {
    fn default() -> Self {
        Self::null()
    }
}

impl<T> PartialEq for DevicePointer<T> {
    fn eq(&self, other: &Self) -> bool {
        self.address == other.address
    }
}

impl<T> Eq for DevicePointer<T> {}

impl<T> Hash for DevicePointer<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.address.hash(state);
    }
}

impl<T> fmt::Debug for DevicePointer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.address)
    }
}

// SAFETY: an integer in a transparent wrapper; zero is the null pointer.
unsafe impl<T> bytemuck::Zeroable for DevicePointer<T> {}
// SAFETY: an integer in a transparent wrapper: every bit pattern is a value, and there is no padding.
unsafe impl<T: 'static> bytemuck::Pod for DevicePointer<T> {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_has_the_layout_of_a_c_pointer() {
        assert_eq!(size_of::<DevicePointer<f32>>(), 8);
        assert_eq!(align_of::<DevicePointer<f32>>(), align_of::<CUdeviceptr>());
        assert!(DevicePointer::<f32>::null().is_null());
    }

    proptest! {
        #[test]
        fn an_offset_is_right_or_an_error(address in any::<u64>(), elements in any::<usize>()) {
            let found = DevicePointer::<u32>::new(address).offset(elements);
            let exact = u128::from(address) + 4 * elements as u128;
            match found {
                Ok(pointer) => prop_assert_eq!(u128::from(pointer.address()), exact),
                Err(_) => prop_assert!(exact > u128::from(u64::MAX) || 4 * elements as u128 > isize::MAX as u128),
            }
        }
    }
}
