"""Fit the integers of placeholders to training thumbnails: pPCA in closed form, then frequency tables."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from . import layout
from .rangecoder import TOTAL
from .tables import CLASSES, FINEST, LOWEST_CLASS, QUALITIES, WEIGHT_BITS, Tables, chosen_tables

TRADEOFF = 0.14
"""Lambda of the symbols that tables are fitted to, in squared steps per bit."""

ROUNDS = 3
"""Times that symbols are chosen by tables, and tables counted of symbols."""

PRIOR_COUNT = 30.0
"""Symbols that the Laplacian tables weigh, at the start, in addition to those that are counted."""

BRIGHTEST = layout.SIDE * 127.5 * math.sqrt(3)
"""Largest absolute value of the first component, about that of the sum of all colours."""


def table_limits() -> NDArray[np.uint8]:
    """Return L of each table: of the classes, then of the first component at each quality."""
    classes = [math.ceil(5 * 2 ** ((LOWEST_CLASS + n) / 4)) + 1 for n in range(CLASSES)]
    firsts = [math.ceil(BRIGHTEST / 2 ** ((FINEST + q) / 4)) + 1 for q in range(QUALITIES)]
    return np.array(classes + firsts, np.uint8)


def fit(
    components: NDArray[np.float64],
    mean: NDArray[np.float64],
    deviations: NDArray[np.float64],
    coefficients: NDArray[np.float64],
) -> Tables:
    """Make the integers of a pPCA: round it, and fit tables to the symbols that an encoder chooses.

    Args:
        components: orthonormal, float64 [M, D].
        mean: float64 [D].
        deviations: falling, float64 [M].
        coefficients: of training thumbnails, float64 [N, D], for the frequencies.
    """
    octaves = np.clip(np.rint(4 * np.log2(np.maximum(deviations, 1))), 0, 255).astype(np.uint8)
    whole = components * layout.units()
    scales = np.abs(whole).max(1) / 127
    return Tables(
        np.rint(whole / scales[:, None]).astype(np.int8),
        np.rint(mean * layout.units()).astype(np.int16),
        np.rint(scales * (1 << WEIGHT_BITS)).astype(np.int16),
        octaves,
        table_limits(),
        np.concatenate(_frequencies((coefficients - mean) @ components.T, octaves)).astype(np.int16),
    )


def _frequencies(latents: NDArray[np.float64], octaves: NDArray[np.uint8]) -> list[NDArray[np.int64]]:
    """Fit the tables to latents, float64 [N, M] in 8-bit units: int64 [2 L + 1] of each."""
    limits = table_limits()
    log2_ratios = [(LOWEST_CLASS + n) / 4 for n in range(CLASSES)]
    log2_ratios += [(int(octaves[0]) - FINEST - q) / 4 for q in range(QUALITIES)]
    starts = [_laplacian(2.0**r, int(limit)) for r, limit in zip(log2_ratios, limits, strict=True)]
    frequencies = [_whole(table) for table in starts]
    for _ in range(ROUNDS):
        counts = [np.zeros(len(table)) for table in frequencies]
        for quality in range(QUALITIES):
            step = 2 ** ((FINEST + quality) / 4)
            for component, number in enumerate(chosen_tables(octaves, quality)):
                found = _chosen(latents[:, component] / step, frequencies[number])
                counts[number] += np.bincount(found, minlength=len(counts[number]))
        for number, count in enumerate(counts):
            both = (count + count[::-1]) / 2 if number < CLASSES else count
            frequencies[number] = _whole(both + PRIOR_COUNT * starts[number])
    return frequencies


def _laplacian(deviation: float, limit: int) -> NDArray[np.float64]:
    """Return the masses of a Laplacian around the integers -L..L: float64 [2 L + 1]."""
    edges = np.arange(-limit, limit + 2) - 0.5
    tails = 0.5 * np.exp(-np.abs(edges) * math.sqrt(2) / deviation)
    masses = np.diff(np.where(edges < 0, tails, 1 - tails))
    normalised: NDArray[np.float64] = masses / masses.sum()
    return normalised


def _whole(masses: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return frequencies of at least 1 that sum to TOTAL; the largest takes the rest."""
    shares = masses / masses.sum() * (TOTAL - len(masses))
    found: NDArray[np.int64] = 1 + np.floor(shares).astype(np.int64)
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
