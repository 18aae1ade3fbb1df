"""Integer codes + integer frequencies <-> bytes.

The coder is constriction's range coder with words of 32 bits, a state of 64 bits and probabilities of 24
bits; FORMAT.md gives its arithmetic. Frequencies are uint32 [n, K], one row per symbol, each at least 1, each
row summing to TOTAL. They are not verified here: a prior answers for its tables.

constriction's lazy categorical model takes floats p and lets the interval of symbol s begin at
floor(scale * (p_0 + ... + p_{s-1})) + s, with scale = (2**24 - K) / (p_0 + ... + p_{K-1}). Here p is the
frequency less one: the scale is exactly 1 and every sum is an integer below 2**24, exact in float32 in
whatever order it is taken, so the intervals are the cumulative frequencies on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from ..errors import DamagedError

PRECISION = 24
TOTAL = 1 << PRECISION

ESCAPED = 3
"""Bytes, little endian, of a code that its table does not have."""

_MODEL = constriction.stream.model.Categorical(lazy=True)
_BYTES = constriction.stream.model.Uniform(256)


class Tables:
    """Frequencies that are used again and again, by number: signed codes, each by the table that it names.

    Codes of a table of 2 L + 2 frequencies are -L..L; the last frequency is that of an escape, for what lies
    beyond. Codes by a number without a table are 0, and take nothing.

    Args:
        tables: uint32 [2 L + 2] each, at least 1 everywhere and summing to TOTAL; None for no table.
    """

    def __init__(self, tables: Sequence[NDArray[np.uint32] | None]) -> None:
        self.tables = tables
        self.models = [None if t is None else _fixed(t) for t in tables]
        self.largest = np.array([0 if t is None else len(t) // 2 - 1 for t in tables], np.int32)
        starts = np.cumsum([0, *(1 if t is None else len(t) for t in tables)])
        self._middle = starts[:-1].astype(np.int32) + self.largest
        self._escape = starts[1:].astype(np.int32) - 1
        self._costs = np.concatenate(
            [np.zeros(1) if t is None else -np.log2(t / TOTAL) for t in tables]
        ).astype(np.float32)
        self._costs[self._escape[[t is not None for t in tables]]] += 8 * ESCAPED

    def costs(self, codes: NDArray[np.int32], numbers: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Bits of codes by these tables; of what a table does not have, those of the escape."""
        beyond = np.abs(codes) > self.largest[numbers]
        bits: NDArray[np.float32] = self._costs[
            np.where(beyond, self._escape[numbers], self._middle[numbers] + codes)
        ]
        return bits

    def drawn(self, raw: NDArray[np.uint64], numbers: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Draw codes, without escapes.

        Args:
            raw: uint64 [n], random.
            numbers: uint8 [n], of each code's table.
        """
        codes = np.zeros(len(numbers), np.int32)
        for number, where in _by_table(numbers, self):
            table = self.tables[number]
            assert table is not None
            rising = np.cumsum(table[:-1].astype(np.int64))
            uniform = (raw[where] >> np.uint64(40)).astype(np.int64) * rising[-1] >> 24
            codes[where] = np.searchsorted(rising, uniform, "right") - self.largest[number]
        return codes


class Encoder:
    """Writes symbols one call after the other."""

    def __init__(self) -> None:
        self._coder = constriction.stream.queue.RangeEncoder()

    def encode(self, symbols: NDArray[np.int32], frequencies: NDArray[np.uint32]) -> None:
        """Append symbols.

        Args:
            symbols: int32 [n], each in 0..K-1.
            frequencies: uint32 [n, K], each row at least 1 everywhere and summing to TOTAL; K at least 2.
        """
        if len(symbols):
            self._coder.encode(np.ascontiguousarray(symbols, np.int32), _MODEL, _excess(frequencies))

    def encode_by(self, codes: NDArray[np.int32], numbers: NDArray[np.uint8], tables: Tables) -> None:
        """Append signed codes, table by table; those beyond their tables follow in ESCAPED bytes each.

        Args:
            codes: int32 [n], of 3 bytes with their sign; 0 where the number has no table.
            numbers: uint8 [n], of each code's table.
            tables: the tables.
        """
        for number, where in _by_table(numbers, tables):
            largest = tables.largest[number]
            symbols = codes[where]
            beyond = np.abs(symbols) > largest
            shifted = np.where(beyond, 2 * largest + 1, symbols + largest).astype(np.int32)
            self._coder.encode(shifted, tables.models[number])
            if beyond.any():
                whole = symbols[beyond].astype("<i4").view(np.uint8).reshape(-1, 4)[:, :ESCAPED]
                self._coder.encode(whole.astype(np.int32).ravel(), _BYTES)

    def finish(self) -> bytes:
        """All that was encoded: 32-bit words, little endian; empty if nothing was."""
        return bytes(self._coder.get_compressed().astype("<u4").tobytes())


class Decoder:
    """Reads back what `Encoder` wrote, given the same frequencies in the same order.

    Other bytes give other symbols, in 0..K-1 like all, or a DamagedError.
    """

    def __init__(self, data: bytes) -> None:
        """Start at the first word.

        Args:
            data: what `Encoder.finish` returned.

        Raises:
            DamagedError: not a whole number of words.
        """
        if len(data) % 4:
            raise DamagedError(f"{len(data)} bytes of codes are not a whole number of words")
        self._coder = constriction.stream.queue.RangeDecoder(np.frombuffer(data, "<u4").astype(np.uint32))

    def decode(self, frequencies: NDArray[np.uint32]) -> NDArray[np.int32]:
        """Read as many symbols as there are rows.

        Args:
            frequencies: uint32 [n, K], as in `Encoder.encode`.

        Returns:
            int32 [n], each in 0..K-1.

        Raises:
            DamagedError: the bytes belong to no symbol.
        """
        if not len(frequencies):
            return np.zeros(0, np.int32)
        try:
            symbols: NDArray[np.int32] = self._coder.decode(_MODEL, _excess(frequencies))
        except AssertionError:
            raise DamagedError("codes that no encoder writes") from None
        return symbols

    def decode_by(self, numbers: NDArray[np.uint8], tables: Tables) -> NDArray[np.int32]:
        """Read what `Encoder.encode_by` wrote with these tables.

        Returns:
            int32 [n].

        Raises:
            DamagedError: the bytes belong to no code.
        """
        codes = np.zeros(len(numbers), np.int32)
        try:
            for number, where in _by_table(numbers, tables):
                largest = tables.largest[number]
                symbols = self._coder.decode(tables.models[number], len(where)) - largest
                beyond = symbols > largest
                if beyond.any():
                    count = int(beyond.sum())
                    whole = self._coder.decode(_BYTES, ESCAPED * count).reshape(count, ESCAPED)
                    symbols[beyond] = (whole << (0, 8, 16)).sum(1) - ((whole[:, -1] >= 128) << 24)
                codes[where] = symbols
        except AssertionError:
            raise DamagedError("codes that no encoder writes") from None
        return codes

    def finish(self) -> None:
        """Say that every symbol has been read.

        Raises:
            DamagedError: there are bytes left.
        """
        if not self._coder.maybe_exhausted():
            raise DamagedError("more codes than the picture has")


def pack_raw(codes: NDArray[np.int32], bits: int) -> bytes:
    """Pack codes at a fixed width, most significant bit first, the last byte filled up with zeros.

    Args:
        codes: int32, any shape, read in raster order, each in 0..2**bits-1.
        bits: 1 to 16 per code.
    """
    shifts = np.arange(bits - 1, -1, -1, dtype=np.int32)
    digits = (np.ravel(codes)[:, None] >> shifts & 1).astype(np.uint8)
    return np.packbits(digits).tobytes()


def unpack_raw(data: bytes, count: int, bits: int) -> NDArray[np.int32]:
    """Undo `pack_raw`.

    Args:
        data: the packed bytes.
        count: how many codes there are.
        bits: 1 to 16 per code.

    Returns:
        int32 [count], each in 0..2**bits-1.

    Raises:
        DamagedError: the size is another, or the filling is not zero.
    """
    expected = (count * bits + 7) // 8
    if len(data) != expected:
        raise DamagedError(f"{len(data)} bytes of codes where {expected} are needed")
    digits = np.unpackbits(np.frombuffer(data, np.uint8))
    if digits[count * bits :].any():
        raise DamagedError("codes that no encoder writes")
    weights = 1 << np.arange(bits - 1, -1, -1, dtype=np.int32)
    codes: NDArray[np.int32] = digits[: count * bits].reshape(count, bits) @ weights
    return codes


def _by_table(numbers: NDArray[np.uint8], tables: Tables) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Each number that has a table, and where it stands, in order."""
    order = np.argsort(numbers, kind="stable")
    ends = np.cumsum(np.bincount(numbers, minlength=len(tables.models)))
    for number, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        if start < end and tables.models[number] is not None:
            yield number, order[start:end]


def _fixed(frequencies: NDArray[np.uint32]) -> Any:
    """A model with one table for all symbols; its intervals are those of the lazy one."""
    return constriction.stream.model.Categorical(_excess(frequencies), perfect=False)


def _excess(frequencies: NDArray[np.uint32]) -> NDArray[np.float32]:
    return np.subtract(frequencies, 1, dtype=np.float32, casting="unsafe")
