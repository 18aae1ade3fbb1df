"""Which files go in and which come out: output names, clashes, the overwrite rule, atomic writes, mtime."""

import os
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from vqcodec.errors import MediaError, UsageError, VqcodecError
from vqcodec.files import atomically, is_special

from .console import explain, is_terminal

PICTURES = frozenset(
    (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".gif")
)
SOUNDS = frozenset((".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64"))
MEDIA = "images or sounds"
BITSTREAM = ".vqc"
STANDARD = "-"
BLOCK = 1 << 20


@dataclass(frozen=True)
class Input:
    """One thing to read.

    Attributes:
        path: the file, or None for stdin.
        name: how it is called in messages.
        below: its path below the folder it was found in; a file named on the command line has only its name.
        in_folder: whether it was found in a folder.
    """

    path: Path | None
    name: str
    below: Path
    in_folder: bool = False

    @property
    def is_stream(self) -> bool:
        """Whether it is stdin or a pipe, which can be read but once, and not from its middle."""
        return self.path is None or is_special(self.path)

    def read(self) -> bytes:
        """All of its bytes, those of a stream as often as one likes."""
        if self.path is None or self.is_stream:
            return self._stream
        return self.path.read_bytes()

    def head(self, size: int) -> bytes:
        """Its first bytes, at most so many."""
        if self.path is None or self.is_stream:
            return self._stream[:size]
        with self.path.open("rb") as file:
            return file.read(size)

    @cached_property
    def _stream(self) -> bytes:
        return sys.stdin.buffer.read() if self.path is None else self.path.read_bytes()


@dataclass
class Found:
    """What the arguments stand for: inputs, arguments that failed (with why), files passed over."""

    inputs: list[Input] = field(default_factory=list)
    failed: list[tuple[str, VqcodecError]] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Job:
    """One input and where its result goes; output None is stdout."""

    source: Input
    output: Path | None


def find(
    arguments: Sequence[str],
    *,
    recursive: bool,
    suffixes: Collection[str],
    what: str,
    silent: Collection[str] = (),
) -> Found:
    """Expand the arguments into inputs.

    Args:
        arguments: files, folders, "-" for stdin.
        recursive: enter folders; otherwise a folder is a failure.
        suffixes: of the files that are taken out of folders.
        what: these files are called in messages.
        silent: suffixes of files in folders that are passed over without a word.

    Raises:
        UsageError: stdin is named twice or is a terminal, or the folders given hold nothing of that kind.
    """
    found = Found()
    barren: list[str] = []
    for argument in arguments:
        if argument == STANDARD:
            _check_stdin(found)
            found.inputs.append(Input(None, "stdin", Path("stdin")))
            continue
        path = Path(argument)
        try:
            exists, is_folder = path.exists(), path.is_dir()
        except OSError as error:  # a name too long, a folder that may not be searched
            found.failed.append((argument, MediaError(explain(error)[0])))
            continue
        if not exists:
            found.failed.append((argument, MediaError("no such file", nearest(path))))
        elif not is_folder:
            found.inputs.append(Input(path, argument, Path(path.name)))
        elif not recursive:
            found.failed.append((argument, MediaError("is a folder", "add -r")))
        else:
            before = len(found.inputs)
            _enter(path, found, suffixes, silent)
            if len(found.inputs) == before:
                barren.append(argument)
    if barren and not found.inputs and not found.failed:
        raise UsageError(f"no {what} in {', '.join(barren)}")
    found.failed += [(folder, MediaError(f"no {what} in it")) for folder in barren]
    return found


def _check_stdin(found: Found) -> None:
    if any(known.path is None for known in found.inputs):
        raise UsageError("- is given twice", "stdin can be read once")
    if sys.stdin is None or is_terminal(sys.stdin):
        raise UsageError("not reading from a terminal", "name a file, or pipe one in")


def _enter(folder: Path, found: Found, suffixes: Collection[str], silent: Collection[str]) -> None:
    def refuse(error: OSError) -> None:
        found.failed.append((str(error.filename), MediaError(explain(error)[0])))

    for root, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(root, name)
            suffix = path.suffix.lower()
            if name.startswith(".") or suffix in silent:
                continue
            if suffix in suffixes:
                found.inputs.append(Input(path, str(path), path.relative_to(folder), in_folder=True))
            else:
                found.foreign.append(str(path))


def nearest(path: Path) -> str:
    """A hint that names the most similar file beside a missing one, or nothing."""
    try:
        names = os.listdir(path.parent)
    except OSError:
        return "" if path.parent.exists() else f"there is no folder {path.parent}"
    lower = {name.lower(): name for name in names}
    close = get_close_matches(path.name.lower(), lower, n=1, cutoff=0.7)
    return f"is it {path.parent / lower[close[0]]}?" if close else ""


