"""Find input files, folder by folder: the names of one folder are in memory, never those of a tree."""

import io
import os
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path, PurePath
from typing import BinaryIO

from vqcodec.errors import MediaError, UsageError, VqcodecError

from .console import explain, is_terminal
from .names import nearest, real_name
from .remote import RemotePath, entries_of, expand, is_special, look_up, path_of

EXTRAS = {".heic": "pillow_heif", ".heif": "pillow_heif", ".hif": "pillow_heif", ".jxl": "pillow_jxl"}
"""Suffixes of images that need the extra `formats`, and the package that reads them."""

IMAGES = frozenset(
    (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".gif")
    + (".ppm", ".pgm", ".pbm", ".pnm")
    + tuple(suffix for suffix, package in EXTRAS.items() if find_spec(package) is not None)
)
AUDIO = frozenset((".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64"))
SETS = frozenset((".npy", ".npz", ".idx"))
"""Suffixes of sets of small pictures, which are read if named, and not looked for in folders."""
MEDIA = "images or audio files"
BITSTREAM = ".vqc"
STANDARD = "-"


@dataclass(frozen=True)
class Span:
    """Part of a file that is a member of a tar: where it begins, its size, its time."""

    start: int
    size: int
    mtime: float


@dataclass(frozen=True)
class Input:
    """Input to read: a file, a member of a tar, a pipe or stdin.

    Attributes:
        path: the file, or the tar, or None for stdin.
        name: its name in messages.
        below: its path relative to the folder or tar it was found in; for a named file, the file name.
        in_folder: whether it was found in a folder, a list or a tar.
        listed: whether it was found in a list or tar, of which the rest is not known yet.
        span: which part of the tar it is.
    """

    path: Path | None
    name: str
    below: Path
    in_folder: bool = False
    listed: bool = False
    span: Span | None = None

    @property
    def is_stream(self) -> bool:
        """Tell whether it is stdin or a pipe, which can be read once and cannot seek."""
        return self.path is None or (self.span is None and is_special(self.path))

    @property
    def file(self) -> Path | None:
        """Path of a local file of its own; None for streams and members of a tar."""
        return None if self.span is not None or self.is_remote or self.is_stream else self.path

    @property
    def is_remote(self) -> bool:
        """Tell whether it is on another file system."""
        return isinstance(self.path, RemotePath)

    @property
    def size(self) -> int:
        """Size in bytes; 0 for streams, and for files that cannot be asked."""
        if self.span is not None:
            return self.span.size
        try:
            return 0 if self.path is None else self.path.stat().st_size
        except OSError:
            return 0

    @property
    def times(self) -> tuple[int, int] | None:
        """Times of access and modification, in nanoseconds; None for stdin."""
        if self.span is not None:
            return (round(self.span.mtime * 1e9),) * 2
        try:
            status = None if self.path is None else self.path.stat()
        except OSError:
            return None
        return status and (status.st_atime_ns, status.st_mtime_ns)

    def read(self) -> bytes:
        """Return all of its bytes; those of a stream are cached."""
        if self.span is not None:
            return self.head(self.span.size)
        if self.path is None or self.is_stream:
            return self._stream
        return self.path.read_bytes()

    def head(self, size: int) -> bytes:
        """Return its first bytes, at most `size`.

        Raises:
            MediaError: the tar ends within this member.
        """
        if self.path is None or self.is_stream:
            return self._stream[:size]
        with self.path.open("rb") as file:
            if self.span is None:
                return file.read(size)
            file.seek(self.span.start)
            data = file.read(min(size, self.span.size))
        if len(data) < min(size, self.span.size):
            raise MediaError("truncated: the tar ends here", "copy it again")
        return data

    @cached_property
    def _stream(self) -> bytes:
        return sys.stdin.buffer.read() if self.path is None else self.path.read_bytes()


@dataclass
class Found:
    """Inputs that were found together: those that are named, or those of one folder.

    Attributes:
        inputs: to read.
        failed: arguments, and folders inside them, with their errors.
        foreign: files in folders, of another kind by their suffix.
        passed: what else was passed over in folders, and why.
    """

    inputs: list[Input] = field(default_factory=list)
    failed: list[tuple[str, VqcodecError]] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    passed: list[tuple[str, str]] = field(default_factory=list)

    def add(self, other: "Found") -> None:
        """Append what another one has."""
        for name in ("inputs", "failed", "foreign", "passed"):
            getattr(self, name).extend(getattr(other, name))


def find(
    arguments: Sequence[str],
    *,
    recursive: bool,
    suffixes: Collection[str],
    what: str,
    silent: Collection[str] = (),
) -> Found:
    """Expand the arguments, patterns in addresses too, into inputs, all at once; as in `find_each`."""
    found = Found()
    for part in find_each(
        expand(arguments), recursive=recursive, suffixes=suffixes, what=what, silent=silent
    ):
        found.add(part)
    return found


