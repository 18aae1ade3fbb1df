"""Clean EXIF and XMP: reset the orientation, remove positions and embedded thumbnails.

EXIF is copied, not re-encoded: entries that stay keep their offsets byte for byte, and all other bytes become
zeros. So types, byte order and offsets inside maker notes survive, unreferenced bytes do not, and the zeros
cost nothing once the metadata is deflated.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from xml.parsers import expat

EXIF_PREFIX = b"Exif\0\0"

ORIENTATION = 274
EXIF_IFD = 34665
GPS_IFD = 34853
INTEROP_IFD = 40965
POINTERS = {EXIF_IFD, GPS_IFD, INTEROP_IFD}
TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}

# Layout of the pixels of a TIFF file: wrong, or dangerous, in any other file.
STRUCTURAL = frozenset(
    [*range(254, 260), *range(262, 267), 273, *range(277, 282), 284, *range(288, 294), 301]
    + [*range(317, 329), 330, *range(332, 335), 336, *range(338, 343), 347]
    + [*range(512, 516), *range(517, 522), 529, 530, 532, 559]
)
# XMP and ICC are stored separately; Photoshop blocks and 0x501B hold thumbnails.
CARRIED_ELSEWHERE = frozenset([700, 34675, 34377, 37724, 0x501B])
# GeoTIFF tags give a position as exactly as a GPS directory.
POSITIONS = frozenset([GPS_IFD, 33550, 33922, 34264, 34735, 34736, 34737])
WIDTH, HEIGHT = 0xA002, 0xA003


@dataclass
class _Copy:
    """Copy of one EXIF block; `end` is the end of the last byte that was copied."""

    data: bytes
    order: str
    drop: frozenset[int]
    width: int
    height: int
    out: bytearray
    end: int = 8
    seen: set[int] = field(default_factory=set)

    def unpack(self, form: str, offset: int) -> tuple[int, ...]:
        return struct.unpack_from(self.order + form, self.data, offset)

    def put(self, offset: int, piece: bytes) -> None:
        self.out[offset : offset + len(piece)] = piece
        self.end = max(self.end, offset + len(piece))

    def directory(self, start: int) -> bool:
        """Copy the directory at `start`; False if nothing was copied."""
        if start in self.seen:
            return False
        self.seen.add(start)
        offsets = entry_offsets(self.data, self.order, start)
        entries = [entry for offset in offsets if (entry := self.entry(offset))]
        if not entries:
            return False
        # The zero is the pointer to the next directory: the thumbnail's.
        self.put(start, struct.pack(self.order + "H", len(entries)) + b"".join(entries) + bytes(4))
        return True

    def entry(self, offset: int) -> bytes:
        """Copy the value of one entry and return its 12 bytes; empty if it is dropped or broken."""
        tag, kind, count = self.unpack("HHI", offset)
        length = TYPE_BYTES.get(kind, 0) * count
        if tag in self.drop or length == 0:
            return b""
        if tag in POINTERS:
            return self.data[offset : offset + 12] if self.directory(self.unpack("I", offset + 8)[0]) else b""
        if tag == ORIENTATION:
            return struct.pack(self.order + "HHIHH", tag, 3, 1, 1, 0)
        if tag in (WIDTH, HEIGHT):
            return struct.pack(self.order + "HHII", tag, 4, 1, self.width if tag == WIDTH else self.height)
        if length > 4:
            value = self.unpack("I", offset + 8)[0]
            if value < 8 or value + length > len(self.data):
                return b""
            self.put(value, self.data[value : value + length])
        return self.data[offset : offset + 12]


def byte_order(data: bytes) -> str:
    """Return the byte order of a TIFF structure as a struct prefix, "<" or ">".

    Raises:
        ValueError: there is no TIFF header.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4], "")
    if not order or len(data) < 8:
        raise ValueError("no TIFF header")
    return order


