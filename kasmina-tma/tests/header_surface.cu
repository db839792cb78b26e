// Every wrapper of kasmina_tma.cuh once, so that its PTX is assembled for every architecture. Never launched.

#include "kasmina_tma.cuh"

namespace tma = kasmina::tma;

#if KASMINA_TMA_AVAILABLE

static_assert(tma::kTileAlignment<0> == 128 && tma::kTileAlignment<32> == 256, "alignments of tiles");
static_assert(tma::kTileAlignment<128> == 1024 && alignof(tma::TensorMap) == 128, "alignments of tiles and maps");

template <int Rank>
__device__ void every_rank(const void* map, uint8_t* tile, tma::Barrier& barrier, const int32_t (&at)[Rank])
{
    tma::load_tensor(tile, map, at, barrier);
    tma::load_tensor(tile, map, at, barrier, tma::evict_first());
#if KASMINA_TMA_HAS_MULTICAST
    tma::load_tensor_multicast(tile, map, at, barrier, uint16_t(3));
#endif
    tma::store_tensor(map, at, tile);
    tma::store_tensor(map, at, tile, tma::evict_last());
    tma::reduce_tensor<tma::Reduce::Add>(map, at, tile);
    tma::reduce_tensor<tma::Reduce::Min>(map, at, tile);
    tma::reduce_tensor<tma::Reduce::Max>(map, at, tile);
    tma::reduce_tensor<tma::Reduce::Inc>(map, at, tile);
    tma::reduce_tensor<tma::Reduce::Dec>(map, at, tile);
    tma::reduce_tensor<tma::Reduce::And>(map, at, tile);
    tma::reduce_tensor<tma::Reduce::Or>(map, at, tile);
    tma::reduce_tensor<tma::Reduce::Xor>(map, at, tile);
    tma::prefetch_tensor(map, at);
}

extern "C" __global__ void surface_copies(const __grid_constant__ tma::TensorMap map, uint8_t* global, float* sums)
{
    extern __shared__ __align__(1024) uint8_t tile[];
    __shared__ tma::Barrier barrier;
    tma::init(barrier, 1);
    tma::fence_barrier_init();
    tma::prefetch_map(&map);
    tma::arrive_expect<4096>(barrier);
    tma::arrive_expect(barrier, 128);
    tma::expect(barrier, 16);
    tma::arrive(barrier);
    const auto x = static_cast<int32_t>(threadIdx.x);
    every_rank(&map, tile, barrier, {x});
    every_rank(&map, tile, barrier, {x, 1});
    every_rank(&map, tile, barrier, {x, 1, 2});
    every_rank(&map, tile, barrier, {x, 1, 2, 3});
    every_rank(&map, tile, barrier, {x, 1, 2, 3, 4});
    const uint16_t one[1] = {1}, two[2] = {1, 2}, three[3] = {1, 2, 3};
    tma::load_im2col(tile, &map, {x, 1, 2}, one, barrier);
    tma::load_im2col(tile, &map, {x, 1, 2, 3}, two, barrier);
    tma::load_im2col(tile, &map, {x, 1, 2, 3, 4}, three, barrier);
    tma::load_bulk(tile, global, 64, barrier);
    tma::load_bulk(tile, global, 64, barrier, tma::evict_first());
#if KASMINA_TMA_HAS_MULTICAST
    tma::load_bulk_multicast(tile, global, 64, barrier, uint16_t(3));
#endif
    tma::prefetch_bulk(global, 64);
    const bool over = tma::test_wait(barrier, 0) || tma::wait_for(barrier, 0, 1000);
    tma::wait(barrier, over ? 1 : 0);
    tma::fence_async_shared();
    tma::fence_async_global();
    tma::fence_async();
    tma::store_bulk(global, tile, 64);
    tma::store_bulk(global, tile, 64, tma::evict_last());
    tma::add_bulk(sums, reinterpret_cast<float*>(tile), 64);
    tma::add_bulk(reinterpret_cast<double*>(sums), reinterpret_cast<double*>(tile), 64);
    tma::add_bulk(reinterpret_cast<int32_t*>(sums), reinterpret_cast<int32_t*>(tile), 64);
    tma::add_bulk(reinterpret_cast<uint32_t*>(sums), reinterpret_cast<uint32_t*>(tile), 64);
    tma::add_bulk(reinterpret_cast<unsigned long long*>(sums), reinterpret_cast<unsigned long long*>(tile), 64);
    tma::commit_group();
    tma::wait_group_read<1>();
    tma::wait_group();
    tma::invalidate(barrier);
    global[tma::swizzled<128>(threadIdx.x) + tma::swizzled<64>(threadIdx.x) + tma::swizzled<32>(threadIdx.x)] = tile[0];
}

extern "C" __global__ void surface_fences(tma::TensorMap* map)
{
    __shared__ tma::TensorMap copy;
    tma::fence_map_release();
    tma::fence_map_release<tma::Scope::Cta>();
    tma::fence_map_release<tma::Scope::Cluster>();
    tma::fence_map_release<tma::Scope::System>();
    tma::fence_map_acquire(map);
    tma::fence_map_acquire<tma::Scope::Cta>(map);
    tma::fence_map_acquire<tma::Scope::Cluster>(map);
    tma::fence_map_acquire<tma::Scope::System>(map);
    tma::copy_map_release(map, &copy);
    tma::copy_map_release<tma::Scope::Cta>(map, &copy);
    tma::copy_map_release<tma::Scope::Cluster>(map, &copy);
    tma::copy_map_release<tma::Scope::System>(map, &copy);
}

#if KASMINA_TMA_HAS_REPLACE
template <tma::Space S>
__device__ void every_field(void* map, uint64_t value)
{
    const auto small = static_cast<uint32_t>(value);
    tma::replace_address<S>(map, value);
    tma::replace_rank<S>(map, small);
    tma::replace_size<S, 0>(map, small);
    tma::replace_size<S, 4>(map, small);
    tma::replace_stride<S, 0>(map, value);
    tma::replace_stride<S, 3>(map, value);
    tma::replace_box<S, 0>(map, small);
    tma::replace_box<S, 4>(map, small);
    tma::replace_element_stride<S, 0>(map, small);
    tma::replace_element_stride<S, 4>(map, small);
    tma::replace_data_type<S, tma::ElementCode::U8>(map);
    tma::replace_data_type<S, tma::ElementCode::Tf32Ftz>(map);
    tma::replace_interleave<S, 0>(map);
    tma::replace_interleave<S, 2>(map);
    tma::replace_swizzle<S, 0>(map);
    tma::replace_swizzle<S, 3>(map);
    tma::replace_fill<S, 0>(map);
    tma::replace_fill<S, 1>(map);
}

extern "C" __global__ void surface_edits(tma::TensorMap* map, uint64_t value)
{
    __shared__ tma::TensorMap copy;
    every_field<tma::Space::Global>(map, value);
    every_field<tma::Space::Shared>(&copy, value);
}
#endif

#endif
