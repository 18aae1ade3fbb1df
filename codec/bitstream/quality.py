"""Convert quality 1..5, set by users, to and from the quality index 0..255, the byte in the header.

Standard library only, so that headers are described without waiting for imports.
"""

from __future__ import annotations

LAST_INDEX = 255
"""The highest quality index; the lowest is 0."""

WORST, BEST = 1.0, 5.0
"""Lowest and highest quality."""

DEFAULT_QUALITY = 3.0
"""Quality of models with one operating point, and the default of others."""


def index_of(quality: float) -> int:
    """Return the quality index of a quality from WORST to BEST."""
    return round((quality - WORST) / (BEST - WORST) * LAST_INDEX)


def quality_of(index: int) -> float:
    """Return the quality of a quality index, rounded to the fewest decimals that give the same index."""
    exactly = WORST + (BEST - WORST) * index / LAST_INDEX
    return next(rounded for n in range(4) if index_of(rounded := round(exactly, n)) == index)
