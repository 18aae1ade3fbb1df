"""Read what a PNG holds besides its pixels, and hand Pillow the pixels alone.

Pillow refuses a whole image for one text that is too long or has a wrong checksum, and reads fewer kinds
of metadata than there are. So the chunks are read here, each bounded, and Pillow gets the pixels' own.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO

from .color import Colorimetry
from .file_metadata import FileMetadata
from .guard import MAX_METADATA
from .opening import Spliced
from .tags import clean

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIXELS = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"acTL", b"fcTL"}
_BLOCK = 1 << 20
_WORDS = {b"iCCP": "ICC profile", b"eXIf": "EXIF", **dict.fromkeys((b"tEXt", b"zTXt", b"iTXt"), "PNG text")}
_EXIF_HEAD, _XMP_HEAD = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_NAMES = 3
"""So many texts are named in a warning."""


@dataclass
class Png(FileMetadata):
    """What a PNG holds besides its pixels; `pixels` is a PNG of nothing else."""

    _texts: list[str] = field(default_factory=list)
    _gamma: float | None = None
    _chromaticities: tuple[float, ...] | None = None
    _srgb: bool = False
    _cicp: tuple[int, int] | None = None


def read_png(stream: BinaryIO) -> Png:
    """Read the chunks of a PNG; what a damaged file lacks is left to Pillow to refuse."""
    pixels = Spliced()
    png = Png(pixels)
    pixels.add(stream, 0, len(SIGNATURE))
    at = len(SIGNATURE)
    damaged = False
    while True:
        stream.seek(at)
        head = stream.read(8)
        if len(head) < 8 or not head[4:].isalpha():
            pixels.add(stream, at)  # to the end: Pillow says what is wrong
            break
        size, name = struct.unpack(">I4s", head)
        if name == b"IDAT":
            damaged |= not _sound(stream, name, size)
        elif name not in _PIXELS and name[:1].islower():
            _chunk(png, stream, name, size)
        if name in _PIXELS or name[:1].isupper():
            pixels.add(stream, at, at + 12 + size)
        at += 12 + size
        if name == b"IEND":
            break
    if damaged:
        png.note("damaged PNG: the checksum of its pixels is wrong, parts of the image may be too")
    _settle(png)
    return png


def _sound(stream: BinaryIO, name: bytes, size: int) -> bool:
    """Tell whether the chunk that begins here has the right checksum; one cut short counts as right."""
    checksum = zlib.crc32(name)
    while size > 0:
        block = stream.read(min(size, _BLOCK))
        if not block:
            return True
        checksum = zlib.crc32(block, checksum)
        size -= len(block)
    stated = stream.read(4)
    return len(stated) < 4 or int.from_bytes(stated, "big") == checksum


def _chunk(png: Png, stream: BinaryIO, name: bytes, size: int) -> None:
    """Read one chunk that is not of the pixels."""
    parse = _PARSERS.get(name)
    if parse is None:
        return
    word = _WORDS.get(name) or name.decode()
    if size > MAX_METADATA:
        png.note(f"{word} of more than {MAX_METADATA >> 20} MiB, left out")
        return
    data = stream.read(size)
    if zlib.crc32(data, zlib.crc32(name)) != int.from_bytes(stream.read(4), "big"):
        png.note(f"{word} with a wrong checksum, left out")
        return
    try:
        parse(png, data)
    except (ValueError, struct.error, zlib.error):
        png.note(f"{word} could not be read, left out")
    except OverflowError:
        png.note(f"{word} of more than {MAX_METADATA >> 20} MiB when inflated, left out")


def inflate(data: bytes) -> bytes:
    """Inflate at most MAX_METADATA bytes.

    Raises:
        OverflowError: there are more.
        ValueError, zlib.error: the data are damaged, or do not end.
    """
    decoder = zlib.decompressobj()
    inflated = decoder.decompress(data, MAX_METADATA + 1)
    if len(inflated) > MAX_METADATA:
        raise OverflowError("too large")
    if not decoder.eof:
        raise ValueError("not whole")
    return inflated


def _cut(data: bytes) -> tuple[bytes, bytes]:
    head, zero, rest = data.partition(b"\0")
    if not zero:
        raise ValueError("no end of a name")
    return head, rest


def _iccp(png: Png, data: bytes) -> None:
    _, rest = _cut(data)
    png.icc = inflate(rest[1:])


def _exif(png: Png, data: bytes) -> None:
    png.exif = data or None


def _text(png: Png, data: bytes) -> None:
    _keep(png, *_cut(data))


def _compressed(png: Png, data: bytes) -> None:
    keyword, rest = _cut(data)
    _keep(png, keyword, inflate(rest[1:]))


def _international(png: Png, data: bytes) -> None:
    keyword, rest = _cut(data)
    compressed = rest[:1] == b"\1"
    _, rest = _cut(rest[2:])
    _, rest = _cut(rest)
    _keep(png, keyword, inflate(rest) if compressed else rest)


def _keep(png: Png, keyword: bytes, text: bytes) -> None:
    if keyword == b"XML:com.adobe.xmp":
        png.xmp = text
    elif keyword.lower().startswith(b"raw profile type "):
        _raw_profile(png, keyword[17:].decode("latin-1").lower(), text)
    elif text.strip():
        name = clean(keyword.decode("latin-1"))[:40] or "text"
        if name not in png._texts and len(png._texts) <= _NAMES:
            png._texts.append(name)


def _raw_profile(png: Png, kind: str, text: bytes) -> None:
    """Keep a profile in hexadecimal digits, as ImageMagick writes them; a chunk of its own goes first."""
    lines = text.strip().split(b"\n", 2)
    data = bytes.fromhex(b"".join(lines[2].split()).decode("ascii")) if len(lines) == 3 else b""
    data = data[: int(lines[1])] if data else data
    if not data:
        raise ValueError("not a profile in digits")
    if data.startswith(_XMP_HEAD):
        png.xmp = png.xmp or data.removeprefix(_XMP_HEAD)
    elif data.startswith((_EXIF_HEAD, b"II*\0", b"MM\0*")):
        png.exif = png.exif or data
    elif kind == "xmp":
        png.xmp = png.xmp or data
    elif kind in ("icc", "icm"):
        png.icc = png.icc or data
    else:
        png.note(
            f"{'IPTC' if kind in ('iptc', '8bim') else 'a profile of type ' + clean(kind)[:20]}, left out"
        )


def _gama(png: Png, data: bytes) -> None:
    (value,) = struct.unpack(">I", data)
    if value == 0:
        raise ValueError("no gamma")
    png._gamma = value / 100_000


def _chrm(png: Png, data: bytes) -> None:
    png._chromaticities = tuple(value / 100_000 for value in struct.unpack(">8I", data))


def _srgb(png: Png, data: bytes) -> None:
    png._srgb = len(data) == 1


def _cicp(png: Png, data: bytes) -> None:
    primaries, transfer, matrix, full = struct.unpack(">4B", data)
    png._cicp = primaries, transfer
    if matrix != 0 or full != 1:
        png.note(
            "cICP of YCbCr samples or a narrow range, which PNG samples are not: only its colours are read"
        )


_PARSERS: dict[bytes, Callable[[Png, bytes], None]] = {
    b"iCCP": _iccp,
    b"eXIf": _exif,
    b"tEXt": _text,
    b"zTXt": _compressed,
    b"iTXt": _international,
    b"gAMA": _gama,
    b"cHRM": _chrm,
    b"sRGB": _srgb,
    b"cICP": _cicp,
}


def _settle(png: Png) -> None:
    """Choose what states the colours, in the order of the specification: cICP, iCCP, sRGB, gAMA and cHRM."""
    if png._cicp:
        png.colorimetry = Colorimetry.coded(*png._cicp)
        if png.colorimetry.known:
            png.icc = None
    elif not png._srgb and (png._gamma or png._chromaticities):
        png.colorimetry = Colorimetry.of_png(png._gamma, png._chromaticities)
    if png._texts:
        more = ", ..." if len(png._texts) > _NAMES else ""
        png.note(f"PNG text ({', '.join(png._texts[:_NAMES])}{more}), left out")
