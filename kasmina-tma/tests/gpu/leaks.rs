//! Rounds upon rounds, and nothing stays behind.

use kasmina_gpu_test::{Cases, Failed, ensure};
use kasmina_sys::{Context, Device, DeviceBuffer, Stream};
use kasmina_tma::{
    BoundTensorMap, DataType, DescriptorCache, EditWay, Geometry, MapEditor, MapTable, TmaSupport,
};

/// What the process may grow by: the allocator's own slack.
const HOST_SLACK_BYTES: u64 = 8 << 20;
const WARM_UP: u32 = 500;

/// (e) Buffers come and go; their maps are encoded, cached, and written to tables.
pub(crate) fn rounds(device: Device) -> Result<(), Failed> {
    let support = TmaSupport::detect(&device);
    if !support.is_supported() {
        return Err(kasmina_gpu_test::not_applicable(support));
    }
    let rounds = Cases::from_environment(10_000)?.count;
    let context = Context::primary(device)?;
    let stream = Stream::new(&context)?;
    let cache = DescriptorCache::new();
    let editors = [EditWay::Replace, EditWay::Write, EditWay::Copy]
        .map(|way| MapEditor::at_best(&context, way))
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    for round in 0..WARM_UP {
        one(&context, &stream, &cache, &editors, round)?;
    }
    let before = Usage::of(&context, &stream)?;
    for round in 0..rounds {
        one(&context, &stream, &cache, &editors, round)?;
    }
    let after = Usage::of(&context, &stream)?;
    println!("{rounds} rounds: {before:?} before, {after:?} after; {:?}", cache.stats());
    let entries = cache.len();
    ensure(entries <= cache.capacity().get(), || format!("{entries} entries"))?;
    ensure(cache.sweep() == entries && cache.is_empty(), || {
        "entries of buffers that are gone stay".into()
    })?;
    ensure(after.pool <= before.pool, || {
        format!("device memory: {before:?} before, {after:?} after")
    })?;
    let grown = after.host.saturating_sub(before.host);
    ensure(grown <= HOST_SLACK_BYTES, || format!("the process grew by {grown} bytes"))
}

fn one(
    context: &Context,
    stream: &Stream,
    cache: &DescriptorCache,
    editors: &[MapEditor],
    round: u32,
) -> Result<(), Failed> {
    let geometry = Geometry::tiled(DataType::F32)
        .sizes(&[64, 8 + u64::from(round % 7)])
        .box_sides(&[32, 8])
        .build()?;
    let buffer = DeviceBuffer::<f32>::unwritten(stream, 64 * 16)?;
    let encoded = BoundTensorMap::encode(buffer.as_slice(), &geometry)?;
    let cached = cache.get(buffer.as_slice(), &geometry)?;
    let again = cache.get(buffer.as_slice(), &geometry)?;
    ensure(encoded == cached && cached == again, || format!("{encoded:?}, {cached:?}, {again:?}"))?;
    if round.is_multiple_of(8) {
        let editor = &editors[(round / 8) as usize % editors.len()];
        let mut table = MapTable::new(editor, stream, 2)?;
        table.set(0, buffer.as_slice(), &geometry)?;
        table.set(0, buffer.as_slice(), &geometry)?;
        table.close()?;
    }
    if round.is_multiple_of(1000) {
        // An editor of its own loads the kernels, and unloads them.
        drop(MapEditor::new(context)?);
    }
    Ok(buffer.close()?)
}

/// Bytes in use.
#[derive(Debug)]
struct Usage {
    /// Of the context's pool, or of the whole device where it has none.
    pool: u64,
    /// Resident on the host; 0 where the system does not tell.
    host: u64,
}

impl Usage {
    fn of(context: &Context, stream: &Stream) -> Result<Self, Failed> {
        stream.synchronize()?;
        let pool = match context.pool_usage()? {
            Some(usage) => usage.used,
            None => {
                let (free, total) = context.memory_info()?;
                total - free
            }
        };
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib =
            line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok());
        Ok(Self { pool, host: kib.unwrap_or(0) << 10 })
    }
}
