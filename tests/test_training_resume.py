"""Training: what is resumed is what was interrupted, bit for bit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SMALL
from safetensors.numpy import load_file
from training_runs import (
    clock,
    go,
    interrupt_at,
    metrics,
    one_thread,
    same_tensors,
    saved_steps,
    timeless,
)
from vqcodec import pipeline, training
from vqcodec.errors import TrainingError, UsageError
from vqcodec.training import checkpoints, trainer

__all__ = ["one_thread"]


def test_twenty_steps_are_ten_and_resume_and_ten(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the linear start, restarts of codes, averages and Adam: every tensor, every figure."""
    monkeypatch.setattr(trainer, "LOG_EVERY", 5)
    # Counts that forget quickly, so that codes die and are moved within so few steps.
    options: dict[str, Any] = {"steps": 20, "batch": 4, "overrides": {**SMALL, "decay": "0.7"}}
    options["checkpoint_every"] = 5
    whole = go([photos], tmp_path / "whole", **options)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        go([photos], tmp_path / "parts", report=interrupt_at("validation", 10), **options)
    assert signal.getsignal(signal.SIGINT) is handler
    assert saved_steps(tmp_path / "parts") == [5, 10]
    assert same_tensors(
        tmp_path / "parts/checkpoints/step-000000010.safetensors",
        whole.folder / "checkpoints/step-000000010.safetensors",
    )
    parts = training.train(resume=tmp_path / "parts")
    assert saved_steps(parts.folder) == saved_steps(whole.folder) == [10, 15, 20]
    for step in (15, 20):
        name = f"checkpoints/step-{step:09d}.safetensors"
        assert same_tensors(whole.folder / name, parts.folder / name)
        first, second = clock(whole.folder / name), clock(parts.folder / name)
        assert {**first, "elapsed_seconds": 0} == {**second, "elapsed_seconds": 0}
        assert (
            first["restarted"] > clock(whole.folder / "checkpoints/step-000000010.safetensors")["restarted"]
        )
    kinds = ("step", "validation")
    assert timeless(metrics(whole.folder, *kinds)) == timeless(metrics(parts.folder, *kinds))
    assert [event["step"] for event in metrics(parts.folder, "step")] == [1, 5, 10, 15, 20]
    assert same_tensors(whole.best, parts.best)
    assert parts.card.fingerprint == whole.card.fingerprint
    assert parts.card.measured == whole.card.measured
    assert parts.card.training["chain"] == whole.card.training["chain"], "nothing was changed"


