"""Large pictures in blocks: a network sees a block with a halo, so no seam is left and memory is bounded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

AREA = 1 << 16
"""Codes in a block at most, its halo not counted: 1 megapixel at stride 4.

Twice as much takes half as long again: the C library then returns every map to the system and asks anew.
"""

WIDTH = 512
"""Codes in a row of a block at most."""


@dataclass(frozen=True)
class Block:
    """A rectangle of codes, and the larger one around it that a network has to see.

    Attributes:
        top, bottom, left, right: the rectangle that the block is responsible for, in codes.
        halo: codes added on each side, fewer where the picture ends.
        height, width: of the whole grid of codes.
    """

    top: int
    bottom: int
    left: int
    right: int
    halo: int
    height: int
    width: int

    @property
    def inner(self) -> tuple[slice, slice]:
        """Rows and columns of the block in the whole grid."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def outer(self) -> tuple[slice, slice]:
        """Rows and columns of the block with its halo in the whole grid."""
        return (
            slice(max(self.top - self.halo, 0), min(self.bottom + self.halo, self.height)),
            slice(max(self.left - self.halo, 0), min(self.right + self.halo, self.width)),
        )

    @property
    def within(self) -> tuple[slice, slice]:
        """Rows and columns of the block inside its own outer rectangle."""
        rows, columns = self.outer
        return (
            slice(self.top - rows.start, self.bottom - rows.start),
            slice(self.left - columns.start, self.right - columns.start),
        )


def scaled(part: tuple[slice, slice], factor: int) -> tuple[slice, slice]:
    """The pixels of a rectangle of codes."""
    rows, columns = part
    return (
        slice(rows.start * factor, rows.stop * factor),
        slice(columns.start * factor, columns.stop * factor),
    )


def blocks(height: int, width: int, halo: int, area: int = AREA) -> list[Block]:
    """Cut a grid of codes into blocks of about equal size, in raster order.

    Args:
        height: of the grid, in codes.
        width: of the grid, in codes.
        halo: reach of the network, in codes.
        area: codes in a block at most.

    Returns:
        Blocks whose inner rectangles cover the grid once.
    """
    row_edges, column_edges = _edges(height, max(area // min(width, WIDTH), 1)), _edges(width, WIDTH)
    return [
        Block(top, bottom, left, right, halo, height, width)
        for top, bottom in row_edges
        for left, right in column_edges
    ]


def regions(height: int, width: int, side: int) -> list[tuple[slice, slice]]:
    """Squares of `side` codes that cover a grid, smaller at its end, in raster order."""
    return [
        (slice(top, min(top + side, height)), slice(left, min(left + side, width)))
        for top in range(0, height, side)
        for left in range(0, width, side)
    ]


def extend(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Repeat the last row and column of [H, W, C] until it is at least as high and wide as this."""
    below, right = max(height - pixels.shape[0], 0), max(width - pixels.shape[1], 0)
    return np.pad(pixels, ((0, below), (0, right), (0, 0)), mode="edge") if below or right else pixels


def pad_to_multiple(pixels: np.ndarray, multiple: int) -> np.ndarray:
    """Extend [H, W, C] by its last row and column until both sides are multiples."""
    height, width = pixels.shape[:2]
    return extend(pixels, height + -height % multiple, width + -width % multiple)


def _edges(length: int, longest: int) -> list[tuple[int, int]]:
    """Cut 0..length into the fewest pieces not longer than `longest`, about equally long."""
    count = -(-length // longest)
    ends = [length * n // count for n in range(count + 1)]
    return list(zip(ends, ends[1:], strict=False))
