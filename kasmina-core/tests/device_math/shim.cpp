// The two-sided headers behind C functions over whole arrays, for the tests in this folder. Nothing is computed here.

#include "kasmina_activation.cuh"
#include "kasmina_adamw.cuh"
#include "kasmina_element.cuh"
#include "kasmina_finalize.cuh"
#include "kasmina_histogram.cuh"
#include "kasmina_lower.cuh"
#include "kasmina_moments.cuh"
#include "kasmina_pairs.cuh"
#include "kasmina_split.cuh"
#include "kasmina_stencil.cuh"

#include <vector>

using namespace kasmina;

namespace {

// Storage types, as the tests number them.
constexpr uint32_t kF16 = 1;
constexpr uint32_t kBf16 = 2;

// Calls `run` with a value of the numbered type.
template <class Run>
auto with_type(uint32_t type, Run run)
{
    return type == kF16 ? run(f16{}) : run(bf16{});
}

template <class T>
Packet<T> packet_at(const uint16_t* words)
{
    Packet<T> packet;
    std::memcpy(&packet, words, sizeof packet);
    return packet;
}

template <uint32_t N, class Running, class Stats, class... Epsilon>
uint64_t run_blocks(const float* x, size_t n, Stats* out, Epsilon... epsilon)
{
    Running running = Running::empty();
    Stats rest = Stats::empty();
    for (size_t i = 0; i < n; i += N) {
        float block[N] = {};
        const size_t count = n - i < N ? n - i : N;
        std::memcpy(block, x + i, count * sizeof(float));
        running.push(block, static_cast<uint32_t>(count), epsilon..., rest);
    }
    *out = running.finish(rest);
    return rest.n + rest.nonfinite;
}

template <class Running, class Stats, class... Epsilon>
uint64_t run_any(uint32_t block, const float* x, size_t n, Stats* out, Epsilon... epsilon)
{
    switch (block) {
    case 1: return run_blocks<1, Running>(x, n, out, epsilon...);
    case 4: return run_blocks<4, Running>(x, n, out, epsilon...);
    case 8: return run_blocks<8, Running>(x, n, out, epsilon...);
    case 13: return run_blocks<13, Running>(x, n, out, epsilon...);
    case 16: return run_blocks<16, Running>(x, n, out, epsilon...);
    case 32: return run_blocks<32, Running>(x, n, out, epsilon...);
    default: return run_blocks<64, Running>(x, n, out, epsilon...);
    }
}

template <class Run>
void with_guards(const Bounds& bounds, Run run)
{
    if (bounds.guarded != 0) {
        run(Guards<true>(bounds));
    } else {
        run(Guards<false>(bounds));
    }
}

template <bool Guarded>
BackwardStep step_of(Pass pass, const ColumnProgram& program, const Guards<Guarded>& guards, float x, float g)
{
    switch (pass) {
    case Pass::Path: return backward<Pass::Path>(program, guards, x, g);
    case Pass::StraightThrough: return backward<Pass::StraightThrough>(program, guards, x, g);
    default: return backward<Pass::Reconstruction>(program, guards, x, g);
    }
}

// One row of a chunk in runs as the kernels take it: the row begins `lead` columns into its first run, and what windows have
// outside the chunk is poison.
template <uint32_t kLanes, uint32_t kTaps>
struct StencilRow {
    static constexpr uint32_t kBack = kReach<kLanes, kTaps>;
    static constexpr uint32_t kWindow = kBack + kLanes;

    float taps[kTaps];
    uint32_t count, lead, c;

    StencilRow(const float* from, uint32_t count, uint32_t lead, uint32_t c) : count(count), lead(lead % kLanes), c(c)
    {
        for (uint32_t j = 0; j < kTaps; ++j) taps[j] = j < count ? from[j] : poison();
    }

    static float poison() { return float_of(0x7fc00000u); }

    // Calls run(first) for every run.
    template <class Run>
    void each(Run run) const
    {
        for (int32_t first = -static_cast<int32_t>(lead); first < static_cast<int32_t>(c); first += kLanes) run(first);
    }

    void window(const float* row, int32_t from, float (&out)[kWindow]) const
    {
        for (uint32_t i = 0; i < kWindow; ++i) {
            const int32_t column = from + static_cast<int32_t>(i);
            out[i] = column >= 0 && column < static_cast<int32_t>(c) ? row[column] : poison();
        }
    }

