// Consecutive layers in one launch.

#include "stack_kernels.cuh"

KASMINA_STACK_FORWARD(kasmina_stack_forward_f16_off_1, f16, Off, 1)
KASMINA_STACK_FORWARD(kasmina_stack_forward_f16_off_2, f16, Off, 2)
KASMINA_STACK_FORWARD(kasmina_stack_forward_f16_packet_1, f16, Packet, 1)
KASMINA_STACK_FORWARD(kasmina_stack_forward_f16_packet_2, f16, Packet, 2)
KASMINA_STACK_FORWARD(kasmina_stack_forward_f16_column_1, f16, Column, 1)
KASMINA_STACK_BACKWARD(kasmina_stack_backward_f16_off_1, f16, Off, 1)
KASMINA_STACK_BACKWARD(kasmina_stack_backward_f16_packet_1, f16, Packet, 1)
KASMINA_STACK_BACKWARD(kasmina_stack_backward_f16_column_1, f16, Column, 1)
