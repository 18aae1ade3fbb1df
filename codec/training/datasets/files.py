"""Folders and tar files -> the files in them, in a fixed order; which are held out; random streams."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import MediaWarning, UsageError, warn

MEMORY = 2 << 30
"""Bytes of decoded samples that are held; what exceeds it is thinned out evenly."""

SPLIT, WINDOWS, START, BINARISATION = (n << 40 for n in (1, 2, 3, 4))
"""Streams of random numbers beside those of the batches, whose number is the step: which files are held out,
where windows lie (plus the file's number), batches before the first step (plus the batch's number), pixels
that are made 0 or 1 once."""


@dataclass(frozen=True)
class Entry:
    """A file in a folder, or a member of a tar file.

    Attributes:
        archive: the tar file, or None.
        path: of the file, or the member's name.
        offset, size: where a member's bytes lie in the tar file.
    """

    archive: Path | None
    path: str
    offset: int = 0
    size: int = 0

    @property
    def name(self) -> str:
        """How the file is called in messages."""
        return self.path if self.archive is None else f"{self.archive.name}:{self.path}"

    def read(self) -> bytes:
        """The file's bytes."""
        if self.archive is None:
            return Path(self.path).read_bytes()
        with self.archive.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def entries(sources: Sequence[Path]) -> list[Entry]:
    """All files in the folders (with their subfolders) and tar files, in a fixed order.

    Pipes and devices in folders are no files; a folder behind a link is not entered, which a warning says.

    Raises:
        UsageError: a source does not exist or is neither folder, tar file nor file; a tar file that is
            compressed, so that its members cannot be read in any order, or damaged.
    """
    found: list[Entry] = []
    for source in sources:
        if source.is_dir():
            inside = sorted(p for p in source.rglob("*") if not p.name.startswith("."))
            found += [Entry(None, str(p)) for p in inside if p.is_file()]
            for path in inside:
                if path.is_symlink() and path.is_dir():
                    warn(f"{path}: skipped, a linked folder; name it to enter it", MediaWarning)
        elif source.is_file() and _is_tar(source):
            try:
                with tarfile.open(source, "r:") as tar:
                    members = tar.getmembers()
                end = max((m.offset_data + (m.size if m.isfile() else 0) for m in members), default=0)
                # A member is followed by another or by an empty block, without which the file was cut.
                if source.stat().st_size < end + -end % tarfile.BLOCKSIZE + tarfile.BLOCKSIZE:
                    raise tarfile.ReadError("no end")
            except tarfile.TarError as error:
                raise UsageError(f"{source}: a compressed or damaged tar file", "unpack it first") from error
            found += [Entry(source, m.name, m.offset_data, m.size) for m in members if m.isfile()]
        elif source.is_file():
            found.append(Entry(None, str(source)))
        else:
            raise UsageError(f"{source}: no such folder or tar file", "name folders, tar files or files")
    return found


def _is_tar(path: Path) -> bool:
    """Return whether a file is a tar file, also a compressed one."""
    try:
        return tarfile.is_tarfile(path)
    except EOFError:  # another compressed file, cut off
        return False


def describe(sources: Sequence[Path]) -> list[dict[str, str | int]]:
    """What the weights were made of, for the model card: name, bytes and, for files, the SHA-256."""
    described: list[dict[str, str | int]] = []
    for source in sources:
        if source.is_dir():
            described.append({"name": source.name, "files": len(entries([source]))})
            continue
        with source.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        described.append({"name": source.name, "bytes": source.stat().st_size, "sha256": digest})
    return described


def split(files: Sequence[Entry], fraction: float, seed: int) -> tuple[list[Entry], list[Entry]]:
    """Held-out files: (training, validation), at least one in each where there are two."""
    order = random_stream(seed, SPLIT).permutation(len(files))
    held = min(max(round(len(files) * fraction), 1), len(files) - 1)
    chosen = set(order[:held].tolist())
    return (
        [f for i, f in enumerate(files) if i not in chosen],
        [f for i, f in enumerate(files) if i in chosen],
    )


def random_stream(seed: int, stream: int) -> np.random.Generator:
    """A generator that depends on the seed and the stream alone."""
    return np.random.Generator(np.random.Philox(key=[seed, stream]))
