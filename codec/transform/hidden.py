"""Fill pixels that nobody sees, under alpha 0, so smoothly that they cost no bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCK = 8
"""Pixels of a block, along each axis, that have one colour for what is hidden in and near them."""
NEUTRAL = 128
"""Where everything is hidden."""
_STRIP = 32


def fill(samples: NDArray[np.uint8], alpha: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """Fill what is hidden with the colours of what is visible around it, blurred the more the farther away.

    Args:
        samples: uint8 [H, W, C].
        alpha: uint8 [H, W]; None: all is visible.

    Returns:
        uint8 [H, W, C]; the samples themselves where nothing is hidden.
    """
    if alpha is None or alpha.size == 0 or alpha.min() > 0:
        return samples
    grid = _spread(_block_means(samples, alpha))
    filled = np.array(samples, order="C")
    columns = _steps(samples.shape[1], grid.shape[1], BLOCK)
    for top in range(0, samples.shape[0], _STRIP):
        rows = slice(top, min(top + _STRIP, samples.shape[0]))
        hidden = alpha[rows] == 0
        if hidden.any():
            first, second, share = (part[rows] for part in _steps(samples.shape[0], grid.shape[0], BLOCK))
            strip = grid[first] + share[:, None, None] * (grid[second] - grid[first])
            smooth = strip[:, columns[0]]
            smooth += columns[2][:, None] * (strip[:, columns[1]] - smooth)
            np.copyto(filled[rows], (smooth + 0.5).astype(np.uint8), where=hidden[:, :, None])
    return filled


def _block_means(samples: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean of the visible pixels of each block, [h, w, C]; NaN where there are none."""
    height, width, channels = samples.shape
    rows, columns = -(-height // BLOCK), -(-width // BLOCK)
    means = np.empty((rows, columns, channels), np.float32)
    starts = np.arange(0, width, BLOCK)
    for row in range(rows):
        part = slice(BLOCK * row, BLOCK * (row + 1))
        visible = alpha[part] > 0
        counts = np.add.reduceat(visible.sum(0, dtype=np.int32), starts)
        sums = np.add.reduceat((samples[part] * visible[:, :, None]).sum(0, dtype=np.int32), starts)
        means[row] = np.where(counts > 0, 1, np.nan)[:, None] * sums / np.maximum(counts, 1)[:, None]
    return means


def _spread(grid: NDArray[np.float32]) -> NDArray[np.float32]:
    """Fill the empty cells of a grid from ever coarser ones."""
    empty = np.isnan(grid[:, :, 0])
    if not empty.any():
        return grid
    if grid.shape[:2] == (1, 1):
        return np.full_like(grid, NEUTRAL)
    height, width = grid.shape[:2]
    padded = np.pad(grid, ((0, height % 2), (0, width % 2), (0, 0)), constant_values=np.nan)
    cells = padded.reshape(padded.shape[0] // 2, 2, padded.shape[1] // 2, 2, -1)
    known = ~np.isnan(cells)
    counts = known.sum((1, 3))
    sums = np.where(known, cells, 0).sum((1, 3), dtype=np.float32)
    coarse = _spread(np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).astype(np.float32))
    finer = _between(coarse, *_steps(height, coarse.shape[0], 2))
    finer = _between(finer.swapaxes(0, 1), *_steps(width, coarse.shape[1], 2)).swapaxes(0, 1)
    return np.where(empty[:, :, None], finer, grid).astype(np.float32)


def _steps(
    size: int, cells: int, scale: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """For `size` places over `cells` of `scale` each: the two nearest cells, and the share of the second."""
    places = np.clip((np.arange(size) + 0.5) / scale - 0.5, 0, cells - 1)
    first = places.astype(np.intp)
    return first, np.minimum(first + 1, cells - 1), (places - first).astype(np.float32)


def _between(
    cells: NDArray[np.float32], first: NDArray[np.intp], second: NDArray[np.intp], share: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Interpolate along the first axis."""
    found: NDArray[np.float32] = cells[first] + share[:, None, None] * (cells[second] - cells[first])
    return found
