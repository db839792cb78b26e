//! The rules that the text of `cuda.h` (CUDA 13.0) leaves open, one constant each: the one place to change when a driver
//! says otherwise. Everything else that is checked stands in that text.
//!
//! Asked was the driver 580.159.04 (CUDA 13.0) on an H200, with 40,000 requests. Where a rule here is stricter than that
//! driver, it is so on purpose and says why; `tests/gpu/stricter.rs` has the list.

use kasmina_sys::ComputeCapability;

/// A null address is refused. The driver takes it; nothing can be loaded from there.
pub(crate) const NULL_ADDRESS_REFUSED: bool = true;

/// One past the last address that the driver takes: devices have 57 bits of virtual address.
pub(crate) const ADDRESS_END: i128 = 1 << 57;

/// Strides must not be 0. The driver takes them: every index along such a dimension names the same elements.
pub(crate) const ZERO_STRIDES_REFUSED: bool = false;

/// Each stride must cover the dimension below it. The text's formula only adds padding to dense strides, and asserts
/// that a stride, in bytes, is no smaller than a size, in elements. The driver asks for neither.
pub(crate) const OVERLAPPING_STRIDES_REFUSED: bool = false;

/// The innermost element stride must be 1 without interleave. The text says that it is ignored, "since TMA doesn't support
/// the stride for dimension zero". The device does ignore it: a load of 112 bytes with a stride of 6 brought and counted all
/// 112. The driver takes 1 to 8 and divides the box by it where it limits the box. Whoever says another expects fewer bytes
/// than come.
pub(crate) const IGNORED_ELEMENT_STRIDE_MUST_BE_1: bool = true;

/// A box must not be larger than the tensor. The driver does not compare them; what is outside is filled.
pub(crate) const BOX_LARGER_THAN_TENSOR_REFUSED: bool = false;

/// The most bytes of one copy, 228 KiB, as much shared memory as a multiprocessor of that device has; whether the driver asks
/// each device for its own is not known. It took boxes and columns of 233,472 bytes and refused 233,520.
///
/// It counts ⌊side / element stride⌋ elements along each dimension of a box, where a load brings ⌈side / element stride⌉: with
/// a stride of 2 it took sides of 16 × 31 × 194 × 5 bytes, of which 248,320 are loaded.
pub(crate) const MAX_BOX_BYTES: i128 = 233_472;

/// The channels of an im2col copy must fill whole 16 bytes without interleave, as the innermost side of a tiled box
/// must. The text says it of tiled boxes alone, the driver asks it of both.
pub(crate) const IM2COL_CHANNELS_FILL_16_BYTES: bool = true;

/// An im2col copy must move at least one channel and one pixel, for the driver too.
pub(crate) const EMPTY_COLUMNS_REFUSED: bool = true;

/// Every side of the pixel box, the size of the dimension plus upper minus lower corner, must be at least 1. The text
/// asks for a "non-zero area"; the driver checks each side too: it refused all such of a grid of 47,160 boxes, and took one
/// of some thousand mixed requests.
pub(crate) const EVERY_PIXEL_BOX_SIDE_CHECKED: bool = true;

/// What the end of a pixel box, the size plus the upper corner, must be below. The driver counts it in 32 bits with a sign,
/// and refuses the box where that end is not past the lower corner, which explains its answers to all of that grid: it
/// refuses most of these, and not those whose count comes around.
pub(crate) const PIXEL_BOX_END: i128 = 1 << 31;

/// The pixels of a column must be 1 to 1024 even in the mode that loads 128 of them, where the text says that the number
/// is ignored, and the driver ignores it.
pub(crate) const IGNORED_PIXELS_CHECKED: bool = false;

/// 32-byte interleave needs the 32-byte swizzle in wide im2col maps too. The text of the other maps says so, theirs leaves
/// the sentence out and does not list that swizzle. The driver asks it of no map.
pub(crate) const WIDE_INTERLEAVE_32_NEEDS_SWIZZLE_32: bool = true;

/// The last byte must have a 64-bit address. The driver does not add anything up; copies through such a map would come
/// around to other memory.
pub(crate) const END_CHECKED: bool = true;

/// The least capability for swizzle modes with atoms larger than 16 bytes. The text names none; the PTX ISA has
/// swizzle atomicity from `sm_100` on, and the driver refuses them on 9.0.
pub(crate) const LARGER_ATOMS_NEED: ComputeCapability = ComputeCapability::new(10, 0);

/// The least capability for packed 4- and 6-bit elements. The text names none; the PTX ISA has them from `sm_100` on, and
/// the driver refuses them on 9.0.
pub(crate) const PACKED_NEED: ComputeCapability = ComputeCapability::new(10, 0);
