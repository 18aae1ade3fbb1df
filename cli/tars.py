"""Read and write tars: members one after the other, nothing is extracted by the names that a tar gives."""

import io
import tarfile
import time
from collections.abc import Collection, Iterator
from pathlib import Path, PurePath
from typing import BinaryIO

from vqcodec.errors import MediaError

from .listing import Found, Input, Span

TAR = ".tar"
MAX_TIME = 1 << 33
"""Largest time of a member, in seconds: the year 2242."""

MAX_MEMBER = 4 << 30
"""Largest member that is read, in bytes: it is held in memory."""

MEMBERS_AT_ONCE = 64
"""Members that are listed before work on them begins."""


def is_tar(name: str | None) -> bool:
    """Tell whether a name is that of a tar."""
    return name is not None and name.lower().endswith(TAR)


def relative(name: str, flavour: type[PurePath] = PurePath) -> PurePath | None:
    """Return a name as a path below a folder; None where it leads elsewhere, or has no file name.

    Args:
        name: of a member of a tar, or of a line of a list.
        flavour: the rules of which system.
    """
    path = flavour(name)
    if path.is_absolute() or path.drive or path.root or ".." in path.parts or not path.name or "\0" in name:
        return None
    return path


def members(archive: Path, suffixes: Collection[str], silent: Collection[str], what: str) -> Iterator[Found]:
    """List the members of an uncompressed tar, some at a time.

    Links, devices and folders are passed over; names that lead out of a folder, sparse and too large members
    are failures of their own.
    """
    count = 0
    found = Found()
    try:
        with tarfile.open(archive, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # or it would keep them all
                name = f"{archive}:{member.name}"
                below = relative(member.name)
                suffix = PurePath(member.name).suffix.lower()
                if member.isdir() or suffix in silent or PurePath(member.name).name.startswith("."):
                    continue
                if not member.isfile():
                    found.passed.append((name, "a link or device in a tar"))
                elif below is None:
                    found.failed.append((name, MediaError("its name leads out of the tar", "pack it again")))
                elif suffix not in suffixes:
                    found.foreign.append(name)
                elif member.issparse() or not 0 <= member.size <= MAX_MEMBER:
                    limit = f"sparse, or larger than {MAX_MEMBER >> 30} GiB"
                    found.failed.append((name, MediaError(limit, "unpack it first")))
                else:
                    span = Span(member.offset_data, member.size, _time(member.mtime))
                    found.inputs.append(
                        Input(archive, name, Path(below), in_folder=True, listed=True, span=span)
                    )
                    count += 1
                if len(found.inputs) == MEMBERS_AT_ONCE:
                    yield found
                    found = Found()
    except tarfile.TarError as error:
        hint = "unpack it first" if _compressed(archive) else "copy it again"
        found.failed.append((str(archive), MediaError(f"not a tar that can be read: {error}", hint)))
    if not count and not found.failed:
        found.failed.append((str(archive), MediaError(f"no {what} in it", f"see what is: tar tf {archive}")))
    yield found


def _compressed(archive: Path) -> bool:
    with archive.open("rb") as file:
        return file.read(6).startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"(\xb5/\xfd"))


def _time(seconds: float) -> float:
    """Return the time of a member, the present where it is not a time that files can have."""
    return float(seconds) if 0 <= seconds < MAX_TIME else time.time()


class TarWriter:
    """Append files to a tar."""

    def __init__(self, file: BinaryIO) -> None:
        self._tar = tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT)  # noqa: SIM115

    def add(self, name: PurePath, data: bytes, mtime: float | None) -> None:
        """Append one file; its time is the present one for None."""
        info = tarfile.TarInfo(name.as_posix())
        info.size, info.mode = len(data), 0o644
        info.mtime = time.time() if mtime is None else mtime
        self._tar.addfile(info, io.BytesIO(data))

    def close(self) -> None:
        """Write the end of the tar."""
        self._tar.close()
