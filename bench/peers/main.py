"""Times PyTorch and Triton at the work of `cargo xtask bench`, in JSON lines on standard output; progress
goes to standard error. Nothing is timed before its outputs were compared with an evaluation in f64.

    python3 main.py [--device cuda:0] [--repetitions 31] [--case JSON]... [--oracle FILE]...
    python3 main.py --device cpu                  # without Triton and graphs
    python3 main.py --device cpu --check-only     # compares only; Triton kernels run in its interpreter
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import platform
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    import torch

    from inputs import Case, Pair, Parameters
    from peers import Peer

    Build = Callable[[], Peer]

REASON_LENGTH = 400
# Warps of a Triton program: a block of up to 512 has no use for more.
WARPS = (1, 2, 4)
QUICK = [
    dict(work="forward-telemetry", seeds="dormant"),
    dict(work="forward-telemetry", seeds="residual"),
    dict(work="forward-backward", seeds="expansion-trains"),
]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def reason(error: BaseException) -> str:
    """One line of an error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text[:REASON_LENGTH]


class Answers:
    """JSON lines to the standard output that there was at the beginning; what libraries print there from then
    on goes to standard error.
    """

    def __init__(self) -> None:
        self.out: TextIO = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def send(self, kind: str, **values: Any) -> None:
        print(json.dumps({"kind": kind, **values}), file=self.out, flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda:0", help="cuda:N, or cpu")
    parser.add_argument("--repetitions", type=int, default=31, help="times of each peer")
    parser.add_argument(
        "--case", action="append", metavar="JSON", help="a case as the bench writes it; may be given again"
    )
    parser.add_argument(
        "--oracle",
        action="append",
        type=pathlib.Path,
        default=[],
        metavar="FILE",
        help="a case of kasmina-oracle",
    )
    parser.add_argument(
        "--cache", type=int, default=256 << 20, metavar="BYTES", help="of a processor, to keep it cold"
    )
    parser.add_argument("--threads", type=int, help="of a processor [default: PyTorch's]")
    parser.add_argument("--check-only", action="store_true", help="compare, and time nothing")
    args = parser.parse_args()
    if args.repetitions < 1:
        parser.error("--repetitions must be at least 1")
    if args.case is None:
        if args.check_only and args.device == "cpu":
            shape, dtypes = dict(rows=45, hidden=72, chunk=24), ("f32", "bf16")
        else:
            side = 4096 if args.device == "cpu" else 8192
            shape, dtypes = dict(rows=side, hidden=side, chunk=64), ("f32",)
        args.case = [json.dumps({**shape, **work, "dtype": dtype}) for dtype in dtypes for work in QUICK]
    return args


def builders(
    case: Case, pairs: list[Pair], parameters: Parameters, on_gpu: bool, timed: bool
) -> Iterator[tuple[str, list[Build]]]:
    """The peers by name, each with the variants of which the fastest counts."""
    import layer
    import peers

    by_seed, by_column = layer.BySeed(case.chunk), layer.ByColumn(case.chunk)
    yield "eager", [lambda: peers.Eager(case, pairs, parameters, by_seed)]
    yield "compiled", [lambda: peers.Compiled(case, pairs, parameters, by_seed)]
    compiled: list[peers.Compiled] = []

    def compile_once() -> peers.Compiled:
        if not compiled:
            compiled.append(peers.Compiled(case, pairs, parameters, by_column))
        return compiled[0]

    yield "compiled-columns", [compile_once]
    if on_gpu:
        yield "compiled-graphs", [lambda: peers.CompiledGraphs(compile_once())]

    if timed and not on_gpu:
        # There Triton is but an interpreter.
        return

    def triton(warps: int) -> Build:
        return lambda: peers.RowsAndSeeds(case, pairs, parameters, warps)

    yield "triton", [triton(warps) for warps in (WARPS if on_gpu else WARPS[:1])]


def measure(
    case: Case, device: torch.device, repetitions: int | None, cache: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The outcome of each peer; without repetitions nothing is timed."""
    import torch

    import agreement
    import clock
    import reference
    from inputs import Pair, Parameters, hostile

    on_gpu = device.type == "cuda"
    timed = repetitions is not None
    number = clock.count(case.matrix_bytes, device, cache) if timed or on_gpu else clock.Count(1, False)
    pairs = [Pair.draw(case, device, i) for i in range(number.sets)]
    clean, checked = Pair.draw(case, device, 0), hostile(case, device)
    parameters = Parameters.draw(case, device)
    tolerance = agreement.TOLERANCES[case.dtype]

    def one(build: Build) -> tuple[float, dict[str, Any]]:
        started = time.monotonic()
        pairs[0].load(checked)
        peer = build()
        peer.launch(0)
        expected = reference.evaluate(case, checked, parameters)
        worst = agreement.judge(tolerance, case, checked, peer.outputs(0), expected)
        built = time.monotonic() - started
        if repetitions is None:
            say(f"  agrees, worst error {worst:.3f} of its bound, {built:.1f} s")
            return 0.0, {"worst_error": worst}
        pairs[0].load(clean)
        del expected
        timing = clock.time(peer.launch, repetitions, device)
        say(f"  {1e3 * timing.median:.2f} µs, worst error {worst:.3f} of its bound, ready in {built:.1f} s")
        times = {"milliseconds": timing.milliseconds, "launches": timing.launches}
        about = {"sets": number.sets, "cold_cache": number.cold, "note": peer.note}
        return timing.median, {"timing": times, "worst_error": worst, **about}

    for name, variants in builders(case, pairs, parameters, on_gpu, timed):
        say(f"{case}: {name}")
        try:
            _, fastest = min((one(build) for build in variants), key=lambda outcome: outcome[0])
            yield name, {"Ok": fastest}
        except Exception as error:  # Whatever a compiler or a library throws is that peer's outcome.
            say(f"  failed: {error}")
            yield name, {"Err": reason(error)}
        if on_gpu:
            torch.cuda.empty_cache()


def main() -> int:
    args = arguments()
    answers = Answers()
    if args.device == "cpu":
        # Before Triton is imported: its kernels then run as Python does.
        os.environ["TRITON_INTERPRET"] = "1"
    try:
        import torch
    except ImportError as error:
        answers.send("unavailable", why=f"{sys.executable} has no PyTorch: {reason(error)}")
        return 2
    try:
        import triton
    except ImportError:
        triton = None
    device = torch.device(args.device)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            answers.send("unavailable", why=f"PyTorch {torch.__version__} finds no CUDA device")
            return 2
        torch.cuda.set_device(device)
    import oracle
    from inputs import Case

    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.processor() or platform.machine()
    )
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": getattr(triton, "__version__", None),
    }
    answers.send("found", device=name, **versions)
    say(f"Python {versions['python']}, PyTorch {versions['torch']}, Triton {versions['triton']}, {name}")
    for path in args.oracle:
        try:
            oracle.check(path, device)
        except Exception as error:  # Without a reference nothing can be compared.
            answers.send(
                "unavailable",
                why=f"the f64 evaluation does not give what the oracle expects, {path.name}: {reason(error)}",
            )
            return 1
    failed = False
    for index, text in enumerate(args.case):
        try:
            case = Case.parse(text)
            repetitions = None if args.check_only else args.repetitions
            for peer, outcome in measure(case, device, repetitions, args.cache):
                failed |= "Err" in outcome
                answers.send("row", case=index, peer=peer, outcome=outcome)
        except Exception as error:
            failed = True
            say(f"{text}: {error}")
            answers.send("case-failed", case=index, why=reason(error))
    answers.send("done")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
