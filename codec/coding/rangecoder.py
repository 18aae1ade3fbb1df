"""Range coder: integer symbols and integer probabilities <-> bytes.

The coder is constriction's range coder with words of 32 bits, a state of 64 bits and probabilities of 24
bits; FORMAT-priors.md gives its arithmetic. Frequencies are not verified here: priors guarantee them.

constriction's lazy categorical model takes floats p and lets the interval of symbol s begin at
floor(scale * (p_0 + ... + p_{s-1})) + s, with scale = (2**24 - K) / (p_0 + ... + p_{K-1}). Here p is the
frequency less one: the scale is exactly 1 and every sum is an integer below 2**24, exact in float32 in
whatever order it is taken, so the intervals are the cumulative frequencies on every machine.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import constriction
import numpy as np
from numpy.typing import NDArray

from ..errors import DamagedError
from ..priors.base import Categorical, EntropyModel
from ..priors.gaussian_tables import ESCAPE_BYTES, Gaussian, SignedTables

CATEGORICAL = constriction.stream.model.Categorical(lazy=True)
"""Family of models of indices, whose parameters are those of `pmf_minus_one`."""

_BYTES = constriction.stream.model.Uniform(256)


class RangeEncoder:
    """RangeEncoder of symbols, call after call."""

    def __init__(self) -> None:
        self._coder = constriction.stream.queue.RangeEncoder()

    def encode(self, symbols: NDArray[np.int32], model: EntropyModel) -> None:
        """Append symbols.

        Args:
            symbols: int32, within the alphabet of the model: indices [n] in 0..K-1 of a `Categorical`, signed
                24-bit integers [n, c] of a `Gaussian`, 0 where the scale index is 0.
            model: their probabilities.
        """
        if isinstance(model, Categorical):
            if len(symbols):
                rows = pmf_minus_one(model.frequencies)
                self._coder.encode(np.ascontiguousarray(symbols, np.int32), CATEGORICAL, rows)
        elif isinstance(model, Gaussian):
            self._encode_with_indexes(symbols.ravel(), model.scale_indexes.ravel(), model.tables)
        else:
            raise TypeError(f"no coding by {type(model).__name__}")

    def _encode_with_indexes(
        self, symbols: NDArray[np.int32], indexes: NDArray[np.uint8], tables: SignedTables
    ) -> None:
        """Encode table by table; symbols beyond a table follow it in ESCAPE_BYTES bytes each."""
        for index, positions in tables.groups(indexes):
            largest = tables.largest[index]
            some = symbols[positions]
            beyond = np.abs(some) > largest
            shifted = np.where(beyond, 2 * largest + 1, some + largest).astype(np.int32)
            self._coder.encode(shifted, _models(tables)[index])
            if beyond.any():
                whole = some[beyond].astype("<i4").view(np.uint8).reshape(-1, 4)[:, :ESCAPE_BYTES]
                self._coder.encode(whole.astype(np.int32).ravel(), _BYTES)

    def finish(self) -> bytes:
        """Return the encoded bytes: 32-bit words, little endian; empty without symbols."""
        return bytes(self._coder.get_compressed().astype("<u4").tobytes())


class RangeDecoder:
    """RangeDecoder of the bytes of `RangeEncoder`, given the same probabilities in the same order.

    Arbitrary bytes decode to other symbols within the alphabets, or raise DamagedError.
    """

    def __init__(self, data: bytes) -> None:
        """Start at the first word.

        Args:
            data: from `RangeEncoder.finish`.

        Raises:
            DamagedError: not a whole number of words.
        """
        if len(data) % 4:
            raise DamagedError(f"{len(data)} bytes of codes are not a whole number of words")
        self._coder = constriction.stream.queue.RangeDecoder(np.frombuffer(data, "<u4").astype(np.uint32))

    def decode(self, model: EntropyModel) -> NDArray[np.int32]:
        """Decode the symbols of a model.

        Args:
            model: their probabilities.

        Returns:
            int32, [n] of a `Categorical`, [n, c] of a `Gaussian`.

        Raises:
            DamagedError: the bytes belong to no symbol.
        """
        try:
            if isinstance(model, Categorical):
                if not len(model.frequencies):
                    return np.zeros(0, np.int32)
                symbols: NDArray[np.int32] = self._coder.decode(CATEGORICAL, pmf_minus_one(model.frequencies))
                return symbols
            if isinstance(model, Gaussian):
                flat = self._decode_with_indexes(model.scale_indexes.ravel(), model.tables)
                return flat.reshape(model.scale_indexes.shape)
        except AssertionError:
            raise DamagedError("codes that no encoder writes") from None
        raise TypeError(f"no coding by {type(model).__name__}")

    def _decode_with_indexes(self, indexes: NDArray[np.uint8], tables: SignedTables) -> NDArray[np.int32]:
        symbols = np.zeros(len(indexes), np.int32)
        for index, positions in tables.groups(indexes):
            largest = tables.largest[index]
            some = self._coder.decode(_models(tables)[index], len(positions)) - largest
            beyond = some > largest
            if beyond.any():
                count = int(beyond.sum())
                whole = self._coder.decode(_BYTES, ESCAPE_BYTES * count).reshape(count, ESCAPE_BYTES)
                some[beyond] = (whole << (0, 8, 16)).sum(1) - ((whole[:, -1] >= 128) << 24)
            symbols[positions] = some
        return symbols

    def finish(self) -> None:
        """Check that no bytes are left after the last symbol.

        Raises:
            DamagedError: bytes are left.
        """
        if not self._coder.maybe_exhausted():
            raise DamagedError("bytes of codes are left after the last symbol")


def pack_raw(codes: NDArray[np.int32], bits: int) -> bytes:
    """Pack indices at a fixed width, most significant bit first, the last byte filled up with zeros.

    Args:
        codes: int32, any shape, in raster order, each in 0..2**bits-1.
        bits: 1 to 16 per code.
    """
    shifts = np.arange(bits - 1, -1, -1, dtype=np.int32)
    digits = (np.ravel(codes)[:, None] >> shifts & 1).astype(np.uint8)
    return np.packbits(digits).tobytes()


def unpack_raw(data: bytes, count: int, bits: int) -> NDArray[np.int32]:
    """Unpack the indices of `pack_raw`.

    Args:
        data: the packed bytes.
        count: number of codes.
        bits: 1 to 16 per code.

    Returns:
        int32 [count], each in 0..2**bits-1.

    Raises:
        DamagedError: another size, or padding bits that are not zero.
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


_MODELS: WeakKeyDictionary[SignedTables, list[Any]] = WeakKeyDictionary()


def _models(tables: SignedTables) -> list[Any]:
    """Return tables as constriction's models; their intervals are those of the lazy model."""
    found = _MODELS.get(tables)
    if found is None:
        found = [None if table is None else table_model(table) for table in tables.tables]
        _MODELS[tables] = found
    return found


def table_model(frequencies: NDArray[np.uint32]) -> Any:
    """Return one table as constriction's model, for the symbols 0 to its length less one."""
    return constriction.stream.model.Categorical(pmf_minus_one(frequencies), perfect=False)


def pmf_minus_one(frequencies: NDArray[np.uint32]) -> NDArray[np.float32]:
    """Return constriction's parameters for frequencies, of the same shape."""
    return np.subtract(frequencies, 1, dtype=np.float32, casting="unsafe")