def plan(
    inputs: Sequence[Input], output: str | None, suffix: Callable[[Input], str], arguments: int
) -> list[Job]:
    """Give each input its output.

    Args:
        inputs: what goes in.
        output: the -o option: a file, a folder (existing, or ending in a slash), "-" for stdout, or None.
        suffix: of the output that is named after an input; not asked where -o names it.
        arguments: how many inputs were asked for, failed ones included.

    Returns:
        One job per input; the same file named twice is done once.

    Raises:
        UsageError: two inputs with one output, an output that is an input, -o that cannot hold them all, a
            terminal as stdout.
    """
    to_folder = output is not None and (output.endswith(("/", os.sep)) or Path(output).is_dir())
    if output is not None and not to_folder:
        _check_file_output(inputs, output, arguments)
    jobs: dict[Job, None] = {}
    for source in inputs:
        jobs[Job(source, _output(source, output, to_folder, suffix))] = None
    if any(job.output is None for job in jobs) and is_terminal(sys.stdout):
        raise UsageError("not writing binary to a terminal", "-o FILE")
    _check_clashes(list(jobs))
    unique = {(_key(job.source.path), _key(job.output)): job for job in reversed(jobs)}
    return list(reversed(unique.values()))


def _check_file_output(inputs: Sequence[Input], output: str, arguments: int) -> None:
    what = "stdout" if output == STANDARD else "a file"
    hint = "one at a time" if output == STANDARD else "end it with /"
    if max(arguments, len(inputs)) > 1:
        raise UsageError(f"-o names {what} but there are {max(arguments, len(inputs))} inputs", hint)
    if any(source.in_folder for source in inputs):
        raise UsageError(f"-o names {what} but the input is a folder", hint)
    parent = Path(output).parent
    if output != STANDARD and not parent.is_dir():
        raise UsageError(f"no folder {parent} to write into", f"mkdir {parent}")


def _output(
    source: Input, output: str | None, to_folder: bool, suffix: Callable[[Input], str]
) -> Path | None:
    if output == STANDARD or (output is None and source.path is None):
        return None
    if output is None:
        assert source.path is not None
        return source.path.with_suffix(suffix(source))
    return Path(output) / source.below.with_suffix(suffix(source)) if to_folder else Path(output)


def _check_clashes(jobs: Sequence[Job]) -> None:
    inputs = {_real(job.source.path): job.source for job in jobs if job.source.path is not None}
    owners: dict[str, Job] = {}
    for job in jobs:
        if job.output is None:
            continue
        hit = inputs.get(_real(job.output)) or (job.source if _same(job) else None)
        if hit is not None:
            its = "its own input" if _real(hit.path) == _real(job.source.path) else f"the input {hit.name}"
            raise UsageError(f"{job.source.name}: would overwrite {its}", "-o another name or folder")
        if is_special(job.output):
            continue
        other = owners.setdefault(_real(job.output), job)
        if _real(other.source.path) != _real(job.source.path):
            raise UsageError(
                f"{other.source.name} and {job.source.name}: both would write {job.output}",
                "-o or different folders",
            )


def _same(job: Job) -> bool:
    """Whether output and input are one file under two names, as hard links are."""
    if job.source.path is None or job.output is None:
        return False
    with suppress(OSError):
        return job.output.samefile(job.source.path)
    return False


def _real(path: Path | None) -> str:
    return "" if path is None else os.path.normcase(os.path.realpath(path))


def _key(path: Path | None) -> str:
    return "" if path is None else os.path.normcase(os.path.abspath(path))


def taken(path: Path) -> bool:
    """Whether writing there would destroy something."""
    return os.path.lexists(path) and not is_special(path)


@contextmanager
def replacing(target: Path, *, force: bool, stamp: os.stat_result | None = None) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under its name only when it is complete.

    See `files.atomically`. A symbolic link keeps pointing where it points. Folders are made as needed.

    Args:
        target: the output.
        force: replace an existing one.
        stamp: of the input; its times become the output's.

    Raises:
        MediaError: the output exists, or cannot be written, named in the message.
    """
    if is_special(target) and not target.is_dir():
        with target.open("wb") as device:
            yield device
        return
    check_free(target, force)
    final = Path(os.path.realpath(target))
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with atomically(final) as file:
            yield file
            # Another process may have written it since.
            check_free(target, force)
    except OSError as error:
        message, hint, _ = explain(error)
        raise MediaError(f"cannot write {target}: {message}", hint) from error
    if stamp is not None:
        with suppress(OSError):
            os.utime(final, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


def check_free(target: Path, force: bool, hint: str = "-f or --skip-existing") -> None:
    """Refuse an output that exists.

    Raises:
        MediaError: it is there and not to be replaced, or is a folder.
    """
    if target.is_dir():
        raise MediaError(f"{target} is a folder", "-o another name")
    if taken(target) and not force:
        raise MediaError(f"{target} exists", hint)


def write_stdout(data: bytes | BinaryIO) -> None:
    """Write bytes, or all that is left of a file, to stdout."""
    sys.stdout.flush()
    if isinstance(data, bytes):
        sys.stdout.buffer.write(data)
    else:
        shutil.copyfileobj(data, sys.stdout.buffer, BLOCK)
    sys.stdout.buffer.flush()
