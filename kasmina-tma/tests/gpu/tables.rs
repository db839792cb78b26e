//! Maps in global memory: encoded on the host or changed on the device, they have to do the same, in launches and in graphs.

use kasmina_gpu_test::{Cases, Failed, ensure, not_applicable};
use kasmina_sys::{CaptureMode, Device, DeviceBuffer, Error, Graph};
use kasmina_tma::{
    DataType, EditWay, Geometry, L2Promotion, MapEditor, MapPatch, MapTable, NotPatchable, OobFill,
    Swizzle, TableError, TensorMap, TensorMapRequest,
};

use crate::cases::{Case, Wish};
use crate::clipping::Clippings;
use crate::kernels::{Bench, Map, Run};
use crate::random::Random;
use crate::tiles::{Judge, carried, each_wish};

const WAYS: [EditWay; 3] = [EditWay::Replace, EditWay::Write, EditWay::Copy];

fn editor_for(bench: &Bench, way: EditWay) -> Result<Option<MapEditor>, Failed> {
    let editor = MapEditor::at_best(&bench.context, way)?;
    if editor.way() == way {
        return Ok(Some(editor));
    }
    println!("no table by {way}: {:?}", editor.passed_over());
    Ok(None)
}

/// A case with one L2 promotion, which a slot keeps.
fn draw(random: &mut Random, wish: Wish) -> Case {
    Case { l2_promotion: L2Promotion::Bytes128, ..Case::draw(random, wish) }
}

fn draw_any(random: &mut Random) -> Case {
    let wish = Wish {
        data_type: random.pick(&crate::random::WHOLE_BYTES),
        swizzle: random.pick(&crate::cases::SWIZZLES),
        rank: random.size(1, 5),
        fill: OobFill::Zero,
        full_rows: random.one_in(2),
        steps: random.one_in(2),
        disjoint: false,
    };
    draw(random, wish)
}

/// A tensor with its memory.
struct Loaded {
    case: Case,
    memory: Vec<u8>,
    buffer: DeviceBuffer<u8>,
}

impl Loaded {
    fn new(bench: &Bench, random: &mut Random, case: Case) -> Result<Self, Failed> {
        let memory = case.memory(random);
        let buffer = bench.buffer(&memory)?;
        Ok(Self { case, memory, buffer })
    }

    fn request(&self) -> Result<TensorMapRequest, Failed> {
        Ok(self.case.request(self.buffer.address())?)
    }

    fn encoded(&self, bench: &Bench) -> Result<TensorMap, Failed> {
        // SAFETY: used for its bytes, and for kernels that are waited for while the buffer lives.
        Ok(unsafe { TensorMap::encode(&bench.context, &self.request()?) }?)
    }
}

/// (c) The load test again, through maps that lie in a table and were something else before.
pub(crate) fn loads(device: Device) -> Result<(), Failed> {
    let bench = Bench::new(device)?;
    let cases = Cases::from_environment(1)?;
    for way in WAYS {
        let Some(editor) = editor_for(&bench, way)? else { continue };
        let mut random = Random::new(cases.seed);
        let mut judge = Judge::default();
        let (mut equal, mut different) = (0, Vec::new());
        each_wish(cases.count, |wish, _| {
            let old = draw_any(&mut random);
            let old = Loaded::new(&bench, &mut random, old)?;
            let case = draw(&mut random, Wish { steps: random_bool(wish), ..wish });
            let new = Loaded::new(&bench, &mut random, case)?;
            let mut table = MapTable::new(&editor, &bench.stream, 3)?;
            let first = table.set(1, old.buffer.slice(old.case.start..)?, &old.case.geometry()?)?;
            let second =
                table.set(1, new.buffer.slice(new.case.start..)?, &new.case.geometry()?)?;
            let written = matches!(second.not_patchable, Some(NotPatchable::TypeChange { .. }));
            let expected = if written { EditWay::Write } else { way };
            ensure(second.way == expected && first.way == way.max(EditWay::Write), || {
                format!("{first:?}, then {second:?}, by {way}")
            })?;
            let maps = table.to_vec()?;
            let zeros = maps[0] == TensorMap::ZERO && maps[2] == TensorMap::ZERO;
            ensure(zeros, || "a neighbouring slot was written".into())?;
            let right = new.encoded(&bench)?;
            // The hardware's half; the other one is the driver's notes.
            if maps[1].as_bytes()[..64] != right.as_bytes()[..64] {
                // Not loaded through: a wrong map can end the context, and then this would be all that is known.
                different.push(format!(
                    "{}\n  before {:?}\n  device {:?}\n  host   {right:?}",
                    new.request()?,
                    old.encoded(&bench)?,
                    maps[1],
                ));
                return Ok(());
            }
            equal += 1;
            let slots = bench.load(Map::At(table.pointer(1)?), &new.case.copies())?;
            judge.check(&new.case, &new.memory, &slots)
        })?;
        for different in different.iter().take(5) {
            println!("differs: {different}");
        }
        ensure(different.is_empty(), || {
            format!(
                "{way}: {} maps have not the bits that the driver gives them, {equal} have",
                different.len()
            )
        })?;
        judge.finish(&format!("tables, {way}"))?;
    }
    Ok(())
}

