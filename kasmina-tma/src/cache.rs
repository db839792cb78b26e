//! Tensor maps that are made once: a bounded cache, shared by threads, that knows when memory is gone.
//!
//! A key is everything that a map depends on and the memory that it is for: context, allocation, address, geometry. Two maps
//! of different keys are never confused, whatever addresses the driver hands out again. A second table keeps the last map
//! of each geometry, dead or alive: with a new address put in, it saves most of an encode, and its own address is never used.

use std::num::NonZeroUsize;

use kasmina_sys::{
    AllocationId, AllocationWatch, Context, DeviceCopy, DeviceSlice, DeviceSliceMut,
};
use lru::LruCache;
use parking_lot::Mutex;

use crate::encode::{self, EncodeError};
use crate::geometry::Geometry;
use crate::tensor_map::{BoundTensorMap, TensorMap, check_fit, request_in};

/// Whose memory a foreign slice is: any number that the caller does not use again for other memory as long as it may be in
/// the cache, such as a storage's generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ForeignId(pub u64);

/// What a cache has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// Requests answered from the cache.
    pub hits: u64,
    /// Requests that were not: the sum of `encodes`, `replacements` and `failures`.
    pub misses: u64,
    /// Maps that the driver encoded.
    pub encodes: u64,
    /// Maps made from one of the same geometry by a change of address.
    pub replacements: u64,
    /// Changes of address that the driver lacked or refused; an encode was tried next.
    pub refused_replacements: u64,
    /// Requests that came to nothing, other than those that were wrong from the start.
    pub failures: u64,
    /// Maps of living memory that made room for others.
    pub evictions: u64,
    /// Maps dropped because their memory was gone, or was forgotten.
    pub invalidations: u64,
}

/// Tensor maps by context, memory and geometry. Holds at most as many as it was made for; the least recently used goes first.
///
/// A hit calls no driver and allocates nothing. Everything else waits behind one lock, so that each map is made once.
///
/// ```no_run
/// use kasmina_sys::{Context, DeviceBuffer, Driver, Stream};
/// use kasmina_tma::{DataType, DescriptorCache, Geometry};
///
/// let context = Context::primary(Driver::load()?.device(0)?)?;
/// let stream = Stream::new(&context)?;
/// let buffer = DeviceBuffer::<f32>::zeroed(&stream, 64 * 64)?;
/// let geometry = Geometry::tiled(DataType::F32).sizes(&[64, 64]).box_sides(&[32, 8]).build()?;
///
/// let cache = DescriptorCache::new();
/// let first = cache.get(buffer.as_slice(), &geometry)?;
/// assert_eq!(cache.get(buffer.as_slice(), &geometry)?, first);
/// assert_eq!((cache.stats().hits, cache.stats().encodes), (1, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A map cannot outlive the buffer:
///
/// ```compile_fail,E0505
/// # use kasmina_sys::DeviceBuffer;
/// # use kasmina_tma::{DescriptorCache, EncodeError, Geometry};
/// fn keep(cache: &DescriptorCache, buffer: DeviceBuffer<f32>, geometry: &Geometry) -> Result<(), EncodeError> {
///     let map = cache.get(buffer.as_slice(), geometry)?;
///     drop(buffer); // error: cannot move out of `buffer` because it is borrowed
///     println!("{map:?}");
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct DescriptorCache {
    tables: Mutex<Tables>,
    capacity: NonZeroUsize,
}

#[derive(Debug)]
struct Tables {
    entries: LruCache<Key, Entry>,
    /// The last map of each geometry, to make others from.
    templates: LruCache<(usize, Geometry), TensorMap>,
    stats: CacheStats,
    /// Maps that came in since all entries were last asked whether their memory lives.
    since_sweep: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    context: usize,
    owner: Owner,
    address: u64,
    geometry: Geometry,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Owner {
    Allocation(AllocationId),
    Foreign(ForeignId),
}

#[derive(Debug)]
struct Entry {
    map: TensorMap,
    /// `None` for foreign memory, of which nobody tells.
    watch: Option<AllocationWatch>,
}

impl Entry {
    fn is_dead(&self) -> bool {
        self.watch.as_ref().is_some_and(|watch| !watch.is_alive())
    }
}

impl Default for DescriptorCache {
    fn default() -> Self {
        Self::new()
    }
}

impl DescriptorCache {
    /// Maps that [`new`](Self::new) has room for: a few for each of some hundred layers, in less than a MiB.
    pub const DEFAULT_CAPACITY: NonZeroUsize = NonZeroUsize::new(1024).expect("it is not zero");

    /// An empty cache for [`DEFAULT_CAPACITY`](Self::DEFAULT_CAPACITY) maps.
    pub fn new() -> Self {
        Self::with_capacity(Self::DEFAULT_CAPACITY)
    }

    /// An empty cache for `capacity` maps.
    pub fn with_capacity(capacity: NonZeroUsize) -> Self {
        let tables = Tables {
            entries: LruCache::sparse(capacity),
            templates: LruCache::sparse(capacity),
            stats: CacheStats::default(),
            since_sweep: 0,
        };
        Self { tables: Mutex::new(tables), capacity }
    }

