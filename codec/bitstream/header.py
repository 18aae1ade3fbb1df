"""Read and write the header of a .vqc file: everything but the boxes and the chunks themselves.

FORMAT.md describes every byte. The bytes are not trusted: every length is compared with the bytes that
remain, every limit is checked before memory is allocated.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import DamagedError, LimitError, NotABitstreamError, VersionError
from .binary import Cursor, varint, word
from .geometry import KINDS, STRIDE_BITS, Geometry

MAGIC = b"\x8fVQC"
VERSION = 1
MAX_BOX = 2**24
MAX_SETTINGS = MAX_SOURCE = 255
RESIDUAL_SETTINGS = 3
"""Bytes of settings with a residual: quality index, that of the model's operating point, step."""

MAX_HEADER = 2**22
"""Upper bound of the size of a header in bytes, by the other limits: enough of a file to read its header."""

BOXES = {
    "icc": 0x01,
    "alpha": 0x02,
    "levels": 0x03,
    "stereo": 0x04,
    "exif": 0x81,
    "xmp": 0x82,
    "tags": 0x83,
    "pixel-crc": 0x84,
}
NAMES = {1: "vqvae-audio", 2: "vae-image"}
"""Models whose name is written as a number, since their files are small. A number is never reassigned."""

_NUMBERS = {name: number for number, name in NAMES.items()}
_BOX_NAMES = {number: name for name, number in BOXES.items()}
_OPTIONAL = 0x80
_OWN, _SETTINGS, _SOURCE, _BOXED, _TILED = 0x08, 0x10, 0x20, 0x40, 0x80
_NUMBERED = 0x80
_MODEL_NAME = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_PRINTABLE = re.compile(rb"[ -~]{1,255}")
_SMALLEST_CHUNK_ENTRY, _SMALLEST_PART_ENTRY = 6, 5
_FOREIGN = {
    b"\x89PNG": "a PNG",
    b"\xff\xd8\xff": "a JPEG",
    b"RIFF": "a WebP or WAV",
    b"GIF8": "a GIF",
    b"II*\0": "a TIFF",
    b"MM\0*": "a TIFF",
    b"BM": "a BMP",
    b"fLaC": "a FLAC",
    b"OggS": "an Ogg",
    b"FORM": "an AIFF",
    b"ID3": "an MP3",
    b"\0\0\0": "an AVIF, HEIC or MP4",
    b"%PDF": "a PDF",
    b"PK\3\4": "a ZIP",
    b"\x1f\x8b": "a gzip",
}


class BoxEntry(NamedTuple):
    """An entry of the box table: type, bytes in the file, bytes once inflated (0 where not deflated)."""

    number: int
    size: int
    inflated: int
    crc: int

    @property
    def name(self) -> str:
        """Name of the type; its number, as in "0x85", where the type is unknown."""
        return _BOX_NAMES.get(self.number, f"0x{self.number:02x}")


class ChunkEntry(NamedTuple):
    """An entry of the chunk table: prior, bytes in the file, checksum."""

    prior: int
    size: int
    crc: int


class PartEntry(NamedTuple):
    """An entry of the residual table or the tile table: bytes in the file, checksum."""

    size: int
    crc: int


@dataclass(frozen=True)
class Header:
    """Fields of the header in the order of the file; `container.Bitstream` describes them."""

    model: str
    fingerprint: bytes
    geometry: Geometry
    settings: bytes
    source: str
    boxes: list[BoxEntry]
    chunks: list[ChunkEntry]
    residuals: list[PartEntry]
    tiles: list[PartEntry]

    @property
    def body_bytes(self) -> int:
        """Bytes that follow the header: all boxes, chunks and tiles."""
        entries: list[BoxEntry | ChunkEntry | PartEntry] = [
            *self.boxes,
            *self.chunks,
            *self.residuals,
            *self.tiles,
        ]
        return sum(entry.size for entry in entries)


