// Matrix branches of f32 layers: plain fused multiply-adds.

#include "matrix_backward.cuh"
#include "matrix_forward.cuh"

KASMINA_MATRIX_FORWARD(kasmina_matrix_forward_f32, float, Fma)
KASMINA_MATRIX_BACKWARD(kasmina_matrix_backward_f32, float, Fma)
