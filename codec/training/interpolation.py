"""Weights between those that a training starts from and those that it comes to."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..errors import UsageError


@torch.no_grad()
def interpolate(model: nn.Module, start: Mapping[str, Tensor], share: float) -> None:
    """Move weights back towards their start (WiSE-FT: Wortsman et al. 2022, "Robust fine-tuning", section 3).

    Args:
        model: its parameters become (1 - share) trained + share start.
        start: parameters of the start by name; those of other names and sizes count for nothing.
        share: 0 to 1.

    Raises:
        UsageError: the start has no weights of this model.
    """
    if not share:
        return
    known = [
        (parameter, start[name].to(parameter))
        for name, parameter in model.named_parameters()
        if name in start and start[name].shape == parameter.shape
    ]
    if not known:
        raise UsageError("start_weight without weights to start from", "add --from NAME, of the same model")
    for parameter, before in known:
        parameter.lerp_(before, share)
