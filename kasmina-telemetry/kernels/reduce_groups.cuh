// Many segments, each for a few neighbouring lanes: equal ones, and ones between offsets.
//
// A group of lanes asks for several packets before it takes the first, of several segments where they are short, so that those
// keep as many loads under way as long ones do. Lanes of a group are joined in a fixed tree; nothing else meets.
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
    uint64_t segment;            // elements of an equal segment, the last may have fewer; with offsets, the queue's capacity
    uint64_t segments;
    const uint64_t* offsets;     // [segments + 1]; null for equal segments
    void* out;                   // [segments]
    QueueHead* head;
    QueuedPiece* queue;
    void* partials;              // one for each piece on the queue; or cells, likewise
    uint32_t* arrivals;          // likewise, zero
    uint64_t limit;              // elements of the longest segment that a group takes
    Settings settings;
};
static_assert(sizeof(SegmentParams) == 144 && offsetof(SegmentParams, limit) == 88 && sizeof(QueuedPiece) == 16, "as in Rust");

// Packets of a strip of a queued piece, at least; and how many pieces a segment has at most.
constexpr uint64_t kQueuedStrip = 512;
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

// Equal segments of whole packets. Lanes of a group take neighbouring packets, and ask for those of `kRounds` segments at once.
template <class T, class Lane, uint32_t kGroup, uint32_t kPackets, uint32_t kRounds>
__device__ __forceinline__ void plain_groups(const SegmentParams& p)
{
    using Value = typename Element<T>::Value;
    constexpr uint32_t kGroups = kWarp / kGroup;
    const auto* x = static_cast<const Packet*>(p.x);
    const uint32_t rank = threadIdx.x % kGroup, group = threadIdx.x % kWarp / kGroup;
    const uint64_t warp = (uint64_t{blockIdx.x} * blockDim.x + threadIdx.x) / kWarp;
    const uint64_t warps = uint64_t{gridDim.x} * blockDim.x / kWarp;
    const auto length = static_cast<uint32_t>(p.segment / kLanes<T>);
    const uint64_t whole = p.elements / p.segment;

    for (uint64_t base = warp * kRounds * kGroups; base < whole; base += warps * kRounds * kGroups) {
        // Groups behind the last segment look at that one again, and keep what they find to themselves.
        const auto left = static_cast<uint32_t>(whole - base < kRounds * kGroups ? whole - base : kRounds * kGroups);
        const Packet* from = x + base * length + rank;
        Packet packets[kRounds][kPackets];
        Value pivot[kRounds];
#pragma unroll
        for (uint32_t r = 0; r < kRounds; ++r) {
            const uint32_t segment = r * kGroups + group < left ? r * kGroups + group : left - 1;
#pragma unroll
            for (uint32_t k = 0; k < kPackets; ++k) {
                if (rank + k * kGroup < length) packets[r][k] = load_packet(from + segment * length + k * kGroup);
            }
            if constexpr (Lane::kPivot) pivot[r] = widen(*reinterpret_cast<const T*>(from + segment * length - rank));
        }
#pragma unroll
        for (uint32_t r = 0; r < kRounds; ++r) {
            Lane lane;
            lane.begin(Lane::kPivot ? pivot[r] : Value{}, p.settings);
            const auto take = [&](const Packet& packet, uint32_t at) {
                Value value[kLanes<T>];
                unpack<T>(packet, value);
                lane.take(value, at);
            };
#pragma unroll
            for (uint32_t k = 0; k < kPackets; ++k) {
                if (rank + k * kGroup < length) take(packets[r][k], rank + k * kGroup);
            }
            if constexpr (kGroup == kWarp) {
                static_assert(kRounds == 1, "one segment a warp");
#pragma unroll 1
                for (uint32_t at = rank + kPackets * kGroup; at < length; at += kPackets * kGroup) {
                    const Packet* more = from - rank + at;
#pragma unroll
                    for (uint32_t k = 0; k < kPackets; ++k) {
                        if (at + k * kGroup < length) packets[r][k] = load_packet(more + k * kGroup);
                    }
#pragma unroll
                    for (uint32_t k = 0; k < kPackets; ++k) {
                        if (at + k * kGroup < length) take(packets[r][k], at + k * kGroup);
                    }
                }
            }
            __syncwarp();
            join_lanes<kGroup>(lane);
            if (rank == 0 && r * kGroups + group < left) {
                put(p.out, base + r * kGroups + group, lane.record(0, p.segment), p.segment, p.settings);
            }
        }
    }
    // A short last segment.
    if (whole < p.segments && warp == 0) {
        const Range range{whole * p.segment, p.elements};
        const uint64_t first = first_packet<T>(range);
        Lane lane;
        lane.begin(pivot_of<Lane>(static_cast<const T*>(p.x), range, first), p.settings);
        walk<T, kWarp, 1>(lane, static_cast<const T*>(p.x), range, first, end_packet<T>(range), first, threadIdx.x % kWarp);
        __syncwarp();
        join_lanes<kWarp>(lane);
        if (threadIdx.x == 0) put(p.out, whole, lane.record(0, range.end - range.begin), range.end - range.begin, p.settings);
    }
}

