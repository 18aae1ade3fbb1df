"""Hold an image in memory; write it to a file, and pack its alpha plane for a metadata box."""

from __future__ import annotations

import io
import os
import struct
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image
from PIL import PngImagePlugin

from ..errors import DamagedError, MediaError, MediaWarning, UsageError
from . import conversion
from .guard import pillow_unlimited
from .metadata import EXIF_PREFIX
from .opening import Writable, created
from .tensors import as_array, tensor_of
from .tiff import write_tiff

if TYPE_CHECKING:
    import torch

IMAGE_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".avif": "AVIF",
    ".bmp": "BMP",
}
"""Suffix of an output -> Pillow's name of the format."""

LARGEST_PREVIEW = 1024
"""Longest side of the picture that a notebook shows."""

Options = dict[str, Any]
"""Keyword arguments of Pillow's writers."""

# With zlib-ng, on Kodak and on smooth reconstructions of it, level 3 gives 2-3 % smaller files than level 6
# in 40 % of its time. JPEG and AVIF are not lossless, so they are written where a second loss is hard to see.
_OPTIONS: dict[str, Options] = {
    "PNG": {"compress_level": 3},
    "JPEG": {"quality": 95, "subsampling": "4:4:4"},
    "WEBP": {"lossless": True, "exact": True, "method": 2},
    "AVIF": {"quality": 95, "subsampling": "4:4:4", "speed": 6},
    "BMP": {},
}
_LONGEST_SIDE = {"JPEG": 65500, "WEBP": 16383, "AVIF": 65535}
_WITH_ALPHA = {"PNG", "WEBP", "TIFF", "AVIF"}
# Largest metadata that a format can hold, in bytes; formats not named hold any.
_ROOM: dict[str, dict[str, int]] = {
    "JPEG": {"icc": 255 * 65519, "exif": 65533 - len(EXIF_PREFIX), "xmp": 65504},
    "BMP": {"icc": 0, "exif": 0, "xmp": 0},
}


