"""Encode thumbnails: the quality and the symbols of least error within a number of bytes.

For every quality and a range of trade-offs lambda, each symbol minimises error + lambda step^2 bits among the
two nearest integers and zero (rate-distortion optimised quantisation). Of all these the one of least error
that fits is written. Floating point chooses; only integers are written, and decoders see no choice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from . import layout
from .decoding import Placeholder, header_intervals
from .rangecoder import TOTAL, Encoder
from .tables import ASPECTS, FINEST, QUALITIES, Tables
from .text import LARGEST, pack

DEFAULT_SIZE = 24
"""Bytes of a placeholder, at most."""

SMALLEST = 4
"""The smallest limit that is accepted, in bytes: the checksum, the header and an average colour."""

TRADEOFFS = tuple(0.03 * 2 ** (n / 6) for n in range(24))
"""Values of lambda that are tried, in squared steps per bit: 0.03 to 0.43."""

NEAR = 4
"""Qualities that are searched on each side of where the middle trade-off just fits."""

_SPARE_BITS = 1.5
"""Bits that a text may have beyond its cross-entropy before it is sure not to fit."""


def aspect_index(width: int, height: int) -> int:
    """Return the index of the aspect ratio nearest to width / height, at most 16:1 either way."""
    return min(max(round(12 * math.log2(width / height)), -ASPECTS), ASPECTS)


@dataclass(frozen=True, eq=False)
class Searcher:
    """Arrays that encoding needs of a model, made once.

    Attributes:
        tables: of the model.
    """

    tables: Tables

    @cached_property
    def analysis(self) -> NDArray[np.float64]:
        """The least-squares inverse of the integer basis: float64 [D, M]."""
        return np.asarray(np.linalg.pinv(self._basis), np.float64)

    @cached_property
    def _basis(self) -> NDArray[np.float64]:
        """Rows of the basis as orthonormal coefficients: float64 [M, D]."""
        tables = self.tables
        return tables.basis * (tables.weights[:, None] / 65536) / layout.units()

    @cached_property
    def mean(self) -> NDArray[np.float64]:
        """Orthonormal coefficients of the mean: float64 [D]."""
        return self.tables.mean / layout.units()

    @cached_property
    def steps(self) -> NDArray[np.float64]:
        """Step of each quality: float64 [Q]."""
        return 2.0 ** ((FINEST + np.arange(QUALITIES)) / 4)

    @cached_property
    def bits(self) -> NDArray[np.float64]:
        """Bits of the symbols of all tables, one after the other, and a last zero: float64 [sum + 1]."""
        return np.append(-np.log2(self.tables.tables / TOTAL), 0.0)

    @cached_property
    def places(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Place of the symbol 0 in `bits`, and L, of each component at each quality: [Q, M] each.

        Components that are not coded have L = 0 and the place of a symbol that costs nothing.
        """
        tables = self.tables
        largest = tables.largest.astype(np.intp)
        middles = np.cumsum(2 * largest + 1) - largest - 1
        count = len(tables.basis)
        place = np.full((QUALITIES, count), len(tables.tables), np.intp)
        limit = np.zeros((QUALITIES, count), np.intp)
        for quality in range(QUALITIES):
            chosen = tables.chosen(quality)
            place[quality, : len(chosen)] = middles[chosen]
            limit[quality, : len(chosen)] = largest[chosen]
        return place, limit

    def candidates(
        self, latents: NDArray[np.float64], qualities: slice, tradeoffs: Sequence[float]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Quantise a thumbnail at several qualities and trade-offs.

        Args:
            latents: float64 [M], in 8-bit units.
            qualities: Q of them.
            tradeoffs: T values of lambda.

        Returns:
            Symbols int64 [T, Q, M], their bits [T, Q], and the squared errors [T, Q].
        """
        place, limit = (array[qualities] for array in self.places)
        steps = self.steps[qualities]
        scaled = latents / steps[:, None]
        low = np.floor(scaled).astype(np.int64)
        options = np.clip(np.stack((np.zeros_like(low), low, low + 1)), -limit, limit)
        bits = self.bits[place + options]
        errors = (scaled - options) ** 2
        costs = errors + np.array(tradeoffs)[:, None, None, None] * bits
        best = costs.argmin(1)[:, None]
        spread = (len(tradeoffs), *options.shape)
        symbols, spent, error = (
            np.take_along_axis(np.broadcast_to(array, spread), best, 1)[:, 0]
            for array in (options, bits, errors)
        )
        return symbols, spent.sum(2), error.sum(2) * steps**2

    def encode(
        self,
        thumbnail: NDArray[np.uint8],
        aspect: int,
        size: int = DEFAULT_SIZE,
        tradeoffs: Sequence[float] = TRADEOFFS,
    ) -> str:
        """Encode a thumbnail.

        Args:
            thumbnail: uint8 [32, 32, 3].
            aspect: index of the aspect ratio, -48..48.
            size: most bytes, SMALLEST..LARGEST.
            tradeoffs: values of lambda that are tried; 0 is the nearest symbols.

        Raises:
            UsageError: another size.
        """
        if not SMALLEST <= size <= LARGEST:
            raise UsageError(f"a placeholder of {size} bytes", f"give {SMALLEST} to {LARGEST}")
        latents = (layout.analyse(thumbnail[None])[0] - self.mean) @ self.analysis
        head = 8 - sum(math.log2(part / TOTAL) for _, part in header_intervals(aspect, 0))
        room = 8 * size - head
        _, (bits,), (errors,) = self.candidates(latents, slice(None), [tradeoffs[len(tradeoffs) // 2]])
        # Search around the best that fits: not always the finest, whose tables may end before a latent.
        near = int(np.where(bits <= room, errors, np.inf).argmin()) if (bits <= room).any() else QUALITIES - 1
        first = max(near - NEAR, 0)
        symbols, bits, errors = self.candidates(latents, slice(first, near + NEAR), tradeoffs)
        fitting = bits <= room + _SPARE_BITS
        order = np.argsort(np.where(fitting, errors, np.inf), axis=None, kind="stable")
        for place in order[: int(fitting.sum())].tolist():
            tradeoff, number = divmod(place, bits.shape[1])
            count = len(self.tables.chosen(first + number))
            payload = self.write(Placeholder(aspect, first + number, symbols[tradeoff, number, :count]))
            if len(payload) < size:
                return pack(0, payload)
        return pack(0, self.write(Placeholder(aspect, QUALITIES - 1, np.zeros(1, np.int64))))

    def write(self, placeholder: Placeholder) -> bytes:
        """Code symbols: the payload of a placeholder.

        Symbols that are missing at the end are zero.
        """
        encoder, tables = Encoder(), self.tables
        for start, size in header_intervals(placeholder.aspect, placeholder.quality):
            encoder.put(start, size)
        chosen = tables.chosen(placeholder.quality)
        symbols = placeholder.symbols.tolist()
        symbols += [0] * (len(chosen) - len(symbols))
        for table, symbol in zip(chosen, symbols, strict=True):
            place, cumulative = symbol + int(tables.largest[table]), tables.cumulative[table]
            encoder.put(cumulative[place], cumulative[place + 1] - cumulative[place])
        return encoder.finish()
