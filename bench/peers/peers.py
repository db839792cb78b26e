"""The peers: each is built for one case and its matrices, launches one pass, and tells what came out."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from inputs import Case, Pair, Parameters
from layer import Gradients, Layer, Statistics
from reference import Backward, Outputs

Forward = tuple[Tensor, Statistics]
Result = tuple[Forward, Gradients | None]


class Peer(abc.ABC):
    """One way to do the work of a case on any of `pairs`."""

    # What a reader has to know about how it was done.
    note: str | None = None

    @abc.abstractmethod
    def launch(self, turn: int) -> None:
        """Queues a pass on the pair whose turn it is."""

    @abc.abstractmethod
    def outputs(self, turn: int) -> Outputs:
        """What the last pass on the pair of that turn gave."""


def finished(case: Case, result: Result) -> Outputs:
    """What is compared, from what the layer in PyTorch returns."""
    (y, measured), gradients = result
    nothing = measured.n == 0
    columns = [
        measured.n,
        measured.mean,
        measured.m2 / measured.n,
        measured.low,
        measured.high,
        measured.dead,
    ]
    known = [
        c.double().masked_fill(nothing, torch.nan) if i in (3, 4) else c.double()
        for i, c in enumerate(columns)
    ]
    telemetry = torch.stack([*known, case.rows * case.chunk - known[0]], dim=1)
    backward = None
    if gradients is not None:
        n, mean, m2, largest = gradients.statistics.double()
        norm = (m2 + n * mean * mean).sqrt()
        statistics = torch.stack([norm, m2 / n, largest], dim=1)
        backward = Backward(gradients.x, gradients.weight, gradients.scale, gradients.alpha, statistics)
    return Outputs(y.detach(), telemetry, backward)


class Eager(Peer):
    """PyTorch's operations one after the other, or whatever `transform` makes of the layer."""

    def __init__(
        self,
        case: Case,
        pairs: Sequence[Pair],
        parameters: Parameters,
        layer: Layer,
        transform: Callable[[Callable[..., Forward]], Callable[..., Forward]] = lambda function: function,
    ) -> None:
        self.case, self.pairs = case, pairs
        self.parameters = parameters.leaves() if case.trains else parameters
        device = parameters.alpha.device
        self.slot = torch.zeros(4, case.seed_count, device=device, requires_grad=True)
        functions: dict[str, Callable[..., Forward]] = {
            "dormant": layer.dormant,
            "residual": layer.residual,
            "expansion-trains": layer.expansion,
        }
        self.function = transform(functions[case.seeds])
        # Each pair keeps its outputs until its next turn, so that outputs, too, lie elsewhere every time.
        self.results: list[Result | None] = [None] * len(pairs)

    def step(self, pair: Pair) -> Result:
        """One pass."""
        case, of = self.case, self.parameters
        if case.seeds == "dormant":
            with torch.no_grad():
                return self.function(pair.x), None
        if not case.trains:
            with torch.no_grad():
                return self.function(pair.x, of.weight, of.scale, of.alpha), None
        y, measured = self.function(pair.x, of.weight, of.scale, of.alpha, self.slot)
        leaves = (pair.x, of.weight, of.scale, of.alpha, self.slot)
        gradients = torch.autograd.grad(y, leaves, pair.g)
        return (y.detach(), measured), Gradients(*gradients)

    def launch(self, turn: int) -> None:
        at = turn % len(self.pairs)
        self.results[at] = self.step(self.pairs[at])

    def outputs(self, turn: int) -> Outputs:
        result = self.results[turn % len(self.pairs)]
        if result is None:
            raise RuntimeError("no pass was launched")
        return finished(self.case, result)


class Compiled(Eager):
    """Through `torch.compile`, for this shape alone and in one graph, so that nothing falls back to eager."""

    def __init__(self, case: Case, pairs: Sequence[Pair], parameters: Parameters, layer: Layer) -> None:
        torch.compiler.reset()

        def transform(function: Callable[..., Forward]) -> Callable[..., Forward]:
            return torch.compile(function, fullgraph=True, dynamic=False)

        super().__init__(case, pairs, parameters, layer, transform)


class CompiledGraphs(Peer):
    """The compiled layer, captured in a CUDA graph for each pair."""

    def __init__(self, compiled: Compiled) -> None:
        self.compiled = compiled
        # Capture needs a stream of its own, and on it what is made at a first launch must be there.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for pair in compiled.pairs:
                compiled.step(pair)
        torch.cuda.current_stream().wait_stream(stream)
        self.graphs, self.results = [], []
        for pair in compiled.pairs:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self.results.append(compiled.step(pair))
            self.graphs.append(graph)

    def launch(self, turn: int) -> None:
        self.graphs[turn % len(self.graphs)].replay()

    def outputs(self, turn: int) -> Outputs:
        return finished(self.compiled.case, self.results[turn % len(self.results)])


