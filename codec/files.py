"""Write a file whole or not at all."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomically(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under its name, in place of an older one, when it is complete.

    The bytes go to a temporary file in the same folder, renamed at the end, removed if anything is raised. A
    new file has the mode that the umask leaves, one that replaces another has the mode of that. A symbolic
    link stays, and the file that it points to is replaced.

    Raises:
        OSError: the file cannot be made or written.
    """
    path = Path(os.path.realpath(path))
    # The name does not grow with the file's: a long one might leave no room for more.
    temporary = path.with_name(f".vqcodec-{secrets.token_hex(6)}.part")
    # Not mkstemp: its mode of 0600 would outlive the renaming, this one follows the umask.
    handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with suppress(OSError):
            temporary.chmod(stat.S_IMODE(path.stat().st_mode))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def is_special(path: Path) -> bool:
    """Tell whether a path is a device or pipe, which is written to and never replaced."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False
