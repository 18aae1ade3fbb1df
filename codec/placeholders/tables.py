"""The integers that placeholders are decoded by, as the weights of `ppca-thumbnail` hold them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from . import layout
from .rangecoder import TOTAL

PREFIX = "placeholder."
"""Of the names of these arrays in a weights file."""

QUALITIES = 24
"""Number of quantisation steps; the step of quality q is 2**((FINEST + q) / 4), in 8-bit units."""

FINEST = 22
"""Quarter octaves of the finest step: 45.3."""

CLASSES = 29
"""Frequency tables of all components but the first, chosen by deviation over step in quarter octaves."""

LOWEST_CLASS = -10
"""Quarter octaves of deviation over step below which a component is not coded: it is zero."""

WEIGHT_BITS = 16
"""Fractional bits of a component's weight."""

STEPS = [math.floor(2 ** ((FINEST + q) / 4) * 16 + 0.5) for q in range(QUALITIES)]
"""Steps in sixteenths."""

ASPECTS = 48
"""Largest index of an aspect ratio, width / height = 2**(index / 12)."""

_COMMON = {7: 3072, 5: 3072, 0: 2116, -5: 2048, -7: 2048, 10: 1024, -10: 1024}
_OTHERS = 22

ASPECT_FREQUENCIES = [_COMMON.get(index, _OTHERS) for index in range(-ASPECTS, ASPECTS + 1)]
"""Frequencies of the indexes -48..48: 3:2, 4:3, 16:9 and squares cost 2.4 to 4 bits, others 9.5."""

_TYPES = {
    "basis": np.int8,
    "mean": np.int16,
    "weights": np.int16,
    "octaves": np.uint8,
    "largest": np.uint8,
    "tables": np.int16,
}


@dataclass(frozen=True, eq=False)
class Tables:
    """A pPCA of thumbnails, in integers.

    Attributes:
        basis: int8 [M, D].
        mean: int16 [D], integer coefficients of the mean, in units of `layout.UNIT`.
        weights: int16 [M], coefficients per unit of the basis, in 2**-16 `layout.UNIT`.
        octaves: uint8 [M], deviations in quarter octaves.
        largest: uint8 [CLASSES + QUALITIES], L of each table, whose symbols are -L..L.
        tables: int16 [sum of 2 L + 1], frequencies, table after table: those of the classes, then those of
            the first component at each quality.
    """

    basis: NDArray[np.int8]
    mean: NDArray[np.int16]
    weights: NDArray[np.int16]
    octaves: NDArray[np.uint8]
    largest: NDArray[np.uint8]
    tables: NDArray[np.int16]

    @classmethod
    def of(cls, tensors: Mapping[str, NDArray[np.generic]]) -> Tables:
        """Take the arrays from those of a weights file.

        Raises:
            ModelError: they are missing, or do not fit each other.
        """
        wrong = ModelError("weights without the tables of placeholders", "name ppca-thumbnail, or train one")
        try:
            arrays = {name: np.asarray(tensors[PREFIX + name]) for name in _TYPES}
        except KeyError:
            raise wrong from None
        size = len(arrays["basis"])
        lengths = 2 * arrays["largest"].astype(int) + 1
        shapes = {
            "basis": (size, layout.SIZE),
            "mean": (layout.SIZE,),
            "weights": (size,),
            "octaves": (size,),
            "largest": (CLASSES + QUALITIES,),
            "tables": (int(lengths.sum()),),
        }
        if any(a.dtype != _TYPES[n] or a.shape != shapes[n] for n, a in arrays.items()) or not size:
            raise wrong
        pieces = np.split(arrays["tables"].astype(int), np.cumsum(lengths)[:-1])
        if any(piece.min() < 1 or piece.sum() != TOTAL for piece in pieces):
            raise wrong
        return cls(**arrays)

    def to_bytes(self) -> bytes:
        """Return all arrays, little endian, in the order of the attributes, for decoders elsewhere."""
        arrays = (getattr(self, name) for name in _TYPES)
        return b"".join(a.astype(a.dtype.newbyteorder("<")).tobytes() for a in arrays)

    @cached_property
    def frequencies(self) -> list[NDArray[np.int64]]:
        """Frequencies of each table, int64 [2 L + 1]."""
        ends = np.cumsum(2 * self.largest.astype(int) + 1)
        return np.split(self.tables.astype(np.int64), ends[:-1])

    @cached_property
    def cumulative(self) -> list[list[int]]:
        """Sums of the frequencies before each symbol of each table, and the total."""
        return [[0, *np.cumsum(table).tolist()] for table in self.frequencies]

    def chosen(self, quality: int) -> list[int]:
        """Return the table of each component that is coded at a quality, the first components in turn."""
        return chosen_tables(self.octaves, quality)

    def gains(self, quality: int) -> NDArray[np.int64]:
        """Return coefficients per symbol and unit of the basis, in 2**-8 `layout.UNIT`: int64 [M]."""
        return (self.weights.astype(np.int64) * STEPS[quality] + (1 << 11)) >> 12

    def coefficients(self, symbols: NDArray[np.int64], quality: int) -> NDArray[np.int64]:
        """Return the integer coefficients of symbols, int64 [m], m <= M: int64 [D]."""
        count = len(symbols)
        sums = (symbols * self.gains(quality)[:count]) @ self.basis[:count].astype(np.int64)
        found: NDArray[np.int64] = self.mean + ((sums + 128) >> 8)
        return found


def chosen_tables(octaves: NDArray[np.uint8], quality: int) -> list[int]:
    """Return the number of the table of each component that is coded at a quality.

    Args:
        octaves: deviations in quarter octaves, falling, uint8 [M].
        quality: 0..23.
    """
    found = [CLASSES + quality]
    for octave in octaves[1:].tolist():
        number = octave - FINEST - quality - LOWEST_CLASS
        if number < 0:
            break
        found.append(min(number, CLASSES - 1))
    return found
