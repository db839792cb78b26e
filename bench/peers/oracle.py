"""Cases of the format `kasmina-case/1` that kasmina-oracle made, which the f64 evaluation has to agree
with.
"""

from __future__ import annotations

import json
import pathlib
from typing import Any

import torch
from torch import Tensor

import agreement
import reference
from inputs import Case, Pair, Parameters
from reference import Backward, Outputs

FORMAT = "kasmina-case/1"
STORAGE = {"F32": torch.float32, "F64": torch.float64, "BF16": torch.bfloat16, "U8": torch.uint8}
NAMES = {torch.float32: "f32", torch.bfloat16: "bf16"}
DORMANT, GRAFTING, FOSSILIZED = 0, 3, 7
# (blueprint, state) of all seeds of a case, and the case that this is.
PASSES = {
    ("none", DORMANT): ("forward-telemetry", "dormant"),
    ("residual", FOSSILIZED): ("forward-telemetry", "residual"),
    ("mlp_expansion", GRAFTING): ("forward-backward", "expansion-trains"),
}


def read(path: pathlib.Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The metadata and the tensors of a safetensors file."""
    data = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8:start])
    metadata: dict[str, str] = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        dtype = STORAGE[entry["dtype"]]
        # A slice of its own, because its place in the file need not be aligned.
        flat = torch.frombuffer(data[start + first : start + last], dtype=dtype)
        tensors[name] = flat.view(entry["shape"])
    return metadata, tensors


def check(path: pathlib.Path, device: torch.device) -> None:
    """Fails unless the f64 evaluation gives what the file expects."""
    metadata, tensors = read(path)
    if metadata["format"] != FORMAT:
        raise ValueError(f"{path} has format {metadata['format']}, not {FORMAT}")
    tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
    (kind,) = {entry["kind"] for entry in json.loads(metadata["seeds"])}
    (state,) = set(tensors["state"].tolist())
    work, seeds = PASSES[kind, state]
    rows, hidden = tensors["x"].shape
    case = Case(work, seeds, int(metadata["chunk"]), rows, hidden, NAMES[tensors["x"].dtype])

    def joined(name: str) -> Tensor:
        parts = [tensors[name.format(seed)].reshape(-1) for seed in range(case.seed_count)]
        return torch.cat(parts)

    nothing = torch.empty(0, device=device)
    parameters = Parameters(nothing, nothing, tensors["alpha"])
    if seeds != "dormant":
        parameters = Parameters(joined("seed{}.weight"), joined("seed{}.scale"), tensors["alpha"])
    backward = None
    if case.trains:
        weight, scale, alpha = (
            joined(f"expect.grad.seed{{}}.{name}") for name in ("weight", "scale", "alpha")
        )
        statistics = tensors["expect.grad_stats"]
        backward = Backward(tensors["expect.grad_x"], weight, scale, alpha, statistics)
    expected = Outputs(tensors["expect.y"], tensors["expect.telemetry"], backward)
    pair = Pair(tensors["x"], tensors["grad_y"])
    found = reference.evaluate(case, pair, parameters)
    agreement.judge(agreement.F64, case, pair, found, expected)