    template <class Store>
    void store(int32_t first, Store store) const
    {
        for (uint32_t e = 0; e < kLanes; ++e) {
            const int32_t column = first + static_cast<int32_t>(e);
            if (column >= 0 && column < static_cast<int32_t>(c)) store(column, e);
        }
    }

    void filter_row(const float* v, float* t) const
    {
        each([&](int32_t first) {
            float around[kWindow], out[kLanes];
            window(v, first - static_cast<int32_t>(kBack), around);
            if (begins_early(first, count)) {
                filter<true>(taps, count, around, first, out);
            } else {
                filter<false>(taps, count, around, first, out);
            }
            store(first, [&](int32_t column, uint32_t e) { t[column] = out[e]; });
        });
    }

    void correlate_row(const float* v, const float* masked, float* grad, double* lags) const
    {
        each([&](int32_t first) {
            float around[kWindow], own[kWindow], run[kLanes], out[kLanes], sums[kTaps] = {};
            window(masked, first, around);
            window(v, first, own);
            std::memcpy(run, own, sizeof run);
            const int32_t left = static_cast<int32_t>(c) - first;
            if (leaves_chunk(first, kLanes, count, c)) {
                correlate<true, kLanes, kTaps>(taps, count, around, left, out);
                add_lags<true>(sums, count, run, around, first, left);
            } else {
                correlate<false, kLanes, kTaps>(taps, count, around, left, out);
                add_lags<false>(sums, count, run, around, first, left);
            }
            store(first, [&](int32_t column, uint32_t e) { grad[column] = out[e]; });
            for (uint32_t j = 0; j < count; ++j) lags[j] += sums[j];
        });
    }
};

// Which kernel: lanes of a packet times 100, and the taps that it is compiled for.
template <class Run>
void with_row(uint32_t kernel, const float* taps, uint32_t count, uint32_t lead, uint32_t c, Run run)
{
    switch (kernel) {
    case 404: return run(StencilRow<4, 4>(taps, count, lead, c));
    case 408: return run(StencilRow<4, 8>(taps, count, lead, c));
    case 416: return run(StencilRow<4, 16>(taps, count, lead, c));
    case 804: return run(StencilRow<8, 4>(taps, count, lead, c));
    case 808: return run(StencilRow<8, 8>(taps, count, lead, c));
    default: return run(StencilRow<8, 16>(taps, count, lead, c));
    }
}

} // namespace

