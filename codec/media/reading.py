"""Read a file, stream, array or Pillow image as an `Image`: 8-bit gray or RGB, upright, alpha apart."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
import PIL.Image

# Pillow would import every plugin it has on the first WebP, AVIF or TIFF.
from PIL import AvifImagePlugin, TiffImagePlugin, WebPImagePlugin  # noqa: F401

from ..errors import MediaError, MediaWarning
from .conversion import SWAPPED, convert_all, converter, round_with_low_bytes
from .guard import pillow_unlimited
from .image import Image
from .metadata import STRUCTURAL, clean_exif, clean_xmp, exif_orientation, xmp_orientation
from .opening import Readable, opened

MAX_PIXELS = 179_000_000
"""Larger images are refused unless the caller raises the limit."""

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM")
_UNKNOWN = "not an image or audio file that this build can read"


def read_image(
    source: Readable | PIL.Image.Image | np.ndarray,
    *,
    max_pixels: int = MAX_PIXELS,
    keep_gps: bool = False,
) -> Image:
    """Read an image; apply its orientation to the pixels.

    Args:
        source: path, file content, binary stream (read from its position, left open), Pillow image, or
            uint8 array [H, W], [H, W, 1], [H, W, 3], with alpha [H, W, 2] or [H, W, 4].
        max_pixels: refuse larger images before their pixels are allocated.
        keep_gps: keep positions in EXIF and XMP.

    Raises:
        MediaError: missing, unreadable, truncated, too large, or samples that do not fit 8 bits.

    Warns:
        MediaWarning: for each part that was reduced, converted or left out.
    """
    notes: list[str] = []
    if isinstance(source, np.ndarray):
        image = _from_array(source, max_pixels)
    elif isinstance(source, PIL.Image.Image):
        with pillow_unlimited(notes), _decoding(source.format or "image"):
            image = _from_pillow(source, None, max_pixels, keep_gps, notes)
    else:
        with opened(source) as stream, pillow_unlimited(notes):
            image = _from_stream(stream, max_pixels, keep_gps, notes)
    for note in dict.fromkeys(notes):
        warnings.warn(note, MediaWarning, stacklevel=2)
    return image


def _from_array(array: np.ndarray, max_pixels: int) -> Image:
    if (
        array.dtype != np.uint8
        or array.ndim not in (2, 3)
        or (array.ndim == 3 and not 1 <= array.shape[2] <= 4)
    ):
        hint = "give uint8 [H, W] or [H, W, C] with C = 1 or 3, or 2 or 4 with alpha"
        raise MediaError(f"array is {array.dtype} {list(array.shape)}", hint)
    if array.size == 0:
        raise MediaError("no samples")
    _check_pixels(array.shape[1], array.shape[0], max_pixels)
    samples = array[:, :, None] if array.ndim == 2 else array
    if samples.shape[2] in (2, 4):
        return Image(samples[:, :, :-1], alpha=samples[:, :, -1])
    return Image(samples)


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        message = f"{width * height / 1e6:.4g} megapixels, limit {max_pixels / 1e6:.4g}"
        raise MediaError(message, "raise it with --max-pixels")


def _kind(stream: BinaryIO) -> str:
    """Return the format by the first bytes; empty if it is none of FORMATS."""
    stream.seek(0)
    head = stream.read(16)
    for kind, magic in (
        ("PNG", b"\x89PNG"),
        ("JPEG", b"\xff\xd8\xff"),
        ("GIF", b"GIF8"),
        ("AVIF", b"ftypavi"),
    ):
        if head[4 if kind == "AVIF" else 0 :].startswith(magic):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    return "TIFF" if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+") else ""


def _cut_short(stream: BinaryIO, kind: str) -> bool | None:
    """Tell whether the end of the file is missing; None if the format cannot tell."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(4)
    riff = int.from_bytes(stream.read(4), "little") + 8
    stream.seek(max(0, size - 65536))
    tail = stream.read(65536)
    if kind == "AVIF":
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
def _decoding(kind: str, stream: BinaryIO | None = None) -> Iterator[None]:
    """Convert exceptions of Pillow to `MediaError`."""
    try:
        yield
    except (MediaError, KeyboardInterrupt):
        raise
    except MemoryError as error:
        raise MediaError("out of memory", "refuse such images early with --max-pixels") from error
    except Exception as error:  # plugins raise a dozen types on damage, down to AttributeError
        text = " ".join(str(error).split())
        kind = kind or (_kind(stream) if stream else "")
        if not kind:
            raise MediaError(_UNKNOWN) from error
        cut = _cut_short(stream, kind) if stream else None
        if cut or "truncated" in text.lower():
            raise MediaError(f"truncated {kind}", "copy the file again") from error
        if isinstance(error, PIL.UnidentifiedImageError):
            message = f"damaged {kind}, or of a kind this build cannot read"
            raise MediaError(message, "copy the file again, or convert it to PNG") from error
        state = "damaged" if cut is False else "truncated or damaged"
        raise MediaError(f"{state} {kind}: {text}", "copy the file again") from error


