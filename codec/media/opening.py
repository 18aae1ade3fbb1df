"""Open sources and targets of all kinds as binary streams at position 0."""

from __future__ import annotations

import bisect
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from ..errors import MediaError
from ..files import atomically, is_special

Readable = str | os.PathLike[str] | bytes | BinaryIO
"""Path, content of a file, or binary stream to read from."""

Writable = str | os.PathLike[str] | BinaryIO
"""Path or binary stream to write to."""


@contextmanager
def opened(source: Readable) -> Iterator[BinaryIO]:
    """Open a source as a seekable stream at position 0.

    Raises:
        MediaError: the source is missing, unreadable or empty.
    """
    stream: BinaryIO | None = None
    try:
        if isinstance(source, bytes | bytearray | memoryview):
            stream = io.BytesIO(source)
        elif isinstance(source, str | os.PathLike):
            stream = open(source, "rb")  # noqa: SIM115 (closed below; errors of opening are converted here)
            if not stream.seekable():
                with stream:
                    stream = io.BytesIO(stream.read())
        elif not hasattr(source, "read"):
            raise MediaError(
                f"a {type(source).__name__} is neither an image nor audio",
                "give a path, bytes, a file or an array",
            )
        elif isinstance(source, io.TextIOBase):
            raise MediaError("a text stream", "open the file in binary mode")
        elif source.seekable() and source.tell() == 0:
            stream = source
        else:
            stream = io.BytesIO(source.read())
        empty = not stream.read(1)
        stream.seek(0)
    except FileNotFoundError as error:
        raise MediaError("no such file", "check the name") from error
    except IsADirectoryError as error:
        raise MediaError("is a folder", "add -r to enter it") from error
    except PermissionError as error:
        raise MediaError("permission denied", "see who may read it: ls -l") from error
    except OSError as error:
        raise MediaError(f"cannot be read: {error.strerror or error}", "copy it to another disk") from error
    try:
        if empty:
            raise MediaError("empty file", "copy the file again")
        yield stream
    finally:
        if stream is not source:
            stream.close()


@contextmanager
def created(target: Writable) -> Iterator[BinaryIO]:
    """Open a target for writing, as a seekable stream at position 0.

    A file is replaced when the new content is complete; if anything is raised, the old one stays as it was.
    Content for a pipe, a device or a stream that does not stand at 0 waits in a temporary file.

    Raises:
        OSError: from the disk or the stream, as it came.
    """
    if isinstance(target, str | os.PathLike):
        path = Path(target)
        if not is_special(path) or path.is_dir():
            with atomically(path) as file:
                yield file
            return
        with path.open("wb") as device, _copied(device) as file:
            yield file
    elif target.seekable() and target.tell() == 0:
        yield target
    else:
        with _copied(target) as file:
            yield file


@contextmanager
def _copied(target: BinaryIO) -> Iterator[BinaryIO]:
    """Open a temporary file whose content is copied to a stream when it is complete."""
    with tempfile.TemporaryFile() as file:
        yield file
        file.seek(0)
        shutil.copyfileobj(file, target)


class Stream(Protocol):
    """Seekable stream of bytes: a file, or a part of one."""

    def read(self, count: int = ..., /) -> bytes:
        """Read at most `count` bytes."""

    def seek(self, offset: int, whence: int = ..., /) -> int:
        """Go to a position."""

    def tell(self) -> int:
        """Return the position."""

    def write(self, data: bytes, /) -> int | None:
        """Write all bytes, where the stream is one to write to."""

    def close(self) -> None:
        """Give up what the stream holds."""


class Spliced(io.RawIOBase):
    """Join stretches of streams, and bytes, to one stream for reading.

    It has neither a name nor a descriptor by which a library could read what was left out. Closing it leaves
    the streams open.
    """

    def __init__(self, *pieces: tuple[Stream | bytes, int, int]) -> None:
        """Join pieces: a seekable stream or bytes, and the first byte of it and the first behind."""
        self._starts: list[int] = []
        self._pieces: list[tuple[Stream, int, int]] = []
        self._at = self._size = 0
        for source, start, stop in pieces:
            self.add(source, start, stop)

    def add(self, source: Stream | bytes, start: int = 0, stop: int | None = None) -> None:
        """Append a stretch of a stream or bytes, of which there may be less; None is the end."""
        stream = io.BytesIO(source) if isinstance(source, bytes) else source
        there = stream.seek(0, os.SEEK_END)
        stop = there if stop is None else min(stop, there)
        if start >= stop:
            return
        last = self._pieces[-1] if self._pieces else None
        if last is not None and last[0] is stream and last[2] == start:
            self._pieces[-1] = stream, last[1], stop
        else:
            self._starts.append(self._size)
            self._pieces.append((stream, start, stop))
        self._size += stop - start

    def readable(self) -> bool:
        """Return True."""
        return True

    seekable = readable

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a position.

        Raises:
            ValueError: it is before the beginning.
        """
        at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if at < 0:
            raise ValueError("before the beginning")
        self._at = at
        return at

    def read(self, count: int | None = -1, /) -> bytes:
        """Read at most `count` bytes, or all."""
        there = max(self._size - self._at, 0)
        left = there if count is None or count < 0 else min(count, there)
        found = []
        index = bisect.bisect_right(self._starts, self._at) - 1
        while left > 0:
            stream, start, stop = self._pieces[index]
            at = start + self._at - self._starts[index]
            stream.seek(at)
            data = stream.read(min(left, stop - at))
            if not data:
                break  # the stream became shorter
            found.append(data)
            self._at += len(data)
            left -= len(data)
            index += at + len(data) == stop
        return b"".join(found)


class Guarded:
    """Wrap a binary stream so that it is safe to hand to a C library.

    It has no name from which a format could be guessed. It raises no exceptions, since C code would drop
    them: the first is stored, and the stream then behaves as if it had ended.

    Attributes:
        error: the first exception, or None.
        ended: whether a read went beyond the end.
    """

    def __init__(self, stream: Stream, patch: tuple[int, bytes] = (0, b"")) -> None:
        """Wrap a stream.

        Args:
            stream: seekable.
            patch: position and bytes that replace those of the stream.
        """
        self.error: BaseException | None = None
        self.ended = False
        self._stream = stream
        self._patch = patch

    def read(self, count: int) -> bytes:
        """Read at most `count` bytes."""
        try:
            at = self._stream.tell()
            data = b"" if self.error else self._stream.read(count)
        except BaseException as error:
            self.error = error
            return b""
        self.ended |= len(data) < count
        start, patch = self._patch
        if at < start + len(patch) and start < at + len(data):
            patched = bytearray(data)
            for index, byte in enumerate(patch, start - at):
                if 0 <= index < len(data):
                    patched[index] = byte
            return bytes(patched)
        return data

    def write(self, data: bytes) -> int:
        """Write bytes; return how many were written."""
        try:
            return 0 if self.error else self._stream.write(data) or 0
        except BaseException as error:
            self.error = error
            return 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position, or stay if it does not exist."""
        try:
            return self._stream.seek(offset, whence)
        except ValueError:  # before the beginning: the library follows a number in a damaged file
            return self.tell()
        except BaseException as error:
            self.error = self.error or error
            return 0

    def tell(self) -> int:
        """Return the position."""
        try:
            return self._stream.tell()
        except BaseException as error:
            self.error = self.error or error
            return 0

    def check(self) -> None:
        """Raise the stored exception."""
        if self.error is not None:
            raise self.error
