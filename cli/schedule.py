"""Decide what is done side by side: small files together, many in processes, few in threads."""

import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from .batch import Batch
from .paths import Job
from .workers import Task, Workers, processors

START = 2.0
"""Seconds of work before worker processes are started: about what it costs to start one."""

WORTH = 10.0
"""Seconds of work that must be left, as the files so far lead to expect."""

BATCHES_PER_WORKER = 4
"""Batches that must be left for each worker, or threads within a file serve better."""

TOGETHER = 16
"""Small files that are coded together."""

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
    count: Callable[[], int] | None = None,
) -> None:
    """Do every job behind one progress bar, and report each.

    The first files are done in this process. If much is left once that has taken as long as it takes to start
    worker processes, these are started, and take over when they are ready.

    Args:
        batch: reports and counts.
        verb: what is done, on the bar.
        jobs: to do; they may still be found meanwhile.
        task: does them.
        workers: the -j option; None: one for each processor.
        small: whether a file is small.
        count: counts the jobs, for the bar.
    """
    limit = workers or processors()
    batches = _Ahead(_batches(jobs, small))
    pool: Workers | None = None
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
            number = 0
            while pool is None or not pool.ready():
                some = next(batches, None)
                if some is None:
                    break
                here(some)
                number += 1
                taken = time.perf_counter() - started
                if pool is None and limit > 1 and taken > START:
                    mean = taken / number
                    left = batches.count(max(BATCHES_PER_WORKER * limit, math.ceil(WORTH / mean)))
                    processes = min(limit, left // BATCHES_PER_WORKER)
                    if processes > 1 and mean * left >= WORTH:
                        pool = Workers(task, processes)
            else:
                for given, outcomes in pool.run(_elsewhere(batches, here)):
                    for job, outcome in zip(given, outcomes, strict=True):
                        batch.settle(job, outcome)
                        bar.item(batch.done, job.source.below.name)
        finally:
            if pool is not None:
                pool.stop()


def _elsewhere(batches: Iterable[list[Job]], here: Callable[[list[Job]], None]) -> Iterator[list[Job]]:
    """Yield what other processes can do: stdin is this one's."""
    for some in batches:
        if any(job.source.path is None for job in some):
            here(some)
        else:
            yield some


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

    def count(self, most: int) -> int:
        """Return how many are left, or `most`."""
        self._fill(most)
        return min(len(self._waiting), most)

    def _fill(self, count: int) -> None:
        self._waiting += itertools.islice(self._batches, max(0, count - len(self._waiting)))
