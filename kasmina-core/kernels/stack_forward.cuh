// The forward pass of consecutive layers in one launch. What a layer does to a column is done to each element by itself, so a thread
// takes its packets through all layers in registers: between two layers nothing is stored, and nobody waits for anybody.
//
// A thread does to a packet what the streaming kernels do (ForwardWorker), so outputs have their bits. Statistics have those of a
// streaming kernel with the same cut, where a block has one round of rows. Whatever need not be in a worker's chain of instructions, which is
// what the time of a small matrix consists of, other warps of the block do: some prepare the programs of the layers to come, some count what
// the layers gone by were given and merge it into their accumulators.
#pragma once

#include "stack_params.cuh"
#include "stack_ring.cuh"
#include "stream_forward.cuh"

namespace kasmina::stack {

using namespace stream;

// A thread's packets, of which a lane's number may be known at run time alone: by choosing, so that they stay in registers.
template <class T, uint32_t kHeld>
struct Held {
    Packet<T> of[kHeld];

    __device__ __forceinline__ Packet<T> operator()(uint32_t r) const
    {
        Packet<T> one = of[0];
#pragma unroll
        for (uint32_t k = 1; k < kHeld; ++k) {
            if (k == r) one = of[k];
        }
        return one;
    }

    __device__ __forceinline__ void put(uint32_t r, const Packet<T>& packet)
    {
#pragma unroll
        for (uint32_t k = 0; k < kHeld; ++k) {
            if (k == r) of[k] = packet;
        }
    }
};

// Of some rows from memory, and back.
template <class T, uint32_t kHeld, bool kAligned>
__device__ __forceinline__ Held<T, kHeld> load_rows(const uint8_t* from, uint64_t step, uint32_t rows, uint32_t columns)
{
    const Access<T, kAligned> access(columns);
    Held<T, kHeld> held;
#pragma unroll
    for (uint32_t r = 0; r < kHeld; ++r) {
        held.of[r] = Packet<T>{};
        if (r < rows) {
            held.of[r] = access.load(from + r * step);
        }
    }
    return held;
}

template <class T, uint32_t kHeld, bool kAligned>
__device__ __forceinline__ void store_rows(uint8_t* to, uint64_t step, uint32_t rows, uint32_t columns, const Held<T, kHeld>& held)
{
    const Access<T, kAligned> access(columns);
#pragma unroll
    for (uint32_t r = 0; r < kHeld; ++r) {
        if (r < rows) {
            access.store(to + r * step, held.of[r]);
        }
    }
}

// What a layer makes of a thread's packets.
template <class Worker, class T, uint32_t kHeld>
__device__ __forceinline__ void transform_held(Worker& worker, uint32_t rows, Held<T, kHeld>& now)
{
    if (!worker.computes()) {
        return;
    }
    const Held<T, kHeld> before = now;
    const auto put = [&](uint32_t r, const Packet<T>& packet) { now.put(r, packet); };
    typename Worker::Rest rest;
    worker.count(rows, before, before, rest);
    if (rows == kHeld) {
        worker.template transform<true>(kHeld, before, put);
    } else if (kHeld > 1) {
        worker.template transform<false>(rows, before, put);
    }
}

template <class T, Telemetry kTelemetry, uint32_t kHeld>
class ForwardBlock {
public:
    using Worker = ForwardWorker<T, Telemetry::Off, Mode::Compute, kHeld>;
    using Counter = ForwardWorker<T, kTelemetry, Mode::Copy, kHeld>;
    using Prepared = typename Worker::Prepared;
    static constexpr bool kCounts = kTelemetry != Telemetry::Off;

