// One result out of many elements, or a few such results: flat reductions, and equal segments too long for one warp.
//
// A segment is cut into pieces, a piece into eight strips, and a warp takes a strip. Lanes of a strip, strips of a piece and pieces
// of a segment come together in trees whose shape follows from the segment's length alone. Which block takes which piece, how many
// warps a block has and how many loads a lane has under way does not enter: every launch gives the same bits.
//
// The pieces of a segment meet in memory. A team of warps writes its piece's record, adds one to the segment's count of arrivals
// with release, and whoever finds that all others have arrived has acquired their records, merges them, and sets the count back to
// zero for the next launch.
#pragma once

#include "reduce_walk.cuh"

namespace kasmina::reduce {

constexpr uint32_t kStrips = 8;
// Threads of the largest block: a warp a strip. More would leave each too few registers for its loads.
constexpr uint32_t kMaxThreads = kStrips * kWarp;

struct PieceParams {
    const void* x;               // the 16-byte boundary at or before the first element
    uint64_t lead;               // elements between the two
    uint64_t elements;
    uint64_t segment;            // elements of a segment; the last may have fewer
    uint64_t segments;
    uint64_t large;              // pieces of `large_strip` packets a strip, which come first
    uint64_t pieces;             // of a segment
    void* partials;              // [segments, pieces], where there are several pieces; or cells, [segments]
    uint32_t* arrivals;          // [segments], zero
    void* out;                   // [segments]
    Settings settings;
    uint32_t large_strip;        // packets
    uint32_t small_strip;
};
static_assert(sizeof(PieceParams) == 136 && offsetof(PieceParams, settings) == 80
                  && offsetof(PieceParams, large_strip) == 128,
              "as in Rust");

__device__ __forceinline__ uint32_t arrive(uint32_t* count)
{
    uint32_t before;
    asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], 1;" : "=r"(before) : "l"(count) : "memory");
    return before;
}

// A record that another block wrote, past the first-level cache.
template <class Record>
__device__ __forceinline__ Record load_partial(const Record* from)
{
    static_assert(sizeof(Record) % 8 == 0, "moved as words");
    Record record;
    unsigned long long words[sizeof(Record) / 8];
    if constexpr (sizeof(Record) % 16 == 0) {
#pragma unroll
        for (uint32_t i = 0; i < sizeof(Record) / 16; ++i) {
            const ulonglong2 pair = __ldcg(reinterpret_cast<const ulonglong2*>(from) + i);
            words[2 * i] = pair.x;
            words[2 * i + 1] = pair.y;
        }
    } else {
#pragma unroll
        for (uint32_t i = 0; i < sizeof(Record) / 8; ++i) {
            words[i] = __ldcg(reinterpret_cast<const unsigned long long*>(from) + i);
        }
    }
    memcpy(&record, words, sizeof(Record));
    return record;
}

// The first element of `packet` that is `wanted`, or a NaN, counted from the range's first; `found` is that element.
template <class T, class V>
__device__ __forceinline__ uint64_t place_of(const T* x, const Range& range, uint64_t packet, V wanted, bool nan, V& found)
{
    if (packet == kNowhere) return kNowhere;
    const uint64_t start = packet * kLanes<T>;
#pragma unroll 1
    for (uint64_t element = start < range.begin ? range.begin : start; element < range.end; ++element) {
        const V value = widen(x[element]);
        if (nan ? is_nan(value) : value == wanted) {
            // Of two zeros that compare equal, the first one's sign.
            found = value;
            return element - range.begin;
        }
    }
    return kNowhere;
}

// Writes the result of `count` elements. What segments and columns give is smaller than what a flat reduction gives.
template <class Record>
__device__ __forceinline__ void put(void* out, uint64_t at, const Record& record, uint64_t count, const Settings& settings)
{
    const bool propagate = settings.propagate != 0;
    if constexpr (std::is_same_v<Record, SegmentSum>) {
        static_cast<double*>(out)[at] = record.outcome(count, propagate);
    } else if constexpr (std::is_same_v<Record, Bounds<float>>) {
        if (settings.compact != 0) {
            static_cast<float2*>(out)[at] = record.outcome(propagate);
        } else {
            static_cast<BoundsOut<float>*>(out)[at] = out_of(record, count);
        }
    } else {
        const auto all = out_of(record, count);
        static_cast<std::remove_const_t<decltype(all)>*>(out)[at] = all;
    }
}

// What a record becomes when it is the result: places of packets become indices of elements.
template <class T, class Record>
__device__ __forceinline__ void locate(Record& record, const T* x, const Range& range)
{
    using V = typename Element<T>::Value;
    if constexpr (std::is_same_v<Record, Extrema<V>>) {
        V nan{};
        record.low_at = place_of<T, V>(x, range, record.low_at, record.low, false, record.low);
        record.high_at = place_of<T, V>(x, range, record.high_at, record.high, false, record.high);
        record.nan_at = place_of<T, V>(x, range, record.nan_at, nan, true, nan);
    } else if constexpr (std::is_same_v<Record, Summary<T>>) {
        locate<T>(record.extrema, x, range);
    }
}

