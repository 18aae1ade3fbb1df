"""Files, streams, arrays and Pillow images <-> samples with their metadata."""

import os
from typing import Any

from .audio import HIGHEST_RATE, LOWEST_RATE, Audio, read_audio, write_audio
from .audio_files import AUDIO_FORMATS, sound_format
from .image import IMAGE_FORMATS, Image, pack_alpha, unpack_alpha, write_image
from .opening import opened
from .reading import MAX_PIXELS, read_image
from .tags import pack_tags, unpack_tags

MAX_SECONDS = 43_200.0
"""Longer sounds are not decoded unless the caller raises the limit; each channel counts. 12 hours: 2.8 GB."""

Source = Any
"""A path, bytes, a binary file, a PIL image, a uint8 array [H, W, C], an Image or an Audio."""

__all__ = [
    "AUDIO_FORMATS",
    "HIGHEST_RATE",
    "IMAGE_FORMATS",
    "LOWEST_RATE",
    "MAX_PIXELS",
    "MAX_SECONDS",
    "Audio",
    "Image",
    "Source",
    "pack_alpha",
    "pack_tags",
    "read",
    "read_audio",
    "read_image",
    "sound_format",
    "unpack_alpha",
    "unpack_tags",
    "write_audio",
    "write_image",
]


def read(source: Any, *, max_pixels: int = MAX_PIXELS, keep_gps: bool = False) -> Image | Audio:
    """Read a picture or a sound, whichever the first bytes announce.

    Args:
        source: as in `read_image`.
        max_pixels: as in `read_image`.
        keep_gps: as in `read_image`.

    Raises:
        MediaError: as in `read_image` and `read_audio`.
    """
    if isinstance(source, bytes | bytearray | memoryview | str | os.PathLike) or hasattr(source, "read"):
        with opened(source) as stream:
            sound = sound_format(stream.read(16))
            stream.seek(0)
            if sound:
                return read_audio(stream)
            return read_image(stream, max_pixels=max_pixels, keep_gps=keep_gps)
    return read_image(source, max_pixels=max_pixels, keep_gps=keep_gps)
