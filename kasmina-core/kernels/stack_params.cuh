// What a launch over a stack of layers is told. The Rust side has the same structs (src/cuda/stack/params.rs).
#pragma once

#include "stream_geometry.cuh"

namespace kasmina::stack {

// One layer's forward pass, in device memory.
struct alignas(16) ForwardLayer {
    const ColumnProgram* programs;  // [columns]
    const uint8_t* flags;           // [columns]
    const Bounds* bounds;
    ChunkStats* accumulators;       // [tiles][groups][pieces], each block's own; null where the layer is not counted
    const uint8_t* watched;         // [seeds]; null for all
    unsigned long long* saturated;
    uint32_t chunk;
    uint32_t pieces;                // the most chunks that a tile has a part of
    float dead_epsilon;
    uint32_t padding;
};
static_assert(sizeof(ForwardLayer) == 64, "as in Rust");

struct ForwardStack {
    const void* x;
    void* y;
    uint64_t x_pitch;  // bytes from row to row
    uint64_t y_pitch;
    const ForwardLayer* layers;
    stream::Geometry geometry;  // all layers', but for chunk, seeds and pieces
    uint32_t count;             // layers
    uint32_t workers;           // threads that have packets, whole warps; kPreparers warps and those that merge follow
    uint32_t plans;             // layers whose programs are in shared memory at once
    uint32_t slots;             // layers whose records are
    uint32_t aligned;           // rows begin at multiples of 16 bytes
    uint32_t stored;            // y is not x, or some layer computes
};
static_assert(sizeof(ForwardStack) == 40 + sizeof(stream::Geometry) + 24, "as in Rust");

// Warps of a block that prepare programs.
constexpr uint32_t kPreparers = 3;

// The greatest block: by the registers of its threads. Statistics of each column take twice as many.
constexpr uint32_t most_threads(stream::Telemetry telemetry, bool backward)
{
    return telemetry == stream::Telemetry::Column ? 256 : backward ? 384 : 512;
}

}  // namespace kasmina::stack
