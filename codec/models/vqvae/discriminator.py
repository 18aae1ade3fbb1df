"""Discriminator between audio and reconstructions in the short-time Fourier domain, in training alone.

The multi-scale STFT discriminator of Defossez et al. 2022 ("EnCodec", section 3.4), with fewer channels.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ...metrics import spectra
from ..discriminators import HingeDiscriminator

WINDOWS = (256, 512, 1024)
CHANNELS = 12
SCALE = 16.0
"""Factor of the spectra that scales noise of the usual loudness, -26 dB, to about unit variance."""


class ScaleDiscriminator(nn.Module):
    """Discriminator at one scale: convolutions over real and imaginary parts of an STFT, dilated in time.

    Shapes: [B, 1, N] -> scores [B, 1, F', T], and the maps of all layers before.
    """

    def __init__(self, window: int, channels: int = CHANNELS) -> None:
        super().__init__()
        self.window = window
        widths = [2, channels, channels, channels, channels]
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, (9, 3), (2 if number else 1, 1), (4, dilation), (1, dilation))
            for number, ((a, b), dilation) in enumerate(zip(pairwise(widths), (1, 1, 2, 4), strict=True))
        )
        self.score = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, samples: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return scores, high for real audio, and feature maps."""
        spectrum = torch.view_as_real(spectra.stft(samples[:, 0], self.window))
        x = spectrum.permute(0, 3, 1, 2) * (SCALE / self.window**0.5)
        maps = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            maps.append(x)
        return self.score(x), maps


class STFTDiscriminator(HingeDiscriminator):
    """Multi-scale STFT discriminator: one network per scale."""

    def __init__(self) -> None:
        super().__init__(ScaleDiscriminator(window) for window in WINDOWS)