// Merges what lane 0 of each strip's warp has put into `strips`; thread 0 of the team has the result.
template <class Record>
__device__ __forceinline__ Record merge_strips(const Record (&strips)[kStrips], uint32_t warp, uint32_t lane)
{
    Record record = Record::neutral();
    if (warp == 0) {
        if (lane < kStrips) record = strips[lane];
        merge_lanes<kStrips>(record);
    }
    return record;
}

// One piece: eight strips of `width` packets from `origin` on, as far as the range goes. Thread 0 has the result.
template <class T, class Lane, uint32_t kAhead>
__device__ __forceinline__ typename Lane::Record reduce_piece(const T* x, const Range& range, uint64_t origin, uint64_t width,
                                                              const Settings& settings, typename Lane::Record (&strips)[kStrips])
{
    const uint32_t warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp, rank = threadIdx.x % kWarp;
    const uint64_t bound = end_packet<T>(range);
    for (uint32_t strip = warp; strip < kStrips; strip += warps) {
        const uint64_t first = origin + strip * width;
        const uint64_t end = first + width < bound ? first + width : bound;
        Lane lane;
        lane.begin(pivot_of<Lane>(x, range, first), settings);
        if (first < end) walk<T, kWarp, kAhead>(lane, x, range, first, end, origin, rank);
        join_lanes<kWarp>(lane);
        if (rank == 0) {
            const uint64_t from = first * kLanes<T> > range.begin ? first * kLanes<T> : range.begin;
            const uint64_t to = end * kLanes<T> < range.end ? end * kLanes<T> : range.end;
            strips[strip] = lane.record(origin, from < to ? to - from : 0);
        }
    }
    __syncthreads();
    return merge_strips(strips, warp, rank);
}

// Adds a piece's record to those of its segment, and brings them all together where it is the last. True where it is, and thread 0
// has the result then.
template <class Record>
__device__ __forceinline__ bool meet(Record& record, Record* partials, uint64_t piece, uint64_t pieces, uint32_t* arrivals,
                                     Record (&strips)[kStrips])
{
    __shared__ bool last;
    if (threadIdx.x == 0) {
        partials[piece] = record;
        last = arrive(arrivals) == pieces - 1;
    }
    __syncthreads();
    if (!last) return false;
    const uint32_t warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp, rank = threadIdx.x % kWarp;
    // Eight virtual warps whatever the block's size, each lane with the pieces that are a block apart.
    for (uint32_t strip = warp; strip < kStrips; strip += warps) {
        record = Record::neutral();
#pragma unroll(sizeof(Record) <= 16 ? 8 : sizeof(Record) <= 32 ? 4 : 1)
        for (uint64_t i = strip * kWarp + rank; i < pieces; i += kMaxThreads) record.merge(load_partial(partials + i));
        merge_lanes<kWarp>(record);
        if (rank == 0) strips[strip] = record;
    }
    __syncthreads();
    record = merge_strips(strips, warp, rank);
    if (threadIdx.x == 0) *arrivals = 0;
    return true;
}

// How pieces meet otherwise: in a tree, by records of which a result has `pieces`, from the `first` on.
template <class T, class Record>
struct TreeMeeting {
    static __device__ __forceinline__ bool meet(Record& record, void* partials, uint64_t, uint64_t first, uint64_t piece, uint64_t pieces,
                                                uint32_t* arrivals, const T*, const Range&, Record (&strips)[kStrips])
    {
        return reduce::meet(record, static_cast<Record*>(partials) + first, piece, pieces, arrivals, strips);
    }
};

template <class T, class Lane, uint32_t kAhead, template <class, class> class Meeting = TreeMeeting>
__device__ __forceinline__ void pieces(const PieceParams& p)
{
    using Record = typename Lane::Record;
    __shared__ Record strips[kStrips];
    const auto* x = static_cast<const T*>(p.x);
    const uint64_t items = p.segments * p.pieces;
    for (uint64_t item = blockIdx.x; item < items; item += gridDim.x) {
        const uint64_t segment = p.segments == 1 ? 0 : item / p.pieces;
        const uint64_t piece = item - segment * p.pieces;
        const uint64_t begin = segment * p.segment;
        const uint64_t length = p.elements - begin < p.segment ? p.elements - begin : p.segment;
        const Range range{p.lead + begin, p.lead + begin + length};
        const bool large = piece < p.large;
        const uint64_t width = large ? p.large_strip : p.small_strip;
        const uint64_t before = large ? piece * p.large_strip : p.large * p.large_strip + (piece - p.large) * p.small_strip;
        Record record = reduce_piece<T, Lane, kAhead>(x, range, first_packet<T>(range) + kStrips * before, width, p.settings, strips);
        bool done = true;
        if (p.pieces > 1) {
            done = Meeting<T, Record>::meet(record, p.partials, segment, segment * p.pieces, piece, p.pieces, p.arrivals + segment, x,
                                            range, strips);
        }
        if (done && threadIdx.x == 0) {
            locate<T>(record, x, range);
            put(p.out, segment, record, range.end - range.begin, p.settings);
        }
        // The strips are written anew.
        __syncthreads();
    }
}

}  // namespace kasmina::reduce
