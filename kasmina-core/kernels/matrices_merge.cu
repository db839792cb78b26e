// What the items of a backward pass of matrix branches add up to; the same for every storage type.

#include "matrix_backward.cuh"

extern "C" __global__ void __launch_bounds__(kasmina::matrix::kThreads)
    kasmina_matrix_merge(const __grid_constant__ kasmina::matrix::MergeParams p)
{
    kasmina::follow_previous_launch();
    kasmina::matrix::merge(p);
}
