"""vqcodec: neural image and audio codec whose bitstreams decode to the same symbols on every machine.

    data = vqcodec.encode("photo.png")
    image = vqcodec.decode(data)
    image.save("photo.decoded.png")

Everything is imported on first use, so that `import vqcodec` is instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .bitstream.container import Info
    from .errors import VqcodecError, VqcodecWarning
    from .evaluation import evaluate
    from .media import Audio, Image, PictureSet
    from .pipeline import (
        decode,
        decode_audio,
        decode_image,
        decode_set,
        encode,
        encode_batch,
        encode_set,
        info,
    )
    from .pipeline.sampling import sample
    from .pipeline.tokens import detokenize, tokenize
    from .thumbnails import placeholder, placeholder_image
    from .training import train
    from .weights import shipped

_HOMES = {
    "Audio": ("media", "Audio"),
    "Image": ("media", "Image"),
    "Info": ("bitstream.container", "Info"),
    "PictureSet": ("media", "PictureSet"),
    "VqcodecError": ("errors", "VqcodecError"),
    "VqcodecWarning": ("errors", "VqcodecWarning"),
    "decode": ("pipeline", "decode"),
    "decode_audio": ("pipeline", "decode_audio"),
    "decode_image": ("pipeline", "decode_image"),
    "decode_set": ("pipeline", "decode_set"),
    "detokenize": ("pipeline.tokens", "detokenize"),
    "encode": ("pipeline", "encode"),
    "encode_batch": ("pipeline", "encode_batch"),
    "encode_set": ("pipeline", "encode_set"),
    "evaluate": ("evaluation", "evaluate"),
    "info": ("pipeline", "info"),
    "placeholder": ("thumbnails", "placeholder"),
    "placeholder_image": ("thumbnails", "placeholder_image"),
    "sample": ("pipeline.sampling", "sample"),
    "shipped": ("weights", "shipped"),
    "tokenize": ("pipeline.tokens", "tokenize"),
    "train": ("training", "train"),
}

__all__ = [
    "Audio",
    "Image",
    "Info",
    "PictureSet",
    "VqcodecError",
    "VqcodecWarning",
    "decode",
    "decode_audio",
    "decode_image",
    "decode_set",
    "detokenize",
    "encode",
    "encode_batch",
    "encode_set",
    "evaluate",
    "info",
    "placeholder",
    "placeholder_image",
    "sample",
    "shipped",
    "tokenize",
    "train",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'vqcodec' has no attribute '{name}'")
    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(f".{module}", __name__), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
