"""Run a task in worker processes, file by file.

Processes, not threads: the coding of audio holds Python's lock for four fifths of its time. Each process
computes with one thread, and none waits in a loop for another.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, NoReturn, Protocol

from vqcodec.errors import UsageError

from .console import Failure
from .outcome import Outcome
from .paths import Job, taken

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext

Jobs = Sequence[Job]
Progress = Callable[[int, int], None]
PATIENCE = 5.0
"""Seconds that a worker has to remove its temporary file before it is killed."""


class Task(Protocol):
    """What is done with the inputs of a command; it can be sent to another process."""

    def __call__(self, jobs: Jobs, progress: Progress, threads: int | None) -> list[Outcome]:
        """Do some jobs together; return one outcome for each.

        Args:
            jobs: to do.
            progress: called with the number of parts of the first one that are done, and of all.
            threads: to compute with.
        """

    def prepare(self) -> None:
        """Load what every job needs."""


class Workers:
    """Processes that do a task.

    Args:
        task: to do.
        count: number of processes.
    """

    def __init__(self, task: Task, count: int) -> None:
        self._task = task
        self._context = _context()
        self._processes: dict[Connection, BaseProcess] = {}
        self._busy: dict[Connection, tuple[Jobs, list[bool]]] = {}
        self._again: list[Jobs] = []
        self._all_given = False
        for _ in range(count):
            self._start()

    def ready(self) -> bool:
        """Tell whether a worker waits for its first jobs."""
        return any(link.poll() for link in self._processes)

    def run(self, batches: Iterator[Jobs]) -> Iterator[tuple[Jobs, list[Outcome]]]:
        """Hand out batches; yield them with their outcomes, in the order in which they are done.

        Of the jobs of a worker that dies, those whose outputs were complete are done; the others are done
        again one by one, and fail where they were alone when it happened.

        Raises:
            UsageError: the options are wrong, or no worker starts.
        """
        while self._processes:
            for link in wait([*self._processes]):
                assert isinstance(link, Connection)
                try:
                    result: list[Outcome] | BaseException | None = link.recv()
                except (EOFError, OSError):
                    yield from self._bury(link)
                    continue
                batch, _ = self._busy.pop(link, (None, None))
                if isinstance(result, BaseException):
                    raise result
                if batch is not None and result is not None:
                    yield batch, result
                following = self._again.pop() if self._again else next(batches, None)
                if following is None:
                    self._all_given = True
                    self._dismiss(link)
                    continue
                self._busy[link] = following, [*map(exists, following)]
                with suppress(OSError):  # it is dead, which the next `recv` will say
                    link.send(following)

    def stop(self) -> None:
        """End all workers; unfinished outputs do not stay."""
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            process.join(PATIENCE)
            if process.exitcode is None:
                process.kill()
        self._processes = {}

    def _start(self) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._task), daemon=True)
        process.start()
        theirs.close()
        self._processes[ours] = process

    def _dismiss(self, link: Connection) -> None:
        with suppress(OSError):
            link.send(None)
        self._processes.pop(link).join(PATIENCE)

    def _bury(self, link: Connection) -> Iterator[tuple[Jobs, list[Outcome]]]:
        process = self._processes.pop(link)
        process.join(PATIENCE)
        batch, before = self._busy.pop(link, (None, ()))
        if batch is None and (self._processes or (self._all_given and not self._again)):
            return  # it never began: the others do the work, or have done it
        if batch is None:
            message = f"no worker process could start, the last ended with code {process.exitcode}"
            raise UsageError(message, "-j 1; in a script of your own also: if __name__ == '__main__'")
        self._start()
        code = process.exitcode or 0
        how = f"killed by signal {-code}" if code < 0 else f"ended with code {code}"
        failure = Failure(f"its worker was {how}, perhaps for lack of memory", "try it alone with -j 1", 1)
        for job, existed in zip(batch, before, strict=True):
            if (outcome := completed(job, existed)) is not None:
                yield [job], [outcome]
            elif len(batch) > 1:
                self._again.append([job])
            else:
                yield [job], [Outcome(job.source.name, failure=failure)]


def _context() -> "ForkServerContext | SpawnContext":
    """Return how processes are started: on Linux as copies of one that has imported the networks."""
    if not sys.platform.startswith("linux"):
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vqcodec.pipeline"])
    return context


def exists(job: Job) -> bool:
    """Tell whether the output of a job is a file that exists."""
    return job.output is not None and not job.packed and taken(job.output)


def completed(job: Job, existed: bool) -> Outcome | None:
    """Return the outcome of a job whose worker was lost, where its output had become complete.

    Args:
        job: that was in work.
        existed: whether its output existed before.
    """
    if existed or job.output is None or not exists(job):
        return None
    fields = {"output": str(job.output), "bytes_in": job.source.size, "bytes_out": job.output.stat().st_size}
    return Outcome(job.source.name, fields=fields)


def _serve(link: Connection, task: Task) -> None:
    """Do the jobs that come through a connection, until it ends."""
    # Ctrl-C reaches all processes of a terminal; the one that prints decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    with suppress(EOFError, OSError, BrokenPipeError):
        task.prepare()
        link.send(None)
        while (batch := link.recv()) is not None:
            try:
                result: list[Outcome] | BaseException = task(batch, silent, 1)
            except Exception as error:
                result = error
            link.send(result)


def _leave(_number: int, _frame: object) -> NoReturn:
    sys.exit(1)


def silent(_done: int, _whole: int) -> None:
    """Take no notice of progress."""


def processors() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
