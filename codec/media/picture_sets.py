"""Sets of small pictures in one file: .npy, .npz, and the idx files of MNIST, also with gzip."""

from __future__ import annotations

import gzip
import io
import math
import re
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ..errors import MediaError
from .opening import Readable, Writable, created, opened

SET_NAMES = re.compile(r"\.np[yz]$|\.idx(\.gz)?$|idx\d-ubyte(\.gz)?$", re.IGNORECASE)
"""Names of files that hold sets."""

SET_FORMATS = ("npy", "npz", "idx")
"""Formats that can be written."""

MEMORY = 1 << 31
"""Largest set, in bytes of pixels."""

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
            pixels, kind = _read(stream.read(), memory)
        except (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise MediaError(f"not a set of pictures: {error}", _WANTED) from error
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


def _read(data: bytes, memory: int) -> tuple[NDArray[np.uint8], str]:
    if data[:2] == b"\x1f\x8b":
        with gzip.open(io.BytesIO(data)) as file:
            data = file.read(memory + 2**16)
    if data[:6] == b"\x93NUMPY":
        return _npy(data, memory), "NPY"
    if data[:4] == b"PK\3\4":
        return _npz(data, memory), "NPZ"
    return _idx(data, memory), "IDX"


def _npy(data: bytes, memory: int) -> NDArray[np.uint8]:
    """Read an array of bytes; its header is not trusted with a size."""
    stream = io.BytesIO(data)
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
    return _array(data[stream.tell() :], shape, memory, "F" if by_columns else "C")


def _npz(data: bytes, memory: int) -> NDArray[np.uint8]:
    """Read the one array with three or four axes."""
    found: dict[str, NDArray[np.uint8]] = {}
    refused = ""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for member in archive.infolist():
            if member.file_size > memory + 2**16:
                raise ValueError(f"{member.filename} has {member.file_size >> 20} MiB")
            try:
                array = _npy(archive.read(member), memory)
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


def _idx(data: bytes, memory: int) -> NDArray[np.uint8]:
    """Read an idx file of unsigned bytes: 0 0 8 and the number of axes, sizes as uint32 in network order."""
    axes = data[3] if data[:3] == b"\0\0\x08" else 0
    if not axes or len(data) < 4 + 4 * axes:
        raise ValueError("unknown first bytes")
    shape = tuple(map(int, np.frombuffer(data[4 : 4 + 4 * axes], ">u4")))
    return _array(data[4 + 4 * axes :], shape, memory, "C")


def _array(data: bytes, shape: tuple[int, ...], memory: int, order: str) -> NDArray[np.uint8]:
    count = math.prod(shape)
    if count > memory:
        raise ValueError(f"{count >> 20} MiB of pixels, limit {memory >> 20}")
    if len(data) != count:
        raise ValueError(f"{len(data):,} bytes for {count:,} pixels")
    return np.frombuffer(data, np.uint8).reshape(shape, order=order)  # type: ignore[call-overload,no-any-return]