    // Shared memory: the layers; the barriers of both rings; plans; inputs of layers that are counted; each merger's records.
    __device__ __forceinline__ ForwardBlock(const ForwardStack& p, uint8_t* shared)
        : p_(p),
          g_(p.geometry),
          span_(tile_span(p.geometry, blockIdx.x % p.geometry.tiles)),
          group_(blockIdx.x / p.geometry.tiles),
          layers_(reinterpret_cast<ForwardLayer*>(shared)),
          barriers_(reinterpret_cast<uint64_t*>(layers_ + p.count)),
          plans_(reinterpret_cast<uint8_t*>(barriers_ + 2 * (p.plans + p.slots))),
          inputs_(reinterpret_cast<Packet<T>*>(plans_ + p.plans * plan_bytes())),
          records_(reinterpret_cast<ChunkStats*>(inputs_ + p.slots * kHeld * p.workers))
    {
    }

    __device__ __forceinline__ void run()
    {
        constexpr uint32_t kWords = sizeof(ForwardLayer) / sizeof(uint4);
        for (uint32_t i = threadIdx.x; i < p_.count * kWords; i += blockDim.x) {
            reinterpret_cast<uint4*>(layers_)[i] = load_settled(reinterpret_cast<const uint4*>(p_.layers) + i);
        }
        if (threadIdx.x == 0) {
            plan_ring().init(1, p_.workers / 32);
            input_ring().init(p_.workers / 32, 1);
        }
        __syncthreads();
        if (threadIdx.x < p_.workers) {
            work();
        } else if (threadIdx.x < p_.workers + 32 * kPreparers) {
            prepare();
        } else if (kCounts) {
            merge();
        }
    }

private:
    __device__ __forceinline__ RingCursor plan_ring() const { return RingCursor(barriers_, p_.plans); }
    __device__ __forceinline__ RingCursor input_ring() const { return RingCursor(barriers_ + 2 * p_.plans, p_.slots); }

    // A layer's guards, and its programs for each packet of the tile.
    __device__ __forceinline__ uint32_t plan_bytes() const { return sizeof(Bounds) + g_.tile_packets * sizeof(Prepared); }
    __device__ __forceinline__ Bounds& bounds(uint32_t slot) const { return *reinterpret_cast<Bounds*>(plans_ + slot * plan_bytes()); }
    __device__ __forceinline__ Prepared& prepared(uint32_t slot, uint32_t packet) const
    {
        return reinterpret_cast<Prepared*>(&bounds(slot) + 1)[packet];
    }

    // A worker's r-th row of what a layer was given.
    __device__ __forceinline__ Packet<T>& input(uint32_t slot, uint32_t r, uint32_t thread) const
    {
        return inputs_[(slot * kHeld + r) * p_.workers + thread];
    }

    // Rounds of rows that this block has.
    __device__ __forceinline__ uint32_t rounds() const { return ceil_div(row_blocks(g_) - group_, g_.groups); }

    // A warp prepares every kPreparers-th layer.
    __device__ __forceinline__ void prepare() const
    {
        const uint32_t preparer = (threadIdx.x - p_.workers) / 32, lane = threadIdx.x % 32;
        struct Loaded {
            Bounds bounds;
            typename Worker::Plan plan;
        };
        const auto load = [&](uint32_t i, uint32_t packet) -> Loaded {
            const ForwardLayer& layer = layers_[i];
            const uint32_t in_tile = packet * Worker::kLanes;
            const uint32_t columns = in_tile < span_.columns ? min(Worker::kLanes, span_.columns - in_tile) : 0;
            return {load_bounds(layer.bounds),
                    Worker::Plan::load(layer.flags, layer.programs, span_.first + in_tile, columns, g_.columns)};
        };
        const auto following = [&](uint32_t i) {
            for (i += kPreparers; i >= p_.count;) {
                i -= p_.count;
            }
            return i;
        };
        const uint32_t all = rounds() * p_.count;
        if (preparer >= all) {
            return;
        }
        RingCursor ring = plan_ring();
        for (uint32_t skipped = 0; skipped < preparer; ++skipped) {
            ring.advance();
        }
        uint32_t i = preparer % p_.count;
        Loaded next = load(i, lane);
        for (uint32_t number = preparer; number < all; number += kPreparers) {
            const uint32_t then = following(i);
            for (uint32_t packet = lane; packet - lane < g_.tile_packets; packet += 32) {
                const Loaded now = next;
                // Under way while these are prepared.
                const bool more = packet - lane + 32 < g_.tile_packets;
                next = load(more ? i : then, more ? packet + 32 : lane);
                if (packet == lane) {
                    ring.claim();
                    if (lane == 0) {
                        bounds(ring.slot()) = now.bounds;
                    }
                }
                if (packet < g_.tile_packets) {
                    prepared(ring.slot(), packet) = Worker::prepare(now.bounds, now.plan);
                }
            }
            ring.fill();
            for (uint32_t k = 0; k < kPreparers; ++k) {
                ring.advance();
            }
            i = then;
        }
    }

