//! A matrix as it is stored: the bits of f32, f16 or bf16 elements, and their values in f64.
//!
//! Bits, because "bit for bit" is said of storage, and NaN has many.

use half::{bf16, f16};

/// The storage type of x, y and their gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// 32 bits.
    F32,
    /// 16 bits, 5 of them exponent.
    F16,
    /// 16 bits, 8 of them exponent.
    Bf16,
}

impl Storage {
    /// Every storage type.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Bf16];

    /// Bytes of an element.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// The name in a table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// The value of an element with these bits; the upper half is not read of 16-bit types.
    #[must_use]
    pub fn widen(self, bits: u32) -> f64 {
        match self {
            Self::F32 => f64::from(f32::from_bits(bits)),
            Self::F16 => f16::from_bits(bits as u16).to_f64(),
            Self::Bf16 => bf16::from_bits(bits as u16).to_f64(),
        }
    }

    /// The bits of the nearest element to `value`.
    #[must_use]
    pub fn narrow(self, value: f64) -> u32 {
        match self {
            Self::F32 => (value as f32).to_bits(),
            Self::F16 => u32::from(f16::from_f64(value).to_bits()),
            Self::Bf16 => u32::from(bf16::from_f64(value).to_bits()),
        }
    }
}

/// A row-major, contiguous matrix in storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plane {
    /// The element type.
    pub storage: Storage,
    /// One word an element; 16-bit types use the lower half.
    pub bits: Vec<u32>,
}

impl Plane {
    /// Reads little-endian elements.
    #[must_use]
    pub fn from_le_bytes(storage: Storage, bytes: &[u8]) -> Self {
        let bits = match storage {
            Storage::F32 => bytes
                .chunks_exact(4)
                .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
            Storage::F16 | Storage::Bf16 => {
                bytes.chunks_exact(2).map(|b| u32::from(u16::from_le_bytes([b[0], b[1]]))).collect()
            }
        };
        Self { storage, bits }
    }

    /// Rounds values to storage.
    #[must_use]
    pub fn from_values(storage: Storage, values: impl IntoIterator<Item = f64>) -> Self {
        let bits = values.into_iter().map(|v| storage.narrow(v)).collect();
        Self { storage, bits }
    }

    /// Little-endian elements, as [`Plane::from_le_bytes`] reads them.
    #[must_use]
    pub fn to_le_bytes(&self) -> Vec<u8> {
        let size = self.storage.size();
        let words = self.bits.iter();
        words.flat_map(|w| w.to_le_bytes().into_iter().take(size)).collect()
    }

    /// The values, widened without loss.
    #[must_use]
    pub fn values(&self) -> Vec<f64> {
        self.bits.iter().map(|b| self.storage.widen(*b)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sixteen_bit_pattern_survives() {
        for storage in [Storage::F16, Storage::Bf16] {
            let plane = Plane { storage, bits: (0..=0xffff).collect() };
            assert_eq!(Plane::from_le_bytes(storage, &plane.to_le_bytes()), plane);
            let again = Plane::from_values(storage, plane.values());
            for (bits, again) in plane.bits.iter().zip(again.bits) {
                let nan = storage.widen(*bits).is_nan();
                assert!(*bits == again || nan && storage.widen(again).is_nan());
            }
        }
    }

    #[test]
    fn elements_are_little_endian() {
        let plane = Plane::from_le_bytes(Storage::F32, &1.5f32.to_le_bytes());
        assert_eq!(plane.values(), [1.5]);
        assert_eq!(Storage::Bf16.widen(0x3f80), 1.0);
        assert_eq!(Storage::F16.widen(0x3c00), 1.0);
    }
}
