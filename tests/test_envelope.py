"""Spectral envelopes of audio, and filters that give samples another one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from vqcodec.models.vqvae.envelope import MOST, SpectralEnvelope


def noise(seed: int, loudness: float = 0.1) -> torch.Tensor:
    return loudness * torch.randn(1, 1, 4096, generator=torch.Generator().manual_seed(seed))


def test_an_envelope_is_half_the_logarithm_of_the_energy_of_bands() -> None:
    envelope, samples = SpectralEnvelope(256, 36, 16_000), noise(1)
    found = envelope(samples)
    assert found.shape == (1, 36, 16)
    frame = samples[0, 0, 3 * 256 - 128 :][
        :512
    ].numpy()  # the block of 256 samples, and half a block around it
    window = np.sin(np.pi * np.arange(512) / 512)
    power = np.abs(np.fft.rfft(frame * window)) ** 2
    energy = np.exp(2 * found[0, :, 3].numpy())
    assert energy.sum() == pytest.approx(power.sum(), rel=1e-4), "each frequency counts once"
    assert energy[-1] == pytest.approx(power[-12:].sum(), rel=0.6), "the highest band is near 8 kHz"
    assert torch.allclose(envelope(10 * samples), found + np.log(10), atol=1e-3)
    assert torch.isfinite(envelope(0 * samples)).all()


def test_samples_of_their_own_envelope_stay() -> None:
    envelope, samples = SpectralEnvelope(256, 36, 16_000), noise(1)
    assert torch.allclose(envelope.shape(samples, envelope(samples)), samples, atol=1e-5)
    louder = envelope.shape(samples, envelope(samples) + np.log(3))
    assert torch.allclose(louder, 3 * samples, atol=1e-4)
    limited = envelope.shape(samples, envelope(samples) + 100)
    assert torch.allclose(limited, np.exp(MOST) * samples, atol=1e-3)


def test_samples_take_another_envelope() -> None:
    envelope = SpectralEnvelope(256, 36, 16_000)
    tilt = torch.linspace(1, -1, 36)[None, :, None]
    samples = noise(1)
    wanted = envelope(samples) + tilt
    before, after = (envelope(x) - wanted for x in (samples, envelope.shape(samples, wanted)))
    assert float(after.square().mean()) < 0.01 * float(before.square().mean())
