"""Run a task on a Ray cluster, as `workers.Workers` runs it in processes of this machine."""

import os
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vqcodec.errors import UsageError
from vqcodec.files import delete_unfinished

from . import paths
from .console import Failure
from .outcome import Outcome
from .remote import RemotePath
from .workers import PATIENCE, Jobs, Task, completed, exists, processors, silent

LOCAL = "local"
ATTEMPTS = 3
"""Workers that may be lost with one file alone before it is to blame, and those that may fail to start."""

HINT = "start Ray with 'ray start --head' and give its address, or --ray local"


@dataclass(frozen=True)
class _Running:
    """What a worker does.

    Attributes:
        worker: handle of the actor.
        jobs: those in work; None while it prepares.
        taken: a promise of whether the output of each existed before.
    """

    worker: Any
    jobs: Jobs | None = None
    taken: Any = None


class ClusterWorkers:
    """Actors of a Ray cluster that do a task, one for each of its CPUs; they run and stop as `Workers` do.

    Args:
        task: to do.
        address: of the cluster, or "local" for a new one on this machine.
        count: number of actors, of which those wait that have no CPU yet; None: the CPUs of the cluster.

    Raises:
        UsageError: Ray is not installed, there is no cluster, or it has no CPUs.
    """

    def __init__(self, task: Task, address: str, count: int | None) -> None:
        self._ray = _connect(address, count)
        count = count or int(self._ray.cluster_resources().get("CPU", 0))
        if not count:
            raise UsageError(f"the Ray cluster at {address} has no CPUs", "add machines to it")
        self._actor = self._ray.remote(num_cpus=1, max_restarts=0, concurrency_groups={"end": 1})(_Actor)
        self._arguments = task, os.getcwd()
        self._running: dict[Any, _Running] = {}
        self._idle: list[Any] = []
        self._again: list[Jobs] = []
        self._lost: Counter[paths.Job] = Counter()
        self._failures = 0
        for _ in range(count):
            self._start()

    def run(self, batches: Iterator[Jobs]) -> Iterator[tuple[Jobs, list[Outcome]]]:
        """Hand out batches; yield them with their outcomes, in the order in which they are done.

        Of the jobs of a worker that is lost, those whose outputs were complete are done; the others are done
        again one by one, and fail where that happens to them `ATTEMPTS` times.

        Raises:
            UsageError: the options are wrong, or no worker can be started.
        """
        exhausted = False
        while not exhausted or self._again or any(running.jobs for running in self._running.values()):
            while self._idle and (self._again or not exhausted):
                following = self._again.pop() if self._again else next(batches, None)
                if following is None:
                    exhausted = True
                else:
                    self._hand(self._idle.pop(), following)
            for promise in self._done():
                running = self._running.pop(promise)
                try:
                    result = self._ray.get(promise)
                except self._ray.exceptions.RayError as error:
                    yield from self._bury(running, error)
                    continue
                if isinstance(result, BaseException):
                    raise result
                self._failures = 0
                self._idle.append(running.worker)
                if running.jobs is not None:
                    yield running.jobs, result

    def stop(self) -> None:
        """End all workers; unfinished outputs do not stay."""
        busy = [running.worker for running in self._running.values() if running.jobs is not None]
        if busy:
            clean = [worker.clean.options(concurrency_group="end").remote() for worker in busy]
            self._ray.wait(clean, num_returns=len(clean), timeout=PATIENCE)
        for worker in (*self._idle, *(running.worker for running in self._running.values())):
            self._ray.kill(worker)
        self._running, self._idle = {}, []
        self._ray.shutdown()

    def _done(self) -> list[Any]:
        """Wait; return all promises that are kept."""
        promises = [*self._running]
        if not promises:
            return []
        self._ray.wait(promises, num_returns=1)
        return list(self._ray.wait(promises, num_returns=len(promises), timeout=0)[0])

    def _start(self) -> None:
        worker = self._actor.remote(*self._arguments)
        self._running[worker.prepare.remote()] = _Running(worker)

    def _hand(self, worker: Any, jobs: Jobs) -> None:
        taken = worker.taken.remote(jobs)
        self._running[worker.do.remote(jobs)] = _Running(worker, jobs, taken)

    def _bury(self, running: _Running, error: Exception) -> Iterator[tuple[Jobs, list[Outcome]]]:
        self._ray.kill(running.worker)  # it may be lost from sight alone
        if running.jobs is None:
            self._failures += 1
            if self._failures < ATTEMPTS:
                self._start()
            elif not self._running and not self._idle:
                reason = str(error).strip().splitlines()[-1]
                raise UsageError(
                    f"no worker of the cluster starts: {reason}",
                    "install the same version of vqcodec on each of its machines",
                )
            return
        if not self._idle:
            self._start()
        try:
            taken = self._ray.get(running.taken)
        except self._ray.exceptions.RayError:  # it was lost before it began
            taken = [True] * len(running.jobs)
        for job, before in zip(running.jobs, taken, strict=True):
            if (done := completed(job, before)) is not None:
                yield [job], [done]
                continue
            self._lost[job] += len(running.jobs) == 1
            if self._lost[job] < ATTEMPTS:
                self._again.append([job])
                continue
            message = f"{ATTEMPTS} workers were lost with it, perhaps for lack of memory"
            failure = Failure(message, "try it alone, without --ray", 1)
            yield [job], [Outcome(job.source.name, failure=failure)]


