"""The CRC of decoded pixels, in a box of its own: whether they are those that the encoder saw."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..models.base import Model

BOX = "pixel-crc"

DIFFERENT = "decoded pixels are not those of the encoder"

BOX_BYTES = 12
"""Most bytes that the box adds to a file, its entry in the table included."""


def check(model: Model, *, lossless: bool) -> None:
    """Refuse files that have no pixels, pixels that are exact anyway, and pixels that machines differ in.

    Raises:
        UsageError: such a file.
    """
    hint = "leave out --pixel-crc"
    if model.medium != "image":
        raise UsageError("the CRC of pixels is for images, not for audio", hint)
    if lossless:
        raise UsageError("stored pixels are exact on every machine, and need no CRC", hint)
    if not model.in_file_as_integers:
        what = f"{model.card.name} decodes in floating point, a little differently on every machine"
        need = "name with -m an image model trained with --set integer_synthesis=true"
        raise UsageError(what, f"{hint}, or {need}")


def crc_of(samples: NDArray[np.uint8]) -> bytes:
    """Return the CRC-32 of pixels, [H, W, C] in this order, as the box holds it."""
    return zlib.crc32(samples.tobytes()).to_bytes(4, "little")
