"""Read and write the fields of untrusted binary data: integers, checked slices, bounded inflation.

Standard library only, so that headers are read without waiting for imports.
"""

from __future__ import annotations

import zlib

from ..errors import DamagedError

_RAW_DEFLATE = -15


class Cursor:
    """A reader of consecutive fields that never reads past the end.

    Every method raises DamagedError where the data end too early or an integer is malformed.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def need(self, size: int) -> None:
        """Raise DamagedError unless `size` more bytes remain."""
        if size > len(self.data) - self.at:
            raise DamagedError(f"truncated: {len(self.data)} bytes, and the header is longer")

    def take(self, size: int) -> bytes:
        """Read `size` bytes."""
        self.need(size)
        self.at += size
        return self.data[self.at - size : self.at]

    def byte(self) -> int:
        """Read one byte, 0 to 255."""
        return self.take(1)[0]

    def word(self) -> int:
        """Read an unsigned integer of four bytes, little endian."""
        return int.from_bytes(self.take(4), "little")

    def varint(self) -> int:
        """Read a LEB128 integer: seven bits per byte, lowest first, at most five, in its shortest form."""
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
    """Write an integer as LEB128, as read by `Cursor.varint`."""
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)


def word(value: int) -> bytes:
    """Write an unsigned integer in four bytes, as read by `Cursor.word`."""
    return value.to_bytes(4, "little")


def verified(stored: memoryview, size: int, crc: int) -> bytes | None:
    """Return a copy of `stored`, or None unless it has this size and this CRC32."""
    return bytes(stored) if len(stored) == size and zlib.crc32(stored) == crc else None


def deflate(payload: bytes) -> bytes:
    """Compress by raw deflate (RFC 1951)."""
    engine = zlib.compressobj(9, zlib.DEFLATED, _RAW_DEFLATE)
    return engine.compress(payload) + engine.flush()


def inflate(stored: bytes, size: int) -> bytes | None:
    """Decompress raw deflate in memory bounded by `size`; None unless exactly `size` bytes come out."""
    engine = zlib.decompressobj(_RAW_DEFLATE)
    try:
        # One byte more than stated: enough to notice a stream that goes on, too little for a bomb.
        payload = engine.decompress(stored, size + 1)
    except zlib.error:
        return None
    return payload if len(payload) == size and engine.eof and not engine.unused_data else None
