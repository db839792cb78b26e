// Made by `cargo xtask variants` from the tables in src/cuda/variants. Not to be changed by hand.

#include "backward_kernels.cuh"

KASMINA_BACKWARD_BULK_TENSOR(kasmina_backward_f16_bulk_tensor_off, f16, Off)
KASMINA_BACKWARD_BULK(kasmina_backward_f16_bulk_off, f16, Off)
KASMINA_BACKWARD_ASYNC(kasmina_backward_f16_cp_async_off, f16, Off)
KASMINA_BACKWARD_DIRECT(kasmina_backward_f16_vector16_off, f16, Off, true)
KASMINA_BACKWARD_DIRECT(kasmina_backward_f16_scalar_off, f16, Off, false)
KASMINA_BACKWARD_BULK_TENSOR(kasmina_backward_f16_bulk_tensor_packet, f16, Packet)
KASMINA_BACKWARD_BULK(kasmina_backward_f16_bulk_packet, f16, Packet)
KASMINA_BACKWARD_ASYNC(kasmina_backward_f16_cp_async_packet, f16, Packet)
KASMINA_BACKWARD_DIRECT(kasmina_backward_f16_vector16_packet, f16, Packet, true)
KASMINA_BACKWARD_BULK_TENSOR(kasmina_backward_f16_bulk_tensor_column, f16, Column)
KASMINA_BACKWARD_BULK(kasmina_backward_f16_bulk_column, f16, Column)
KASMINA_BACKWARD_ASYNC(kasmina_backward_f16_cp_async_column, f16, Column)
KASMINA_BACKWARD_DIRECT(kasmina_backward_f16_vector16_column, f16, Column, true)
KASMINA_BACKWARD_DIRECT(kasmina_backward_f16_scalar_column, f16, Column, false)
