"""Read a file, stream, array or Pillow image as an `Image`: 8-bit gray or RGB, upright, alpha apart."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
import PIL.Image

# Pillow would import every plugin it has on the first WebP, AVIF or TIFF.
from PIL import AvifImagePlugin, TiffImagePlugin, WebPImagePlugin  # noqa: F401

from ..errors import MediaError, MediaWarning, warn
from .boxes import read_boxes, read_heif, read_jxl
from .color import ADOBE, Colorimetry, hdr_note, hdr_profile, is_sound
from .conversion import SWAPPED, convert_all, converter, round_with_low_bytes
from .file_metadata import FileMetadata
from .guard import pillow_unlimited
from .headers import read_bmp, read_gif, read_webp
from .image import Image
from .jpeg import read_jpeg
from .kinds import decoding, kind_of, open_picture
from .metadata import ORIENTATION, STRUCTURAL, clean_exif, exif_orientation, exif_says_adobe
from .opening import Readable, Spliced, opened
from .png import read_png
from .tensors import is_tensor, pixels_of
from .tiff_pages import read_tiff
from .xmp import clean_xmp, xmp_orientation

if TYPE_CHECKING:
    import torch

Samples: TypeAlias = "PIL.Image.Image | np.ndarray | torch.Tensor"
"""Pillow image, uint8 array [H, W, C], or tensor [C, H, W] of uint8 or of floats in 0..1."""

MAX_PIXELS = 179_000_000
"""Larger images are refused unless the caller raises the limit."""


def read_image(
    source: Readable | Samples,
    *,
    max_pixels: int = MAX_PIXELS,
    keep_gps: bool = False,
) -> Image:
    """Read an image; apply its orientation to the pixels.

    Args:
        source: path, file content, binary stream (read from its position, left open), Pillow image, or
            uint8 array [H, W], [H, W, 1], [H, W, 3], with alpha [H, W, 2] or [H, W, 4], or a tensor as in
            `tensors.pixels_of`.
        max_pixels: refuse larger images before their pixels are allocated.
        keep_gps: keep positions in EXIF and XMP.

    Raises:
        MediaError: missing, unreadable, truncated, too large, or samples that do not fit 8 bits.

    Warns:
        MediaWarning: for each part that was reduced, converted or left out.
    """
    notes: list[str] = []
    if is_tensor(source):
        source = pixels_of(source)
    if isinstance(source, np.ndarray):
        image = _from_array(source, max_pixels)
    elif isinstance(source, PIL.Image.Image):
        with pillow_unlimited(notes), decoding(source.format or "image"):
            image = _from_pillow(source, _of_picture(source), False, max_pixels, keep_gps, notes)
    else:
        with opened(source) as stream, pillow_unlimited(notes):
            image = _from_stream(stream, max_pixels, keep_gps, notes)
    for note in dict.fromkeys(notes):
        warn(note, MediaWarning)
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
        raise MediaError("no samples", "give one pixel or more")
    _check_pixels(array.shape[1], array.shape[0], max_pixels)
    samples = array[:, :, None] if array.ndim == 2 else array
    if samples.shape[2] in (2, 4):
        return Image(samples[:, :, :-1], alpha=samples[:, :, -1])
    return Image(samples)


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        message = f"{width * height / 1e6:.4g} megapixels, limit {max_pixels / 1e6:.4g}"
        raise MediaError(message, "raise it with --max-pixels")


_PARSERS: dict[str, Callable[[BinaryIO], FileMetadata]] = {
    "PNG": read_png,
    "JPEG": read_jpeg,
    "TIFF": read_tiff,
    "AVIF": read_boxes,
    "HEIF": read_heif,
    "JXL": read_jxl,
    "WEBP": read_webp,
    "GIF": read_gif,
    "BMP": read_bmp,
}


def _from_stream(stream: BinaryIO, max_pixels: int, keep_gps: bool, notes: list[str]) -> Image:
    kind = kind_of(stream)
    with decoding(kind, stream):
        metadata = _PARSERS.get(kind, FileMetadata)(stream)
        picture = open_picture(kind, metadata.pixels)
    with decoding(picture.format or "image", stream):
        return _from_pillow(picture, metadata, True, max_pixels, keep_gps, notes)


def _of_picture(picture: PIL.Image.Image) -> FileMetadata:
    """What Pillow knows of an image that it has opened."""
    metadata = FileMetadata(io.BytesIO())
    info, tags = picture.info, getattr(picture, "tag_v2", {})
    if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0 and picture.mode.startswith("I;16"):
        metadata.inverted = True
    if picture.format == "TIFF":
        metadata.orientation = 1  # Pillow applies it itself
    gamma, chromaticities = info.get("gamma"), info.get("chromaticity")
    if "srgb" not in info and (gamma or chromaticities):
        metadata.colorimetry = Colorimetry.of_png(gamma, chromaticities)
    return metadata


def _from_pillow(
    picture: PIL.Image.Image,
    metadata: FileMetadata,
    ours: bool,
    max_pixels: int,
    keep_gps: bool,
    notes: list[str],
) -> Image:
    """Convert a Pillow image with its metadata; of one that is `ours`, free Pillow's copy of the pixels."""
    _check_pixels(picture.width, picture.height, max_pixels)
    source = picture.format or ""
    notes += metadata.notes
    several = getattr(picture, "is_animated", False) if metadata.several is None else metadata.several
    if several:
        pages = source in ("TIFF", "MPO")
        notes.append(f"several {'pages' if pages else 'frames'}, only the first is read")
    raw = _raw_mode(picture)
    tiff_exif, planar = None, False
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        tiff_exif = _tiff_exif(picture, notes, upright=ours)
        planar = picture.tag_v2.get(TiffImagePlugin.PLANAR_CONFIGURATION) == 2
        if planar and max(picture.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (8,))) > 8 and len(raw) == 1:
            # Pillow would read their bytes as 8-bit samples.
            raise MediaError("16-bit samples in separate planes", "save it with interleaved samples")
    if damage := metadata.check():
        notes.append(damage)
    picture.load()
    _check_pixels(picture.width, picture.height, max_pixels)

    exif, xmp, icc = _metadata(picture)
    exif, xmp, icc = metadata.exif or tiff_exif or exif, metadata.xmp or xmp, metadata.icc or icc
    if icc and not is_sound(icc):
        notes.append("ICC profile is broken, left out")
        icc = None
    orientation = _orientation(exif) if metadata.orientation is None else metadata.orientation
    if xmp and orientation == 1:
        _note_orientation(xmp, notes)
    convert, fitting_icc = converter(picture, raw, icc, notes)
    samples, alpha = convert_all(picture, convert)
    managed = picture.mode in ("CMYK", "LAB")
    if ours:
        _free(picture)
        if raw in SWAPPED and not planar:
            _second_pass(metadata.pixels, source, raw, samples, alpha)
    if metadata.inverted:
        np.subtract(255, samples, out=samples)
    alpha = _outside(metadata.visible, samples, alpha)

    samples = _upright(samples, orientation)
    alpha = None if alpha is None else _upright(alpha, orientation)
    height, width = samples.shape[:2]
    if fitting_icc and fitting_icc[16:20] != (b"GRAY" if samples.shape[2] == 1 else b"RGB "):
        notes.append("ICC profile does not fit the samples, left out")
        fitting_icc = None
    if not managed:
        fitting_icc = _colours(fitting_icc, metadata.colorimetry, exif, samples.shape[2], notes)
    return Image(
        samples,
        alpha,
        icc=fitting_icc,
        exif=_cleaned("EXIF", clean_exif, exif, width, height, keep_gps, notes),
        xmp=_cleaned("XMP", clean_xmp, xmp, width, height, keep_gps, notes),
        source=source,
    )


