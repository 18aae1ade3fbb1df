"""The later levels of `residual`: their bands, and their lapped transform."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

HOP = 64
"""Samples per code of each level."""

BANDS = ((0, 6, 14, 26, 44), (0, 8, 20, 38, 64), (0, 8, 20, 40, 80))
"""Ends of the bands of levels 2 and on, in coefficients of 31.25 Hz."""

LEVELS = 1 + len(BANDS)
"""Number of levels."""

NAMES = tuple(f"level{number}" for number in range(1, LEVELS + 1))
"""Planes, in the order of coding."""

PARTS = len(BANDS[0]) - 1
"""Codes for a block of each later level: one for each band."""

MISSING = -1
"""In place of a code that is not known: its vector is zero."""

QUIET = 1e-7
"""Added to the squares of an envelope, so that silence has one."""


class LappedTransform(nn.Module):
    """The lowest coefficients of an MDCT with a sine window (Princen, Bradley 1986), orthonormal.

    Shapes: samples [B, 1, N], N a multiple of `hop` -> coefficients [B, count, N / hop] -> samples.
    """

    basis: Tensor

    def __init__(self, hop: int, count: int) -> None:
        super().__init__()
        self.hop = hop
        n, k = (
            torch.arange(2 * hop, dtype=torch.float64) + 0.5,
            torch.arange(count, dtype=torch.float64) + 0.5,
        )
        waves = (math.pi / hop * k[:, None] * (n + hop / 2)).cos() * (math.pi * n / (2 * hop)).sin()
        self.register_buffer("basis", (waves * (2 / hop) ** 0.5).float()[:, None], persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        """Transform samples."""
        return F.conv1d(F.pad(samples, (self.hop // 2, self.hop // 2)), self.basis, stride=self.hop)

    def inverse(self, coefficients: Tensor) -> Tensor:
        """Overlap and add, the inverse of `forward` where all coefficients are kept."""
        half = self.hop // 2
        return F.conv_transpose1d(coefficients, self.basis, stride=self.hop)[:, :, half:-half]

    def envelope(self, samples: Tensor) -> Tensor:
        """Return the square root of the RMS of 3 x 3 coefficients, [B, count, N / hop].

        Divided by it, loud coefficients stay louder than others: as in hearing, by half in decibels.
        """
        squares = F.pad(self(samples).square()[:, None], (1, 1, 1, 1), mode="replicate")
        return (F.avg_pool2d(squares, 3, 1)[:, 0] + QUIET) ** 0.25
