"""Losses captured as CUDA graphs: thousands of small kernels, launched as one."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn


class Captured(nn.Module):
    """A method of a model that gives a loss, forward and backward a graph each, made at the first call.

    Kernels of small models take less time to run than to launch; a graph is launched at once. A graph is what
    the first call did, so the method must do the same work at every call and wait for nothing, and its inputs
    must keep their shapes. Tensors that the method leaves in the model hold those of the newest call.
    Elsewhere than on CUDA devices it is called as it is.

    Args:
        model: whose parameters get gradients.
        method: name of the method; it takes tensors and returns terms by name, of which "loss" alone is
            differentiated.
    """

    def __init__(self, model: nn.Module, method: str) -> None:
        super().__init__()
        self.model, self._method = model, method
        self._graphs: Any = None

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Call the method."""
        terms: dict[str, Tensor] = getattr(self.model, self._method)(*inputs)
        return {name: term if name == "loss" else term.detach() for name, term in terms.items()}

    def run(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Replay the graph, or make it."""
        if next(self.model.parameters()).device.type != "cuda":
            return self(*inputs)  # type: ignore[no-any-return]
        if self._graphs is None:
            static = tuple(tensor.clone() for tensor in inputs)
            # Gradients were first asked for on the stream of the capture, which is as well.
            warnings.filterwarnings("ignore", "The AccumulateGrad node's stream")
            self._graphs = torch.cuda.make_graphed_callables(self, static, allow_unused_input=True)
        return self._graphs(*inputs)  # type: ignore[no-any-return]
