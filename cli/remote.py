"""Paths on other file systems, as s3://bucket/photo.png: fsspec reads and writes their files.

A `RemotePath` is a `Path` whose questions and files go to fsspec, so that inputs and outputs are one kind of
thing wherever they are. Credentials come from the settings of the file system, or from those of fsspec.
"""

import glob
import os
import re
import secrets
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cache
from pathlib import Path, PosixPath
from typing import Any, BinaryIO, Self

from vqcodec import files
from vqcodec.errors import UsageError

QUESTIONS = 32
"""What other file systems are asked at once: each answer takes some milliseconds."""

_URL = re.compile(r"\A([a-zA-Z][a-zA-Z0-9+.-]+)://(.*)", re.DOTALL)
_TIMES = "mtime", "LastModified", "last_modified", "updated", "created"
"""What file systems call the time of modification; where they have none that of creation."""

STORES = frozenset(("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss"))
"""Object stores: an object appears when it is uploaded, renaming copies it, and there are no folders."""


def path_of(name: str) -> Path:
    """Return the path that a name stands for: a `RemotePath` if it begins with a scheme, as s3://.

    Raises:
        UsageError: a scheme without a host or bucket, or one inside another.
    """
    match = _URL.match(name)
    if match is None:
        return Path(name)
    if match[1] == "file":
        return Path(match[2])
    if "::" in name or not match[2] or match[2].startswith("/"):
        raise UsageError(
            f"{name}: not an address of a file", "write SCHEME://BUCKET/PATH, as s3://photos/a.png"
        )
    if os.name != "posix":
        raise UsageError(f"{name}: only local files are read on this system", "copy it here first")
    return RemotePath(name)


def is_special(path: Path | None) -> bool:
    """Tell whether a path is a local device or pipe."""
    return path is not None and not isinstance(path, RemotePath) and files.is_special(path)


def entries_of(folder: Path) -> list[tuple[Path, bool, bool]]:
    """Return what is in a folder: path, whether it is a folder, and whether it is a file.

    Raises:
        OSError: it cannot be read.
    """
    if isinstance(folder, RemotePath):
        return [(path, path.is_dir(), path.is_file()) for path in folder.entries()]
    with os.scandir(folder) as entries:
        return [(folder / entry.name, entry.is_dir(), entry.is_file()) for entry in entries]


def look_up(paths: Iterable[Path]) -> None:
    """Ask for several remote paths at once; each keeps what it hears."""
    with ThreadPoolExecutor(QUESTIONS) as pool:
        for _ in pool.map(RemotePath.exists, (path for path in paths if isinstance(path, RemotePath))):
            pass


def expand(names: Sequence[str]) -> list[str]:
    """Replace patterns in addresses, as s3://photos/*.png, by what they match; the shell does others."""
    expanded: list[str] = []
    for name in names:
        path = path_of(name)
        if not (_URL.match(name) and set("*?[") & set(name)) or path.exists():
            expanded.append(name)
        else:
            hidden = path.name.startswith(".")
            matches = (match for match in _matching(path) if hidden or not match.name.startswith("."))
            expanded += [*map(str, matches)] or [name]
    return expanded


def _matching(pattern: Path) -> list[Path]:
    if not isinstance(pattern, RemotePath):  # of file://
        return [Path(name) for name in sorted(glob.glob(str(pattern), recursive=True))]
    with _errors():
        return [pattern.sibling(key) for key in sorted(pattern.system.glob(pattern.key))]


