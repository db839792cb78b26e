//! What copies do to values: nothing, but for the single-precision types whose names promise flushing and rounding, which no
//! manual describes. What was seen is printed.

use kasmina_gpu_test::{Failed, ensure};
use kasmina_sys::Device;
use kasmina_tma::{BoundTensorMap, DataType, Geometry};

use crate::kernels::{Bench, Copies, Map, Tile};
use crate::random::{Random, bytes_of};

const BOX: usize = 256;

/// Every value through a load.
fn through(bench: &Bench, data_type: DataType, values: &[u8]) -> Result<Vec<u8>, Failed> {
    let element = bytes_of(data_type);
    let count = values.len() / element;
    ensure(count.is_multiple_of(BOX), || format!("{count} values"))?;
    let buffer = bench.buffer(values)?;
    let geometry =
        Geometry::tiled(data_type).sizes(&[count as u64]).box_sides(&[BOX as u32]).build()?;
    let map = BoundTensorMap::encode(buffer.as_slice(), &geometry)?;
    let copies = Copies {
        rank: 1,
        tiles: (0..count / BOX).map(|i| Tile::new(&[(i * BOX) as i32], &[])).collect(),
        expected_bytes: BOX * element,
        slot_bytes: BOX * element,
    };
    // SAFETY: the buffer lives until `load` has waited for the kernel.
    bench.load(Map::Value(unsafe { map.unbound() }), &copies)
}

/// All bits of all types that promise nothing pass unchanged: NaN, infinities and denormals too.
pub(crate) fn plain_types(device: Device) -> Result<(), Failed> {
    let bench = Bench::new(device)?;
    let mut random = Random::new(5);
    let halves: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    let singles = words(&mut random);
    let doubles: Vec<u8> =
        singles.iter().rev().flat_map(|word| (u64::from(*word) << 32).to_le_bytes()).collect();
    let singles: Vec<u8> = singles.iter().flat_map(|word| word.to_le_bytes()).collect();
    for (data_type, values) in [
        (DataType::F16, &halves),
        (DataType::Bf16, &halves),
        (DataType::F32, &singles),
        (DataType::F64, &doubles),
        (DataType::U32, &singles),
    ] {
        let seen = through(&bench, data_type, values)?;
        let element = bytes_of(data_type);
        let differs =
            seen.chunks(element).zip(values.chunks(element)).find(|(seen, value)| seen != value);
        ensure(differs.is_none(), || format!("{data_type}: (seen, value) {differs:02x?}"))?;
    }
    Ok(())
}

/// Signs, exponents and mantissas around every edge, and others.
fn words(random: &mut Random) -> Vec<u32> {
    let mut words = Vec::new();
    for sign in [0u32, 1 << 31] {
        for exponent in [0u32, 1, 2, 100, 127, 128, 200, 253, 254, 255] {
            for mantissa in [
                0u32, 1, 0xfff, 0x1000, 0x1001, 0x1fff, 0x2000, 0x2fff, 0x3000, 0x3001, 0x3fff,
                0x40_0000, 0x40_0001, 0x7f_efff, 0x7f_f000, 0x7f_ffff,
            ] {
                words.push(sign | exponent << 23 | mantissa);
            }
        }
    }
    while words.len() < 16 * BOX {
        words.push(random.next() as u32);
    }
    words
}

/// How a value came out of a copy.
fn described(value: u32, seen: u32) -> Option<&'static str> {
    let low = value & 0x1fff;
    let truncated = value & !0x1fff;
    let up = truncated.wrapping_add(0x2000);
    let even = if low > 0x1000 || (low == 0x1000 && value & 0x2000 != 0) { up } else { truncated };
    let away = if low >= 0x1000 { up } else { truncated };
    let is_denormal = value & 0x7f80_0000 == 0 && value & 0x7f_ffff != 0;
    let zero = value & 1 << 31;
    Some(match seen {
        _ if seen == value => "unchanged",
        _ if is_denormal && seen == zero => "denormals to zero of the same sign",
        0 if is_denormal => "denormals to plus zero",
        // Ties tell them apart; elsewhere they agree.
        _ if seen == even && seen == away && seen != truncated => "rounded up",
        _ if seen == even && seen == away => "rounded down",
        _ if seen == away => "ties away from zero",
        _ if seen == even => "ties to even",
        _ if seen == truncated => "truncated",
        _ if value & 0x7f80_0000 == 0x7f80_0000 && seen & 0x7f80_0000 == 0x7f80_0000 => {
            "another NaN or infinity"
        }
        _ => return None,
    })
}

/// Flushing and rounding: every value comes out as one of the ways that the names allow, and the ways are printed.
pub(crate) fn rounding_types(device: Device) -> Result<(), Failed> {
    let bench = Bench::new(device)?;
    let values = words(&mut Random::new(6));
    let bytes: Vec<u8> = values.iter().flat_map(|word| word.to_le_bytes()).collect();
    for data_type in [DataType::F32Ftz, DataType::Tf32, DataType::Tf32Ftz] {
        let seen = through(&bench, data_type, &bytes)?;
        let mut ways = std::collections::BTreeMap::<&str, (u32, u32, u32)>::new();
        for (&value, seen) in values.iter().zip(seen.chunks(4)) {
            let seen = u32::from_le_bytes([seen[0], seen[1], seen[2], seen[3]]);
            let way = described(value, seen)
                .ok_or_else(|| format!("{data_type}: {value:#010x} came out as {seen:#010x}"))?;
            let rounds = !matches!(
                way,
                "unchanged" | "denormals to zero of the same sign" | "denormals to plus zero"
            );
            ensure(!rounds || data_type != DataType::F32Ftz, || {
                format!("{data_type} rounds {value:#010x} to {seen:#010x}")
            })?;
            let entry = ways.entry(way).or_insert((0, value, seen));
            entry.0 += 1;
        }
        for (way, (count, value, seen)) in ways {
            println!("{data_type}: {count} {way}, for instance {value:#010x} to {seen:#010x}");
        }
    }
    Ok(())
}
