//! The cache against a naive model, on a fake driver: recency, statistics, memory that goes, addresses that come back,
//! failures of the driver, threads.
#![cfg(target_os = "linux")]

mod encoded;
#[path = "../../kasmina-sys/tests/fake/mod.rs"]
mod fake;

use std::num::NonZeroUsize;
use std::sync::Barrier;

use encoded::map_counts;
use fake::Fake;
use kasmina_sys::{AllocationId, CUresult, Context, DeviceBuffer, DeviceSlice, Stream};
use kasmina_tma::{
    BoundTensorMap, CacheStats, DataType, DescriptorCache, EncodeError, Field, ForeignId, Geometry,
    Swizzle, TensorMap,
};
use proptest::prelude::*;

/// Floats of a buffer: the largest geometry and the offsets that the tests use.
const LENGTH: usize = 64 * 32;

fn geometries() -> Vec<Geometry> {
    let tiled = |rows, swizzle| {
        let builder = Geometry::tiled(DataType::F32).sizes(&[64, rows]).box_sides(&[8, 8]);
        builder.swizzle(swizzle).build().expect("it is legal")
    };
    vec![tiled(16, Swizzle::None), tiled(16, Swizzle::Span32), tiled(15, Swizzle::None)]
}

#[derive(Clone, Debug)]
enum Op {
    /// A map in the buffer of this slot, which is allocated if it is not there, at this row.
    Get {
        slot: usize,
        row: usize,
        geometry: usize,
    },
    GetForeign {
        id: u64,
        address: u64,
        geometry: usize,
    },
    Drop(usize),
    Forget(usize),
    ForgetForeign(u64),
    Sweep,
    Clear,
    /// The next change of address, or the next encode, fails.
    FailReplace,
    FailEncode,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        20 => (0..6usize, 0..2usize, 0..3usize)
            .prop_map(|(slot, row, geometry)| Op::Get { slot, row, geometry }),
        8 => (0..3u64, 1..3u64, 0..3usize)
            .prop_map(|(id, page, geometry)| Op::GetForeign { id, address: page << 20, geometry }),
        5 => (0..6usize).prop_map(Op::Drop),
        1 => (0..6usize).prop_map(Op::Forget),
        1 => (0..3u64).prop_map(Op::ForgetForeign),
        2 => Just(Op::Sweep),
        1 => Just(Op::Clear),
        1 => Just(Op::FailReplace),
        1 => Just(Op::FailEncode),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Owner {
    Buffer(AllocationId),
    Foreign(u64),
}

type Key = (Owner, u64, usize);

/// The cache as lists, most recent last.
struct Model {
    capacity: usize,
    entries: Vec<Key>,
    templates: Vec<usize>,
    living: Vec<AllocationId>,
    since_sweep: usize,
    stats: CacheStats,
    fail_replace: bool,
    fail_encode: bool,
}

impl Model {
    fn is_dead(&self, key: &Key) -> bool {
        matches!(key.0, Owner::Buffer(id) if !self.living.contains(&id))
    }

    fn drop_where(&mut self, condition: impl Fn(&Self, &Key) -> bool) -> usize {
        let (gone, kept): (Vec<Key>, Vec<Key>) =
            self.entries.iter().copied().partition(|key| condition(self, key));
        self.entries = kept;
        self.stats.invalidations += gone.len() as u64;
        gone.len()
    }

    fn sweep(&mut self) -> usize {
        self.since_sweep = 0;
        self.drop_where(|model, key| model.is_dead(key))
    }

    fn use_template(&mut self, geometry: usize) -> bool {
        let Some(at) = self.templates.iter().position(|&known| known == geometry) else {
            return false;
        };
        self.templates.remove(at);
        self.templates.push(geometry);
        true
    }

