"""The spectral envelope of audio, which levels 2 and 4 of `residual` code."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ...metrics import spectra

FLOOR = 1e-6
"""Added to the energy of a band, so that silence has a logarithm."""

MOST = 2.5
"""Largest gain, and smallest, as a natural logarithm: 21.7 dB."""


class SpectralEnvelope(nn.Module):
    """Logarithms of amplitudes in bands of the Bark scale, in overlapping frames, and filters by them.

    Frame t has the 2 * `hop` samples around the t-th block of `hop`, under the square root of a Hann window.
    Shapes: samples [B, 1, N], N a multiple of `hop` -> envelopes [B, bands, N / hop], natural logarithms.
    """

    bank: Tensor
    window: Tensor

    def __init__(self, hop: int, bands: int, rate: int) -> None:
        super().__init__()
        self.hop = hop
        self.register_buffer("bank", spectra.bark_bank(2 * hop, bands, rate), persistent=False)
        self.register_buffer("window", torch.hann_window(2 * hop).sqrt(), persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        """Compute envelopes."""
        return self._envelope(self._spectra(samples)).mT

    def shape(self, samples: Tensor, envelope: Tensor) -> Tensor:
        """Give samples another envelope, as far as gains of MOST reach.

        The gain of a frequency is interpolated between bands, in decibels; frames are added up again.
        """
        frames = self._spectra(samples)
        gains = (envelope.mT - self._envelope(frames)).clamp(-MOST, MOST) @ self.bank
        shaped = torch.fft.irfft(frames * gains.exp()) * self.window
        weight = self.window.square().expand_as(shaped)
        return (self._added(shaped) / self._added(weight))[:, None]

    def _spectra(self, samples: Tensor) -> Tensor:
        """Transform frames: [B, 1, N] -> complex [B, T, hop + 1]."""
        padded = F.pad(samples[:, 0], (self.hop // 2, self.hop // 2))
        frames: Tensor = padded.unfold(1, 2 * self.hop, self.hop) * self.window
        spectra_: Tensor = torch.fft.rfft(frames)
        return spectra_

    def _envelope(self, frames: Tensor) -> Tensor:
        """Envelope of transformed frames: [B, T, bands]."""
        energy: Tensor = (frames.real.square() + frames.imag.square()) @ self.bank.T
        return 0.5 * (energy + FLOOR).log()

    def _added(self, frames: Tensor) -> Tensor:
        """Overlap and add: [B, T, 2 hop] -> [B, T hop]."""
        size, hop = (1, (frames.shape[1] + 1) * self.hop), self.hop
        whole: Tensor = F.fold(frames.mT, size, (1, 2 * hop), stride=(1, hop))
        return whole[:, 0, 0, hop // 2 : -(hop // 2)]