def write_header(header: Header) -> bytes:
    """Write a header, its checksum included.

    Raises:
        LimitError: the image, the audio or a box is larger than the format allows.
        ValueError: a field that the format cannot express.
    """
    geometry, settings = header.geometry, header.settings
    model, source = header.model.encode(), header.source.encode()
    geometry.check()
    if not _MODEL_NAME.fullmatch(model):
        raise ValueError(f"model name {header.model!r}")
    if source and not _PRINTABLE.fullmatch(source):
        raise ValueError(f"source {header.source!r}")
    if len(header.fingerprint) != 8 or len(settings) > MAX_SETTINGS:
        raise ValueError(f"fingerprint is 8 bytes, settings at most {MAX_SETTINGS}")
    if geometry.stride not in (1 << shift for shift in range(8)):
        raise ValueError(f"stride {geometry.stride}")
    if len(header.chunks) != geometry.chunk_count:
        raise ValueError(f"{len(header.chunks)} chunks for {geometry.chunk_count} regions")
    if header.tiles and (len(header.tiles) != len(geometry.tiles) or not any(t.size for t in header.tiles)):
        raise ValueError(f"{len(header.tiles)} tiles for {len(geometry.tiles)}, or all of them empty")

    if len(header.residuals) != _residual_count(geometry, settings):
        raise ValueError(f"{len(header.residuals)} residuals for these settings")

    flags = geometry.stride.bit_length() - 1
    for flag, is_set in (
        (_OWN, geometry.flag),
        (_SETTINGS, settings),
        (_SOURCE, source),
        (_BOXED, header.boxes),
        (_TILED, header.tiles),
    ):
        flags |= flag if is_set else 0
    data = bytearray(MAGIC)
    kind = next(number for number, known in KINDS.items() if isinstance(geometry, known))
    named = bytes((_NUMBERED | _NUMBERS[header.model],)) if header.model in _NUMBERS else b""
    data += bytes((VERSION, kind, flags)) + (named or bytes((len(model),)) + model) + header.fingerprint
    data += geometry.write()
    data += varint(len(settings)) + settings if settings else b""
    data += varint(len(source)) + source if source else b""
    data += varint(len(header.boxes)) if header.boxes else b""
    for box in header.boxes:
        _check_box(box)
        data += bytes((box.number,)) + varint(box.size) + varint(box.inflated) + word(box.crc)
    for chunk in header.chunks:
        data += bytes((chunk.prior,)) + varint(chunk.size) + word(chunk.crc)
    for part in (*header.residuals, *header.tiles):
        data += varint(part.size) + word(part.crc)
    return bytes(data + word(zlib.crc32(data)))


def read_header(data: bytes) -> tuple[Header, int]:
    """Read a header.

    Args:
        data: the file, or its first MAX_HEADER bytes.

    Returns:
        The header and its size in bytes.

    Raises:
        NotABitstreamError: other magic bytes.
        VersionError: a newer version, kind or box.
        LimitError: asks for more than the limits allow.
        DamagedError: truncated, checksum wrong, or a field contradicts another.
    """
    _check_magic(data)
    cursor = Cursor(data)
    cursor.take(len(MAGIC))
    version = cursor.byte()
    if version > VERSION:
        raise VersionError(f"bitstream version {version}, this program reads {VERSION}", "upgrade vqcodec")
    if version < VERSION:
        raise DamagedError(f"damaged header: version {version}")
    number = cursor.byte()
    kind = KINDS.get(number)
    if kind is None:
        raise VersionError(f"bitstream of kind {number} is unknown to this program", "upgrade vqcodec")
    flags = cursor.byte()
    model = _model_name(cursor)
    fingerprint = cursor.take(8)
    geometry = kind.read(cursor, 1 << (flags & STRIDE_BITS), bool(flags & _OWN))
    geometry.check()
    if flags & _TILED and not geometry.tiles:
        raise DamagedError("damaged header: reserved bit")
    settings = _short_field(cursor, MAX_SETTINGS) if flags & _SETTINGS else b""
    source = _short_field(cursor, MAX_SOURCE) if flags & _SOURCE else b""
    if source and not _PRINTABLE.fullmatch(source):
        raise DamagedError("damaged header: source")
    boxes = _read_boxes(cursor) if flags & _BOXED else []
    cursor.need(geometry.chunk_count * _SMALLEST_CHUNK_ENTRY)
    chunks = [ChunkEntry(cursor.byte(), cursor.varint(), cursor.word()) for _ in range(geometry.chunk_count)]
    residuals = _read_parts(cursor, _residual_count(geometry, settings))
    tiles = _read_parts(cursor, len(geometry.tiles) if flags & _TILED else 0)
    if flags & _TILED and not any(tile.size for tile in tiles):
        raise DamagedError("damaged header: no stored pixels")
    crc = zlib.crc32(memoryview(data)[: cursor.at])
    if cursor.word() != crc:
        raise DamagedError("damaged header")
    header = Header(model, fingerprint, geometry, settings, source.decode(), boxes, chunks, residuals, tiles)
    return header, cursor.at


