"""Choose output files: names, clashes, the overwrite rule, atomic writes, mtime."""

import os
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from vqcodec.errors import MediaError, UsageError
from vqcodec.files import atomically

from . import names
from .console import explain, is_terminal
from .listing import AUDIO, BITSTREAM, IMAGES, MEDIA, SETS, STANDARD, Found, Input, find
from .names import nearest
from .names import real_name as _real
from .remote import QUESTIONS, RemotePath, is_special, path_of

__all__ = [
    "AUDIO",
    "BITSTREAM",
    "IMAGES",
    "KEEP_OR_REPLACE",
    "MEDIA",
    "SETS",
    "STANDARD",
    "Found",
    "Input",
    "Job",
    "check_free",
    "check_named_output",
    "find",
    "is_folder",
    "nearest",
    "plan",
    "replacing",
    "taken",
    "taken_each",
]

KEEP_OR_REPLACE = "replace it with -f, or skip it with --skip-existing"


@dataclass(frozen=True)
class Job:
    """Input and output of one conversion.

    Attributes:
        source: the input.
        output: None is stdout.
        named: whether -o names this very output, which may then be a pipe or device.
        packed: whether the output is a member of a tar; `output` is its name in there.
    """

    source: Input
    output: Path | None
    named: bool = False
    packed: bool = False


def is_folder(output: str) -> bool:
    """Tell whether -o names a folder: one that exists, or ends in a slash."""
    return output.endswith(("/", os.sep)) or path_of(output).is_dir()


def plan(
    inputs: Sequence[Input],
    output: str | None,
    suffix: Callable[[Input], str],
    arguments: int,
    known: Collection[str] = IMAGES | AUDIO | SETS,
    *,
    packed: bool = False,
) -> list[Job]:
    """Assign an output to each input, with a name that `names.choose` gives it.

    Outputs of lists and tars keep the suffixes of their inputs: what else will come is not known.

    Args:
        inputs: to convert.
        output: the -o option: a file, a folder (existing, or ending in a slash), "-" for stdout, or None.
        suffix: returns the suffix of an output named after its input; not called if -o names a file.
        arguments: number of inputs on the command line, failed ones included.
        known: suffixes that are replaced; others are kept.
        packed: -o names a tar, which gets all outputs.

    Returns:
        One job per input; a file that is named twice gets one job.

    Raises:
        UsageError: two inputs share an output, an output is an input, -o names a file for several inputs,
            or stdout is a terminal.
    """
    if output is not None and not packed and not is_folder(output):
        check_named_output(output, max(arguments, len(inputs)), any(source.in_folder for source in inputs))
        named = None if output == STANDARD else path_of(output)
        jobs = [Job(source, named, named is not None) for source in inputs]
    else:
        places = [source.below if packed else _place(source, output) for source in inputs]
        short = [n for n, source in enumerate(inputs) if places[n] is not None and not source.listed]
        outputs = names.choose(
            [place for n in short if (place := places[n]) is not None],
            [suffix(inputs[n]) for n in short],
            [_identity(inputs[n]) for n in short],
            known,
        )
        chosen = dict(zip(short, outputs, strict=True))
        jobs = []
        for number, (source, place) in enumerate(zip(inputs, places, strict=True)):
            if place is not None and source.listed:
                kept = names.stem_of(place, {BITSTREAM})
                jobs.append(Job(source, names.append(kept, suffix(source)), packed=packed))
            else:
                jobs.append(Job(source, chosen.get(number), packed=packed and place is not None))
    jobs = [*dict.fromkeys(jobs)]
    if any(job.output is None for job in jobs) and is_terminal(sys.stdout):
        raise UsageError("not writing binary to a terminal", "name a file with -o FILE")
    _check_clashes(jobs)
    unique = {(_key(job.source), _key_of(job.output)): job for job in reversed(jobs)}
    return list(reversed(unique.values()))