def entry_offsets(data: bytes, order: str, start: int) -> range:
    """Return the offsets of the 12-byte entries of a directory; empty if it is out of bounds.

    If the directory states more entries than the data hold, only complete entries count.
    """
    if not 8 <= start <= len(data) - 2:
        return range(0)
    count = min(struct.unpack_from(order + "H", data, start)[0], (len(data) - start - 2) // 12)
    return range(start + 2, start + 2 + 12 * count, 12)


def exif_orientation(data: bytes) -> int | None:
    """Read the orientation, 1 to 8, from an EXIF block; None if it has none.

    Raises:
        ValueError: the data are not an EXIF block.
    """
    data = data.removeprefix(EXIF_PREFIX)
    order = byte_order(data)
    (start,) = struct.unpack_from(order + "I", data, 4)
    for offset in entry_offsets(data, order, start):
        tag, kind, _, value = struct.unpack_from(order + "HHIH", data, offset)
        if tag == ORIENTATION and kind == 3 and 1 <= value <= 8:
            return int(value)
    return None


def clean_exif(data: bytes, width: int, height: int, *, keep_gps: bool = False) -> bytes | None:
    r"""Clean the EXIF of an upright image: remove the thumbnail and, by default, the position.

    Args:
        data: a TIFF structure, with or without the prefix `Exif\0\0`.
        width: pixels after the orientation was applied; written to the pixel dimension tags, if present.
        height: likewise.
        keep_gps: keep the GPS directory and GeoTIFF tags.

    Returns:
        The TIFF structure without the prefix; None if nothing remains.

    Raises:
        ValueError: the data are not an EXIF block.
    """
    data = data.removeprefix(EXIF_PREFIX)
    order = byte_order(data)
    drop = STRUCTURAL | CARRIED_ELSEWHERE | (frozenset() if keep_gps else POSITIONS)
    copy = _Copy(data, order, drop, width, height, bytearray(len(data)))
    copy.put(0, data[:8])
    if not copy.directory(struct.unpack_from(order + "I", data, 4)[0]):
        return None
    return bytes(copy.out[: copy.end])


_NAME = rb"(?:[\w.-]+:)?"
_POSITION = rb"(?:[Gg][Pp][Ss]\w*|Latitude|Longitude)"
_ATTRIBUTE = rb"""\s+[\w.-]+:%b\s*=\s*(?:"[^"]*"|'[^']*')"""
_ELEMENT = rb"""<(%b)(?:\s+[\w.:-]+\s*=\s*(?:"[^"]*"|'[^']*'))*\s*(?:/>|>.*?</\1\s*>)"""
_THUMBNAILS = re.compile(_ELEMENT % (_NAME + rb"Thumbnails"), re.DOTALL)
_POSITION_ELEMENTS = re.compile(_ELEMENT % (_NAME + _POSITION), re.DOTALL)
_POSITION_ATTRIBUTES = re.compile(_ATTRIBUTE % _POSITION)
_POSITION_LEFT = re.compile(rb"gps|latitude|longitude|\bgeo:|wgs84_pos|:lat\b|:long?\b", re.IGNORECASE)
"""Signs of a position in cleaned XMP; if any remain, the whole packet is dropped."""
_VALUE = rb"""((?:\s|<)[\w.-]+:%b(?:\s*=\s*["']|\s*>\s*))(\d+)"""
_ORIENTATION = re.compile(_VALUE % rb"Orientation")
_WIDTH = re.compile(_VALUE % rb"(?:ImageWidth|PixelXDimension)")
_HEIGHT = re.compile(_VALUE % rb"(?:ImageLength|PixelYDimension)")


def xmp_orientation(data: bytes) -> int | None:
    """Read the orientation, 1 to 8, from an XMP packet; None if it has none."""
    match = _ORIENTATION.search(data)
    value = int(match[2][:2]) if match else 0
    return value if 1 <= value <= 8 else None


def clean_xmp(data: bytes, width: int, height: int, *, keep_gps: bool = False) -> bytes | None:
    """Clean the XMP of an upright image of `width` x `height` pixels, as `clean_exif` does EXIF.

    Positions are attributes and elements named GPS..., Latitude or Longitude in any namespace: exif, and
    those of camera and drone makers.

    Returns:
        The packet in UTF-8; None if it was empty.

    Raises:
        ValueError: the packet is not XML, has a document type (which XMP forbids, and bombs need), or has a
            position that cannot be cut out.
    """
    data = data.strip(b"\0 \t\r\n")
    if not data:
        return None
    if b"\0" in data or data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        data = re.sub(r"""(<\?xml[^>]*?)\s+encoding\s*=\s*["'][^"']*["']""", r"\1", _wide(data)).encode()
    if b"<!DOCTYPE" in data:
        raise ValueError("XMP with a document type")
    try:
        # Well-formed, every element closes: the patterns below run in linear time and cannot miss an end.
        expat.ParserCreate().Parse(data, True)
    except expat.ExpatError as error:
        raise ValueError("not XML") from error
    data = _THUMBNAILS.sub(b"", data)
    if not keep_gps:
        data = _POSITION_ATTRIBUTES.sub(b"", _POSITION_ELEMENTS.sub(b"", data))
        if _POSITION_LEFT.search(data):
            raise ValueError("XMP with a position in a form that cannot be cut out")
    data = _ORIENTATION.sub(rb"\g<1>1", data)
    data = _WIDTH.sub(rb"\g<1>%d" % width, data)
    return _HEIGHT.sub(rb"\g<1>%d" % height, data)


def _wide(data: bytes) -> str:
    little = data[:2] == b"\xff\xfe" or data[1:2] == b"\0"
    # strip() above may have removed half of the last character.
    even = data if len(data) % 2 == 0 else data + b"\0" if little else data[:-1]
    return even.decode("utf-16-le" if little else "utf-16-be").lstrip("\ufeff")
