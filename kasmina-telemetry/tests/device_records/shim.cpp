// The records of kernels/reduce_records.cuh for tests on the host.
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

void merge_extrema(Extrema<float>* left, const Extrema<float>* right) { left->merge(*right); }
}
