"""Gaussian frequency tables of 64 scales, and the fixed-point arithmetic that scales latents for the network.

A latent is stored in sixteenths of its step: v = 16 k + m, where k is the coded symbol and m its predicted
mean. Ratios of a standard deviation to a step are stored in sixteenths of an octave, so that scaling is a
product with one of 16 integers and a shift. FORMAT-priors.md gives the arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Context, Decimal
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .base import TOTAL
from .exact import INPUT

SCALE_LEVELS = 64
"""Number of standard deviations in the scale table: 2**((3 i - 53) / 16) steps, 0.1 to 362."""

SCALE_MIN, SCALE_MAX = -53, 3 * (SCALE_LEVELS - 1) - 53
"""log2 of the first and the last scale, in sixteenths."""

LATENT_UNIT = 16
"""Units of a latent per step: latents are stored in sixteenths of their step."""

LIMIT = 2**15 - 1
"""Largest absolute value of a latent, in sixteenths of a step."""

FLOOR = 16
"""Smallest frequency of a symbol: a probability of 2**-20."""

POWER_BITS = 14
"""Fractional bits of the table of powers of two."""

ESCAPE_BYTES = 3
"""Bytes, little endian, of a symbol beyond its table."""


class SignedTables:
    """Fixed frequency tables for signed symbols, chosen by index; each has an escape for values beyond it.

    Symbols of a table of 2 L + 2 frequencies are -L..L; the last frequency is that of the escape. Symbols
    whose index has no table are 0, and take no bits.

    Args:
        tables: uint32 [2 L + 2] each, at least 1 everywhere and summing to TOTAL; None for no table.
    """

    def __init__(self, tables: Sequence[NDArray[np.uint32] | None]) -> None:
        self.tables = tables
        self.empty = np.array([table is None for table in tables])
        self.largest = np.array([0 if t is None else len(t) // 2 - 1 for t in tables], np.int32)
        starts = np.cumsum([0, *(1 if t is None else len(t) for t in tables)])
        self._middle = starts[:-1].astype(np.int32) + self.largest
        self._escape = starts[1:].astype(np.int32) - 1
        self._bits = np.concatenate(
            [np.zeros(1) if t is None else -np.log2(t / TOTAL) for t in tables]
        ).astype(np.float32)
        self._bits[self._escape[[t is not None for t in tables]]] += 8 * ESCAPE_BYTES

    def of(self, index: int) -> NDArray[np.uint32]:
        """Return the table of an index that has one."""
        table = self.tables[index]
        if table is None:
            raise LookupError(f"index {index} has no table")
        return table

    def bits(self, symbols: NDArray[np.int32], indexes: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the bits of each symbol, float32 [n]; beyond the tables they include the escape."""
        beyond = np.abs(symbols) > self.largest[indexes]
        bits: NDArray[np.float32] = self._bits[
            np.where(beyond, self._escape[indexes], self._middle[indexes] + symbols)
        ]
        return bits

    def sample(self, raw: NDArray[np.uint64], indexes: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Draw symbols, without escapes.

        Args:
            raw: uint64 [n], random.
            indexes: unsigned [n], of each symbol's table.
        """
        symbols = np.zeros(len(indexes), np.int32)
        for index, positions in self.groups(indexes):
            table = self.tables[index]
            if table is not None:
                cumulative = np.cumsum(table[:-1].astype(np.int64))
                uniform = (raw[positions] >> np.uint64(40)).astype(np.int64) * cumulative[-1] >> 24
                symbols[positions] = np.searchsorted(cumulative, uniform, "right") - self.largest[index]
        return symbols

    def groups(self, indexes: NDArray[np.uint8]) -> Iterator[tuple[int, NDArray[np.intp]]]:
        """Yield each index that has a table, with its positions, in order."""
        order = np.argsort(indexes, kind="stable")
        ends = np.cumsum(np.bincount(indexes, minlength=len(self.tables)))
        for index, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            if start < end and self.tables[index] is not None:
                yield index, order[start:end]


@dataclass(frozen=True)
class Gaussian:
    """Probabilities of quantised latents: a `base.EntropyModel`.

    Attributes:
        means: int32 [n, c], in sixteenths of a step.
        scale_indexes: uint8 [n, c], of the standard deviation in the scale table; 0: the symbol is 0.
        units: int32 [n, 1], of a symbol, in sixteenths of a step.
    """

    means: NDArray[np.int32]
    scale_indexes: NDArray[np.uint8]
    units: NDArray[np.int32] = field(default_factory=lambda: np.full((1, 1), LATENT_UNIT, np.int32))

    @property
    def tables(self) -> SignedTables:
        """Tables that the scale indexes choose from."""
        return tables()

    def quantise(
        self, targets: NDArray[np.float32], rd_tradeoff: NDArray[np.float32] | None = None
    ) -> NDArray[np.int32]:
        """Quantise to the nearest symbols, or one nearer to zero where that saves bits worth the error.

        This is rate-distortion optimised quantisation (RDOQ), as in video encoders.

        Args:
            targets: latents in steps, float32 [n, c].
            rd_tradeoff: bits equivalent to a squared error of one step, [c]; None: always the nearest.
        """
        fineness = (LATENT_UNIT / self.units).astype(np.float32)
        offsets = (targets - self.means * np.float32(1 / LATENT_UNIT)) * fineness
        symbols = np.rint(offsets).astype(np.int32)
        symbols[self.tables.empty[self.scale_indexes]] = 0
        if rd_tradeoff is not None:
            rows, columns = symbols.nonzero()
            high, indexes = symbols[rows, columns], self.scale_indexes[rows, columns]
            low = high - np.sign(high)
            offset = offsets[rows, columns]
            saved = self.tables.bits(high, indexes) - self.tables.bits(low, indexes)
            tradeoff = (rd_tradeoff / np.square(fineness))[rows % len(fineness), columns]
            added = tradeoff * (np.square(offset - low) - np.square(offset - high))
            symbols[rows, columns] = np.where(saved > added, low, high)
        least, most = -((LIMIT + self.means) // self.units), (LIMIT - self.means) // self.units
        clipped: NDArray[np.int32] = np.clip(symbols, least, most)
        return clipped

    def values(self, symbols: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the latents of symbols, in sixteenths of a step."""
        latents: NDArray[np.int32] = np.clip(self.units * symbols + self.means, -LIMIT, LIMIT)
        return latents

    def bits(self, symbols: NDArray[np.int32]) -> float:
        """Return the sum of -log2 of the probabilities of symbols, int32 [n, c]."""
        return float(self.tables.bits(symbols, self.scale_indexes).sum())

    def sample(self, source: np.random.Philox) -> NDArray[np.int32]:
        """Draw symbols, int32 [n, c]."""
        raw = source.random_raw(self.means.size)
        flat = self.tables.sample(raw, self.scale_indexes.ravel())
        return flat.reshape(self.means.shape)


@cache
def tables() -> SignedTables:
    """Return the frequencies of the symbols -L..L and of the escape, for each scale index but 0.

    A symbol has FLOOR + round(P (TOTAL - (2 L + 2) FLOOR)), where P is the mass of a Gaussian between k - 1/2
    and k + 1/2 and L = ceil(6 sigma) + 2; the remainder goes to symbol 0. Symbols of scale index 0 are 0, and
    are not coded.
    """
    return SignedTables(
        [_frequencies(2 ** ((3 * i + SCALE_MIN) / 16)) if i else None for i in range(SCALE_LEVELS)]
    )


def _frequencies(sigma: float) -> NDArray[np.uint32]:
    return symmetric(scaled_masses(sigma, math.ceil(6 * sigma) + 2), FLOOR, escape=True)


def symmetric(scaled: NDArray[np.float64], floor: int, *, escape: bool) -> NDArray[np.uint32]:
    """Return the frequencies of symbols -L..L of a symmetric distribution; the remainder goes to symbol 0.

    Args:
        scaled: masses of the symbols 0..L, times what the floors leave of TOTAL. None is so near to a half
            that another library could round it elsewhere (tested).
        floor: added to each, and the frequency of the escape.
        escape: whether there is one, behind the symbols.
    """
    return mirrored(floor + np.floor(scaled + 0.5).astype(np.int64), floor, escape=escape)


def mirrored(half: NDArray[np.int64], floor: int, *, escape: bool) -> NDArray[np.uint32]:
    """Return the frequencies of symbols -L..L from those of 0..L; what TOTAL leaves goes to symbol 0.

    Args:
        half: int64 [L + 1].
        floor: frequency of the escape.
        escape: whether there is one, behind the symbols.
    """
    whole = np.concatenate((half[:0:-1], half, np.full(int(escape), floor)))
    whole[len(half) - 1] += TOTAL - whole.sum()
    return whole.astype(np.uint32)


def scaled_masses(sigma: float, largest: int) -> NDArray[np.float64]:
    """Return P(k) (TOTAL - (2 L + 2) FLOOR) of the symbols k = 0..L, float64 [L + 1]."""
    return masses(sigma, largest) * (TOTAL - (2 * largest + 2) * FLOOR)


def masses(sigma: float, largest: int) -> NDArray[np.float64]:
    """Return the mass P(k) of a Gaussian between k - 1/2 and k + 1/2, k = 0..L: float64 [L + 1]."""
    tails = [0.5 * math.erfc((k - 0.5) / (sigma * math.sqrt(2))) for k in range(largest + 2)]
    return np.asarray(np.subtract(tails[:-1], tails[1:]))


def scaled(values: Tensor, exponents: Tensor, shift: int) -> Tensor:
    """Return round(values * 2**(exponents / 16 - shift)), halves upwards, clamped to +-LIMIT.

    Args:
        values: int32 below 2**15, [N, C].
        exponents: int32 broadcast to it; shift - exponents / 16 is at least -POWER_BITS.
        shift: to the right.
    """
    factor = _powers()[exponents & 15]
    right = POWER_BITS + shift - (exponents >> 4)
    right = right.clamp(0, 31)
    half = torch.where(right > 0, 1 << (right - 1).clamp(min=0), 0)
    return ((values * factor + half) >> right).clamp(-LIMIT, LIMIT)


def powers(exponents: Tensor) -> Tensor:
    """Return 2**(exponents / 16) as `scaled` multiplies by it: int32 [C] -> float64 [C]."""
    return torch.ldexp(_powers()[exponents & 15].double(), (exponents >> 4) - POWER_BITS)


def compressed(values: Tensor) -> Tensor:
    """Return round(16 asinh(v / 16)) of latents in sixteenths of a step: int32 -> int32 within +-INPUT."""
    size = torch.bucketize(values.abs(), _asinh_thresholds(), out_int32=True, right=True)
    return torch.where(values < 0, -size, size)


@cache
def _powers() -> Tensor:
    """Return round(2**(POWER_BITS + f / 16)), f = 0..15: int32."""
    context = Context(prec=40)
    values = [context.power(2, Decimal(f) / 16) * 2**POWER_BITS for f in range(16)]
    return torch.tensor([int(value.to_integral_value()) for value in values], dtype=torch.int32)


@cache
def _asinh_thresholds() -> Tensor:
    """Return the smallest v with 16 asinh(v / 16) at least j - 1/2, j = 1..INPUT: int32."""
    context = Context(prec=40)
    thresholds = []
    for j in range(1, INPUT + 1):
        grown = context.exp(Decimal(2 * j - 1) / 32)
        thresholds.append(math.ceil((grown - 1 / grown) * 8))
    return torch.tensor(thresholds, dtype=torch.int32)