def find_each(
    arguments: Sequence[str],
    *,
    recursive: bool,
    suffixes: Collection[str],
    what: str,
    silent: Collection[str] = (),
    together: bool = False,
) -> Iterator[Found]:
    """Expand the arguments into inputs, folder by folder.

    Args:
        arguments: files, folders, "-" for stdin.
        recursive: enter folders; otherwise a folder is a failure.
        suffixes: of the files to take from folders.
        what: name of these files in messages.
        silent: suffixes of files in folders that are skipped without a message.
        together: whether the outputs of all folders go to one place, so that folders of one relative path
            belong together, and named files to the outermost of them.

    Yields:
        First what is named, then one `Found` per folder: its files in order, then its folders.

    Raises:
        UsageError: stdin is named twice or is a terminal, or the folders hold no such files.
    """
    named = Found()
    folders: list[Path] = []
    for argument in arguments:
        if argument == STANDARD:
            _check_stdin(named)
            named.inputs.append(Input(None, "stdin", Path("stdin")))
            continue
        path = path_of(argument)
        try:
            exists, is_folder = path.exists(), path.is_dir()
        except OSError as error:  # a name too long, a folder that may not be searched
            named.failed.append((argument, MediaError(*explain(error)[:2])))
            continue
        if not exists:
            named.failed.append((argument, MediaError("no such file", nearest(path))))
        elif not is_folder and is_special(path) and not path.is_fifo():
            named.failed.append((argument, MediaError("is a device or socket", "name a file or a pipe")))
        elif not is_folder:
            named.inputs.append(Input(path, argument, Path(path.name)))
        elif not recursive:
            named.failed.append((argument, MediaError("is a folder", "add -r to enter it")))
        else:
            folders.append(path)
    walk = _Walk([*dict.fromkeys(folders)], suffixes, silent, together=together)
    groups = iter(walk)
    if together and folders:
        named.add(next(groups))
    yield named
    yield from groups
    empty = [str(folder) for folder, count in walk.counts.items() if not count]
    if (
        empty
        and not named.inputs
        and not walk.failures
        and len(empty) == len(walk.counts)
        and not named.failed
    ):
        raise UsageError(f"no {what} in {', '.join(empty)}", "name the folder that holds them")
    if empty:
        yield Found(
            failed=[
                (folder, MediaError(f"no {what} in it", "name the folder that holds them"))
                for folder in empty
            ]
        )


def find_listed(file: BinaryIO, *, separator: bytes, to_folder: bool) -> Iterator[Found]:
    """Read names of files, one a line, some at a time.

    Args:
        file: the list.
        separator: what ends a name: a line break, or a zero byte.
        to_folder: whether the paths are mirrored below a folder.
    """
    for block in _blocks(file, separator):
        found = Found()
        named = [(name, path_of(name)) for name in map(os.fsdecode, block)]
        look_up(path for _, path in named)
        for name, path in named:
            below = Path(without_root(path))
            if path.is_dir():
                found.failed.append((name, MediaError("is a folder", "list the files in it")))
            elif to_folder and (".." in below.parts or not below.name):
                found.failed.append(
                    (name, MediaError("leads out of the output folder", "list it without .."))
                )
            elif not path.is_file():
                found.failed.append((name, MediaError("no such file", "check the list")))
            else:
                found.inputs.append(Input(path, name, below, in_folder=True, listed=True))
        yield found


def without_root(path: PurePath) -> PurePath:
    """Return a path without its drive and root, or scheme, so that it can be mirrored below a folder."""
    if isinstance(path, RemotePath):
        return PurePath(*path.parts[1:])
    return type(path)(*path.parts[1:]) if path.anchor else path


def _blocks(file: BinaryIO, separator: bytes) -> Iterator[list[bytes]]:
    """Split a stream into names as they arrive."""
    rest = b""
    while data := file.read1(1 << 16) if isinstance(file, io.BufferedReader) else file.read(1 << 16):
        *whole, rest = (rest + data).split(separator)
        yield [
            name for name in (line.rstrip(b"\r") if separator == b"\n" else line for line in whole) if name
        ]
    if rest:
        yield [rest]


def _check_stdin(found: Found) -> None:
    if any(known.path is None for known in found.inputs):
        raise UsageError("- is given twice", "stdin can be read only once")
    if sys.stdin is None or is_terminal(sys.stdin):
        raise UsageError("not reading from a terminal", "name a file, or pipe data in")


class _Walk:
    """Walk through folders; linked folders are not entered.

    Attributes:
        counts: files found below each of the folders.
        failures: folders that could not be read.
    """

    def __init__(
        self, roots: Sequence[Path], suffixes: Collection[str], silent: Collection[str], *, together: bool
    ) -> None:
        self.suffixes, self.silent = suffixes, silent
        self.counts, self.failures = dict.fromkeys(roots, 0), 0
        self._starts = [[*roots]] if together else [[root] for root in roots]
        # A folder that is named has its own turn, wherever another one would come upon it.
        self._own = set() if together else {real_name(root) for root in roots}

    def __iter__(self) -> Iterator[Found]:
        for start in self._starts:
            waiting = [(Path(), [(root, root) for root in start])]
            while waiting:
                below, places = waiting.pop()
                found = Found()
                inner: dict[str, list[tuple[Path, Path]]] = {}
                for root, place in places:
                    for name in self._enter(place, below, root, found):
                        inner.setdefault(os.path.normcase(name), []).append((root, place / name))
                yield found
                for name in sorted(inner, reverse=True):
                    waiting.append((below / inner[name][0][1].name, inner[name]))

    def _enter(self, folder: Path, below: Path, root: Path, found: Found) -> list[str]:
        """Take the files of a folder; return the names of its folders."""
        inner = []
        try:
            entries = sorted(entries_of(folder))
        except OSError as error:
            self.failures += 1
            found.failed.append((str(error.filename), MediaError(*explain(error)[:2])))
            return []
        for path, is_folder, is_file in entries:
            name = path.name
            if name.startswith("."):
                continue
            if is_folder:
                if path.is_symlink():
                    found.passed.append((str(path), "a linked folder; name it to enter it"))
                elif real_name(path) not in self._own:
                    inner.append(name)
                continue
            suffix = path.suffix.lower()
            if suffix in self.silent:
                continue
            if suffix not in self.suffixes:
                found.foreign.append(str(path))
            elif not is_file and is_special(path):
                # Reading a pipe that nobody writes to would never end.
                found.passed.append((str(path), "a pipe, device or socket"))
            else:
                found.inputs.append(Input(path, str(path), below / name, in_folder=True))
                self.counts[root] += 1
        return inner