def _check_magic(data: bytes) -> None:
    if data.startswith(MAGIC):
        return
    if not data:
        raise NotABitstreamError("empty file", "copy the file again, or encode the original again")
    if MAGIC.startswith(data):
        raise DamagedError(f"truncated: {len(data)} bytes, and the header is longer")
    known = next((name for start, name in _FOREIGN.items() if data.startswith(start)), "")
    start = data[:4].hex(" ") + (f": {known}" if known else "")
    raise NotABitstreamError(
        f"not a vqcodec bitstream (starts with {start})", "encode it first" if known else ""
    )


def _model_name(cursor: Cursor) -> str:
    length = cursor.byte()
    if length & _NUMBERED:
        number = length & ~_NUMBERED
        if number not in NAMES:
            raise VersionError(
                f"bitstream of model number {number}, unknown to this program", "upgrade vqcodec"
            )
        return NAMES[number]
    name = cursor.take(length)
    if not _MODEL_NAME.fullmatch(name) or name.decode() in _NUMBERS:
        raise DamagedError("damaged header: model name")
    return name.decode()


def _short_field(cursor: Cursor, limit: int) -> bytes:
    size = cursor.varint()
    if not 0 < size <= limit:
        raise DamagedError(f"damaged header: a field of {size:,} bytes")
    return cursor.take(size)


def _read_boxes(cursor: Cursor) -> list[BoxEntry]:
    boxes: list[BoxEntry] = []
    for _ in range(cursor.varint()):
        box = BoxEntry(cursor.byte(), cursor.varint(), cursor.varint(), cursor.word())
        if box.number <= (boxes[-1].number if boxes else 0):
            raise DamagedError("damaged header: boxes out of order")
        if box.name not in BOXES and not box.number & _OPTIONAL:
            raise VersionError(f"box {box.name} is unknown to this program", "upgrade vqcodec")
        if box.inflated and (box.inflated <= box.size or box.name == "alpha"):
            raise DamagedError(f"damaged header: size of box {box.name}")
        _check_box(box)
        boxes.append(box)
    if not boxes:
        raise DamagedError("damaged header: no boxes")
    return boxes


def _residual_count(geometry: Geometry, settings: bytes) -> int:
    """Return the number of residuals: one per region where the settings have a step."""
    return geometry.chunk_count if geometry.kind == "image" and len(settings) == RESIDUAL_SETTINGS else 0


def _read_parts(cursor: Cursor, count: int) -> list[PartEntry]:
    cursor.need(count * _SMALLEST_PART_ENTRY)
    return [PartEntry(cursor.varint(), cursor.word()) for _ in range(count)]


def _check_box(box: BoxEntry) -> None:
    # Alpha is a PNG and is not inflated here, so that the file's own size bounds it.
    # Unknown optional boxes are ignored, so their inflated size does not matter.
    size = max(box.size, box.inflated)
    if box.name in BOXES and box.name != "alpha" and size > MAX_BOX:
        raise LimitError(
            f"{box.name} of {size:,} bytes, limit {MAX_BOX:,}", f"encode it with --strip {box.name}"
        )
