"""Losses captured as CUDA graphs: thousands of small kernels, launched as one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..models.base import LossStep

PARTS = ("terms", "symbols", "kept")
"""Fields of a `LossStep` that hold tensors by name."""


class CUDAGraphed(nn.Module):
    """A function of a model that gives a loss; on a CUDA device, forward and backward are a graph each.

    Kernels of small models take less time to run than to launch; a graph is launched at once. A graph repeats
    what the function did when it was captured, so the function must do the same work at every call, wait for
    nothing, and read no memory that anyone frees; its inputs keep their shapes, and the model stays in
    training mode. What it gave holds until the next call.

    Args:
        model: whose parameters get gradients.
        function: takes tensors.
    """

    def __init__(self, model: nn.Module, function: Callable[..., LossStep]) -> None:
        super().__init__()
        self.model, self._function = model, function
        self._ready = False

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Call the function; graphs give tensors by name, so a `LossStep` is taken apart."""
        step = self._function(*inputs)
        tensors = {f"{part}/{name}": t for part in PARTS for name, t in getattr(step, part).items()}
        return {"loss": step.loss, **{name: tensor.detach() for name, tensor in tensors.items()}}

    def prepare(self, *inputs: Tensor) -> None:
        """Capture the graphs, if there are none: a few calls, whose random numbers are lost.

        Graphs belong to the current device; on another one, and on the CPU, the function is called as it is.
        """
        if not self._ready and _on_current_device(self._device):
            static = tuple(tensor.clone() for tensor in inputs)
            with _quick_products(self._device):
                torch.cuda.make_graphed_callables(self, static, allow_unused_input=True)
        self._ready = True

    def run(self, *inputs: Tensor) -> LossStep:
        """Call the function, or replay what was captured, forward and backward; nothing has gradients."""
        with warnings.catch_warnings(), _quick_products(self._device):
            # Parameters were first used on the stream of the capture. PyTorch warns of it, and waits for it.
            warnings.filterwarnings("ignore", "The AccumulateGrad node's stream")
            tensors: dict[str, Tensor] = self(*inputs)
            tensors["loss"].backward()  # type: ignore[no-untyped-call]
        parts: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
        for key, tensor in tensors.items():
            part, _, name = key.partition("/")
            if name:
                parts[part][name] = tensor.detach()
        return LossStep(tensors["loss"].detach(), **parts)

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device


def _on_current_device(device: torch.device) -> bool:
    return device.type == "cuda" and device.index == torch.cuda.current_device()


@contextmanager
def _quick_products(device: torch.device) -> Iterator[None]:
    """On CUDA devices, products of which 11 bits of both factors count (TF32)."""
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
