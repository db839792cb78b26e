// Many segments, each for a few neighbouring lanes: equal ones, and ones between offsets.
//
// A group of lanes asks for the packets of several segments before it takes the first, so that short segments keep as many loads
// under way as long ones do. Lanes of a group are joined in a fixed tree; nothing else meets.
//
// Between offsets, a segment that is long for its group is put on a queue instead, cut into pieces; the kernel that follows hands
// the pieces to whole blocks. Where in the queue a segment lies depends on who came first, what becomes of it does not.
#pragma once

#include "reduce_pieces.cuh"

namespace kasmina::reduce {

// A piece of a segment on the queue; the segment's other pieces lie beside it, in order.
struct QueuedPiece {
    uint64_t segment;
    uint32_t piece;
    uint32_t pieces;
};

struct QueueHead {
    unsigned long long pieces;  // on the queue
    unsigned long long bad;     // ~index of the first offset that is wrong, 0 for none
};

struct SegmentParams {
    const void* x;               // the 16-byte boundary at or before the first element
    uint64_t lead;               // elements between the two
    uint64_t elements;
    uint64_t segment;            // elements of an equal segment; the last may have fewer
    uint64_t segments;
    const uint64_t* offsets;     // [segments + 1]; null for equal segments
    void* out;                   // [segments]
    QueueHead* head;
    QueuedPiece* queue;
    void* partials;              // one for each piece on the queue
    uint32_t* arrivals;          // likewise, zero
    uint64_t limit;              // elements of the longest segment that a group takes
    Settings settings;
};
static_assert(sizeof(SegmentParams) == 128 && offsetof(SegmentParams, limit) == 88 && sizeof(QueuedPiece) == 16, "as in Rust");

// Packets of a strip of a queued piece, at least; and how many pieces a segment has at most.
constexpr uint64_t kQueuedStrip = 256;
constexpr uint64_t kMostPieces = 2048;

template <class T>
struct QueueCut {
    uint64_t strip;
    uint64_t pieces;