extern "C" {

void stencil_forward(uint32_t kernel, const Bounds* bounds, const float* taps, uint32_t count, uint32_t lead, const float* x,
                     uint32_t c, float* y)
{
    with_guards(*bounds, [=](auto guards) {
        with_row(kernel, taps, count, lead, c, [=](const auto& row) {
            std::vector<float> v(c);
            for (uint32_t i = 0; i < c; ++i) v[i] = guards.sanitize(x[i]);
            row.filter_row(v.data(), y);
            for (uint32_t i = 0; i < c; ++i) y[i] = guards.clamp(y[i]);
        });
    });
}

// Adds to `lags` and `square`. A reconstruction's residuals are summed as they are.
void stencil_backward(uint32_t kernel, const Bounds* bounds, uint32_t reconstructs, const float* taps, uint32_t count,
                      uint32_t lead, const float* x, const float* g, uint32_t c, float* grad_x, double* lags, double* square)
{
    with_guards(*bounds, [=](auto guards) {
        with_row(kernel, taps, count, lead, c, [=](const auto& row) {
            std::vector<float> v(c), t(c), masked(c);
            for (uint32_t i = 0; i < c; ++i) v[i] = guards.sanitize(x[i]);
            row.filter_row(v.data(), t.data());
            for (uint32_t i = 0; i < c; ++i) {
                const double residual = residual_of(t[i], v[i]);
                masked[i] = reconstructs != 0 ? static_cast<float>(residual) : guards.mask(t[i], g[i]);
                if (reconstructs != 0) *square += residual * residual;
            }
            row.correlate_row(v.data(), masked.data(), grad_x, lags);
            for (uint32_t i = 0; i < c; ++i) grad_x[i] = guards.mask(x[i], grad_x[i]);
        });
    });
}

void widen_all(uint32_t type, const uint16_t* from, float* to, size_t n)
{
    with_type(type, [=](auto t) {
        for (size_t i = 0; i < n; ++i) {
            t.bits = from[i];
            to[i] = widen(t);
        }
    });
}

uint32_t narrow_all(uint32_t type, const float* from, uint16_t* to, size_t n)
{
    return with_type(type, [=](auto t) {
        uint32_t saturated = 0;
        for (size_t i = 0; i < n; ++i) {
            narrow(from[i], t, saturated);
            to[i] = t.bits;
        }
        return saturated;
    });
}

void get_packets(uint32_t type, const uint16_t* from, float* to, size_t packets)
{
    with_type(type, [=](auto t) {
        for (size_t i = 0; i < packets; ++i) {
            float x[8];
            packet_at<decltype(t)>(from + 8 * i).get(x);
            std::memcpy(to + 8 * i, x, sizeof x);
        }
    });
}

uint32_t put_packets(uint32_t type, const float* from, uint16_t* to, size_t packets)
{
    return with_type(type, [=](auto t) {
        uint32_t saturated = 0;
        for (size_t i = 0; i < packets; ++i) {
            float x[8];
            std::memcpy(x, from + 8 * i, sizeof x);
            Packet<decltype(t)> packet;
            packet.put(x, saturated);
            std::memcpy(to + 8 * i, &packet, sizeof packet);
        }
        return saturated;
    });
}

// Takes the lanes in `lanes` of one packet into another.
void take_lanes(uint32_t type, uint16_t* to, const uint16_t* from, uint32_t lanes, uint16_t* raw)
{
    with_type(type, [=](auto t) {
        auto packet = packet_at<decltype(t)>(to);
        const auto other = packet_at<decltype(t)>(from);
        for (uint32_t lane = 0; lane < 8; ++lane) {
            if (lanes >> lane & 1) packet.take(lane, other);
            raw[lane] = static_cast<uint16_t>(other.raw(lane));
        }
        std::memcpy(to, &packet, sizeof packet);
    });
}

void float_packet(const float* from, float* through, float* taken)
{
    float x[4];
    std::memcpy(x, from, sizeof x);
    Packet<float> packet{}, other;
    uint32_t saturated = 0;
    other.put(x, saturated);
    for (uint32_t lane = 0; lane < 4; ++lane) packet.take(lane, other);
    other.get(x);
    std::memcpy(through, x, sizeof x);
    for (uint32_t lane = 0; lane < 4; ++lane) taken[lane] = float_of(packet.raw(lane));
}

void guard_all(const Bounds* bounds, const float* x, float* sanitized, float* clamped, uint8_t* passes, size_t n)
{
    with_guards(*bounds, [=](auto guards) {
        for (size_t i = 0; i < n; ++i) {
            sanitized[i] = guards.sanitize(x[i]);
            clamped[i] = guards.clamp(x[i]);
            passes[i] = guards.passes(x[i]);
        }
    });
}

void flush_all(const Bounds* bounds, const float* x, float* flushed, size_t n)
{
    const Guards<true> guards(*bounds);
    for (size_t i = 0; i < n; ++i) flushed[i] = guards.flush(x[i]);
}

void strict_of(const Bounds* fixed, float sigmas, const ChunkStats* stats, Bounds* out)
{
    *out = strict_bounds(*fixed, sigmas, stats->n, stats->mean, stats->m2);
}

void apply_all(const ColumnProgram* programs, const Bounds* bounds, const float* x, float* y, size_t n)
{
    with_guards(*bounds, [=](auto guards) {
        for (size_t i = 0; i < n; ++i) y[i] = apply(programs[i], guards, x[i]);
    });
}

// y by the flush alone, of a block whose greatest magnitude is `greatest`; 0 where the programs' reach does not allow it. Linear
// programs come by the shorter way.
uint32_t apply_within(const ColumnProgram* programs, const Bounds* bounds, float greatest, const float* x, float* y, size_t n)
{
    Reach reach = Reach::none();
    for (size_t i = 0; i < n; ++i) reach.include(programs[i]);
    if (!(greatest <= reach.allowed(Reach::limit(*bounds)))) return 0;
    const FlushOnly guards(*bounds);
    for (size_t i = 0; i < n; ++i) {
        y[i] = programs[i].is_linear() ? apply_linear(programs[i], guards, x[i]) : apply(programs[i], guards, x[i]);
    }
    return 1;
}

// Extremes of the low and of the high halves of up to 64 words, and their dead elements.
void pair_range(uint32_t type, const uint32_t* words, size_t n, float dead_epsilon, float* low, float* high, float* dead)
{
    with_type(type, [=](auto of) {
        using T = decltype(of);
        PairRange<T> range = PairRange<T>::empty();
        const uint32_t threshold = pair_at_most<T>(dead_epsilon);
        for (size_t i = 0; i < n; ++i) range.see(words[i], threshold);
        for (uint32_t half = 0; half < 2; ++half) {
            low[half] = range.lowest(half);
            high[half] = range.highest(half);
            dead[half] = range.dead_count(half);
        }
        return 0;
    });
}

// Words with |x| < ε and NaN flushed in both halves, and what is clamped of them then.
void flush_pairs(uint32_t type, const Bounds* bounds, const uint32_t* words, size_t n, uint32_t* flushed, float* clamped)
{
    with_type(type, [=](auto of) {
        using T = decltype(of);
        const uint32_t threshold = pair_at_least<T>(bounds->epsilon);
        const ClampOnly clamp(*bounds);
        for (size_t i = 0; i < n; ++i) {
            flushed[i] = flush_pair<T>(words[i], threshold);
            for (uint32_t half = 0; half < 2; ++half) {
                clamped[2 * i + half] = clamp.sanitize(widen(T{static_cast<uint16_t>(flushed[i] >> 16 * half)}));
            }
        }
        return 0;
    });
}

// The greatest magnitude of both halves of some words.
float pair_magnitude(uint32_t type, const uint32_t* words, size_t n)
{
    float greatest = 0.0f;
    float* out = &greatest;
    with_type(type, [=](auto of) {
        PairMagnitude<decltype(of)> magnitude;
        for (size_t i = 0; i < n; ++i) magnitude.see(words[i]);
        *out = magnitude.greatest();
        return 0;
    });
    return greatest;
}

// Sums of finite gradients by values that have the sign of the polarity.
void sum_signed(const ColumnProgram* program, const float* x, const float* g, size_t n, ColumnSums* out)
{
    ColumnSums sums = ColumnSums::zero();
    for (size_t i = 0; i < n; ++i) {
        sums.add_gradient(g[i]);
        sums.add_products(g[i], program->polarity < 0.0f ? -x[i] : x[i]);
    }
    const float sign = program->polarity < 0.0f ? -1.0f : 1.0f;
    *out = {sums.g, sign * sums.gx, program->polarity == 0.0f ? 0.0f : sign * sums.gx_on};
}

double squares_of(const ColumnProgram* program, const ColumnTotals* totals)
{
    return reconstruction_squares(*program, *totals);
}

void backward_all(uint32_t pass, const ColumnProgram* programs, const Bounds* bounds, const float* x, const float* g,
                  BackwardStep* steps, size_t n)
{
    with_guards(*bounds, [=](auto guards) {
        for (size_t i = 0; i < n; ++i) steps[i] = step_of(static_cast<Pass>(pass), programs[i], guards, x[i], g[i]);
    });
}

// The merged sums of every column over rows × columns; half of the rows are summed apart and merged, as two blocks would.
void sum_columns(uint32_t pass, const ColumnProgram* programs, const Bounds* bounds, const float* x, const float* g,
                 size_t rows, size_t columns, ColumnTotals* out)
{
    with_guards(*bounds, [=](auto guards) {
        for (size_t c = 0; c < columns; ++c) {
            ColumnTotals halves[2] = {ColumnTotals::zero(), ColumnTotals::zero()};
            ColumnSums sums = ColumnSums::zero();
            for (size_t r = 0; r < rows; ++r) {
                const size_t at = r * columns + c;
                const BackwardStep step = step_of(static_cast<Pass>(pass), programs[c], guards, x[at], g[at]);
                sums.add(step.masked, step.v, step.on);
                if (r % 16 == 15 || r + 1 == rows || r + 1 == rows / 2) halves[r < rows / 2 ? 0 : 1].fold(sums);
            }
            halves[0].merge(halves[1]);
            out[c] = halves[0];
        }
    });
}

void push_chunk(ChunkStats* stats, const float* x, size_t n, float dead_epsilon)
{
    push_each(*stats, x, static_cast<uint32_t>(n), dead_epsilon);
}

void merge_chunk(ChunkStats* stats, const ChunkStats* other)
{
    stats->merge(*other);
}

void push_gradient(GradientStats* stats, const float* g, size_t n)
{
    push_each(*stats, g, static_cast<uint32_t>(n));
}

void merge_gradient(GradientStats* stats, const GradientStats* other)
{
    stats->merge(*other);
}

void empty_stats(ChunkStats* chunk, GradientStats* gradient)
{
    *chunk = ChunkStats::empty();
    *gradient = GradientStats::empty();
}

// Statistics of x in blocks; answers how many elements went the slow way.
uint64_t run_chunk(uint32_t block, const float* x, size_t n, float dead_epsilon, ChunkStats* out)
{
    return run_any<RunningChunk>(block, x, n, out, dead_epsilon);
}

uint64_t run_gradient(uint32_t block, const float* g, size_t n, GradientStats* out)
{
    return run_any<RunningGradient>(block, g, n, out);
}

// A block that is added element by element, as a kernel does with columns of several packets.
uint32_t run_loose(const float* x, size_t n, float dead_epsilon, ChunkStats* out)
{
    RunningChunk running = RunningChunk::empty();
    const float pivot = running.moments.pivot(x[0]);
    ChunkBlock block = ChunkBlock::empty();
    for (size_t i = 0; i < n; ++i) block.add(x[i], pivot, dead_epsilon);
    const bool accepted = running.accepts(block, static_cast<uint32_t>(n));
    if (accepted) running.merge(block, static_cast<uint32_t>(n));
    *out = running.finish(ChunkStats::empty());
    return accepted;
}

void activate_all(uint32_t code, const float* x, float* value, float* slope, size_t n)
{
    for (size_t i = 0; i < n; ++i) {
        value[i] = activate(static_cast<Activation>(code), x[i]);
        slope[i] = derivative(static_cast<Activation>(code), x[i]);
    }
}

void lower_pointwise(uint32_t kind, const float* parameters, uint32_t c, float alpha, ColumnProgram* programs)
{
    lower_seed(Serial{}, static_cast<Kind>(kind), parameters, c, alpha, programs);
}

void lower_taps(const float* parameters, uint32_t count, float alpha, float* taps)
{
    lower_filter(Serial{}, parameters, count, alpha, taps);
}

double finalize_pointwise(uint32_t kind, const float* parameters, uint32_t c, float alpha, const ColumnTotals* totals,
                          double factor, float* gradients)
{
    return finalize_seed(
        Serial{}, static_cast<Kind>(kind), parameters, c, alpha, [=](uint32_t i) { return totals[i]; }, factor,
        [=](uint32_t i, float value) { gradients[i] = value; });
}

double finalize_taps(const float* parameters, uint32_t count, float alpha, const double* lags, double factor, float* gradients)
{
    return finalize_filter(
        Serial{}, parameters, count, alpha, [=](uint32_t j) { return lags[j]; }, factor, gradients);
}

void reconstruction(uint64_t rows, uint64_t c, double squares, double* factor, double* loss)
{
    *factor = reconstruction_factor(rows, c);
    *loss = reconstruction_loss(squares, rows, c);
}

void adamw_seed(const AdamW* adamw, uint64_t updates, uint32_t n, float* parameters, float* first, float* second,
                const float* gradients, AdamWReport* report)
{
    *report = update_seed(Serial{}, *adamw, updates, n, parameters, first, second, gradients);
}

void split_all(const float* x, float* hi, float* lo, float* whole, size_t n)
{
    for (size_t i = 0; i < n; ++i) {
        const Split parts = split(x[i]);
        const uint32_t word = pair(parts.hi, parts.lo);
        hi[i] = widen(bf16{static_cast<uint16_t>(word)});
        lo[i] = widen(bf16{static_cast<uint16_t>(word >> 16)});
        whole[i] = joined(parts.hi, parts.lo);
    }
}

// x into a histogram as a block counts, from an empty part.
void count_histogram(Histogram* histogram, const float* x, size_t n)
{
    PartialHistogram partial = PartialHistogram::empty();
    for (size_t i = 0; i < n; ++i) partial.push(x[i]);
    partial.add_to(*histogram);
}

void empty_histogram(Histogram* histogram)
{
    *histogram = Histogram::empty();
}

void order_all(const float* x, uint32_t* keys, float* back, size_t n)
{
    for (size_t i = 0; i < n; ++i) {
        keys[i] = ordered(x[i]);
        back[i] = unordered(keys[i]);
    }
}

double correction(double beta, uint64_t updates)
{
    return bias_correction(beta, updates);
}

} // extern "C"
