//! The driver's four calls that make tensor maps on the host, each with its typed error.

use std::ffi::c_void;

use kasmina_sys::raw::{
    CUtensorMapDataType, CUtensorMapFloatOOBfill, CUtensorMapIm2ColWideMode, CUtensorMapInterleave,
    CUtensorMapL2promotion, CUtensorMapSwizzle,
};
use kasmina_sys::{CUresult, Context, Error, Unavailable};

use crate::geometry::Geometry;
use crate::request::TensorMapRequest;
use crate::tensor_map::TensorMap;
use crate::violation::Violation;
use crate::window::Window;

/// Why there is no map.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The geometry does not fit the memory, the address or the device.
    #[error(transparent)]
    Request(#[from] Violation),

    /// The driver lacks the function.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),

    /// The driver refused.
    #[error("{call}({request}) returned {code}")]
    Refused {
        /// The function of the driver API.
        call: &'static str,
        /// All that it was asked for; boxed, to keep the error small.
        request: Box<TensorMapRequest>,
        /// What it returned.
        code: CUresult,
    },

    /// The cache was asked for a map of memory that this process did not allocate through `kasmina-sys`.
    #[error(
        "the memory at {address:#x} was not allocated here, so nobody would tell the cache when it goes; ask with \
         get_foreign and an identity of your own"
    )]
    Foreign {
        /// Where the memory is.
        address: u64,
    },

    /// The context could not be made current, or the device not be asked for its capability.
    #[error(transparent)]
    Driver(Error),
}

impl From<Error> for EncodeError {
    fn from(error: Error) -> Self {
        match error {
            Error::Unavailable(missing) => Self::Unavailable(missing),
            other => Self::Driver(other),
        }
    }
}

/// A map made from nothing, by the call that the geometry's window wants.
pub(crate) fn encode(
    context: &Context,
    request: &TensorMapRequest,
) -> Result<TensorMap, EncodeError> {
    let geometry = request.geometry();
    geometry.check_capability(context.device().capability()?)?;
    let driver = context.device().driver();
    let mut map = TensorMap::ZERO;
    let raw = map.as_raw();
    let address = request.address() as *mut c_void;
    let arguments = Arguments::of(geometry);
    let Arguments { data_type, interleave, swizzle, l2_promotion, oob_fill, .. } = arguments;
    let Arguments { rank, sizes, strides, steps, .. } = arguments;
    match &geometry.window {
        Window::Tiled { box_sides } => {
            let encode = driver.cuTensorMapEncodeTiled()?;
            let sides = box_sides.as_ptr();
            // SAFETY: the map is writable and aligned, each array has the entries that the rank asks for, and the address is a
            // number that the driver does not follow.
            let call = || unsafe {
                encode(
                    raw,
                    data_type,
                    rank,
                    address,
                    sizes,
                    strides,
                    sides,
                    steps,
                    interleave,
                    swizzle,
                    l2_promotion,
                    oob_fill,
                )
            };
            checked("cuTensorMapEncodeTiled", context, request, call)?;
        }
        Window::Im2col { lower, upper, channels, pixels } => {
            let encode = driver.cuTensorMapEncodeIm2col()?;
            let (lower, upper) = (lower.as_ptr(), upper.as_ptr());
            // SAFETY: as above; there are at most three corner offsets, one for each dimension but two.
            let call = || unsafe {
                encode(
                    raw,
                    data_type,
                    rank,
                    address,
                    sizes,
                    strides,
                    lower,
                    upper,
                    *channels,
                    *pixels,
                    steps,
                    interleave,
                    swizzle,
                    l2_promotion,
                    oob_fill,
                )
            };
            checked("cuTensorMapEncodeIm2col", context, request, call)?;
        }
        Window::Im2colWide { lower, upper, channels, pixels, mode } => {
            let encode = driver.cuTensorMapEncodeIm2colWide()?;
            let mode = CUtensorMapIm2ColWideMode(mode.code());
            // SAFETY: as for the tiled map.
            let call = || unsafe {
                encode(
                    raw,
                    data_type,
                    rank,
                    address,
                    sizes,
                    strides,
                    *lower,
                    *upper,
                    *channels,
                    *pixels,
                    steps,
                    interleave,
                    mode,
                    swizzle,
                    l2_promotion,
                    oob_fill,
                )
            };
            checked("cuTensorMapEncodeIm2colWide", context, request, call)?;
        }
    }
    Ok(map)
}

/// `map`, which was made for the geometry of `request`, at the address of `request`.
pub(crate) fn replace_address(
    context: &Context,
    mut map: TensorMap,
    request: &TensorMapRequest,
) -> Result<TensorMap, EncodeError> {
    let replace = context.device().driver().cuTensorMapReplaceAddress()?;
    let raw = map.as_raw();
    let address = request.address() as *mut c_void;
    // SAFETY: a writable and aligned map, and an address that the driver does not follow.
    let call = || unsafe { replace(raw, address) };
    checked("cuTensorMapReplaceAddress", context, request, call)?;
    Ok(map)
}

/// The arguments that all three calls have in common; the pointers are into the geometry.
struct Arguments {
    data_type: CUtensorMapDataType,
    rank: u32,
    sizes: *const u64,
    strides: *const u64,
    steps: *const u32,
    interleave: CUtensorMapInterleave,
    swizzle: CUtensorMapSwizzle,
    l2_promotion: CUtensorMapL2promotion,
    oob_fill: CUtensorMapFloatOOBfill,
}

impl Arguments {
    fn of(geometry: &Geometry) -> Self {
        Self {
            data_type: CUtensorMapDataType(geometry.data_type.code()),
            // At most five.
            rank: geometry.rank as u32,
            sizes: geometry.sizes.as_ptr(),
            strides: geometry.strides.as_ptr(),
            steps: geometry.element_strides.as_ptr(),
            interleave: CUtensorMapInterleave(geometry.interleave.code()),
            swizzle: CUtensorMapSwizzle(geometry.swizzle.code()),
            l2_promotion: CUtensorMapL2promotion(geometry.l2_promotion.code()),
            oob_fill: CUtensorMapFloatOOBfill(geometry.oob_fill.code()),
        }
    }
}

/// Calls with the context current, which the driver's list of results asks for.
fn checked(
    name: &'static str,
    context: &Context,
    request: &TensorMapRequest,
    call: impl FnOnce() -> CUresult,
) -> Result<(), EncodeError> {
    let code = context.with_current(|| Ok(call()))?;
    if code.is_success() {
        return Ok(());
    }
    Err(EncodeError::Refused { call: name, request: Box::new(*request), code })
}
