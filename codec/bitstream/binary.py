"""Fields of a binary format that is not trusted: numbers, checked slices, bounded inflation.

Standard library only, so that headers are read without waiting for anything.
"""

from __future__ import annotations

import zlib

from ..errors import DamagedError

_RAW_DEFLATE = -15


class Cursor:
    """Reads fields one after the other and never past the end.

    Every method raises DamagedError where the data end too early or a number is malformed.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def need(self, size: int) -> None:
        """Refuse to go on unless `size` more bytes are there."""
        if size > len(self.data) - self.at:
            raise DamagedError(f"truncated: {len(self.data)} bytes, and the header is longer")

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        self.need(size)
        self.at += size
        return self.data[self.at - size : self.at]

    def byte(self) -> int:
        """One byte, 0 to 255."""
        return self.take(1)[0]

    def word(self) -> int:
        """Four bytes, little endian."""
        return int.from_bytes(self.take(4), "little")

    def varint(self) -> int:
        """LEB128: seven bits a byte, lowest first; at most five bytes, and no more than the value needs."""
        value = 0
        for shift in range(0, 35, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if byte == 0 and shift:
                    break
                return value
        raise DamagedError("damaged header: malformed number")


def varint(value: int) -> bytes:
    """Write what `Cursor.varint` reads."""
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)


def word(value: int) -> bytes:
    """Write what `Cursor.word` reads."""
    return value.to_bytes(4, "little")


def verified(stored: memoryview, size: int, crc: int) -> bytes | None:
    """A copy of `stored`, or None unless it has this size and this CRC32."""
    return bytes(stored) if len(stored) == size and zlib.crc32(stored) == crc else None


def deflate(payload: bytes) -> bytes:
    """Raw deflate (RFC 1951)."""
    engine = zlib.compressobj(9, zlib.DEFLATED, _RAW_DEFLATE)
    return engine.compress(payload) + engine.flush()


def inflate(stored: bytes, size: int) -> bytes | None:
    """Undo `deflate` in memory bounded by `size`; None unless exactly `size` bytes come out."""
    engine = zlib.decompressobj(_RAW_DEFLATE)
    try:
        # One byte more than is stated: enough to notice a stream that goes on, too little for a bomb.
        payload = engine.decompress(stored, size + 1)
    except zlib.error:
        return None
    return payload if len(payload) == size and engine.eof and not engine.unused_data else None
