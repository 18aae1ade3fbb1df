"""Frequency tables of pixels: a logistic distribution, mixed with a wider one, around a mean between levels.

The mean is a level and a fraction: the sharper the distribution, the finer the fractions. FORMAT-priors.md
gives the arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from .base import TOTAL
from .gaussian_tables import FLOOR, LATENT_UNIT, Gaussian, SignedTables

SCALES = 44
"""Number of scales s: 2**((k - 11.5) / 4) levels, 0.14 to 235."""

SCALE_ONE = 12
"""The first scale above one level."""

WIDER = 4
"""Scale of the wider distribution, relative to that of the narrow one."""

TAILS = 4
"""Number of its weights: 2**(1.5 (t - 3) - 1), 0.02 to 0.5."""

WHITE = 255
"""The largest level, and the largest distance of two pixels."""

REACH = 16
"""Scales of the wider distribution that a table reaches."""

MEAN_BITS = 4
"""Fractional bits of means."""


@dataclass(frozen=True)
class Logistic(Gaussian):
    """Probabilities of pixels: as `Gaussian`, by the tables of this module; means are whole levels.

    Attributes:
        means: int32, any shape, in sixteenths of a level.
        scale_indexes: uint16, of the same shape: the tables.
    """

    def values(self, symbols: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the pixels of distances, in sixteenths of a level: 0..255 levels."""
        found: NDArray[np.int32] = np.clip(LATENT_UNIT * symbols + self.means, 0, LATENT_UNIT * WHITE)
        return found

    @property
    def tables(self) -> SignedTables:
        """Tables that the indexes choose from."""
        return tables()

    def quantise(
        self, targets: NDArray[np.float32], rd_tradeoff: NDArray[np.float32] | None = None
    ) -> NDArray[np.int32]:
        """Return the distances of pixels from the means, which are whole levels."""
        del rd_tradeoff
        found: NDArray[np.int32] = np.rint(targets).astype(np.int32) - self.means // LATENT_UNIT
        return found


def model(means: NDArray[np.int32], scales: NDArray[np.int32], tails: NDArray[np.int32]) -> Logistic:
    """Return the probabilities of pixels.

    Args:
        means: in 2**-MEAN_BITS levels.
        scales: 0..SCALES - 1.
        tails: 0..TAILS - 1.
    """
    bits, starts = _layout()
    fine = bits[scales]
    # Round to the fractions of the scale.
    coarse = MEAN_BITS - fine
    nearest = (means + (1 << coarse >> 1)) >> coarse
    fractions = nearest & ((1 << fine) - 1)
    indexes = (starts[scales] + (tails << fine) + fractions).astype(np.uint16)
    return Logistic((nearest >> fine) * np.int32(LATENT_UNIT), indexes)


def scale_of(k: float) -> float:
    """Return the scale of an index, in levels."""
    return float(2 ** ((k + 0.5 - SCALE_ONE) / 4))


def wide_share(tail: float) -> float:
    """Return the weight of the wider distribution."""
    return float(2 ** (1.5 * (tail + 1 - TAILS) - 1))


def fraction_bits(k: int) -> int:
    """Return the fractional bits of means of a scale: steps are a fourth of it, or less."""
    return min(max(MEAN_BITS - max(k - SCALE_ONE + 8, 0) // 4, 0), MEAN_BITS)


@cache
def tables() -> SignedTables:
    """Return the frequencies of the distances -L..L and of the escape, by scale, tail and fraction of mean.

    A distance has FLOOR + round(P (TOTAL - (2 L + 2) FLOOR)), where P is the mass of the mixture between
    k - 1/2 and k + 1/2; the remainder goes to distance 0.
    """
    found = []
    for k in range(SCALES):
        for tail in range(TAILS):
            found += [
                _frequencies(k, tail, f / (1 << fraction_bits(k))) for f in range(1 << fraction_bits(k))
            ]
    return SignedTables(found)


def scaled_masses(k: int, tail: int, fraction: float) -> NDArray[np.float64]:
    """Return P(k) (TOTAL - (2 L + 2) FLOOR) of the distances -L..L, float64 [2 L + 1]."""
    scale = scale_of(k)
    largest = min(int(np.ceil(REACH * WIDER * scale)) + 1, WHITE)
    edges = np.arange(-largest, largest + 2, dtype=np.float64) - (0.5 + fraction)
    share = wide_share(tail)
    below = (1 - share) * _logistic(edges / scale) + share * _logistic(edges / (WIDER * scale))
    masses: NDArray[np.float64] = np.diff(below) * (TOTAL - (2 * largest + 2) * FLOOR)
    return masses


def _frequencies(k: int, tail: int, fraction: float) -> NDArray[np.uint32]:
    whole = FLOOR + np.floor(scaled_masses(k, tail, fraction) + 0.5).astype(np.int64)
    whole = np.append(whole, FLOOR)
    whole[len(whole) // 2 - 1] += TOTAL - whole.sum()
    return whole.astype(np.uint32)


def _logistic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    small = np.exp(-np.abs(x))
    found: NDArray[np.float64] = np.where(x < 0, small, 1.0) / (1 + small)
    return found


@cache
def _layout() -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the fractional bits of means, and the first table, of every scale."""
    bits = np.array([fraction_bits(k) for k in range(SCALES)], np.int32)
    return bits, np.cumsum([0, *(TAILS << bits[:-1])]).astype(np.int32)
