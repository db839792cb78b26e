//! The kernels of `kernels/tile_copy.cu`, and what they are given.

use bytemuck::{Pod, Zeroable};
use kasmina_gpu_test::{Failed, ensure, not_applicable};
use kasmina_sys::{
    ByValue, Context, Device, DeviceBuffer, DevicePointer, DeviceSlice, DeviceSliceMut, Kernel,
    LaunchConfig, Module, Stream,
};
use kasmina_tma::{MapPatch, TensorMap, TmaSupport};

/// What shared memory holds before a load.
pub(crate) const POISON: u8 = 0xa7;
/// A copy takes microseconds; under a sanitizer, milliseconds.
const WAIT_LIMIT: u64 = 2_000_000_000;
const THREADS: u32 = 128;
/// Room to align a tile in.
const SLACK: u32 = 1024;

/// Where one copy goes, `Tile` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub(crate) struct Tile {
    pub(crate) at: [i32; 5],
    pub(crate) offsets: [u16; 3],
    unused: u16,
}

impl Tile {
    pub(crate) fn new(at: &[i32], offsets: &[u16]) -> Self {
        let mut tile = Self::zeroed();
        tile.at[..at.len()].copy_from_slice(at);
        tile.offsets[..offsets.len()].copy_from_slice(offsets);
        tile
    }
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(crate) struct Job {
    wait_limit: u64,
    rank: u32,
    tiles: u32,
    expected_bytes: u32,
    slot_bytes: u32,
    poison: u32,
    unused: u32,
}

const _: () = assert!(size_of::<Tile>() == 28 && size_of::<Job>() == 32);

/// The copies of one launch.
#[derive(Clone, Debug)]
pub(crate) struct Copies {
    pub(crate) rank: usize,
    pub(crate) tiles: Vec<Tile>,
    /// That one load counts on its barrier.
    pub(crate) expected_bytes: usize,
    /// Of shared memory for one tile.
    pub(crate) slot_bytes: usize,
}

impl Copies {
    fn job(&self) -> Job {
        Job {
            wait_limit: WAIT_LIMIT,
            rank: self.rank as u32,
            tiles: self.tiles.len() as u32,
            expected_bytes: self.expected_bytes as u32,
            slot_bytes: self.slot_bytes as u32,
            poison: u32::from_ne_bytes([POISON; 4]),
            unused: 0,
        }
    }
}

/// A map as a kernel is given it.
#[derive(Clone, Copy)]
pub(crate) enum Map {
    Value(TensorMap),
    At(DevicePointer<TensorMap>),
}

type Bytes = DevicePointer<u8>;
type Status = DevicePointer<u32>;
type Tiles = DevicePointer<Tile>;
type ByMap = Kernel<(TensorMap, ByValue<Job>, Tiles, Bytes, Status)>;
type ByAddress = Kernel<(DevicePointer<TensorMap>, ByValue<Job>, Tiles, Bytes, Status)>;
type ByPatch =
    Kernel<(DevicePointer<TensorMap>, ByValue<MapPatch>, u64, ByValue<Job>, Tiles, Bytes, Status)>;

/// A device with its kernels loaded.
pub(crate) struct Bench {
    pub(crate) context: Context,
    pub(crate) stream: Stream,
    module: Module,
    blocks: u32,
    load: ByMap,
    load_from: ByAddress,
    store: ByMap,
    store_from: ByAddress,
}

impl Bench {
    /// # Errors
    /// The device has no TMA, which is no failure; or something that is.
    pub(crate) fn new(device: Device) -> Result<Self, Failed> {
        let support = TmaSupport::detect(&device);
        if !support.is_supported() {
            return Err(not_applicable(support));
        }
        let image = kasmina_tma::KERNELS.iter().find(|image| image.name == "tile_copy");
        let image = image.ok_or("there is no kernels/tile_copy.cu")?;
        let context = Context::primary(device)?;
        let module = Module::load(&context, image.fatbin()?)?;
        Ok(Self {
            stream: Stream::new(&context)?,
            blocks: device.info()?.multiprocessors,
            load: module.kernel("kasmina_tma_load_tiles")?,
            load_from: module.kernel("kasmina_tma_load_tiles_from")?,
            store: module.kernel("kasmina_tma_store_tiles")?,
            store_from: module.kernel("kasmina_tma_store_tiles_from")?,
            context,
            module,
        })
    }

