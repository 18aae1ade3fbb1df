"""Residual of pixels to DCT coefficients and back: a colour transform, then 8x8 blocks, both orthonormal."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..priors.residual import ORDER, SIDE
from . import tiling

_COSINES = np.array(
    [
        [
            math.sqrt((1 if u == 0 else 2) / SIDE) * math.cos(math.pi * u * (2 * x + 1) / (2 * SIDE))
            for x in range(SIDE)
        ]
        for u in range(SIDE)
    ],
    np.float32,
)
_COLOURS = np.array([[1, 1, 1], [1, 0, -1], [-1, 2, -1]]) / np.sqrt([[3], [2], [6]])
_ORDER = np.array(ORDER)


def forward(residual: NDArray[np.float32]) -> NDArray[np.float32]:
    """Transform a residual, [H, W, C], to coefficients, [ceil(H / 8), ceil(W / 8), 64 C].

    Coefficients are in the order of `priors.residual.ORDER`, the channels of each side by side. What the last
    blocks lack repeats the last row and column.
    """
    height, width, channels = residual.shape
    rows, columns = -(-height // SIDE), -(-width // SIDE)
    whole = tiling.extend(residual, SIDE * rows, SIDE * columns)
    if channels == 3:
        whole = whole @ _COLOURS.T.astype(np.float32)
    blocks = whole.reshape(rows, SIDE, columns, SIDE, channels).transpose(0, 2, 4, 1, 3)
    found = _COSINES @ blocks @ _COSINES.T
    ordered = found.reshape(rows, columns, channels, SIDE * SIDE)[..., _ORDER].swapaxes(2, 3)
    return np.ascontiguousarray(ordered).reshape(rows, columns, -1)


def inverse(coefficients: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Transform coefficients back to a residual, [H, W, C]."""
    rows, columns, size = coefficients.shape
    channels = size // SIDE**2
    raster = np.empty((rows, columns, channels, SIDE * SIDE), np.float32)
    raster[..., _ORDER] = coefficients.reshape(rows, columns, SIDE * SIDE, channels).swapaxes(2, 3)
    blocks = _COSINES.T @ raster.reshape(rows, columns, channels, SIDE, SIDE) @ _COSINES
    whole = blocks.transpose(0, 3, 1, 4, 2).reshape(SIDE * rows, SIDE * columns, channels)[:height, :width]
    return whole @ _COLOURS.astype(np.float32) if channels == 3 else whole
