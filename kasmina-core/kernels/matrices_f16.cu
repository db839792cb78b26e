// Matrix branches of f16 layers: tensor cores on split operands.

#include "matrix_backward.cuh"
#include "matrix_forward.cuh"

KASMINA_MATRIX_FORWARD(kasmina_matrix_forward_f16, kasmina::f16, TensorCores)
KASMINA_MATRIX_BACKWARD(kasmina_matrix_backward_f16, kasmina::f16, TensorCores)
