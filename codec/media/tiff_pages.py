"""Find the image in a TIFF file: the page of full size, and what its tags say that Pillow passes over.

Tags are read as far as they are needed; offsets and counts are followed within bounds. Pillow gets the file
with a few bytes replaced: the offset of the page, and values that it would take wrongly.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

from ..errors import MediaError
from .color import SRGB, Colorimetry
from .file_metadata import FileMetadata
from .kinds import DEVELOP
from .opening import Spliced

MAX_PAGES = 64
"""So many directories are looked at; a raw image, or the full size of a thumbnail, is not found beyond."""
MAX_ENTRIES = 4096
MAX_VALUES = 1 << 17

_FORMS = {1: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_SIZES = {2: 1, 5: 8, 10: 8, 11: 4, 12: 8}
_NEW_SUBFILE, _SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 255, 256, 257, 258, 259, 262
_STRIPS, _ORIENTATION, _SAMPLES, _TRANSFER, _WHITE, _PRIMARIES = 273, 274, 277, 301, 318, 319
_TILES, _SUBIFDS, _EXTRA, _FORMAT, _XMP = 324, 330, 338, 339, 700
_PHOTOSHOP, _LAYERS, _ICC, _DNG = 34377, 37724, 34675, 50706
_RAW = {32803, 34892, 52527}
_RAW_COMPRESSIONS = {262, 32767, 32769, 32770, 34713, 65000, 65535}
_UNREADABLE = {
    34661: "JBIG", 34712: "JPEG 2000", 33003: "JPEG 2000", 33004: "JPEG 2000", 33005: "JPEG 2000",
    34887: "LERC", 50002: "JPEG XL", 52546: "JPEG XL", 34892: "lossy JPEG of a raw file",
}  # fmt: skip
_COLOURS = {2: 3, 5: 4, 6: 3, 8: 3, 9: 3, 10: 3}


@dataclass
class _Page:
    """A directory: tag -> type, count, place of the values and place of the entry."""

    entries: dict[int, tuple[int, int, int, int]]
    next: int
    inner: bool = False
    offset: int = 0


@dataclass
class _Tiff:
    """The directories of a file."""

    stream: BinaryIO
    order: str
    big: bool
    size: int
    pages: list[_Page] = field(default_factory=list)

    def at(self, offset: int, count: int) -> bytes:
        self.stream.seek(offset)
        return self.stream.read(count)

    def unpack(self, form: str, offset: int) -> tuple[int, ...]:
        form = self.order + form
        return struct.unpack(form, self.at(offset, struct.calcsize(form)))

    def page(self, offset: int) -> _Page:
        """Read a directory; without entries if it is out of bounds."""
        head, step = ("Q", 20) if self.big else ("H", 12)
        start = offset + struct.calcsize(self.order + head)
        try:
            count = min(self.unpack(head, offset)[0], MAX_ENTRIES)
            block = self.at(start, count * step)
            following = self.unpack("Q" if self.big else "I", start + count * step)[0]
        except (struct.error, OverflowError, ValueError, OSError):
            return _Page({}, 0)
        entries = {}
        for at in range(0, len(block) - step + 1, step):
            tag, kind, number = struct.unpack_from(self.order + ("HHQ" if self.big else "HHI"), block, at)
            form = _FORMS.get(kind)
            bytes_each = struct.calcsize(self.order + form) if form else _SIZES.get(kind, 0)
            inline = at + (12 if self.big else 8)
            place = start + inline
            if bytes_each * number > (8 if self.big else 4):
                place = struct.unpack_from(self.order + ("Q" if self.big else "I"), block, inline)[0]
            entries[tag] = kind, number, place, start + at
        return _Page(entries, following, offset=offset)

    def values(self, page: _Page, tag: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """The integers of a tag, or the halves of its fractions."""
        kind, count, place, _ = page.entries.get(tag, (0, 0, 0, 0))
        form, count = _FORMS.get(kind, "I" if kind in (5, 10) else ""), min(count, MAX_VALUES)
        if not form or not count:
            return default
        try:
            return self.unpack(f"{count * (2 if kind in (5, 10) else 1)}{form}", place)
        except (struct.error, OverflowError, ValueError, OSError):
            return default

    def value(self, page: _Page, tag: int, default: int = 0) -> int:
        return self.values(page, tag, (default,))[0]

    def fractions(self, page: _Page, tag: int) -> tuple[float, ...]:
        if page.entries.get(tag, (0,))[0] not in (5, 10):
            return ()
        halves = self.values(page, tag)
        return tuple(a / b if b else 0.0 for a, b in zip(halves[::2], halves[1::2], strict=True))

    def data(self, page: _Page, tag: int, limit: int) -> bytes | None:
        _, count, place, _ = page.entries.get(tag, (0, 0, 0, 0))
        if not 0 < count <= limit or place + count > self.size:
            return None
        return self.at(place, count) or None


def read_tiff(stream: BinaryIO) -> FileMetadata:
    """Choose the page of a TIFF, and read what Pillow does not.

    Raises:
        MediaError: a camera's raw file, or samples or a compression that cannot be read.
    """
    tiff = _open(stream)
    metadata = FileMetadata(stream)
    if tiff is None or not tiff.pages:
        return metadata
    for page in tiff.pages:
        _refuse_raw(tiff, page)
    first, chosen = tiff.pages[0], _choose(tiff)
    _refuse_unreadable(tiff, chosen)
    patches: dict[int, bytes] = {}
    if chosen is not first:
        patches[8 if tiff.big else 4] = struct.pack(tiff.order + ("Q" if tiff.big else "I"), chosen.offset)
    others = [page for page in tiff.pages if page is not chosen and not page.inner]
    if chosen.inner:
        others.remove(first)  # its preview
    metadata.several = any(not _is_reduced(tiff, page) and not _is_mask(tiff, page) for page in others)
    if any(_is_mask(tiff, page) for page in others):
        metadata.note("a page with a transparency mask, left out")
    if _PHOTOSHOP in first.entries or _LAYERS in first.entries:
        metadata.note("Photoshop data, left out")
    for page in (chosen, first):
        if metadata.orientation is None and 1 <= (turn := tiff.value(page, _ORIENTATION)) <= 8:
            metadata.orientation = turn
        metadata.icc = metadata.icc or tiff.data(page, _ICC, 1 << 24)
        metadata.xmp = metadata.xmp or tiff.data(page, _XMP, 1 << 24)
    metadata.orientation = metadata.orientation or 1
    if tiff.value(chosen, _ORIENTATION, 1) != 1:
        _patch(tiff, chosen, _ORIENTATION, 1, patches)  # applied here, whatever its type
    if _PHOTOMETRIC in chosen.entries and tiff.value(chosen, _PHOTOMETRIC) == 0:
        metadata.inverted = True
        _patch(tiff, chosen, _PHOTOMETRIC, 1, patches)
    _extra_samples(tiff, chosen, metadata, patches)
    metadata.colorimetry = _colorimetry(tiff, chosen)
    if patches:
        metadata.pixels = _patched(stream, patches)
    return metadata


def _open(stream: BinaryIO) -> _Tiff | None:
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    head = stream.read(16).ljust(16, b"\0")
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None:
        return None
    if head[8:10] == b"CR":
        raise _raw("Canon CR2")
    big = struct.unpack(order + "H", head[2:4])[0] == 43
    tiff = _Tiff(stream, order, big, size)
    offset = struct.unpack_from(order + ("Q" if big else "I"), head, 8 if big else 4)[0]
    seen: set[int] = set()
    while offset and offset not in seen and len(tiff.pages) < MAX_PAGES:
        seen.add(offset)
        page = tiff.page(offset)
        if not page.entries:
            break
        tiff.pages.append(page)
        offset = page.next
    for page in tiff.pages:  # the list grows: inner directories have inner ones
        for offset in tiff.values(page, _SUBIFDS)[:MAX_PAGES]:
            if offset not in seen and len(tiff.pages) < 2 * MAX_PAGES:
                seen.add(offset)
                inner = tiff.page(offset)
                inner.inner = True
                tiff.pages += [inner] if inner.entries else []
    return tiff


def _raw(name: str) -> MediaError:
    return MediaError(f"a camera's raw file ({name})", DEVELOP)


def _refuse_raw(tiff: _Tiff, page: _Page) -> None:
    if _DNG in page.entries:
        raise _raw("DNG")
    raw = tiff.value(page, _PHOTOMETRIC, 1) in _RAW or tiff.value(page, _COMPRESSION) in _RAW_COMPRESSIONS
    if raw:
        raise _raw("based on TIFF")


def _is_reduced(tiff: _Tiff, page: _Page) -> bool:
    return bool(tiff.value(page, _NEW_SUBFILE) & 1) or tiff.value(page, _SUBFILE) == 2


def _is_mask(tiff: _Tiff, page: _Page) -> bool:
    return bool(tiff.value(page, _NEW_SUBFILE) & 4) or tiff.value(page, _PHOTOMETRIC, 1) == 4


def _pixels(tiff: _Tiff, page: _Page) -> int:
    has_pixels = _STRIPS in page.entries or _TILES in page.entries or 513 in page.entries
    return tiff.value(page, _WIDTH) * tiff.value(page, _HEIGHT) if has_pixels else 0


def _choose(tiff: _Tiff) -> _Page:
    """The first page, or where it is a reduced one or a mask, the largest of full size.

    A larger image in an inner directory goes before the page that holds it.
    """
    first = tiff.pages[0]
    full = [page for page in tiff.pages if not _is_reduced(tiff, page) and not _is_mask(tiff, page)]
    if first in full and _pixels(tiff, first):
        inner = [page for page in full if page.inner and _pixels(tiff, page) > _pixels(tiff, first)]
        return max(inner, key=lambda page: _pixels(tiff, page), default=first)
    return max(full or tiff.pages, key=lambda page: _pixels(tiff, page))


def _refuse_unreadable(tiff: _Tiff, page: _Page) -> None:
    compression = _UNREADABLE.get(tiff.value(page, _COMPRESSION, 1))
    if compression:
        raise MediaError(f"TIFF compressed by {compression}", "save it with deflate or LZW, or as PNG")
    if tiff.value(page, _PHOTOMETRIC, 1) in (32844, 32845):
        raise MediaError("HDR TIFF (LogLuv)", "convert it to 8 or 16 unsigned bits first")
    bits, kind = tiff.value(page, _BITS, 1), tiff.value(page, _FORMAT, 1)
    name = {2: "signed integer", 3: "float", 5: "complex integer", 6: "complex"}.get(kind)
    if name or bits > 16:
        message = f"{bits}-bit {name or 'integer'} samples"
        raise MediaError(message, "convert it to 8 or 16 unsigned bits first, in a range of your choice")


def _patch(tiff: _Tiff, page: _Page, tag: int, value: int, patches: dict[int, bytes]) -> None:
    kind, count, place, _ = page.entries[tag]
    form = _FORMS.get(kind, "I" if kind in (5, 10) else "")
    if form and count:
        patches[place] = struct.pack(tiff.order + form, value)


def _patched(stream: BinaryIO, patches: dict[int, bytes]) -> Spliced:
    spliced, at = Spliced(), 0
    for place in sorted(patches):
        if place >= at:
            spliced.add(stream, at, place)
            spliced.add(patches[place])
            at = place + len(patches[place])
    spliced.add(stream, at)
    return spliced


def _extra_samples(tiff: _Tiff, page: _Page, metadata: FileMetadata, patches: dict[int, bytes]) -> None:
    """Keep one channel of no stated meaning as alpha; say which channels are left out."""
    colours = _COLOURS.get(tiff.value(page, _PHOTOMETRIC, 1), 1)
    count = tiff.value(page, _SAMPLES, 1) - colours
    kinds = tiff.values(page, _EXTRA)
    if count < 1:
        return
    if count == 1 and colours < 4 and (not kinds or kinds[0] not in (1, 2)):
        metadata.note("a channel of no stated meaning, kept as alpha")
        if kinds:
            _patch(tiff, page, _EXTRA, 2, patches)
        return
    left = count - (bool(kinds) and kinds[0] in (1, 2) and colours < 4)
    if left:
        channels = "a channel" if left == 1 else f"{left} channels"
        metadata.note(f"{channels} beside the colours, left out")


def _colorimetry(tiff: _Tiff, page: _Page) -> Colorimetry:
    """The colours by WhitePoint, PrimaryChromaticities and TransferFunction."""
    white, primaries = tiff.fractions(page, _WHITE), tiff.fractions(page, _PRIMARIES)
    table = np.array(tiff.values(page, _TRANSFER))
    colours = _COLOURS.get(tiff.value(page, _PHOTOMETRIC, 1), 1)
    length = 1 << min(tiff.value(page, _BITS, 1), 16)
    curves = []
    if len(table) in (length, 3 * length) and colours != 4 and table.min() >= 0 and table.max() <= 65535:
        curves = [part[:: max(1, length // 4096)] for part in table.reshape(-1, length)]
    if len(primaries) != 6 and not curves:
        return Colorimetry()
    stated = (*(white if len(white) == 2 else SRGB[:2]), *(primaries if len(primaries) == 6 else SRGB[2:]))
    return Colorimetry.measured(stated, None, *curves)
