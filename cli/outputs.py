"""Write results to files, to stdout, or into a tar; refuse what must not be written."""

import io
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from vqcodec.errors import MediaError, UsageError

from . import paths
from .batch import Batch, shown
from .console import Console
from .outcome import Fields, Outcome
from .paths import Job
from .remote import is_special
from .streams import BLOCK, write_stdout
from .tars import TarWriter, is_tar


def deliver(
    job: Job, write: Callable[[BinaryIO], object], outcome: Outcome, *, force: bool, stamp: bool
) -> int:
    """Write a result where it belongs; return its size in bytes.

    Args:
        job: whose result it is.
        write: writes it to a file that can seek.
        outcome: of the job; gets what belongs into a tar.
        force: replace an existing file.
        stamp: copy the times of the input.
    """
    times = job.source.times if stamp else None
    if job.packed:
        packed = io.BytesIO()
        write(packed)
        outcome.data = packed.getvalue()
        outcome.mtime = None if times is None else times[1] / 1e9
        return len(outcome.data)
    if job.output is not None and not is_special(job.output):
        with paths.replacing(job.output, force=force, times=times) as file:
            write(file)
            return file.seek(0, os.SEEK_END)
    # Writers seek back to store a length in the header, which a pipe does not allow.
    with tempfile.TemporaryFile() as whole:
        write(whole)
        size = whole.seek(0, os.SEEK_END)
        whole.seek(0)
        if job.output is None:
            write_stdout(whole)
        else:
            with paths.replacing(job.output, force=force) as pipe:
                shutil.copyfileobj(whole, pipe, BLOCK)
    return size


@contextmanager
def into_tar(batch: Batch, output: str | None, force: bool) -> Iterator[None]:
    """Open the tar that -o names, if it names one; it appears when all is done."""
    if output is None or not is_tar(output):
        yield
        return
    with paths.replacing(Path(output), force=force) as file:
        batch.tar = TarWriter(file)
        yield
        batch.tar.close()


def check_tar(output: str | None, force: bool, skip_existing: bool) -> None:
    """Refuse a tar that exists, before any work is done.

    Raises:
        UsageError: members of a tar cannot be skipped.
        MediaError: the tar exists.
    """
    if output is not None and is_tar(output):
        if skip_existing:
            raise UsageError("--skip-existing does not apply to a tar", "write to a folder, or leave it out")
        paths.check_free(Path(output), force, "replace it with -f")


def check_ray(ray: str | None, output: str | None, device: str) -> None:
    """Refuse what a cluster cannot do.

    Raises:
        UsageError: the output is stdout, or the device is an accelerator.
    """
    if ray is not None and output == paths.STANDARD:
        raise UsageError("a cluster does not write to stdout", "name a folder with -o, or leave out --ray")
    if ray is not None and device not in ("auto", "cpu"):
        raise UsageError("a cluster computes on CPUs", "leave out --device or --ray")


def first_of(jobs: Iterable[Job]) -> tuple[Job | None, Iterator[Job]]:
    """Return the first job, if there is one, and all of them."""
    rest = iter(jobs)
    first = next(rest, None)
    return first, iter(()) if first is None else itertools.chain([first], rest)


def check_overwriting(force: bool, skip_existing: bool) -> None:
    """Refuse options that contradict each other.

    Raises:
        UsageError: both are given.
    """
    if force and skip_existing:
        raise UsageError("-f and --skip-existing exclude each other", "give one of them")


def check_json(console: Console, job: Job | None) -> None:
    """Refuse to write bytes and records to stdout.

    Raises:
        UsageError: both are asked for.
    """
    if console.json and job is not None and job.output is None:
        raise UsageError("--json and a result on stdout exclude each other", "name a file with -o FILE")


def refuse_existing(job: Job, force: bool) -> None:
    """Refuse an output that exists, before any work is done.

    Raises:
        MediaError: the output exists, or is a pipe or device that happens to have its name.
    """
    if job.output is None or job.packed:
        return
    if not job.named and is_special(job.output) and not job.output.is_dir():
        raise MediaError(f"{job.output} is a pipe, device or socket", "write elsewhere with -o")
    paths.check_free(job.output, force)


def rehearse(batch: Batch, jobs: Iterable[Job], force: bool, plan: Callable[[Job], Fields]) -> int:
    """List what would be done and what would be refused; return the exit code.

    Args:
        batch: counts and reports.
        jobs: what would be done.
        force: replace existing outputs.
        plan: returns fields for the record and the line of a job; may refuse it.
    """
    for job in jobs:
        planned: Fields = {}

        def work(job: Job = job, planned: Fields = planned) -> Fields:
            refuse_existing(job, force)
            planned |= plan(job)
            return {"output": shown(job.output), "status": "planned", **planned}

        record = batch.run(job.source, work)
        if record is not None:
            details = "  ".join(f"{key} {value}" for key, value in planned.items())
            batch.console.out(f"{record['input']} -> {record['output']}  {details}".rstrip())
    return batch.finish(sizes=False)
