"""Find text and graphics: pixels that lossless coding may take at fewer bits than a transform.

What is drawn repeats: most pixels equal the one to the left or above, which noise forbids in a photograph.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import tiling

BLOCK = 8
"""Side of the blocks that are judged, in pixels."""
SHARE = 0.75
"""Least share of a block's pixels that repeat, where it is surely drawn."""
GAP = 2
"""Blocks that are busier, as dense text is, belong to what surrounds them, up to this distance."""
LETTER = 4
"""Pixels with stored ones around them, up to this distance on two sides, as those of a letter, are stored."""
QUICK_ROWS, QUICK_SHARE = 16, 0.1
"""One row in so many is looked at first; a smaller share of repeats there ends the search."""


def find(samples: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which pixels of a region look drawn, bool [H, W].

    Args:
        samples: uint8 [H, W, C].
    """
    height, width, _ = samples.shape
    if _repeats(samples[::QUICK_ROWS]).mean() < QUICK_SHARE:
        return np.zeros((height, width), np.bool_)
    repeats = _repeats(samples)
    repeats[1:] |= (samples[1:] == samples[:-1]).all(2)
    rows, columns = -(-height // BLOCK), -(-width // BLOCK)
    padded = tiling.extend(repeats[:, :, None], BLOCK * rows, BLOCK * columns)
    drawn = padded.reshape(rows, BLOCK, columns, BLOCK).mean((1, 3)) >= SHARE
    mask = _closed(drawn, GAP).repeat(BLOCK, 0).repeat(BLOCK, 1)[:height, :width]
    return _closed(_flooded(mask, samples), LETTER)


def busiest(samples: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return that square of a grid, at most `side` wide and high, whose pixels repeat least."""
    height, width, _ = samples.shape
    squares = [
        samples[top : top + side, left : left + side]
        for top in range(0, max(height - side, 0) + 1, side)
        for left in range(0, max(width - side, 0) + 1, side)
    ]
    return min(squares, key=lambda square: float(_repeats(square[::QUICK_ROWS]).mean()))


def _repeats(samples: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether each pixel equals the one to the left, bool [H, W]."""
    found = np.zeros(samples.shape[:2], np.bool_)
    found[:, 1:] = (samples[:, 1:] == samples[:, :-1]).all(2)
    return found


def _closed(mask: NDArray[np.bool_], distance: int) -> NDArray[np.bool_]:
    """Fill gaps of up to twice a distance: morphological closing by a square."""
    return ~_grown(~_grown(mask, distance), distance)


def _grown(mask: NDArray[np.bool_], distance: int) -> NDArray[np.bool_]:
    """Grow a mask to all sides; what is beyond the edge counts as its last row and column."""
    for axis in (0, 1):
        size = mask.shape[axis]
        pad = [(0, 0), (0, 0)]
        pad[axis] = (distance, distance)
        wide = np.pad(mask, pad, mode="edge")
        parts = (wide.take(range(first, first + size), axis) for first in range(2 * distance + 1))
        mask = np.logical_or.reduce([*parts])
    return mask


def _flooded(mask: NDArray[np.bool_], samples: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Add pixels that are connected to the mask by pixels of one colour, at most two blocks away."""
    if mask.all() or not mask.any():
        return mask
    mask = mask.copy()
    down = (samples[1:] == samples[:-1]).all(2)
    right = (samples[:, 1:] == samples[:, :-1]).all(2)
    for _ in range(2 * BLOCK):
        mask[1:] |= mask[:-1] & down
        mask[:-1] |= mask[1:] & down
        mask[:, 1:] |= mask[:, :-1] & right
        mask[:, :-1] |= mask[:, 1:] & right
    return mask
