// Copies through tensor maps, tile by tile, so that a host can judge every byte: of a tile as it lies in shared memory, fill
// and gaps included, and of a tensor that tiles are stored into. Types are the map's matter; these kernels move bytes.
//
// One block takes tiles in turn. No wait is without end: a copy that does not come within the job's limit is reported with its
// tile, and the block leaves.

#include "map_patch.cuh"

namespace tma = kasmina::tma;

// Where a tile lies, or an im2col column begins; elements, innermost first. Of offsets an im2col copy uses rank - 2.
struct Tile {
    int32_t at[5];
    uint16_t offsets[3];
    uint16_t unused;
};
static_assert(sizeof(Tile) == 28, "as in tests/gpu/kernels.rs");

struct Job {
    uint64_t wait_limit; // nanoseconds
    uint32_t rank;
    uint32_t tiles;
    uint32_t expected_bytes; // that one load counts on its barrier
    uint32_t slot_bytes;     // of shared memory, and of the host's buffer, for one tile; a multiple of 16
    uint32_t poison;         // what shared memory is filled with before each load
    uint32_t unused;
};
static_assert(sizeof(Job) == 32, "as in tests/gpu/kernels.rs");

// status[0], with the tile in status[1]; the first one stays.
enum Status : uint32_t { kDone = 0, kTimedOut = 1, kBadRank = 2, kNoRoom = 3 };

#if KASMINA_TMA_AVAILABLE

// Every tile of any swizzle may begin here.
constexpr uint32_t kAlignment = tma::kTileAlignment<128>;

__device__ void report(uint32_t* status, uint32_t what, uint32_t tile)
{
    if (threadIdx.x == 0 && atomicCAS(status, kDone, what) == kDone) {
        status[1] = tile;
    }
}

// The first aligned byte of dynamic shared memory, null where a slot does not fit behind it.
__device__ uint8_t* tile_memory(uint32_t slot_bytes)
{
    extern __shared__ uint8_t dynamic[];
    uint32_t available;
    asm("mov.u32 %0, %%dynamic_smem_size;" : "=r"(available));
    const uint32_t gap = (kAlignment - tma::shared_address(dynamic) % kAlignment) % kAlignment;
    return gap + slot_bytes <= available ? dynamic + gap : nullptr;
}

__device__ void copy_words(void* to, const void* from, uint32_t bytes)
{
    for (uint32_t i = threadIdx.x; i < bytes / 16; i += blockDim.x) {
        static_cast<uint4*>(to)[i] = static_cast<const uint4*>(from)[i];
    }
}

__device__ void fill_words(void* to, uint32_t word, uint32_t bytes)
{
    for (uint32_t i = threadIdx.x; i < bytes / 16; i += blockDim.x) {
        static_cast<uint4*>(to)[i] = make_uint4(word, word, word, word);
    }
}

struct LoadTile {
    static constexpr uint32_t kLeastRank = 1;
    __device__ void operator()(void* shared, const void* map, uint32_t rank, const Tile& t, tma::Barrier& full) const
    {
        switch (rank) {
            case 1: tma::load_tensor(shared, map, {t.at[0]}, full); break;
            case 2: tma::load_tensor(shared, map, {t.at[0], t.at[1]}, full); break;
            case 3: tma::load_tensor(shared, map, {t.at[0], t.at[1], t.at[2]}, full); break;
            case 4: tma::load_tensor(shared, map, {t.at[0], t.at[1], t.at[2], t.at[3]}, full); break;
            default: tma::load_tensor(shared, map, {t.at[0], t.at[1], t.at[2], t.at[3], t.at[4]}, full); break;
        }
    }
};

struct LoadPixels {
    static constexpr uint32_t kLeastRank = 3;
    __device__ void operator()(void* shared, const void* map, uint32_t rank, const Tile& t, tma::Barrier& full) const
    {
        switch (rank) {
            case 3: tma::load_im2col(shared, map, {t.at[0], t.at[1], t.at[2]}, {t.offsets[0]}, full); break;
            case 4:
                tma::load_im2col(shared, map, {t.at[0], t.at[1], t.at[2], t.at[3]}, {t.offsets[0], t.offsets[1]}, full);
                break;
            default:
                tma::load_im2col(shared, map, {t.at[0], t.at[1], t.at[2], t.at[3], t.at[4]},
                                 {t.offsets[0], t.offsets[1], t.offsets[2]}, full);
                break;
        }
    }
};