    /// Whether there is a map in the end.
    fn get(&mut self, key: Key) -> bool {
        if let Some(at) = self.entries.iter().position(|known| *known == key) {
            self.entries.remove(at);
            self.entries.push(key);
            self.stats.hits += 1;
            return true;
        }
        self.stats.misses += 1;
        let mut made = false;
        if self.use_template(key.2) {
            made = !std::mem::take(&mut self.fail_replace);
            if made {
                self.stats.replacements += 1;
            } else {
                self.stats.refused_replacements += 1;
            }
        }
        if !made {
            if std::mem::take(&mut self.fail_encode) {
                self.stats.failures += 1;
                return false;
            }
            self.stats.encodes += 1;
            if !self.use_template(key.2) {
                self.templates.push(key.2);
                if self.templates.len() > self.capacity {
                    self.templates.remove(0);
                }
            }
        }
        if self.since_sweep >= self.entries.len() {
            self.sweep();
        }
        self.since_sweep += 1;
        self.entries.push(key);
        if self.entries.len() > self.capacity {
            let out = self.entries.remove(0);
            if self.is_dead(&out) {
                self.stats.invalidations += 1;
            } else {
                self.stats.evictions += 1;
            }
        }
        true
    }
}

/// What any map of each geometry has after its address; see `fake_tensor_map.h`.
fn tails(context: &Context) -> Vec<Vec<u8>> {
    let tail = |geometry: &Geometry| {
        let request = geometry.at(0x1000).expect("it is legal");
        // SAFETY: no kernel is launched with the map.
        let map = unsafe { TensorMap::encode(context, &request) }.expect("the driver takes it");
        map.as_bytes()[8..].to_vec()
    };
    geometries().iter().map(tail).collect()
}

fn run(
    fake: &Fake,
    context: &Context,
    tails: &[Vec<u8>],
    capacity: usize,
    ops: &[Op],
) -> Result<(), TestCaseError> {
    let geometries = geometries();
    let stream = Stream::new(context).expect("a stream");
    let cache = DescriptorCache::with_capacity(NonZeroUsize::new(capacity).expect("positive"));
    let mut buffers: [Option<DeviceBuffer<f32>>; 6] = Default::default();
    let mut model = Model {
        capacity,
        entries: Vec::new(),
        templates: Vec::new(),
        living: Vec::new(),
        since_sweep: 0,
        stats: CacheStats::default(),
        fail_replace: false,
        fail_encode: false,
    };
    let right =
        |map: Result<BoundTensorMap<'_>, EncodeError>, made, address: u64, geometry: usize| {
            prop_assert_eq!(map.is_ok(), made, "{:?}", map);
            if let Ok(map) = map {
                prop_assert_eq!(&map.as_bytes()[..8], &address.to_le_bytes()[..]);
                prop_assert_eq!(&map.as_bytes()[8..], &tails[geometry][..]);
            }
            Ok(())
        };
    fake.mend();
    for op in ops {
        match *op {
            Op::Get { slot, row, geometry } => {
                let buffer = buffers[slot].get_or_insert_with(|| {
                    let buffer = DeviceBuffer::unwritten(&stream, LENGTH).expect("memory");
                    model.living.push(buffer.watch().id());
                    buffer
                });
                let part = buffer.slice(row * 64..).expect("it is within");
                let made =
                    model.get((Owner::Buffer(buffer.watch().id()), part.address(), geometry));
                right(cache.get(part, &geometries[geometry]), made, part.address(), geometry)?;
            }
            Op::GetForeign { id, address, geometry } => {
                // SAFETY: nothing is done with the memory.
                let part = unsafe { DeviceSlice::<f32>::from_raw(&stream, address, LENGTH) };
                let part = part.expect("it is within the address space");
                let made = model.get((Owner::Foreign(id), address, geometry));
                let map = cache.get_foreign(part, ForeignId(id), &geometries[geometry]);
                right(map, made, address, geometry)?;
            }
            Op::Drop(slot) => {
                if let Some(buffer) = buffers[slot].take() {
                    model.living.retain(|id| *id != buffer.watch().id());
                }
            }
            Op::Forget(slot) => {
                if let Some(buffer) = &buffers[slot] {
                    let id = buffer.watch().id();
                    let forgotten = model.drop_where(|_, key| key.0 == Owner::Buffer(id));
                    prop_assert_eq!(cache.forget(id), forgotten);
                }
            }
            Op::ForgetForeign(id) => {
                let forgotten = model.drop_where(|_, key| key.0 == Owner::Foreign(id));
                prop_assert_eq!(cache.forget_foreign(ForeignId(id)), forgotten);
            }
            Op::Sweep => prop_assert_eq!(cache.sweep(), model.sweep()),
            Op::Clear => {
                model.drop_where(|_, _| true);
                model.templates.clear();
                cache.clear();
            }
            Op::FailReplace | Op::FailEncode => {
                fake.mend();
                model.fail_replace = matches!(op, Op::FailReplace);
                model.fail_encode = !model.fail_replace;
                let name = if model.fail_replace {
                    "cuTensorMapReplaceAddress"
                } else {
                    "cuTensorMapEncodeTiled"
                };
                fake.fail(name, 0, 1, CUresult(4242));
            }
        }
        prop_assert_eq!(cache.stats(), model.stats, "after {:?}", op);
        prop_assert_eq!(cache.len(), model.entries.len());
        let stats = cache.stats();
        prop_assert_eq!(stats.misses, stats.encodes + stats.replacements + stats.failures);
    }
    fake.mend();
    drop(buffers);
    model.living.clear();
    let dead = model.sweep();
    prop_assert_eq!(cache.sweep(), dead);
    prop_assert_eq!(cache.len(), model.entries.len());
    Ok(())
}

