"""Fit the integers of placeholders to training thumbnails: pPCA in closed form, then frequency tables."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from . import layout
from .rangecoder import TOTAL
from .tables import CLASSES, FINEST, LOWEST_CLASS, QUALITIES, WEIGHT_BITS, Tables

TRADEOFF = 0.14
"""Lambda of the symbols that tables are fitted to, in squared steps per bit."""

ROUNDS = 3
"""Times that symbols are chosen by tables, and tables counted of symbols."""

PRIOR_COUNT = 30.0
"""Symbols that the Laplacian tables weigh, at the start, beside those that are counted."""

BRIGHTEST = layout.SIDE * 127.5 * math.sqrt(3)
"""Largest absolute value of the first component, about that of the sum of all colours."""


def quantised(
    components: NDArray[np.float64], mean: NDArray[np.float64], deviations: NDArray[np.float64]
) -> dict[str, NDArray[np.generic]]:
    """Round a pPCA to the arrays of `Tables` but for the frequencies.

    Args:
        components: orthonormal, float64 [M, D].
        mean: float64 [D].
        deviations: falling, float64 [M].
    """
    whole = components * layout.units()
    scales = np.abs(whole).max(1) / 127
    return {
        "basis": np.rint(whole / scales[:, None]).astype(np.int8),
        "mean": np.rint(mean * layout.units()).astype(np.int16),
        "weights": np.rint(scales * (1 << WEIGHT_BITS)).astype(np.uint16),
        "octaves": np.clip(np.rint(4 * np.log2(np.maximum(deviations, 1))), 0, 255).astype(np.uint8),
    }


def with_frequencies(
    arrays: dict[str, NDArray[np.generic]], latents: NDArray[np.float64]
) -> dict[str, NDArray[np.generic]]:
    """Add frequency tables fitted to the symbols that an encoder chooses.

    Args:
        arrays: as from `quantised`.
        latents: of training thumbnails, float64 [N, M], in 8-bit units.
    """
    octaves = np.asarray(arrays["octaves"], int)
    starts = [_laplacian(2 ** ((LOWEST_CLASS + n) / 4)) for n in range(CLASSES)]
    starts += [_laplacian(2 ** ((octaves[0] - FINEST - q) / 4), _limit(q)) for q in range(QUALITIES)]
    frequencies = [_whole(table) for table in starts]
    for _ in range(ROUNDS):
        counts = [np.zeros(len(table)) for table in frequencies]
        for quality in range(QUALITIES):
            step = 2 ** ((FINEST + quality) / 4)
            numbers = octaves - FINEST - quality - LOWEST_CLASS
            for component in range(len(octaves)):
                number = min(int(numbers[component]), CLASSES - 1) if component else CLASSES + quality
                if number < 0:
                    break
                found = _chosen(latents[:, component] / step, frequencies[number])
                counts[number] += np.bincount(found, minlength=len(counts[number]))
        for number, count in enumerate(counts):
            both = (count + count[::-1]) / 2 if number < CLASSES else count
            frequencies[number] = _whole(both + PRIOR_COUNT * starts[number])
    largest = np.array([len(table) // 2 for table in frequencies], np.uint8)
    return arrays | {"largest": largest, "tables": np.concatenate(frequencies).astype(np.uint16)}


def fit(
    components: NDArray[np.float64],
    mean: NDArray[np.float64],
    deviations: NDArray[np.float64],
    coefficients: NDArray[np.float64],
) -> Tables:
    """Make the integers of a pPCA.

    Args:
        components: orthonormal, float64 [M, D].
        mean: float64 [D].
        deviations: falling, float64 [M].
        coefficients: of training thumbnails, float64 [N, D], for the frequencies.
    """
    arrays = quantised(components, mean, deviations)
    arrays = with_frequencies(arrays, (coefficients - mean) @ components.T)
    return Tables(**arrays)  # type: ignore[arg-type]


def _limit(quality: int) -> int:
    """Return L of the first component: what the brightest and the darkest image need."""
    return math.ceil(BRIGHTEST / 2 ** ((FINEST + quality) / 4)) + 1


def _laplacian(deviation: float, limit: int | None = None) -> NDArray[np.float64]:
    """Return the masses of a Laplacian around the integers -L..L: float64 [2 L + 1]."""
    limit = math.ceil(5 * deviation) + 1 if limit is None else limit
    edges = np.arange(-limit, limit + 2) - 0.5
    tails = 0.5 * np.exp(-np.abs(edges) * math.sqrt(2) / deviation)
    masses = np.diff(np.where(edges < 0, tails, 1 - tails))
    normalised: NDArray[np.float64] = masses / masses.sum()
    return normalised


def _whole(masses: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return frequencies of at least 1 that sum to TOTAL; the largest takes the rest."""
    shares = masses / masses.sum() * (TOTAL - len(masses))
    found = 1 + np.floor(shares).astype(np.int64)
    found[found.argmax()] += TOTAL - found.sum()
    return found


def _chosen(scaled: NDArray[np.float64], frequencies: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the places of the symbols of least cost in their table: int64 [N]."""
    limit = len(frequencies) // 2
    bits = -np.log2(frequencies / TOTAL)
    low = np.floor(scaled).astype(np.int64)
    options = np.clip(np.stack((np.zeros_like(low), low, low + 1)), -limit, limit)
    costs = (scaled - options) ** 2 + TRADEOFF * bits[options + limit]
    picked: NDArray[np.int64] = np.take_along_axis(options, costs.argmin(0)[None], 0)[0] + limit
    return picked