def _colours(
    icc: bytes | None, stated: Colorimetry, exif: bytes | None, channels: int, notes: list[str]
) -> bytes | None:
    """The profile of the file, or one made of what the file states otherwise; warn of HDR."""
    if stated.note:
        notes.append(stated.note)
    if icc is not None:
        hdr = hdr_profile(icc)
        if hdr and not stated.note:
            notes.append(hdr_note(hdr))
        return icc
    if stated.known:
        return stated.profile(channels)
    try:
        adobe = channels == 3 and exif is not None and exif_says_adobe(exif)
    except (ValueError, struct.error):
        adobe = False
    if adobe:
        notes.append("Adobe RGB by EXIF alone: given its profile")
        return Colorimetry.measured(ADOBE, 563 / 256).profile(channels)
    return None


def _outside(
    visible: tuple[int, int, int, int] | None, samples: np.ndarray, alpha: np.ndarray | None
) -> np.ndarray | None:
    """Make transparent what the first frame does not cover of its canvas."""
    height, width = samples.shape[:2]
    if visible is None or visible == (0, 0, width, height):
        return alpha
    left, top, right, bottom = visible
    inside = np.zeros((height, width), np.bool_)
    inside[top:bottom, left:right] = True
    if inside.all():
        return alpha
    if alpha is None:
        alpha = np.full((height, width), 255, np.uint8)
    alpha[~inside] = 0
    return alpha


def _free(picture: PIL.Image.Image) -> None:
    # The base class's close, because that of ImageFile closes the caller's stream too.
    PIL.Image.Image.close(picture)


def _second_pass(
    pixels: BinaryIO | Spliced, source: str, raw: str, samples: np.ndarray, alpha: np.ndarray | None
) -> None:
    """Round 16-bit samples, of which Pillow gave the high bytes, with their low bytes."""
    picture: Any = open_picture(source, pixels)
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        _tiff_exif(picture, [], upright=True)
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


def _tiff_exif(picture: TiffImagePlugin.TiffImageFile, notes: list[str], *, upright: bool) -> bytes | None:
    try:
        exif = picture.getexif()
        if upright:  # Pillow would turn it, by a number in XMP too
            exif[ORIENTATION] = 1
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


def _orientation(exif: bytes | None) -> int:
    try:
        return (exif_orientation(exif) if exif else None) or 1
    except (ValueError, struct.error):
        return 1


def _note_orientation(xmp: bytes, notes: list[str]) -> None:
    """Say that XMP alone gives an orientation: no viewer turns an image for it, and it is reset."""
    try:
        stated = xmp_orientation(xmp)
    except ValueError:
        return
    if stated not in (None, 1):
        notes.append(f"orientation {stated} in XMP alone, which turns no image: reset")


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
    except (ValueError, struct.error):
        notes.append(f"{name} could not be read, left out")
        return None


def _upright(plane: np.ndarray, orientation: int) -> np.ndarray:
    """Return a view of [H, W, ...] with EXIF's orientation 1 to 8 applied."""
    if orientation in (3, 4, 6, 7):
        plane = plane[::-1]
    if orientation in (2, 3, 7, 8):
        plane = plane[:, ::-1]
    return plane.swapaxes(0, 1) if orientation > 4 else plane
