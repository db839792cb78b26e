"""Whether what a peer computed is what had to come out: by seed, with the tolerances by which our own
backends are judged (`xtask/src/verify/judge.rs`).
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from inputs import Case, Pair
from reference import Outputs, by_seed, sanitize

VARIANCE_FLOOR = 1e-12


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """Elements: |a − e| ≤ element·(|e| + rms of e in the chunk). Gradients of parameters:
    ‖a − e‖ ≤ relative·‖e‖ + product·‖g‖·‖x‖. Statistics: relative.
    """

    element: float
    relative: float
    product: float
    statistic: float


TOLERANCES = {
    "f32": Tolerance(element=2e-5, relative=1e-4, product=1e-6, statistic=1e-5),
    "bf16": Tolerance(element=1.6e-2, relative=1e-4, product=1e-6, statistic=1e-5),
}
# Two evaluations in f64 that differ in the order of their sums.
F64 = Tolerance(element=1e-12, relative=1e-11, product=1e-13, statistic=1e-11)


class Disagreement(Exception):
    """An output is not what it has to be."""


def norm(values: Tensor) -> Tensor:
    """Of the finite elements, by seed."""
    known = torch.where(torch.isfinite(values), values, 0.0)
    return (known * known).sum((0, 2)).sqrt()


class Judge:
    """Compares, and keeps the largest error over its bound."""

    def __init__(self, tolerance: Tolerance) -> None:
        self.tolerance = tolerance
        self.worst = 0.0

    def within(self, what: str, found: Tensor, expected: Tensor, bound: Tensor | float) -> None:
        """Fails unless every |found − expected| ≤ bound; NaN and infinities have to be met exactly."""
        if found.shape != expected.shape:
            raise Disagreement(f"{what} is {list(found.shape)}, not {list(expected.shape)}")
        same = (found == expected) | (found.isnan() & expected.isnan())
        error = torch.where(same, 0.0, (found - expected).abs())
        limit = torch.where(expected.isfinite(), bound, 0.0)
        ratio = torch.where(error == 0.0, 0.0, error / limit).nan_to_num(nan=torch.inf, posinf=torch.inf)
        largest = ratio.max().item()
        if largest > 1.0:
            place = tuple(int(i) for i in torch.unravel_index(ratio.argmax(), ratio.shape))
            a, e = found[place].item(), expected[place].item()
            raise Disagreement(
                f"{what}{list(place)} is {a:.9g}, not {e:.9g} ± {torch.as_tensor(limit)[place].item():.3g}"
            )
        self.worst = max(self.worst, largest)

    def elements(self, what: str, found: Tensor, expected: Tensor, chunk: int) -> None:
        """A matrix; places are [row, seed, column in the chunk]."""
        found, expected = by_seed(found, chunk), by_seed(expected, chunk)
        rms = norm(expected) / expected.isfinite().sum((0, 2)).clamp(min=1).sqrt()
        bound = self.tolerance.element * (expected.abs() + rms[:, None])
        self.within(what, found, expected, bound)

    def copies(self, what: str, found: Tensor, source: Tensor) -> None:
        """A matrix that must be equal to the bit."""
        words = {2: torch.int16, 4: torch.int32}[source.element_size()]
        if found.dtype != source.dtype or not torch.equal(found.view(words), source.view(words)):
            raise Disagreement(f"{what} is no copy of its source")

    def vectors(self, what: str, found: Tensor, expected: Tensor, product: Tensor) -> None:
        """A parameter's gradient, [seeds, length], judged by the norm of its error."""
        found, expected = found.detach().double(), expected.double()
        if found.shape != expected.shape:
            raise Disagreement(f"{what} is {list(found.shape)}, not {list(expected.shape)}")
        error = torch.linalg.vector_norm(found - expected, dim=1)
        bound = (
            self.tolerance.relative * torch.linalg.vector_norm(expected, dim=1)
            + self.tolerance.product * product
        )
        self.within(f"the error's norm of {what}", error, torch.zeros_like(error), bound)

    def telemetry(self, found: Tensor, expected: Tensor) -> None:
        """[seeds, 7]."""
        for column, name in ((0, "n"), (3, "min"), (4, "max"), (5, "dead"), (6, "nonfinite")):
            self.within(name, found[:, column], expected[:, column], 0.0)
        mean, variance = expected[:, 1], expected[:, 2]
        t = self.tolerance.statistic
        self.within("mean", found[:, 1], mean, t * (mean.abs() + variance.sqrt()))
        self.within("variance", found[:, 2], variance, t * variance + VARIANCE_FLOOR)

    def gradient_statistics(self, found: Tensor, expected: Tensor) -> None:
        """[seeds, 3]."""
        for column, name in enumerate(("norm", "variance", "max|g|")):
            bound = self.tolerance.statistic * expected[:, column].abs() + VARIANCE_FLOOR
            self.within(f"gradient {name}", found[:, column], expected[:, column], bound)


def judge(tolerance: Tolerance, case: Case, pair: Pair, found: Outputs, expected: Outputs) -> float:
    """The largest error over its bound; raises Disagreement where one is above 1."""
    judged, chunk = Judge(tolerance), case.chunk
    if case.seeds == "dormant":
        judged.copies("y", found.y, pair.x)
    else:
        judged.elements("y", found.y, expected.y, chunk)
    judged.telemetry(found.telemetry.double(), expected.telemetry)
    if expected.backward is None:
        return judged.worst
    if found.backward is None:
        raise Disagreement("there are no gradients")
    product = norm(by_seed(pair.g, chunk)) * norm(sanitize(by_seed(pair.x, chunk))[0])
    judged.elements("grad_x", found.backward.x, expected.backward.x, chunk)
    for name, width in (("weight", chunk), ("scale", 1), ("alpha", 1)):
        a, e = (getattr(side.backward, name).view(-1, width) for side in (found, expected))
        judged.vectors(f"the gradient of {name}", a, e, product)
    judged.gradient_statistics(found.backward.statistics.double(), expected.backward.statistics)
    return judged.worst