    pub(crate) fn buffer(&self, bytes: &[u8]) -> Result<DeviceBuffer<u8>, Failed> {
        Ok(DeviceBuffer::from_host(&self.stream, bytes)?)
    }

    fn config(&self, copies: &Copies) -> LaunchConfig {
        let blocks = self.blocks.min(copies.tiles.len() as u32);
        LaunchConfig::new(blocks, THREADS).shared_bytes(copies.slot_bytes as u32 + SLACK)
    }

    /// Every tile as it came to lie in shared memory, one slot after the other.
    pub(crate) fn load(&self, map: Map, copies: &Copies) -> Result<Vec<u8>, Failed> {
        let mut run = Run::new(self, copies)?;
        self.queue_load(map, &mut run)?;
        run.finish()
    }

    /// Queues the loads of `run`, which has been made for them; inside a capture too.
    pub(crate) fn queue_load(&self, map: Map, run: &mut Run) -> Result<(), kasmina_sys::Error> {
        let config = self.config(&run.copies);
        let arguments = (
            ByValue(run.copies.job()),
            run.tiles.pointer(),
            run.slots.pointer(),
            run.status.pointer(),
        );
        let (job, tiles, slots, status) = arguments;
        match map {
            // SAFETY: `run` holds the memory of the tiles, the slots and the status, whose sizes the job has; the kernel stays
            // inside of them whatever the map says, and reads the map's memory, which the tests keep until they synchronize.
            Map::Value(map) => unsafe {
                self.load.launch(&self.stream, &config, (map, job, tiles, slots, status))
            },
            // SAFETY: as above; the tests keep the table.
            Map::At(map) => unsafe {
                self.load_from.launch(&self.stream, &config, (map, job, tiles, slots, status))
            },
        }
    }

    /// The same with an im2col map.
    pub(crate) fn load_pixels(&self, map: TensorMap, copies: &Copies) -> Result<Vec<u8>, Failed> {
        let kernel: ByMap = self.module.kernel("kasmina_tma_load_pixels")?;
        let run = Run::new(self, copies)?;
        let (tiles, slots, status) =
            (run.tiles.pointer(), run.slots.pointer(), run.status.pointer());
        let arguments = (map, ByValue(copies.job()), tiles, slots, status);
        // SAFETY: as in `queue_load`.
        unsafe { kernel.launch(&self.stream, &self.config(copies), arguments) }?;
        run.finish()
    }

    /// Stores `slots` through the map.
    pub(crate) fn store(&self, map: Map, copies: &Copies, slots: &[u8]) -> Result<(), Failed> {
        let run = Run::with_slots(self, copies, slots)?;
        let (tiles, slots, status) =
            (run.tiles.pointer(), run.slots.pointer(), run.status.pointer());
        let (config, job) = (self.config(copies), ByValue(copies.job()));
        match map {
            // SAFETY: as in `queue_load`; what is stored stays inside of the tensor, which the tests keep.
            Map::Value(map) => unsafe {
                self.store.launch(&self.stream, &config, (map, job, tiles, slots, status))
            },
            // SAFETY: as above.
            Map::At(map) => unsafe {
                self.store_from.launch(&self.stream, &config, (map, job, tiles, slots, status))
            },
        }?;
        run.finish().map(drop)
    }

    /// Adds `slots` to the tensor through the map.
    pub(crate) fn add(&self, map: TensorMap, copies: &Copies, slots: &[u8]) -> Result<(), Failed> {
        let kernel: ByMap = self.module.kernel("kasmina_tma_add_tiles")?;
        let run = Run::with_slots(self, copies, slots)?;
        let (tiles, slots, status) =
            (run.tiles.pointer(), run.slots.pointer(), run.status.pointer());
        let arguments = (map, ByValue(copies.job()), tiles, slots, status);
        // SAFETY: as in `store`.
        unsafe { kernel.launch(&self.stream, &self.config(copies), arguments) }?;
        run.finish().map(drop)
    }

