// Whether a packet of columns can do without clamps, masks and the checks of its sums.
#pragma once

#include "stream_backward_task.cuh"

namespace kasmina::stream {

// How far x and dL/dy of a packet's columns may be from 0 so that clamps and masks change nothing, no product overflows, and every
// gradient is finite.
struct PacketReach {
    float gain;     // the greatest factor
    float allowed;  // the greatest |x|; infinite where nothing is guarded

    PacketReach() = default;

    __device__ __forceinline__ PacketReach(const Reach& reach, const Bounds& bounds)
        : gain(reach.gain), allowed(bounds.guarded != 0 ? reach.allowed(Reach::limit(bounds)) : kInfinity)
    {
    }

    // Whether `rows` packets x(r) and g(r), up to kBackwardRows, are within it.
    template <class T, class X, class G>
    __device__ __forceinline__ bool passes(uint32_t rows, X x, G g) const
    {
        return greatest_of<T>(rows, g) * gain <= Storage<T>::kGreatest && (allowed == kInfinity || greatest_of<T>(rows, x) <= allowed);
    }

private:
    // The greatest magnitude; a NaN stays. Of the even and of the odd words apart, so that fewer comparisons wait for one another.
    template <class T, class Get>
    static __device__ __forceinline__ float greatest_of(uint32_t rows, Get get)
    {
        [[maybe_unused]] PairMagnitude<std::conditional_t<sizeof(T) == 2, T, f16>> pair[2];
        [[maybe_unused]] float all[2] = {0.0f, 0.0f};
#pragma unroll
        for (uint32_t r = 0; r < kBackwardRows; ++r) {
            if (r >= rows) {
                break;
            }
            const Packet<T> packet = get(r);
#pragma unroll
            for (uint32_t i = 0; i < 4; ++i) {
                if constexpr (sizeof(T) == 2) {
                    pair[i % 2].see(packet.words[i]);
                } else {
                    all[i % 2] = maximum(all[i % 2], fabsf(float_of(packet.words[i])));
                }
            }
        }
        if constexpr (sizeof(T) == 2) {
            return maximum(pair[0].greatest(), pair[1].greatest());
        } else {
            return maximum(all[0], all[1]);
        }
    }
};

}  // namespace kasmina::stream