// Each tile to its slot of `output`, as it came to lie in shared memory.
template <class Load>
__device__ void load_all(const void* map, const Job& job, const Tile* tiles, uint8_t* output, uint32_t* status, Load load)
{
    __shared__ tma::Barrier full;
    uint8_t* const tile = tile_memory(job.slot_bytes);
    if (tile == nullptr || job.rank < Load::kLeastRank || job.rank > tma::kMaxRank) {
        report(status, tile == nullptr ? kNoRoom : kBadRank, blockIdx.x);
        return;
    }
    if (threadIdx.x == 0) {
        tma::init(full, 1);
        tma::fence_barrier_init();
    }
    uint32_t parity = 0;
    for (uint32_t i = blockIdx.x; i < job.tiles; i += gridDim.x) {
        fill_words(tile, job.poison, job.slot_bytes);
        tma::fence_async_shared();
        __syncthreads();
        if (threadIdx.x == 0) {
            tma::arrive_expect(full, job.expected_bytes);
            load(tile, map, job.rank, tiles[i], full);
        }
        const bool came = tma::wait_for(full, parity, job.wait_limit);
        if (!__syncthreads_and(came)) {
            report(status, kTimedOut, i);
            return;
        }
        parity ^= 1;
        copy_words(output + uint64_t(i) * job.slot_bytes, tile, job.slot_bytes);
        __syncthreads();
    }
}

struct StoreTile {
    template <int Rank>
    static __device__ void one(const void* map, const int32_t (&at)[Rank], const void* shared)
    {
        tma::store_tensor(map, at, shared);
    }
};

struct AddTile {
    template <int Rank>
    static __device__ void one(const void* map, const int32_t (&at)[Rank], const void* shared)
    {
        tma::reduce_tensor<tma::Reduce::Add>(map, at, shared);
    }
};

// Each slot of `input` to its tile, from shared memory as the slot has it.
template <class Store>
__device__ void store_all(const void* map, const Job& job, const Tile* tiles, const uint8_t* input, uint32_t* status)
{
    uint8_t* const tile = tile_memory(job.slot_bytes);
    if (tile == nullptr || job.rank < 1 || job.rank > tma::kMaxRank) {
        report(status, tile == nullptr ? kNoRoom : kBadRank, blockIdx.x);
        return;
    }
    for (uint32_t i = blockIdx.x; i < job.tiles; i += gridDim.x) {
        copy_words(tile, input + uint64_t(i) * job.slot_bytes, job.slot_bytes);
        tma::fence_async_shared();
        __syncthreads();
        if (threadIdx.x == 0) {
            const Tile& t = tiles[i];
            switch (job.rank) {
                case 1: Store::one(map, {t.at[0]}, tile); break;
                case 2: Store::one(map, {t.at[0], t.at[1]}, tile); break;
                case 3: Store::one(map, {t.at[0], t.at[1], t.at[2]}, tile); break;
                case 4: Store::one(map, {t.at[0], t.at[1], t.at[2], t.at[3]}, tile); break;
                default: Store::one(map, {t.at[0], t.at[1], t.at[2], t.at[3], t.at[4]}, tile); break;
            }
            tma::commit_group();
            tma::wait_group_read();
        }
        // The tile may be filled again.
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        tma::wait_group();
    }
}

// A map as a parameter, and a map in global memory, which its one user acquires.

extern "C" __global__ void kasmina_tma_load_tiles(const __grid_constant__ tma::TensorMap map, const Job job,
                                                  const Tile* tiles, uint8_t* output, uint32_t* status)
{
    load_all(&map, job, tiles, output, status, LoadTile{});
}