    /// Changes a map for each block and loads through it, all in one launch: the map of block b, `patch.slot() + b` of the
    /// table, is moved by b × `step` bytes. Tile i is loaded by block i modulo `blocks`. `None` where the device's code cannot.
    pub(crate) fn patch_and_load(
        &self,
        table: DevicePointer<TensorMap>,
        patch: MapPatch,
        step: u64,
        blocks: u32,
        copies: &Copies,
    ) -> Result<Option<Vec<u8>>, Failed> {
        let kernel: ByPatch = match self.module.kernel("kasmina_tma_patch_and_load") {
            Err(kasmina_sys::Error::Call { code: kasmina_sys::CUresult::NOT_FOUND, .. }) => {
                return Ok(None);
            }
            found => found?,
        };
        let run = Run::new(self, copies)?;
        let (tiles, slots, status) =
            (run.tiles.pointer(), run.slots.pointer(), run.status.pointer());
        let config =
            LaunchConfig::new(blocks, THREADS).shared_bytes(copies.slot_bytes as u32 + SLACK);
        let arguments = (table, ByValue(patch), step, ByValue(copies.job()), tiles, slots, status);
        // SAFETY: as in `queue_load`; the caller has `blocks` maps in the table from the patch's slot on.
        unsafe { kernel.launch(&self.stream, &config, arguments) }?;
        run.finish().map(Some)
    }

    /// Copies all of one buffer to another without a map.
    pub(crate) fn copy_bytes(
        &self,
        from: DeviceSlice<'_, u8>,
        to: DeviceSliceMut<'_, u8>,
        chunk: u32,
    ) -> Result<(), Failed> {
        ensure(from.len() == to.len(), || format!("{} and {} bytes", from.len(), to.len()))?;
        let kernel: Kernel<(Bytes, Bytes, u64, u32, u64, Status)> =
            self.module.kernel("kasmina_tma_copy_bytes")?;
        let status = DeviceBuffer::<u32>::zeroed(&self.stream, 2)?;
        let config = LaunchConfig::new(self.blocks, 32u32).shared_bytes(2 * chunk + SLACK);
        let arguments =
            (from.pointer(), to.pointer(), from.len() as u64, chunk, WAIT_LIMIT, status.pointer());
        // SAFETY: both buffers have as many bytes, and live until the status has been read.
        unsafe { kernel.launch(&self.stream, &config, arguments) }?;
        check(&status.to_vec()?)
    }
}

/// The memory of one launch.
pub(crate) struct Run {
    pub(crate) copies: Copies,
    tiles: DeviceBuffer<Tile>,
    slots: DeviceBuffer<u8>,
    status: DeviceBuffer<u32>,
}

impl Run {
    pub(crate) fn new(bench: &Bench, copies: &Copies) -> Result<Self, Failed> {
        // Not what shared memory is poisoned with: a slot that no block wrote must not look like an untouched one.
        let unwritten = vec![!POISON; copies.tiles.len() * copies.slot_bytes];
        Self::with_slots(bench, copies, &unwritten)
    }

    fn with_slots(bench: &Bench, copies: &Copies, slots: &[u8]) -> Result<Self, Failed> {
        let expected = copies.tiles.len() * copies.slot_bytes;
        ensure(slots.len() == expected, || format!("{} bytes for {expected}", slots.len()))?;
        Ok(Self {
            copies: copies.clone(),
            tiles: DeviceBuffer::from_host(&bench.stream, &copies.tiles)?,
            slots: DeviceBuffer::from_host(&bench.stream, slots)?,
            status: DeviceBuffer::zeroed(&bench.stream, 2)?,
        })
    }

    /// Other tiles for the next replay, as many as before.
    pub(crate) fn set_tiles(&mut self, tiles: &[Tile]) -> Result<(), Failed> {
        self.copies.tiles = tiles.to_vec();
        Ok(self.tiles.copy_from_host(tiles)?)
    }

    /// The slots, once everything queued is done.
    pub(crate) fn finish(&self) -> Result<Vec<u8>, Failed> {
        check(&self.status.to_vec()?)?;
        Ok(self.slots.to_vec()?)
    }
}

fn check(status: &[u32]) -> Result<(), Failed> {
    let [code, tile] = status else { return Err("a status has two words".into()) };
    let what = match code {
        0 => return Ok(()),
        1 => "the barrier's phase did not end: another number of bytes came than was expected",
        2 => "the kernel knows no copy of this rank",
        3 => "the slot does not fit in shared memory",
        _ => "an unknown status",
    };
    Err(format!("tile {tile}: {what} (status {code})").into())
}
