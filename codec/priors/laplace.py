"""Laplace frequency tables of 64 mean magnitudes, for quantised coefficients of a transform.

A Laplace distribution quantised to whole steps is two-sided geometric but for the symbol 0: with ratio
r = exp(-step / scale), P(0) = 1 - sqrt(r) and P(+-k) = r**(k - 1/2) (1 - r) / 2. Its mean magnitude is m,
where sqrt(r) = sqrt(1 + a**2) - a, a = 1 / (2 m). FORMAT-priors.md gives the arithmetic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from .base import TOTAL
from .gaussian_tables import FLOOR, Gaussian, SignedTables, symmetric

LEVELS = 64
"""Number of mean magnitudes: 2**((i - 40) / 4) steps, 0.001 to 54."""

LEVEL_ZERO = 40
"""Level of a mean magnitude of one step."""

MAGNITUDE_BITS = 16
"""Fractional bits of mean magnitudes."""


@dataclass(frozen=True)
class Laplace(Gaussian):
    """Probabilities of quantised coefficients: as `Gaussian`, by the tables of this module."""

    @property
    def tables(self) -> SignedTables:
        """Tables that the scale indexes choose from."""
        return tables()


@cache
def tables() -> SignedTables:
    """Return the frequencies of the symbols -L..L and of the escape, for each level.

    A symbol has FLOOR + round(P (TOTAL - (2 L + 2) FLOOR)), L = ceil(8 m) + 2; the rest goes to symbol 0.
    """
    return SignedTables(
        [symmetric(scaled_masses(magnitude(level)), FLOOR, escape=True) for level in range(LEVELS)]
    )


def magnitude(level: int) -> float:
    """Return the mean magnitude of a level, in steps."""
    return float(2 ** ((level - LEVEL_ZERO) / 4))


@cache
def thresholds() -> NDArray[np.int64]:
    """Return the mean magnitudes halfway between two levels on a logarithmic scale, in 2**-MAGNITUDE_BITS."""
    halfway = [2 ** ((2 * level + 1 - 2 * LEVEL_ZERO) / 8 + MAGNITUDE_BITS) for level in range(LEVELS - 1)]
    return np.array([math.floor(value + 0.5) for value in halfway], np.int64)


def levels_of(magnitudes: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the levels nearest to mean magnitudes in 2**-MAGNITUDE_BITS."""
    return np.searchsorted(thresholds(), magnitudes, "right").astype(np.uint8)


def scaled_masses(mean: float) -> NDArray[np.float64]:
    """Return P(k) (TOTAL - (2 L + 2) FLOOR) of the symbols k = 0..L, float64 [L + 1]."""
    largest = math.ceil(8 * mean) + 2
    root = math.sqrt(1 + 1 / (4 * mean * mean)) - 1 / (2 * mean)
    masses = [1 - root] + [root ** (2 * k - 1) * (1 - root * root) / 2 for k in range(1, largest + 1)]
    return np.array(masses) * (TOTAL - (2 * largest + 2) * FLOOR)
