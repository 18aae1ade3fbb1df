"""Pack pixels without loss as the VP8L bitstream of lossless WebP (RFC 9649), and unpack them.

Some pixels of a rectangle may be absent. They are transparent, those that are there opaque.
"""

from __future__ import annotations

import io
import struct

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from ..errors import DamagedError
from .guard import pillow_unlimited

METHOD, QUALITY = 4, 100
"""Effort of the encoder. Method 6 would save a further percent, and take six to a hundred times as long."""

QUICK_METHOD, QUICK_QUALITY = 1, 50
"""Much less time, for a few percent more bytes; method 0 is quicker still, but misses repetitions."""

_SIGNATURE = 0x2F
_RIFF = struct.Struct("<4sI4s4sI")
_SIDE_BITS = 14


def pack_pixels(samples: NDArray[np.uint8], mask: NDArray[np.bool_], *, quick: bool = False) -> bytes:
    """Pack the pixels of a rectangle; empty where there are none.

    Args:
        samples: uint8 [H, W, C], C = 1 or 3, at most 16383 a side.
        mask: bool [H, W], which of them to pack.
        quick: pack them larger, in less time, for an estimate.
    """
    if not mask.any():
        return b""
    picture = np.broadcast_to(samples, (*samples.shape[:2], 3))
    if not mask.all():
        # One colour under the transparent pixels costs nothing.
        picture = np.concatenate((picture * mask[:, :, None], np.uint8(255) * mask[:, :, None]), 2)
    stream = io.BytesIO()
    image = PIL.Image.fromarray(np.ascontiguousarray(picture))
    method, quality = (QUICK_METHOD, QUICK_QUALITY) if quick else (METHOD, QUALITY)
    image.save(stream, "WEBP", lossless=True, method=method, quality=quality)
    data = stream.getvalue()
    (_, _, _, kind, size) = _RIFF.unpack_from(data)
    if kind != b"VP8L":
        raise RuntimeError(f"lossless WebP in a chunk {kind!r}")
    return data[_RIFF.size : _RIFF.size + size]


def unpack_pixels(data: bytes, size: tuple[int, ...], channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Unpack the pixels of `pack_pixels`; nothing that `data` states is trusted.

    Args:
        data: a VP8L bitstream.
        size: height and width, from the checked header.
        channels: 1 or 3.

    Returns:
        uint8 [H, W, C], and bool [H, W], which pixels are there.

    Raises:
        DamagedError: of another size, or not what an encoder writes. The size is compared before pixels
            are allocated.
    """
    if len(data) < 5 or data[0] != _SIGNATURE:
        raise DamagedError("stored pixels are no lossless WebP")
    head = int.from_bytes(data[1:5], "little")
    sides = [1 + (head >> shift) % (1 << _SIDE_BITS) for shift in (_SIDE_BITS, 0)]
    if sides != [*size]:
        raise DamagedError(f"stored pixels are {sides[1]} x {sides[0]}, the tile {size[1]} x {size[0]}")
    padding = len(data) % 2
    riff = _RIFF.pack(b"RIFF", 12 + len(data) + padding, b"WEBP", b"VP8L", len(data)) + data + bytes(padding)
    try:
        with pillow_unlimited([]), PIL.Image.open(io.BytesIO(riff), formats=["WEBP"]) as picture:
            picture.load()
            found = np.asarray(picture)
    except Exception as error:  # Pillow's decoders raise a dozen types on damage
        raise DamagedError("stored pixels are damaged") from error
    alpha = found[:, :, 3] if found.shape[2] == 4 else np.full(size, 255, np.uint8)
    mask = alpha == 255
    if (alpha[~mask] > 0).any():
        raise DamagedError("stored pixels are half transparent")
    if channels == 1 and (mask & (np.ptp(found[:, :, :3], axis=2) > 0)).any():
        raise DamagedError("stored pixels of a gray image have colours")
    return found[:, :, :channels], mask