def _from_stream(stream: BinaryIO, max_pixels: int, keep_gps: bool, notes: list[str]) -> Image:
    with _decoding("", stream):
        picture = PIL.Image.open(stream, formats=FORMATS)
    with _decoding(picture.format or "image", stream):
        if picture.format == "AVIF":
            _note_avif_depth(stream, notes)
        return _from_pillow(picture, stream, max_pixels, keep_gps, notes)


def _note_avif_depth(stream: BinaryIO, notes: list[str]) -> None:
    # Pillow does not report it; `av1C` has the bit high_bitdepth in its third byte.
    position = stream.tell()
    stream.seek(0)
    head = stream.read(65536)
    stream.seek(position)
    at = head.find(b"av1C")
    if 0 <= at < len(head) - 6 and head[at + 6] & 0x40:
        notes.append("more than 8 bits a sample, reduced to 8 bit")


def _from_pillow(
    picture: PIL.Image.Image, stream: BinaryIO | None, max_pixels: int, keep_gps: bool, notes: list[str]
) -> Image:
    """Convert a Pillow image with its metadata; with a `stream`, free Pillow's own copy of the pixels."""
    _check_pixels(picture.width, picture.height, max_pixels)
    source = picture.format or ""
    if getattr(picture, "is_animated", False):
        pages = source in ("TIFF", "MPO")
        notes.append(f"several {'pages' if pages else 'frames'}, only the first is read")
    raw = _raw_mode(picture)
    tiff_exif, planar = None, False
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        tiff_exif = _tiff_exif(picture, notes)
        planar = picture.tag_v2.get(TiffImagePlugin.PLANAR_CONFIGURATION) == 2
        if planar and max(picture.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (8,))) > 8 and len(raw) == 1:
            # Pillow would read their bytes as 8-bit samples.
            raise MediaError("16-bit samples in separate planes", "save it with interleaved samples")
    picture.load()
    _check_pixels(picture.width, picture.height, max_pixels)

    # load() has also read the text after the pixels of a PNG.
    exif, xmp, icc = _metadata(picture)
    exif = tiff_exif or exif
    # Pillow applies the orientation of TIFF files itself.
    orientation = 1 if source == "TIFF" else _orientation(exif, xmp)
    convert, fitting_icc = converter(picture, raw, icc, notes)
    samples, alpha = convert_all(picture, convert)
    if stream is not None:
        _free(picture)
        if raw in SWAPPED and not planar:
            _second_pass(stream, source, raw, samples, alpha)

    samples = _upright(samples, orientation)
    alpha = None if alpha is None else _upright(alpha, orientation)
    height, width = samples.shape[:2]
    if fitting_icc and fitting_icc[16:20] != (b"GRAY" if samples.shape[2] == 1 else b"RGB "):
        notes.append("ICC profile does not fit the samples, left out")
        fitting_icc = None
    return Image(
        samples,
        alpha,
        icc=fitting_icc,
        exif=_cleaned("EXIF", clean_exif, exif, width, height, keep_gps, notes),
        xmp=_cleaned("XMP", clean_xmp, xmp, width, height, keep_gps, notes),
        source=source,
    )