class _Actor:
    """Do jobs on a machine of the cluster.

    Args:
        task: to do.
        folder: that relative paths begin in; it must be on a disk that all machines share.
    """

    def __init__(self, task: Task, folder: str) -> None:
        self._task, self._folder = task, folder
        self._lacks_folder = False

    def prepare(self) -> BaseException | None:
        """Load what every job needs; return an error instead of raising it, as `do` does."""
        try:
            os.chdir(self._folder)
        except OSError:
            self._lacks_folder = True
        try:
            self._task.prepare()
        except Exception as error:
            return error
        return None

    def taken(self, jobs: Jobs) -> list[bool]:
        """Tell of each job whether its output exists."""
        return [*map(exists, jobs)]

    def do(self, jobs: Jobs) -> list[Outcome] | BaseException:
        """Do jobs together, with one thread."""
        if self._misses(jobs):
            return UsageError(
                f"the machines of the cluster have no folder {self._folder}",
                "work on a disk that they share, or name inputs and -o by addresses, as s3://",
            )
        try:
            return self._task(jobs, silent, 1)
        except Exception as error:
            return error

    def _misses(self, jobs: Jobs) -> bool:
        """Tell whether jobs have local files, and this machine lacks the folder where the command runs."""
        local = [path for job in jobs for path in (job.source.path, job.output) if path is not None]
        return self._lacks_folder and not all(isinstance(path, RemotePath) for path in local)

    def clean(self) -> None:
        """Delete what is half-written, while another thread works on it."""
        delete_unfinished()


def _connect(address: str, count: int | None) -> Any:
    """Connect to a cluster; return the module `ray`."""
    # What Ray says about lost workers would go to stdout, between the records.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise UsageError("--ray needs Ray", "pip install 'vqcodec[ray]'") from error
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == LOCAL:
        cpus = count or processors()
        settings |= {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": 100 << 20}
    else:
        _check_address(address)
    terminate = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, **settings)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"no Ray cluster at {address}: {reason}", HINT) from error
    signal.signal(signal.SIGTERM, terminate)  # Ray takes it, and would end without a summary
    return ray


def _check_address(address: str) -> None:
    """Refuse an address where nobody answers: Ray would try for minutes.

    Raises:
        UsageError: it is not that of a cluster.
    """
    host, _, port = address.rpartition(":")
    if not (host and "/" not in host and port.isdecimal() and int(port) < 1 << 16):
        raise UsageError(f"--ray {address}: not an address", "write HOST:PORT, as 10.0.0.1:6379, or local")
    try:
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"no Ray cluster at {address}: {reason}", HINT) from error