def test_interrupted_between_checkpoints(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "LOG_EVERY", 1)
    options: dict[str, Any] = {"steps": 6, "checkpoint_every": 100}
    whole = go([photos], tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        go([photos], tmp_path / "parts", report=interrupt_at("step", 3), **options)
    assert saved_steps(tmp_path / "parts") == [3]
    assert not (tmp_path / "parts/best.json").exists(), "it was not finished"
    training.train(resume=tmp_path / "parts")
    name = "checkpoints/step-000000006.safetensors"
    assert same_tensors(whole.folder / name, tmp_path / "parts" / name)
    steps = [timeless(metrics(folder, "step")) for folder in (whole.folder, tmp_path / "parts")]
    assert steps[0] == steps[1]


def test_means_after_a_resume_are_those_of_the_steps_summed(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "LOG_EVERY", 1)
    whole = go([photos], tmp_path / "whole", steps=8, checkpoint_every=3)
    losses = [event["loss"] for event in metrics(whole.folder, "step")]
    monkeypatch.setattr(trainer, "LOG_EVERY", 4)
    with pytest.raises(KeyboardInterrupt):
        go([photos], tmp_path / "parts", steps=8, checkpoint_every=3, report=interrupt_at("validation", 3))
    training.train(resume=tmp_path / "parts")
    (_, at_four, at_eight) = metrics(tmp_path / "parts", "step")
    assert at_four["loss"] == pytest.approx(losses[3])
    assert at_eight["loss"] == pytest.approx(np.mean(losses[4:]))


def test_interrupted_before_the_first_step(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        go([photos], tmp_path / "run", report=interrupt_at("validation", 0))
    assert saved_steps(tmp_path / "run") == [0]
    training.train(resume=tmp_path / "run")
    whole = go([photos], tmp_path / "whole")
    name = "checkpoints/step-000000004.safetensors"
    assert same_tensors(whole.folder / name, tmp_path / "run" / name)


def test_a_second_interruption_does_not_wait(photos: Path, tmp_path: Path) -> None:
    def report(event: dict[str, Any]) -> None:
        if event["event"] == "validation":
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        go([photos], tmp_path / "run", report=report)
    assert saved_steps(tmp_path / "run") == []


def test_training_outside_the_main_thread(photos: Path, tmp_path: Path) -> None:
    thread = threading.Thread(target=go, args=([photos], tmp_path / "run"), kwargs={"steps": 2})
    thread.start()
    thread.join()
    assert (tmp_path / "run/best.json").exists()


def test_resume_can_extend_but_not_change(photos: Path, tmp_path: Path) -> None:
    run = go([photos], tmp_path / "run")
    for change in (
        {"batch": 3},
        {"crop": 64},
        {"seed": 1},
        {"learning_rate": 1e-4},
        {"validation": 0.5},
        {"batch": 3, "seed": 1},
    ):
        with pytest.raises(UsageError, match="--resume cannot change " + ", ".join(change)) as caught:
            training.train(resume=run.folder, **change)  # type: ignore[arg-type]
        assert "--from" in caught.value.hint
    longer = training.train(resume=run.folder, steps=6, batch=2, keep_checkpoints=1)
    assert saved_steps(run.folder) == [6]
    assert longer.card.training["steps"] == 6
    chain = longer.card.training["chain"]
    assert len(chain) == 2
    assert chain[1] == "vqcodec train --resume $RUN --steps 6 --keep-checkpoints 1  # from step 4"
    assert json.loads((run.folder / "config.json").read_text())["settings"]["steps"] == 6


def test_resume_can_change_what_leaves_the_weights_their_meaning(photos: Path, tmp_path: Path) -> None:
    run = go([photos], tmp_path / "run", steps=2)
    with pytest.raises(UsageError, match="--resume cannot change codes"):
        training.train(resume=run.folder, overrides={"codes": "32"})
    with pytest.raises(UsageError, match="decay is 2"):
        training.train(resume=run.folder, overrides={"decay": "2"})
    longer = training.train(resume=run.folder, steps=3, overrides={"decay": "0.9", "restart_below": "0"})
    assert longer.card.config == {**run.card.config, "decay": 0.9, "restart_below": 0.0}
    assert longer.card.training["chain"][1] == (
        "vqcodec train --resume $RUN --steps 3 --set decay=0.9 --set restart_below=0  # from step 2"
    )


def test_the_last_weights_are_kept_instead_of_the_best(photos: Path, tmp_path: Path) -> None:
    """From the first step on, or of a run that has ended: it validates once more, and no weight changes."""
    worse: dict[str, Any] = {"start": go([photos], tmp_path / "start", steps=2).best, "learning_rate": 1.0}
    best = go([photos], tmp_path / "best", overrides={}, **worse)
    last = go([photos], tmp_path / "last", overrides={"keep": "last"}, **worse)
    assert (best.improved, best.card.training["best_step"]) == (False, 0)
    assert (last.improved, last.card.training["best_step"]) == (True, 4)
    again = training.train(resume=best.folder, steps=4, overrides={"keep": "last"})
    assert again.card.training["best_step"] == 4
    assert again.card.fingerprint == last.card.fingerprint != best.card.fingerprint
    assert again.card.training["chain"][-1] == "vqcodec train --resume $RUN --set keep=last  # from step 4"


def test_a_model_is_called_as_its_run_folder(photos: Path, tmp_path: Path) -> None:
    run = go([photos], tmp_path / "my holiday (2)", steps=1)
    assert run.card.name == "my-holiday-2"
    encoded = pipeline.encode(np.zeros((8, 8, 3), np.uint8), model=run.best)
    assert pipeline.info(encoded).model == "my-holiday-2"


def test_resume_from_another_folder(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths that were given relative to where the first part ran."""
    monkeypatch.chdir(tmp_path)
    for name, span in (("learn", range(9)), ("held", range(9, 12))):
        Path(name).mkdir()
        for number in span:
            shutil.copy(photos / f"{number:02}.png", name)
    go(["learn"], "parent", steps=2)
    with pytest.raises(KeyboardInterrupt):
        go(
            "learn",
            "child",
            start="parent/best.safetensors",
            overrides={},
            validation="held",
            report=interrupt_at("validation", 2),
        )
    # What it started from is in the checkpoint by now.
    Path("parent/best.safetensors").unlink()
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    run = training.train(resume="../child", validation="../held")
    assert run.card.training["steps"] == 4
    assert run.card.measured["validation"]["files"] == 3
    command = run.card.training["chain"][1]
    assert "$DATA/learn" in command
    assert "--validation $DATA/held" in command


@pytest.mark.parametrize("damage", ["truncated", "empty", "other"])
def test_damaged_checkpoint(photos: Path, tmp_path: Path, damage: str) -> None:
    run = go([photos], tmp_path / "run")
    last = run.folder / "checkpoints/step-000000004.safetensors"
    content = last.read_bytes()
    if damage == "other":
        shutil.copy(run.best, last)
    else:
        last.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"")
    with pytest.raises(TrainingError, match="checkpoint does not fit this run") as caught:
        training.train(resume=run.folder, steps=5)
    assert str(last) in caught.value.message
    assert caught.value.hint == "delete it to use the one before"
    last.unlink()
    training.train(resume=run.folder, steps=4)
    assert (load_file(last).keys(), last.stat().st_size) == (load_file(last).keys(), len(content))


def test_resume_of_what_is_no_run(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not the config.json of a run"):
        training.train(resume=tmp_path / "gone")
    (tmp_path / "config.json").write_text('{"name": "vqvae-image"}')
    with pytest.raises(UsageError, match="not the config.json of a run"):
        training.train(resume=tmp_path)
    run = go([photos], tmp_path / "run", steps=2)
    shutil.rmtree(run.folder / "checkpoints")
    with pytest.raises(UsageError, match="no checkpoint to resume from"):
        training.train(resume=run.folder)


def test_old_checkpoints_go(photos: Path, tmp_path: Path) -> None:
    run = go([photos], tmp_path / "run", steps=5, checkpoint_every=1, keep_checkpoints=2)
    assert saved_steps(run.folder) == [4, 5]
    assert checkpoints.newest(run.folder / "checkpoints").name == "step-000000005.safetensors"
