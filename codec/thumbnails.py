"""Placeholders from Python: an image -> a line of text -> a small image."""

from __future__ import annotations

import base64
import functools
import io

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL import ImageCms

from . import media, weights
from .errors import MediaError, UsageError
from .placeholders import layout
from .placeholders.decoding import LONGEST_SIDE, decode, render
from .placeholders.encoding import DEFAULT_SIZE, Searcher, aspect_index
from .placeholders.tables import Tables

MODEL = "ppca-thumbnail"
"""Weights of placeholders with the model number 0."""

DEFAULT_WIDTH = 32
"""Width of a decoded placeholder, in pixels."""

_GAP = 4.0
"""Large images are averaged down to this many times the thumbnail before the Lanczos filter."""


def placeholder(image: media.Source, *, size: int = DEFAULT_SIZE, max_pixels: int = media.MAX_PIXELS) -> str:
    """Code an image as a line of text, to be shown while the image loads.

    Transparent pixels are seen on white. Aspect ratios are kept to 3 %, and up to 16:1.

    Args:
        image: a path, bytes, a binary file, a PIL image, a uint8 array [H, W, C] or a media.Image.
        size: most bytes, 4..64; the text has four characters for three of them.
        max_pixels: refuse larger images.

    Raises:
        MediaError: the image cannot be read.
        UsageError: another size.
    """
    whole = read(image, max_pixels=max_pixels)
    return searcher().encode(thumbnail(whole), aspect_index(whole.width, whole.height), size)


def read(image: media.Source, *, max_pixels: int = media.MAX_PIXELS) -> media.Image:
    """Read an image, as `placeholder` takes it.

    Raises:
        MediaError: the image cannot be read, or it is audio.
    """
    if isinstance(image, media.Image):
        return image
    if isinstance(image, media.Audio):
        raise MediaError("placeholders are for images, not for audio", "name an image")
    return media.read_image(image, max_pixels=max_pixels)


def placeholder_image(text: str, *, width: int = DEFAULT_WIDTH) -> media.Image:
    """Decode a placeholder to an image of any width, smoothly: its cosines are sampled at so many pixels.

    Args:
        text: from `placeholder`.
        width: in pixels, 1..4096; the height follows from the aspect ratio, and is 4096 at most.

    Raises:
        DamagedError: not a placeholder, or a damaged one.
        VersionError: a placeholder of a later version.
        UsageError: another width.
    """
    if not 1 <= width <= LONGEST_SIDE:
        raise UsageError(f"a width of {width} pixels", f"give 1 to {LONGEST_SIDE}")
    found = decode(text, searcher().tables)
    return media.Image(render(found, searcher().tables, *found.size(width)))


def data_uri(text: str) -> str:
    """Return a placeholder as the data URI of a WebP image whose longer side has 32 pixels.

    Raises:
        DamagedError, VersionError: as `placeholder_image`.
    """
    found = decode(text, searcher().tables)
    width, height = found.size(layout.SIDE)
    if height > layout.SIDE:
        width, height = max(1, round(layout.SIDE * layout.SIDE / height)), layout.SIDE
    pixels = PIL.Image.fromarray(render(found, searcher().tables, width, height))
    file = io.BytesIO()
    pixels.save(file, "WEBP", quality=50, method=4)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def thumbnail(image: media.Image) -> NDArray[np.uint8]:
    """Shrink an image to what a placeholder codes: uint8 [32, 32, 3], sRGB, on white.

    Both sides become 32 pixels, whatever the aspect ratio.
    """
    samples = image.samples[:, :, 0] if image.channels == 1 else image.samples
    pixels = PIL.Image.fromarray(np.ascontiguousarray(samples))
    if image.alpha is not None:
        pixels = pixels.convert("RGBA")
        pixels.putalpha(PIL.Image.fromarray(np.ascontiguousarray(image.alpha)))
    side = (layout.SIDE, layout.SIDE)
    small = pixels.resize(side, PIL.Image.Resampling.LANCZOS, reducing_gap=_GAP)
    colours = small.convert("L" if image.channels == 1 else "RGB")  # of its profile; alpha has none
    colours = _to_srgb(colours, image.icc).convert("RGB")
    if image.alpha is not None:
        white = PIL.Image.new("RGB", side, "white")
        colours = PIL.Image.composite(colours, white, small.getchannel("A"))
    return np.asarray(colours)


def _to_srgb(pixels: PIL.Image.Image, icc: bytes | None) -> PIL.Image.Image:
    """Convert from a colour profile, if it is a profile of such pixels."""
    if icc is None:
        return pixels
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        converted = ImageCms.profileToProfile(
            pixels, profile, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return pixels
    return converted or pixels


@functools.cache
def searcher() -> Searcher:
    """Return what codes placeholders, with the shipped weights; no network library is imported.

    Raises:
        ModelError: damaged weights.
    """
    return Searcher(Tables.of(weights.read_tensors(MODEL)))
