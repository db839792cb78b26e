//! Tensor maps: what the driver's documentation refuses, and this machine's encoding of the rest.

use std::ffi::{c_int, c_void};

use kasmina_sys::CUresult;
use kasmina_sys::raw::{
    CUtensorMap, CUtensorMapDataType, CUtensorMapFloatOOBfill, CUtensorMapIm2ColWideMode,
    CUtensorMapInterleave, CUtensorMapL2promotion, CUtensorMapSwizzle,
};

use super::{Outcome, answer, device, taken};
use crate::tensor_map::{Kind, MAX_RANK, TensorMap};

/// Addresses are of as many bits.
const ADDRESS_BITS: u32 = 40;
const MAX_SIZE: u64 = 1 << 32;
const MAX_SIDE: u32 = 256;
const MAX_STEP: u32 = 8;

/// What all kinds of maps have.
struct Common<'a> {
    data_type: CUtensorMapDataType,
    address: u64,
    sizes: &'a [u64],
    strides: &'a [u64],
    steps: &'a [u32],
    interleave: CUtensorMapInterleave,
    swizzle: CUtensorMapSwizzle,
    l2_promotion: CUtensorMapL2promotion,
    fill: CUtensorMapFloatOOBfill,
}

fn require(holds: bool) -> Outcome {
    if holds { Ok(()) } else { Err(CUresult::INVALID_VALUE) }
}

/// Whether a fill with NaN makes sense: the types of floats.
fn is_float(data_type: u32) -> bool {
    (6..=12).contains(&data_type)
}

impl Common<'_> {
    fn encode(&self) -> Result<TensorMap, CUresult> {
        let rank = self.sizes.len();
        let codes = [self.interleave.0, self.swizzle.0, self.l2_promotion.0, self.fill.0];
        require(codes.iter().zip([2, 3, 3, 1]).all(|(code, most)| *code <= most))?;
        let mut map = TensorMap {
            address: self.address,
            rank: rank as u8,
            data_type: u8::try_from(self.data_type.0).map_err(|_| CUresult::INVALID_VALUE)?,
            interleave: self.interleave.0 as u8,
            swizzle: self.swizzle.0 as u8,
            l2_promotion: self.l2_promotion.0 as u8,
            fill: self.fill.0 as u8,
            ..TensorMap::fresh()
        };
        let element = map.element_bytes().ok_or(CUresult::INVALID_VALUE)? as u64;
        let wide = self.interleave == CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_32B;
        let alignment = if wide { 32 } else { 16 };
        require(self.address != 0 && self.address.is_multiple_of(alignment))?;
        require(self.interleave.0 == 0 || rank >= 3)?;
        require(!wide || self.swizzle == CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_32B)?;
        require(self.fill.0 == 0 || is_float(self.data_type.0))?;
        require(self.sizes.iter().all(|size| (1..=MAX_SIZE).contains(size)))?;
        // The first step is not looked at where nothing is interleaved.
        let first = usize::from(self.interleave.0 == 0);
        require(self.steps[first..].iter().all(|step| (1..=MAX_STEP).contains(step)))?;
        let mut before = self.sizes[0].checked_mul(element).ok_or(CUresult::INVALID_VALUE)?;
        for (at, stride) in self.strides.iter().enumerate() {
            require(stride.is_multiple_of(alignment) && *stride < 1 << ADDRESS_BITS)?;
            require(self.interleave.0 != 0 || *stride >= before)?;
            before = stride.checked_mul(self.sizes[at + 1]).ok_or(CUresult::INVALID_VALUE)?;
            map.strides[at] = *stride;
        }
        for (at, size) in self.sizes.iter().enumerate() {
            map.last[at] = (size - 1) as u32;
        }
        for (at, step) in self.steps.iter().enumerate().skip(first) {
            map.steps[at] = *step as u8;
        }
        Ok(map)
    }

    /// Bytes that one row of the box may have.
    fn row_limit(&self) -> u64 {
        match self.swizzle {
            CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_32B => 32,
            CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_64B => 64,
            CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B => 128,
            _ => u64::MAX,
        }
    }
}

/// Checks the rank, of which the arrays' lengths are.
fn rank_of(rank: u32, least: usize) -> Result<usize, CUresult> {
    let rank = rank as usize;
    require((least..=MAX_RANK).contains(&rank))?;
    Ok(rank)
}

/// Writes the map.
///
/// # Safety
/// Null or the caller's map.
unsafe fn write(to: *mut CUtensorMap, map: TensorMap) -> Outcome {
    require(!to.is_null() && to.addr().is_multiple_of(64))?;
    // SAFETY: 128 bytes of the caller's.
    unsafe { to.cast::<[u8; 128]>().write(map.to_bytes()) };
    Ok(())
}

fn supported() -> Outcome {
    if device::is_hopper() { Ok(()) } else { Err(CUresult::NOT_SUPPORTED) }
}