@dataclass(frozen=True, eq=False, repr=False)
class Image:
    r"""Upright image with its metadata.

    An array where numpy wants one, and a picture in notebooks.

    Attributes:
        samples: uint8 [H, W, C], C = 1 (gray) or 3 (RGB); may be a non-contiguous view.
        alpha: uint8 [H, W], 255 is opaque; None if the image has no alpha channel.
        icc: ICC profile of the samples.
        exif: TIFF structure without the prefix `Exif\0\0`; its orientation tag, if any, is 1.
        xmp: XMP packet, UTF-8.
        source: format of its file ("PNG", "JPEG", ...); empty for arrays.

    Raises:
        MediaError: the arrays have a wrong type or shape.
    """

    samples: np.ndarray
    alpha: np.ndarray | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    source: str = ""

    def __post_init__(self) -> None:
        shape = self.samples.shape
        if self.samples.dtype != np.uint8 or len(shape) != 3 or shape[2] not in (1, 3) or 0 in shape:
            raise MediaError(f"samples are {self.samples.dtype} {list(shape)}", "give uint8 [H, W, 1 or 3]")
        if self.alpha is not None and (self.alpha.dtype != np.uint8 or self.alpha.shape != shape[:2]):
            raise MediaError(f"alpha is {self.alpha.dtype} {list(self.alpha.shape)}", "give uint8 [H, W]")

    @property
    def width(self) -> int:
        """Return the number of pixels in a row."""
        return int(self.samples.shape[1])

    @property
    def height(self) -> int:
        """Return the number of rows."""
        return int(self.samples.shape[0])

    @property
    def channels(self) -> int:
        """Return the number of channels without alpha: 1 for gray, 3 for RGB."""
        return int(self.samples.shape[2])

    def __repr__(self) -> str:
        names = ("alpha", "icc", "exif", "xmp")
        parts = [name for name in names if getattr(self, name) is not None]
        colors = "RGB" if self.channels == 3 else "gray"
        return f"<Image {', '.join((f'{self.width} x {self.height} {colors}', *parts))}>"

    def __array__(self, dtype: np.dtype[Any] | None = None, copy: bool | None = None) -> np.ndarray:
        """Return the samples, [H, W, C]."""
        return as_array(self.samples, dtype, copy)

    def to_pil(self) -> PIL.Image.Image:
        """Return a Pillow image with alpha and metadata: "L", "LA", "RGB" or "RGBA"."""
        picture = _to_pillow(self, self.alpha is not None)
        boxes = {"icc_profile": self.icc, "exif": self.exif and EXIF_PREFIX + self.exif, "xmp": self.xmp}
        picture.info.update({name: box for name, box in boxes.items() if box})
        return picture

    def to_tensor(self, device: str | torch.device = "cpu") -> torch.Tensor:
        """Return the samples as a tensor: float32 [C, H, W] in 0..1, without alpha."""
        return tensor_of(self.samples, device)

    def _repr_png_(self) -> bytes:
        """Return a PNG for notebooks, at most LARGEST_PREVIEW pixels a side."""
        picture = self.to_pil()
        picture.thumbnail((LARGEST_PREVIEW, LARGEST_PREVIEW))
        stream = io.BytesIO()
        picture.save(stream, format="PNG", compress_level=3, icc_profile=self.icc)
        return stream.getvalue()

    def without(self, what: Iterable[str]) -> Image:
        """Return the same image without some of its metadata.

        Args:
            what: any of "exif", "xmp", "icc", "all"; "tags" is allowed and concerns audio only.

        Raises:
            UsageError: an unknown word.
        """
        names = {what} if isinstance(what, str) else set(what)
        if unknown := names - {"exif", "xmp", "icc", "tags", "all"}:
            raise UsageError(f"cannot strip {min(unknown)}", "choose from exif, xmp, icc, tags and all")
        gone = {"exif", "xmp", "icc"} if "all" in names else names
        return replace(
            self,
            icc=None if "icc" in gone else self.icc,
            exif=None if "exif" in gone else self.exif,
            xmp=None if "xmp" in gone else self.xmp,
        )

    def save(self, path: str | os.PathLike[str], format: str | None = None) -> None:
        """Write the image to a file, in `format` or by the suffix of `path`.

        An existing file is replaced when the new one is complete.

        Raises:
            MediaError, OSError: as in `write_image`.
        """
        write_image(self, path, format or Path(path).suffix or "png")


def write_image(image: Image, target: Writable, format: str) -> None:
    """Write an image; PNG, WebP, TIFF and BMP are lossless.

    Args:
        image: to write.
        target: a path, or a binary stream that is left open.
        format: png, jpg (quality 95, 4:4:4), webp, tiff, avif (quality 95, 4:4:4) or bmp.

    Raises:
        MediaError: unknown format, or an image too large for it.
        OSError: from the disk or the stream, as it came.

    Warns:
        MediaWarning: alpha or metadata that the format cannot hold is left out.
    """
    name = IMAGE_FORMATS.get("." + format.lower().removeprefix("."))
    if name is None:
        raise MediaError(f"cannot write {format!r} images", "choose png, jpg, webp, tiff, avif or bmp")
    if max(image.width, image.height) > _LONGEST_SIDE.get(name, 1 << 31):
        side = _LONGEST_SIDE[name]
        raise MediaError(f"{image.width} x {image.height} pixels, {name} holds {side} a side", "write a PNG")
    lost = []
    boxes = {}
    for box, data in (("icc", image.icc), ("exif", image.exif), ("xmp", image.xmp)):
        if data and len(data) <= _ROOM.get(name, {}).get(box, 1 << 31):
            boxes[box] = data
        elif data:
            lost.append(box.upper())
    keep_alpha = image.alpha is not None and name in _WITH_ALPHA
    if image.alpha is not None and not keep_alpha and image.alpha.min() < 255:
        lost.insert(0, "alpha")

    notes: list[str] = []
    try:
        with pillow_unlimited(notes), created(target) as stream:
            if name == "TIFF":
                write_tiff(stream, image.samples, image.alpha, image.icc, image.exif, image.xmp)
            else:
                options = _OPTIONS[name] | _metadata_options(name, boxes)
                _to_pillow(image, keep_alpha).save(stream, format=name, **options)
    except OSError as error:
        if error.errno is not None:
            raise
        raise MediaError(f"cannot be written as {name}: {error}", "write a PNG") from error
    except (ValueError, RuntimeError, struct.error, OverflowError) as error:
        raise MediaError(
            f"cannot be written as {name}: {error}", "write a PNG, or strip the metadata"
        ) from error
    if lost:
        notes.insert(0, f"{name} cannot hold {', '.join(lost)}: left out")
    for note in notes:
        warnings.warn(note, MediaWarning, stacklevel=2)


