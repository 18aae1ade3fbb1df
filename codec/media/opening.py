"""Whatever can be read from or written to, as a binary stream that stands at its beginning."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..errors import MediaError
from ..files import atomically, is_special


@contextmanager
def opened(source: str | os.PathLike[str] | bytes | BinaryIO) -> Iterator[BinaryIO]:
    """A seekable stream that stands at 0 and is not empty."""
    stream: BinaryIO | None = None
    try:
        if isinstance(source, bytes | bytearray | memoryview):
            stream = io.BytesIO(source)
        elif isinstance(source, str | os.PathLike):
            stream = open(source, "rb")  # noqa: SIM115 (closed below; the errors of opening are told here)
        elif not hasattr(source, "read"):
            raise MediaError(
                f"a {type(source).__name__} is no picture or sound", "give a path, bytes, a file or an array"
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
        raise MediaError("no such file") from error
    except IsADirectoryError as error:
        raise MediaError("is a folder", "add -r") from error
    except PermissionError as error:
        raise MediaError("permission denied") from error
    except OSError as error:
        raise MediaError(f"cannot be read: {error.strerror or error}") from error
    try:
        if empty:
            raise MediaError("empty file")
        yield stream
    finally:
        if stream is not source:
            stream.close()


@contextmanager
def created(target: str | os.PathLike[str] | BinaryIO) -> Iterator[BinaryIO]:
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


class Guarded:
    """A binary stream in the form that is safe to hand to a C library.

    It has no name that a format could be guessed from. No exception leaves it, since none would arrive: the
    first is kept, and the stream then behaves as if it had ended.

    Attributes:
        error: what went wrong.
        ended: whether more was asked for than there is.
    """

    def __init__(self, stream: BinaryIO, patch: tuple[int, bytes] = (0, b"")) -> None:
        """Wrap a stream.

        Args:
            stream: seekable.
            patch: a position, and bytes that are read there in place of the stream's own.
        """
        self.error: BaseException | None = None
        self.ended = False
        self._stream = stream
        self._patch = patch

    def read(self, count: int) -> bytes:
        """At most `count` bytes."""
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
            for place, byte in enumerate(patch, start - at):
                if 0 <= place < len(data):
                    patched[place] = byte
            return bytes(patched)
        return data

    def write(self, data: bytes) -> int:
        """As many bytes as could be written."""
        try:
            return 0 if self.error else self._stream.write(data)
        except BaseException as error:
            self.error = error
            return 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position; stay where it is none."""
        try:
            return self._stream.seek(offset, whence)
        except ValueError:  # before the beginning: the library follows a number in a damaged file
            return self.tell()
        except BaseException as error:
            self.error = self.error or error
            return 0

    def tell(self) -> int:
        """The position."""
        try:
            return self._stream.tell()
        except BaseException as error:
            self.error = self.error or error
            return 0

    def check(self) -> None:
        """Raise what went wrong."""
        if self.error is not None:
            raise self.error
