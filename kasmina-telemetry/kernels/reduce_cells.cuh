// The atomic strategy: what several blocks find of one result is folded into cells of integers, in the order in which they come.
//
// No order changes an integer sum, a maximum, or a fixed-point sum of f64 (reduce_exact.cuh), so the bits are the same in every run all the
// same. All cells are zero while nobody has folded anything into them: least and greatest values are kept as keys whose order is
// theirs, least ones upside down, and places as their complements. Who comes last sets the cells back to zero for the next launch.
#pragma once

#include "reduce_exact.cuh"
#include "reduce_pieces.cuh"

namespace kasmina::reduce {

using Word = unsigned long long;

// What a result's blocks agree on: the data, and a value of them that sums of statistics are about.
template <class T>
struct CellContext {
    const T* x;
    Range range;

    __device__ __forceinline__ double pivot() const
    {
        if (range.begin >= range.end) return 0.0;
        const auto first = widen(x[range.begin]);
        return finite(first) ? static_cast<double>(first) : 0.0;
    }
};

// A key in the order of the values; a zero counts as +0. No number's key is 0 but an integer type's least, which a maximum of nothing is.
__device__ __forceinline__ Word key_of(float x)
{
    const uint32_t bits = __float_as_uint(x + 0.0f);
    return bits >> 31 != 0 ? ~bits : bits | 0x8000'0000u;
}
__device__ __forceinline__ Word key_of(double x)
{
    const auto bits = static_cast<Word>(__double_as_longlong(x + 0.0));
    return bits >> 63 != 0 ? ~bits : bits | Word{1} << 63;
}
__device__ __forceinline__ Word key_of(int32_t x) { return static_cast<uint32_t>(x) ^ 0x8000'0000u; }
__device__ __forceinline__ Word key_of(uint32_t x) { return x; }
__device__ __forceinline__ Word key_of(int64_t x) { return static_cast<Word>(x) ^ Word{1} << 63; }

__device__ __forceinline__ float value_of(Word key, float)
{
    const auto word = static_cast<uint32_t>(key);
    return __uint_as_float(word >> 31 != 0 ? word & 0x7fff'ffffu : ~word);
}
__device__ __forceinline__ double value_of(Word key, double)
{
    return __longlong_as_double(static_cast<long long>(key >> 63 != 0 ? key & ~(Word{1} << 63) : ~key));
}
__device__ __forceinline__ int32_t value_of(Word key, int32_t) { return static_cast<int32_t>(static_cast<uint32_t>(key) ^ 0x8000'0000u); }
__device__ __forceinline__ uint32_t value_of(Word key, uint32_t) { return static_cast<uint32_t>(key); }
__device__ __forceinline__ int64_t value_of(Word key, int64_t) { return static_cast<int64_t>(key ^ Word{1} << 63); }

// The bits of a key, for the complement.
template <class V>
constexpr Word kKeyBits = sizeof(V) == 8 ? ~Word{0} : Word{0xffff'ffffu};

__device__ __forceinline__ void fold_count(Word* cell, uint64_t count)
{
    if (count != 0) atomicAdd(cell, static_cast<unsigned long long>(count));
}

// Least and greatest value, two words.
template <class V>
__device__ __forceinline__ void fold_bounds(Word* cells, V low, V high)
{
    atomicMax(cells, kKeyBits<V> - key_of(low));
    atomicMax(cells + 1, key_of(high));
}

template <class V>
__device__ __forceinline__ void read_bounds(const Word* cells, V& low, V& high)
{
    low = value_of(kKeyBits<V> - cells[0], V{});
    high = value_of(cells[1], V{});
}

// What a cell holds while others change it.
__device__ __forceinline__ Word load_word(const Word* cell)
{
    Word word;
    asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(word) : "l"(cell) : "memory");
    return word;
}

// The least, or the greatest, number of a packet of the range, of which there is one.
template <bool kLeast, class T>
__device__ __forceinline__ typename Element<T>::Value extreme_of(const CellContext<T>& context, uint64_t packet)
{
    using V = typename Element<T>::Value;
    const uint64_t start = packet * kLanes<T>, end = start + kLanes<T>;
    bool any = false;
    V best{};
#pragma unroll 1
    for (uint64_t i = start < context.range.begin ? context.range.begin : start; i < end && i < context.range.end; ++i) {
        const V value = widen(context.x[i]);
        if (is_nan(value)) continue;
        if (!any || (kLeast ? value < best : value > best)) best = value;
        any = true;
    }
    return best;
}

// Puts the packet of an extreme into a cell where it beats the one held there: whose extreme is looked up in the data, so that one word is enough
// for any type. Who loses a race looks again, at something better.
template <bool kLeast, class T>
__device__ __forceinline__ void offer_place(Word* cell, const CellContext<T>& context, uint64_t place,
                                            typename Element<T>::Value value)
{
    if (place == kNowhere) return;
    Word held = load_word(cell);
    while (true) {
        if (held != 0) {
            const uint64_t other_place = ~held;
            const auto other = extreme_of<kLeast>(context, other_place);
            const bool better = kLeast ? value < other : value > other;
            if (!better && !(value == other && place < other_place)) return;
        }
        const Word seen = atomicCAS(cell, held, ~place);
        if (seen == held) return;
        held = seen;
    }
}

// Cells of a record: how many words, how a record is folded into them, and what they say in the end.
template <class Record, class T>
struct Fold;

template <class T>
struct Fold<FloatSum, T> {
    static constexpr uint32_t kWords = kExactWords + 1;

    static __device__ __forceinline__ void fold(Word* cells, const FloatSum& record, const CellContext<T>&)
    {
        fold_exact(cells, record.sum);
        fold_count(cells + kExactWords, record.nans);
    }

    static __device__ __forceinline__ FloatSum read(Word* cells, const CellContext<T>&)
    {
        return {exact_total(reinterpret_cast<uint64_t*>(cells)), cells[kExactWords]};
    }
};

template <class T>
struct Fold<SegmentSum, T> : Fold<FloatSum, T> {
    static __device__ __forceinline__ void fold(Word* cells, const SegmentSum& record, const CellContext<T>& context)
    {
        Fold<FloatSum, T>::fold(cells, record.sum, context);
    }

    static __device__ __forceinline__ SegmentSum read(Word* cells, const CellContext<T>& context)
    {
        return {Fold<FloatSum, T>::read(cells, context)};
    }
};

template <class T>
struct Fold<IntegerSum, T> {
    static constexpr uint32_t kWords = 2;

    static __device__ __forceinline__ void fold(Word* cells, const IntegerSum& record, const CellContext<T>&)
    {
        const Word before = atomicAdd(cells, static_cast<unsigned long long>(record.low));
        const Word carry = before + record.low < before ? 1 : 0;
        fold_count(cells + 1, static_cast<Word>(record.high) + carry);
    }

    static __device__ __forceinline__ IntegerSum read(Word* cells, const CellContext<T>&)
    {
        return {cells[0], static_cast<int64_t>(cells[1])};
    }
};

template <class T>
struct Fold<Count, T> {
    static constexpr uint32_t kWords = 1;

    static __device__ __forceinline__ void fold(Word* cells, const Count& record, const CellContext<T>&)
    {
        fold_count(cells, record.matches);
    }

    static __device__ __forceinline__ Count read(Word* cells, const CellContext<T>&) { return {cells[0]}; }
};

template <class V, class T>
struct Fold<Bounds<V>, T> {
    static constexpr uint32_t kWords = 3;

    static __device__ __forceinline__ void fold(Word* cells, const Bounds<V>& record, const CellContext<T>&)
    {
        // Of nothing but NaNs they are what every number beats.
        fold_bounds(cells, record.low, record.high);
        fold_count(cells + 2, record.nans);
    }

    static __device__ __forceinline__ Bounds<V> read(Word* cells, const CellContext<T>&)
    {
        Bounds<V> record = Bounds<V>::neutral();
        read_bounds(cells, record.low, record.high);
        record.nans = cells[2];
        return record;
    }
};

template <class V, class T>
struct Fold<Extrema<V>, T> {
    static constexpr uint32_t kWords = 4;

    static __device__ __forceinline__ void fold(Word* cells, const Extrema<V>& record, const CellContext<T>& context)
    {
        offer_place<true>(cells, context, record.low_at, record.low);
        offer_place<false>(cells + 1, context, record.high_at, record.high);
        if (record.nan_at != kNowhere) atomicMax(cells + 2, ~static_cast<Word>(record.nan_at));
        fold_count(cells + 3, record.nans);
    }

    static __device__ __forceinline__ Extrema<V> read(Word* cells, const CellContext<T>& context)
    {
        // ~0 is nowhere.
        Extrema<V> record{V{}, V{}, ~cells[0], ~cells[1], ~cells[2], cells[3]};
        if (record.low_at != kNowhere) record.low = extreme_of<true>(context, record.low_at);
        if (record.high_at != kNowhere) record.high = extreme_of<false>(context, record.high_at);
        return record;
    }
};

template <class T>
struct Fold<Summary<T>, T> {
    using Sums = Fold<Sum<T>, T>;
    using Extremes = Fold<Extrema<typename Element<T>::Value>, T>;
    static constexpr uint32_t kSquares = Sums::kWords;
    static constexpr uint32_t kExtremes = kSquares + kExactWords;
    static constexpr uint32_t kWords = kExtremes + Extremes::kWords;

    static __device__ __forceinline__ void fold(Word* cells, const Summary<T>& record, const CellContext<T>& context)
    {
        Sums::fold(cells, record.sum, context);
        fold_exact(cells + kSquares, record.squares);
        Extremes::fold(cells + kExtremes, record.extrema, context);
    }

    static __device__ __forceinline__ Summary<T> read(Word* cells, const CellContext<T>& context)
    {
        return {Sums::read(cells, context), exact_total(reinterpret_cast<uint64_t*>(cells + kSquares)),
                Extremes::read(cells + kExtremes, context)};
    }
};

// Moments as sums about a value of the data that all blocks share, since two sums can be added one after the other and a mean with its
// M2 cannot: what `SharedStats` of this crate does on the host.
template <class V, class T>
struct Fold<Statistics<V>, T> {
    static constexpr uint32_t kSum = 5;
    static constexpr uint32_t kSquares = kSum + kExactWords;
    static constexpr uint32_t kWords = kSquares + kExactWords;

    static __device__ __forceinline__ void fold(Word* cells, const Statistics<V>& record, const CellContext<T>& context)
    {
        fold_count(cells, record.n);
        fold_count(cells + 1, record.dead);
        fold_count(cells + 2, record.nonfinite);
        if (record.n == 0) return;
        fold_bounds(cells + 3, record.low, record.high);
        const double shift = add(record.mean, -context.pivot());
        const double sum = mul(static_cast<double>(record.n), shift);
        fold_exact(cells + kSum, sum);
        fold_exact(cells + kSquares, fused(sum, shift, record.m2));
    }

    static __device__ __forceinline__ Statistics<V> read(Word* cells, const CellContext<T>& context)
    {
        V low, high;
        read_bounds(cells + 3, low, high);
        const double sum = exact_total(reinterpret_cast<uint64_t*>(cells + kSum));
        const double squares = exact_total(reinterpret_cast<uint64_t*>(cells + kSquares));
        return Statistics<V>::about(context.pivot(), sum, squares, cells[0], cells[1], cells[2], low, high);
    }
};

static_assert(Fold<FloatSum, float>::kWords == 69 && Fold<IntegerSum, int64_t>::kWords == 2 && Fold<Count, float>::kWords == 1
                  && Fold<Bounds<double>, double>::kWords == 3 && Fold<Extrema<float>, float>::kWords == 4
                  && Fold<Summary<float>, float>::kWords == 141 && Fold<Summary<int32_t>, int32_t>::kWords == 74
                  && Fold<Statistics<double>, double>::kWords == 141,
              "src/cuda/quantity.rs reserves as many");

// Folds a piece's record into its result's cells. True for the block that comes last, whose thread 0 has the result then.
template <class T, class Record>
__device__ __forceinline__ bool meet_in_cells(Record& record, Word* cells, uint64_t pieces, uint32_t* arrivals,
                                              const CellContext<T>& context)
{
    using Of = Fold<Record, T>;
    __shared__ Word words[Of::kWords];
    __shared__ bool last;
    if (threadIdx.x == 0) {
        Of::fold(cells, record, context);
        last = arrive(arrivals) == pieces - 1;
    }
    __syncthreads();
    if (!last) return false;
    for (uint32_t i = threadIdx.x; i < Of::kWords; i += blockDim.x) {
        words[i] = __ldcg(cells + i);
        cells[i] = 0;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        record = Of::read(words, context);
        *arrivals = 0;
    }
    return true;
}

// How pieces meet under the atomic strategy: a result's cells lie where its partial results would.
template <class T, class Record>
struct CellMeeting {
    static __device__ __forceinline__ bool meet(Record& record, void* cells, uint64_t result, uint64_t, uint64_t, uint64_t pieces,
                                                uint32_t* arrivals, const T* x, const Range& range, Record (&)[kStrips])
    {
        Word* own = static_cast<Word*>(cells) + result * Fold<Record, T>::kWords;
        return meet_in_cells<T>(record, own, pieces, arrivals, CellContext<T>{x, range});
    }
};

}  // namespace kasmina::reduce
