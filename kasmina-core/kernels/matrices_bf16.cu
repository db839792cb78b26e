// Matrix branches of bf16 layers: tensor cores on split operands.

#include "matrix_backward.cuh"
#include "matrix_forward.cuh"

KASMINA_MATRIX_FORWARD(kasmina_matrix_forward_bf16, kasmina::bf16, TensorCores)
KASMINA_MATRIX_BACKWARD(kasmina_matrix_backward_bf16, kasmina::bf16, TensorCores)