def _to_pillow(image: Image, with_alpha: bool) -> PIL.Image.Image:
    """Make a Pillow image strip by strip, without a second whole copy of the samples."""
    mode = {1: "L", 3: "RGB"}[image.channels] + ("A" if with_alpha else "")
    picture = PIL.Image.new(mode, (image.width, image.height))
    rows = max(1, conversion.STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        strip = image.samples[top : top + rows]
        if with_alpha and image.alpha is not None:
            strip = np.concatenate([strip, image.alpha[top : top + rows, :, None]], axis=2)
        elif image.channels == 1:
            strip = strip[:, :, 0]
        picture.paste(PIL.Image.fromarray(np.ascontiguousarray(strip)), (0, top))
    return picture


def _metadata_options(name: str, boxes: dict[str, bytes]) -> Options:
    """Return the keyword arguments of Pillow's save that hold the metadata boxes."""
    options: Options = {"icc_profile": boxes["icc"]} if "icc" in boxes else {}
    exif, xmp = boxes.get("exif"), boxes.get("xmp")
    if exif:
        options["exif"] = EXIF_PREFIX + exif
    if xmp and name == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", xmp)
        options["pnginfo"] = text
    elif xmp:
        options["xmp"] = xmp
    return options


_PNG_HEAD = struct.Struct(">8sI4sIIBBBBB")


def pack_alpha(alpha: np.ndarray) -> bytes:
    """Pack an alpha plane as an 8-bit gray PNG; empty if it is opaque throughout.

    Args:
        alpha: uint8 [H, W].
    """
    if alpha.size == 0 or alpha.min() == 255:
        return b""
    stream = io.BytesIO()
    PIL.Image.fromarray(np.ascontiguousarray(alpha)).save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def _is_bare(png: bytes) -> bool:
    """Tell whether a PNG has only pixels: texts and profiles could inflate to far more than the plane."""
    at = 8
    while at + 8 <= len(png):
        size, kind = struct.unpack_from(">I4s", png, at)
        if kind not in (b"IHDR", b"IDAT", b"IEND"):
            return False
        at += 12 + size
    return True


def unpack_alpha(data: bytes, width: int, height: int) -> np.ndarray:
    """Unpack the alpha plane of `pack_alpha`; nothing that `data` states is trusted.

    Args:
        data: an 8-bit gray PNG, or nothing for an opaque plane.
        width: pixels, from the checked header.
        height: likewise.

    Returns:
        uint8 [H, W].

    Raises:
        DamagedError: not such a PNG, of another size, or broken. A wrong header is found before pixels are
            allocated.
    """
    if not data:
        return np.full((height, width), 255, np.uint8)
    if len(data) < _PNG_HEAD.size:
        raise DamagedError("alpha plane is truncated")
    head = _PNG_HEAD.unpack_from(data)
    if head[:3] != (b"\x89PNG\r\n\x1a\n", 13, b"IHDR") or head[5:] != (8, 0, 0, 0, 0):
        raise DamagedError("alpha plane is not an 8-bit gray PNG")
    if head[3:5] != (width, height):
        raise DamagedError(f"alpha plane is {head[3]} x {head[4]}, the image {width} x {height}")
    if not _is_bare(data):
        raise DamagedError("alpha plane has more than pixels")
    try:
        with pillow_unlimited([]), PIL.Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            picture.load()
            if picture.size != (width, height) or picture.mode != "L":
                raise DamagedError("alpha plane has a second header")
            return np.array(picture)
    except DamagedError:
        raise
    except Exception as error:  # Pillow's decoders raise a dozen types on damage, down to AttributeError
        raise DamagedError("alpha plane is damaged") from error