    struct Plan {
        Bounds bounds;
        Prepared prepared;
    };

    // The next layer's, for a packet.
    __device__ __forceinline__ Plan take(RingCursor& ring, uint32_t packet) const
    {
        ring.wait();
        const Plan plan{bounds(ring.slot()), prepared(ring.slot(), packet)};
        ring.give_back();
        ring.advance();
        return plan;
    }

    __device__ __forceinline__ void work() const
    {
        // Where registers suffice, a layer's programs are read while the one before it is worked on.
        constexpr bool kAhead = sizeof(T) == 4;
        const Place<Worker> place(g_, span_);
        RingCursor plans = plan_ring(), inputs = input_ring();
        uint32_t left = rounds() * p_.count;
        Plan next;
        if constexpr (kAhead) {
            next = take(plans, place.packet);
        }
        for (uint32_t block = group_; block < row_blocks(g_); block += g_.groups) {
            const uint32_t rows = place.columns == 0 ? 0 : place.rows(g_, block);
            const uint64_t row = uint64_t(block) * stage_rows(g_) + place.lane;
            const auto* from = static_cast<const uint8_t*>(p_.x) + place.first * sizeof(T) + row * p_.x_pitch;
            const uint64_t x_step = g_.row_lanes * p_.x_pitch;
            Held<T, kHeld> now = p_.aligned != 0 ? load_rows<T, kHeld, true>(from, x_step, rows, place.columns)
                                                 : load_rows<T, kHeld, false>(from, x_step, rows, place.columns);
#pragma unroll 1
            for (uint32_t i = 0; i < p_.count; ++i) {
                Plan plan;
                if constexpr (kAhead) {
                    plan = next;
                    if (--left > 0) {
                        next = take(plans, place.packet);
                    }
                } else {
                    plan = take(plans, place.packet);
                }
                pass(layers_[i], plan, rows, now, inputs);
            }
            if (p_.stored != 0) {
                auto* to = static_cast<uint8_t*>(p_.y) + place.first * sizeof(T) + row * p_.y_pitch;
                const uint64_t y_step = g_.row_lanes * p_.y_pitch;
                p_.aligned != 0 ? store_rows<T, kHeld, true>(to, y_step, rows, place.columns, now)
                                : store_rows<T, kHeld, false>(to, y_step, rows, place.columns, now);
            }
        }
    }

    // The packets through one layer.
    __device__ __forceinline__ void pass(const ForwardLayer& layer, const Plan& plan, uint32_t rows, Held<T, kHeld>& now, RingCursor& ring) const
    {
        if constexpr (kCounts) {
            if (layer.accumulators != nullptr) {
                ring.claim();
#pragma unroll
                for (uint32_t r = 0; r < kHeld; ++r) {
                    input(ring.slot(), r, threadIdx.x) = now.of[r];
                }
                ring.fill();
                ring.advance();
            }
        }
        Worker worker(layer.dead_epsilon, plan.bounds, plan.prepared);
        transform_held(worker, rows, now);
        worker.report_saturated(layer.saturated);
    }