class RemotePath(PosixPath):
    """A path on a file system that fsspec opens; its first part is the scheme."""

    def __str__(self) -> str:
        scheme, *parts = self.parts
        return f"{scheme}//{'/'.join(parts)}"

    def __repr__(self) -> str:
        return f"RemotePath({str(self)!r})"

    def __fspath__(self) -> str:
        raise TypeError(f"{self} is not a local file")

    def __hash__(self) -> int:
        return hash(self.parts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and self.parts == other.parts

    @property
    def system(self) -> Any:
        """The file system of fsspec.

        Raises:
            UsageError: a package that it needs is missing, or the scheme is unknown.
        """
        scheme, *parts = self.parts
        return _system(f"{scheme}//{''.join(parts[:1])}")

    @property
    def key(self) -> str:
        """The path as its file system calls it."""
        return str(self.system._strip_protocol(str(self)))

    def sibling(self, key: str) -> Self:
        """Return the path of another key of the same file system."""
        return type(self)(f"{self.parts[0]}//{key.lstrip('/')}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.parts, {"_known": self._known}

    _known: os.stat_result | None = None
    """What was heard of it; each question may take longer than the work on a small file."""

    def _learn(self, info: dict[str, Any]) -> os.stat_result:
        """Keep what its file system says: whether it is a folder, its size, its time or else the present."""
        mode = stat.S_IFDIR if info["type"] == "directory" else stat.S_IFREG
        seconds = next((_seconds(info[name]) for name in _TIMES if info.get(name)), time.time())
        times = {f"st_{which}time_ns": round(seconds * 1e9) for which in "amc"}
        numbers = mode, 0, 0, 1, 0, 0, info.get("size") or 0, *[round(seconds)] * 3
        self._known = os.stat_result(numbers, times)
        return self._known

    def entries(self) -> Iterator[Self]:
        """Yield what is in a folder, with what is known of it."""
        with _errors():
            infos = self.system.ls(self.key, detail=True)
        for info in infos:
            path = self.sibling(info["name"])
            if path != self:  # a store may hold an empty object with the name of the folder
                path._learn(info)
                yield path

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Return mode, size and time, which are asked for once.

        Raises:
            OSError: it does not exist, or the file system does not answer.
        """
        if self._known is not None:
            return self._known
        with _errors():
            return self._learn(self.system.info(self.key))

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Tell whether there is a file or folder of this name."""
        return self._mode() != 0

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Tell whether it is a folder, or the beginning of the keys of a store."""
        return stat.S_ISDIR(self._mode())

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Tell whether it is a file."""
        return stat.S_ISREG(self._mode())

    def is_fifo(self) -> bool:
        """Tell that it is no pipe."""
        return False

    def is_symlink(self) -> bool:
        """Tell that it is no link."""
        return False

    def samefile(self, other_path: object) -> bool:
        """Tell whether the other path is this one."""
        return self == other_path

    def open(self, *_args: Any, **_options: Any) -> Any:
        """Open it to read bytes; no more is fetched than is read."""
        with _errors():
            return self.system.open(self.key, "rb", cache_type="none")

    def read_bytes(self) -> bytes:
        """Return its content."""
        with _errors():
            return bytes(self.system.cat_file(self.key))

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Make a folder where the file system has folders."""
        if not self._in_store:
            with _errors():
                self.system.makedirs(self.key, exist_ok=True)

    @contextmanager
    def atomically(self) -> Iterator[BinaryIO]:
        """Open a file for writing that appears under its name when it is complete.

        As with `files.atomically`, an older one is replaced. What is written is kept in a local temporary
        file; stores get it in one upload, elsewhere it is uploaded under another name and renamed.
        """
        with tempfile.NamedTemporaryFile() as whole:
            yield whole  # type: ignore[misc]  # a wrapper of a BinaryIO
            whole.flush()
            system, key = self.system, self.key
            with _errors():
                if self._in_store:
                    system.put_file(whole.name, key)
                    return
                part = f"{key.rpartition('/')[0]}/.vqcodec-{secrets.token_hex(6)}.part"
                try:
                    system.put_file(whole.name, part)
                    system.mv(part, key)
                except BaseException:
                    with suppress(Exception):
                        system.rm_file(part)
                    raise

    @property
    def _in_store(self) -> bool:
        return self.parts[0][:-1] in STORES

    def _mode(self) -> int:
        try:
            return self.stat().st_mode
        except FileNotFoundError:
            return 0


@cache
def _system(address: str) -> Any:
    """Return the file system of a scheme and host, or bucket: one for all threads; fsspec makes one for each.

    Raises:
        UsageError: as in `RemotePath.system`.
    """
    try:
        import fsspec

        return fsspec.core.url_to_fs(address)[0]
    except ImportError as error:
        raise UsageError(
            f"{address.partition('//')[0]}// needs a package: {error}",
            "pip install 'vqcodec[remote]' brings S3 and Google Cloud",
        ) from error
    except ValueError as error:
        raise UsageError(f"{address}: {error}", "see fsspec for the known schemes") from error


@contextmanager
def _errors() -> Iterator[None]:
    """Turn other errors of file systems, such as missing credentials, into an OSError."""
    try:
        yield
    except (OSError, UsageError):
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


def _seconds(moment: object) -> float:
    """Return a time in seconds since 1970."""
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    return moment.timestamp() if isinstance(moment, datetime) else float(str(moment))
