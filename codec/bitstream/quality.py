"""The dial of models that have one: places on it, and the scale of qualities that people are told.

Standard library only, so that headers are described without waiting for anything.
"""

from __future__ import annotations

DIAL = 255
"""Last place on the dial; the first is 0. A place is the byte of settings in a header."""

WORST, BEST = 1.0, 5.0
"""Ends of the scale of qualities."""


def place_of(quality: float) -> int:
    """The place on the dial of a quality from WORST to BEST."""
    return round((quality - WORST) / (BEST - WORST) * DIAL)


def quality_of(place: int) -> float:
    """The quality at a place on the dial, with as few decimals as tell it apart."""
    exactly = WORST + (BEST - WORST) * place / DIAL
    return next(rounded for n in range(4) if place_of(rounded := round(exactly, n)) == place)
