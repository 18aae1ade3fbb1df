"""Read and write the .vqc container: header, metadata boxes, chunks and checksums <-> bytes.

FORMAT.md describes every byte. Standard library only, and payloads stay coded, so that `info` answers at
once.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from dataclasses import dataclass, field
from itertools import accumulate, chain
from typing import BinaryIO

from ..errors import DamagedError
from .binary import deflate, inflate, verified
from .geometry import PICTURES, REGION, SEGMENT, AudioGeometry, Geometry, ImageGeometry, SetGeometry
from .header import (
    BOXES,
    MAGIC,
    MAX_HEADER,
    VERSION,
    BoxEntry,
    ChunkEntry,
    Header,
    PartEntry,
    read_header,
    write_header,
)

__all__ = [
    "BITS_BACK",
    "LEARNED",
    "MAGIC",
    "LEARNED_PIXELS",
    "PICTURES",
    "PIXELS",
    "RAW",
    "REGION",
    "SEGMENT",
    "STATIC",
    "Part",
    "VERSION",
    "WEBP",
    "Bitstream",
    "Chunk",
    "ImageGeometry",
    "Info",
    "AudioGeometry",
    "SetGeometry",
    "check",
    "pack",
    "parse",
    "read_info",
]

RAW, STATIC, LEARNED, PIXELS, BITS_BACK = 0, 1, 2, 3, 4
"""Coding of a chunk: packed indices, static tables, a learned prior, none (tiles have all), bits back."""

WEBP, LEARNED_PIXELS = 0x2F, 0x50
"""First byte of the payload of a tile: lossless WebP, or the learned coder of pixels."""


@dataclass(frozen=True)
class Chunk:
    """The payload of one region.

    Attributes:
        prior: coding of the payload, 0 to 255: RAW, STATIC, LEARNED, PIXELS, BITS_BACK; others are reserved.
        payload: the coded bytes; of a damaged chunk those that are there, right or wrong.
        intact: whether size and CRC are right.
    """

    prior: int
    payload: bytes
    intact: bool = True


@dataclass(frozen=True)
class Part:
    """What is added to the pixels of the chunks: the residual of a region, or the stored pixels of a tile.

    Attributes:
        payload: range-coded coefficients, or stored pixels in one of two forms; empty where there is nothing
            to add.
        intact: whether size and CRC are right.
    """

    payload: bytes
    intact: bool = True


@dataclass(frozen=True)
class Bitstream:
    """The parsed content of a .vqc file.

    Attributes:
        model: name of the model, 1 to 64 of A-Z a-z 0-9 . _ + - with a letter or digit first.
        fingerprint: 8 bytes that identify the decoder's weights.
        geometry: size of the image, or length and channels of the audio.
        chunks: one per region of the geometry; after salvage some are not intact.
        settings: of variable-rate models the quality index, and with a residual the index of the model's
            operating point and the step; else empty. At most 255 bytes.
        source: format of the original image, such as "PNG"; at most 255 printable ASCII characters.
        boxes: "icc", "alpha", "levels", "stereo", "exif", "xmp", "tags", "pixel-crc" -> payload before
            deflation.
        residuals: one per region where the settings have a step.
        tiles: stored pixels, one for each tile of the geometry; none where no pixels are stored.
        damage: damage found by salvage, one phrase each.
    """

    model: str
    fingerprint: bytes
    geometry: Geometry
    chunks: list[Chunk]
    settings: bytes = b""
    source: str = ""
    boxes: dict[str, bytes] = field(default_factory=dict)
    residuals: list[Part] = field(default_factory=list)
    tiles: list[Part] = field(default_factory=list)
    damage: list[str] = field(default_factory=list, compare=False)

    @property
    def quality_index(self) -> int | None:
        """Quality index, 0..255; None for a model with one operating point."""
        return self.settings[0] if self.settings else None

    @property
    def model_index(self) -> int:
        """Quality index of the model's operating point; 0 for a model with one."""
        return self.settings[1 if self.residuals else 0] if self.settings else 0

    @property
    def kind(self) -> str:
        """Medium: "image" or "audio"."""
        return self.geometry.kind


