"""The size of the image, audio or set of pictures in a bitstream, and its regions and grids.

FORMAT.md describes the bytes. Standard library only, so that headers are read without waiting for imports.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import DamagedError, LimitError
from .binary import Cursor, varint

REGION = 512
"""Largest side of a region of an image, in pixels."""

TILE = 4 * REGION
"""Largest side of a tile of stored pixels: damage stays within a tile, and so does memory."""

SEGMENT = 2000
"""Largest length of a region of audio, in positions of one channel: 8 seconds at 250 per second."""

AUDIO_RATE = 16_000
"""Sample rate of coded audio, in hertz."""

MAX_SIDE = 2**24
MAX_AREA = 2**32
MAX_FRAMES = 2**32
MAX_RATE = 2**20
MAX_CHANNELS = 255
MAX_CHUNKS = 2**18
MAX_PICTURES = 2**24

PICTURES = 4096
"""Largest number of pictures in a chunk of a set."""

STRIDE_BITS = 0x07
"""Mask of the bits of the flags that hold log2 of the stride."""


@dataclass(frozen=True)
class Region:
    """The part of the samples coded by one chunk: a rectangle of an image, or a segment of an audio channel.

    Attributes:
        samples: a slice of samples along each axis; it begins at a multiple of the stride.
        channel: index of the audio channel; None for images.
    """

    samples: tuple[slice, ...]
    channel: int | None = None

    def part(self, stride: int) -> tuple[int | slice, ...]:
        """Return the region's index in a plane: rows and columns, or a channel and positions."""
        axes = (slice(axis.start // stride, -(-axis.stop // stride)) for axis in self.samples)
        return (*axes,) if self.channel is None else (self.channel, *axes)

    def shape(self, stride: int) -> tuple[int, ...]:
        """Return the number of positions of the region in a plane of this stride, along each axis."""
        return tuple(-(-axis.stop // stride) - axis.start // stride for axis in self.samples)

    def within(self, outer: Region) -> tuple[slice, ...] | None:
        """Return the slices of the region inside an outer one; None where it is not in there."""
        pairs = [*zip(self.samples, outer.samples, strict=True)]
        if not all(around.start <= axis.start and axis.stop <= around.stop for axis, around in pairs):
            return None
        return tuple(slice(axis.start - around.start, axis.stop - around.start) for axis, around in pairs)


@dataclass(frozen=True)
class ImageGeometry:
    """The size of an image.

    Attributes:
        width: pixels, 1 to 2**24.
        height: pixels, 1 to 2**24; width x height at most 2**32.
        channels: 1 (gray) or 3 (colour).
        stride: pixels per position of the finest plane along either axis, a power of two from 1 to 128.
    """

    width: int
    height: int
    channels: int = 3
    stride: int = 4

    kind = "image"

    def grid(self, stride: int) -> tuple[int, int]:
        """Return the rows and columns of positions in a plane of this stride."""
        return -(-self.height // stride), -(-self.width // stride)

    @property
    def chunk_count(self) -> int:
        """Number of regions, which is that of chunks."""
        return -(-self.height // REGION) * -(-self.width // REGION)

    @property
    def regions(self) -> Iterator[Region]:
        """Regions in the order of their chunks."""
        return self._squares(REGION)

    @property
    def tiles(self) -> list[Region]:
        """Tiles of stored pixels in the order of the file, each of whole regions."""
        return [*self._squares(TILE)]

    def numbers(self, rows: slice, columns: slice) -> list[int]:
        """Return the numbers of the regions that have pixels in these rows and columns."""
        sides = [
            range(max(axis.start, 0) // REGION, -(-min(axis.stop, end) // REGION))
            for axis, end in ((rows, self.height), (columns, self.width))
        ]
        width = -(-self.width // REGION)
        return [row * width + column for row in sides[0] for column in sides[1]]

    def _squares(self, side: int) -> Iterator[Region]:
        return (
            Region((slice(top, min(top + side, self.height)), slice(left, min(left + side, self.width))))
            for top in range(0, self.height, side)
            for left in range(0, self.width, side)
        )

    @property
    def whole(self) -> list[Region]:
        """Largest regions that a prior can sample at once: the whole image."""
        return [Region((slice(0, self.height), slice(0, self.width)))]

    @property
    def flag(self) -> bool:
        """Value of the flag bit that each medium defines for itself."""
        return self.channels == 3

    @property
    def describe(self) -> str:
        """Size in words, for messages."""
        return f"{self.width:,} x {self.height:,} pixels"

    def write(self) -> bytes:
        """Write the fields that follow the fingerprint."""
        if self.channels not in (1, 3):
            raise ValueError(f"{self.channels} channels")
        return varint(self.width) + varint(self.height)

    @classmethod
    def read(cls, cursor: Cursor, stride: int, flag: bool) -> ImageGeometry:
        """Read the fields of `write`."""
        return cls(cursor.varint(), cursor.varint(), 3 if flag else 1, stride)

    def check(self) -> None:
        """Refuse sizes that are impossible, or larger than the format allows.

        Raises:
            DamagedError: a side is zero.
            LimitError: too large.
        """
        if self.width < 1 or self.height < 1:
            raise DamagedError(f"header claims {self.describe}")
        sides = max(self.width, self.height)
        if sides > MAX_SIDE or self.width * self.height > MAX_AREA or self.chunk_count > MAX_CHUNKS:
            raise LimitError(f"header claims {self.describe}")


@dataclass(frozen=True)
class AudioGeometry:
    """The length and channels of audio.

    Attributes:
        frames: samples in each channel at the original rate, 1 to 2**32.
        rate: original sample rate in hertz, 1 to 2**20.
        gains: a byte for each channel; 0: the channel is silent and has no codes. Else the loudness of the
            channel was changed by (192 - gain) / 2 dB before coding.
        mid_side: whether the two coded channels are (left + right) / 2 and (left - right) / 2.
        stride: samples per position of the finest plane at AUDIO_RATE, a power of two from 1 to 128.
    """

    frames: int
    rate: int
    gains: bytes = b"\xc0"
    mid_side: bool = False
    stride: int = 64

    kind = "audio"

    @property
    def channels(self) -> int:
        """Number of channels, 1 to 255."""
        return len(self.gains)

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.frames / self.rate

    @property
    def samples(self) -> int:
        """Samples in each channel at AUDIO_RATE."""
        return -(-self.frames * AUDIO_RATE // self.rate)

    def grid(self, stride: int) -> tuple[int, int]:
        """Return the channels, and the positions of each in a plane of this stride."""
        return self.channels, -(-self.samples // stride)

    @property
    def audible(self) -> list[int]:
        """Indexes of the channels that are not silent, which are coded."""
        return [channel for channel, gain in enumerate(self.gains) if gain]

    @property
    def chunk_count(self) -> int:
        """Number of segments of channels that are not silent, which is that of chunks."""
        return -(-self.samples // (SEGMENT * self.stride)) * len(self.audible)

    @property
    def regions(self) -> Iterator[Region]:
        """Regions in the order of their chunks: by time, then by channel."""
        length = SEGMENT * self.stride
        return (
            Region((slice(start, min(start + length, self.samples)),), channel)
            for start in range(0, self.samples if self.audible else 0, length)
            for channel in self.audible
        )

    @property
    def tiles(self) -> list[Region]:
        """Audio has no stored samples."""
        return []

    @property
    def whole(self) -> list[Region]:
        """Largest regions that a prior can sample at once: the channels that are not silent."""
        return [Region((slice(0, self.samples),), channel) for channel in self.audible]

    @property
    def flag(self) -> bool:
        """Value of the flag bit that each medium defines for itself."""
        return self.mid_side

    @property
    def describe(self) -> str:
        """Size in words, for messages."""
        return f"{self.channels} channels of {self.frames:,} samples, {self.rate:,} a second"

    def write(self) -> bytes:
        """Write the fields that follow the fingerprint."""
        if not 1 <= self.channels <= MAX_CHANNELS or (self.mid_side and self.channels != 2):
            raise ValueError(f"{self.channels} channels")
        return varint(self.frames) + varint(self.rate) + bytes((self.channels,)) + self.gains

    @classmethod
    def read(cls, cursor: Cursor, stride: int, flag: bool) -> AudioGeometry:
        """Read the fields of `write`."""
        frames, rate = cursor.varint(), cursor.varint()
        return cls(frames, rate, cursor.take(cursor.byte()), flag, stride)

    def check(self) -> None:
        """Refuse sizes that are impossible, or larger than the format allows.

        Raises:
            DamagedError: no samples, no channels, or mid and side of other than two.
            LimitError: too long.
        """
        if self.frames < 1 or self.rate < 1 or not self.gains or (self.mid_side and self.channels != 2):
            raise DamagedError(f"header claims {self.describe}")
        if self.frames > MAX_FRAMES or self.rate > MAX_RATE or self.chunk_count > MAX_CHUNKS:
            raise LimitError(f"header claims {self.describe}")


@dataclass(frozen=True)
class SetGeometry:
    """The number and size of small pictures of 0 and 1.

    Attributes:
        count: pictures, 1 to 2**24; count x width x height at most 2**32.
        width: pixels, 1 to 2**24.
        height: pixels, 1 to 2**24.
        white: the value of a 1: 1 or 255.
        stride: always 1.
    """

    count: int
    width: int
    height: int
    white: int = 255
    stride: int = 1

    kind = "set"

    def grid(self, stride: int) -> tuple[int, int, int]:
        """Return pictures, rows and columns."""
        return self.count, -(-self.height // stride), -(-self.width // stride)

    @property
    def chunk_count(self) -> int:
        """Number of chunks."""
        return -(-self.count // PICTURES)

    @property
    def regions(self) -> Iterator[Region]:
        """Runs of pictures in the order of their chunks."""
        rest = slice(0, self.height), slice(0, self.width)
        ends = range(0, self.count, PICTURES)
        return (Region((slice(first, min(first + PICTURES, self.count)), *rest)) for first in ends)

    @property
    def whole(self) -> list[Region]:
        """The whole set."""
        return [Region((slice(0, self.count), slice(0, self.height), slice(0, self.width)))]

    @property
    def tiles(self) -> list[Region]:
        """No tiles: a set has no stored pixels."""
        return []

    @property
    def flag(self) -> bool:
        """Value of the flag bit that each medium defines for itself."""
        return self.white == 255

    @property
    def describe(self) -> str:
        """Size in words, for messages."""
        return f"{self.count:,} pictures of {self.width:,} x {self.height:,} pixels"

    def write(self) -> bytes:
        """Write the fields that follow the fingerprint."""
        if self.white not in (1, 255):
            raise ValueError(f"white is {self.white}")
        return varint(self.count) + varint(self.width) + varint(self.height)

    @classmethod
    def read(cls, cursor: Cursor, stride: int, flag: bool) -> SetGeometry:
        """Read the fields of `write`."""
        return cls(cursor.varint(), cursor.varint(), cursor.varint(), 255 if flag else 1, stride)

    def check(self) -> None:
        """Refuse sizes that are impossible, or larger than the format allows.

        Raises:
            DamagedError: no pictures, a side is zero, or another stride than 1.
            LimitError: too large.
        """
        if min(self.count, self.width, self.height) < 1 or self.stride != 1:
            raise DamagedError(f"header claims {self.describe}")
        sides = max(self.width, self.height)
        if self.count > MAX_PICTURES or sides > MAX_SIDE or self.count * self.width * self.height > MAX_AREA:
            raise LimitError(f"header claims {self.describe}")


Geometry = ImageGeometry | AudioGeometry | SetGeometry
KINDS: dict[int, type[ImageGeometry] | type[AudioGeometry] | type[SetGeometry]] = {
    1: ImageGeometry,
    2: AudioGeometry,
    3: SetGeometry,
}
"""Number in the header -> geometry of that medium."""