    // A warp has every so many-th of the layers that are counted, in all rounds: it finds what it has left itself.
    __device__ __forceinline__ void merge() const
    {
        const uint32_t first = p_.workers + 32 * kPreparers;
        const uint32_t mergers = (blockDim.x - first) / 32, merger = (threadIdx.x - first) / 32, lane = threadIdx.x % 32;
        const uint64_t block_of = uint64_t(blockIdx.x % g_.tiles) * g_.groups + group_;
        const auto each_counted = [&](auto body) {
            uint32_t turn = 0;
            for (uint32_t i = 0; i < p_.count; ++i) {
                const ForwardLayer& layer = layers_[i];
                if (layer.accumulators != nullptr) {
                    body(layer, layer.accumulators + block_of * layer.pieces, turn == merger);
                    turn = turn + 1 == mergers ? 0 : turn + 1;
                }
            }
        };
        // What the merges read comes while the first layers are worked on.
        each_counted([&](const ForwardLayer& layer, const ChunkStats* accumulators, bool mine) {
            if (mine) {
                Geometry geometry = g_;
                geometry.chunk = layer.chunk;
                geometry.pieces = layer.pieces;
                expect_pieces(geometry, span_, layer.watched, accumulators);
            }
        });
        ChunkStats* records = records_ + merger * (g_.tile_packets * g_.row_lanes * Counter::kUnits);
        typename Counter::Rest rest = Counter::empty_rest();
        RingCursor ring = input_ring();
        for (uint32_t block = group_; block < row_blocks(g_); block += g_.groups) {
            each_counted([&](const ForwardLayer& layer, ChunkStats* accumulators, bool mine) {
                if (mine) {
                    ring.wait();
                    count(layer, block, lane, ring.slot(), records, rest);
                    ring.give_back();
                    accumulate_pieces<kWorkers, Counter::kUnitColumns, ChunkStats, 32>(layer.chunk, g_.tile_columns, span_, lane, g_.row_lanes,
                                                                                       records, layer.watched, accumulators);
                    // All have read the records.
                    __syncwarp();
                }
                ring.advance();
            });
        }
    }

    // What the workers have put into a slot, as each of them would count it.
    __device__ __forceinline__ void count(const ForwardLayer& layer, uint32_t block, uint32_t lane, uint32_t slot, ChunkStats* records,
                                          typename Counter::Rest& rest) const
    {
        const uint32_t left = g_.rows - block * stage_rows(g_);
        const bool whole = left >= stage_rows(g_);
        for (uint32_t thread = lane; thread < g_.tile_packets * g_.row_lanes; thread += 32) {
            const uint32_t row_lane = thread / g_.tile_packets, packet = thread - row_lane * g_.tile_packets;
            const bool inside = packet * Counter::kLanes < span_.columns;
            const uint32_t rows = !inside ? 0 : whole ? g_.lane_rows : left > row_lane ? ceil_div(left - row_lane, g_.row_lanes) : 0;
            Held<T, kHeld> held;
#pragma unroll
            for (uint32_t r = 0; r < kHeld; ++r) {
                held.of[r] = input(slot, r, thread);
            }
            Counter counter(layer.dead_epsilon, Bounds{}, Counter::Plan::nothing());
            counter.count(rows, held, held, rest);
            counter.template put_records<true>(records + thread * Counter::kUnits, rest);
            if (counter.has_rest()) {
                rest = Counter::empty_rest();
            }
        }
    }

    const ForwardStack& p_;
    const Geometry& g_;
    const TileSpan span_;
    const uint32_t group_;
    ForwardLayer* layers_;
    uint64_t* barriers_;
    uint8_t* plans_;
    Packet<T>* inputs_;
    ChunkStats* records_;
};

template <class T, Telemetry kTelemetry, uint32_t kHeld>
__device__ __forceinline__ void forward(const ForwardStack& p)
{
    extern __shared__ __align__(1024) uint8_t shared[];
    ForwardBlock<T, kTelemetry, kHeld>(p, shared).run();
}

}  // namespace kasmina::stack
