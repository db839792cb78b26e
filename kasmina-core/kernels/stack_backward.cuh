// The backward pass of consecutive layers in one launch. A block takes its rows forward through the layers once more, from the stack's
// input, and keeps in shared memory what each layer was given, where the layer's backward pass reads it; then it takes dL/dy back through
// them in registers. What a layer wants of it beside dL/dx (column sums, statistics of its gradient) goes to shared memory and is merged by
// other warps meanwhile, as in the forward pass.
//
// The layers' bodies are those of the streaming kernels (BackwardWorker, GradientCounter), so gradients have their bits; sums and statistics
// have those of a streaming kernel with the same cut, where a block has one round of rows.
#pragma once

#include "stack_forward.cuh"
#include "stream_backward_worker.cuh"

namespace kasmina::stack {

// One layer's backward pass, in device memory.
struct alignas(16) BackwardLayer {
    BackwardParams params;  // its matrices are not looked at
    uint32_t place;         // of its input in shared memory; kNoPlace where it is not wanted
    uint32_t padding;
};
static_assert(sizeof(BackwardLayer) == 192, "as in Rust");

constexpr uint32_t kNoPlace = 0xffffffffu;

struct BackwardStack {
    const void* x;  // of the stack's first layer
    const void* grad_y;
    void* grad_x;
    uint64_t x_pitch;  // bytes from row to row
    uint64_t grad_y_pitch;
    uint64_t grad_x_pitch;
    const BackwardLayer* layers;  // from the stack's first
    stream::Geometry geometry;    // all layers', but for chunk, seeds and pieces
    uint32_t first;               // the layers that are taken backward: first to last, the latter first
    uint32_t last;
    uint32_t again;               // layers that are taken forward, from the stack's first on
    uint32_t places;              // inputs in shared memory
    uint32_t workers;             // threads that have packets, whole warps; kPreparers warps and those that merge follow
    uint32_t plans;               // layers whose programs are in shared memory at once
    uint32_t slots;               // layers whose sums and records are
    uint32_t aligned;             // rows begin at multiples of 16 bytes
};
static_assert(sizeof(BackwardStack) == 56 + sizeof(stream::Geometry) + 32, "as in Rust");

template <class T, Telemetry kTelemetry, uint32_t kHeld>
class BackwardBlockOfStack {
public:
    using Forward = ForwardWorker<T, Telemetry::Off, Mode::Compute, kHeld>;
    using Worker = BackwardWorker<T, kTelemetry>;
    using Counter = GradientCounter<T, kTelemetry, false>;
    using Plan = PacketPlan<Worker::kLanes>;
    using Prepared = typename Forward::Prepared;
    static constexpr uint32_t kLanes = Worker::kLanes;

    // Shared memory: the layers; the barriers of both rings; plans; inputs; the slots' gradients, and their totals; each merger's records.
    __device__ __forceinline__ BackwardBlockOfStack(const BackwardStack& p, uint8_t* shared)
        : p_(p),
          g_(p.geometry),
          span_(tile_span(p.geometry, blockIdx.x % p.geometry.tiles)),
          group_(blockIdx.x / p.geometry.tiles),
          layers_(reinterpret_cast<BackwardLayer*>(shared)),
          barriers_(reinterpret_cast<uint64_t*>(layers_ + p.last)),
          plans_(reinterpret_cast<uint8_t*>(barriers_ + 2 * (p.plans + p.slots))),
          inputs_(reinterpret_cast<Packet<T>*>(plans_ + p.plans * plan_bytes())),
          gradients_(inputs_ + p.places * kHeld * p.workers),
          totals_(reinterpret_cast<uint8_t*>(gradients_ + p.slots * kHeld * p.workers)),
          records_(reinterpret_cast<GradientStats*>(totals_ + ceil_div(p.slots, kWorkers / p.workers) * Slots<T>::kBytes))
    {
    }