/// Steps in every other kind of case.
fn random_bool(wish: Wish) -> bool {
    (wish.rank + wish.data_type.code() as usize) % 2 == 1
}

/// Stores through maps that were changed on the device.
pub(crate) fn stores(device: Device) -> Result<(), Failed> {
    let bench = Bench::new(device)?;
    let cases = Cases::from_environment(1)?;
    let editor = MapEditor::new(&bench.context)?;
    let mut random = Random::new(cases.seed);
    let mut clippings = Clippings::default();
    for swizzle in crate::cases::SWIZZLES {
        for rank in 1..=5 {
            let wish = Wish {
                data_type: DataType::U16,
                swizzle,
                rank,
                fill: OobFill::Zero,
                full_rows: false,
                steps: false,
                disjoint: true,
            };
            let case = draw(&mut random, wish);
            let from = Loaded::new(&bench, &mut random, case.clone())?;
            let to = Loaded::new(&bench, &mut random, case)?;
            let mut table = MapTable::new(&editor, &bench.stream, 1)?;
            table.set(0, from.buffer.slice(from.case.start..)?, &from.case.geometry()?)?;
            let slots = bench.load(Map::At(table.pointer(0)?), &from.case.copies())?;
            // The same slot, moved to the other buffer.
            let moved = table.set(0, to.buffer.slice(to.case.start..)?, &to.case.geometry()?)?;
            ensure(moved.way == editor.way(), || format!("{moved:?}"))?;
            bench.store(Map::At(table.pointer(0)?), &to.case.copies(), &slots)?;
            let seen = to.buffer.to_vec()?;
            let expected = |clipping| carried(&to.case, &from.memory, &to.memory, clipping);
            let wrong = |_: &[u8]| Err(format!("differs after stores: {:?}", to.case).into());
            clippings.check(&seen, expected, wrong)?;
        }
    }
    clippings.finish("stores through tables")
}

/// One matrix of `rows` rows in tiles of 8, at a fixed width, for tests of many buffers.
fn matrix(random: &mut Random, rows: usize) -> Case {
    let wish = Wish {
        data_type: DataType::U32,
        swizzle: Swizzle::Span128,
        rank: 2,
        fill: OobFill::Zero,
        full_rows: true,
        steps: false,
        disjoint: false,
    };
    let mut case = draw(random, wish);
    case.tensor.sizes = vec![40, rows];
    case.tensor.strides = vec![176];
    (case.sides, case.steps) = (vec![32, 8], vec![1, 1]);
    case.tiles = (0..6).flat_map(|row| [vec![0, row * 8 - 3], vec![32, row * 8 - 3]]).collect();
    case
}

