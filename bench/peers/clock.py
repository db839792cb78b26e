"""Times on the device's clock, in the way of `xtask/src/bench/clock.rs`: everything is queued before anything
is waited for. On a processor, whose work is done when a call returns, on the host's clock, as
`xtask/src/bench/cpu.rs` has it.
"""

from __future__ import annotations

import dataclasses
import gc
import time as host
from collections.abc import Callable

import torch

WARM_UP = 5
PROBE = 20
SHORT_MS = 0.020
BATCH = 20
FEWEST_SETS = 3
# Matrices of a set, and those of them that the smallest pass touches.
MATRICES = 4
TOUCHED = 2
# What is taken for free where the system does not tell, as in `xtask/src/bench/cpu.rs`.
SOME_MEMORY = 4 << 30


@dataclasses.dataclass(frozen=True)
class Count:
    """How many sets of matrices are gone round, and whether the second-level cache stays cold by that."""

    sets: int
    cold: bool


def count(matrix_bytes: int, device: torch.device, cache: int) -> Count:
    """As `xtask/src/bench/buffers.rs` counts them; `cache` is a processor's, a GPU tells its own."""
    if device.type == "cuda":
        cache = torch.cuda.get_device_properties(device).L2_cache_size
        free, _ = torch.cuda.mem_get_info(device)
    else:
        free = available()
    wanted = max(2 * cache // (TOUCHED * matrix_bytes) + 2, FEWEST_SETS)
    fitting = free // 4 // (MATRICES * matrix_bytes)
    if fitting == 0:
        one, free = matrix_bytes >> 20, free >> 20
        raise MemoryError(f"four matrices of {one} MiB do not fit a quarter of the {free} MiB that are free")
    return Count(min(wanted, fitting), fitting >= wanted)


def available() -> int:
    """Bytes that Linux says a program can have."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return SOME_MEMORY


@dataclasses.dataclass(frozen=True)
class Timing:
    """Each the mean over `launches` in a row."""

    milliseconds: list[float]
    launches: int

    @property
    def median(self) -> float:
        return sorted(self.milliseconds)[len(self.milliseconds) // 2]


def time(launch: Callable[[int], object], repetitions: int, device: torch.device) -> Timing:
    """Times `launch`, which queues one pass and is told how many were queued before."""
    return (time_on_gpu if device.type == "cuda" else time_on_cpu)(launch, repetitions)


def time_on_cpu(launch: Callable[[int], object], repetitions: int) -> Timing:
    """One call after the other."""
    turn = 0

    def run(launches: int) -> float:
        nonlocal turn
        started = host.perf_counter()
        for _ in range(launches):
            launch(turn)
            turn += 1
        return 1e3 * (host.perf_counter() - started) / launches

    run(WARM_UP)
    launches = BATCH if run(WARM_UP) < SHORT_MS else 1
    gc.collect()
    gc.disable()
    try:
        return Timing([run(launches) for _ in range(repetitions)], launches)
    finally:
        gc.enable()


def time_on_gpu(launch: Callable[[int], object], repetitions: int) -> Timing:
    """Everything is queued, and then waited for."""
    marks = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repetitions)]
    turn = 0

    def queue(launches: int) -> None:
        nonlocal turn
        for _ in range(launches):
            launch(turn)
            turn += 1

    # PyTorch makes an event when it is first recorded; not between the launches, please.
    for start, end in marks:
        start.record()
        end.record()
    queue(WARM_UP)
    start, end = marks[0]
    start.record()
    queue(PROBE)
    end.record()
    end.synchronize()
    launches = BATCH if start.elapsed_time(end) / PROBE < SHORT_MS else 1
    gc.collect()
    gc.disable()
    try:
        queue(WARM_UP)
        for start, end in marks:
            start.record()
            queue(launches)
            end.record()
        torch.cuda.synchronize()
    finally:
        gc.enable()
    return Timing([start.elapsed_time(end) / launches for start, end in marks], launches)
