"""Files, streams, arrays and Pillow images <-> samples with their metadata."""

from .image import IMAGE_FORMATS, Image, pack_alpha, unpack_alpha, write_image
from .reading import MAX_PIXELS, read_image

__all__ = [
    "IMAGE_FORMATS",
    "MAX_PIXELS",
    "Image",
    "pack_alpha",
    "read_image",
    "unpack_alpha",
    "write_image",
]
