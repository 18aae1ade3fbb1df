"""Tables of N(0, 1) and of posteriors under it, for latents that are coded by bits back.

Latents are whole numbers of steps. The prior's standard deviation is the scale PRIOR of `gaussian_tables`,
66.8 steps; a posterior has the scale nearest to its own. A symbol of a posterior is its latent less the mean.
Unlike there, tables have no escape: symbols are popped as well as pushed, and have to be within the prior's.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from .base import TOTAL, Frequencies
from .gaussian_tables import SCALE_MIN, masses, symmetric

PRIOR = 50
"""Index of the prior's scale; those of posteriors are 1 to PRIOR."""

SIGMA = 2.0 ** ((3 * PRIOR + SCALE_MIN) / 16)
"""Standard deviation of the prior, in steps."""

LIMIT = 1023
"""Largest absolute value of a latent, in steps."""

MEAN_LIMIT = 512
"""Largest absolute value of a posterior's mean, in steps: 7.7 standard deviations of the prior."""

DEVIATIONS = 7
"""Standard deviations on each side of the mean that the table of a posterior has symbols for."""


@cache
def prior() -> Frequencies:
    """Return the frequencies of the latents -LIMIT..LIMIT."""
    return _frequencies(SIGMA, LIMIT)


@cache
def posterior(index: int) -> Frequencies:
    """Return the frequencies of the symbols -L..L of a scale, 1..PRIOR: L is at most LIMIT - MEAN_LIMIT."""
    sigma = 2.0 ** ((3 * index + SCALE_MIN) / 16)
    return _frequencies(sigma, int(np.ceil(DEVIATIONS * sigma)) + 1)


def largest_symbol(index: int) -> int:
    """Return L of the table of a posterior."""
    return len(posterior(index)) // 2


def _frequencies(sigma: float, largest: int) -> Frequencies:
    """Return 1 + round(P (TOTAL - 2 L - 1)); the remainder goes to symbol 0."""
    return symmetric(masses(sigma, largest) * (TOTAL - 2 * largest - 1), 1, escape=False)
