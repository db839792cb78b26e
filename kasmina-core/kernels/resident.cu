// The resident grid, and how kernels of other streams hand it steps.

#define KASMINA_RESIDENT 1
#include "resident_grid.cuh"

using namespace kasmina::resident;

// Registers of a thread: of a multiprocessor's quarter two warps take all but some, which are for the kernels that wait for the grid and may
// be there before it.
#define KASMINA_RESIDENT_REGISTERS 224

// Block 0 dispatches, the others work and merge, of 256 threads each. Launched cooperatively: all blocks run at once, or none.
extern "C" __global__ void __maxnreg__(KASMINA_RESIDENT_REGISTERS) kasmina_resident(const __grid_constant__ ResidentParams p)
{
    __shared__ __align__(16) Worker::Shared shared;
    __shared__ uint64_t board_of[kBoard];
    if (blockIdx.x == 0) {
        if (threadIdx.x == 0) {
            Dispatcher(p, board_of).run();
        }
        return;
    }
    if (threadIdx.x >= kasmina::kBlockThreads) {
        serve_merges();
        return;
    }
    Worker(p, shared, blockIdx.x - 1).run(p.control->next[p.generation % 2]);
}

// Hands a step to the grid and waits until it is done, so that what comes after this kernel on its stream finds the results. One thread.
extern "C" __global__ void __launch_bounds__(32) kasmina_resident_run(const Step* step, Control* control, Report* report, uint64_t watchdog_ns)
{
    if (threadIdx.x != 0) {
        return;
    }
    Control& c = *control;
    const auto number = atomicAdd(reinterpret_cast<unsigned long long*>(&c.asked), 1ull);
    Request& request = c.ring[number % kBoard];
    Patience patience;
    const auto waits = [&](const uint64_t* at, uint64_t value) {
        for (uint32_t round = 0; acquire(at) != value; ++round) {
            // For a host that has to start a grid. Again and again, as another kernel's lower number may come to the host last.
            if (round % 256 == 0) {
                release_to_host(&report->asked, acquire(&c.asked));
            }
            patience.pause();
            if (patience.is_over(watchdog_ns)) {
                release_to_host(&report->fault, number << 8 | static_cast<uint64_t>(Fault::KernelWaited));
                return false;
            }
        }
        return true;
    };
    // The place's last user is done.
    if (number >= kBoard && !waits(&request.done, number - kBoard + 1)) {
        return;
    }
    request.step = step;
    __threadfence();
    release(&request.number, number + 1);
    waits(&request.done, number + 1);
}
