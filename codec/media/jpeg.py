"""Read what a JPEG holds besides its pixels, and whether its scans are sound.

Pillow's decoder fills what it cannot decode with gray and says nothing; a second decoder, which says what
libjpeg warns of, goes through the scans once more, at an eighth of the size.
"""

from __future__ import annotations

import re
from typing import BinaryIO

from .file_metadata import FileMetadata

_SCAN_END = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""A marker that ends a scan: neither a stuffed byte nor a restart."""
_HEAD = 1 << 18
"""A list of the images of a file (MPF) is within these bytes; Pillow follows it."""
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_BARE = {0x01, *range(0xD0, 0xD8)}
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_VIDEO = re.compile(rb"ftyp(?:mp4|isom|qt  |avc|M4V|3gp|iso[2-9])|MotionPhoto_Data")
_GAIN_MAP = re.compile(rb"hdrgm:Version|urn:iso:std:iso:ts:21496:-1|HDRGainMap|apple\.com/HDRGainMap")


def read_jpeg(stream: BinaryIO) -> FileMetadata:
    """Read the segments of a JPEG, and check its scans."""
    metadata = FileMetadata(stream)
    stream.seek(0)
    data = stream.read()
    lost: list[str] = []
    end, components = _segments(data, lost)
    trailer = data[end:].strip(b"\0") if end else b""
    if _VIDEO.search(trailer):
        lost.append("a video after the image (motion photo)")
    elif trailer.startswith(b"\xff\xd8") and b"MPF\0" not in data[:_HEAD]:
        lost.append("a second image after the first")
    elif len(trailer) > 3 and not trailer.startswith(b"\xff\xd8"):
        lost.append(f"{len(trailer):,} bytes after the image")
    if lost:
        metadata.note(f"{', '.join(dict.fromkeys(lost))}: left out")

    def check() -> str:
        damage = _damage(data[:end], components) if end else ""
        return f"damaged JPEG, parts of the image are wrong: {damage}" if damage else ""

    metadata.check = check
    return metadata


def _segments(data: bytes, lost: list[str]) -> tuple[int, int]:
    """Walk over the segments; return the end of the image, 0 if it has none, and the number of components."""
    at, components = 2, 3
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            found = data.find(b"\xff", at)
            at = found if found >= 0 else len(data)
            continue
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker == _EOI:
            return at + 2, components
        if marker in _BARE or marker == 0:
            at += 2
            continue
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + size]
        if marker in _FRAMES and len(body) > 5:
            components = body[5]
        _segment(marker, body, lost)
        at += 2 + max(size, 2)
        if marker == _SOS:
            match = _SCAN_END.search(data, at)
            at = match.end() - 2 if match else len(data)
    return (at + 2 if data[at : at + 2] == b"\xff\xd9" else 0), components


def _segment(marker: int, body: bytes, lost: list[str]) -> None:
    """Note what a segment holds that is not kept."""
    if marker == 0xFE and body.strip(b"\0 "):
        lost.append("a comment")
    elif marker == 0xED and body.startswith(b"Photoshop 3.0"):
        lost.append("IPTC" if b"8BIM\x04\x04" in body else "Photoshop data")
    elif marker == 0xE1 and body.startswith(b"http://ns.adobe.com/xmp/extension/\0"):
        lost.append("extended XMP")
    elif marker == 0xEB and b"jumb" in body[:40]:
        lost.append("content credentials (JUMBF)")
    if marker in (0xE1, 0xE2) and _GAIN_MAP.search(body):
        lost.append("an HDR gain map")


def _damage(data: bytes, components: int) -> str:
    """What a strict decoder says about the scans; empty if they are sound."""
    try:
        import simplejpeg
    except ImportError:  # no build for this machine
        return ""
    try:
        simplejpeg.decode_jpeg(
            data, colorspace="CMYK" if components == 4 else "GRAY", min_height=1, min_width=1, min_factor=8
        )
    except ValueError as error:
        text = " ".join(str(error).split())
        # Others are of kinds that this decoder alone cannot read, or that Pillow's refuses too.
        return text.removeprefix("Corrupt JPEG data: ") if _CORRUPT.search(text) else ""
    return ""


_CORRUPT = re.compile(r"Corrupt JPEG|Premature end|Inconsistent progression|restart|resync")
