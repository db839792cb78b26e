// The copy engine in streaming kernels: what a kernel is without it, and what keeps its addresses cheap.
#pragma once

#include "kasmina_tma.cuh"

// Without the copy engine these are in the fatbin by name alone: the host does not choose them for such a device.
#if KASMINA_TMA_AVAILABLE
#define KASMINA_WITH_TMA(...) __VA_ARGS__
#else
#define KASMINA_WITH_TMA(...) __trap()
#endif
