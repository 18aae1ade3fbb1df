"""Losses captured as CUDA graphs: thousands of small kernels, launched as one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Captured(nn.Module):
    """A method of a model that gives a loss; on a CUDA device, forward and backward are a graph each.

    Kernels of small models take less time to run than to launch; a graph is launched at once. A graph repeats
    what the method did when it was captured, so the method must do the same work at every call, wait for
    nothing, and read no memory that anyone frees; its inputs keep their shapes, and the model stays in
    training mode. Tensors that the method leaves in the model hold those of the newest call.

    Args:
        model: whose parameters get gradients.
        method: name of the method; it takes tensors and returns terms by name, of which "loss" alone is
            differentiated.
    """

    def __init__(self, model: nn.Module, method: str) -> None:
        super().__init__()
        self.model, self._method = model, method
        self._ready = False

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Call the method."""
        terms: dict[str, Tensor] = getattr(self.model, self._method)(*inputs)
        return {name: term if name == "loss" else term.detach() for name, term in terms.items()}

    def prepare(self, *inputs: Tensor) -> None:
        """Capture the graphs, if there are none: a few calls, whose random numbers are lost.

        Graphs belong to the current device; on another one, and on the CPU, the method is called as it is.
        """
        if not self._ready and _on_current_device(self._device):
            static = tuple(tensor.clone() for tensor in inputs)
            with _quick_products(self._device):
                torch.cuda.make_graphed_callables(self, static, allow_unused_input=True)
        self._ready = True

    def run(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Call the method, or replay what was captured, forward and backward; the terms without gradients."""
        with warnings.catch_warnings(), _quick_products(self._device):
            # Parameters were first used on the stream of the capture. PyTorch warns of it, and waits for it.
            warnings.filterwarnings("ignore", "The AccumulateGrad node's stream")
            terms: dict[str, Tensor] = self(*inputs)
            terms["loss"].backward()  # type: ignore[no-untyped-call]
        return {name: term.detach() for name, term in terms.items()}

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
