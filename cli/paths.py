"""Find input files and choose output files: names, clashes, the overwrite rule, atomic writes, mtime."""

import os
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from vqcodec.errors import MediaError, UsageError, VqcodecError
from vqcodec.files import atomically, is_special

from . import names
from .console import explain, is_terminal
from .names import nearest
from .names import real_name as _real

IMAGES = frozenset(
    (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".gif")
)
AUDIO = frozenset((".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64"))
NETPBM = frozenset((".ppm", ".pgm", ".pbm", ".pnm"))
"""Suffixes of images that are read if named, and not looked for in folders."""
MEDIA = "images or audio files"
BITSTREAM = ".vqc"
STANDARD = "-"
KEEP_OR_REPLACE = "replace it with -f, or skip it with --skip-existing"


@dataclass(frozen=True)
class Input:
    """Input to read: a file, a pipe or stdin.

    Attributes:
        path: the file, or None for stdin.
        name: its name in messages.
        below: its path relative to the folder it was found in; for a named file, the file name.
        in_folder: whether it was found in a folder.
    """

    path: Path | None
    name: str
    below: Path
    in_folder: bool = False

    @property
    def is_stream(self) -> bool:
        """Tell whether it is stdin or a pipe, which can be read once and cannot seek."""
        return self.path is None or is_special(self.path)

    def read(self) -> bytes:
        """Return all of its bytes; those of a stream are cached."""
        if self.path is None or self.is_stream:
            return self._stream
        return self.path.read_bytes()

    def head(self, size: int) -> bytes:
        """Return its first bytes, at most `size`."""
        if self.path is None or self.is_stream:
            return self._stream[:size]
        with self.path.open("rb") as file:
            return file.read(size)

    @cached_property
    def _stream(self) -> bytes:
        return sys.stdin.buffer.read() if self.path is None else self.path.read_bytes()


@dataclass
class Found:
    """Result of `find`.

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


@dataclass(frozen=True)
class Job:
    """Input and output of one conversion.

    Attributes:
        source: the input.
        output: None is stdout.
        named: whether -o names this very output, which may then be a pipe or device.
    """

    source: Input
    output: Path | None
    named: bool = False


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
        suffixes: of the files to take from folders.
        what: name of these files in messages.
        silent: suffixes of files in folders that are skipped without a message.

    Raises:
        UsageError: stdin is named twice or is a terminal, or the folders hold no such files.
    """
    found = Found()
    empty: list[str] = []
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
        elif not is_folder and is_special(path) and not path.is_fifo():
            found.failed.append((argument, MediaError("is a device or socket", "name a file or a pipe")))
        elif not is_folder:
            found.inputs.append(Input(path, argument, Path(path.name)))
        elif not recursive:
            found.failed.append((argument, MediaError("is a folder", "add -r to enter it")))
        else:
            before = len(found.inputs)
            _enter(path, found, suffixes, silent)
            if len(found.inputs) == before:
                empty.append(argument)
    if empty and not found.inputs and not found.failed:
        raise UsageError(f"no {what} in {', '.join(empty)}")
    found.failed += [(folder, MediaError(f"no {what} in it")) for folder in empty]
    return found


def _check_stdin(found: Found) -> None:
    if any(known.path is None for known in found.inputs):
        raise UsageError("- is given twice", "stdin can be read only once")
    if sys.stdin is None or is_terminal(sys.stdin):
        raise UsageError("not reading from a terminal", "name a file, or pipe data in")


def _enter(folder: Path, found: Found, suffixes: Collection[str], silent: Collection[str]) -> None:
    def refuse(error: OSError) -> None:
        found.failed.append((str(error.filename), MediaError(explain(error)[0])))

    for root, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        links = [path for name in folders if (path := Path(root, name)).is_symlink()]
        found.passed += [(str(path), "a linked folder; name it to enter it") for path in links]
        for name in sorted(files):
            path = Path(root, name)
            suffix = path.suffix.lower()
            if name.startswith(".") or suffix in silent:
                continue
            if suffix in suffixes and is_special(path):
                # Reading a pipe that nobody writes to would never end.
                found.passed.append((str(path), "a pipe, device or socket"))
            elif suffix in suffixes:
                found.inputs.append(Input(path, str(path), path.relative_to(folder), in_folder=True))
            else:
                found.foreign.append(str(path))


