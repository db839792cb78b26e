// The records of kernels/reduce_records.cuh for tests on the host.
#include "reduce_exact.cuh"
#include "reduce_records.cuh"

using namespace kasmina::reduce;

extern "C" {

void merge_statistics(Statistics<float>* left, const Statistics<float>* right) { left->merge(*right); }

void statistics_about(double pivot, double sum, double squares, uint64_t n, float low, float high, Statistics<float>* out)
{
    *out = Statistics<float>::about(pivot, sum, squares, n, 0, 0, low, high);
}

void neutral_statistics(Statistics<float>* out) { *out = Statistics<float>::neutral(); }

void merge_integer_sums(IntegerSum* left, const IntegerSum* right) { left->merge(*right); }

// What blocks do by atomics, one after the other.
double exact_sum(const double* values, uint64_t count)
{
    uint64_t words[kExactWords] = {};
    for (uint64_t i = 0; i < count; ++i) {
        const ExactTerm term = exact_term(values[i]);
        words[kDigits] |= term.special;
        for (uint32_t k = 0; k < 3 && term.special == 0; ++k) words[term.first + k] += static_cast<uint64_t>(term.digit[k]);
    }
    return exact_total(words);
}

void merge_extrema(Extrema<float>* left, const Extrema<float>* right) { left->merge(*right); }
}