@dataclass(frozen=True)
class Info:
    """Facts from the header alone; the bytes of all parts add up to `total_bytes`.

    Attributes:
        kind: "image", "audio" or "set".
        fingerprint: 16 hexadecimal digits.
        geometry: size of the image, or length and channels of the audio.
        settings: as in `Bitstream`.
        source: as in `Bitstream`.
        header_bytes: bytes of the header, its tables and checksum included.
        box_bytes: name -> bytes in the file; a box of unknown type is named by its number.
        code_bytes: bytes of all chunks.
        residual_bytes: bytes of all residuals.
        stored_bytes: bytes of all tiles of stored pixels.
        tiles: first byte of a tile's payload, which tells its form -> number of such tiles.
        tile_bytes: the same -> their bytes.
        chunks: number of chunks.
        priors: number of the prior -> number of its chunks.
        bits_per_code: number of the prior -> bits per code of its chunks; empty for variable-rate models,
            whose positions have many latents each.
        total_bytes: size of the file as stated by the header.
        file_bytes: actual size of the file; smaller where it is truncated.
    """

    version: int
    kind: str
    model: str
    fingerprint: str
    geometry: Geometry
    settings: bytes
    source: str
    header_bytes: int
    box_bytes: dict[str, int]
    code_bytes: int
    residual_bytes: int
    stored_bytes: int
    tiles: dict[int, int]
    tile_bytes: dict[int, int]
    chunks: int
    priors: dict[int, int]
    bits_per_code: dict[int, float]
    total_bytes: int
    file_bytes: int

    @property
    def quality_index(self) -> int | None:
        """Quality index, 0..255; None for a model with one operating point."""
        return self.settings[0] if self.settings else None

    @property
    def bpp(self) -> float | None:
        """Bits per pixel of the whole file; None for audio."""
        if isinstance(self.geometry, AudioGeometry):
            return None
        return 8 * self.total_bytes / math.prod(self.geometry.grid(1))

    @property
    def kbps(self) -> float | None:
        """Kilobits per second of the whole file; None for an image."""
        return (
            self.total_bytes / 125 / self.geometry.seconds
            if isinstance(self.geometry, AudioGeometry)
            else None
        )


def pack(bitstream: Bitstream) -> bytes:
    """Write a bitstream.

    Raises:
        LimitError: the image, the audio or a box is larger than the format allows.
        ValueError: a field that the format cannot express, or a damaged chunk.
    """
    payloads: list[Chunk | Part] = [*bitstream.chunks, *bitstream.residuals, *bitstream.tiles]
    if not all(part.intact for part in payloads):
        raise ValueError("a damaged chunk, residual or tile")
    if not set(bitstream.boxes) <= set(BOXES):
        raise ValueError(f"boxes {sorted(bitstream.boxes)}")
    boxes = [_store(name, bitstream.boxes[name]) for name in BOXES if name in bitstream.boxes]
    added = bitstream.residuals, bitstream.tiles
    header = Header(
        bitstream.model,
        bitstream.fingerprint,
        bitstream.geometry,
        bitstream.settings,
        bitstream.source,
        [entry for entry, _ in boxes],
        [ChunkEntry(c.prior, len(c.payload), zlib.crc32(c.payload)) for c in bitstream.chunks],
        *([PartEntry(len(part.payload), zlib.crc32(part.payload)) for part in parts] for parts in added),
    )
    parts = [write_header(header)]
    parts += [stored for _, stored in boxes]
    parts += [part.payload for part in payloads]
    return b"".join(parts)


def parse(data: bytes, *, salvage: bool = False) -> Bitstream:
    """Read a bitstream and verify all of it.

    Args:
        data: the whole file.
        salvage: tolerate damage behind an undamaged header: a damaged chunk is not intact, a damaged box is
            left out, bytes after the end are ignored; `Bitstream.damage` lists all of it.

    Raises:
        NotABitstreamError: other magic bytes.
        VersionError: a newer version, kind or box.
        LimitError: the header asks for more than the limits allow.
        DamagedError: truncated, a checksum is wrong, or a field contradicts another.
    """
    header, size = read_header(data)
    boxes, chunks, parts, damage = _read_body(header, size, data)
    if damage and not salvage:
        raise DamagedError(damage[0], "decode the undamaged part with --salvage")
    return Bitstream(
        model=header.model,
        fingerprint=header.fingerprint,
        geometry=header.geometry,
        chunks=chunks,
        settings=header.settings,
        source=header.source,
        boxes=boxes,
        residuals=parts[: len(header.residuals)],
        tiles=parts[len(header.residuals) :],
        damage=damage,
    )


def check(data: bytes) -> list[str]:
    """Describe all damage behind the header; an empty list for an undamaged file.

    Raises:
        BitstreamError: the header itself cannot be read, as in `parse`.
    """
    header, size = read_header(data)
    return _read_body(header, size, data)[-1]


