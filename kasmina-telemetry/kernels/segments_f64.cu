// Segmented reductions of f64.
#include "segments.cuh"

KASMINA_OTHER_SEGMENTS_TYPE(double, f64, SegmentSumLane)
