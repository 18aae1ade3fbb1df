"""The later levels of `residual`: their bands, their lapped transform, the network after its inverse."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ..networks import ConvNeXtBlock, start_at_zero

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

WINDOW = 256
"""Of the spectra that the refiner reads and changes, in samples; their hop is HOP."""


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


class Refiner(nn.Module):
    """A correction of decoded audio, given that of level 1: a complex factor for each point of its spectrum.

    It starts without effect. Shapes: [B, 1, N], [B, 1, N] -> [B, 1, N].
    """

    window: Tensor

    def __init__(self, width: int, hidden: int, blocks: int) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)
        bins = WINDOW // 2 + 1
        self.read = nn.Linear(4 * bins, width)
        self.blocks = nn.Sequential(*(ConvNeXtBlock(width, hidden) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width)
        self.factor = nn.Linear(width, 2 * bins)
        start_at_zero(self.factor)

    def forward(self, decoded: Tensor, first: Tensor) -> Tensor:
        """Correct `decoded`, whose level 1 alone is `first`."""
        spectrum, before = (self._spectra(x.float()[:, 0]) for x in (decoded, first))
        phase = spectrum / (spectrum.abs() + 1e-4) * before.conj() / (before.abs() + 1e-4)
        seen = [(s.abs() + 1e-4).log() for s in (spectrum, before)]
        x = self.read(torch.cat((*seen, phase.real, phase.imag), 2))
        x = self.norm(self.blocks(x.transpose(1, 2)).transpose(1, 2))
        real, imaginary = self.factor(x).float().chunk(2, 2)
        spectrum = spectrum * torch.complex(1 + real, imaginary)
        corrected = torch.istft(
            spectrum.transpose(1, 2), WINDOW, HOP, window=self.window, length=decoded.shape[2]
        )
        return corrected[:, None]

    def _spectra(self, samples: Tensor) -> Tensor:
        """[B, N] -> complex [B, N / HOP + 1, bins]."""
        found = torch.stft(samples, WINDOW, HOP, window=self.window, pad_mode="constant", return_complex=True)
        return found.transpose(1, 2)