    /// A map of `memory`, whose first element is the tensor's: a known one, or a new one.
    ///
    /// # Errors
    /// [`EncodeError::Foreign`] for memory that was not allocated here; [`EncodeError::Request`] where the memory is too small,
    /// not aligned, or the device too old; or the driver lacks the function or refuses.
    pub fn get<'a, T: DeviceCopy>(
        &self,
        memory: DeviceSlice<'a, T>,
        geometry: &Geometry,
    ) -> Result<BoundTensorMap<'a>, EncodeError> {
        let Some(watch) = memory.watch() else {
            return Err(EncodeError::Foreign { address: memory.address() });
        };
        self.get_owned(memory, geometry, Owner::Allocation(watch.id()), Some(watch))
    }

    /// The same for memory that the kernel will write through the map.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn get_mut<'a, T: DeviceCopy>(
        &self,
        memory: &'a mut DeviceSliceMut<'_, T>,
        geometry: &Geometry,
    ) -> Result<BoundTensorMap<'a>, EncodeError> {
        self.get(memory.as_slice(), geometry)
    }

    /// A map of memory of someone else's, which `id` tells apart from all other such memory. Its maps stay until they make
    /// room for others or are [forgotten](Self::forget_foreign).
    ///
    /// # Errors
    /// As for [`get`](Self::get), but for the first.
    pub fn get_foreign<'a, T: DeviceCopy>(
        &self,
        memory: DeviceSlice<'a, T>,
        id: ForeignId,
        geometry: &Geometry,
    ) -> Result<BoundTensorMap<'a>, EncodeError> {
        self.get_owned(memory, geometry, Owner::Foreign(id), None)
    }

    fn get_owned<'a, T: DeviceCopy>(
        &self,
        memory: DeviceSlice<'a, T>,
        geometry: &Geometry,
        owner: Owner,
        watch: Option<AllocationWatch>,
    ) -> Result<BoundTensorMap<'a>, EncodeError> {
        // Not part of the key, so it is asked at every hit: a shorter slice can begin where a longer one did.
        check_fit(memory, geometry)?;
        let context = memory.home().context();
        let key = Key {
            context: context.raw() as usize,
            owner,
            address: memory.address(),
            geometry: *geometry,
        };
        let mut tables = self.tables.lock();
        if let Some(entry) = tables.entries.get(&key) {
            let map = entry.map;
            tables.stats.hits += 1;
            return Ok(BoundTensorMap::bind(map));
        }
        let request = request_in(memory, geometry)?;
        tables.stats.misses += 1;
        let map = tables.make(context, &request)?;
        tables.insert(key, Entry { map, watch });
        Ok(BoundTensorMap::bind(map))
    }

    /// Drops the maps of memory that is gone. New maps do it now and then by themselves. Returns how many there were.
    pub fn sweep(&self) -> usize {
        self.tables.lock().sweep()
    }

    /// Drops the maps of one allocation, gone or not. Returns how many there were.
    pub fn forget(&self, allocation: AllocationId) -> usize {
        self.tables.lock().drop_where(|key, _| key.owner == Owner::Allocation(allocation))
    }

    /// Drops the maps of foreign memory: when its owner frees it. Returns how many there were.
    pub fn forget_foreign(&self, id: ForeignId) -> usize {
        self.tables.lock().drop_where(|key, _| key.owner == Owner::Foreign(id))
    }

    /// Drops all maps. The statistics stay.
    pub fn clear(&self) {
        let mut tables = self.tables.lock();
        tables.drop_where(|_, _| true);
        tables.templates.clear();
    }

    /// What it has done so far.
    pub fn stats(&self) -> CacheStats {
        self.tables.lock().stats
    }

    /// Maps in it, with those of memory that is gone and was not swept yet.
    pub fn len(&self) -> usize {
        self.tables.lock().entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Maps that it has room for.
    pub fn capacity(&self) -> NonZeroUsize {
        self.capacity
    }
}

impl Tables {
    /// A map of the same geometry at another address where there is one, else one encoded from nothing.
    fn make(
        &mut self,
        context: &Context,
        request: &crate::TensorMapRequest,
    ) -> Result<TensorMap, EncodeError> {
        let kind = (context.raw() as usize, *request.geometry());
        if let Some(&template) = self.templates.get(&kind) {
            match encode::replace_address(context, template, request) {
                Ok(map) => {
                    self.stats.replacements += 1;
                    return Ok(map);
                }
                Err(_) => self.stats.refused_replacements += 1,
            }
        }
        match encode::encode(context, request) {
            Ok(map) => {
                self.stats.encodes += 1;
                self.templates.put(kind, map);
                Ok(map)
            }
            Err(error) => {
                self.stats.failures += 1;
                Err(error)
            }
        }
    }

    fn insert(&mut self, key: Key, entry: Entry) {
        // Asking every entry costs as much as there are entries, so it is done once for as many new ones.
        if self.since_sweep >= self.entries.len() {
            self.sweep();
        }
        self.since_sweep += 1;
        // The key is new, so what comes out was pushed out.
        if let Some((_, evicted)) = self.entries.push(key, entry) {
            if evicted.is_dead() {
                self.stats.invalidations += 1;
            } else {
                self.stats.evictions += 1;
            }
        }
    }

    fn sweep(&mut self) -> usize {
        self.since_sweep = 0;
        self.drop_where(|_, entry| entry.is_dead())
    }

    fn drop_where(&mut self, mut condition: impl FnMut(&Key, &Entry) -> bool) -> usize {
        let before = self.entries.len();
        self.entries.retain(|key, entry| !condition(key, entry));
        let dropped = before - self.entries.len();
        self.stats.invalidations += dropped as u64;
        dropped
    }
}
