"""Write a file whole or not at all.

A process that is killed leaves its temporary file behind. The writer holds a lock on it, which the system
takes back when the process ends, whatever ends it: the next program that writes into the folder deletes those
that nobody has locked.
"""

from __future__ import annotations

import atexit
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows: leftovers stay
    fcntl = None  # type: ignore[assignment]

_PART = re.compile(r"\.vqcodec-[0-9a-f]{12}\.part")
_swept: set[Path] = set()
"""Folders that this process has cleaned; once is enough, since it removes its own files."""

_unfinished: set[Path] = set()
"""Temporary files of this process, deleted when it ends if an interruption came before they could be."""


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
    if path.parent not in _swept:
        _swept.add(path.parent)
        sweep(path.parent)
    temporary, handle = _create(path.parent)
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            with suppress(OSError):
                temporary.chmod(stat.S_IMODE(path.stat().st_mode))
            if fcntl is not None:  # while it is locked; Windows renames no open file
                temporary.replace(path)
        if fcntl is None:
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
        _unfinished.discard(temporary)


@atexit.register
def delete_unfinished() -> None:
    """Delete the temporary files of this process."""
    while _unfinished:
        with suppress(OSError):
            _unfinished.pop().unlink(missing_ok=True)


def sweep(folder: Path) -> list[Path]:
    """Delete temporary files in a folder whose writers are no longer alive; return them.

    Where the file system knows no locks, nothing is deleted.
    """
    swept: list[Path] = []
    if fcntl is None:
        return swept
    with suppress(OSError):
        for name in os.listdir(folder):
            if _PART.fullmatch(name) and _delete_unlocked(folder / name):
                swept.append(folder / name)
    return swept


def _delete_unlocked(part: Path) -> bool:
    """Delete a temporary file unless a process has it locked; whether it was deleted."""
    with suppress(OSError):
        handle = os.open(part, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if stat.S_ISREG(os.fstat(handle).st_mode):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                part.unlink()
                return True
        finally:
            os.close(handle)
    return False


def _create(folder: Path) -> tuple[Path, int]:
    """Make a temporary file and lock it; its name and handle."""
    while True:
        # The name does not grow with the file's: a long one might leave no room for more.
        path = folder / f".vqcodec-{secrets.token_hex(6)}.part"
        _unfinished.add(path)
        # Not mkstemp: its mode of 0600 would outlive the renaming, this one follows the umask.
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        if fcntl is None:
            return path, handle
        with suppress(OSError):  # a file system without locks: nobody sweeps there
            fcntl.flock(handle, fcntl.LOCK_EX)
        # Between the two calls another process may have swept it away.
        if os.fstat(handle).st_nlink:
            return path, handle
        os.close(handle)


def append_line(path: Path, line: str) -> None:
    """Add a line to a log; what a killed program left of a line before it is ended first."""
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else f"\n{line}"
        file.write(f"{line}\n".encode())


def is_special(path: Path) -> bool:
    """Tell whether a path is a device or pipe, which is written to and never replaced."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False
