//! Element types of a tensor map, with the driver's codes.

use std::fmt;

/// An element type, whose discriminant is the driver's `CUtensorMapDataType`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DataType {
    /// Unsigned, 8 bits.
    U8 = 0,
    /// Unsigned, 16 bits.
    U16 = 1,
    /// Unsigned, 32 bits.
    U32 = 2,
    /// Signed, 32 bits.
    I32 = 3,
    /// Unsigned, 64 bits.
    U64 = 4,
    /// Signed, 64 bits.
    I64 = 5,
    /// IEEE half.
    F16 = 6,
    /// IEEE single.
    F32 = 7,
    /// IEEE double.
    F64 = 8,
    /// The upper half of a single.
    Bf16 = 9,
    /// Single, denormals flushed to zero on reductions.
    F32Ftz = 10,
    /// Single, rounded to 10 bits of mantissa.
    Tf32 = 11,
    /// Both of the former.
    Tf32Ftz = 12,
    /// Unsigned, 4 bits: 16 of them are 8 bytes, in shared memory too.
    U4Packed = 13,
    /// Unsigned, 4 bits: 16 of them are 8 bytes, and 8 bytes of padding follow them in shared memory.
    U4Padded = 14,
    /// Unsigned, 6 bits: 16 of them are 12 bytes, and 4 bytes of padding follow them in shared memory.
    U6Padded = 15,
}

/// A code that names no element type here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no tensor-map data type; codes run from 0 (UINT8) to 15 (16U6_ALIGN16B)")]
pub struct UnknownDataType(pub u32);

impl DataType {
    /// Every type, in the order of their codes.
    pub const ALL: [Self; 16] = [
        Self::U8,
        Self::U16,
        Self::U32,
        Self::I32,
        Self::U64,
        Self::I64,
        Self::F16,
        Self::F32,
        Self::F64,
        Self::Bf16,
        Self::F32Ftz,
        Self::Tf32,
        Self::Tf32Ftz,
        Self::U4Packed,
        Self::U4Padded,
        Self::U6Padded,
    ];

    /// The driver's code.
    pub const fn code(self) -> u32 {
        self as u32
    }

    /// Bits of one element in global memory.
    pub const fn bits(self) -> u32 {
        match self {
            Self::U4Packed | Self::U4Padded => 4,
            Self::U6Padded => 6,
            Self::U8 => 8,
            Self::U16 | Self::F16 | Self::Bf16 => 16,
            Self::U32 | Self::I32 | Self::F32 | Self::F32Ftz | Self::Tf32 | Self::Tf32Ftz => 32,
            Self::U64 | Self::I64 | Self::F64 => 64,
        }
    }

    /// Bytes of one element, `None` where several share a byte.
    pub const fn bytes(self) -> Option<u32> {
        match self.is_packed() {
            true => None,
            false => Some(self.bits() / 8),
        }
    }

    /// Bits that one element takes in shared memory, padding included.
    pub const fn shared_bits(self) -> u32 {
        if self.is_padded() { 8 } else { self.bits() }
    }

    /// Whether elements share bytes.
    pub const fn is_packed(self) -> bool {
        matches!(self, Self::U4Packed | Self::U4Padded | Self::U6Padded)
    }

    /// Whether elements share bytes in global memory and are spread out, 16 of them to 16 bytes, in shared memory.
    pub const fn is_padded(self) -> bool {
        matches!(self, Self::U4Padded | Self::U6Padded)
    }

    /// Whether elements are floats, which alone have a NaN to fill with.
    pub const fn is_float(self) -> bool {
        matches!(
            self,
            Self::F16
                | Self::F32
                | Self::F64
                | Self::Bf16
                | Self::F32Ftz
                | Self::Tf32
                | Self::Tf32Ftz
        )
    }
}

impl TryFrom<u32> for DataType {
    type Error = UnknownDataType;

    fn try_from(code: u32) -> Result<Self, UnknownDataType> {
        Self::ALL.get(code as usize).copied().ok_or(UnknownDataType(code))
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::U8 => "u8",
            Self::U16 => "u16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F16 => "f16",
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::Bf16 => "bf16",
            Self::F32Ftz => "f32_ftz",
            Self::Tf32 => "tf32",
            Self::Tf32Ftz => "tf32_ftz",
            Self::U4Packed => "u4_packed",
            Self::U4Padded => "u4_padded",
            Self::U6Padded => "u6_padded",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_drivers_and_round_trip() {
        // `CUtensorMapDataType` of cuda.h, stated again.
        let header = [
            ("u8", 8),
            ("u16", 16),
            ("u32", 32),
            ("i32", 32),
            ("u64", 64),
            ("i64", 64),
            ("f16", 16),
            ("f32", 32),
            ("f64", 64),
            ("bf16", 16),
            ("f32_ftz", 32),
            ("tf32", 32),
            ("tf32_ftz", 32),
            ("u4_packed", 4),
            ("u4_padded", 4),
            ("u6_padded", 6),
        ];
        for (code, (name, bits)) in (0u32..).zip(header) {
            let data_type = DataType::try_from(code).expect("the code is known");
            assert_eq!((data_type.code(), data_type.bits()), (code, bits), "{name}");
            assert_eq!(data_type.bytes(), (bits % 8 == 0).then_some(bits / 8), "{name}");
            assert_eq!(data_type.to_string(), name);
        }
        for code in [16, 17, u32::MAX] {
            assert_eq!(DataType::try_from(code), Err(UnknownDataType(code)));
        }
    }

    #[test]
    fn sixteen_padded_elements_take_sixteen_bytes_of_shared_memory() {
        for data_type in DataType::ALL {
            let expected = if data_type.is_padded() { 128 } else { 16 * data_type.bits() };
            assert_eq!(16 * data_type.shared_bits(), expected, "{data_type}");
        }
    }
}
