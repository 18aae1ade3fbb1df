"""Decide what is done side by side: small files together, many in processes, few in threads."""

import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from .batch import Batch
from .cluster import ClusterWorkers
from .paths import Job
from .remote import is_special
from .workers import Task, Workers, processors

START = 2.0
"""Seconds of work before worker processes are started: about what it costs to start one."""

WORTH = 10.0
"""Seconds of work that must be left, as the files so far lead to expect."""

BATCHES_PER_WORKER = 4
"""Batches that must be left for each worker, or threads within a file serve better."""

TOGETHER = 16
"""Small files that are coded together."""

FEW = TOGETHER // 4
"""Those of a batch while worker processes start, and of the last ones, so that workers end together."""

MANY = 100
"""Files for which worker processes are started at once."""

Small = Callable[[Job], bool]
"""Whether a file is so small that it is done together with others, and by one thread."""


def work_through(
    batch: Batch,
    verb: str,
    jobs: Iterable[Job],
    task: Task,
    *,
    workers: int | None,
    small: Small,
    ray: str | None = None,
    count: Callable[[], int] | None = None,
) -> None:
    """Do every job behind one progress bar, and report each.

    Many files are done by worker processes, or by a cluster. The first of fewer files are done in this
    process; if much is left once that has taken as long as it takes to start worker processes, these are
    started, and take over when they are ready.

    Args:
        batch: reports and counts.
        verb: what is done, on the bar.
        jobs: to do; they may still be found meanwhile.
        task: does them.
        workers: the -j option; None: one for each processor.
        small: whether a file is small.
        ray: address of a Ray cluster that does the work.
        count: counts the jobs, for the bar.
    """
    limit = workers or processors()
    batches = _Ahead(_batches(jobs, small))
    pool: Workers | ClusterWorkers | None = None
    starting: Workers | None = None  # that this process does not wait for
    with batch.console.bar(verb, None) as bar:
        if batch.console.progress and count is not None:
            threading.Thread(target=lambda: bar.total(count()), daemon=True).start()

        def here(some: list[Job]) -> None:
            bar.item(batch.done, some[0].source.below.name)
            threads = 1 if all(map(small, some)) else workers
            for job, outcome in zip(some, task(some, bar.part, threads), strict=True):
                batch.settle(job, outcome)

        try:
            started = time.perf_counter()
            batch.alone = not sum(batch.counts.values()) and batches.single
            number = files = 0
            if ray is not None:
                pool = ClusterWorkers(task, ray, workers)
            elif limit > 1 and batches.hold(MANY) and (processes := _processes(batches, limit)) > 1:
                pool = Workers(task, processes)
            while pool is None or (starting is not None and not starting.ready()):
                some = next(batches, None)
                if some is None:
                    break
                if pool is not None:
                    some = batches.shortened(some)
                here(some)
                number, files = number + 1, files + len(some)
                taken = time.perf_counter() - started
                if pool is None and limit > 1 and taken > START:
                    batches.count(math.ceil(WORTH / taken * number))
                    processes = _processes(batches, limit)
                    if processes > 1 and taken / files * batches.files >= WORTH:
                        pool = starting = Workers(task, processes)
            else:
                for given, outcomes in pool.run(_elsewhere(batches, here, limit)):
                    for job, outcome in zip(given, outcomes, strict=True):
                        batch.settle(job, outcome)
                        bar.item(batch.done, job.source.below.name)
        finally:
            if pool is not None:
                pool.stop()


def _elsewhere(batches: "_Ahead", here: Callable[[list[Job]], None], workers: int) -> Iterator[list[Job]]:
    """Yield what other processes can do: stdin, pipes and devices are this one's."""
    for some in batches:
        if batches.count(workers) < workers:
            some = batches.shortened(some)
        if any(job.source.is_stream or (job.named and is_special(job.output)) for job in some):
            here(some)
        else:
            yield some


def _processes(batches: "_Ahead", limit: int) -> int:
    """Return how many worker processes have enough to do, at most `limit`."""
    return min(limit, batches.count(BATCHES_PER_WORKER * limit) // BATCHES_PER_WORKER)


def _batches(jobs: Iterable[Job], small: Small) -> Iterator[list[Job]]:
    """Group small files; the groups grow, so that the first result comes soon."""
    waiting: list[Job] = []
    most = 1
    for job in jobs:
        if not small(job):
            yield [job]
            continue
        waiting.append(job)
        if len(waiting) >= most:
            yield waiting
            waiting, most = [], min(2 * most, TOGETHER)
    if waiting:
        yield waiting


class _Ahead(Iterator[list[Job]]):
    """Look some batches ahead."""

    def __init__(self, batches: Iterator[list[Job]]) -> None:
        self._batches = batches
        self._waiting: deque[list[Job]] = deque()

    def __next__(self) -> list[Job]:
        self._fill(1)
        if not self._waiting:
            raise StopIteration
        return self._waiting.popleft()

    @property
    def single(self) -> bool:
        """Whether there is one job in all."""
        self._fill(2)
        return len(self._waiting) == 1 and len(self._waiting[0]) == 1

    def hold(self, files: int) -> bool:
        """Tell whether so many files are left."""
        while self.files < files:
            before = len(self._waiting)
            if self.count(before + 1) == before:
                return False
        return True

    @property
    def files(self) -> int:
        """How many files the batches hold that were looked at."""
        return sum(map(len, self._waiting))

    def shortened(self, some: list[Job]) -> list[Job]:
        """Return the first of some jobs, a few; the rest comes next."""
        if len(some) > FEW:
            self._waiting.appendleft(some[FEW:])
        return some[:FEW]

    def count(self, most: int) -> int:
        """Return how many are left, or `most`."""
        self._fill(most)
        return min(len(self._waiting), most)

    def _fill(self, count: int) -> None:
        self._waiting += itertools.islice(self._batches, max(0, count - len(self._waiting)))
