//! What stands for elements outside: zeros, or the NaN that a device writes, which no manual states bit by bit. It has to be a
//! NaN, and for a type always the same one.

use std::collections::BTreeMap;

use kasmina_tma::{DataType, OobFill};

/// The NaN seen for each type, by the type's code.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fills(BTreeMap<u32, Vec<u8>>);

impl Fills {
    /// Whether these bytes, little-endian, are the fill.
    pub(crate) fn check(
        &mut self,
        data_type: DataType,
        fill: OobFill,
        bytes: &[u8],
    ) -> Result<(), String> {
        if fill == OobFill::Zero {
            let zero = bytes.iter().all(|&byte| byte == 0);
            return if zero { Ok(()) } else { Err(format!("{bytes:02x?} is not zero")) };
        }
        if !is_nan(data_type, bytes) {
            return Err(format!("{bytes:02x?} is no NaN of {data_type}"));
        }
        let known = self.0.entry(data_type.code()).or_insert_with(|| bytes.to_vec());
        if known == bytes {
            return Ok(());
        }
        Err(format!("{bytes:02x?} is another NaN than {known:02x?}, seen before for {data_type}"))
    }
}

impl std::fmt::Display for Fills {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (code, bytes) in &self.0 {
            let name = DataType::try_from(*code).map_or(code.to_string(), |name| name.to_string());
            let digits: String = bytes.iter().rev().map(|byte| format!("{byte:02x}")).collect();
            write!(f, " {name} 0x{digits}")?;
        }
        Ok(())
    }
}

fn is_nan(data_type: DataType, bytes: &[u8]) -> bool {
    let mut word = [0u8; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    let bits = u64::from_le_bytes(word);
    // Bits of the mantissa, and of the exponent above it.
    let (mantissa, exponent) = match data_type {
        DataType::F16 => (10, 5),
        DataType::Bf16 => (7, 8),
        DataType::F64 => (52, 11),
        _ => (23, 8),
    };
    let all_ones = (1u64 << exponent) - 1;
    bits >> mantissa & all_ones == all_ones && bits & ((1 << mantissa) - 1) != 0
}
