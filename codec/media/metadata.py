"""Clean EXIF: reset the orientation, remove positions and embedded thumbnails.

EXIF is copied, not re-encoded: entries that stay keep their offsets byte for byte, and all other bytes become
zeros. So types, byte order and offsets inside maker notes survive, unreferenced bytes do not, and the zeros
cost nothing once the metadata is deflated.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

EXIF_PREFIX = b"Exif\0\0"

ORIENTATION = 274
EXIF_IFD = 34665
GPS_IFD = 34853
INTEROP_IFD = 40965
POINTERS = {EXIF_IFD, GPS_IFD, INTEROP_IFD}
MAX_DIRECTORIES = 8
"""Sound EXIF has four at most."""
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
COLOR_SPACE, WIDTH, HEIGHT = 0xA001, 0xA002, 0xA003


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
    copied: int = 0

    def unpack(self, form: str, offset: int) -> tuple[int, ...]:
        return struct.unpack_from(self.order + form, self.data, offset)

    def put(self, offset: int, piece: bytes) -> None:
        # Sound blocks do not overlap: no more is copied than there is, or little more.
        self.copied += len(piece)
        if self.copied > 2 * len(self.data):
            raise ValueError("EXIF whose parts overlap")
        self.out[offset : offset + len(piece)] = piece
        self.end = max(self.end, offset + len(piece))

    def directory(self, start: int) -> bool:
        """Copy the directory at `start`; False if nothing was copied."""
        if start in self.seen or len(self.seen) == MAX_DIRECTORIES:
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
        if struct.unpack_from(order + "H", data, offset)[0] == ORIENTATION:
            value = integer(data, order, offset)
            if value is not None and 1 <= value <= 8:
                return value
    return None


def exif_says_adobe(data: bytes) -> bool:
    """Tell whether EXIF gives Adobe RGB as the colour space, in any of the two ways cameras write it.

    Raises:
        ValueError: the data are not an EXIF block.
    """
    data = data.removeprefix(EXIF_PREFIX)
    order = byte_order(data)
    start: int | None = struct.unpack_from(order + "I", data, 4)[0]
    space, index = None, b""
    for pointer in (EXIF_IFD, INTEROP_IFD, None):
        following = None
        for offset in entry_offsets(data, order, start or 0):
            tag = struct.unpack_from(order + "H", data, offset)[0]
            if tag == pointer:
                following = integer(data, order, offset)
            elif tag == COLOR_SPACE:
                space = integer(data, order, offset)
            elif tag == 1 and pointer is None:
                index = data[offset + 8 : offset + 12]
        start = following
    return space == 2 or (space == 0xFFFF and index.startswith(b"R03"))


def integer(data: bytes, order: str, offset: int) -> int | None:
    """Read the first value of an entry of 12 bytes, of any type of integers, or text of digits; else None.

    Cameras and editors write integers as any type; readers take what they find.
    """
    kind, count = struct.unpack_from(order + "HI", data, offset + 2)
    form = {1: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 13: "I"}.get(kind)
    if count == 0:
        return None
    if form is not None:
        small = struct.calcsize(form) * count <= 4
        at = offset + 8 if small else struct.unpack_from(order + "I", data, offset + 8)[0]
        return _number(order + form, data, at)
    if kind == 2 and count <= 4:
        text = data[offset + 8 : offset + 8 + count].rstrip(b"\0 ").lstrip()
        return int(text) if text.isdigit() else None
    if kind in (5, 10):
        at = struct.unpack_from(order + "I", data, offset + 8)[0]
        above, below = (_number(order + "I", data, at + shift) for shift in (0, 4))
        return above // below if above is not None and below and above % below == 0 else None
    return None


def _number(form: str, data: bytes, at: int) -> int | None:
    return int(struct.unpack_from(form, data, at)[0]) if at + struct.calcsize(form) <= len(data) else None


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