    __device__ __forceinline__ void run()
    {
        constexpr uint32_t kWords = sizeof(BackwardLayer) / sizeof(uint4);
        for (uint32_t i = threadIdx.x; i < p_.last * kWords; i += blockDim.x) {
            reinterpret_cast<uint4*>(layers_)[i] = load_settled(reinterpret_cast<const uint4*>(p_.layers) + i);
        }
        if (threadIdx.x == 0) {
            plan_ring().init(1, p_.workers / 32);
            slot_ring().init(p_.workers / 32, 1);
        }
        __syncthreads();
        if (threadIdx.x < p_.workers) {
            work();
        } else if (threadIdx.x < p_.workers + 32 * kPreparers) {
            prepare();
        } else {
            merge();
        }
    }

private:
    // A packet's programs and flags as they are.
    struct alignas(16) RawPlan {
        ColumnProgram programs[kLanes];
        uint8_t flags[16];
    };
    static_assert(sizeof(RawPlan) == sizeof(Prepared), "they share slots");

    __device__ __forceinline__ RingCursor plan_ring() const { return RingCursor(barriers_, p_.plans); }
    __device__ __forceinline__ RingCursor slot_ring() const { return RingCursor(barriers_ + 2 * p_.plans, p_.slots); }

    __device__ __forceinline__ uint32_t plan_bytes() const { return sizeof(Bounds) + g_.tile_packets * sizeof(Prepared); }
    __device__ __forceinline__ Bounds& bounds(uint32_t slot) const { return *reinterpret_cast<Bounds*>(plans_ + slot * plan_bytes()); }
    template <class Kind>
    __device__ __forceinline__ Kind& plan(uint32_t slot, uint32_t packet) const
    {
        return reinterpret_cast<Kind*>(&bounds(slot) + 1)[packet];
    }

    // Totals of several slots share the place of a whole block's, as only so many threads have any.
    __device__ __forceinline__ uint32_t slots_together() const { return kWorkers / p_.workers; }
    __device__ __forceinline__ uint8_t* totals(uint32_t slot) const
    {
        return totals_ + slot / slots_together() * Slots<T>::kBytes + slot % slots_together() * p_.workers * sizeof(double);
    }
    // A worker's r-th row of the gradient of a layer's output.
    __device__ __forceinline__ Packet<T>& gradient(uint32_t slot, uint32_t r, uint32_t thread) const
    {
        return gradients_[(slot * kHeld + r) * p_.workers + thread];
    }

    __device__ __forceinline__ uint32_t rounds() const { return ceil_div(row_blocks(g_) - group_, g_.groups); }

    // Layers of a round, there and back.
    __device__ __forceinline__ uint32_t steps() const { return p_.again + (p_.last - p_.first); }

    static __device__ __forceinline__ bool counts(const BackwardParams& p) { return kTelemetry != Telemetry::Off && p.accumulators != nullptr; }

    // Whether a layer does anything to the tile that a slot is wanted for: the gradient of any other is handed through.
    static __device__ __forceinline__ bool acts(const BackwardParams& p, const TileTask& task)
    {
        return counts(p) || task.changed || task.has_sums;
    }