pub(crate) unsafe extern "C" fn tiled(
    to: *mut CUtensorMap,
    data_type: CUtensorMapDataType,
    rank: u32,
    address: *mut c_void,
    sizes: *const u64,
    strides: *const u64,
    sides: *const u32,
    steps: *const u32,
    interleave: CUtensorMapInterleave,
    swizzle: CUtensorMapSwizzle,
    l2_promotion: CUtensorMapL2promotion,
    fill: CUtensorMapFloatOOBfill,
) -> CUresult {
    answer(|| {
        supported()?;
        let rank = rank_of(rank, 1)?;
        // SAFETY: the caller has a value a dimension in each, and a stride less.
        let (sizes, strides, sides, steps) = unsafe {
            (
                taken(sizes, rank)?,
                taken(strides, rank - 1)?,
                taken(sides, rank)?,
                taken(steps, rank)?,
            )
        };
        let address = address.addr() as u64;
        let common = Common {
            data_type,
            address,
            sizes,
            strides,
            steps,
            interleave,
            swizzle,
            l2_promotion,
            fill,
        };
        let mut map = common.encode()?;
        require(sides.iter().all(|side| (1..=MAX_SIDE).contains(side)))?;
        if interleave.0 == 0 {
            let row = u64::from(sides[0]) * map.element_bytes().unwrap_or(1) as u64;
            require(row.is_multiple_of(16) && row <= common.row_limit())?;
        }
        for (to, side) in map.sides.iter_mut().zip(sides) {
            *to = *side as u16;
        }
        // SAFETY: the caller's place for a map.
        unsafe { write(to, map) }
    })
}

/// The corners of an im2col window: of 16 bits in one spatial dimension, of 8 in two, of 5 in three.
fn corners(lower: &[c_int], upper: &[c_int]) -> Result<([i16; 3], [i16; 3]), CUresult> {
    let bits = [16, 8, 5][lower.len() - 1];
    let range = -(1 << (bits - 1))..(1 << (bits - 1));
    require(lower.iter().chain(upper).all(|corner| range.contains(corner)))?;
    let narrow = |corners: &[c_int]| {
        let mut narrowed = [0; 3];
        narrowed.iter_mut().zip(corners).for_each(|(to, corner)| *to = *corner as i16);
        narrowed
    };
    Ok((narrow(lower), narrow(upper)))
}

pub(crate) unsafe extern "C" fn im2col(
    to: *mut CUtensorMap,
    data_type: CUtensorMapDataType,
    rank: u32,
    address: *mut c_void,
    sizes: *const u64,
    strides: *const u64,
    lower: *const c_int,
    upper: *const c_int,
    channels: u32,
    pixels: u32,
    steps: *const u32,
    interleave: CUtensorMapInterleave,
    swizzle: CUtensorMapSwizzle,
    l2_promotion: CUtensorMapL2promotion,
    fill: CUtensorMapFloatOOBfill,
) -> CUresult {
    answer(|| {
        supported()?;
        let rank = rank_of(rank, 3)?;
        // SAFETY: the caller has a value a dimension in each, a stride less, and a corner a spatial dimension.
        let (sizes, strides, lower, upper, steps) = unsafe {
            (
                taken(sizes, rank)?,
                taken(strides, rank - 1)?,
                taken(lower, rank - 2)?,
                taken(upper, rank - 2)?,
                taken(steps, rank)?,
            )
        };
        let address = address.addr() as u64;
        let common = Common {
            data_type,
            address,
            sizes,
            strides,
            steps,
            interleave,
            swizzle,
            l2_promotion,
            fill,
        };
        let mut map = common.encode()?;
        require((1..=256).contains(&channels) && (1..=1024).contains(&pixels))?;
        if interleave.0 == 0 {
            let row = u64::from(channels) * map.element_bytes().unwrap_or(1) as u64;
            require(row.is_multiple_of(16) && row <= common.row_limit())?;
        }
        (map.lower, map.upper) = corners(lower, upper)?;
        map.kind = Kind::Im2col as u8;
        map.channels = channels as u16;
        map.pixels = pixels as u16;
        // SAFETY: the caller's place for a map.
        unsafe { write(to, map) }
    })
}

/// Maps of the wide kind need a device after Hopper.
pub(crate) unsafe extern "C" fn im2col_wide(
    _: *mut CUtensorMap,
    _: CUtensorMapDataType,
    _: u32,
    _: *mut c_void,
    _: *const u64,
    _: *const u64,
    _: c_int,
    _: c_int,
    _: u32,
    _: u32,
    _: *const u32,
    _: CUtensorMapInterleave,
    _: CUtensorMapIm2ColWideMode,
    _: CUtensorMapSwizzle,
    _: CUtensorMapL2promotion,
    _: CUtensorMapFloatOOBfill,
) -> CUresult {
    CUresult::NOT_SUPPORTED
}

pub(crate) unsafe extern "C" fn replace_address(
    map: *mut CUtensorMap,
    address: *mut c_void,
) -> CUresult {
    answer(|| {
        supported()?;
        require(!map.is_null() && map.addr().is_multiple_of(64))?;
        // SAFETY: 128 bytes of the caller's.
        let old = TensorMap::from_bytes(unsafe { &*map.cast::<[u8; 128]>() })
            .ok_or(CUresult::INVALID_VALUE)?;
        let address = address.addr() as u64;
        let wide =
            u32::from(old.interleave) == CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_32B.0;
        require(address != 0 && address.is_multiple_of(if wide { 32 } else { 16 }))?;
        // SAFETY: as above.
        unsafe { write(map, TensorMap { address, ..old }) }
    })
}