def read_info(source: bytes | BinaryIO) -> Info:
    """Read the header, and the first byte of each tile; what follows is not verified, and may be missing.

    Args:
        source: the file's bytes, or a binary file at its first byte; at most MAX_HEADER bytes are held.

    Raises:
        BitstreamError: the header cannot be read, as in `parse`.
    """
    data = source if isinstance(source, bytes) else source.read(MAX_HEADER)
    header, size = read_header(data)
    total = size + header.body_bytes
    ends = accumulate((tile.size for tile in header.tiles), initial=total - sum(t.size for t in header.tiles))
    starts = {at: tile.size for at, tile in zip(ends, header.tiles, strict=False) if tile.size}
    tiles, tile_bytes = Counter[int](), Counter[int]()
    file_bytes = 0
    rest = () if isinstance(source, bytes) else iter(lambda: source.read(2**20), b"")
    for block in chain((data,), rest):
        for at in [at for at in starts if at < file_bytes + len(block)]:
            form = block[at - file_bytes]
            tiles[form] += 1
            tile_bytes[form] += starts.pop(at)
        file_bytes += len(block)
    box_bytes = {box.name: box.size for box in header.boxes}
    return Info(
        version=VERSION,
        kind=header.geometry.kind,
        model=header.model,
        fingerprint=header.fingerprint.hex(),
        geometry=header.geometry,
        settings=header.settings,
        source=header.source,
        header_bytes=size,
        box_bytes=box_bytes,
        code_bytes=sum(chunk.size for chunk in header.chunks),
        residual_bytes=sum(part.size for part in header.residuals),
        stored_bytes=sum(tile.size for tile in header.tiles),
        tiles=dict(tiles),
        tile_bytes=dict(tile_bytes),
        chunks=len(header.chunks),
        priors=dict(Counter(chunk.prior for chunk in header.chunks)),
        bits_per_code=_bits_per_code(header),
        total_bytes=total,
        file_bytes=file_bytes,
    )


def _bits_per_code(header: Header) -> dict[int, float]:
    if header.settings:
        return {}
    size: Counter[int] = Counter()
    codes: Counter[int] = Counter()
    for chunk, region in zip(header.chunks, header.geometry.regions, strict=True):
        if chunk.prior not in (PIXELS, BITS_BACK):
            size[chunk.prior] += chunk.size
            codes[chunk.prior] += math.prod(region.shape(header.geometry.stride))
    return {prior: 8 * size[prior] / count for prior, count in codes.items()}


def _read_body(
    header: Header, at: int, data: bytes
) -> tuple[dict[str, bytes], list[Chunk], list[Part], list[str]]:
    """Return the undamaged boxes, all chunks, residuals and tiles, and a description of all damage."""
    damage = []
    total = at + header.body_bytes
    if len(data) < total:
        damage.append(f"truncated: {len(data)} of {total} bytes")
    elif len(data) > total:
        damage.append(f"{len(data) - total} bytes after the end")
    view = memoryview(data)
    boxes: dict[str, bytes] = {}
    for box in header.boxes:
        payload = verified(view[at : at + box.size], box.size, box.crc)
        if payload is not None and box.inflated:
            payload = inflate(payload, box.inflated) if box.name in BOXES else b""
        if payload is None:
            damage.append(f"damaged in box {box.name}")
        elif box.name in BOXES:
            boxes[box.name] = payload
        at += box.size
    payloads: list[tuple[bytes, bool]] = []
    counts = {"chunk": len(header.chunks), "residual": len(header.residuals), "tile": len(header.tiles)}
    names = [f"{kind} {n} of {count}" for kind, count in counts.items() for n in range(1, count + 1)]
    entries: list[ChunkEntry | PartEntry] = [*header.chunks, *header.residuals, *header.tiles]
    for name, entry in zip(names, entries, strict=True):
        stored = view[at : at + entry.size]
        intact = verified(stored, entry.size, entry.crc) is not None
        if not intact:
            damage.append(f"damaged in {name}")
        payloads.append((bytes(stored), intact))
        at += entry.size
    chunks = [Chunk(entry.prior, *part) for entry, part in zip(header.chunks, payloads, strict=False)]
    return boxes, chunks, [Part(*part) for part in payloads[len(chunks) :]], damage


def _store(name: str, payload: bytes) -> tuple[BoxEntry, bytes]:
    deflated = deflate(payload) if name != "alpha" else payload
    shrunk = len(deflated) < len(payload)
    stored, inflated = (deflated, len(payload)) if shrunk else (payload, 0)
    return BoxEntry(BOXES[name], len(stored), inflated, zlib.crc32(stored)), stored