    // A warp prepares every kPreparers-th step.
    __device__ __forceinline__ void prepare() const
    {
        const uint32_t preparer = (threadIdx.x - p_.workers) / 32, lane = threadIdx.x % 32;
        struct Loaded {
            Bounds bounds;
            Plan plan;
        };
        const auto load = [&](uint32_t step, uint32_t packet) -> Loaded {
            const BackwardParams& layer = layers_[step < p_.again ? step : p_.last - 1 - (step - p_.again)].params;
            const uint32_t in_tile = packet * kLanes;
            const uint32_t columns = in_tile < span_.columns ? min(kLanes, span_.columns - in_tile) : 0;
            return {load_bounds(layer.bounds), Plan::load(layer.flags, layer.programs, span_.first + in_tile, columns, g_.columns)};
        };
        const auto following = [&](uint32_t step) {
            for (step += kPreparers; step >= steps();) {
                step -= steps();
            }
            return step;
        };
        const uint32_t all = rounds() * steps();
        if (preparer >= all) {
            return;
        }
        RingCursor ring = plan_ring();
        for (uint32_t skipped = 0; skipped < preparer; ++skipped) {
            ring.advance();
        }
        uint32_t step = preparer % steps();
        Loaded next = load(step, lane);
        for (uint32_t number = preparer; number < all; number += kPreparers) {
            const uint32_t then = following(step);
            for (uint32_t packet = lane; packet - lane < g_.tile_packets; packet += 32) {
                const Loaded now = next;
                // Under way while these are prepared.
                const bool more = packet - lane + 32 < g_.tile_packets;
                next = load(more ? step : then, more ? packet + 32 : lane);
                if (packet == lane) {
                    ring.claim();
                    if (lane == 0) {
                        bounds(ring.slot()) = now.bounds;
                    }
                }
                if (packet < g_.tile_packets) {
                    if (step < p_.again) {
                        plan<Prepared>(ring.slot(), packet) = Forward::prepare(now.bounds, now.plan);
                    } else {
                        RawPlan& raw = plan<RawPlan>(ring.slot(), packet);
#pragma unroll
                        for (uint32_t j = 0; j < kLanes; ++j) {
                            raw.programs[j] = now.plan.programs[j];
                            raw.flags[j] = static_cast<uint8_t>(now.plan.flags[j]);
                        }
                    }
                }
            }
            ring.fill();
            for (uint32_t k = 0; k < kPreparers; ++k) {
                ring.advance();
            }
            step = then;
        }
    }

    // A thread's place for the r-th row of an input.
    __device__ __forceinline__ Packet<T>& input(uint32_t place, uint32_t r) const
    {
        return inputs_[(place * kHeld + r) * p_.workers + threadIdx.x];
    }

    __device__ __forceinline__ void keep(const BackwardLayer& layer, const Held<T, kHeld>& now) const
    {
        if (layer.place != kNoPlace) {
#pragma unroll
            for (uint32_t r = 0; r < kHeld; ++r) {
                input(layer.place, r) = now.of[r];
            }
        }
    }

    // The rows of one matrix that this thread has in a round.
    template <bool kAligned>
    __device__ __forceinline__ Held<T, kHeld> load(const void* matrix, uint64_t pitch, const Place<Forward>& place, uint64_t row,
                                                   uint32_t rows) const
    {
        const auto* from = static_cast<const uint8_t*>(matrix) + place.first * sizeof(T) + row * pitch;
        return load_rows<T, kHeld, kAligned>(from, g_.row_lanes * pitch, rows, place.columns);
    }

    __device__ __forceinline__ void work() const
    {
        const Place<Forward> place(g_, span_);
        RingCursor plans = plan_ring(), slots = slot_ring();
        for (uint32_t block = group_; block < row_blocks(g_); block += g_.groups) {
            const uint32_t rows = place.columns == 0 ? 0 : place.rows(g_, block);
            const uint64_t row = uint64_t(block) * stage_rows(g_) + place.lane;
            if (p_.places > 0) {
                forward_again(place, row, rows, plans);
            }
            Held<T, kHeld> now = p_.aligned != 0 ? load<true>(p_.grad_y, p_.grad_y_pitch, place, row, rows)
                                                 : load<false>(p_.grad_y, p_.grad_y_pitch, place, row, rows);
#pragma unroll 1
            for (uint32_t i = p_.last; i-- > p_.first;) {
                plans.wait();
                const Bounds bounds = this->bounds(plans.slot());
                const RawPlan& raw = plan<RawPlan>(plans.slot(), place.packet);
                Plan own;
#pragma unroll
                for (uint32_t j = 0; j < kLanes; ++j) {
                    own.programs[j] = raw.programs[j];
                    own.flags[j] = raw.flags[j];
                }
                plans.give_back();
                plans.advance();
                step(layers_[i], bounds, own, place, rows, now, slots);
            }
            auto* to = static_cast<uint8_t*>(p_.grad_x) + place.first * sizeof(T) + row * p_.grad_x_pitch;
            const uint64_t to_step = g_.row_lanes * p_.grad_x_pitch;
            p_.aligned != 0 ? store_rows<T, kHeld, true>(to, to_step, rows, place.columns, now)
                            : store_rows<T, kHeld, false>(to, to_step, rows, place.columns, now);
        }
    }

