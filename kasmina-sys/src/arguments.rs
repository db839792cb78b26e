//! What a kernel takes: types whose bytes are a parameter, and tuples of them.

use std::ffi::c_void;

use bytemuck::Pod;

use crate::memory::DevicePointer;

/// A value that a kernel takes as one parameter: its bytes are copied into the kernel's parameter space at the launch.
///
/// ```
/// use kasmina_sys::{ByValue, KernelArgument};
///
/// fn takes(_: impl KernelArgument) {}
/// takes(3u32);
/// takes(0.5f64);
/// takes(ByValue([1.0f32, 2.0, 3.0])); // a struct of three floats
/// ```
///
/// # Safety
/// A value of the type has at least one byte, every byte of it is initialised, and the type's layout is that of a C type:
/// scalars, `#[repr(C)]`, `#[repr(transparent)]`.
pub unsafe trait KernelArgument: Copy {}

macro_rules! scalars {
    ($($scalar:ty)*) => {
        $(
            // SAFETY: a scalar of C, whose bytes are all initialised.
            unsafe impl KernelArgument for $scalar {}
        )*
    };
}

scalars! { u8 i8 u16 i16 u32 i32 u64 i64 usize isize f32 f64 bool }

// SAFETY: transparent over the 64-bit address that a device pointer is.
unsafe impl<T> KernelArgument for DevicePointer<T> {}

/// A struct as a parameter: any plain old data, `#[repr(C)]` like the struct that the kernel declares.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ByValue<T>(pub T);

// SAFETY: plain old data has no uninitialised byte, and the wrapper is transparent; a type without bytes is refused when
// the program is compiled, in `KernelArguments`.
unsafe impl<T: Pod> KernelArgument for ByValue<T> {}

/// The arguments of a kernel: tuples of up to 16 [`KernelArgument`]s, in the order of the kernel's parameters.
///
/// # Safety
/// [`SIZES`](Self::SIZES) are the sizes of what the pointers given to the body of [`with_pointers`](Self::with_pointers)
/// point at, in that order, live while it runs.
pub unsafe trait KernelArguments: Copy {
    /// Bytes of each argument.
    const SIZES: &'static [usize];

    /// Runs `body` with a pointer to each argument.
    fn with_pointers<R>(&self, body: impl FnOnce(&mut [*mut c_void]) -> R) -> R;
}

// SAFETY: no arguments, no pointers.
unsafe impl KernelArguments for () {
    const SIZES: &'static [usize] = &[];

    fn with_pointers<R>(&self, body: impl FnOnce(&mut [*mut c_void]) -> R) -> R {
        body(&mut [])
    }
}

/// The size of an argument; one without bytes does not compile, because the driver copies at least one.
const fn size<T: KernelArgument>() -> usize {
    assert!(size_of::<T>() > 0, "a kernel's argument has at least one byte");
    size_of::<T>()
}

macro_rules! tuples {
    ($first:ident $($rest:ident)*) => {
        tuples!(@one $first $($rest)*);
        tuples!($($rest)*);
    };
    () => {};
    (@one $($name:ident)*) => {
        // SAFETY: one size and one pointer for each element, in order; the elements live as long as the tuple does.
        unsafe impl<$($name: KernelArgument),*> KernelArguments for ($($name,)*) {
            const SIZES: &'static [usize] = &[$(size::<$name>()),*];

            #[inline]
            fn with_pointers<Result>(&self, body: impl FnOnce(&mut [*mut c_void]) -> Result) -> Result {
                #[allow(non_snake_case, reason = "the variables are named like the types")]
                let ($($name,)*) = self;
                // The driver only reads through these.
                body(&mut [$(std::ptr::from_ref($name).cast_mut().cast::<c_void>()),*])
            }
        }
    };
}

tuples! { A B C D E F G H I J K L M N O P }
