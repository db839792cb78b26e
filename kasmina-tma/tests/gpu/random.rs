//! Random numbers that a seed repeats.

use kasmina_tma::DataType;

/// SplitMix64 (Steele, Lea, Flood, 2014).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: i64, high: i64) -> i64 {
        low + (self.next() % (high - low + 1) as u64) as i64
    }

    pub(crate) fn size(&mut self, low: usize, high: usize) -> usize {
        self.between(low as i64, high as i64) as usize
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[(self.next() % from.len() as u64) as usize]
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> =
            (0..count.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).collect();
        bytes.truncate(count);
        bytes
    }

    /// Elements of a type as bytes: any bits, but for the types whose copies round or flush, which get values that stay as they
    /// are. What those do to others is a test of its own.
    pub(crate) fn elements(&mut self, data_type: DataType, count: usize) -> Vec<u8> {
        let low_bits = match data_type {
            DataType::F32Ftz => 0,
            DataType::Tf32 | DataType::Tf32Ftz => 13,
            _ => return self.bytes(count * bytes_of(data_type)),
        };
        let value = |random: &mut Self| {
            let bits = random.next() as u32;
            // Neither denormal, nor infinite, nor NaN.
            let exponent = 1 + bits % 254;
            (bits & 0x807f_ffff | exponent << 23) >> low_bits << low_bits
        };
        (0..count).flat_map(|_| value(self).to_le_bytes()).collect()
    }
}

/// Bytes of an element; packed ones, which these tests do not copy, have none.
pub(crate) fn bytes_of(data_type: DataType) -> usize {
    data_type.bits() as usize / 8
}

/// The types that these tests copy.
pub(crate) const WHOLE_BYTES: [DataType; 13] = [
    DataType::U8,
    DataType::U16,
    DataType::U32,
    DataType::I32,
    DataType::U64,
    DataType::I64,
    DataType::F16,
    DataType::F32,
    DataType::F64,
    DataType::Bf16,
    DataType::F32Ftz,
    DataType::Tf32,
    DataType::Tf32Ftz,
];