extern "C" __global__ void kasmina_tma_load_tiles_from(const tma::TensorMap* map, const Job job, const Tile* tiles,
                                                       uint8_t* output, uint32_t* status)
{
    if (threadIdx.x == 0) {
        tma::fence_map_acquire(map);
    }
    load_all(map, job, tiles, output, status, LoadTile{});
}

extern "C" __global__ void kasmina_tma_store_tiles(const __grid_constant__ tma::TensorMap map, const Job job,
                                                   const Tile* tiles, const uint8_t* input, uint32_t* status)
{
    store_all<StoreTile>(&map, job, tiles, input, status);
}

extern "C" __global__ void kasmina_tma_store_tiles_from(const tma::TensorMap* map, const Job job, const Tile* tiles,
                                                        const uint8_t* input, uint32_t* status)
{
    if (threadIdx.x == 0) {
        tma::fence_map_acquire(map);
    }
    store_all<StoreTile>(map, job, tiles, input, status);
}

extern "C" __global__ void kasmina_tma_add_tiles(const __grid_constant__ tma::TensorMap map, const Job job,
                                                 const Tile* tiles, const uint8_t* input, uint32_t* status)
{
    store_all<AddTile>(&map, job, tiles, input, status);
}

extern "C" __global__ void kasmina_tma_load_pixels(const __grid_constant__ tma::TensorMap map, const Job job,
                                                   const Tile* tiles, uint8_t* output, uint32_t* status)
{
    load_all(&map, job, tiles, output, status, LoadPixels{});
}

// `bytes` from one address to another in chunks, both multiples of 16, without a map: the 1-D copies, two stages deep.
extern "C" __global__ void kasmina_tma_copy_bytes(const uint8_t* from, uint8_t* to, uint64_t bytes, uint32_t chunk,
                                                  uint64_t wait_limit, uint32_t* status)
{
    __shared__ tma::Barrier full[2];
    uint8_t* const stages = tile_memory(2 * chunk);
    if (threadIdx.x != 0) {
        return;
    }
    if (stages == nullptr) {
        report(status, kNoRoom, blockIdx.x);
        return;
    }
    tma::init(full[0], 1);
    tma::init(full[1], 1);
    tma::fence_barrier_init();
    uint32_t stage = 0, parity = 0;
    for (uint64_t at = uint64_t(blockIdx.x) * chunk; at < bytes; at += uint64_t(gridDim.x) * chunk) {
        const uint32_t length = bytes - at < chunk ? static_cast<uint32_t>(bytes - at) : chunk;
        uint8_t* const here = stages + stage * chunk;
        // The store before the last one read this stage.
        tma::wait_group_read<1>();
        tma::arrive_expect(full[stage], length);
        tma::load_bulk(here, from + at, length, full[stage], tma::evict_first());
        if (!tma::wait_for(full[stage], parity, wait_limit)) {
            report(status, kTimedOut, static_cast<uint32_t>(at / chunk));
            break;
        }
        // What came by one asynchronous copy leaves by another.
        tma::fence_async_shared();
        tma::store_bulk(to + at, here, length);
        tma::commit_group();
        parity ^= stage;
        stage ^= 1;
    }
    tma::wait_group();
}

#if KASMINA_TMA_HAS_REPLACE

// Every block changes a map of its own and loads its tiles through it, in one launch: slot and address go up by the block.
extern "C" __global__ void kasmina_tma_patch_and_load(tma::TensorMap* table, const tma::Patch patch, uint64_t address_step,
                                                      const Job job, const Tile* tiles, uint8_t* output,
                                                      uint32_t* status)
{
    __shared__ tma::TensorMap scratch;
    tma::TensorMap* const map = table + patch.slot + blockIdx.x;
    if (threadIdx.x < 32) {
        tma::Patch own = patch;
        own.address += blockIdx.x * address_step;
        tma::patch_map(map, scratch, own);
    }
    if (threadIdx.x == 0) {
        tma::fence_map_acquire(map);
    }
    load_all(map, job, tiles, output, status, LoadTile{});
}

#endif
#endif
