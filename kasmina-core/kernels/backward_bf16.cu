// Made by `cargo xtask variants` from the tables in src/cuda/variants. Not to be changed by hand.

#include "backward_kernels.cuh"

KASMINA_BACKWARD_BULK_TENSOR(kasmina_backward_bf16_bulk_tensor_off, bf16, Off)
KASMINA_BACKWARD_BULK(kasmina_backward_bf16_bulk_off, bf16, Off)
KASMINA_BACKWARD_ASYNC(kasmina_backward_bf16_cp_async_off, bf16, Off)
KASMINA_BACKWARD_DIRECT(kasmina_backward_bf16_vector16_off, bf16, Off, true)
KASMINA_BACKWARD_DIRECT(kasmina_backward_bf16_scalar_off, bf16, Off, false)
KASMINA_BACKWARD_BULK_TENSOR(kasmina_backward_bf16_bulk_tensor_packet, bf16, Packet)
KASMINA_BACKWARD_BULK(kasmina_backward_bf16_bulk_packet, bf16, Packet)
KASMINA_BACKWARD_ASYNC(kasmina_backward_bf16_cp_async_packet, bf16, Packet)
KASMINA_BACKWARD_DIRECT(kasmina_backward_bf16_vector16_packet, bf16, Packet, true)
KASMINA_BACKWARD_BULK_TENSOR(kasmina_backward_bf16_bulk_tensor_column, bf16, Column)
KASMINA_BACKWARD_BULK(kasmina_backward_bf16_bulk_column, bf16, Column)
KASMINA_BACKWARD_ASYNC(kasmina_backward_bf16_cp_async_column, bf16, Column)
KASMINA_BACKWARD_DIRECT(kasmina_backward_bf16_vector16_column, bf16, Column, true)
KASMINA_BACKWARD_DIRECT(kasmina_backward_bf16_scalar_column, bf16, Column, false)
