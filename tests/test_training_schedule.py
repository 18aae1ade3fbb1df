"""Training: the schedule, and how a run ends that does not end well."""

from __future__ import annotations

import gc
import math
import threading
import time
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from training_runs import (
    QUICK,
    go,
    interrupt_at,
    metrics,
    one_thread,
    saved_steps,
)
from vqcodec import training
from vqcodec.errors import TrainingError
from vqcodec.models.base import LossStep
from vqcodec.models.vqvae import VQVAE
from vqcodec.training import trainer

__all__ = ["one_thread"]


class FakeTime(SimpleNamespace):
    """A clock that moves one second at a time, whenever it is looked at."""

    def __init__(self) -> None:
        super().__init__(now=1000.0, perf_counter=time.perf_counter, strftime=time.strftime)

    def monotonic(self) -> float:
        self.now += 1
        return self.now


def rates(folder: Path) -> list[float]:
    return [event["learning_rate"] for event in metrics(folder, "step")]


def test_a_time_budget_ends_the_run_and_the_schedule_follows_it(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "LOG_EVERY", 1)
    monkeypatch.setattr(trainer, "time", FakeTime())
    monkeypatch.setattr(trainer.Trainer, "_finishing_seconds", lambda self: 0.0)
    options: dict[str, Any] = {
        "steps": 1_000_000,
        "time_budget": 10,
        "learning_rate": 2e-3,
        "overrides": {**QUICK, "warmup": "4"},
    }
    run = go([photos], tmp_path / "run", **options)
    assert run.card.training["steps"] == 10
    cosine = [2e-3 * 0.5 * (1 + math.cos(math.pi * n / 10)) for n in range(10)]
    wanted = [rate * min(1, (n + 1) / 4) for n, rate in enumerate(cosine)]
    assert rates(run.folder) == pytest.approx(wanted)
    assert [event["progress"] for event in metrics(run.folder, "step")] == pytest.approx(
        [n / 10 for n in range(1, 11)]
    )
    with pytest.raises(KeyboardInterrupt):
        go([photos], tmp_path / "parts", report=interrupt_at("step", 4), **options)
    parts = training.train(resume=tmp_path / "parts")
    assert parts.card.training["steps"] == 10, "the time of the first part counts"
    assert rates(parts.folder) == pytest.approx(wanted)
    assert run.card.training["hours"] == round(10 / 3600, 2)


@pytest.mark.parametrize(("finishing", "steps"), [(2.0, 8), (7.0, 8), (0.5, 10)])
def test_a_time_budget_includes_finishing(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finishing: float, steps: int
) -> None:
    """As long as it takes, but a quarter of the time at most."""
    monkeypatch.setattr(trainer, "time", FakeTime())
    monkeypatch.setattr(trainer.Trainer, "_finishing_seconds", lambda self: finishing)
    run = go([photos], tmp_path / "run", steps=1_000_000, time_budget=10)
    assert run.card.training["steps"] == steps
    assert metrics(run.folder, "validation")[-1]["step"] == steps


def test_finishing_is_estimated_from_one_file(photos: Path, tmp_path: Path) -> None:
    """Within a factor that a loaded machine allows, and with nothing left behind."""
    found: list[float] = []

    class Watched(trainer.Trainer):
        def learn(self) -> None:
            super().learn()
            before = sorted(path.name for path in self.plan.folder.iterdir())
            found.append(self._finishing_seconds())
            assert before == sorted(path.name for path in self.plan.folder.iterdir())

        def finish(self) -> trainer.Run:
            started = time.perf_counter()
            run = super().finish()
            found.append(time.perf_counter() - started)
            return run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "Trainer", Watched)
        go([photos], tmp_path / "run", steps=1, validation=0.5)
    assert found[1] / 5 < found[0] < 5 * found[1]


def test_figures_come_after_the_first_step_and_then_every_few_seconds(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "time", FakeTime())
    monkeypatch.setattr(trainer, "LOG_SECONDS", 3)
    run = go([photos], tmp_path / "run", steps=9, checkpoint_every=100)
    assert [event["step"] for event in metrics(run.folder, "step")] == [1, 4, 7]


def test_the_schedule_follows_the_steps(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "LOG_EVERY", 1)
    run = go([photos], tmp_path / "run", steps=5, overrides={**QUICK, "warmup": "1"})
    wanted = [1e-3 * 0.5 * (1 + math.cos(math.pi * n / 5)) for n in range(5)]
    assert rates(run.folder) == pytest.approx(wanted)


def test_a_loss_that_is_not_a_number(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest, calls = VQVAE.loss, []

    def loss(self: VQVAE, samples: torch.Tensor) -> LossStep:
        calls.append(1)
        step = honest(self, samples)
        return replace(step, loss=step.loss * math.nan) if len(calls) == 5 else step

    monkeypatch.setattr(VQVAE, "loss", loss)
    with pytest.raises(TrainingError, match="the loss is not a number at step 5") as caught:
        go([photos], tmp_path / "run", steps=20)
    assert caught.value.exit_code == 1
    best = tmp_path / "run/best.safetensors"
    assert caught.value.hint == f"--from {best} with a lower --lr"
    assert saved_steps(tmp_path / "run") == [2, 4]
    for path in (tmp_path / "run/checkpoints").iterdir():
        assert all(np.isfinite(tensor).all() for tensor in load_file(path).values())
    # The hint works.
    monkeypatch.setattr(VQVAE, "loss", honest)
    rescued = go([photos], tmp_path / "rescued", start=best, overrides={}, learning_rate=1e-4)
    assert len(rescued.card.training["chain"]) == 2


def test_a_learning_rate_that_explodes(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="the loss is not a number at step 2"):
        go([photos], tmp_path / "run", learning_rate=1e30, checkpoint_every=1)
    assert saved_steps(tmp_path / "run") == [1]
    assert all(np.isfinite(tensor).all() for tensor in load_file(tmp_path / "run/best.safetensors").values())
    assert metrics(tmp_path / "run", "validation")[1]["best"] is False


def test_nothing_of_a_training_stays(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a thread nor the pictures, whatever its end; nobody need collect garbage for that."""
    alive: list[weakref.ref[Any]] = []
    honest = trainer.Trainer.__init__

    def init(self: trainer.Trainer, *args: Any, **options: Any) -> None:
        honest(self, *args, **options)
        alive.append(weakref.ref(self))

    monkeypatch.setattr(trainer.Trainer, "__init__", init)
    before = {*threading.enumerate()}
    gc.collect()
    gc.disable()
    try:
        go([photos], tmp_path / "run", steps=2, stage="codec")
        with pytest.raises(TrainingError):
            go([photos], tmp_path / "wild", learning_rate=1e30, stage="codec")
        assert len(alive) == 2 and alive[0]() is None
    finally:
        gc.enable()
    deadline = time.monotonic() + 10
    while {*threading.enumerate()} - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not {*threading.enumerate()} - before


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("16 GiB"), MemoryError()])
def test_out_of_memory(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def loss(self: VQVAE, samples: torch.Tensor) -> LossStep:
        raise error

    monkeypatch.setattr(VQVAE, "loss", loss)
    with pytest.raises(TrainingError, match="out of memory at batches of 2") as caught:
        go([photos], tmp_path / "run")
    assert caught.value.hint == "--batch or --crop"
