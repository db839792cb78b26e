//! Copies of tiles through maps that the driver encoded, both ways, judged byte by byte.

use std::collections::BTreeMap;

use kasmina_gpu_test::{Cases, Failed, ensure};
use kasmina_sys::Device;
use kasmina_tma::{BoundTensorMap, DataType, OobFill, Swizzle, TensorMap};

use crate::cases::{Case, SWIZZLES, Wish};
use crate::clipping::{Clipping, Clippings};
use crate::fills::Fills;
use crate::kernels::{Bench, Map};
use crate::oracle::Pitch;
use crate::random::{Random, WHOLE_BYTES, bytes_of};

/// Random cases of each type, swizzle, rank and fill, beside the first.
const VARIANTS: u32 = 3;

/// What all cases have seen so far.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    pub(crate) fills: Fills,
    /// How often each pitch alone explained a tile whose rows are narrower than the span.
    pitches: BTreeMap<Pitch, u32>,
    pub(crate) cases: u32,
    pub(crate) tiles: usize,
}

impl Judge {
    /// Compares all slots of a case with what `memory` says.
    pub(crate) fn check(&mut self, case: &Case, memory: &[u8], slots: &[u8]) -> Result<(), Failed> {
        let slot_bytes = case.copies().slot_bytes;
        ensure(slots.len() == case.tiles.len() * slot_bytes, || "a slot is missing".into())?;
        let mut fitting: Vec<Pitch> = Pitch::ALL.to_vec();
        let mut wrong = String::new();
        for (at, seen) in case.tiles.iter().zip(slots.chunks(slot_bytes)) {
            let slot = case.slot(memory, at);
            fitting.retain(|&pitch| {
                // What a wrong pitch takes for fill is not remembered.
                let mut fills = self.fills.clone();
                let is_fill = |bytes: &[u8]| fills.check(case.data_type, case.fill, bytes);
                match slot.judge(seen, pitch, is_fill) {
                    Ok(()) => {
                        self.fills = fills;
                        true
                    }
                    Err(why) => {
                        wrong += &format!("\n  tile at {at:?}, rows {pitch:?}: {why}");
                        false
                    }
                }
            });
        }
        ensure(!fitting.is_empty(), || format!("{case:?}{wrong}"))?;
        if let [only] = fitting[..] {
            *self.pitches.entry(only).or_default() += 1;
        }
        self.cases += 1;
        self.tiles += case.tiles.len();
        Ok(())
    }

    /// All tiles of all cases must lie in one way, and the way is printed.
    pub(crate) fn finish(self, what: &str) -> Result<(), Failed> {
        println!(
            "{what}: {} cases, {} tiles, every byte right; rows narrower than the span: {:?}; fills:{}",
            self.cases, self.tiles, self.pitches, self.fills
        );
        ensure(self.pitches.len() <= 1, || {
            format!("narrow rows lie in more than one way: {:?}", self.pitches)
        })
    }
}