def _free(picture: PIL.Image.Image) -> None:
    # The base class's close, because that of ImageFile closes the caller's stream too.
    PIL.Image.Image.close(picture)


def _second_pass(
    stream: BinaryIO, source: str, raw: str, samples: np.ndarray, alpha: np.ndarray | None
) -> None:
    """Round 16-bit samples, of which Pillow gave the high bytes, with their low bytes."""
    stream.seek(0)
    picture = PIL.Image.open(stream, formats=[source])
    picture.tile = [
        tile._replace(args=(SWAPPED[raw], *tile.args[1:]) if isinstance(tile.args, tuple) else SWAPPED[raw])
        for tile in picture.tile
    ]
    picture.load()
    convert, _ = converter(picture, raw, None, [], low=True)
    keyed = picture.mode == "RGB"
    round_with_low_bytes(picture, convert, samples, alpha, keyed=keyed)
    _free(picture)


def _raw_mode(picture: PIL.Image.Image) -> str:
    """Return Pillow's raw mode of the file; "PPM;16" for samples that its PPM decoders scale."""
    tiles = getattr(picture, "tile", None)
    if not tiles:
        return ""
    name, _, _, args = tiles[0]
    if str(name).startswith("ppm") and args[-1] > 255:
        return "PPM;16"
    raw = args[0] if isinstance(args, tuple) and args else args
    return raw if isinstance(raw, str) else ""


def _tiff_exif(picture: TiffImagePlugin.TiffImageFile, notes: list[str]) -> bytes | None:
    try:
        exif = picture.getexif()
        for tag in [tag for tag in exif if tag in STRUCTURAL]:
            del exif[tag]
        return exif.tobytes()
    except Exception:  # Pillow's tag writer trusts the types in the file
        notes.append("EXIF could not be read, left out")
        return None


def _metadata(picture: PIL.Image.Image) -> tuple[bytes | None, bytes | None, bytes | None]:
    info = picture.info
    exif = info.get("exif")
    hexadecimal = info.get("Raw profile type exif")
    if exif is None and isinstance(hexadecimal, str):
        try:
            exif = bytes.fromhex("".join(hexadecimal.split("\n")[3:]))
        except ValueError:
            exif = None
    found = [exif, info.get("xmp"), info.get("icc_profile")]
    exif, xmp, icc = (bytes(data) if isinstance(data, bytes) and data else None for data in found)
    return exif, xmp, icc


def _orientation(exif: bytes | None, xmp: bytes | None) -> int:
    try:
        stated = exif_orientation(exif) if exif else None
    except ValueError:
        stated = None
    return stated or (xmp_orientation(xmp) if xmp else None) or 1


def _cleaned(
    name: str,
    clean: Callable[..., bytes | None],
    data: bytes | None,
    width: int,
    height: int,
    keep_gps: bool,
    notes: list[str],
) -> bytes | None:
    try:
        return clean(data, width, height, keep_gps=keep_gps) if data else None
    except ValueError:
        notes.append(f"{name} could not be read, left out")
        return None


def _upright(plane: np.ndarray, orientation: int) -> np.ndarray:
    """Return a view of [H, W, ...] with EXIF's orientation 1 to 8 applied."""
    if orientation in (3, 4, 6, 7):
        plane = plane[::-1]
    if orientation in (2, 3, 7, 8):
        plane = plane[:, ::-1]
    return plane.swapaxes(0, 1) if orientation > 4 else plane
