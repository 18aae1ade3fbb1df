"""The state of a training, exactly, in safetensors: weights, averages, optimisers, progress."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as pack
from torch import Tensor, nn

from ..errors import TrainingError, UsageError
from ..files import atomically


@dataclass
class TrainState:
    """Where a training stands.

    Attributes:
        step: optimiser steps done.
        elapsed_seconds: time spent, earlier parts of a resumed run included.
        best_score: validation figure of the weights kept, the best so far or the newest; larger is better.
        best_step: the step that it was measured at.
        restarted: codes revived so far.
    """

    step: int = 0
    elapsed_seconds: float = 0.0
    best_score: float = float("-inf")
    best_step: int = 0
    restarted: int = 0


def save(
    folder: Path,
    modules: Mapping[str, nn.Module],
    optimisers: Mapping[str, torch.optim.Optimizer],
    state: TrainState,
    keep: int,
) -> None:
    """Write the checkpoint of this step, complete or not at all, and delete all but the last `keep`."""
    tensors = {f"{name}/{k}": v for name, module in modules.items() for k, v in module.state_dict().items()}
    for name, optimiser in optimisers.items():
        for index, moments in optimiser.state_dict()["state"].items():
            tensors |= {f"{name}/{index}/{k}": torch.as_tensor(v) for k, v in moments.items()}
    packed = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomically(folder / f"step-{state.step:09d}.safetensors") as file:
        file.write(pack(packed, {"clock": json.dumps(asdict(state))}))
    for old in _written(folder)[: -max(keep, 1)]:
        old.unlink()


def restore(
    path: Path,
    modules: Mapping[str, nn.Module],
    optimisers: Mapping[str, torch.optim.Optimizer],
) -> TrainState:
    """Read a checkpoint back into these objects.

    Raises:
        TrainingError: the file is damaged or belongs to other settings.
    """
    try:
        with safe_open(path, framework="pt") as file:
            state = TrainState(**json.loads(file.metadata()["clock"]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        for name, module in modules.items():
            module.load_state_dict(_below(tensors, f"{name}/"))
        for name, optimiser in optimisers.items():
            parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
            moments: dict[int, dict[str, Tensor]] = {}
            for place, tensor in _below(tensors, f"{name}/").items():
                index, _, key = place.partition("/")
                moments.setdefault(int(index), {})[key] = _laid_out_as(parameters[int(index)], tensor)
            optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise TrainingError(
            f"{path}: checkpoint does not fit this run", "delete it to use the one before"
        ) from error
    return state


def newest(folder: Path) -> Path:
    """The last checkpoint in a folder.

    Raises:
        UsageError: there is none.
    """
    found = _written(folder)
    if not found:
        raise UsageError(f"{folder}: no checkpoint to resume from", "start a new run")
    return found[-1]


def step_of(path: Path) -> int:
    """The step that a checkpoint's name tells."""
    return int(path.stem.removeprefix("step-"))


def _written(folder: Path) -> list[Path]:
    """The checkpoints in a folder, by step."""
    return sorted(folder.glob("step-*.safetensors"))


def _laid_out_as(parameter: Tensor, tensor: Tensor) -> Tensor:
    """The same values in the parameter's order in memory: fused optimisers pair elements by their place."""
    if tensor.shape != parameter.shape:
        return tensor
    return torch.empty_like(parameter, dtype=tensor.dtype, device=tensor.device).copy_(tensor)


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
