//! What a tensor map of this machine looks like: the 128 bytes that the driver side encodes and the copy engine reads.
//!
//! A real map's layout is nobody's business. This one has a byte for everything, every byte is determined by the geometry, and
//! what lies past the rank is as a fresh map has it: sides of one and strides of zero. So two maps are equal where their bytes are.

/// The most dimensions of a map.
pub const MAX_RANK: usize = 5;

/// Stands at the end of every map, so that the engine knows one when it meets it.
pub const MAGIC: u32 = 0x4b54_4d31;

/// How a copy takes its elements from the tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A box.
    Tiled = 0,
    /// Pixels of a convolution's input, and channels of each.
    Im2col = 1,
}

/// A tensor map. Fields with codes hold the driver's (`CUtensorMapDataType` and so on).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct TensorMap {
    /// Of the first element.
    pub address: u64,
    /// In bytes, of all dimensions but the first; 0 past the rank.
    pub strides: [u64; MAX_RANK - 1],
    /// The number of elements less one, which fits for 2^32; 0 past the rank.
    pub last: [u32; MAX_RANK],
    /// [`MAGIC`].
    pub magic: u32,
    /// Elements of the box; 1 past the rank.
    pub sides: [u16; MAX_RANK],
    /// The lower corner of the im2col window, 0 for tiles.
    pub lower: [i16; 3],
    /// The upper corner of the im2col window, 0 for tiles.
    pub upper: [i16; 3],
    /// Channels of a pixel in an im2col copy, 0 for tiles.
    pub channels: u16,
    /// Pixels of an im2col copy, 0 for tiles.
    pub pixels: u16,
    /// Steps between the elements that are taken; 1 past the rank.
    pub steps: [u8; MAX_RANK],
    /// The number of dimensions, 1 to 5.
    pub rank: u8,
    /// A [`Kind`].
    pub kind: u8,
    /// `CUtensorMapDataType`.
    pub data_type: u8,
    /// `CUtensorMapInterleave`.
    pub interleave: u8,
    /// `CUtensorMapSwizzle`.
    pub swizzle: u8,
    /// `CUtensorMapL2promotion`.
    pub l2_promotion: u8,
    /// `CUtensorMapFloatOOBfill`.
    pub fill: u8,
    /// Zero.
    pub reserved: [u8; 26],
}

const _: () = assert!(size_of::<TensorMap>() == 128);

impl TensorMap {
    /// A tiled map of one element of `u8`, from which an encoder starts.
    #[must_use]
    pub fn fresh() -> Self {
        Self {
            address: 0,
            strides: [0; MAX_RANK - 1],
            last: [0; MAX_RANK],
            magic: MAGIC,
            sides: [1; MAX_RANK],
            lower: [0; 3],
            upper: [0; 3],
            channels: 0,
            pixels: 0,
            steps: [1; MAX_RANK],
            rank: 1,
            kind: Kind::Tiled as u8,
            data_type: 0,
            interleave: 0,
            swizzle: 0,
            l2_promotion: 0,
            fill: 0,
            reserved: [0; 26],
        }
    }

    /// The map in these bytes, or nothing if they are none.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 128]) -> Option<Self> {
        // SAFETY: every bit pattern is a value of these integers, and nothing between them is padding.
        let map: Self = unsafe { std::mem::transmute_copy(bytes) };
        (map.magic == MAGIC && (1..=MAX_RANK).contains(&usize::from(map.rank))).then_some(map)
    }

    /// The bytes that stand in a `CUtensorMap`.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 128] {
        // SAFETY: the struct has this size and no padding.
        unsafe { std::mem::transmute(self) }
    }

    /// Bytes of an element, by the type's code; nothing for a code that this machine does not have.
    #[must_use]
    pub fn element_bytes(&self) -> Option<usize> {
        Some(match self.data_type {
            0 => 1,
            1 | 6 | 9 => 2,
            2 | 3 | 7 | 10 | 11 | 12 => 4,
            4 | 5 | 8 => 8,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_map_are_the_same() {
        let map =
            TensorMap { address: 0x1234, rank: 2, sides: [8, 4, 1, 1, 1], ..TensorMap::fresh() };
        assert_eq!(TensorMap::from_bytes(&map.to_bytes()), Some(map));
        assert_eq!(TensorMap::from_bytes(&[0; 128]), None);
    }
}
