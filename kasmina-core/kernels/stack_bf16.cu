// Consecutive layers in one launch.

#include "stack_kernels.cuh"

KASMINA_STACK_FORWARD(kasmina_stack_forward_bf16_off_1, bf16, Off, 1)
KASMINA_STACK_FORWARD(kasmina_stack_forward_bf16_off_2, bf16, Off, 2)
KASMINA_STACK_FORWARD(kasmina_stack_forward_bf16_packet_1, bf16, Packet, 1)
KASMINA_STACK_FORWARD(kasmina_stack_forward_bf16_packet_2, bf16, Packet, 2)
KASMINA_STACK_FORWARD(kasmina_stack_forward_bf16_column_1, bf16, Column, 1)
KASMINA_STACK_BACKWARD(kasmina_stack_backward_bf16_off_1, bf16, Off, 1)
KASMINA_STACK_BACKWARD(kasmina_stack_backward_bf16_packet_1, bf16, Packet, 1)
KASMINA_STACK_BACKWARD(kasmina_stack_backward_bf16_column_1, bf16, Column, 1)
