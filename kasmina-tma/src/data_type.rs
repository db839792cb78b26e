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
}

/// A code that names no element type here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no tensor-map data type; codes run from 0 (U8) to 12 (TF32_FTZ)")]
pub struct UnknownDataType(pub u32);

impl DataType {
    /// Every type, in the order of their codes.
    pub const ALL: [Self; 13] = [
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
    ];

    /// The driver's code.
    pub const fn code(self) -> u32 {
        self as u32
    }

    /// Bytes of one element.
    pub const fn bytes(self) -> u32 {
        match self {
            Self::U8 => 1,
            Self::U16 | Self::F16 | Self::Bf16 => 2,
            Self::U32 | Self::I32 | Self::F32 | Self::F32Ftz | Self::Tf32 | Self::Tf32Ftz => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// Whether elements are floats, which alone have a NaN to fill with.
    pub const fn is_float(self) -> bool {
        match self {
            Self::U8 | Self::U16 | Self::U32 | Self::I32 | Self::U64 | Self::I64 => false,
            Self::F16
            | Self::F32
            | Self::F64
            | Self::Bf16
            | Self::F32Ftz
            | Self::Tf32
            | Self::Tf32Ftz => true,
        }
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
            ("u8", 1),
            ("u16", 2),
            ("u32", 4),
            ("i32", 4),
            ("u64", 8),
            ("i64", 8),
            ("f16", 2),
            ("f32", 4),
            ("f64", 8),
            ("bf16", 2),
            ("f32_ftz", 4),
            ("tf32", 4),
            ("tf32_ftz", 4),
        ];
        for (code, (name, bytes)) in (0u32..).zip(header) {
            let data_type = DataType::try_from(code).expect("the code is known");
            assert_eq!((data_type.code(), data_type.bytes()), (code, bytes), "{name}");
            assert_eq!(data_type.to_string(), name);
        }
        for code in [13, 14, 15, u32::MAX] {
            assert_eq!(DataType::try_from(code), Err(UnknownDataType(code)));
        }
    }
}