    // From the stack's input to the last that a layer wants; what layers want is kept.
    __device__ __forceinline__ void forward_again(const Place<Forward>& place, uint64_t row, uint32_t rows, RingCursor& plans) const
    {
        Held<T, kHeld> now = p_.aligned != 0 ? load<true>(p_.x, p_.x_pitch, place, row, rows)
                                             : load<false>(p_.x, p_.x_pitch, place, row, rows);
#pragma unroll 1
        for (uint32_t i = 0; i < p_.again; ++i) {
            keep(layers_[i], now);
            plans.wait();
            Forward worker(0.0f, bounds(plans.slot()), plan<Prepared>(plans.slot(), place.packet));
            plans.give_back();
            plans.advance();
            transform_held(worker, rows, now);
        }
        keep(layers_[p_.again], now);
    }

    // The gradient back through one layer.
    __device__ __forceinline__ void step(const BackwardLayer& layer, const Bounds& bounds, const Plan& plan, const Place<Forward>& place,
                                         uint32_t rows, Held<T, kHeld>& now, RingCursor& ring) const
    {
        const BackwardParams& p = layer.params;
        const TileTask task(p, blockIdx.x);
        if (!acts(p, task)) {
            return;
        }
        ring.claim();
        const Held<T, kHeld> before = now;
        if (counts(p)) {
#pragma unroll
            for (uint32_t r = 0; r < kHeld; ++r) {
                gradient(ring.slot(), r, threadIdx.x) = before.of[r];
            }
        }
        if (task.changed || task.has_sums) {
            Worker worker(bounds, totals(ring.slot()), plan, place.columns, task);
            const auto x = [&](uint32_t r) { return input(layer.place, r); };
            worker.run(p, p.programs + place.first, rows, x, before, [&](uint32_t r, const Packet<T>& packet) { now.put(r, packet); });
            worker.end();
            worker.report_saturated(p.saturated);
        }
        ring.fill();
        ring.advance();
    }

    // A warp has every so many-th of the layers that act, in all rounds: it finds what it has left itself.
    __device__ __forceinline__ void merge() const
    {
        const uint32_t first = p_.workers + 32 * kPreparers;
        const uint32_t mergers = (blockDim.x - first) / 32, merger = (threadIdx.x - first) / 32, lane = threadIdx.x % 32;
        const auto each_acting = [&](auto body) {
            uint32_t turn = 0;
            for (uint32_t i = p_.last; i-- > p_.first;) {
                const BackwardParams& p = layers_[i].params;
                const TileTask task(p, blockIdx.x);
                if (acts(p, task)) {
                    body(p, task, turn == merger);
                    turn = turn + 1 == mergers ? 0 : turn + 1;
                }
            }
        };
        // What the merges read comes while the first layers are worked on.
        each_acting([&](const BackwardParams& p, const TileTask& task, bool mine) {
            if (mine && counts(p)) {
                expect_pieces(p.geometry, span_, p.watched, accumulators_of(p, task));
            }
        });
        GradientStats* records = records_ + merger * (g_.tile_packets * g_.row_lanes * Counter::kUnits);
        typename Counter::Rest rest = Counter::empty_rest();
        RingCursor ring = slot_ring();
        for (uint32_t block = group_; block < row_blocks(g_); block += g_.groups) {
            each_acting([&](const BackwardParams& p, const TileTask& task, bool mine) {
                if (mine) {
                    ring.wait();
                    if (task.has_sums) {
                        merge_sums(p, task, lane, ring.slot(), block != group_);
                    }
                    if (counts(p)) {
                        count(block, lane, ring.slot(), records, rest);
                    }
                    ring.give_back();
                    if constexpr (kTelemetry != Telemetry::Off) {
                        if (counts(p)) {
                            accumulate_pieces<kWorkers, Counter::kUnitColumns, GradientStats, 32>(
                                p.geometry.chunk, g_.tile_columns, span_, lane, g_.row_lanes, records, p.watched, accumulators_of(p, task));
                            // All have read the records.
                            __syncwarp();
                        }
                    }
                }
                ring.advance();
            });
        }
    }

