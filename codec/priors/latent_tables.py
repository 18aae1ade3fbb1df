"""Tables of N(0, I) and of posteriors near it, for the latents of bits-back coding.

Latents are whole numbers of steps. The prior's standard deviation is that of table PRIOR of
`gaussian_tables`, 66.8 steps; a posterior of a standard deviation s has that of the table nearest to 66.8 s.
Unlike there, tables have no escape: a symbol of a posterior is popped, so that it has to lie in the prior's.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from . import gaussian_tables
from .base import TOTAL, Frequencies

PRIOR = 50
"""Table of the prior."""

PRIOR_SIGMA = 2.0 ** ((3 * PRIOR + gaussian_tables.SCALE_MIN) / 16)
"""Standard deviation of the prior, in steps."""

PRIOR_LIMIT = 1023
"""Largest absolute value of a latent, in steps: 15 standard deviations."""

MEAN_LIMIT = 512
"""Largest absolute value of a posterior's mean, in steps, so that its widest table stays within the prior's."""


@cache
def prior() -> Frequencies:
    """Return the frequencies of -PRIOR_LIMIT .. PRIOR_LIMIT."""
    return gaussian_tables.frequencies(PRIOR_SIGMA, PRIOR_LIMIT)


@cache
def posterior(number: int) -> Frequencies:
    """Return the frequencies of the offsets -L .. L from the mean, of table 1 .. PRIOR."""
    return gaussian_tables.frequencies(2.0 ** ((3 * number + gaussian_tables.SCALE_MIN) / 16))