// Segments that begin and end anywhere, equal or between offsets. Packets that two segments share are read by both; only where a
// packet leaves the data is it read element by element.
template <class T, class Lane, uint32_t kGroup, uint32_t kPackets>
__device__ __forceinline__ void ragged_groups(const SegmentParams& p)
{
    using Value = typename Element<T>::Value;
    constexpr uint32_t kGroups = kWarp / kGroup;
    const auto* x = static_cast<const T*>(p.x);
    const uint32_t rank = threadIdx.x % kGroup, group = threadIdx.x % kWarp / kGroup;
    const uint64_t warp = (uint64_t{blockIdx.x} * blockDim.x + threadIdx.x) / kWarp;
    const uint64_t warps = uint64_t{gridDim.x} * blockDim.x / kWarp;

    for (uint64_t base = warp * kGroups; base < p.segments; base += warps * kGroups) {
        const uint64_t segment = base + group;
        const Range range = segment < p.segments ? range_of(p, segment) : Range{p.lead, p.lead};
        const uint64_t elements = range.end - range.begin;
        const bool queued = elements > p.limit;
        // From here on all is counted from the segment's first packet; no group takes more than 2^32 elements.
        const uint64_t first = first_packet<T>(range);
        const auto skip = static_cast<uint32_t>(range.begin - first * kLanes<T>);
        const uint32_t total = queued || elements == 0 ? 0 : skip + static_cast<uint32_t>(elements);
        const uint32_t length = (total + kLanes<T> - 1) / kLanes<T>;
        const bool head = first * kLanes<T> < p.lead;
        const bool tail = (first + length) * kLanes<T> > p.lead + p.elements;
        const Packet* from = reinterpret_cast<const Packet*>(x) + first;
        Lane lane;
        lane.begin(length != 0 ? pivot_of<Lane>(x, range, first) : Value{}, p.settings);
#pragma unroll 1
        for (uint32_t at = rank; at < length; at += kPackets * kGroup) {
            Packet packets[kPackets];
#pragma unroll
            for (uint32_t k = 0; k < kPackets; ++k) {
                const uint32_t packet = at + k * kGroup;
                const bool outside = (packet == 0 && head) || (packet + 1 == length && tail);
                if (packet < length && !outside) packets[k] = load_packet(from + packet);
            }
#pragma unroll
            for (uint32_t k = 0; k < kPackets; ++k) {
                const uint32_t packet = at + k * kGroup;
                if (packet >= length) continue;
                if ((packet == 0 && head) || (packet + 1 == length && tail)) {
                    take_edge(lane, x, range, first + packet, packet);
                    continue;
                }
                Value value[kLanes<T>];
                unpack<T>(packets[k], value);
                const uint32_t start = packet == 0 ? skip : 0, left = total - packet * kLanes<T>;
                if (start == 0 && left >= kLanes<T>) {
                    lane.take(value, packet);
                } else {
                    lane.take_part(value, start, left < kLanes<T> ? left : kLanes<T>, packet);
                }
            }
        }
        __syncwarp();
        join_lanes<kGroup>(lane);
        if (rank == 0 && segment < p.segments && !queued) {
            put(p.out, segment, lane.record(0, elements), elements, p.settings);
        }
        // All lanes write the pieces of one segment after the other.
        uint32_t waiting = __ballot_sync(kEveryLane, queued && rank == 0);
#pragma unroll 1
        for (; waiting != 0; waiting &= waiting - 1) {
            const uint64_t which = base + (__ffs(static_cast<int>(waiting)) - 1) / kGroup;
            const QueueCut<T> cut(range_of(p, which));
            unsigned long long place = 0;
            if (threadIdx.x % kWarp == 0) place = atomicAdd(&p.head->pieces, static_cast<unsigned long long>(cut.pieces));
            place = __shfl_sync(kEveryLane, place, 0);
            // Segments of offsets that go back and forth can be longer together than the data, for which alone there is room.
            const bool fits = place + cut.pieces <= p.segment;
            for (uint64_t i = threadIdx.x % kWarp; i < cut.pieces && place + i < p.segment; i += kWarp) {
                p.queue[place + i] = fits ? QueuedPiece{which, static_cast<uint32_t>(i), static_cast<uint32_t>(cut.pieces)}
                                          : QueuedPiece{kNowhere, 0, 0};
            }
            if (!fits && threadIdx.x % kWarp == 0) put(p.out, which, Lane::Record::neutral(), 0, p.settings);
        }
    }
}

// The pieces on the queue, a block each.
template <class T, class Lane, uint32_t kAhead, template <class, class> class Meeting = TreeMeeting>
__device__ __forceinline__ void queued_pieces(const SegmentParams& p)
{
    using Record = typename Lane::Record;
    __shared__ Record strips[kStrips];
    const auto* x = static_cast<const T*>(p.x);
    const uint64_t count = p.head->pieces < p.segment ? p.head->pieces : p.segment;
    for (uint64_t item = blockIdx.x; item < count; item += gridDim.x) {
        const QueuedPiece entry = p.queue[item];
        if (entry.segment == kNowhere) continue;
        const Range range = range_of(p, entry.segment);
        const QueueCut<T> cut(range);
        const uint64_t origin = first_packet<T>(range) + kStrips * cut.strip * entry.piece;
        Record record = reduce_piece<T, Lane, kAhead>(x, range, origin, cut.strip, p.settings, strips);
        bool done = true;
        if (entry.pieces > 1) {
            const uint64_t start = item - entry.piece;
            done = Meeting<T, Record>::meet(record, p.partials, start, start, entry.piece, entry.pieces, p.arrivals + start, x, range,
                                            strips);
        }
        if (done && threadIdx.x == 0) put(p.out, entry.segment, record, range.end - range.begin, p.settings);
        __syncthreads();
    }
}

}  // namespace kasmina::reduce
