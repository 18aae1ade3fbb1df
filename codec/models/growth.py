"""A larger network that begins as a smaller, trained one: Net2Net (Chen, Goodfellow, Shlens 2016).

Wider layers hold each channel several times over, and what reads them adds the copies up by random shares
(section 2.2): the same function, whose copies part ways with the first step. Further residual blocks begin as
no correction (section 2.3).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from .networks import ConvNeXtBlock, ResidualBlock


@torch.no_grad()
def grow(new: nn.Module, old: nn.Module, generator: torch.Generator) -> None:
    """Set the weights of a network so that it does what a smaller one of the same design does.

    Where channels in front of a normalisation do not all have equally many copies, it does so only nearly.

    Args:
        new: the network to set; layers may be wider, runs of residual blocks longer.
        old: the trained one.
        generator: for the shares.

    Raises:
        ValueError: the new network is smaller somewhere, or of another design.
    """
    if isinstance(new, nn.Sequential):
        for inner, model in _pairs(new, cast("nn.Sequential", old)):
            if model is None:
                _begin_as_nothing(inner)
            else:
                grow(inner, model, generator)
        return
    if type(new) is not type(old):
        raise ValueError(f"{type(new).__name__} cannot begin as {type(old).__name__}")
    known = dict(old.named_parameters(recurse=False)) | dict(old.named_buffers(recurse=False))
    for name, tensor in [*new.named_parameters(recurse=False), *new.named_buffers(recurse=False)]:
        tensor.copy_(_widened(known[name], tensor.shape, generator))
    children = dict(old.named_children())
    for name, inner in new.named_children():
        grow(inner, children[name], generator)


def _pairs(new: nn.Sequential, old: nn.Sequential) -> list[tuple[nn.Module, nn.Module | None]]:
    """Each layer with the one that it begins as; None for those that are more."""
    waiting = list(old)
    pairs: list[tuple[nn.Module, nn.Module | None]] = []
    for layer in new:
        same = bool(waiting) and type(layer) is type(waiting[0])
        pairs.append((layer, waiting.pop(0) if same else None))
    if waiting:
        raise ValueError(f"{len(new)} layers cannot begin as {len(old)}")
    return pairs


def _begin_as_nothing(layer: nn.Module) -> None:
    if isinstance(layer, ResidualBlock):
        last: nn.Module = layer.pointwise
    elif isinstance(layer, ConvNeXtBlock):
        last = layer.contract
    else:
        raise ValueError(f"{type(layer).__name__} cannot begin as nothing")
    for parameter in last.parameters():
        nn.init.zeros_(parameter)


def _widened(tensor: Tensor, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Rows (outputs) of a weight repeated up to a shape, columns (inputs) repeated and shared out."""
    if tensor.shape == shape:
        return tensor
    if tensor.ndim != len(shape) or any(a > b for a, b in zip(tensor.shape, shape, strict=True)):
        raise ValueError(f"{list(shape)} cannot begin as {list(tensor.shape)}")
    tensor = tensor[torch.arange(shape[0]) % len(tensor)]
    if tensor.ndim > 1 and tensor.shape[1] != shape[1]:
        source = torch.arange(shape[1]) % tensor.shape[1]
        shares = 0.5 + torch.rand(shape[0], shape[1], generator=generator)
        sums = torch.zeros(shape[0], tensor.shape[1]).index_add_(1, source, shares)
        shares /= sums[:, source]
        tensor = tensor[:, source] * shares.view(*shares.shape, *[1] * (tensor.ndim - 2))
    return tensor