@dataclasses.dataclass(frozen=True)
class Buffers:
    """What one pass of the Triton kernels writes."""

    y: Tensor
    grad_x: Tensor
    # [rows, seeds, statistics], of every program.
    raw: Tensor
    raw_gradient: Tensor
    # Of weight[hidden], scale[seeds] and alpha[seeds], one after the other.
    gradients: Tensor

    @staticmethod
    def poisoned(case: Case, like: Tensor) -> Buffers:
        """Full of NaN, which nothing may leave there."""
        import rows_and_seeds as kernels

        def nan(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.full(shape, torch.nan, dtype=dtype, device=like.device)

        rows, hidden, seeds = case.rows, case.hidden, case.seed_count
        trains = int(case.trains)
        return Buffers(
            nan(rows, hidden, dtype=like.dtype),
            nan(rows * trains, hidden, dtype=like.dtype),
            nan(rows, seeds, kernels.TELEMETRY.value),
            nan(rows * trains, seeds, kernels.GRADIENT_TELEMETRY.value),
            nan(hidden + 2 * seeds),
        )


class RowsAndSeeds(Peer):
    """One Triton program for each row and seed."""

    def __init__(self, case: Case, pairs: Sequence[Pair], parameters: Parameters, warps: int) -> None:
        import triton

        import rows_and_seeds as kernels

        self.kernels = kernels
        self.case, self.pairs, self.parameters, self.warps = case, pairs, parameters, warps
        self.note = f"{warps} warp{'s' if warps > 1 else ''} a program"
        self.block = triton.next_power_of_2(case.chunk)
        kinds = {
            "dormant": kernels.DORMANT,
            "residual": kernels.RESIDUAL,
            "expansion-trains": kernels.EXPANSION,
        }
        self.kind = kinds[case.seeds].value
        self.buffers = [Buffers.poisoned(case, pair.x) for pair in pairs]

    def launch(self, turn: int) -> None:
        case, of = self.case, self.parameters
        at = turn % len(self.pairs)
        pair, to = self.pairs[at], self.buffers[at]
        grid, seeds = (case.rows * case.seed_count,), case.seed_count
        x = pair.x.detach()
        self.kernels.forward[grid](
            x, to.y, to.raw, of.weight, of.scale, of.alpha, seeds, case.chunk,
            KIND=self.kind, BLOCK=self.block, num_warps=self.warps,
        )  # fmt: skip
        if not case.trains:
            return
        to.gradients.zero_()
        weight, scale, alpha = self.gradients(to)
        self.kernels.backward_expansion[grid](
            x, pair.g, to.grad_x, to.raw_gradient, of.weight, of.scale, of.alpha,
            weight, scale, alpha, seeds, case.chunk, BLOCK=self.block, num_warps=self.warps,
        )  # fmt: skip

    def gradients(self, buffers: Buffers) -> tuple[Tensor, Tensor, Tensor]:
        """Of weight, scale and alpha."""
        seeds = self.case.seed_count
        weight, scale, alpha = buffers.gradients.split([self.case.hidden, seeds, seeds])
        return weight, scale, alpha

    def outputs(self, turn: int) -> Outputs:
        buffers = self.buffers[turn % len(self.buffers)]
        n, mean, m2 = merged(buffers.raw)
        low, high, dead = (
            buffers.raw[..., 3].amin(0),
            buffers.raw[..., 4].amax(0),
            buffers.raw[..., 5].double().sum(0),
        )
        measured = Statistics(n, mean, m2, low, high, dead)
        if not self.case.trains:
            return finished(self.case, ((buffers.y, measured), None))
        largest = buffers.raw_gradient[..., 3].amax(0).double()
        statistics = torch.stack([*merged(buffers.raw_gradient), largest])
        gradients = Gradients(buffers.grad_x, *self.gradients(buffers), statistics)
        return finished(self.case, ((buffers.y, measured), gradients))


def merged(raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """n, mean and M2 of each seed from those of each row and seed, in f64."""
    n, mean, m2 = raw[..., :3].double().unbind(-1)
    total = n.sum(0)
    middle = (n * mean).sum(0) / total
    return total, middle, m2.sum(0) + (n * (mean - middle) ** 2).sum(0)
