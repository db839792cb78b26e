// Made by `cargo xtask variants` from the tables in src/cuda/variants. Not to be changed by hand.

#include "backward_kernels.cuh"

KASMINA_BACKWARD_BULK_TENSOR(kasmina_backward_f32_bulk_tensor_off, float, Off)
KASMINA_BACKWARD_BULK(kasmina_backward_f32_bulk_off, float, Off)
KASMINA_BACKWARD_ASYNC(kasmina_backward_f32_cp_async_off, float, Off)
KASMINA_BACKWARD_DIRECT(kasmina_backward_f32_vector16_off, float, Off, true)
KASMINA_BACKWARD_DIRECT(kasmina_backward_f32_scalar_off, float, Off, false)
KASMINA_BACKWARD_BULK_TENSOR(kasmina_backward_f32_bulk_tensor_packet, float, Packet)
KASMINA_BACKWARD_BULK(kasmina_backward_f32_bulk_packet, float, Packet)
KASMINA_BACKWARD_ASYNC(kasmina_backward_f32_cp_async_packet, float, Packet)
KASMINA_BACKWARD_DIRECT(kasmina_backward_f32_vector16_packet, float, Packet, true)
KASMINA_BACKWARD_BULK_TENSOR(kasmina_backward_f32_bulk_tensor_column, float, Column)
KASMINA_BACKWARD_BULK(kasmina_backward_f32_bulk_column, float, Column)
KASMINA_BACKWARD_ASYNC(kasmina_backward_f32_cp_async_column, float, Column)
KASMINA_BACKWARD_DIRECT(kasmina_backward_f32_vector16_column, float, Column, true)
KASMINA_BACKWARD_DIRECT(kasmina_backward_f32_scalar_column, float, Column, false)
