"""What is computed: the cases as `cargo xtask bench` names them, and their matrices and parameters."""

from __future__ import annotations

import dataclasses
import json
import math

import torch
from torch import Tensor

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
# (work, seeds) of `xtask/src/bench/case.rs` that have peers.
PASSES = {
    ("forward-telemetry", "dormant"),
    ("forward-telemetry", "residual"),
    ("forward-backward", "expansion-trains"),
}
# Beyond it values are clamped.
LIMIT = 1e6
SEED = 20_250_101
# The number of the pair that the guards are tested on; far above those that are timed.
HOSTILE = 1_000_000


@dataclasses.dataclass(frozen=True)
class Case:
    """One line of the bench: x[rows, hidden] in chunks of so many columns, each with a seed."""

    work: str
    seeds: str
    chunk: int
    rows: int
    hidden: int
    dtype: str

    def __post_init__(self) -> None:
        if (self.work, self.seeds) not in PASSES:
            raise ValueError(f"no peer does {self.work} of {self.seeds}")
        if self.dtype not in DTYPES:
            raise ValueError(f"the dtype {self.dtype} is none of {', '.join(DTYPES)}")
        if min(self.rows, self.hidden, self.chunk) < 1 or self.hidden % self.chunk:
            raise ValueError(f"{self.rows}×{self.hidden} is not made of whole chunks of {self.chunk}")

    def __str__(self) -> str:
        return f"{self.work}, {self.seeds}, {self.rows}×{self.hidden} {self.dtype}, chunk {self.chunk}"

    @staticmethod
    def parse(text: str) -> Case:
        """A case from JSON."""
        return Case(**json.loads(text))

    @property
    def seed_count(self) -> int:
        return self.hidden // self.chunk

    @property
    def trains(self) -> bool:
        return self.seeds == "expansion-trains"

    @property
    def matrix_bytes(self) -> int:
        return self.rows * self.hidden * DTYPES[self.dtype].itemsize


@dataclasses.dataclass(frozen=True)
class Parameters:
    """Of all seeds: weight[hidden], scale[seeds] and alpha[seeds], in f32."""

    weight: Tensor
    scale: Tensor
    alpha: Tensor

    @staticmethod
    def draw(case: Case, device: torch.device) -> Parameters:
        """Random ones, away from alpha 0 and 1, where a branch ends."""
        random = torch.Generator(device).manual_seed(SEED)

        def uniform(n: int, low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand(n, generator=random, device=device)

        seeds = case.seed_count
        weight, scale = uniform(case.hidden, -2.0, 2.0), uniform(seeds, 0.5, 1.5)
        return Parameters(weight, scale, uniform(seeds, 0.25, 0.75))

    def leaves(self) -> Parameters:
        """Copies that gradients are taken of."""
        fields = (self.weight, self.scale, self.alpha)
        return Parameters(*(field.clone().requires_grad_() for field in fields))


@dataclasses.dataclass(frozen=True)
class Pair:
    """x and dL/dy."""

    x: Tensor
    g: Tensor

    @staticmethod
    def draw(case: Case, device: torch.device, number: int) -> Pair:
        """Values in [-1, 1); another number, other values."""
        random = torch.Generator(device).manual_seed(SEED + 1 + number)

        def matrix() -> Tensor:
            values = torch.rand(case.rows, case.hidden, generator=random, device=device)
            return values.mul_(2.0).sub_(1.0).to(DTYPES[case.dtype])

        return Pair(matrix().requires_grad_(case.trains), matrix())

    def load(self, other: Pair) -> None:
        """Takes the other's values into the same memory."""
        with torch.no_grad():
            self.x.copy_(other.x)
            self.g.copy_(other.g)


def hostile(case: Case, device: torch.device) -> Pair:
    """What every guard, count and mask meets: values that are flushed everywhere but in the first and the
    last seed, whose values are all above and all below 0; in those a NaN; and in the middle seed infinite
    values and a row of such that are clamped. That one's tolerance is lax, because large values make it so;
    the others keep theirs. The first row stays finite, because the peers measure deviations from it.
    """
    pair = Pair.draw(case, device, HOSTILE)
    chunk, last = case.chunk, case.seed_count - 1
    middle = case.seed_count // 2
    flushed = (0.0, 1e-9, -1e-9)
    special = {0: (math.nan,), last: (math.nan,), middle: (math.nan, math.inf, -math.inf, *flushed)}
    with torch.no_grad():
        for seed, offset in ((0, 2.0), (last, -2.0)):
            pair.x[:, seed * chunk : (seed + 1) * chunk] += offset
        clamped = pair.x[case.rows // 2, middle * chunk : (middle + 1) * chunk]
        clamped.copy_(torch.where(clamped < 0.0, -2.0 * LIMIT, 2.0 * LIMIT))
        for seed in range(case.seed_count):
            for i, value in enumerate(special.get(seed, flushed)):
                row = 1 + 3 * i % max(case.rows // 2 - 1, 1)
                pair.x[row, seed * chunk + 5 * i % chunk] = value
    return pair
