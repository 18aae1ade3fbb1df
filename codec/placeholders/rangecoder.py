"""Range coder of placeholders: 32-bit ranges, 14-bit frequencies, no byte more than needed at the end.

A coder of its own beside `coding.rangecoder`, whose words of 32 bits would be a sixth of a placeholder.
Decoders for web pages repeat it in doubles: no number reaches 2**53.
"""

from __future__ import annotations

from ..errors import DamagedError

PRECISION = 14
"""Bits of a frequency."""

TOTAL = 1 << PRECISION
"""Sum of the frequencies of an alphabet."""

_LOWEST = 1 << 24


class Encoder:
    """Encoder of symbols given by their intervals of frequencies (Martin 1979)."""

    def __init__(self) -> None:
        self._low, self._range, self._bytes = 0, (1 << 32) - 1, 4

    def put(self, start: int, size: int) -> None:
        """Code a symbol.

        Args:
            start: sum of the frequencies of the symbols before it.
            size: its frequency, at least 1.
        """
        unit = self._range >> PRECISION
        self._low += unit * start
        self._range = unit * size
        while self._range < _LOWEST:
            self._low <<= 8
            self._range <<= 8
            self._bytes += 1

    def finish(self) -> bytes:
        """Return the shortest bytes that, followed by zeros, are within the interval."""
        for count in range(self._bytes + 1):
            shift = 8 * (self._bytes - count)
            point = -(-self._low >> shift)
            if point << shift < self._low + self._range:
                return point.to_bytes(count, "big")
        raise AssertionError("an empty interval")


class Decoder:
    """Decoder of symbols; bytes beyond the end are zero."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 4
        self._code = int.from_bytes(data[:4].ljust(4, b"\0"), "big")
        self._range = (1 << 32) - 1

    def get(self, cumulative: list[int]) -> int:
        """Decode a symbol.

        Args:
            cumulative: sums of the frequencies before each symbol, and TOTAL.

        Raises:
            DamagedError: no encoder writes this.
        """
        unit = self._range >> PRECISION
        value = self._code // unit
        if value >= TOTAL:
            raise DamagedError("damaged placeholder", "copy the text again")
        low, high = 0, len(cumulative) - 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if cumulative[middle] <= value else (low, middle)
        self._code -= unit * cumulative[low]
        self._range = unit * (cumulative[low + 1] - cumulative[low])
        while self._range < _LOWEST:
            following = self._data[self._at] if self._at < len(self._data) else 0
            self._code = (self._code << 8) | following
            self._range <<= 8
            self._at += 1
        return low
