//! Checkpoints from anywhere: loading never panics, and what loads saves to a file that loads as the same.
//!
//! Sums would stop almost every mutation at the door, so each input is tried twice: as it is, and with all its
//! sums made to fit, as someone would who wants to get in.
#![no_main]

use kasmina_core::lifecycle::SeedRow;
use kasmina_core::{LayerState, Registry, State};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    load(bytes);
    if let Some(sealed) = seal(bytes) {
        load(&sealed);
    }
});

fn load(bytes: &[u8]) {
    let Ok(mut state) = LayerState::from_bytes(bytes, &Registry::empty()) else {
        return;
    };
    state
        .lifecycle
        .verify()
        .expect("a loaded lifecycle is whole");
    let saved = state.to_bytes().expect("what loads can be saved");
    let again = LayerState::from_bytes(&saved, state.lifecycle.registry()).expect("and loaded");
    assert!(
        again.to_bytes().expect("and saved") == saved,
        "and is the same"
    );
    // The layer can go on.
    state.lifecycle.advance_step();
    drop(state.lifecycle.end_epoch());
    let seeds = state.lifecycle.layout().seeds();
    (0..seeds.min(64)).for_each(|seed| drop(state.lifecycle.readiness(seed)));
    state.lifecycle.verify().expect("still whole");
}

/// The same file with every sum made to fit; `None` if it is too damaged to have any.
fn seal(bytes: &[u8]) -> Option<Vec<u8>> {
    let length = usize::try_from(u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?)).ok()?;
    let header = bytes.get(8..)?.get(..length)?;
    let mut header: Value = serde_json::from_slice(header).ok()?;
    let mut data = bytes[8 + length..].to_vec();
    let range = |header: &Value, name: &str| {
        let offset =
            |i: usize| Some(header.get(name)?.get("data_offsets")?.get(i)?.as_u64()? as usize);
        Some(offset(0)?..offset(1)?)
    };
    let entry = header
        .get("__metadata__")?
        .get("kasmina")?
        .as_str()?
        .to_owned();
    let mut settings: Value = serde_json::from_str(entry.splitn(4, ' ').nth(3)?).ok()?;

    let column = |name: &str| data.get(range(&header, name)?).map(<[u8]>::to_vec);
    if let (Some(state), Some(blueprint), Some(strategy), Some(alpha)) = (
        column("seed.state"),
        column("seed.blueprint"),
        column("seed.strategy"),
        column("seed.alpha"),
    ) && let (Some(entered), Some(updated), Some(embargo)) = (
        column("seed.entered_epoch"),
        column("seed.last_update_epoch"),
        column("seed.embargo_until"),
    ) && let Some(sums) = range(&header, "seed.crc32").and_then(|range| data.get_mut(range))
    {
        for (seed, sum) in sums.chunks_exact_mut(4).enumerate() {
            let u16s = |c: &[u8]| {
                Some(u16::from_le_bytes(
                    c.get(2 * seed..2 * seed + 2)?.try_into().ok()?,
                ))
            };
            let u32s = |c: &[u8]| {
                Some(u32::from_le_bytes(
                    c.get(4 * seed..4 * seed + 4)?.try_into().ok()?,
                ))
            };
            let row = SeedRow {
                state: State::try_from(*state.get(seed)?).ok()?,
                blueprint: u16s(&blueprint)?,
                strategy: u16s(&strategy)?,
                alpha: f32::from_bits(u32s(&alpha)?),
                entered_epoch: u32s(&entered)?,
                last_update_epoch: u32s(&updated)?,
                embargo_until: u32s(&embargo)?,
            };
            sum.copy_from_slice(&row.crc32(seed as u32).to_le_bytes());
        }
    }
    let names: Vec<String> = header.as_object()?.keys().cloned().collect();
    for name in names {
        if let Some(bytes) = range(&header, &name).and_then(|range| data.get(range))
            && let Some(sum) = settings.get_mut("tensors").and_then(|t| t.get_mut(&name))
        {
            *sum = crc32fast::hash(bytes).into();
        }
    }
    let json = settings.to_string();
    let sum = crc32fast::hash(json.as_bytes());
    header["__metadata__"]["kasmina"] = format!("layer 2 {sum:08x} {json}").into();
    let mut json = serde_json::to_vec(&header).ok()?;
    json.resize(json.len().next_multiple_of(8), b' ');
    Some([(json.len() as u64).to_le_bytes().as_slice(), &json, &data].concat())
}