    __device__ __forceinline__ explicit QueueCut(const Range& range)
    {
        const uint64_t packets = end_packet<T>(range) - first_packet<T>(range);
        const uint64_t least_strip = (packets + kStrips * kMostPieces - 1) / (kStrips * kMostPieces);
        strip = least_strip > kQueuedStrip ? least_strip : kQueuedStrip;
        pieces = (packets + kStrips * strip - 1) / (kStrips * strip);
    }
};

// A segment's range; offsets that decrease or leave the data are noted, and never followed.
__device__ __forceinline__ Range range_of(const SegmentParams& p, uint64_t segment)
{
    if (p.offsets == nullptr) {
        const uint64_t begin = segment * p.segment;
        return {p.lead + begin, p.lead + begin + (p.elements - begin < p.segment ? p.elements - begin : p.segment)};
    }
    const uint64_t begin = __ldg(p.offsets + segment), end = __ldg(p.offsets + segment + 1);
    const bool begins = begin <= p.elements, ends = end >= begin && end <= p.elements;
    if (!begins || !ends) {
        atomicMax(&p.head->bad, ~static_cast<unsigned long long>(begins ? segment + 1 : segment));
        return {p.lead, p.lead};
    }
    return {p.lead + begin, p.lead + end};
}

template <class T, class Lane, uint32_t kGroup, uint32_t kPackets, uint32_t kRounds, bool kOffsets>
__device__ __forceinline__ void groups(const SegmentParams& p)
{
    using Value = typename Element<T>::Value;
    constexpr uint32_t kGroups = kWarp / kGroup;
    const auto* x = static_cast<const T*>(p.x);
    const uint32_t rank = threadIdx.x % kGroup, group = threadIdx.x % kWarp / kGroup;
    const uint64_t warp = (uint64_t{blockIdx.x} * blockDim.x + threadIdx.x) / kWarp;
    const uint64_t warps = uint64_t{gridDim.x} * blockDim.x / kWarp;
    // Packets that can be read as a whole, whichever segments their elements belong to.
    const uint64_t safe = (p.lead + kLanes<T> - 1) / kLanes<T>, safe_end = (p.lead + p.elements) / kLanes<T>;

    for (uint64_t base = warp * kRounds * kGroups; base < p.segments; base += warps * kRounds * kGroups) {
        Range range[kRounds];
        Packet packets[kRounds][kPackets];
        Value pivot[kRounds];
        bool queued[kRounds];
#pragma unroll
        for (uint32_t r = 0; r < kRounds; ++r) {
            const uint64_t segment = base + r * kGroups + group;
            range[r] = segment < p.segments ? range_of(p, segment) : Range{p.lead, p.lead};
            queued[r] = false;
            if constexpr (kOffsets) {
                queued[r] = range[r].end - range[r].begin > p.limit;
            }
            const uint64_t first = first_packet<T>(range[r]) + rank;
#pragma unroll
            for (uint32_t k = 0; k < kPackets; ++k) {
                const uint64_t packet = first + k * kGroup;
                const bool inside = packet * kLanes<T> < range[r].end && !queued[r];
                if (inside && packet >= safe && packet < safe_end) {
                    packets[r][k] = load_packet(reinterpret_cast<const Packet*>(x) + packet);
                }
            }
            pivot[r] = pivot_of<Lane>(x, range[r], first - rank);
        }
#pragma unroll
        for (uint32_t r = 0; r < kRounds; ++r) {
            const uint64_t segment = base + r * kGroups + group;
            Lane lane;
            lane.begin(pivot[r], p.settings);
            const uint64_t first = first_packet<T>(range[r]), end = end_packet<T>(range[r]);
            if (range[r].begin < range[r].end && !queued[r]) {
#pragma unroll
                for (uint32_t k = 0; k < kPackets; ++k) {
                    const uint64_t packet = first + rank + k * kGroup;
                    if (packet >= end) continue;
                    const auto at = static_cast<uint32_t>(packet - first);
                    if (packet < safe || packet >= safe_end) {
                        take_edge(lane, x, range[r], packet, at);
                        continue;
                    }
                    Value value[kLanes<T>];
                    unpack<T>(packets[r][k], value);
                    const uint64_t start = packet * kLanes<T>;
                    if (start >= range[r].begin && start + kLanes<T> <= range[r].end) {
                        lane.take(value, at);
                    } else {
#pragma unroll
                        for (uint32_t i = 0; i < kLanes<T>; ++i) {
                            if (start + i >= range[r].begin && start + i < range[r].end) lane.take_one(value[i], at);
                        }
                    }
                }
                if (end - first > kGroup * kPackets) {
                    walk<T, kGroup, kPackets>(lane, x, range[r], first + kGroup * kPackets, end, first, rank);
                }
            }
            __syncwarp();
            join_lanes<kGroup>(lane);
            if (rank == 0 && segment < p.segments && !queued[r]) {
                put(p.out, segment, lane.record(0), p.settings);
            }
            if constexpr (kOffsets) {
                // All lanes write the pieces of one segment after the other.
                uint32_t waiting = __ballot_sync(kEveryLane, queued[r] && rank == 0);
                while (waiting != 0) {
                    const uint32_t who = __ffs(static_cast<int>(waiting)) - 1;
                    waiting &= waiting - 1;
                    const uint64_t which = base + r * kGroups + who / kGroup;
                    const QueueCut<T> cut(range_of(p, which));
                    unsigned long long start = 0;
                    if (threadIdx.x % kWarp == 0) start = atomicAdd(&p.head->pieces, static_cast<unsigned long long>(cut.pieces));
                    start = __shfl_sync(kEveryLane, start, 0);
                    for (uint64_t i = threadIdx.x % kWarp; i < cut.pieces; i += kWarp) {
                        p.queue[start + i] = {which, static_cast<uint32_t>(i), static_cast<uint32_t>(cut.pieces)};
                    }
                }
            }
        }
    }
}

// The pieces on the queue, a block each.
template <class T, class Lane, uint32_t kAhead>
__device__ __forceinline__ void queued_pieces(const SegmentParams& p)
{
    using Record = typename Lane::Record;
    __shared__ Record strips[kStrips];
    const auto* x = static_cast<const T*>(p.x);
    const uint64_t count = p.head->pieces;
    for (uint64_t item = blockIdx.x; item < count; item += gridDim.x) {
        const QueuedPiece entry = p.queue[item];
        const Range range = range_of(p, entry.segment);
        const QueueCut<T> cut(range);
        const uint64_t origin = first_packet<T>(range) + kStrips * cut.strip * entry.piece;
        Record record = reduce_piece<T, Lane, kAhead>(x, range, origin, cut.strip, p.settings, strips);
        bool done = true;
        if (entry.pieces > 1) {
            const uint64_t start = item - entry.piece;
            done = meet(record, static_cast<Record*>(p.partials) + start, entry.piece, entry.pieces, p.arrivals + start, strips);
        }
        if (done && threadIdx.x == 0) put(p.out, entry.segment, record, p.settings);
        __syncthreads();
    }
}

}  // namespace kasmina::reduce
