"""Low-frequency coefficients of thumbnails: their order, and the integer transform to pixels of any size.

A thumbnail of 32x32 pixels has three planes, of which the second and third are colour differences:

    p0 = (R + G + B) / 3      p1 = (R - B) / 2      p2 = (R - 2 G + B) / 6

Each plane keeps the coefficients (u, v) of its two-dimensional DCT-II with u + v < 16, of colour differences
u + v < 8. A vector has these coefficients of p0, p1, p2 in turn, rows u ascending, then columns v ascending.
"""

from __future__ import annotations

from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

SIDE = 32
"""Side of a thumbnail, in pixels."""

CUTOFFS = (16, 8, 8)
"""Sum of both frequencies, per plane, at which coefficients are left out."""

SIZES = tuple(cutoff * (cutoff + 1) // 2 for cutoff in CUTOFFS)
"""Coefficients of each plane."""

SIZE = sum(SIZES)
"""Coefficients of a thumbnail: D = 208."""

COSINE_BITS = 14
"""Fractional bits of cosines."""

UNIT = 8
"""Units of a coefficient: an integer coefficient Y adds Y / (16 UNIT) times a cosine in each axis to p."""

_COLOUR = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]], np.float64)
_NORMS = np.sqrt((_COLOUR**2).sum(1))


@cache
def places() -> tuple[tuple[NDArray[np.intp], NDArray[np.intp]], ...]:
    """Return the rows u and columns v of the coefficients of each plane, in the order of a vector."""
    found = []
    for cutoff in CUTOFFS:
        pairs = [(u, v) for u in range(cutoff) for v in range(cutoff - u)]
        rows, columns = np.array(pairs, np.intp).T
        found.append((rows, columns))
    return tuple(found)


@cache
def units() -> NDArray[np.float64]:
    """Return what turns a coefficient of the orthonormal transform into an integer one: float64 [D]."""
    scales = []
    for norm, (rows, columns) in zip(_NORMS, places(), strict=True):
        zeros = (rows == 0).astype(int) + (columns == 0)
        scales.append(UNIT / norm / np.sqrt(2.0) ** zeros)
    return np.concatenate(scales)


@cache
def _orthonormal() -> NDArray[np.float64]:
    """The DCT-II of 32 values: [frequencies, positions]."""
    n = np.arange(SIDE)
    matrix = np.cos(np.pi * n[:, None] * (2 * n + 1) / (2 * SIDE)) * np.sqrt(2 / SIDE)
    matrix[0] /= np.sqrt(2)
    kept: NDArray[np.float64] = matrix[: max(CUTOFFS)]
    return kept


def analyse(thumbnails: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Compute the coefficients of thumbnails under the orthonormal transform.

    Args:
        thumbnails: uint8 [N, 32, 32, 3].

    Returns:
        float64 [N, D], of pixels less 127.5.
    """
    planes = (thumbnails - 127.5) @ (_COLOUR / _NORMS[:, None]).T
    dct = _orthonormal()
    whole = np.moveaxis(planes, 3, 1)
    whole = dct @ whole @ dct.T
    return np.concatenate([whole[:, n, rows, cols] for n, (rows, cols) in enumerate(places())], 1)


@cache
def patterns() -> NDArray[np.float64]:
    """Return the pixels of each coefficient of the orthonormal transform: float64 [D, 3 * 32 * 32].

    Rows are orthonormal; a row has the colours outermost, then the rows of the thumbnail.
    """
    dct, found = _orthonormal(), []
    for colour, norm, (rows, columns) in zip(_COLOUR, _NORMS, places(), strict=True):
        waves = dct[rows][:, None, :, None] * dct[columns][:, None, None, :]
        found.append((waves * (colour / norm)[None, :, None, None]).reshape(len(rows), -1))
    return np.concatenate(found)


@lru_cache(maxsize=64)
def cosines(count: int, length: int) -> NDArray[np.int64]:
    """Return floor(2**14 cos(pi u (2 x + 1) / (2 length)) + 1/2): int64 [count, length].

    Args:
        count: frequencies u.
        length: positions x.
    """
    u, x = np.arange(count)[:, None], np.arange(length)
    angle = np.pi * u * (2 * x + 1) / (2 * length)
    return np.floor(np.cos(angle) * (1 << COSINE_BITS) + 0.5).astype(np.int64)


def synthesise(coefficients: NDArray[np.int64], width: int, height: int) -> NDArray[np.uint8]:
    """Compute pixels from the integer coefficients of a thumbnail, by integers alone.

    Args:
        coefficients: int64 [D].
        width: of the result, in pixels; the cosines are sampled at so many positions.
        height: of the result.

    Returns:
        uint8 [height, width, 3].
    """
    half = 1 << (COSINE_BITS - 1)
    planes, start = [], 0
    for cutoff, size, (rows, columns) in zip(CUTOFFS, SIZES, places(), strict=True):
        grid = np.zeros((cutoff, cutoff), np.int64)
        grid[rows, columns] = coefficients[start : start + size]
        start += size
        lines = (grid @ cosines(cutoff, width) + half) >> COSINE_BITS
        planes.append((cosines(cutoff, height).T @ lines + half) >> COSINE_BITS)
    p0, p1, p2 = planes
    colours = np.stack((p0 + p1 + p2, p0 - 2 * p2, p0 - p1 + p2), 2)
    pixels: NDArray[np.uint8] = np.clip((colours + 16384) >> 7, 0, 255).astype(np.uint8)
    return pixels
