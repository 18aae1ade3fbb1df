"""Building blocks of the networks; every model is put together from these."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """x + 1x1(ReLU(3x3(ReLU(x)))), the residual block of van den Oord et al. 2017, section 4.1.

    Shapes: [B, C, H, W] -> the same.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(channels, hidden, 3, padding=1)
        self.pointwise = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Add the block's correction to x."""
        residual: Tensor = self.pointwise(torch.relu(self.spatial(torch.relu(x))))
        return x + residual


def residual_stack(channels: int, hidden: int, depth: int) -> nn.Sequential:
    """`depth` residual blocks in a row, [B, C, H, W] -> the same; receptive field 2 * depth + 1."""
    return nn.Sequential(*(ResidualBlock(channels, hidden) for _ in range(depth)))


def start_at_zero(layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Zero a layer's weights and bias, so that the network it ends begins as no correction at all."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