def plan(
    inputs: Sequence[Input],
    output: str | None,
    suffix: Callable[[Input], str],
    arguments: int,
    known: Collection[str] = IMAGES | AUDIO | NETPBM,
) -> list[Job]:
    """Assign an output to each input, with a name that `names.choose` gives it.

    Args:
        inputs: to convert.
        output: the -o option: a file, a folder (existing, or ending in a slash), "-" for stdout, or None.
        suffix: returns the suffix of an output named after its input; not called if -o names a file.
        arguments: number of inputs on the command line, failed ones included.
        known: suffixes that are replaced; others are kept.

    Returns:
        One job per input; a file that is named twice gets one job.

    Raises:
        UsageError: two inputs share an output, an output is an input, -o names a file for several inputs,
            or stdout is a terminal.
    """
    to_folder = output is not None and (output.endswith(("/", os.sep)) or Path(output).is_dir())
    if output is not None and not to_folder:
        _check_file_output(inputs, output, arguments)
    if output is not None and not to_folder:
        named = None if output == STANDARD else Path(output)
        jobs = [Job(source, named, named is not None) for source in inputs]
    else:
        jobs = [Job(source, None) for source in inputs if _place(source, output) is None]
        placed = [(source, place) for source in inputs if (place := _place(source, output)) is not None]
        outputs = names.choose(
            [place for _, place in placed],
            [suffix(source) for source, _ in placed],
            [_real(source.path) for source, _ in placed],
            known,
        )
        jobs += [Job(source, path) for (source, _), path in zip(placed, outputs, strict=True)]
        order = {id(source): number for number, source in enumerate(inputs)}
        jobs.sort(key=lambda job: order[id(job.source)])
    jobs = [*dict.fromkeys(jobs)]
    if any(job.output is None for job in jobs) and is_terminal(sys.stdout):
        raise UsageError("not writing binary to a terminal", "name a file with -o FILE")
    _check_clashes(jobs)
    unique = {(_key(job.source.path), _key(job.output)): job for job in reversed(jobs)}
    return list(reversed(unique.values()))


def _check_file_output(inputs: Sequence[Input], output: str, arguments: int) -> None:
    what = "stdout" if output == STANDARD else "a file"
    hint = "convert one at a time" if output == STANDARD else "end the name of a folder with /"
    if max(arguments, len(inputs)) > 1:
        raise UsageError(f"-o names {what} but there are {max(arguments, len(inputs))} inputs", hint)
    if any(source.in_folder for source in inputs):
        raise UsageError(f"-o names {what} but the input is a folder", hint)
    parent = Path(output).parent
    if output != STANDARD and not parent.is_dir():
        raise UsageError(f"no folder {parent} to write into", f"make it first: mkdir {parent}")


def _place(source: Input, output: str | None) -> Path | None:
    """Return the folder of an output with the name of its input; None is stdout."""
    if output is None:
        return source.path
    return Path(output) / source.below


def _check_clashes(jobs: Sequence[Job]) -> None:
    inputs = {_real(job.source.path): job.source for job in jobs if job.source.path is not None}
    owners: dict[str, Job] = {}
    for job in jobs:
        if job.output is None:
            continue
        hit = inputs.get(_real(job.output)) or (job.source if _same(job) else None)
        if hit is not None:
            its = "its own input" if _real(hit.path) == _real(job.source.path) else f"the input {hit.name}"
            raise UsageError(
                f"{job.source.name}: would overwrite {its}", "choose another name or folder with -o"
            )
        if is_special(job.output):
            continue
        other = owners.setdefault(_real(job.output), job)
        if _real(other.source.path) != _real(job.source.path):
            raise UsageError(
                f"{other.source.name} and {job.source.name}: both would write {job.output}",
                "write them to different folders with -o",
            )


def _same(job: Job) -> bool:
    """Tell whether output and input are one file under two names, such as hard links."""
    if job.source.path is None or job.output is None:
        return False
    with suppress(OSError):
        return job.output.samefile(job.source.path)
    return False


def _key(path: Path | None) -> str:
    return "" if path is None else os.path.normcase(os.path.abspath(path))


def taken(path: Path) -> bool:
    """Tell whether writing to a path would replace a file."""
    return os.path.lexists(path) and not is_special(path)


@contextmanager
def replacing(target: Path, *, force: bool, stamp: os.stat_result | None = None) -> Iterator[BinaryIO]:
    """Open an output for writing, as `files.atomically` does; make its folders as needed.

    Args:
        target: the output.
        force: replace an existing one.
        stamp: status of the input, whose times are copied to the output.

    Raises:
        MediaError: the output exists or cannot be written; the message names it.
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


def check_free(target: Path, force: bool, hint: str = KEEP_OR_REPLACE) -> None:
    """Refuse an output that exists.

    Raises:
        MediaError: the output exists and must not be replaced, or is a folder.
    """
    if target.is_dir():
        raise MediaError(f"{target} is a folder", "choose another name with -o")
    if taken(target) and not force:
        raise MediaError(f"{target} exists", hint)