#[test]
fn any_sequence_does_what_the_lists_do() {
    let fake = Fake::new(&[]);
    let context = fake.context();
    let tails = tails(&context);
    let ops = prop::collection::vec(op(), 1..120);
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) };
    proptest::test_runner::TestRunner::new(config)
        .run(&(1..10usize, ops), |(capacity, ops)| run(&fake, &context, &tails, capacity, &ops))
        .unwrap_or_else(|failure| panic!("{failure}"));
    drop(context);
    fake.assert_nothing_left();
}

#[test]
fn without_replace_address_every_map_is_encoded() {
    let fake = Fake::new(&[]);
    let context = fake.context();
    fake.hide("cuTensorMapReplaceAddress");
    let stream = Stream::new(&context).expect("a stream");
    let buffer = DeviceBuffer::<f32>::zeroed(&stream, LENGTH).expect("memory");
    let cache = DescriptorCache::new();
    for row in 0..4 {
        let part = buffer.slice(row * 64..).expect("it is within");
        cache.get(part, &geometries()[0]).expect("there is a map");
    }
    let stats = cache.stats();
    assert_eq!((stats.encodes, stats.replacements, stats.refused_replacements), (4, 0, 3));
    assert_eq!(map_counts(&fake).tiled, 4);
}

#[test]
fn memory_that_is_not_ours_or_too_small_is_refused_at_every_request() {
    let fake = Fake::new(&[]);
    let context = fake.context();
    let stream = Stream::new(&context).expect("a stream");
    let cache = DescriptorCache::new();
    let geometry = geometries()[0];
    // SAFETY: nothing is done with the memory.
    let foreign = unsafe { DeviceSlice::<f32>::from_raw(&stream, 0x10_0000, LENGTH) };
    let foreign = foreign.expect("it is within the address space");
    assert_eq!(cache.get(foreign, &geometry), Err(EncodeError::Foreign { address: 0x10_0000 }));

    // A hit for the long slice is none for a shorter one at the same address.
    let buffer = DeviceBuffer::<f32>::zeroed(&stream, LENGTH).expect("memory");
    cache.get(buffer.as_slice(), &geometry).expect("it fits");
    let short = buffer.slice(..64 * 16 - 1).expect("it is within");
    let Err(EncodeError::Request(violation)) = cache.get(short, &geometry) else {
        panic!("one element is missing")
    };
    assert_eq!(violation.field, Field::Footprint);
    assert_eq!((cache.stats().hits, cache.stats().misses), (0, 1));
}

