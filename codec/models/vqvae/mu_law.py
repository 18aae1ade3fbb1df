"""Mu-law companding, samples <-> the 256 levels of an autoregressive decoder (ITU-T G.711)."""

from __future__ import annotations

from torch import Tensor

from ...metrics import spectra

LEVELS = 256


def to_levels(samples: Tensor) -> Tensor:
    """Quantise float32 in -1..1 to int64 mu-law levels 0..255 (ITU-T G.711, mu = 255)."""
    levels: Tensor = spectra.torchaudio().functional.mu_law_encoding(samples, LEVELS)
    return levels.clamp(0, LEVELS - 1)


def from_levels(levels: Tensor) -> Tensor:
    """Return the samples of mu-law levels, the inverse of `to_levels`."""
    samples: Tensor = spectra.torchaudio().functional.mu_law_decoding(levels, LEVELS)
    return samples
