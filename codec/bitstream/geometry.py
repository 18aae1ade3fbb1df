"""The size of the picture or sound in a bitstream, and the grid of codes and chunks that follows from it.

FORMAT.md describes the bytes. Standard library only, so that headers are read without waiting for anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import DamagedError, LimitError
from .binary import Cursor, varint

REGION = 512
"""A chunk of a picture covers at most REGION x REGION pixels."""

SEGMENT = 2000
"""A chunk of a sound covers at most so many codes of one channel: 8 seconds at 250 a second."""

SOUND_RATE = 16_000
"""Samples a second that a sound is coded at."""

MAX_SIDE = 2**24
MAX_AREA = 2**32
MAX_FRAMES = 2**32
MAX_RATE = 2**20
MAX_CHANNELS = 255
MAX_CHUNKS = 2**18

STRIDE_BITS = 0x07
"""Of the flags: log2 of the stride."""

Place = tuple[Any, ...]
"""Index of a grid of codes: two slices of a picture's, a channel and a slice of a sound's."""


@dataclass(frozen=True)
class Geometry:
    """A picture's size.

    Attributes:
        width: pixels, 1 to 2**24.
        height: pixels, 1 to 2**24; width x height at most 2**32.
        channels: 1 (gray) or 3 (colour).
        stride: pixels per code along either axis, a power of two from 1 to 128.
    """

    width: int
    height: int
    channels: int = 3
    stride: int = 4

    kind = "image"

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of codes."""
        return -(-self.height // self.stride), -(-self.width // self.stride)

    @property
    def region(self) -> int:
        """Rows and columns of codes that a chunk covers at most."""
        return REGION // self.stride

    @property
    def chunk_count(self) -> int:
        """Number of regions, and so of chunks."""
        rows, columns = self.grid
        return -(-rows // self.region) * -(-columns // self.region)

    @property
    def places(self) -> Iterator[Place]:
        """Where the codes of each chunk are in the grid, in the order of the chunks."""
        (rows, columns), region = self.grid, self.region
        return (
            (slice(top, min(top + region, rows)), slice(left, min(left + region, columns)))
            for top in range(0, rows, region)
            for left in range(0, columns, region)
        )

    @property
    def flag(self) -> bool:
        """The flag that is this kind's own."""
        return self.channels == 3

    @property
    def claim(self) -> str:
        """Its size in words."""
        return f"{self.width:,} x {self.height:,} pixels"

    def write(self) -> bytes:
        """The fields behind the fingerprint."""
        if self.channels not in (1, 3):
            raise ValueError(f"{self.channels} channels")
        return varint(self.width) + varint(self.height)

    @classmethod
    def read(cls, cursor: Cursor, stride: int, flag: bool) -> Geometry:
        """Undo `write`."""
        return cls(cursor.varint(), cursor.varint(), 3 if flag else 1, stride)

    def check(self) -> None:
        """Refuse what cannot be, and what is larger than the format allows.

        Raises:
            DamagedError: a side is zero.
            LimitError: too large.
        """
        if self.width < 1 or self.height < 1:
            raise DamagedError(f"header claims {self.claim}")
        sides = max(self.width, self.height)
        if sides > MAX_SIDE or self.width * self.height > MAX_AREA or self.chunk_count > MAX_CHUNKS:
            raise LimitError(f"header claims {self.claim}")


@dataclass(frozen=True)
class Timeline:
    """A sound's length and channels.

    Attributes:
        frames: samples in each channel at the sound's own rate, 1 to 2**32.
        rate: samples a second, 1 to 2**20.
        gains: a byte for each channel; 0: the channel is silent and has no codes. Else the signal that was
            coded had its loudness changed by (192 - gain) / 2 dB.
        mid_side: the two channels that were coded are (left + right) / 2 and (left - right) / 2.
        stride: samples per code at SOUND_RATE, a power of two from 1 to 128.
    """

    frames: int
    rate: int
    gains: bytes = b"\xc0"
    mid_side: bool = False
    stride: int = 64

    kind = "audio"

    @property
    def channels(self) -> int:
        """1 to 255."""
        return len(self.gains)

    @property
    def seconds(self) -> float:
        """Length."""
        return self.frames / self.rate

    @property
    def samples(self) -> int:
        """Samples in each channel at SOUND_RATE."""
        return -(-self.frames * SOUND_RATE // self.rate)

    @property
    def grid(self) -> tuple[int, int]:
        """Channels, and codes in each."""
        return self.channels, -(-self.samples // self.stride)

    @property
    def chunk_count(self) -> int:
        """Number of segments of channels that are not silent, and so of chunks."""
        return -(-self.grid[1] // SEGMENT) * sum(gain > 0 for gain in self.gains)

    @property
    def places(self) -> Iterator[Place]:
        """Where the codes of each chunk are in the grid, in the order of the chunks: time goes first."""
        codes = self.grid[1]
        audible = [channel for channel, gain in enumerate(self.gains) if gain]
        return (
            (channel, slice(start, min(start + SEGMENT, codes)))
            for start in range(0, codes if audible else 0, SEGMENT)
            for channel in audible
        )

    @property
    def flag(self) -> bool:
        """The flag that is this kind's own."""
        return self.mid_side

    @property
    def claim(self) -> str:
        """Its size in words."""
        return f"{self.channels} channels of {self.frames:,} samples, {self.rate:,} a second"

    def write(self) -> bytes:
        """The fields behind the fingerprint."""
        if not 1 <= self.channels <= MAX_CHANNELS or (self.mid_side and self.channels != 2):
            raise ValueError(f"{self.channels} channels")
        return varint(self.frames) + varint(self.rate) + bytes((self.channels,)) + self.gains

    @classmethod
    def read(cls, cursor: Cursor, stride: int, flag: bool) -> Timeline:
        """Undo `write`."""
        frames, rate = cursor.varint(), cursor.varint()
        return cls(frames, rate, cursor.take(cursor.byte()), flag, stride)

    def check(self) -> None:
        """Refuse what cannot be, and what is larger than the format allows.

        Raises:
            DamagedError: no samples, no channels, or mid and side of other than two.
            LimitError: too long.
        """
        if self.frames < 1 or self.rate < 1 or not self.gains or (self.mid_side and self.channels != 2):
            raise DamagedError(f"header claims {self.claim}")
        if self.frames > MAX_FRAMES or self.rate > MAX_RATE or self.chunk_count > MAX_CHUNKS:
            raise LimitError(f"header claims {self.claim}")


AnyGeometry = Geometry | Timeline
KINDS: dict[int, type[Geometry] | type[Timeline]] = {1: Geometry, 2: Timeline}
"""Number in the header -> what it is."""
