"""Read what the boxes of AVIF and HEIF files say of the primary image: colours, depth, gain maps."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

from .color import Colorimetry
from .file_metadata import FileMetadata

_JXL_BOXES = {
    b"JXL ",
    b"ftyp",
    b"jxll",
    b"jxlc",
    b"jxlp",
    b"jxli",
    b"Exif",
    b"xml ",
    b"brob",
    b"jbrd",
    b"jhgm",
    b"jumb",
}
MAX_META = 16 << 20
"""Larger boxes of metadata are not read."""
_GAIN_MAPS = (b"hdrgainmap", b"HDRGainMap", b"urn:iso:std:iso:ts:21496:-1")


def read_heif(stream: BinaryIO) -> FileMetadata:
    """As `read_boxes`, of HEIC: its decoder turns the image itself."""
    metadata = read_boxes(stream)
    metadata.orientation = 1
    return metadata


def read_boxes(stream: BinaryIO) -> FileMetadata:
    """Read the box `meta`; what cannot be read is passed over."""
    metadata = FileMetadata(stream)
    meta = _meta(stream)
    try:
        _primary(meta, metadata)
    except (struct.error, IndexError, ValueError):
        metadata.note("colours could not be read, taken as sRGB")
    if any(name in meta for name in _GAIN_MAPS) or b"tmap" in meta:
        metadata.note("an HDR gain map: left out")
    return metadata


def read_jxl(stream: BinaryIO) -> FileMetadata:
    """Read the boxes of a JPEG XL container; its decoder turns the image itself and makes its profile."""
    metadata = FileMetadata(stream, orientation=1)
    size, at = stream.seek(0, os.SEEK_END), 0
    while at + 12 <= size:
        stream.seek(at)
        length, name, inner = struct.unpack(">I4s4s", stream.read(12))
        if name == b"xml " and 8 < length <= MAX_META:
            stream.seek(at + 8)
            metadata.xmp = stream.read(length - 8)
        elif name == b"brob" and inner in (b"xml ", b"Exif"):
            metadata.note(f"compressed {'XMP' if inner == b'xml ' else 'EXIF'}: left out")
        elif name == b"jhgm":
            metadata.note("an HDR gain map: left out")
        if length < 8 or name not in _JXL_BOXES:
            break
        at += length
    return metadata


def _meta(stream: BinaryIO) -> bytes:
    """The content of the top-level box `meta`; of an image sequence without one, its `moov`."""
    size, at = stream.seek(0, os.SEEK_END), 0
    found: dict[bytes, bytes] = {}
    while at + 8 <= size:
        stream.seek(at)
        head = stream.read(16)
        length, name = struct.unpack_from(">I4s", head)
        start = 8
        if length == 1 and len(head) == 16:
            length, start = struct.unpack_from(">Q", head, 8)[0], 16
        length = size - at if length == 0 else length
        if length < start:
            break
        if name in (b"meta", b"moov") and length <= MAX_META:
            stream.seek(at + start)
            found[name] = stream.read(length - start)
        at += length
    return found.get(b"meta", b"\0\0\0\0" + found.get(b"moov", b""))


def _boxes(data: bytes, start: int = 0) -> Iterator[tuple[bytes, bytes]]:
    while start + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, start)
        length = len(data) - start if length == 0 else length
        if length < 8:
            return
        yield name, data[start + 8 : start + length]
        start += length


def _primary(meta: bytes, metadata: FileMetadata) -> None:
    boxes = dict(_boxes(meta, 4))
    properties: list[tuple[bytes, bytes]] = []
    associated: set[int] | None = None
    if b"iprp" in boxes:
        inner = list(_boxes(boxes[b"iprp"]))
        properties = [box for name, data in inner if name == b"ipco" for box in _boxes(data)]
        associated = _associations(dict(inner).get(b"ipma", b""), _item(boxes.get(b"pitm", b"")))
    own = [box for index, box in enumerate(properties, 1) if associated is None or index in associated]
    if not own and (at := meta.find(b"colrnclx")) >= 0:
        own = [(b"colr", meta[at + 4 : at + 15])]
    has_icc = any(name == b"colr" and data[:4] in (b"prof", b"rICC") for name, data in own)
    depth = 8
    for name, data in own:
        if name == b"colr" and data[:4] == b"nclx":
            coded = Colorimetry.coded(*struct.unpack_from(">HH", data, 4))
            # A profile goes before code points, but for the kind of HDR that they tell.
            metadata.colorimetry = Colorimetry(note=coded.note) if has_icc else coded
        elif name == b"pixi" and len(data) > 5:
            depth = max(depth, *data[5 : 5 + data[4]])
    for name, data in properties:
        if name == b"av1C" and len(data) > 2 and data[2] & 0x40:
            depth = max(depth, 12 if data[2] & 0x20 else 10)
    if depth > 8:
        metadata.note(f"{depth}-bit samples, reduced to 8 bit")


def _item(pitm: bytes) -> int:
    return int(struct.unpack_from(">I" if pitm[0] else ">H", pitm, 4)[0])


def _associations(ipma: bytes, item: int) -> set[int]:
    """The numbers of the properties of an item."""
    version, flags = ipma[0], ipma[3]
    (count,) = struct.unpack_from(">I", ipma, 4)
    at = 8
    for _ in range(min(count, len(ipma))):
        form = ">I" if version else ">H"
        (number,) = struct.unpack_from(form, ipma, at)
        at += struct.calcsize(form)
        size = ipma[at]
        at += 1
        wide = 2 if flags & 1 else 1
        if number == item:
            parts = [ipma[at + wide * index : at + wide * index + wide] for index in range(size)]
            return {int.from_bytes(part, "big") & (0x7FFF if wide == 2 else 0x7F) for part in parts}
        at += wide * size
    return set()
