"""Initialise a larger network from a smaller, trained one: Net2Net (Chen, Goodfellow, Shlens 2016).

Wider layers contain copies of channels, and the next layer sums the copies with random weights (section 2.2):
the same function, whose copies diverge from the first step on. Additional residual blocks start with a zero
correction (section 2.3).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from .networks import ConvNeXtBlock, ResidualBlock


@torch.no_grad()
def grow(new: nn.Module, old: nn.Module, generator: torch.Generator) -> None:
    """Set the weights of a network so that it computes the function of a smaller one of the same design.

    Where channels before a normalisation have unequal numbers of copies, it does so only approximately.

    Args:
        new: the network to initialise; layers may be wider, runs of residual blocks longer.
        old: the trained network.
        generator: of the random weights of copies.

    Raises:
        ValueError: the new network is smaller somewhere, or of another design.
    """
    if isinstance(new, nn.Sequential):
        for inner, model in _pairs(new, cast("nn.Sequential", old)):
            if model is None:
                _start_without_correction(inner)
            else:
                grow(inner, model, generator)
        return
    if type(new) is not type(old):
        raise ValueError(f"{type(new).__name__} cannot start as {type(old).__name__}")
    known = dict(old.named_parameters(recurse=False)) | dict(old.named_buffers(recurse=False))
    for name, tensor in [*new.named_parameters(recurse=False), *new.named_buffers(recurse=False)]:
        tensor.copy_(_widened(known[name], tensor.shape, generator))
    children = dict(old.named_children())
    for name, inner in new.named_children():
        grow(inner, children[name], generator)


def _pairs(new: nn.Sequential, old: nn.Sequential) -> list[tuple[nn.Module, nn.Module | None]]:
    """Pair each layer with the layer to start from; None for additional layers."""
    waiting = list(old)
    pairs: list[tuple[nn.Module, nn.Module | None]] = []
    for layer in new:
        same = bool(waiting) and type(layer) is type(waiting[0])
        pairs.append((layer, waiting.pop(0) if same else None))
    if waiting:
        raise ValueError(f"{len(new)} layers cannot start as {len(old)}")
    return pairs


def _start_without_correction(layer: nn.Module) -> None:
    if isinstance(layer, ResidualBlock):
        last: nn.Module = layer.pointwise
    elif isinstance(layer, ConvNeXtBlock):
        last = layer.contract
    else:
        raise ValueError(f"{type(layer).__name__} cannot start without a correction")
    for parameter in last.parameters():
        nn.init.zeros_(parameter)


def _widened(tensor: Tensor, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Repeat rows (outputs) of a weight up to a shape; repeat columns (inputs) and split their weights."""
    if tensor.shape == shape:
        return tensor
    if tensor.ndim != len(shape) or any(a > b for a, b in zip(tensor.shape, shape, strict=True)):
        raise ValueError(f"{list(shape)} cannot start as {list(tensor.shape)}")
    tensor = tensor[torch.arange(shape[0]) % len(tensor)]
    if tensor.ndim > 1 and tensor.shape[1] != shape[1]:
        source = torch.arange(shape[1]) % tensor.shape[1]
        shares = 0.5 + torch.rand(shape[0], shape[1], generator=generator)
        sums = torch.zeros(shape[0], tensor.shape[1]).index_add_(1, source, shares)
        shares /= sums[:, source]
        tensor = tensor[:, source] * shares.view(*shares.shape, *[1] * (tensor.ndim - 2))
    return tensor
