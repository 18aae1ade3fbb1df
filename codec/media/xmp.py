"""Clean XMP packets: reset the orientation, remove positions and embedded thumbnails.

An XML parser says where elements begin and end, and the bytes between stay as they were. Nothing here takes
more than linear time, whatever the packet holds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from xml.parsers import expat

_ATTRIBUTE = re.compile(rb"""(\s*+)([^\s=<>/"']++)\s*+=\s*+("[^"]*+"|'[^']*+')""")
"""An attribute of a well-formed tag; only ever matched at a position, one after another."""
_POSITION = re.compile(r"[Gg][Pp][Ss]\w*|Latitude|Longitude")
_POSITION_LEFT = re.compile(rb"gps|latitude|longitude|\bgeo:|wgs84_pos|:lat\b|:long?\b", re.IGNORECASE)
"""Signs of a position in cleaned XMP; if any remain, the whole packet is dropped."""
_DIGITS = re.compile(rb"[0-9]{1,9}")
_DECLARATION = 1000
"""Longest XML declaration, in bytes."""

ORIENTATION = "Orientation"
_WIDTHS = {"ImageWidth", "PixelXDimension"}
_HEIGHTS = {"ImageLength", "PixelYDimension"}


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
    packet = _Packet.parse(data)
    if packet is None:
        return None
    numbers = {ORIENTATION: 1, **dict.fromkeys(_WIDTHS, width), **dict.fromkeys(_HEIGHTS, height)}
    cuts = [(*value.place, b"%d" % numbers[value.name]) for value in packet.values]
    cuts += [(*place, b"") for place in packet.thumbnails]
    if not keep_gps:
        cuts += [(*place, b"") for place in packet.positions]
    cleaned = _replaced(packet.data, cuts)
    if not keep_gps and _POSITION_LEFT.search(cleaned):
        raise ValueError("XMP with a position in a form that cannot be cut out")
    return cleaned


def xmp_orientation(data: bytes) -> int | None:
    """Read the orientation, 1 to 8, from an XMP packet; None if it has none.

    Raises:
        ValueError: as in `clean_xmp`.
    """
    packet = _Packet.parse(data)
    for value in packet.values if packet else []:
        if packet and value.name == ORIENTATION and 1 <= (number := value.number(packet.data)) <= 8:
            return number
    return None


def _replaced(data: bytes, cuts: list[tuple[int, int, bytes]]) -> bytes:
    """Replace ranges of bytes; of those that overlap, the first and outer one counts."""
    pieces, at = [], 0
    for start, end, piece in sorted(cuts, key=lambda cut: (cut[0], -cut[1])):
        if start >= at:
            pieces += [data[at:start], piece]
            at = end
    return b"".join([*pieces, data[at:]])


@dataclass(frozen=True)
class _Value:
    """A number in a packet: the name of its property, and where its digits are."""

    name: str
    place: tuple[int, int]

    def number(self, data: bytes) -> int:
        return int(data[slice(*self.place)])


@dataclass
class _Packet:
    """What a packet has, and where: ranges of bytes."""

    data: bytes
    values: list[_Value] = field(default_factory=list)
    positions: list[tuple[int, int]] = field(default_factory=list)
    thumbnails: list[tuple[int, int]] = field(default_factory=list)

    @classmethod
    def parse(cls, data: bytes) -> _Packet | None:
        data = data.strip(b"\0 \t\r\n")
        if not data:
            return None
        if b"\0" in data or data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            text = _wide(data)
            end = text.find("?>", 0, _DECLARATION) if text.startswith("<?xml ") else -2
            data = text[end + 2 :].encode()
        if b"<!DOCTYPE" in data:
            raise ValueError("XMP with a document type")
        packet = cls(data)
        try:
            packet._walk()
        except expat.ExpatError as error:
            raise ValueError("not XML") from error
        return packet

    def _walk(self) -> None:
        parser = expat.ParserCreate()
        opened: list[tuple[str, int, int, bool]] = []  # name, start, end of the first tag, whether it is all

        def start(name: str, _: dict[str, str]) -> None:
            at = parser.CurrentByteIndex
            opened.append((name.rpartition(":")[2], at, *self._tag(at, len(name.encode()))))

        def end(_: str) -> None:
            name, at, inner, alone = opened.pop()
            content = parser.CurrentByteIndex
            after = inner if alone else self.data.index(b">", content) + 1
            if name == "Thumbnails":
                self.thumbnails.append((at, after))
            elif _POSITION.fullmatch(name):
                self.positions.append((at, after))
            elif not alone:
                self._note(name, inner, content)

        parser.StartElementHandler, parser.EndElementHandler = start, end
        parser.Parse(self.data, True)

    def _tag(self, at: int, name_bytes: int) -> tuple[int, bool]:
        """Note the attributes of the tag at `at`; return its end, and whether it closes itself."""
        at += 1 + name_bytes
        while match := _ATTRIBUTE.match(self.data, at):
            prefix, _, name = match[2].decode("utf-8", "replace").rpartition(":")
            if prefix and _POSITION.fullmatch(name):
                self.positions.append(match.span())
            self._note(name, match.start(3) + 1, match.end(3) - 1)
            at = match.end()
        end = self.data.index(b">", at) + 1
        return end, self.data[end - 2 : end] == b"/>"

    def _note(self, name: str, start: int, end: int) -> None:
        """Note the value of a property that the orientation changes."""
        if name != ORIENTATION and name not in _WIDTHS and name not in _HEIGHTS or end - start > 100:
            return
        inner = self.data[start:end]
        value = inner.strip()
        if _DIGITS.fullmatch(value):
            at = start + inner.index(value)
            self.values.append(_Value(name, (at, at + len(value))))


def _wide(data: bytes) -> str:
    little = data[:2] == b"\xff\xfe" or data[1:2] == b"\0"
    # strip() above may have removed half of the last character.
    even = data if len(data) % 2 == 0 else data + b"\0" if little else data[:-1]
    return even.decode("utf-16-le" if little else "utf-16-be").lstrip("\ufeff")
