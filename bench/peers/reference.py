"""The same in f64 from the formulas, the chain rule written out: what every peer is judged by.

It has the semantics of kasmina-oracle, and is itself judged by cases that the oracle made; see `oracle.py`.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from inputs import LIMIT, Case, Pair, Parameters
from layer import DEAD, EPSILON


@dataclasses.dataclass(frozen=True)
class Backward:
    """dL/dx[rows, hidden], dL/dw[hidden], dL/ds and dL/dα[seeds], and of dL/dy norm, variance and max|g|,
    [seeds, 3].
    """

    x: Tensor
    weight: Tensor
    scale: Tensor
    alpha: Tensor
    statistics: Tensor


@dataclasses.dataclass(frozen=True)
class Outputs:
    """y[rows, hidden], telemetry[seeds, 7] as n, mean, variance, min, max, dead and nonfinite, and what a
    backward pass gives.
    """

    y: Tensor
    telemetry: Tensor
    backward: Backward | None


def by_seed(matrix: Tensor, chunk: int) -> Tensor:
    """[rows, hidden] to f64 [rows, seeds, chunk]."""
    return matrix.detach().double().view(matrix.shape[0], -1, chunk)


def moments(values: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """n, mean and population variance of the finite elements by seed, in two passes, and which are finite."""
    finite = torch.isfinite(values)
    n = finite.sum((0, 2)).double()
    mean = torch.where(finite, values, 0.0).sum((0, 2)) / n
    deviation = torch.where(finite, values - mean[:, None], 0.0)
    rest = deviation.sum((0, 2))
    return n, mean, ((deviation * deviation).sum((0, 2)) - rest * rest / n) / n, finite


def telemetry(x: Tensor) -> Tensor:
    """[seeds, 7]."""
    n, mean, variance, finite = moments(x)
    nothing = n == 0
    low = torch.where(finite, x, torch.inf).amin((0, 2)).masked_fill(nothing, torch.nan)
    high = torch.where(finite, x, -torch.inf).amax((0, 2)).masked_fill(nothing, torch.nan)
    dead = (x.abs() <= DEAD).sum((0, 2)).double()
    return torch.stack([n, mean, variance, low, high, dead, x[:, 0].numel() - n], dim=1)


def gradient_statistics(g: Tensor) -> Tensor:
    """[seeds, 3]."""
    n, _, variance, finite = moments(g)
    known = torch.where(finite, g, 0.0)
    norm = (known * known).sum((0, 2)).sqrt()
    rows = torch.stack([norm, variance, known.abs().amax((0, 2))], dim=1)
    return rows.masked_fill((n == 0)[:, None], torch.nan)


def sanitize(x: Tensor) -> tuple[Tensor, Tensor]:
    """Guarded x, and where its gradient passes."""
    known = torch.where(torch.isnan(x), 0.0, x)
    flushed = torch.where(known.abs() < EPSILON, 0.0, known)
    value = flushed.clamp(-LIMIT, LIMIT)
    return value, torch.isfinite(x) & (value == flushed)


def evaluate(case: Case, pair: Pair, parameters: Parameters) -> Outputs:
    """What must come out."""
    x = by_seed(pair.x, case.chunk)
    measured = telemetry(x)
    if case.seeds == "dormant":
        return Outputs(pair.x.detach(), measured, None)
    w = parameters.weight.detach().double().view(-1, case.chunk)
    s, alpha = (p.detach().double()[:, None] for p in (parameters.scale, parameters.alpha))
    xs, passes = sanitize(x)
    if case.seeds == "residual":
        y = alpha * (xs + s * w) + (1.0 - alpha) * xs
        return Outputs(y.clamp(-LIMIT, LIMIT).view_as(pair.x), measured, None)

    g = by_seed(pair.g, case.chunk)
    z = xs * w
    on = z > 0.0
    transformed = torch.where(on, s * z, 0.0)
    y = alpha * transformed + (1.0 - alpha) * xs
    through = torch.where(y.abs() <= LIMIT, g, 0.0)
    branch = torch.where(on, alpha * through, 0.0)
    grad_x = torch.where(passes, branch * s * w + (1.0 - alpha) * through, 0.0)
    backward = Backward(
        x=grad_x.view_as(pair.x),
        weight=(s * (branch * xs).sum(0)).view(-1),
        scale=torch.where(on, branch * z, 0.0).sum((0, 2)),
        alpha=(through * (transformed - xs)).sum((0, 2)),
        statistics=gradient_statistics(g),
    )
    return Outputs(y.clamp(-LIMIT, LIMIT).view_as(pair.x), measured, backward)