#[test]
fn a_mutable_slice_gives_the_same_map() {
    let fake = Fake::new(&[]);
    let context = fake.context();
    let stream = Stream::new(&context).expect("a stream");
    let cache = DescriptorCache::new();
    let mut buffer = DeviceBuffer::<f32>::zeroed(&stream, LENGTH).expect("memory");
    let shared = *cache.get(buffer.as_slice(), &geometries()[0]).expect("it fits").as_bytes();
    let mut all = buffer.as_mut_slice();
    let map = cache.get_mut(&mut all, &geometries()[0]).expect("it fits");
    assert_eq!(*map.as_bytes(), shared);
    assert_eq!(cache.stats().hits, 1);
}

#[test]
fn two_contexts_do_not_share_maps() {
    let (one, other) = (Fake::new(&[]), Fake::new(&[]));
    let cache = DescriptorCache::new();
    for fake in [&one, &other] {
        let context = fake.context();
        let stream = Stream::new(&context).expect("a stream");
        // SAFETY: nothing is done with the memory.
        let memory = unsafe { DeviceSlice::<f32>::from_raw(&stream, 0x10_0000, LENGTH) };
        let memory = memory.expect("it is within the address space");
        cache.get_foreign(memory, ForeignId(0), &geometries()[0]).expect("there is a map");
    }
    assert_eq!((cache.stats().hits, cache.stats().encodes), (0, 2));
}

#[test]
fn a_hit_calls_no_driver() {
    let fake = Fake::new(&[]);
    let context = fake.context();
    let stream = Stream::new(&context).expect("a stream");
    let buffer = DeviceBuffer::<f32>::zeroed(&stream, LENGTH).expect("memory");
    let cache = DescriptorCache::new();
    let first = cache.get(buffer.as_slice(), &geometries()[0]).expect("there is a map");
    fake.fail("*", 0, -1, CUresult(4242));
    assert_eq!(cache.get(buffer.as_slice(), &geometries()[0]), Ok(first));
    assert!(cache.get(buffer.as_slice(), &geometries()[1]).is_err());
    fake.mend();
    assert!(cache.get(buffer.as_slice(), &geometries()[1]).is_ok(), "a failure is not kept");
}

#[test]
fn threads_make_each_map_once_and_see_the_right_one() {
    const THREADS: usize = 8;
    const ROUNDS: usize = 400;
    let fake = Fake::new(&[]);
    let context = fake.context();
    let stream = Stream::new(&context).expect("a stream");
    let buffers: Vec<_> =
        (0..4).map(|_| DeviceBuffer::<f32>::zeroed(&stream, LENGTH).expect("memory")).collect();
    let cache = DescriptorCache::new();
    let barrier = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (cache, buffers, barrier) = (&cache, &buffers, &barrier);
            scope.spawn(move || {
                let geometries = geometries();
                barrier.wait();
                for round in 0..ROUNDS {
                    let buffer = &buffers[(thread + round) % 4];
                    let geometry = &geometries[round % 3];
                    let map = cache.get(buffer.as_slice(), geometry).expect("there is a map");
                    assert_eq!(map.as_bytes()[..8], buffer.address().to_le_bytes());
                    if round % 50 == thread {
                        cache.sweep();
                    }
                }
            });
        }
    });
    let stats = cache.stats();
    assert_eq!(stats.hits + stats.misses, (THREADS * ROUNDS) as u64);
    assert_eq!((stats.misses, stats.encodes, stats.replacements), (12, 3, 9));
    drop((buffers, stream, context));
    assert_eq!(cache.sweep(), 12);
    fake.assert_nothing_left();
}