    // The gradients that the workers have put into a slot, as each of them would count them.
    __device__ __forceinline__ void count(uint32_t block, uint32_t lane, uint32_t slot, GradientStats* records,
                                          typename Counter::Rest& rest) const
    {
        const uint32_t left = g_.rows - block * stage_rows(g_);
        const bool whole = left >= stage_rows(g_);
        for (uint32_t thread = lane; thread < g_.tile_packets * g_.row_lanes; thread += 32) {
            const uint32_t row_lane = thread / g_.tile_packets, packet = thread - row_lane * g_.tile_packets;
            const bool inside = packet * kLanes < span_.columns;
            const uint32_t rows = !inside ? 0 : whole ? g_.lane_rows : left > row_lane ? ceil_div(left - row_lane, g_.row_lanes) : 0;
            Held<T, kHeld> held;
#pragma unroll
            for (uint32_t r = 0; r < kHeld; ++r) {
                held.of[r] = gradient(slot, r, thread);
            }
            Counter counter;
            counter.count(rows, held, rest);
            counter.template put_records<true>(records + thread * Counter::kUnits, rest);
            if (counter.has_rest()) {
                rest = Counter::empty_rest();
            }
        }
    }

    // The threads' totals to the block's column sums, as `BackwardWorker::finish`: over row lanes in their order.
    __device__ __forceinline__ void merge_sums(const BackwardParams& p, const TileTask& task, uint32_t lane, uint32_t slot, bool more) const
    {
        const Slots<T> slots(totals(slot));
        for (uint32_t i = lane; i < g_.tile_packets * kLanes; i += 32) {
            const uint32_t packet = i % g_.tile_packets, j = i / g_.tile_packets;
            ColumnTotals sum = slots.get(j, packet);
            for (uint32_t row_lane = 1; row_lane < g_.row_lanes; ++row_lane) {
                sum.merge(slots.get(j, row_lane * g_.tile_packets + packet));
            }
            slots.set(j, packet, sum);
        }
        __syncwarp();
        constexpr uint32_t kParts = sizeof(ColumnTotals) / sizeof(double);
        auto* out = reinterpret_cast<double*>(p.sums + static_cast<uint64_t>(task.group) * g_.columns + span_.first);
        for (uint32_t i = lane; i < span_.columns * kParts; i += 32) {
            const uint32_t column = i / kParts;
            const double sum = slots.at(i % kParts, column % kLanes, column / kLanes);
            out[i] = more ? out[i] + sum : sum;
        }
    }

    const BackwardStack& p_;
    const Geometry& g_;
    const TileSpan span_;
    const uint32_t group_;
    BackwardLayer* layers_;
    uint64_t* barriers_;
    uint8_t* plans_;
    Packet<T>* inputs_;
    Packet<T>* gradients_;
    uint8_t* totals_;
    GradientStats* records_;
};

template <class T, Telemetry kTelemetry, uint32_t kHeld>
__device__ __forceinline__ void backward(const BackwardStack& p)
{
    extern __shared__ __align__(1024) uint8_t shared[];
    BackwardBlockOfStack<T, kTelemetry, kHeld>(p, shared).run();
}

}  // namespace kasmina::stack
