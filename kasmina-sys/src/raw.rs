//! The driver API as `cuda.h` has it: handles, structs, integer newtypes for enums, and each function as a method of
//! [`Driver`] that looks it up once.
//!
//! Made by bindgen (`cargo xtask bindings`; see `build::bindings` for the table of functions) and named as in the header.
//! Each function stands with the CUDA version whose form of it is meant, and `cuGetProcAddress` is asked for exactly that
//! form, so a newer driver that has changed the signature (as 13.0 did with `cuCtxSynchronize`) still hands out ours.

#![allow(non_camel_case_types, non_snake_case, non_upper_case_globals)]
#![allow(missing_docs, reason = "the names are cuda.h's, and so is their documentation")]
#![allow(
    missing_debug_implementations,
    reason = "a union has no value to show, nor has what holds one"
)]
#![allow(clippy::all, clippy::undocumented_unsafe_blocks, reason = "generated")]

use once_cell::sync::OnceCell;

use crate::driver::Driver;
use crate::unavailable::Unavailable;
use crate::version::CudaVersion;

pub use self::{CUdevice_attribute as DeviceAttribute, CUfunction_attribute as FunctionAttribute};

/// A device handle: its ordinal in the driver's eyes.
pub type CUdevice = CUdevice_v1;

/// An address that was looked up once, or the reason why it could not be.
type Lookup = OnceCell<Result<usize, Unavailable>>;

/// The function pointer inside the nullable one that bindgen makes of C's.
#[doc(hidden)]
pub trait Nullable {
    type Function;
}

impl<F> Nullable for Option<F> {
    type Function = F;
}

macro_rules! functions {
    ($($name:ident: $nullable:ident, CUDA $major:literal . $minor:literal;)*) => {
        /// One cell a function, filled at its first use.
        #[derive(Default)]
        pub(crate) struct Functions {
            $($name: Lookup,)*
        }

        /// The functions of `cuda.h`. Calling one is unsafe by its own contract; getting it fails where the driver lacks it.
        impl Driver {
            $(
                #[doc = concat!(
                    "`", stringify!($name), "` in its form of CUDA ", stringify!($major), ".", stringify!($minor), "."
                )]
                ///
                /// # Errors
                /// [`Unavailable::MissingSymbol`]; the driver itself stays usable.
                #[inline]
                pub fn $name(&self) -> Result<<$nullable as Nullable>::Function, Unavailable> {
                    let lookup = || self.resolve(stringify!($name), CudaVersion::new($major, $minor));
                    let found =
                        self.functions.$name.get_or_init(|| lookup().map(|found| found.as_ptr() as usize));
                    match found {
                        // SAFETY: the driver handed out this address for exactly this name and version, whose signature the
                        // toolkit's header gives to the type, and the library stays loaded for the life of the process.
                        Ok(address) => Ok(unsafe {
                            std::mem::transmute::<usize, <$nullable as Nullable>::Function>(*address)
                        }),
                        Err(missing) => Err(missing.clone()),
                    }
                }
            )*
        }
    };
}

#[cfg(not(feature = "bindgen"))]
include!("bindings.rs");
#[cfg(feature = "bindgen")]
include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
