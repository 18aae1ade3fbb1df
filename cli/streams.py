"""Write to stdout and stderr, which may be full, closed, or read by nobody."""

import errno
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, TextIO

BLOCK = 1 << 20


class OutputError(Exception):
    """Stdout cannot be written; that its reader has gone is a BrokenPipeError instead.

    Attributes:
        error: what the system said.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


@contextmanager
def writing() -> Iterator[None]:
    """Turn what goes wrong with stdout into an OutputError, and let a BrokenPipeError pass."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(error) from error


def print_out(text: str, *, flush: bool = False) -> None:
    """Print a line on stdout.

    Raises:
        OutputError: it cannot be written.
    """
    with writing():
        print(text, flush=flush)


def print_error(text: str) -> None:
    """Print a line on stderr; do nothing where stderr cannot be written."""
    try:
        print(text, file=sys.stderr)
    except (OSError, ValueError):
        silence(sys.stderr)


def flush_out() -> None:
    """Write what is buffered for stdout.

    Raises:
        OutputError: it cannot be written.
    """
    if sys.stdout is not None:
        with writing():
            sys.stdout.flush()


def silence(stream: TextIO | None) -> None:
    """Point a stream at the null device: the interpreter flushes it once more on its way out."""
    with suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())  # type: ignore[union-attr]
        os.close(null)


def write_stdout(data: bytes | BinaryIO) -> None:
    """Write bytes, or the rest of a file, to stdout.

    Raises:
        OutputError: it cannot be written.
    """
    if sys.stdout is None:
        raise OutputError(OSError(errno.EBADF, os.strerror(errno.EBADF)))
    with writing():
        sys.stdout.flush()
        if isinstance(data, bytes):
            sys.stdout.buffer.write(data)
        else:
            shutil.copyfileobj(data, sys.stdout.buffer, BLOCK)
        sys.stdout.buffer.flush()
