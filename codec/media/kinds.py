"""Tell formats by their first bytes, open them with Pillow and its plugins, and put errors into words."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

import PIL.Image
from PIL import ImageFile

from ..errors import MediaError
from .opening import Spliced

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM")
_UNKNOWN = "not an image or audio file that this build can read"
_EXTRAS = {"HEIF": "HEIC", "JXL": "JPEG XL"}
"""Formats that need the extra `formats`, and their names."""
_EXTRA_HINT = "pip install 'vqcodec[formats]'"

_STARTS = (
    ("PNG", b"\x89PNG"),
    ("JPEG", b"\xff\xd8\xff"),
    ("GIF", b"GIF8"),
    ("TIFF", b"II*\0"),
    ("TIFF", b"MM\0*"),
    ("TIFF", b"II+\0"),
    ("TIFF", b"MM\0+"),
    ("JXL", b"\xff\x0a"),
    ("JXL", b"\0\0\0\x0cJXL \r\n\x87\n"),
    ("BMP", b"BM"),
)
_CONVERT = "convert it to PNG first"
DEVELOP = "develop it to a TIFF or PNG with a raw converter first"
_NAMED = (
    (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image", _CONVERT),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image", _CONVERT),
    (b"II\xbc\x01", "a JPEG XR image", _CONVERT),
    (b"8BPS", "a Photoshop document", "save it as PNG or TIFF first"),
    (b"v/1\x01", "an OpenEXR image", "convert it to 8 or 16 unsigned bits first"),
    (b"#?RADIANCE", "a Radiance HDR image", "convert it to 8 or 16 unsigned bits first"),
    (b"%PDF", "a PDF document", "render its pages to PNG first"),
    (b"%!PS", "a PostScript document", "render its pages to PNG first"),
    (b"<svg", "an SVG drawing", "render it to PNG first"),
    (b"\0\0\1\0", "a Windows icon", _CONVERT),
    (b"qoif", "a QOI image", _CONVERT),
    (b"BPG\xfb", "a BPG image", _CONVERT),
    (b"AT&TFORM", "a DjVu document", _CONVERT),
    (b"gimp xcf", "a GIMP document", "export it as PNG first"),
    (b"FUJIFILMCCD-RAW", "a camera's raw file (Fujifilm RAF)", DEVELOP),
    (b"IIRO", "a camera's raw file (Olympus ORF)", DEVELOP),
    (b"IIRS", "a camera's raw file (Olympus ORF)", DEVELOP),
    (b"MMOR", "a camera's raw file (Olympus ORF)", DEVELOP),
    (b"IIU\0", "a camera's raw file (Panasonic RW2)", DEVELOP),
    (b"FOVb", "a camera's raw file (Sigma X3F)", DEVELOP),
    (b"\0MRM", "a camera's raw file (Minolta MRW)", DEVELOP),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM video", "extract a frame as PNG first"),
)
_BRANDS = (
    ("AVIF", (b"avif", b"avis")),
    ("HEIF", (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")),
    ("HEIF", (b"mif1", b"msf1")),
)


def kind_of(stream: BinaryIO) -> str:
    """Return the format by the first bytes; empty where they do not tell one that can be read."""
    stream.seek(0)
    head = stream.read(256)
    if head[4:8] == b"ftyp":
        length = min(int.from_bytes(head[:4], "big"), len(head))
        brands = [head[at : at + 4] for at in (8, *range(16, length - 3, 4))]
        return next((kind for kind, known in _BRANDS if not set(brands).isdisjoint(known)), "")
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    return next((kind for kind, start in _STARTS if head.startswith(start)), "")


def refuse_by_name(stream: BinaryIO) -> None:
    """Refuse a file of a known kind that cannot be read, with its name."""
    stream.seek(0)
    head = stream.read(1024)
    for start, name, hint in _NAMED:
        if head.startswith(start):
            raise MediaError(f"{name}, which cannot be read", hint)
    if head[4:8] == b"ftyp" and head[8:11] == b"crx":
        raise MediaError("a camera's raw file (Canon CR3), which cannot be read", DEVELOP)
    if head[4:8] == b"ftyp":
        raise MediaError(
            "a video, which cannot be read", "extract a frame as PNG, or its sound as WAV, first"
        )
    if b"<svg" in head and head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise MediaError("an SVG drawing, which cannot be read", "render it to PNG first")


def open_picture(kind: str, pixels: BinaryIO | Spliced) -> PIL.Image.Image:
    """Open an image with the plugin for its format; none of them is registered with Pillow for others.

    Raises:
        MediaError: the plugin is not installed.
    """
    file = cast(BinaryIO, pixels)  # Pillow needs no more than reading and seeking
    file.seek(0)
    if kind not in _EXTRAS:
        return PIL.Image.open(file, formats=[kind] if kind else FORMATS)
    opener: type[ImageFile.ImageFile]
    try:
        if kind == "HEIF":
            import pillow_heif

            opener = pillow_heif.HeifImageFile
        else:
            from pillow_jxl import JpegXLImagePlugin

            opener = JpegXLImagePlugin.JXLImageFile
    except ImportError as error:
        raise MediaError(f"{_EXTRAS[kind]} images need an extra package", _EXTRA_HINT) from error
    return opener(file)


def _cut_short(stream: BinaryIO, kind: str) -> bool | None:
    """Tell whether the end of the file is missing; None if the format cannot tell."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(4)
    riff = int.from_bytes(stream.read(4), "little") + 8
    stream.seek(max(0, size - 65536))
    tail = stream.read(65536)
    if kind in ("AVIF", "HEIF"):
        return _boxes_end(stream) > size
    cut = {"PNG": b"IEND" not in tail, "JPEG": b"\xff\xd9" not in tail, "WEBP": size < riff}
    return cut.get(kind)


def _boxes_end(stream: BinaryIO) -> int:
    """Return the stated end of the last top-level box of an ISO media file."""
    end = 0
    while len(head := stream.read(8) if stream.seek(end) == end else b"") == 8:
        length = int.from_bytes(head[:4], "big")
        if length < 8:
            break
        end += length
    return end


@contextmanager
def decoding(kind: str, stream: BinaryIO | None = None) -> Iterator[None]:
    """Convert exceptions of Pillow to `MediaError`."""
    try:
        yield
    except (MediaError, KeyboardInterrupt):
        raise
    except MemoryError as error:
        raise MediaError("out of memory", "refuse such images early with --max-pixels") from error
    except Exception as error:  # plugins raise a dozen types on damage, down to AttributeError
        text = " ".join(str(error).split())
        if not kind:
            if stream:
                refuse_by_name(stream)
            raise MediaError(_UNKNOWN, "convert it to PNG or WAV") from error
        cut = _cut_short(stream, kind) if stream else None
        if cut or "truncated" in text.lower():
            raise MediaError(f"truncated {kind}", "copy the file again") from error
        if isinstance(error, PIL.UnidentifiedImageError):
            message = f"damaged {kind}, or of a kind this build cannot read"
            raise MediaError(message, "copy the file again, or convert it to PNG") from error
        state = "damaged" if cut is False else "truncated or damaged"
        raise MediaError(f"{state} {kind}: {text}", "copy the file again") from error
