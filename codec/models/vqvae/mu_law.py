"""Samples <-> the 256 mu-law levels that an autoregressive decoder chooses among (ITU-T G.711)."""

from __future__ import annotations

from torch import Tensor

from ...metrics import spectra

LEVELS = 256


def to_levels(samples: Tensor) -> Tensor:
    """float32 in -1..1 -> int64 mu-law levels 0..255 (ITU-T G.711, mu = 255)."""
    levels: Tensor = spectra.torchaudio().functional.mu_law_encoding(samples, LEVELS)
    return levels.clamp(0, LEVELS - 1)


def from_levels(levels: Tensor) -> Tensor:
    """Undo `to_levels`."""
    samples: Tensor = spectra.torchaudio().functional.mu_law_decoding(levels, LEVELS)
    return samples