/// (c) One graph, replayed with maps that change in between and inside.
pub(crate) fn graphs(device: Device) -> Result<(), Failed> {
    let bench = Bench::new(device)?;
    let rounds = Cases::from_environment(50)?;
    for way in WAYS {
        let Some(editor) = editor_for(&bench, way)? else { continue };
        let mut random = Random::new(rounds.seed);
        let first = matrix(&mut random, 30);
        let first = Loaded::new(&bench, &mut random, first)?;
        let others = (0..3)
            .map(|i| {
                let case = matrix(&mut random, 1 + 20 * i);
                Loaded::new(&bench, &mut random, case)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let mut table = MapTable::new(&editor, &bench.stream, 2)?;
        table.set(0, first.buffer.slice(first.case.start..)?, &first.case.geometry()?)?;
        let mut run = Run::new(&bench, &first.case.copies())?;
        let map = Map::At(table.pointer(0)?);
        let graph = Graph::capture(&bench.stream, CaptureMode::ThreadLocal, |_| {
            bench.queue_load(map, &mut run)
        })?;
        let replay = graph.instantiate()?;
        let mut judge = Judge::default();
        for _ in 0..rounds.count {
            let loaded = &others[random.size(0, others.len() - 1)];
            let edited = table.set(
                0,
                loaded.buffer.slice(loaded.case.start..)?,
                &loaded.case.geometry()?,
            )?;
            ensure(edited.way == way, || format!("{edited:?} by {way}"))?;
            run.set_tiles(&loaded.case.copies().tiles)?;
            // SAFETY: the table, the run and all buffers live until `finish` has waited.
            unsafe { replay.launch(&bench.stream) }?;
            judge.check(&loaded.case, &loaded.memory, &run.finish()?)?;
        }
        judge.finish(&format!("graph with edits between replays, {way}"))?;
    }
    Ok(())
}

/// (c) An edit that is itself part of the graph: whatever was in the slot, each replay brings the captured map back.
pub(crate) fn captured_edits(device: Device) -> Result<(), Failed> {
    let bench = Bench::new(device)?;
    for way in [EditWay::Replace, EditWay::Write] {
        let Some(editor) = editor_for(&bench, way)? else { continue };
        let mut random = Random::new(1);
        let (a, b) = (matrix(&mut random, 30), matrix(&mut random, 17));
        let (a, b) = (Loaded::new(&bench, &mut random, a)?, Loaded::new(&bench, &mut random, b)?);
        let mut table = MapTable::new(&editor, &bench.stream, 1)?;
        table.set(0, a.buffer.slice(a.case.start..)?, &a.case.geometry()?)?;
        let mut run = Run::new(&bench, &b.case.copies())?;
        let (map, request) = (Map::At(table.pointer(0)?), b.request()?);
        let graph = Graph::capture(&bench.stream, CaptureMode::ThreadLocal, |_| {
            // SAFETY: the buffer outlives the graph's replays.
            unsafe { table.set_request(0, &request) }.map_err(driver_error)?;
            bench.queue_load(map, &mut run)
        })?;
        let nodes = graph.nodes()?;
        ensure(nodes == 2, || format!("{nodes} nodes"))?;
        let replay = graph.instantiate()?;
        let mut judge = Judge::default();
        for _ in 0..5 {
            table.set(0, a.buffer.slice(a.case.start..)?, &a.case.geometry()?)?;
            // SAFETY: the table, the run and both buffers live until `finish` has waited.
            unsafe { replay.launch(&bench.stream) }?;
            judge.check(&b.case, &b.memory, &run.finish()?)?;
        }
        judge.finish(&format!("graph with the edit inside, {way}"))?;
    }
    Ok(())
}

/// A capture's body has the driver's errors alone.
fn driver_error(error: TableError) -> Error {
    match error {
        TableError::Driver(error) => error,
        other => panic!("no error of a driver call: {other}"),
    }
}

/// (c) Patches that lie in device memory, applied by a graph's node with new values at each replay: moved, resized, and whole.
pub(crate) fn patches_in_device_memory(device: Device) -> Result<(), Failed> {
    let bench = Bench::new(device)?;
    let rounds = Cases::from_environment(30)?;
    let Some(editor) = editor_for(&bench, EditWay::Replace)? else {
        return Err(not_applicable("this device's code has no tensormap.replace"));
    };
    let mut random = Random::new(rounds.seed);
    let sizes = [30, 1, 41, 30];
    let tensors = sizes
        .map(|rows| {
            let case = matrix(&mut random, rows);
            Loaded::new(&bench, &mut random, case)
        })
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    let mut table = MapTable::new(&editor, &bench.stream, 2)?;
    for slot in 0..2 {
        table.set(
            slot,
            tensors[0].buffer.slice(tensors[0].case.start..)?,
            &tensors[0].case.geometry()?,
        )?;
    }
    let base = MapPatch::whole(0, &tensors[0].request()?)?;
    // The second is of a slot that is not there, and must be left out.
    let mut patches = DeviceBuffer::from_host(&bench.stream, &[base, base.in_slot(2)])?;
    let mut run = Run::new(&bench, &tensors[0].case.copies())?;
    let map = Map::At(table.pointer(0)?);
    let graph = Graph::capture(&bench.stream, CaptureMode::ThreadLocal, |_| {
        // SAFETY: what the patches are is changed below to requests whose buffers live.
        unsafe { table.patch_from(patches.as_slice()) }.map_err(driver_error)?;
        bench.queue_load(map, &mut run)
    })?;
    let replay = graph.instantiate()?;
    let untouched = table.to_vec()?[1];
    let mut judge = Judge::default();
    for round in 0..rounds.count {
        // Whole ones now and then; in between only what differs from the last: 0 and 3 have the same size.
        let loaded = &tensors[[0, 3, 2, 1][round as usize % 4]];
        let request = loaded.request()?;
        let patch = match round % 4 {
            0 => MapPatch::whole(0, &request),
            1 => MapPatch::moved(0, &request),
            _ => MapPatch::resized(0, &request),
        }?;
        patches.copy_from_host(&[patch, patch.in_slot(2)])?;
        run.set_tiles(&loaded.case.copies().tiles)?;
        // SAFETY: the table, the run, the patches and all buffers live until `finish` has waited.
        unsafe { replay.launch(&bench.stream) }?;
        judge.check(&loaded.case, &loaded.memory, &run.finish()?)?;
    }
    ensure(table.to_vec()?[1] == untouched, || "another slot was written".into())?;
    judge.finish("graph with patches in device memory")
}

/// (c) A map that a block changes and uses in one and the same launch.
pub(crate) fn one_launch(device: Device) -> Result<(), Failed> {
    let bench = Bench::new(device)?;
    let rounds = Cases::from_environment(20)?;
    let editor = MapEditor::new(&bench.context)?;
    let mut random = Random::new(rounds.seed);
    let mut judge = Judge::default();
    for _ in 0..rounds.count {
        // One buffer with a tensor for each block, `step` bytes apart.
        let blocks = random.size(1, 12);
        let case = matrix(&mut random, random_rows(blocks));
        let step = case.tensor.bytes().next_multiple_of(256) + 16;
        let memory = random.bytes(case.start + step * blocks + 512);
        let buffer = bench.buffer(&memory)?;
        let request = case.request(buffer.address())?;
        let other = Loaded::new(&bench, &mut random, case.clone())?;
        let mut table = MapTable::new(&editor, &bench.stream, blocks + 1)?;
        for slot in 1..=blocks {
            table.set(slot, other.buffer.slice(other.case.start..)?, &other.case.geometry()?)?;
        }
        let patch = MapPatch::moved(1, &request)?;
        let copies = case.copies();
        let slots =
            bench.patch_and_load(table.pointer(0)?, patch, step as u64, blocks as u32, &copies)?;
        let Some(slots) = slots else {
            return Err(not_applicable("this device's code has no tensormap.replace"));
        };
        // Tile i went through the map of block i modulo `blocks`.
        for (i, slot) in slots.chunks(copies.slot_bytes).enumerate() {
            let shifted = Case {
                start: case.start + i % blocks * step,
                tiles: vec![case.tiles[i].clone()],
                ..case.clone()
            };
            judge.check(&shifted, &memory, slot)?;
        }
    }
    judge.finish("maps changed and used in one launch")
}

fn random_rows(blocks: usize) -> usize {
    20 + blocks % 7
}

/// Every misuse has its own error, and leaves the table as it was.
pub(crate) fn misuse(device: Device) -> Result<(), Failed> {
    let bench = Bench::new(device)?;
    let buffer = DeviceBuffer::<u32>::zeroed(&bench.stream, 4096)?;
    let geometry = |promotion| {
        let tiled = Geometry::tiled(DataType::U32).sizes(&[64, 64]).box_sides(&[32, 8]);
        tiled.l2_promotion(promotion).build()
    };
    let plain = geometry(L2Promotion::None)?;
    for way in WAYS {
        let Some(editor) = editor_for(&bench, way)? else { continue };
        let mut table = MapTable::new(&editor, &bench.stream, 1)?;
        let error = table.set(1, buffer.as_slice(), &plain).err();
        ensure(matches!(error, Some(TableError::Slot { slot: 1, slots: 1 })), || {
            format!("{error:?}")
        })?;
        let error = table.set(0, buffer.slice(1024..)?, &plain).err();
        ensure(matches!(error, Some(TableError::Encode(_))), || format!("{error:?}"))?;
        ensure(table.to_vec()? == [TensorMap::ZERO], || "a refused map was written".into())?;

        let request = plain.at(buffer.address())?;
        let mut captured = None;
        drop(Graph::capture(&bench.stream, CaptureMode::ThreadLocal, |_| {
            // SAFETY: nothing replays it.
            captured = unsafe { table.set_request(0, &request) }.err();
            Ok(())
        })?);
        let expected = matches!(captured, Some(TableError::FirstInCapture { slot: 0 }));
        ensure(expected, || format!("{captured:?}"))?;

        table.set(0, buffer.as_slice(), &plain)?;
        let before = table.to_vec()?;
        let error = table.set(0, buffer.as_slice(), &geometry(L2Promotion::Bytes256)?).err();
        ensure(matches!(error, Some(TableError::Base { slot: 0, .. })), || format!("{error:?}"))?;
        let image = Geometry::im2col(DataType::U32)
            .sizes(&[16, 8, 2])
            .corners(&[0], &[0])
            .channels_per_pixel(16)
            .pixels_per_column(4)
            .build()?;
        let error = table.set(0, buffer.as_slice(), &image).err();
        ensure(matches!(error, Some(TableError::Base { slot: 0, .. })), || format!("{error:?}"))?;
        ensure(table.to_vec()? == before, || "a refused map was written".into())?;

        let mut captured = None;
        drop(Graph::capture(&bench.stream, CaptureMode::ThreadLocal, |_| {
            // SAFETY: nothing replays it.
            captured = unsafe { table.set_request(0, &request) }.err();
            Ok(())
        })?);
        let expected = match way {
            EditWay::Copy => matches!(captured, Some(TableError::Driver(Error::Capturing { .. }))),
            _ => captured.is_none(),
        };
        ensure(expected, || format!("{captured:?} by {way}"))?;

        let patches = DeviceBuffer::from_host(&bench.stream, &[MapPatch::whole(0, &request)?])?;
        // SAFETY: it says what is there already.
        let patched = unsafe { table.patch_from(patches.as_slice()) };
        let expected = match way {
            EditWay::Replace => patched.is_ok(),
            _ => matches!(patched, Err(TableError::NotOnDevice { .. })),
        };
        ensure(expected, || format!("{patched:?} by {way}"))?;
        ensure(table.to_vec()? == before, || "the same map has other bits".into())?;
    }
    Ok(())
}

/// Many slots in one call, more than a launch takes, some of them twice.
pub(crate) fn many_slots(device: Device) -> Result<(), Failed> {
    let bench = Bench::new(device)?;
    let buffer = DeviceBuffer::<u32>::zeroed(&bench.stream, 1 << 16)?;
    let request = |rows: u64| {
        Geometry::tiled(DataType::U32)
            .sizes(&[64, rows])
            .box_sides(&[32, 8])
            .build()?
            .at(buffer.address())
    };
    for way in WAYS {
        let Some(editor) = editor_for(&bench, way)? else { continue };
        let mut table = MapTable::new(&editor, &bench.stream, 100)?;
        let firsts: Vec<(usize, TensorMapRequest)> = (0..100)
            .map(|slot| Ok((slot, request(slot as u64 + 1)?)))
            .collect::<Result<_, Failed>>()?;
        // Twice, and the later one counts.
        let again = (0..100).step_by(3).map(|slot| Ok((slot, request(500 + slot as u64)?)));
        let again: Vec<_> = again.collect::<Result<_, Failed>>()?;
        // SAFETY: the buffer outlives the table.
        let edited = unsafe { table.set_requests(&[&firsts[..], &again[..]].concat()) }?;
        ensure(edited.len() == 134, || format!("{} edits", edited.len()))?;
        for (slot, map) in table.to_vec()?.into_iter().enumerate() {
            let rows = if slot % 3 == 0 { 500 + slot as u64 } else { slot as u64 + 1 };
            // SAFETY: used for its bytes.
            let expected = unsafe { TensorMap::encode(&bench.context, &request(rows)?) }?;
            ensure(map == expected, || {
                format!("slot {slot} by {way}:\n  {map:?}\n  {expected:?}")
            })?;
        }
    }
    Ok(())
}