def check_named_output(output: str, count: int, folders: bool) -> None:
    """Refuse an -o that names one file, or stdout, for more than one input.

    Args:
        output: the -o option.
        count: number of inputs.
        folders: whether some of them are folders.

    Raises:
        UsageError: there are several inputs, or the folder of the output does not exist.
    """
    what = "stdout" if output == STANDARD else "a file"
    hint = "convert one at a time" if output == STANDARD else "end the name of a folder with /"
    if count > 1:
        raise UsageError(f"-o names {what} but there are {count} inputs", hint)
    if folders:
        raise UsageError(f"-o names {what} but the input is a folder", hint)
    parent = path_of(output).parent
    if output != STANDARD and not isinstance(parent, RemotePath) and not parent.is_dir():
        raise UsageError(f"no folder {parent} to write into", f"make it first: mkdir {parent}")


def _place(source: Input, output: str | None) -> Path | None:
    """Return the folder of an output with the name of its input; None is stdout."""
    if output is None:
        return source.path
    return path_of(output) / source.below


def _check_clashes(jobs: Sequence[Job]) -> None:
    if all(job.packed for job in jobs):
        return  # names in a tar are those of no files
    inputs = {_identity(job.source): job.source for job in jobs if job.source.path is not None}
    owners: dict[str, Job] = {}
    for job in jobs:
        if job.output is None:
            continue
        hit = inputs.get(_real(job.output)) or (job.source if _same(job) else None)
        if hit is not None:
            its = "its own input" if _identity(hit) == _identity(job.source) else f"the input {hit.name}"
            raise UsageError(
                f"{job.source.name}: would overwrite {its}", "choose another name or folder with -o"
            )
        if is_special(job.output):
            continue
        other = owners.setdefault(_real(job.output), job)
        if _identity(other.source) != _identity(job.source):
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


def _identity(source: Input) -> str:
    """Return what two inputs share if they are one file, or one member of a tar."""
    return _real(source.path) + (f"\0{source.span.start}" if source.span is not None else "")


def _key(source: Input) -> str:
    return _key_of(source.path) + (f"\0{source.span.start}" if source.span is not None else "")


def _key_of(path: Path | None) -> str:
    if path is None or isinstance(path, RemotePath):
        return _real(path)
    return os.path.normcase(os.path.abspath(path))


def taken(path: Path) -> bool:
    """Tell whether writing to a path would replace a file."""
    return (path.exists() or path.is_symlink()) and not is_special(path)


def taken_each(jobs: Iterable[Job]) -> Iterator[tuple[Job, bool]]:
    """Yield each job with whether its output exists; other file systems are asked for several at once."""
    waiting: deque[tuple[Job, Future[bool]]] = deque()
    with ThreadPoolExecutor(QUESTIONS) as pool:
        for job in jobs:
            if not isinstance(job.output, RemotePath):
                yield job, job.output is not None and taken(job.output)
                continue
            waiting.append((job, pool.submit(taken, job.output)))
            if len(waiting) == QUESTIONS:
                first, answer = waiting.popleft()
                yield first, answer.result()
        for job, answer in waiting:
            yield job, answer.result()


@contextmanager
def replacing(target: Path, *, force: bool, times: tuple[int, int] | None = None) -> Iterator[BinaryIO]:
    """Open an output for writing, as `files.atomically` does; make its folders as needed.

    Args:
        target: the output.
        force: replace an existing one.
        times: of access and of modification, in nanoseconds, that the output gets; None: the present.

    Raises:
        MediaError: the output exists or cannot be written; the message names it.
    """
    if is_special(target) and not target.is_dir():
        with target.open("wb") as device:
            yield device
        return
    remote = isinstance(target, RemotePath)
    if not remote:  # there it would be one more question, and the one below will do
        check_free(target, force)
    final = target if remote else Path(os.path.realpath(target))
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with final.atomically() if isinstance(final, RemotePath) else atomically(final) as file:
            yield file
            # Another process may have written it since.
            check_free(target, force)
    except OSError as error:
        message, hint, _ = explain(error)
        raise MediaError(f"cannot write {target}: {message}", hint) from error
    if times is not None and not remote:  # other file systems set their own
        with suppress(OSError):
            os.utime(final, ns=times)


def check_free(target: Path, force: bool, hint: str = KEEP_OR_REPLACE) -> None:
    """Refuse an output that exists.

    Raises:
        MediaError: the output exists and must not be replaced, or is a folder.
    """
    if not target.exists() and not target.is_symlink():
        return  # one question to another file system
    if target.is_dir():
        raise MediaError(f"{target} is a folder", "choose another name with -o")
    if taken(target) and not force:
        raise MediaError(f"{target} exists", hint)
