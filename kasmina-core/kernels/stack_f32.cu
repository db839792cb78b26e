// Consecutive layers in one launch.

#include "stack_kernels.cuh"

KASMINA_STACK_FORWARD(kasmina_stack_forward_f32_off_1, float, Off, 1)
KASMINA_STACK_FORWARD(kasmina_stack_forward_f32_off_2, float, Off, 2)
KASMINA_STACK_FORWARD(kasmina_stack_forward_f32_off_4, float, Off, 4)
KASMINA_STACK_FORWARD(kasmina_stack_forward_f32_packet_1, float, Packet, 1)
KASMINA_STACK_FORWARD(kasmina_stack_forward_f32_packet_2, float, Packet, 2)
KASMINA_STACK_FORWARD(kasmina_stack_forward_f32_packet_4, float, Packet, 4)
KASMINA_STACK_FORWARD(kasmina_stack_forward_f32_column_1, float, Column, 1)
KASMINA_STACK_BACKWARD(kasmina_stack_backward_f32_off_1, float, Off, 1)
KASMINA_STACK_BACKWARD(kasmina_stack_backward_f32_off_2, float, Off, 2)
KASMINA_STACK_BACKWARD(kasmina_stack_backward_f32_packet_1, float, Packet, 1)
KASMINA_STACK_BACKWARD(kasmina_stack_backward_f32_packet_2, float, Packet, 2)
KASMINA_STACK_BACKWARD(kasmina_stack_backward_f32_column_1, float, Column, 1)
