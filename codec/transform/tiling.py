"""Split large images and long audio into blocks with a halo, without seams and in bounded memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

AREA = 1 << 16
"""Largest number of codes in a block, without its halo: 1 megapixel at stride 4.

Twice as many take half as long again: the C library then returns every map to the system and reallocates it.
"""


@dataclass(frozen=True)
class Span:
    """An interval of codes along one axis, and the longer one with its halo.

    Attributes:
        start, stop: ends of the interval, in codes.
        halo: codes added at both ends, fewer where the axis ends.
        length: of the whole axis, in codes.
    """

    start: int
    stop: int
    halo: int
    length: int

    @property
    def inner(self) -> slice:
        """Slice of the interval in the whole axis."""
        return slice(self.start, self.stop)

    @property
    def outer(self) -> slice:
        """Slice of the interval with its halo in the whole axis."""
        return slice(max(self.start - self.halo, 0), min(self.stop + self.halo, self.length))

    @property
    def within(self) -> slice:
        """Slice of the interval in its own outer slice."""
        first = self.outer.start
        return slice(self.start - first, self.stop - first)


@dataclass(frozen=True)
class Block:
    """A rectangle of codes, and the larger one with its halo.

    Attributes:
        rows, columns: its two sides.
    """

    rows: Span
    columns: Span

    @property
    def inner(self) -> tuple[slice, slice]:
        """Rows and columns of the block in the whole grid."""
        return self.rows.inner, self.columns.inner

    @property
    def outer(self) -> tuple[slice, slice]:
        """Rows and columns of the block with its halo in the whole grid."""
        return self.rows.outer, self.columns.outer

    @property
    def within(self) -> tuple[slice, slice]:
        """Rows and columns of the block inside its own outer rectangle."""
        return self.rows.within, self.columns.within


def area_for(stride: int) -> int:
    """Return the number of codes that cover as many pixels as AREA does at stride 4."""
    return max(AREA * 16 // stride**2, 1)


def scaled(part: tuple[slice, ...], factor: int) -> tuple[slice, ...]:
    """Scale slices of codes to slices of samples."""
    return tuple(slice(axis.start * factor, axis.stop * factor) for axis in part)


def spans(length: int, halo: int, longest: int) -> list[Span]:
    """Split an axis of `length` codes into the fewest intervals of at most `longest`, of similar lengths."""
    count = -(-length // longest)
    ends = [length * n // count for n in range(count + 1)]
    return [Span(start, stop, halo, length) for start, stop in zip(ends, ends[1:], strict=False)]


def blocks(height: int, width: int, halo: int, area: int = AREA) -> list[Block]:
    """Split a grid of codes into blocks of similar size, in raster order.

    Args:
        height: of the grid, in codes.
        width: of the grid, in codes.
        halo: radius of the network's receptive field, in codes.
        area: largest number of codes in a block.

    Returns:
        Blocks whose inner rectangles cover the grid once.
    """
    longest = 2 * math.isqrt(area)
    rows = spans(height, halo, max(area // min(width, longest), 1))
    columns = spans(width, halo, longest)
    return [Block(row, column) for row in rows for column in columns]


def extend(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Repeat the last row and column of [H, W, C] up to at least this height and width."""
    below, right = max(height - pixels.shape[0], 0), max(width - pixels.shape[1], 0)
    return np.pad(pixels, ((0, below), (0, right), (0, 0)), mode="edge") if below or right else pixels


def pad_to_multiple(pixels: np.ndarray, multiple: int) -> np.ndarray:
    """Extend [H, W, C] by its last row and column until both sides are multiples."""
    height, width = pixels.shape[:2]
    return extend(pixels, height + -height % multiple, width + -width % multiple)
