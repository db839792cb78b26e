// The PTX instructions of the kernels' asm statements. The translation calls `root<"modifiers">(operands…)` here: the root is the
// name of one of these templates, and the modifiers are what follows it. What is not here, the translation refuses by name.
#pragma once

#include "ksim_cuda.h"

namespace ksim::ptx {

// Modifiers, as a template's argument.
template <size_t kLength>
struct Text {
    char text[kLength];

    constexpr Text(const char (&from)[kLength])
    {
        for (size_t i = 0; i < kLength; ++i) text[i] = from[i];
    }

    // Whether one of the modifiers is this one.
    constexpr bool has(const char* word) const
    {
        for (size_t at = 0; at < kLength; ++at) {
            if (at != 0 && text[at - 1] != '.') continue;
            size_t i = 0;
            while (word[i] != '\0' && text[at + i] == word[i]) ++i;
            if (word[i] == '\0' && (text[at + i] == '.' || text[at + i] == '\0')) return true;
        }
        return false;
    }

    constexpr bool is(const char* whole) const
    {
        size_t i = 0;
        while (whole[i] != '\0' && text[i] == whole[i]) ++i;
        return whole[i] == '\0' && text[i] == '\0';
    }
};

template <Text kText>
constexpr bool kUnknown = false;

// ---------------------------------------------------------------------------------------------------------------- operands

// An operand of the statement as the register that PTX sees.
template <class Register, class Value>
inline Register in(const Value& value)
{
    if constexpr (std::is_pointer_v<Value>) {
        return static_cast<Register>(reinterpret_cast<uintptr_t>(value));
    } else if constexpr (std::is_array_v<Value>) {
        return static_cast<Register>(reinterpret_cast<uintptr_t>(&value[0]));
    } else if constexpr (std::is_floating_point_v<Register> == std::is_floating_point_v<Value>) {
        return static_cast<Register>(value);
    } else {
        return bits<Register>(value);
    }
}

template <class Register, class Value>
inline void out(Value& to, Register value)
{
    if constexpr (std::is_floating_point_v<Register> == std::is_floating_point_v<Value>) {
        to = static_cast<Value>(value);
    } else {
        to = bits<Value>(value);
    }
}

// [address]
struct Address {
    uint64_t at;
};
inline Address address(uint64_t at) { return {at}; }

// {a, b, …}
template <class T, size_t kCount>
struct Several {
    T* at[kCount];
};
template <class T, class... Others>
inline Several<T, 1 + sizeof...(Others)> several(T& first, Others&... others)
{
    return {{&first, &others...}};
}

// [map, {coordinates}]
template <size_t kRank>
struct Place {
    uint64_t map;
    int32_t at[kRank];
};
template <class T, size_t kRank>
inline Place<kRank> place(uint64_t map, const Several<T, kRank>& coordinates)
{
    Place<kRank> made{map, {}};
    for (size_t i = 0; i < kRank; ++i) made.at[i] = static_cast<int32_t>(*coordinates.at[i]);
    return made;
}

// _
struct Sink {};

inline uint32_t shared(Address address) { return static_cast<uint32_t>(address.at); }
template <class T>
inline T* global(Address address)
{
    return const_cast<T*>(aligned(reinterpret_cast<const T*>(address.at)));
}

// ------------------------------------------------------------------------------------------------------- loads and stores

// The register type of a modifier like u32.
template <Text kText>
constexpr auto number_of()
{
    if constexpr (kText.has("u8")) return uint8_t{};
    else if constexpr (kText.has("u16")) return uint16_t{};
    else if constexpr (kText.has("u32")) return uint32_t{};
    else if constexpr (kText.has("u64")) return uint64_t{};
    else if constexpr (kText.has("f32")) return float{};
    else static_assert(kUnknown<kText>, "a type of memory that the simulator does not have");
}

template <Text kText, class T, size_t kCount>
inline void ld(const Several<T, kCount>& to, Address from)
{
    static_assert(kText.has("global") && !kText.has("acquire") && !kText.has("relaxed"), "a load that the simulator does not have");
    struct alignas(kCount * sizeof(T)) Vector {
        T number[kCount];
    };
    const Vector vector = *global<Vector>(from);
    for (size_t i = 0; i < kCount; ++i) *to.at[i] = vector.number[i];
}

template <Text kText, class T>
    requires std::is_arithmetic_v<T>
inline void ld(T& to, Address from)
{
    static_assert(kText.has("global"), "a load that the simulator does not have");
    using Number = decltype(number_of<kText>());
    Number* at = global<Number>(from);
    if constexpr (kText.has("acquire")) {
        calls->spin(kText.has("sys") ? Spin::System : Spin::Load);
        to = __atomic_load_n(at, __ATOMIC_ACQUIRE);
    } else if constexpr (kText.has("relaxed")) {
        calls->spin(kText.has("sys") ? Spin::System : Spin::Load);
        to = __atomic_load_n(at, __ATOMIC_RELAXED);
    } else {
        to = *at;
    }
}

template <Text kText, class T>
inline void st(Address to, const T& value)
{
    static_assert(kText.has("global") && kText.has("release"), "a store that the simulator does not have");
    using Number = decltype(number_of<kText>());
    __atomic_store_n(global<Number>(to), static_cast<Number>(value), __ATOMIC_RELEASE);
}

template <Text kText, class T>
inline void atom_add(T& before, Address at, uint64_t by)
{
    static_assert(kText.is("acq_rel.gpu.global.u32"), "an atomic addition that the simulator does not have");
    calls->spin(Spin::Atomic);
    before = __atomic_fetch_add(global<uint32_t>(at), static_cast<uint32_t>(by), __ATOMIC_ACQ_REL);
}

// --------------------------------------------------------------------------------------------------------------- registers

template <Text kText, class T>
inline void mov(T& to, T from)
{
    to = from;
}

template <Text kText>
inline void setp_ne(bool& to, uint32_t a, uint32_t b)
{
    to = a != b;
}

template <Text kText, class T>
inline void selp(T& to, uint64_t yes, uint64_t no, bool which)
{
    to = static_cast<T>(which ? yes : no);
}

// ----------------------------------------------------------------------------------------------------------------- numbers

// Halves, by kind: how they widen, and how they are rounded.
struct Half {
    static float widen(uint16_t h) { return static_cast<float>(bits<_Float16>(h)); }
    static uint16_t round(float x) { return x != x ? 0x7fff : bits<uint16_t>(static_cast<_Float16>(x)); }
};
struct Brain {
    static float widen(uint16_t b) { return bits<float>(static_cast<uint32_t>(b) << 16); }
    static uint16_t round(float x)
    {
        if (x != x) return 0x7fff;
        const uint32_t word = bits<uint32_t>(x);
        return static_cast<uint16_t>((word + 0x7fffu + (word >> 16 & 1)) >> 16);
    }
};

// Both halves of words, each by `each` from the widened halves.
template <class H, class F, class... Words>
inline uint32_t pairwise(F each, Words... words)
{
    const uint32_t low = H::round(each(H::widen(static_cast<uint16_t>(words))...));
    const uint32_t high = H::round(each(H::widen(static_cast<uint16_t>(words >> 16))...));
    return low | high << 16;
}

// Calls `with` with the arithmetic that the modifiers name.
template <Text kText, class F>
inline auto halves(F with)
{
    if constexpr (kText.has("f16x2")) return with(Half{});
    else if constexpr (kText.has("bf16x2")) return with(Brain{});
    else static_assert(kUnknown<kText>, "packed numbers that the simulator does not have");
}

inline float nan_or(float a, float b, float otherwise) { return a != a || b != b ? bits<float>(0x7fffffffu) : otherwise; }

template <Text kText>
inline void max(float& to, float a, float b)
{
    static_assert(kText.is("NaN.f32"));
    to = nan_or(a, b, greatest(a, b));
}
template <Text kText>
inline void min(float& to, float a, float b)
{
    static_assert(kText.is("NaN.f32"));
    to = nan_or(a, b, least(a, b));
}
template <Text kText>
inline void max(uint32_t& to, uint32_t a, uint32_t b)
{
    to = halves<kText>([=](auto kind) {
        return pairwise<decltype(kind)>(
            [](float x, float y) { return kText.has("NaN") ? nan_or(x, y, greatest(x, y)) : greatest(x, y); }, a, b);
    });
}
template <Text kText>
inline void min(uint32_t& to, uint32_t a, uint32_t b)
{
    to = halves<kText>([=](auto kind) {
        return pairwise<decltype(kind)>(
            [](float x, float y) { return kText.has("NaN") ? nan_or(x, y, least(x, y)) : least(x, y); }, a, b);
    });
}
template <Text kText>
inline void add(uint32_t& to, uint32_t a, uint32_t b)
{
    to = halves<kText>([=](auto kind) { return pairwise<decltype(kind)>([](float x, float y) { return x + y; }, a, b); });
}
template <Text kText>
inline void abs(uint32_t& to, uint32_t a)
{
    static_assert(kText.is("f16x2") || kText.is("bf16x2"));
    to = a & 0x7fff7fffu;
}

// Ones of the destination's type where the comparison holds; NaN compares to nothing.
template <Text kText, class F>
inline uint32_t compared(uint32_t a, uint32_t b, F holds)
{
    return halves<kText>([=](auto kind) {
        using H = decltype(kind);
        uint32_t result = 0;
        for (uint32_t shift = 0; shift < 32; shift += 16) {
            const bool yes = holds(H::widen(static_cast<uint16_t>(a >> shift)), H::widen(static_cast<uint16_t>(b >> shift)));
            const uint32_t ones = kText.has("u32") ? 0xffffu : H::round(1.0f);
            result |= (yes ? ones : 0u) << shift;
        }
        return result;
    });
}
template <Text kText>
inline void set_le(uint32_t& to, uint32_t a, uint32_t b)
{
    to = compared<kText>(a, b, [](float x, float y) { return x <= y; });
}
template <Text kText>
inline void set_ge(uint32_t& to, uint32_t a, uint32_t b)
{
    to = compared<kText>(a, b, [](float x, float y) { return x >= y; });
}
template <Text kText>
inline void set_le(float& to, float a, float b)
{
    static_assert(kText.is("f32.f32"));
    to = a <= b ? 1.0f : 0.0f;
}

template <Text kText>
inline void cvt(float& to, uint16_t from)
{
    static_assert(kText.is("f32.f16"));
    to = Half::widen(from);
}
template <Text kText>
inline void cvt(uint16_t& to, float from)
{
    static_assert(kText.is("rn.f16.f32") || kText.is("rn.bf16.f32"));
    to = kText.has("f16") ? Half::round(from) : Brain::round(from);
}
template <Text kText>
inline void cvt(uint32_t& to, float high, float low)
{
    static_assert(kText.is("rn.f16x2.f32") || kText.is("rn.bf16x2.f32"));
    to = halves<kText>([=](auto kind) {
        using H = decltype(kind);
        return static_cast<uint32_t>(H::round(high)) << 16 | H::round(low);
    });
}

// The hardware's is within one unit of the last place, this one is exact.
template <Text kText>
inline void rcp(float& to, float from)
{
    static_assert(kText.is("approx.ftz.f32"));
    const auto flushed = [](float x) { return __builtin_fabsf(x) < 0x1p-126f ? x * 0.0f : x; };
    to = flushed(1.0f / flushed(from));
}

// ------------------------------------------------------------------------------------------------------------ tensor cores

struct Product {
    const uint32_t* a[4];
    const uint32_t* b[2];
    float* d[4];
};

inline void multiply(Product* const* lanes, uint32_t mask)
{
    if (mask != 0xffffffffu) {
        calls->undefined("mma.sync without all lanes of the warp");
        return;
    }
    // As the registers hold them: a[16][16], b[16][8], d[16][8], two halves a register.
    float a[16][16], b[16][8];
    for (uint32_t lane = 0; lane < 32; ++lane) {
        const Product& own = *lanes[lane];
        const uint32_t group = lane / 4, pair = lane % 4 * 2;
        for (uint32_t half = 0; half < 2; ++half) {
            const auto value = [half](uint32_t word) { return Brain::widen(static_cast<uint16_t>(word >> 16 * half)); };
            a[group][pair + half] = value(*own.a[0]);
            a[group + 8][pair + half] = value(*own.a[1]);
            a[group][pair + half + 8] = value(*own.a[2]);
            a[group + 8][pair + half + 8] = value(*own.a[3]);
            b[pair + half][group] = value(*own.b[0]);
            b[pair + half + 8][group] = value(*own.b[1]);
        }
    }
    for (uint32_t lane = 0; lane < 32; ++lane) {
        const uint32_t group = lane / 4, pair = lane % 4 * 2;
        for (uint32_t i = 0; i < 4; ++i) {
            const uint32_t row = group + i / 2 * 8, column = pair + i % 2;
            double sum = *lanes[lane]->d[i];
            for (uint32_t k = 0; k < 16; ++k) sum += static_cast<double>(a[row][k]) * static_cast<double>(b[k][column]);
            *lanes[lane]->d[i] = static_cast<float>(sum);
        }
    }
}

template <Text kText>
inline void mma_sync(
    const Several<float, 4>& d, const Several<uint32_t, 4>& a, const Several<uint32_t, 2>& b, const Several<float, 4>& c)
{
    static_assert(kText.is("aligned.m16n8k16.row.col.f32.bf16.bf16.f32"), "a matrix product that the simulator does not have");
    for (size_t i = 0; i < 4; ++i) *d.at[i] = *c.at[i];
    Product own{{a.at[0], a.at[1], a.at[2], a.at[3]}, {b.at[0], b.at[1]}, {d.at[0], d.at[1], d.at[2], d.at[3]}};
    warp<Product, &multiply>(0xffffffffu, own);
}

// ---------------------------------------------------------------------------------------------------------------- barriers

template <Text kText>
inline void bar_sync(uint32_t id, uint32_t threads)
{
    calls->barrier(id, threads);
}
template <Text kText>
inline void bar_arrive(uint32_t id, uint32_t threads)
{
    calls->barrier_arrive(id, threads);
}
template <Text kText>
inline void bar_red(bool& all, uint32_t id, uint32_t threads, bool own)
{
    static_assert(kText.is("and.pred"));
    all = calls->barrier_reduce(id, threads, Combine::And, own) != 0;
}

template <Text kText>
inline void mbarrier_init(Address barrier, uint32_t arrivals)
{
    calls->mbarrier_init(shared(barrier), arrivals);
}
template <Text kText>
inline void mbarrier_inval(Address barrier)
{
    calls->mbarrier_invalidate(shared(barrier));
}
template <Text kText, class State>
inline void mbarrier_arrive(State&&, Address barrier)
{
    calls->mbarrier_arrive(shared(barrier), 0);
}
template <Text kText, class State>
inline void mbarrier_arrive(State&&, Address barrier, uint32_t bytes)
{
    static_assert(kText.has("expect_tx"));
    calls->mbarrier_arrive(shared(barrier), bytes);
}
template <Text kText>
inline void mbarrier_expect_tx(Address barrier, uint32_t bytes)
{
    calls->mbarrier_expect(shared(barrier), bytes);
}
template <Text kText>
inline void mbarrier_test_wait(bool& over, Address barrier, uint32_t parity)
{
    static_assert(kText.has("parity"));
    over = calls->mbarrier_test(shared(barrier), parity) != 0;
}
template <Text kText>
inline void mbarrier_try_wait(bool& over, Address barrier, uint32_t parity)
{
    static_assert(kText.has("parity"));
    over = calls->mbarrier_test(shared(barrier), parity) != 0;
}

// ------------------------------------------------------------------------------------------------------ asynchronous copies

template <Text kText>
inline void cp_async(Address to, Address from, uint32_t bytes)
{
    static_assert(kText.has("shared") && kText.has("global"));
    calls->copy(shared(to), from.at, bytes, bytes);
}
template <Text kText>
inline void cp_async_commit_group()
{
    calls->copy_commit();
}
template <Text kText>
inline void cp_async_wait_group(uint32_t pending)
{
    calls->copy_wait(pending);
}
template <Text kText>
inline void cp_async_wait_all()
{
    calls->copy_wait_all();
}
template <Text kText>
inline void cp_async_mbarrier_arrive(Address barrier)
{
    calls->copy_arrive(shared(barrier), kText.has("noinc") ? 0 : 1);
}

// Global to shared memory.
template <Text kText>
inline void cp_async_bulk(Address to, Address from, uint32_t bytes, Address barrier, uint64_t blocks_or_policy = 0)
{
    static_assert(kText.has("shared::cluster") && kText.has("global") && kText.has("mbarrier::complete_tx::bytes"));
    static_assert(!(kText.has("multicast::cluster") && kText.has("L2::cache_hint")));
    const uint32_t blocks = kText.has("multicast::cluster") ? static_cast<uint32_t>(blocks_or_policy) : 0;
    calls->bulk_load(shared(to), from.at, bytes, shared(barrier), blocks);
}
// Shared to global memory.
template <Text kText>
inline void cp_async_bulk(Address to, Address from, uint32_t bytes, uint64_t = 0)
{
    static_assert(kText.has("global") && kText.has("shared::cta") && kText.has("bulk_group"));
    calls->bulk_store(to.at, shared(from), bytes, Reduction::None, Number::U32);
}
template <Text kText>
inline void cp_reduce_async_bulk(Address to, Address from, uint32_t bytes)
{
    static_assert(kText.has("global") && kText.has("shared::cta") && kText.has("bulk_group") && kText.has("add"));
    constexpr Number number = kText.has("u32") ? Number::U32
        : kText.has("s32")                     ? Number::S32
        : kText.has("u64")                     ? Number::U64
        : kText.has("f32")                     ? Number::F32
                                               : Number::F64;
    static_assert(number != Number::F64 || kText.has("f64"), "a type of addition that the simulator does not have");
    calls->bulk_store(to.at, shared(from), bytes, Reduction::Add, number);
}
template <Text kText>
inline void cp_async_bulk_prefetch(Address from, uint32_t bytes)
{
    calls->bulk_prefetch(from.at, bytes);
}
template <Text kText>
inline void cp_async_bulk_commit_group()
{
    calls->bulk_commit();
}
template <Text kText>
inline void cp_async_bulk_wait_group(uint32_t pending)
{
    calls->bulk_wait(pending, kText.has("read") ? 1 : 0);
}

template <Text kText, size_t kRank>
inline void cp_async_bulk_tensor(Address to, const Place<kRank>& from, Address barrier, uint64_t blocks_or_policy = 0)
{
    static_assert(kText.has("shared::cluster") && kText.has("tile") && kText.has("mbarrier::complete_tx::bytes"));
    static_assert(!(kText.has("multicast::cluster") && kText.has("L2::cache_hint")));
    const uint32_t blocks = kText.has("multicast::cluster") ? static_cast<uint32_t>(blocks_or_policy) : 0;
    calls->tensor_load(shared(to), from.map, from.at, kRank, nullptr, shared(barrier), blocks);
}
template <Text kText, size_t kRank, class T, size_t kOffsets>
inline void cp_async_bulk_tensor(Address to, const Place<kRank>& from, Address barrier, const Several<T, kOffsets>& pixel)
{
    static_assert(kText.has("im2col") && kOffsets + 2 == kRank);
    uint16_t offsets[kOffsets];
    for (size_t i = 0; i < kOffsets; ++i) offsets[i] = *pixel.at[i];
    calls->tensor_load(shared(to), from.map, from.at, kRank, offsets, shared(barrier), 0);
}
template <Text kText, size_t kRank>
inline void cp_async_bulk_tensor(const Place<kRank>& to, Address from, uint64_t = 0)
{
    static_assert(kText.has("global") && kText.has("tile") && kText.has("bulk_group"));
    calls->tensor_store(to.map, to.at, kRank, shared(from), Reduction::None);
}
template <Text kText, size_t kRank>
inline void cp_reduce_async_bulk_tensor(const Place<kRank>& to, Address from)
{
    static_assert(kText.has("global") && kText.has("tile") && kText.has("bulk_group"));
    constexpr Reduction how = kText.has("add") ? Reduction::Add
        : kText.has("min")                     ? Reduction::Min
        : kText.has("max")                     ? Reduction::Max
        : kText.has("inc")                     ? Reduction::Inc
        : kText.has("dec")                     ? Reduction::Dec
        : kText.has("and")                     ? Reduction::And
        : kText.has("or")                      ? Reduction::Or
                                               : Reduction::Xor;
    static_assert(how != Reduction::Xor || kText.has("xor"));
    calls->tensor_store(to.map, to.at, kRank, shared(from), how);
}
template <Text kText, size_t kRank>
inline void cp_async_bulk_prefetch_tensor(const Place<kRank>& from)
{
    calls->tensor_prefetch(from.map, from.at, kRank);
}

// ------------------------------------------------------------------------------------------------ fences, maps and the rest

template <Text kText>
inline void fence_proxy(Address address = {}, uint32_t bytes = 128)
{
    if constexpr (kText.is("async")) {
        calls->fence(Fence::Async, 0);
    } else if constexpr (kText.is("async.shared::cta")) {
        calls->fence(Fence::AsyncShared, 0);
    } else if constexpr (kText.is("async.global")) {
        calls->fence(Fence::AsyncGlobal, 0);
    } else if constexpr (kText.has("tensormap::generic") && kText.has("release")) {
        __atomic_thread_fence(__ATOMIC_RELEASE);
        calls->fence(Fence::MapRelease, 0);
    } else {
        static_assert(kText.has("tensormap::generic") && kText.has("acquire"), "a fence that the simulator does not have");
        if (bytes != 128) calls->undefined("an acquire of a tensor map that is not of 128 bytes");
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        calls->fence(Fence::MapAcquire, address.at);
    }
}
template <Text kText>
inline void fence_mbarrier_init()
{
    static_assert(kText.is("release.cluster"));
    calls->fence(Fence::BarrierInit, 0);
}

template <Text kText>
inline void tensormap_replace(Address map, uint64_t value)
{
    constexpr Field field = kText.has("global_address") ? Field::Address
        : kText.has("rank")                             ? Field::Rank
        : kText.has("elemtype")                         ? Field::Type
        : kText.has("interleave_layout")                ? Field::Interleave
        : kText.has("swizzle_mode")                     ? Field::Swizzle
                                                        : Field::Fill;
    static_assert(field != Field::Fill || kText.has("fill_mode"));
    const uint64_t at = kText.has("global") ? map.at : reinterpret_cast<uint64_t>(self().block->shared + shared(map));
    calls->map_replace(at, field, 0, value);
}
template <Text kText>
inline void tensormap_replace(Address map, uint32_t dimension, uint64_t value)
{
    constexpr Field field = kText.has("global_dim") ? Field::Size
        : kText.has("global_stride")                ? Field::Stride
        : kText.has("box_dim")                      ? Field::Box
                                                    : Field::Step;
    static_assert(field != Field::Step || kText.has("element_stride"));
    const uint64_t at = kText.has("global") ? map.at : reinterpret_cast<uint64_t>(self().block->shared + shared(map));
    calls->map_replace(at, field, dimension, value);
}
template <Text kText>
inline void tensormap_cp_fenceproxy(Address to, Address from, uint32_t bytes)
{
    static_assert(kText.has("sync") && kText.has("aligned") && kText.has("release"));
    if (bytes != 128) calls->undefined("a copy of a tensor map that is not of 128 bytes");
    __syncwarp();
    if (self().lane == 0) calls->map_copy(to.at, shared(from));
    __syncwarp();
    __atomic_thread_fence(__ATOMIC_RELEASE);
    calls->fence(Fence::MapRelease, 0);
}
template <Text kText>
inline void prefetch(Address)
{
    static_assert(kText.is("tensormap"));
}

// Caches are no part of this machine.
template <Text kText>
inline void createpolicy(uint64_t& policy, double)
{
    policy = 0;
}
// Neither are launches that begin before the one before them has ended.
template <Text kText>
inline void griddepcontrol()
{
    static_assert(kText.is("wait") || kText.is("launch_dependents"));
}

namespace special {

inline uint32_t dynamic_smem_size() { return self().block->dynamic_bytes; }
inline uint32_t cluster_ctarank() { return self().block->cluster_rank; }
inline uint32_t cluster_nctarank() { return self().block->cluster_size; }
inline uint64_t globaltimer()
{
    calls->spin(Spin::Clock);
    return calls->clock();
}

}  // namespace special

}  // namespace ksim::ptx
