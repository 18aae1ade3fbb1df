"""Convert Pillow's modes to uint8 gray or RGB with or without alpha, strip by strip."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator

import numpy as np
import PIL.Image
from PIL import ImageCms

from ..errors import MediaError

Convert = Callable[[PIL.Image.Image], np.ndarray]
"""Converter of a strip of a Pillow image to uint8 [h, w, 1 gray | 2 gray, alpha | 3 RGB | 4 RGB, alpha]."""

STRIP_PIXELS = 1 << 20

_SIXTEEN = (";16", ";16B", ";16L", ";16N", ";16R")
_OTHER = "L" if sys.byteorder == "big" else "B"
# Pillow reduces these to their high byte; read in the other byte order, to their low byte.
SWAPPED = {
    f"{kind};16{order}": f"{kind};16{other}"
    for kind in ("RGB", "RGBA", "RGBX")
    for order, other in (("B", "L"), ("L", "B"), ("N", _OTHER))
}


def convert_all(picture: PIL.Image.Image, convert: Convert) -> tuple[np.ndarray, np.ndarray | None]:
    """Convert an image to samples uint8 [H, W, 1 or 3] and alpha uint8 [H, W] or None.

    Pillow's own copy has 4 bytes a pixel; it is never copied whole.
    """
    samples = np.empty((0, 0, 0), np.uint8)
    alpha: np.ndarray | None = None
    for top, strip in _strips(picture, convert):
        colours = 1 if strip.shape[2] < 3 else 3
        if top == 0:
            samples = np.empty((picture.height, picture.width, colours), np.uint8)
            alpha = np.empty(samples.shape[:2], np.uint8) if strip.shape[2] > colours else None
        samples[top : top + len(strip)] = strip[:, :, :colours]
        if alpha is not None:
            alpha[top : top + len(strip)] = strip[:, :, -1]
    return samples, alpha


def round_with_low_bytes(
    picture: PIL.Image.Image, convert: Convert, samples: np.ndarray, alpha: np.ndarray | None, *, keyed: bool
) -> None:
    """Turn the high bytes of 16-bit samples into correctly rounded 8-bit samples, in place.

    Args:
        picture: the same image, loaded so that it gives the low bytes.
        convert: its converter.
        samples: uint8 [H, W, C], the high bytes.
        alpha: uint8 [H, W], likewise, or None.
        keyed: alpha marks samples that differ from a key colour, in high or in low bytes.
    """
    for top, low in _strips(picture, convert):
        rows = slice(top, top + len(low))
        _round(samples[rows], low[:, :, : samples.shape[2]])
        if alpha is not None and keyed:
            alpha[rows] |= low[:, :, -1]
        elif alpha is not None:
            _round(alpha[rows], low[:, :, -1])


def _round(high: np.ndarray, low: np.ndarray) -> None:
    # (256 high + low) / 257 = high + (low - high) / 257, so the nearest integer is at most one away.
    difference = low.astype(np.int16) - high
    high += difference > 128
    high -= difference < -128


def _strips(picture: PIL.Image.Image, convert: Convert) -> Iterator[tuple[int, np.ndarray]]:
    rows = max(1, STRIP_PIXELS // picture.width)
    for top in range(0, picture.height, rows):
        yield top, convert(picture.crop((0, top, picture.width, min(picture.height, top + rows))))


def converter(
    picture: PIL.Image.Image, raw: str, icc: bytes | None, notes: list[str], *, low: bool = False
) -> tuple[Convert, bytes | None]:
    """Choose the converter for the strips of a loaded image, and the ICC profile of its results.

    Args:
        picture: after load().
        raw: Pillow's raw mode, the layout of samples in the file.
        icc: profile of the file.
        notes: gets a line for each reduction or conversion.
        low: this is the second pass over a 16-bit image, for the low bytes.

    Raises:
        MediaError: the samples have 32 bits or signs.
    """
    mode, key = picture.mode, picture.info.get("transparency")
    if raw == "I;12":
        notes.append("12-bit samples, reduced to 8 bit")
    elif mode.startswith("I;16") or (raw.endswith(_SIXTEEN) and not raw.startswith("BGR")):
        notes.append("16-bit samples, reduced to 8 bit")

    if mode in ("1", "L"):
        # PNG states the key at the depth of the file, Pillow widens the samples only.
        scaled = key * {"L;2": 85, "L;4": 17}.get(raw, 1) if isinstance(key, int) else None
        return _keyed(lambda strip: np.asarray(strip.convert("L"))[:, :, None], scaled), icc
    if mode == "RGB":
        if isinstance(key, tuple) and raw in SWAPPED:
            key = tuple(value & 255 if low else value >> 8 for value in key)
        return _keyed(np.asarray, key if isinstance(key, tuple) else None), icc
    if mode in ("P", "PA"):
        return _palette(picture, icc), icc
    if mode == "RGBA" and raw == "LA;16B":
        return lambda strip: np.asarray(strip)[:, :, [0, 3]], icc
    if mode in ("LA", "RGBA"):
        return np.asarray, icc
    if mode in ("La", "RGBa"):
        return lambda strip: np.asarray(strip.convert(mode.upper())), icc
    if mode in ("RGBX", "YCbCr", "HSV"):
        return lambda strip: np.asarray(strip.convert("RGB")), icc
    if mode in ("CMYK", "LAB"):
        return _managed(mode, icc, notes), None
    if mode.startswith("I;16") or (mode == "I" and raw in ("PPM;16", "I;16B")):
        return _sixteen(4095 if raw == "I;12" else 65535, key if isinstance(key, int) else None), icc
    kind = {"I": "32-bit or signed integer", "F": "32-bit float"}.get(mode, mode)
    raise MediaError(
        f"{kind} samples", "convert it to 8 or 16 unsigned bits first, in a range of your choice"
    )


def _keyed(convert: Convert, key: int | tuple[int, ...] | None) -> Convert:
    """Add an alpha channel that is 0 where the samples equal `key`."""
    if key is None:
        return convert

    def with_alpha(strip: PIL.Image.Image) -> np.ndarray:
        samples = convert(strip)
        alpha = np.where((samples == np.array(key)).all(axis=2), 0, 255).astype(np.uint8)
        return np.concatenate([samples, alpha[:, :, None]], axis=2)

    return with_alpha


def _sixteen(highest: int, key: int | None) -> Convert:
    """Convert unsigned samples 0..highest to 0..255, rounded to nearest."""

    def reduce(strip: PIL.Image.Image) -> np.ndarray:
        wide = np.asarray(strip).astype(np.uint32)[:, :, None]
        samples = ((np.minimum(wide, highest) * 255 + highest // 2) // highest).astype(np.uint8)
        if key is None:
            return samples
        return np.concatenate([samples, np.where(wide == key, 0, 255).astype(np.uint8)], axis=2)

    return reduce


def _palette(picture: PIL.Image.Image, icc: bytes | None) -> Convert:
    """Convert palette indices by a table; a palette of grays gives gray samples."""
    kind = "RGBA" if picture.palette is not None and picture.palette.mode == "RGBA" else "RGB"
    entries = np.array(picture.getpalette(kind) or [0] * len(kind), np.uint8).reshape(-1, len(kind))[:256]
    table = np.zeros((256, 4), np.uint8)
    table[:, 3] = 255
    table[: len(entries), : len(kind)] = entries
    key = picture.info.get("transparency")
    if isinstance(key, int) and 0 <= key < 256:
        table[key, 3] = 0
    elif isinstance(key, bytes):
        table[: len(key[:256]), 3] = np.frombuffer(key[:256], np.uint8)

    gray = bool((entries[:, :1] == entries[:, :3]).all()) and (icc is None or icc[16:20] == b"GRAY")
    transparent = picture.mode == "PA" or bool((table[:, 3] < 255).any())
    table = np.ascontiguousarray(table[:, ([0] if gray else [0, 1, 2]) + ([3] if transparent else [])])

    def look_up(strip: PIL.Image.Image) -> np.ndarray:
        planes = np.asarray(strip)
        if strip.mode == "P":
            return np.take(table, planes, axis=0)
        samples = np.take(table, planes[:, :, 0], axis=0)
        samples[:, :, -1] = planes[:, :, 1]
        return samples

    return look_up


def _managed(mode: str, icc: bytes | None, notes: list[str]) -> Convert:
    """Convert CMYK or LAB to sRGB with LittleCMS; CMYK without a profile by the plain formula."""
    profile: ImageCms.ImageCmsProfile | None = None
    try:
        if mode == "LAB":
            profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        elif icc is not None:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        if profile is not None:
            transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB")
            notes.append(
                f"{mode} samples, converted to sRGB" + (" by their profile" if mode == "CMYK" else "")
            )
            return lambda strip: np.asarray(ImageCms.applyTransform(strip, transform))
    except (ImageCms.PyCMSError, OSError) as error:
        if mode == "LAB":
            raise MediaError("LAB samples cannot be converted", "convert it to RGB first") from error
        notes.append("ICC profile is broken, left out")
    notes.append("CMYK samples without a usable profile, converted to RGB by the plain formula")
    return lambda strip: np.asarray(strip.convert("RGB"))
