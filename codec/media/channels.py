"""Bring the channels of multichannel audio from the order of one format into that of another.

In memory, and in WAV and FLAC, the order is that of the bits of a WAVE channel mask: front left, front right,
front centre, LFE, back, side. Vorbis, and Opus of mapping family 1, put the centre second and the LFE last.
"""

from __future__ import annotations

from typing import BinaryIO

import numpy as np

_FROM_VORBIS = {
    3: (0, 2, 1),
    5: (0, 2, 1, 3, 4),
    6: (0, 2, 1, 5, 3, 4),
    7: (0, 2, 1, 6, 5, 3, 4),
    8: (0, 2, 1, 7, 5, 6, 3, 4),
}
"""Number of channels -> for each in the order of WAVE, its place in the order of Vorbis I, 4.3.9."""

MASKS = {1: 0x4, 2: 0x3, 3: 0x7, 4: 0x33, 5: 0x37, 6: 0x3F, 7: 0x70F, 8: 0x63F}
"""Number of channels -> the speakers they are for, as bits of a WAVE channel mask; the same as in FLAC."""

_SIDE_MASKS = {4: 0x603, 5: 0x607, 6: 0x60F}
"""Likewise, with the surround speakers at the sides."""

_EXTENSIBLE = 0xFFFE


def from_vorbis(block: np.ndarray) -> np.ndarray:
    """Return a block [n, C] in the order of WAVE."""
    order = _FROM_VORBIS.get(block.shape[1])
    return block if order is None else block[:, order]


def to_vorbis(block: np.ndarray) -> np.ndarray:
    """Return a block [n, C] in the order of Vorbis."""
    order = _FROM_VORBIS.get(block.shape[1])
    return block if order is None else block[:, np.argsort(order)]


def has_vorbis_order(head: bytes) -> bool:
    """Tell by its first page whether an Ogg has channels in the order of Vorbis: Vorbis, and most Opus."""
    at = head.find(b"OpusHead")
    return head[at + 18 : at + 19] == b"\1" if at >= 0 else b"\1vorbis" in head


def write_mask(stream: BinaryIO, channels: int) -> None:
    """State the speakers of a WAV of more than two channels, whose header is of the extensible kind."""
    stream.seek(12)
    head = stream.read(128)
    at = head.find(b"fmt ")
    if at < 0 or int.from_bytes(head[at + 8 : at + 10], "little") != _EXTENSIBLE:
        return
    stream.seek(12 + at + 8 + 20)
    stream.write(MASKS.get(channels, 0).to_bytes(4, "little"))


def unusual_mask(stream: BinaryIO, at: int, size: int) -> int:
    """Return the channel mask of a WAV where it is not the usual one of so many channels, else 0."""
    stream.seek(at)
    form = stream.read(min(size, 40))
    if len(form) < 40 or int.from_bytes(form[:2], "little") != _EXTENSIBLE:
        return 0
    channels = int.from_bytes(form[2:4], "little")
    mask = int.from_bytes(form[20:24], "little")
    usual = {0, MASKS.get(channels, 0), _SIDE_MASKS.get(channels, 0)}
    return 0 if mask in usual else mask
