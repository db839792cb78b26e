// Segmented reductions of i64.
#include "segments.cuh"

KASMINA_OTHER_SEGMENTS_TYPE(int64_t, i64, SumLane)
