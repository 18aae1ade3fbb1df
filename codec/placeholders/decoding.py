"""Decode placeholders: text to symbols to pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import layout
from .rangecoder import Decoder
from .tables import ASPECT_FREQUENCIES, ASPECTS, QUALITIES, Tables
from .text import unpack

LONGEST_SIDE = 4096
"""Largest side of a decoded placeholder, in pixels."""

_ASPECTS = [sum(ASPECT_FREQUENCIES[:n]) for n in range(len(ASPECT_FREQUENCIES) + 1)]
_QUALITIES = [(n << 14) // QUALITIES for n in range(QUALITIES + 1)]


@dataclass(frozen=True)
class Placeholder:
    """The symbols of a placeholder.

    Attributes:
        aspect: index of the aspect ratio, -48..48; width / height is 2**(aspect / 12).
        quality: 0, the finest step, to 23.
        symbols: int64 [m], of the components that are coded at this quality.
    """

    aspect: int
    quality: int
    symbols: NDArray[np.int64]

    def size(self, width: int) -> tuple[int, int]:
        """Return width and height that have the aspect ratio, each 1 to LONGEST_SIDE."""
        height = round(width / 2 ** (self.aspect / 12))
        return width, min(max(height, 1), LONGEST_SIDE)


def header_intervals(aspect: int, quality: int) -> list[tuple[int, int]]:
    """Return the intervals of the two symbols before those of the components: first frequency, size."""
    index = aspect + ASPECTS
    return [
        (_ASPECTS[index], ASPECT_FREQUENCIES[index]),
        (_QUALITIES[quality], _QUALITIES[quality + 1] - _QUALITIES[quality]),
    ]


def decode(text: str, tables: Tables) -> Placeholder:
    """Decode the symbols of a text.

    Raises:
        DamagedError: not a placeholder, or a damaged one.
        VersionError: of a model of a later version.
    """
    _, payload = unpack(text)
    decoder = Decoder(payload)
    aspect = decoder.get(_ASPECTS) - ASPECTS
    quality = decoder.get(_QUALITIES)
    chosen = tables.chosen(quality)
    symbols = [decoder.get(tables.cumulative[table]) - int(tables.largest[table]) for table in chosen]
    return Placeholder(aspect, quality, np.array(symbols, np.int64))


def render(placeholder: Placeholder, tables: Tables, width: int, height: int) -> NDArray[np.uint8]:
    """Compute pixels from symbols: uint8 [height, width, 3]."""
    coefficients = tables.coefficients(placeholder.symbols, placeholder.quality)
    return layout.synthesise(coefficients, width, height)
