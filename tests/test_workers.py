"""Worker processes: what they do, and what becomes of those that die. The tasks here load no network."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import vqcodec
from conftest import photo
from toy_task import Stillborn, Toy, Unlucky, jobs
from vqcodec.cli import paths, schedule
from vqcodec.cli.batch import Batch
from vqcodec.cli.console import Console
from vqcodec.cli.listing import Input
from vqcodec.cli.outcome import Outcome
from vqcodec.cli.workers import Workers, completed
from vqcodec.errors import UsageError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_all_is_done_and_those_that_die_take_no_other_with_them() -> None:
    workers = Workers(Toy(), 2)
    batches = [jobs("a"), jobs("b", "killer", "c"), jobs("broken"), jobs("d")]
    try:
        done = {out.name: out for _, outcomes in workers.run(iter(batches)) for out in outcomes}
    finally:
        workers.stop()
    failed = {name: out.failure.message for name, out in done.items() if out.failure}
    assert sorted(done) == ["a", "b", "broken", "c", "d", "killer"]
    assert failed == {
        "broken": "internal error: ValueError: a broken file",
        "killer": "its worker was killed by signal 9, perhaps for lack of memory",
    }
    pids = {Path(f"{name}.out").read_text() for name in "abcd"}
    assert str(os.getpid()) not in pids
    assert sorted(path.name for path in Path().iterdir()) == ["a.out", "b.out", "c.out", "d.out"]


def test_outputs_that_a_lost_worker_completed_are_done_once() -> None:
    Path("a").write_bytes(b"12345")
    Path("old.out").write_bytes(b"from before")
    workers = Workers(Unlucky(), 1)
    done = {jobs[0].source.name: outcomes for jobs, outcomes in workers.run(iter([jobs("a", "once", "b")]))}
    assert [len(outcomes) for outcomes in done.values()] == [1, 1, 1]
    fields = done["a"][0].fields
    assert (fields["bytes_in"], fields["bytes_out"]) == (5, Path("a.out").stat().st_size)
    assert sorted(Path("log").read_text().split()) == ["a", "b", "once"]
    (job,) = jobs("old")
    assert completed(job, existed=True) is None and completed(*jobs("none"), existed=False) is None


def test_wrong_options_end_the_run_and_nothing_half_written_stays() -> None:
    workers = Workers(Toy(), 2)
    run = workers.run(iter([jobs("slow"), jobs("a"), jobs("misused")]))
    try:
        with pytest.raises(UsageError, match="wrong options"):
            for _ in run:
                while not any(path.suffix == ".part" for path in Path().iterdir()):
                    time.sleep(0.01)
    finally:
        workers.stop()
    assert [path.name for path in Path().iterdir()] == ["a.out"]


@pytest.mark.parametrize(("deaths", "late"), [(1, False), (1, True), (2, False)])
def test_workers_that_never_begin(deaths: int, late: bool) -> None:
    """The others do the work, or have done it; where there is none, the error says what to do."""
    if late:
        Path("late").touch()
    for number in range(deaths):
        Path(f"death-{number}").touch()
    workers = Workers(Stillborn(), 2)
    run = workers.run(iter([jobs("a"), jobs("b")]))
    try:
        if deaths == 1:
            assert sorted(out.name for _, outcomes in run for out in outcomes) == ["a", "b"]
            return
        with pytest.raises(UsageError, match="no worker process could start, the last ended with code 3"):
            next(run)
    finally:
        workers.stop()


class FakeWorkers:
    """Say that all is done."""

    started: list[int] = []

    def __init__(self, task: Any, count: int) -> None:
        self.started.append(count)

    def ready(self) -> bool:
        return True

    def run(self, batches: Any) -> Any:
        return ((some, [Outcome(job.source.name) for job in some]) for some in batches)

    def stop(self) -> None:
        self.started.append(0)


class Here(Toy):
    """Note what is done in this process."""

    done: list[str] = []

    def __call__(self, jobs: Any, progress: Any, threads: int | None) -> list[Outcome]:
        self.done.extend(job.source.name for job in jobs)
        return [Outcome(job.source.name) for job in jobs]


@pytest.mark.parametrize(("count", "parallel", "many"), [(7, 1, False), (8, 2, False), (9, 2, True)])
def test_files_go_to_workers_when_many_are_left(
    monkeypatch: pytest.MonkeyPatch, count: int, parallel: int, many: bool
) -> None:
    """Stdin stays here."""
    monkeypatch.setattr(schedule, "Workers", FakeWorkers)
    monkeypatch.setattr(schedule, "START", 0.0)
    monkeypatch.setattr(schedule, "WORTH", 0.0)
    monkeypatch.setattr(FakeWorkers, "started", [])
    monkeypatch.setattr(Here, "done", [])
    batch = Batch(Console(quiet=True))
    stdin = paths.Job(Input(None, "stdin", Path("stdin")), Path("stdin.out"))
    names = [f"{n}" for n in range(count - 1)]
    todo = iter([*jobs(*names), stdin])
    schedule.work_through(batch, "doing", todo, Here(), workers=parallel, small=lambda job: False)
    assert batch.counts == {"ok": count, "failed": 0, "skipped": 0}
    assert FakeWorkers.started == ([parallel, 0] if many else [])
    assert Here.done == (["0", "stdin"] if many else [*names, "stdin"])


@pytest.mark.parametrize("count", [19, 20])
def test_many_files_go_to_workers_at_once(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(schedule, "Workers", FakeWorkers)
    monkeypatch.setattr(schedule, "MANY", 20)
    monkeypatch.setattr(FakeWorkers, "started", [])
    monkeypatch.setattr(Here, "done", [])
    batch, names = Batch(Console(quiet=True)), [f"{n}" for n in range(count)]
    schedule.work_through(batch, "doing", iter(jobs(*names)), Here(), workers=2, small=lambda job: False)
    assert batch.counts == {"ok": count, "failed": 0, "skipped": 0}
    assert (FakeWorkers.started, Here.done) == (([2, 0], []) if count == 20 else ([], names))


def test_the_last_batches_are_short_so_that_workers_end_together() -> None:
    ahead = schedule._Ahead(schedule._batches(iter(jobs(*map(str, range(47)))), lambda job: True))
    sizes = [len(some) for some in schedule._elsewhere(ahead, lambda some: None, 2)]
    assert sizes == [1, 2, 4, 8] + 8 * [4]


def test_small_files_are_done_together_in_growing_groups() -> None:
    todo = jobs(*(f"{n}" for n in range(20)))
    groups = [*schedule._batches(todo, lambda job: job.source.name != "9")]
    assert [len(group) for group in groups] == [1, 2, 4, 1, 8, 4]
    assert sorted((job.source.name for group in groups for job in group), key=int) == [
        f"{n}" for n in range(20)
    ]


def test_files_that_are_coded_together_have_the_bytes_of_each_alone(photos: Path, small: str) -> None:
    """Also beside one that cannot be read."""
    from vqcodec.cli.encode import Encoding

    photo("broken.png")
    Path("broken.png").write_bytes(Path("broken.png").read_bytes()[:200])
    settings = {"model": small, "effort": 1}
    names = [*map(str, sorted(photos.iterdir())[:3]), "broken.png"]
    todo = [
        paths.Job(Input(Path(name), name, Path(Path(name).name)), Path(f"{Path(name).stem}.vqc"))
        for name in names
    ]
    outcomes = Encoding(settings, False, True, False, False)(todo, lambda *_: None, 1)
    assert [out.failure is None for out in outcomes] == [True, True, True, False]
    assert outcomes[3].failure is not None and outcomes[3].failure.message == "truncated PNG"
    for name, outcome in zip(names[:3], outcomes, strict=False):
        alone = vqcodec.encode(name, model=small)
        assert Path(f"{Path(name).stem}.vqc").read_bytes() == alone
        assert outcome.fields["bytes_out"] == len(alone)