/// Every type, swizzle, rank and fill, a few times each.
pub(crate) fn each_wish(
    variants: u32,
    mut body: impl FnMut(Wish, u32) -> Result<(), Failed>,
) -> Result<(), Failed> {
    for data_type in WHOLE_BYTES {
        for swizzle in SWIZZLES {
            for rank in 1..=5 {
                for fill in [OobFill::Zero, OobFill::Nan] {
                    if fill == OobFill::Nan && !data_type.is_float() {
                        continue;
                    }
                    for variant in 0..variants {
                        let steps = variant % 2 == 1;
                        let full_rows = variant == 0;
                        let wish = Wish {
                            data_type,
                            swizzle,
                            rank,
                            fill,
                            full_rows,
                            steps,
                            disjoint: false,
                        };
                        body(wish, variant).map_err(|failed| {
                            let message = failed.message().to_owned();
                            Failed::from(format!(
                                "{data_type}, {swizzle:?}, rank {rank}: {message}"
                            ))
                        })?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// (b) Loads: fill, ragged edges, element strides, tiles wholly outside.
pub(crate) fn loads(device: Device) -> Result<(), Failed> {
    let bench = Bench::new(device)?;
    let cases = Cases::from_environment(VARIANTS)?;
    let mut random = Random::new(cases.seed);
    let mut judge = Judge::default();
    each_wish(cases.count, |wish, _| {
        let case = Case::draw(&mut random, wish);
        let memory = case.memory(&mut random);
        let buffer = bench.buffer(&memory)?;
        let geometry = case.geometry()?;
        let bytes = (geometry.box_bytes(), geometry.transaction_bytes());
        let right = case.box_bytes() as u64;
        ensure(bytes == (right, right), || {
            format!("{bytes:?} bytes, {right} are right: {case:?}")
        })?;
        let map = BoundTensorMap::encode(buffer.slice(case.start..)?, &geometry)?;
        // SAFETY: the buffer lives until `load` has waited for the kernel.
        let map = Map::Value(unsafe { map.unbound() });
        let slots = bench.load(map, &case.copies())?;
        judge.check(&case, &memory, &slots)
    })?;
    judge.finish("loads")
}

/// (b) Stores: elements inside change, and nothing else of the buffer; but see `clipping` for the ends of rows.
pub(crate) fn stores(device: Device) -> Result<(), Failed> {
    let bench = Bench::new(device)?;
    let cases = Cases::from_environment(1)?;
    let mut random = Random::new(cases.seed);
    let mut clippings = Clippings::default();
    each_wish(cases.count, |wish, _| {
        if wish.fill == OobFill::Nan {
            // Stores fill nothing.
            return Ok(());
        }
        let wish = Wish { full_rows: true, steps: false, disjoint: true, ..wish };
        let case = Case::draw(&mut random, wish);
        let before = case.memory(&mut random);
        let buffer = bench.buffer(&before)?;
        let (mut stored, mut slots) = (Vec::new(), Vec::new());
        for at in &case.tiles {
            let values = random.elements(case.data_type, case.elements(at).len());
            slots.extend(case.filled_slot(&values, Pitch::Packed));
            stored.push((at, values));
        }
        let expected = |clipping| {
            let mut memory = before.clone();
            stored.iter().for_each(|(at, values)| case.store(&mut memory, at, values, clipping));
            memory
        };
        // SAFETY: the buffer lives until `store` has waited for the kernel.
        let map = unsafe { TensorMap::encode(&bench.context, &case.request(buffer.address())?) }?;
        bench.store(Map::Value(map), &case.copies(), &slots)?;
        let seen = buffer.to_vec()?;
        clippings.check(&seen, expected, |exact| same(&seen, exact, &case))
    })?;
    clippings.finish("stores")
}

/// The memory after the tiles of a case were loaded from `source`, with zeros outside, and stored.
pub(crate) fn carried(case: &Case, source: &[u8], to: &[u8], clipping: Clipping) -> Vec<u8> {
    let mut memory = to.to_vec();
    for at in &case.tiles {
        let value = |place: Option<usize>| {
            place.map_or(vec![0; case.tensor.element], |at| {
                source[at..at + case.tensor.element].to_vec()
            })
        };
        let values: Vec<u8> = case.elements(at).into_iter().flat_map(value).collect();
        case.store(&mut memory, at, &values, clipping);
    }
    memory
}

/// A tile that was loaded is stored as it lies: whatever the rows' pitch is, both ways have to agree on it. Fills are zeros.
pub(crate) fn round_trips(device: Device) -> Result<(), Failed> {
    let bench = Bench::new(device)?;
    let cases = Cases::from_environment(1)?;
    let mut random = Random::new(cases.seed);
    let mut clippings = Clippings::default();
    each_wish(cases.count, |wish, _| {
        if wish.fill == OobFill::Nan {
            return Ok(());
        }
        let wish = Wish { full_rows: false, steps: false, disjoint: true, ..wish };
        let case = Case::draw(&mut random, wish);
        let source = case.memory(&mut random);
        let before = case.memory(&mut random);
        let (from, to) = (bench.buffer(&source)?, bench.buffer(&before)?);
        let map = |buffer: u64| -> Result<Map, Failed> {
            // SAFETY: both buffers live until the kernels have been waited for.
            Ok(Map::Value(unsafe { TensorMap::encode(&bench.context, &case.request(buffer)?) }?))
        };
        let slots = bench.load(map(from.address())?, &case.copies())?;
        bench.store(map(to.address())?, &case.copies(), &slots)?;
        let seen = to.to_vec()?;
        let expected = |clipping| carried(&case, &source, &before, clipping);
        clippings.check(&seen, expected, |exact| same(&seen, exact, &case))
    })?;
    clippings.finish("round trips")
}

/// Sums through a map, of small whole numbers, which every type adds exactly.
pub(crate) fn sums(device: Device) -> Result<(), Failed> {
    let bench = Bench::new(device)?;
    let cases = Cases::from_environment(4)?;
    let mut random = Random::new(cases.seed);
    let mut clippings = Clippings::default();
    for data_type in [DataType::U32, DataType::F32, DataType::F16, DataType::Bf16] {
        for rank in 1..=5 {
            for _ in 0..cases.count {
                sum(&bench, &mut random, &mut clippings, data_type, rank)?;
            }
        }
    }
    clippings.finish("sums")
}

fn sum(
    bench: &Bench,
    random: &mut Random,
    clippings: &mut Clippings,
    data_type: DataType,
    rank: usize,
) -> Result<(), Failed> {
    let (swizzle, fill) = (Swizzle::None, OobFill::Zero);
    let wish =
        Wish { data_type, swizzle, rank, fill, full_rows: true, steps: false, disjoint: true };
    let case = Case::draw(random, wish);
    let element = bytes_of(data_type);
    let mut numbers =
        |count: usize| -> Vec<u32> { (0..count).map(|_| random.size(0, 60) as u32).collect() };
    let places = (case.start + case.tensor.bytes()) / element + 8;
    let before = numbers(places);
    let encode = |numbers: &[u32]| -> Vec<u8> {
        numbers.iter().flat_map(|&number| encoded(data_type, number)).collect()
    };
    let buffer = bench.buffer(&encode(&before))?;
    let (mut added, mut slots) = (Vec::new(), Vec::new());
    for at in &case.tiles {
        let values = numbers(case.elements(at).len());
        slots.extend(case.filled_slot(&encode(&values), Pitch::Packed));
        added.push((at, values));
    }
    let expected = |clipping| {
        let mut sums = before.clone();
        for (at, values) in &added {
            // Zeros that are added behind a row's end leave it as it was.
            let places =
                if clipping == Clipping::Pieces { case.stored_to(at) } else { case.elements(at) };
            for (value, place) in values.iter().zip(places) {
                if let Some(place) = place {
                    sums[place / element] += value;
                }
            }
        }
        encode(&sums)
    };
    // SAFETY: the buffer lives until `add` has waited for the kernel.
    let map = unsafe { TensorMap::encode(&bench.context, &case.request(buffer.address())?) }?;
    bench.add(map, &case.copies(), &slots)?;
    let seen = buffer.to_vec()?;
    clippings.check(&seen, expected, |exact| same(&seen, exact, &case))
}

/// A whole number up to 127 as an element.
fn encoded(data_type: DataType, number: u32) -> Vec<u8> {
    let single = number as f32;
    match data_type {
        DataType::F32 => single.to_le_bytes().to_vec(),
        // Seven bits and a leading one fit in the upper half.
        DataType::Bf16 => single.to_le_bytes()[2..].to_vec(),
        DataType::F16 => {
            let bits = single.to_bits();
            let half =
                if number == 0 { 0 } else { ((bits >> 23) - 112) << 10 | (bits >> 13 & 0x3ff) };
            (half as u16).to_le_bytes().to_vec()
        }
        _ => number.to_le_bytes().to_vec(),
    }
}

/// 1-D bulk copies, of every length around the chunk.
pub(crate) fn bytes(device: Device) -> Result<(), Failed> {
    let bench = Bench::new(device)?;
    let mut random = Random::new(Cases::from_environment(1)?.seed);
    for chunk in [16u32, 1024, 16 << 10] {
        for length in [0usize, 16, 1024, 16 << 10, (16 << 10) + 16, 3 << 20, (5 << 20) - 48] {
            let source = random.bytes(length);
            let (from, mut to) = (bench.buffer(&source)?, bench.buffer(&vec![0u8; length])?);
            bench.copy_bytes(from.as_slice(), to.as_mut_slice(), chunk)?;
            ensure(to.to_vec()? == source, || {
                format!("{length} bytes in chunks of {chunk} differ")
            })?;
        }
    }
    Ok(())
}

fn same(seen: &[u8], expected: &[u8], case: &Case) -> Result<(), Failed> {
    let differs = seen.iter().zip(expected).position(|(seen, expected)| seen != expected);
    match differs {
        None => ensure(seen.len() == expected.len(), || "lengths differ".into()),
        Some(at) => {
            let (seen, expected) = (seen[at], expected[at]);
            Err(format!(
                "byte {at} (the tensor begins at {}) is {seen:#04x}, expected {expected:#04x}: {case:?}",
                case.start
            )
            .into())
        }
    }
}
