"""Whatever can be read from, as a binary stream that stands at its beginning."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from ..errors import MediaError


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
