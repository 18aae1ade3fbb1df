"""A task for worker processes that loads no network, so that they start at once."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vqcodec.cli import paths
from vqcodec.cli.listing import Input
from vqcodec.cli.outcome import Outcome
from vqcodec.errors import UsageError
from vqcodec.files import atomically


def jobs(*names: str) -> list[paths.Job]:
    return [paths.Job(Input(Path(name), name, Path(name)), Path(f"{name}.out")) for name in names]


@dataclass(frozen=True)
class Toy:
    """Writes its process into the output; some names make trouble."""

    def prepare(self) -> None:
        pass

    def __call__(self, jobs: Any, progress: Any, threads: int | None) -> list[Outcome]:
        assert threads == 1
        outcomes = [Outcome(job.source.name) for job in jobs]
        for job, outcome in zip(jobs, outcomes, strict=True):
            if job.source.name == "killer":
                os.kill(os.getpid(), signal.SIGKILL)
            if job.source.name == "misused":
                raise UsageError("wrong options", "other ones")
            with outcome.attempt(), atomically(job.output) as file:
                file.write(str(os.getpid()).encode())
                file.flush()
                if job.source.name == "slow":
                    time.sleep(60)
                if job.source.name == "broken":
                    raise ValueError("a broken file")
        return outcomes


class Unlucky(Toy):
    """Notes what it does; "once" ends its process the first time."""

    def __call__(self, jobs: Any, progress: Any, threads: int | None) -> list[Outcome]:
        outcomes = []
        for job in jobs:
            name = job.source.name
            if name == "once" and not Path("seen").exists():
                Path("seen").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if name.startswith("pause"):
                time.sleep(0.5)
            outcomes += super().__call__([job], progress, threads)
            with Path("log").open("a") as log:
                log.write(f"{name}\n")
        return outcomes


class Stillborn(Toy):
    """Ends its process before the first file: always, or as often as there are files to take away."""

    def prepare(self) -> None:
        for file in Path().glob("death-*"):
            try:
                file.unlink()
            except FileNotFoundError:
                continue
            while Path("late").exists() and len([*Path().glob("*.out")]) < 2:
                time.sleep(0.01)  # until the others have done all
            os._exit(3)
