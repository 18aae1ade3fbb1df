"""Discriminators between audio and reconstructions, in training alone.

The multi-scale STFT discriminator of Defossez et al. 2022 ("EnCodec", section 3.4) and the multi-period
discriminator of Kong, Kim, Bae 2020 ("HiFi-GAN", section 2.3), both with fewer channels. Kumar et al. 2023
("DAC", section 3.4) train a codec with both.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ...metrics import spectra
from ..discriminators import HingeDiscriminator

WINDOWS = (256, 512, 1024)
CHANNELS = 12
SCALE = 16.0
"""Factor of the spectra that scales noise of the usual loudness, -26 dB, to about unit variance."""

PERIODS = (2, 3, 5, 7, 11)
"""Of the `PeriodDiscriminator`s, in samples: prime, so that what they see overlaps little."""

PERIOD_CHANNELS = (1, 16, 32, 64, 128)
"""Channels of the maps of a `PeriodDiscriminator`: of the samples, and after each convolution."""

EMPHASIS = 0.9
"""Pre-emphasis of samples, x[n] - 0.9 x[n - 1]: without it a `PeriodDiscriminator` learns far more slowly,
since what differs is in the high frequencies, where speech has the least energy."""

SAMPLE_SCALE = 50.0
"""Factor of samples after pre-emphasis that scales speech of the usual loudness to about unit variance."""

Critics = Literal["stft", "period", "both"]
"""Which networks judge audio: `ScaleDiscriminator`s, `PeriodDiscriminator`s, or both."""


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


class PeriodDiscriminator(nn.Module):
    """Discriminator of one period p: convolutions over samples that are p apart.

    Samples become rows of p, so that samples one period apart are neighbours in a column. Kernels are one
    column wide: each of the p phases is judged by itself, with the same weights. Of the paper's network the
    convolution of stride 1 before the scores is left out, and weight normalisation.

    Shapes: [B, 1, N] -> rows [B, 1, N / p, p] -> scores [B, 1, T, p], and the maps of all layers before.
    """

    def __init__(self, period: int) -> None:
        super().__init__()
        self.period = period
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, (5, 1), (3, 1), (2, 0)) for a, b in pairwise(PERIOD_CHANNELS)
        )
        self.score = nn.Conv2d(PERIOD_CHANNELS[-1], 1, (3, 1), padding=(1, 0))

    def rows(self, samples: Tensor) -> Tensor:
        """Lay samples out in rows of a period, mirrored at the end: [B, 1, N] -> [B, 1, ceil(N / p), p]."""
        padded = F.pad(samples, (0, -samples.shape[2] % self.period), "reflect")
        return padded.view(len(samples), 1, -1, self.period)

    def forward(self, samples: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return scores, high for real audio, and feature maps."""
        emphasised = samples - EMPHASIS * F.pad(samples, (1, -1))
        x, maps = self.rows(emphasised * SAMPLE_SCALE), []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.1)
            maps.append(x)
        return self.score(x), maps


class AudioDiscriminator(HingeDiscriminator):
    """Discriminator of audio: one network per scale of the STFT, one per period, or both."""

    def __init__(self, critics: Critics) -> None:
        scales = [] if critics == "period" else [ScaleDiscriminator(window) for window in WINDOWS]
        periods = [] if critics == "stft" else [PeriodDiscriminator(period) for period in PERIODS]
        super().__init__([*scales, *periods])
