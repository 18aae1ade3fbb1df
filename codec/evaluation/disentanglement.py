"""How well single units tell single factors of pictures made by code: the FactorVAE score and MIG.

Sprites are white on black, 32x32 pixels, without noise: a square, an ellipse or a heart, in 6 sizes, 40
angles (0 and 2 pi are one) and 32 x 32 places.

Public implementations differ by more than models do, so the protocol is stated. Representations are posterior
means of 10,000 random sprites. FactorVAE: a vote is the unit of least variance, over that of the 10,000,
among 64 sprites that share one factor; 800 votes make a majority classifier, and its score is that of 400
others; units whose variance is below 0.05 are left out. Votes are shared out evenly among the factors, so
that three units that tell one factor each score 0.6, and not what the draw of factors makes of it. MIG:
mutual information from histograms of 20 bins between the extremes of a unit, the gap of the best two units
over the entropy of the factor, mean over the factors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIDE = 32
FACTORS = {"shape": 3, "size": 6, "angle": 40, "x": 32, "y": 32}
"""Factor -> number of its values."""

BINS = 20
SHARING = 64
SMALLEST_VARIANCE = 0.05

Factors = NDArray[np.int64]
"""Values of the factors of sprites, [n, 5], in the order of `FACTORS`."""

Representation = Callable[[Factors], NDArray[np.float64]]
"""Factors of sprites -> units, [n, M]."""


@dataclass(frozen=True)
class Scores:
    """Scores of a representation: 0..1, 1 the best."""

    factor_vae: float
    mig: float


def draw_factors(count: int, source: np.random.Generator) -> Factors:
    """Draw factors of sprites, uniform and independent."""
    return source.integers(list(FACTORS.values()), size=(count, len(FACTORS)))


def render(factors: Factors) -> NDArray[np.uint8]:
    """Draw sprites: [n, 5] -> uint8 [n, 32, 32]."""
    shape, size, angle, x, y = (factors[:, n, None, None] for n in range(5))
    pixels = np.arange(SIDE) + 0.5
    radius = 3.5 + 0.6 * size
    turn = 2 * np.pi * angle / FACTORS["angle"]
    right, down = ((pixels - 8 - 16 * place / 31) for place in (x[:, 0], y[:, 0]))
    across, along = right[:, None, :] / radius, down[:, :, None] / radius
    a = np.cos(turn) * across + np.sin(turn) * along
    b = np.cos(turn) * along - np.sin(turn) * across
    square = np.maximum(np.abs(a), np.abs(b)) <= 0.8
    ellipse = a**2 + (b / 0.6) ** 2 <= 1
    heart = ((1.2 * a) ** 2 + (1.2 * b) ** 2 - 1) ** 3 <= (1.2 * a) ** 2 * (-1.2 * b) ** 3
    white = np.choose(shape, (square, ellipse, heart))
    return np.where(white, np.uint8(255), np.uint8(0))


def scores(represent: Representation, seed: int = 0, *, points: int = 10_000, votes: int = 800) -> Scores:
    """Score a representation of sprites.

    Args:
        represent: factors to units.
        seed: of the sprites.
        points: random sprites for variances and histograms.
        votes: for the majority classifier; half as many are its score.
    """
    source = np.random.default_rng(seed)
    factors = draw_factors(points, source)
    units = represent(factors)
    return Scores(_factor_vae(represent, units.var(0), votes, source), _mig(units, factors))


def _factor_vae(
    represent: Representation, variances: NDArray[np.float64], votes: int, source: np.random.Generator
) -> float:
    """Return the FactorVAE score (Kim and Mnih 2018, section 3)."""
    active = variances >= SMALLEST_VARIANCE
    if not active.any():
        return 0.0
    table = np.zeros((2, int(active.sum()), len(FACTORS)), np.int64)
    for vote in range(votes + votes // 2):
        factor = vote % len(FACTORS)
        chosen = draw_factors(SHARING, source)
        chosen[:, factor] = chosen[0, factor]
        spread = represent(chosen)[:, active].var(0) / variances[active]
        table[int(vote >= votes), spread.argmin(), factor] += 1
    majority = table[0].argmax(1)
    return float(table[1][np.arange(len(majority)), majority].sum() / table[1].sum())


def _mig(units: NDArray[np.float64], factors: Factors) -> float:
    """Return the mutual information gap (Chen et al. 2018, section 4.1)."""
    binned = np.stack([np.digitize(unit, np.histogram(unit, BINS)[1][:-1]) - 1 for unit in units.T], 1)
    gaps = []
    for values, factor in zip(FACTORS.values(), factors.T, strict=True):
        information = sorted((_mutual_information(unit, factor, values) for unit in binned.T), reverse=True)
        best, second = (*information, 0.0)[:2]
        gaps.append((best - second) / _entropy(np.bincount(factor, minlength=values)))
    return float(np.mean(gaps))


def _mutual_information(unit: NDArray[np.int64], factor: NDArray[np.int64], values: int) -> float:
    joint = np.bincount(unit * values + factor, minlength=BINS * values).reshape(BINS, values)
    return _entropy(joint.sum(1)) + _entropy(joint.sum(0)) - _entropy(joint.ravel())


def _entropy(counts: NDArray[np.int64]) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())
