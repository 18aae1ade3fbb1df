"""Sets of small pictures in one file: .npy, .npz, and the idx files of MNIST, also with gzip."""

from __future__ import annotations

import gzip
import math
import re
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Literal, cast

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ..errors import MediaError
from .opening import Readable, Writable, created, opened

SET_NAMES = re.compile(r"\.np[yz]$|\.idx(\.gz)?$|idx\d-ubyte(\.gz)?$", re.IGNORECASE)
"""Names of files that hold sets."""

SET_STARTS = (b"\x93NUMPY", b"PK\3\4", b"\0\0\x08\3", b"\0\0\x08\4")
"""First bytes of sets that are not compressed by gzip."""

SET_FORMATS = ("npy", "npz", "idx")
"""Formats that can be written."""

MEMORY = 1 << 31
"""Largest set, in bytes of pixels."""

MAX_MEMBERS = 64
"""Most files in an archive."""

# RuntimeError: a zip archive is encrypted; NotImplementedError: of another compression; the last three: a
# header of .npy, which is a Python literal, is too deep or no literal.
_UNREADABLE = (
    *(OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, NotImplementedError),
    *(MemoryError, RecursionError, tokenize.TokenError),
)
_WANTED = "give uint8 or bool [N, H, W] or [N, H, W, 3] in .npy, .npz or idx"


@dataclass(frozen=True, eq=False)
class PictureSet:
    """Small pictures of one size.

    Attributes:
        pixels: uint8 [N, H, W] or [N, H, W, 3].
        source: format of the file: "NPY", "NPZ", "IDX".
    """

    pixels: NDArray[np.uint8]
    source: str = ""

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def white(self) -> int | None:
        """The value of a 1, 1 or 255, where all pixels are 0 or that; else None."""
        largest = int(self.pixels.max(initial=0))
        if largest not in (0, 1, 255) or not np.isin(self.pixels, (0, largest)).all():
            return None
        return largest or 1


def read_set(source: Readable, *, memory: int = MEMORY) -> PictureSet:
    """Read a set of pictures, in the format that the first bytes tell.

    Raises:
        MediaError: another file, no set of bytes or booleans, or more pixels than `memory` bytes hold.
    """
    with opened(source) as stream:
        try:
            pixels, kind = _read(stream, memory)
        except _UNREADABLE as error:
            raise MediaError(f"not a set of pictures: {str(error)[:200]}", _WANTED) from error
    if pixels.ndim == 4 and pixels.shape[3] == 1:
        pixels = pixels[..., 0]
    if not (pixels.ndim == 3 or pixels.ndim == 4 and pixels.shape[3] == 3) or not pixels.size:
        shape = ", ".join(map(str, pixels.shape))
        raise MediaError(f"not a set of pictures, but an array [{shape}]", _WANTED)
    return PictureSet(pixels, kind)


def write_set(content: PictureSet, target: Writable, format: str) -> None:
    """Write a set of pictures.

    Args:
        content: to write.
        target: path or binary stream.
        format: one of SET_FORMATS.

    Raises:
        OSError: from the disk or the stream.
    """
    pixels = np.ascontiguousarray(content.pixels)
    with created(target) as stream:
        if format == "npy":
            np.save(stream, pixels)
        elif format == "npz":
            np.savez_compressed(stream, pictures=pixels)
        else:
            stream.write(bytes((0, 0, 8, pixels.ndim)) + np.array(pixels.shape, ">u4").tobytes())
            stream.write(pixels.tobytes())


def _read(stream: BinaryIO, memory: int) -> tuple[NDArray[np.uint8], str]:
    start = stream.read(6)
    stream.seek(0)
    if start[:2] == b"\x1f\x8b":
        with gzip.open(stream) as file:
            return _read(cast("BinaryIO", file), memory)
    if start == b"\x93NUMPY":
        return _npy(stream, memory), "NPY"
    if start[:4] == b"PK\3\4":
        return _npz(stream, memory), "NPZ"
    return _idx(stream, memory), "IDX"


def _npy(stream: BinaryIO, memory: int) -> NDArray[np.uint8]:
    """Read an array of bytes."""
    version = npy.read_magic(stream)
    headers: dict[tuple[int, int], Callable[..., tuple[tuple[int, ...], bool, np.dtype]]] = {
        (1, 0): npy.read_array_header_1_0,
        (2, 0): npy.read_array_header_2_0,
    }
    if version not in headers:
        raise ValueError(f"version {version[0]}.{version[1]} of .npy")
    shape, by_columns, kind = headers[version](stream)
    if kind not in (np.uint8, np.bool_):
        raise ValueError(f"pixels are {kind}, not uint8")
    return _array(stream, shape, memory, "F" if by_columns else "C")


def _npz(stream: BinaryIO, memory: int) -> NDArray[np.uint8]:
    """Read the one array with three or four axes."""
    found: dict[str, NDArray[np.uint8]] = {}
    refused = ""
    with zipfile.ZipFile(stream) as archive:
        if len(archive.infolist()) > MAX_MEMBERS:
            raise ValueError(f"an archive of {len(archive.infolist())} files, at most {MAX_MEMBERS}")
        for member in archive.infolist():
            try:
                with archive.open(member) as file:
                    array = _npy(cast("BinaryIO", file), memory)
            except ValueError as error:  # labels, most often
                refused = str(error)
                continue
            if array.ndim >= 3:
                found[member.filename.removesuffix(".npy")] = array
            if len(found) > 1:
                raise ValueError(f"several sets, {', '.join(found)}: save one, as .npy")
    if not found:
        raise ValueError(refused or "no array of pictures")
    return next(iter(found.values()))


def _idx(stream: BinaryIO, memory: int) -> NDArray[np.uint8]:
    """Read an idx file of unsigned bytes: 0 0 8 and the number of axes, sizes as uint32 in network order."""
    start = stream.read(4)
    axes = start[3] if start[:3] == b"\0\0\x08" and len(start) == 4 else 0
    sizes = stream.read(4 * axes)
    if not axes or len(sizes) < 4 * axes:
        raise ValueError("unknown first bytes")
    return _array(stream, tuple(map(int, np.frombuffer(sizes, ">u4"))), memory, "C")


def _array(
    stream: BinaryIO, shape: tuple[int, ...], memory: int, order: Literal["C", "F"]
) -> NDArray[np.uint8]:
    """Read the pixels, to the end of the stream: no more than the header claims, and that is limited."""
    count = math.prod(shape)
    if not 0 <= count <= memory:
        raise ValueError(f"{count >> 20} MiB of pixels, limit {memory >> 20}")
    data = stream.read(count)
    if len(data) != count or stream.read(1):
        more = "more" if len(data) == count else f"{len(data):,}"
        raise ValueError(f"{more} bytes for {count:,} pixels")
    return np.frombuffer(data, np.uint8).reshape(shape, order=order)
