"""Convert files, streams, arrays and Pillow images to samples with metadata, and back."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import PIL.Image

from .audio import Audio, write_audio
from .audio_files import AUDIO_FORMATS, sound_format
from .audio_reading import format_of, read_audio
from .image import IMAGE_FORMATS, Image, pack_alpha, unpack_alpha, write_image
from .lossless import pack_pixels, unpack_pixels
from .opening import Readable, Writable, opened
from .picture_sets import SET_FORMATS, SET_NAMES, SET_STARTS, PictureSet, read_set, write_set
from .reading import MAX_PIXELS, Samples, read_image
from .resampling import HIGHEST_RATE, LOWEST_RATE
from .tags import Tags, pack_tags, unpack_tags
from .tensors import is_tensor

MAX_SECONDS = 43_200.0
"""Longer audio is not decoded unless the caller raises the limit; each channel counts. 12 hours: 2.8 GB."""

Source: TypeAlias = "Readable | Samples | Image | Audio"
"""Path, content of a file, binary stream, `Samples` of an image, `Image` or `Audio`."""

__all__ = [
    "AUDIO_FORMATS",
    "HIGHEST_RATE",
    "IMAGE_FORMATS",
    "LOWEST_RATE",
    "MAX_PIXELS",
    "MAX_SECONDS",
    "SET_FORMATS",
    "SET_NAMES",
    "SET_STARTS",
    "Audio",
    "Image",
    "PictureSet",
    "Readable",
    "Samples",
    "Source",
    "Tags",
    "pack_alpha",
    "pack_pixels",
    "pack_tags",
    "read",
    "read_audio",
    "read_image",
    "read_set",
    "sound_format",
    "unpack_alpha",
    "unpack_pixels",
    "unpack_tags",
    "write",
    "write_audio",
    "write_image",
    "write_set",
]


def read(
    source: Readable | Samples, *, max_pixels: int = MAX_PIXELS, keep_gps: bool = False
) -> Image | Audio:
    """Read an image or audio, as the first bytes of the source tell.

    Args:
        source: as in `read_image`.
        max_pixels: as in `read_image`.
        keep_gps: as in `read_image`.

    Raises:
        MediaError: as in `read_image` and `read_audio`.
    """
    if not isinstance(source, PIL.Image.Image | np.ndarray) and not is_tensor(source):
        with opened(source) as stream:
            is_audio = bool(format_of(stream))
            stream.seek(0)
            if is_audio:
                return read_audio(stream)
            return read_image(stream, max_pixels=max_pixels, keep_gps=keep_gps)
    return read_image(source, max_pixels=max_pixels, keep_gps=keep_gps)


def write(content: Image | Audio, target: Writable, format: str) -> None:
    """Write an image or audio.

    Args:
        content: to write.
        target: as in `write_image` and `write_audio`.
        format: one of their formats, for this medium.

    Raises:
        MediaError, OSError: as in `write_image` and `write_audio`.
    """
    if isinstance(content, Image):
        write_image(content, target, format)
    else:
        write_audio(content, target, format)
