// Segmented reductions of bf16.
#include "segments.cuh"

KASMINA_SEGMENTS_TYPE(kasmina::reduce::bf16, bf16)
