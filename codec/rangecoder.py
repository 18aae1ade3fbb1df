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

import constriction
import numpy as np
from numpy.typing import NDArray

from .errors import DamagedError

PRECISION = 24
TOTAL = 1 << PRECISION

_MODEL = constriction.stream.model.Categorical(lazy=True)


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


def _excess(frequencies: NDArray[np.uint32]) -> NDArray[np.float32]:
    return np.subtract(frequencies, 1, dtype=np.float32, casting="unsafe")
