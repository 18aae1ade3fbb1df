"""Weights between those that a training starts from and those that it comes to."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def interpolate(model: nn.Module, start: nn.Module | None, share: float) -> None:
    """Move parameters back towards their start (WiSE-FT: Wortsman et al. 2022, section 3).

    Args:
        model: its parameters become (1 - share) trained + share start; what else it has stays.
        start: the same model as its training began, with all that a linear start or a fit gave it; None:
            nothing changes.
        share: 0 to 1.
    """
    if start is not None:
        for parameter, before in zip(model.parameters(), start.parameters(), strict=True):
            parameter.lerp_(before, share)
