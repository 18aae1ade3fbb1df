"""Read what the headers of WebP, GIF and BMP files say, and Pillow does not."""

from __future__ import annotations

import struct
from typing import BinaryIO

from .color import Colorimetry
from .file_metadata import FileMetadata

_MAX_PROFILE = 16 << 20


def read_webp(stream: BinaryIO) -> FileMetadata:
    """Find the place of the first frame of an animation on its canvas."""
    metadata = FileMetadata(stream)
    at = 12
    while True:
        stream.seek(at)
        head = stream.read(24)
        if len(head) < 24 or head[:4] in (b"VP8 ", b"VP8L"):
            return metadata
        if head[:4] == b"ANMF":
            left, top, width, height = (int.from_bytes(head[i : i + 3], "little") for i in (8, 11, 14, 17))
            metadata.visible = 2 * left, 2 * top, 2 * left + width + 1, 2 * top + height + 1
            return metadata
        size = int.from_bytes(head[4:8], "little")
        at += 8 + size + size % 2


def read_gif(stream: BinaryIO) -> FileMetadata:
    """Find the place of the first frame on its canvas, and texts."""
    metadata = FileMetadata(stream)
    stream.seek(10)
    flags = stream.read(3)[:1]
    stream.seek(13 + _table(flags))
    while (kind := stream.read(1)) == b"!":
        label = stream.read(1)
        filled = False
        while (size := stream.read(1)) > b"\0":
            filled |= bool(stream.read(size[0]).strip(b"\0 "))
        if filled and label in (b"\xfe", b"\x01"):
            metadata.note(
                "a comment: left out" if label == b"\xfe" else "plain text over the image: left out"
            )
    frame = stream.read(9)
    if kind == b"," and len(frame) == 9:
        left, top, width, height = struct.unpack_from("<4H", frame)
        metadata.visible = left, top, left + width, top + height
    return metadata


def _table(flags: bytes) -> int:
    return 3 << (1 + (flags[0] & 7)) if flags and flags[0] & 0x80 else 0


def read_bmp(stream: BinaryIO) -> FileMetadata:
    """Read the colours in a header of version 4 or 5: end points and exponents, or a profile."""
    metadata = FileMetadata(stream)
    stream.seek(0)
    head = stream.read(14 + 124)
    if len(head) < 14 + 108 or struct.unpack_from("<I", head, 14)[0] < 108:
        return metadata
    space = head[70:74]
    if space == b"DEBM" and len(head) == 14 + 124:  # "MBED": embedded
        place, size = struct.unpack_from("<II", head, 126)
        stream.seek(14 + place)
        metadata.icc = stream.read(size) if 0 < size <= _MAX_PROFILE else None
    elif space == b"KNIL":
        metadata.note("a linked colour profile: left out")
    elif space == bytes(4):
        ends = [value / 2**30 for value in struct.unpack_from("<9I", head, 74)]
        exponents = [value / 65536 for value in struct.unpack_from("<3I", head, 110)]
        metadata.colorimetry = _ends(ends, exponents)
    return metadata


def _ends(ends: list[float], exponents: list[float]) -> Colorimetry:
    """XYZ of red, green and blue, and an exponent each; all zero where nothing is stated."""
    sums = [sum(ends[index : index + 3]) for index in (0, 3, 6)]
    if not all(sums):
        return Colorimetry()
    white = [sum(ends[axis::3]) for axis in range(3)]
    pairs = [
        value
        for index, total in enumerate(sums)
        for value in (ends[3 * index] / total, ends[3 * index + 1] / total)
    ]
    whole = (white[0] / sum(white), white[1] / sum(white), *pairs)
    # An exponent near 2.2 stands for the curve of sRGB, as in PNG.
    curves = ["sRGB" if abs(value - 2.2) < 0.01 or value <= 0 else value for value in exponents]
    return Colorimetry.measured(whole, None, *curves)
