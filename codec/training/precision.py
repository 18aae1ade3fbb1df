"""Mixed precision: products of the networks in bfloat16, everything else in float32.

Weights, their averages, gradients and the optimiser stay float32, and so do quantisers, priors and losses
(Micikevicius et al. 2018, "Mixed precision training"; bfloat16 needs no scaling of the loss).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def autocast(model: nn.Module, networks: tuple[str, ...], dtype: torch.dtype) -> None:
    """Let networks of a model compute in another type; their outputs are float32 again.

    Args:
        model: in training, on its device.
        networks: their names, each followed by a full stop; others are left alone.
        dtype: of products.
    """
    for name, module in model.named_children():
        if f"{name}." in networks:
            module.forward = _autocast(module.forward, dtype)


def _autocast(forward: Callable[..., Tensor], dtype: torch.dtype) -> Callable[..., Tensor]:
    def run(*inputs: Tensor) -> Tensor:
        # Without a cache of weights in this type: a captured graph would read freed memory.
        with torch.autocast(inputs[0].device.type, dtype, cache_enabled=False):
            return forward(*inputs).float()

    return run
