from __future__ import annotations

import gc
import hashlib
import json
import math
import os
import shutil
import signal
import tarfile
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from conftest import SMALL
from safetensors import safe_open
from safetensors.numpy import load_file
from vqcodec import pipeline, training, weights
from vqcodec.errors import TrainingError, UsageError
from vqcodec.models import MODELS, RANGES
from vqcodec.models.vqvae import VQVAE
from vqcodec.training import checkpoints, datasets, trainer
from vqcodec.training import validation as finishing
from vqcodec.training.settings import CROPS, SETTINGS_RANGES, Settings

QUICK = {**SMALL, "linear_start": "false", "codebook_start": "random"}
"""No PCA and no k-means before the first step: for tests that do not look at the result."""


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Bit for bit holds for one number of threads; plots take most of the time of such short runs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(finishing, "plot_losses", lambda folder, shown: None)
    yield
    torch.set_num_threads(threads)


def go(data: Any, output: Any, **options: Any) -> training.Run:
    defaults: dict[str, Any] = {"steps": 4, "batch": 2, "crop": 32, "overrides": QUICK, "checkpoint_every": 2}
    defaults["stage"] = "codec"
    return training.train(data, output=output, **({"model": "vqvae-image"} | defaults | options))


def metrics(folder: Path, *kinds: str) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [event for event in events if event["event"] in kinds]


def timeless(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in event.items() if k not in ("seconds", "best")} for event in events]


def interrupt_at(event: str, step: int) -> Any:
    def report(told: dict[str, Any]) -> None:
        if (told["event"], told.get("step")) == (event, step):
            os.kill(os.getpid(), signal.SIGINT)

    return report


def same_tensors(first: Path, second: Path) -> bool:
    a, b = load_file(first), load_file(second)
    assert a.keys() == b.keys()
    return all(a[name].tobytes() == b[name].tobytes() for name in a)


def saved_steps(folder: Path) -> list[int]:
    return sorted(int(path.stem.removeprefix("step-")) for path in (folder / "checkpoints").iterdir())


def clock(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="numpy") as file:
        found: dict[str, Any] = json.loads(file.metadata()["clock"])
    return found


# exact resume


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
    assert len(metrics(parts.folder, "step")) == 4
    assert same_tensors(whole.best, parts.best)
    assert parts.card["fingerprint"] == whole.card["fingerprint"]
    assert parts.card["measured"] == whole.card["measured"]
    assert parts.card["training"]["chain"] == whole.card["training"]["chain"], "nothing was changed"


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
    (at_four, at_eight) = metrics(tmp_path / "parts", "step")
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
    assert longer.card["training"]["steps"] == 6
    chain = longer.card["training"]["chain"]
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
    assert longer.card["config"] == {**run.card["config"], "decay": 0.9, "restart_below": 0.0}
    assert longer.card["training"]["chain"][1] == (
        "vqcodec train --resume $RUN --steps 3 --set decay=0.9 --set restart_below=0  # from step 2"
    )


def test_a_model_is_called_as_its_run_folder(photos: Path, tmp_path: Path) -> None:
    run = go([photos], tmp_path / "my holiday (2)", steps=1)
    assert run.card["name"] == "my-holiday-2"
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
    assert run.card["training"]["steps"] == 4
    assert run.card["measured"]["validation"]["pictures"] == 3
    command = run.card["training"]["chain"][1]
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


# how it ends


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
    options: dict[str, Any] = {
        "steps": 1_000_000,
        "time_budget": 10,
        "learning_rate": 2e-3,
        "overrides": {**QUICK, "warmup": "4"},
    }
    run = go([photos], tmp_path / "run", **options)
    assert run.card["training"]["steps"] == 10
    cosine = [2e-3 * 0.5 * (1 + math.cos(math.pi * n / 10)) for n in range(10)]
    wanted = [rate * min(1, (n + 1) / 4) for n, rate in enumerate(cosine)]
    assert rates(run.folder) == pytest.approx(wanted)
    assert [event["progress"] for event in metrics(run.folder, "step")] == pytest.approx(
        [n / 10 for n in range(1, 11)]
    )
    with pytest.raises(KeyboardInterrupt):
        go([photos], tmp_path / "parts", report=interrupt_at("step", 4), **options)
    parts = training.train(resume=tmp_path / "parts")
    assert parts.card["training"]["steps"] == 10, "the time of the first part counts"
    assert rates(parts.folder) == pytest.approx(wanted)
    assert run.card["training"]["hours"] == round(10 / 3600, 2)


def test_the_schedule_follows_the_steps(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "LOG_EVERY", 1)
    run = go([photos], tmp_path / "run", steps=5, overrides={**QUICK, "warmup": "1"})
    wanted = [1e-3 * 0.5 * (1 + math.cos(math.pi * n / 5)) for n in range(5)]
    assert rates(run.folder) == pytest.approx(wanted)


def test_a_loss_that_is_not_a_number(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest, calls = VQVAE.loss, []

    def loss(self: VQVAE, samples: torch.Tensor) -> dict[str, torch.Tensor]:
        calls.append(1)
        terms = honest(self, samples)
        return {**terms, "loss": terms["loss"] * math.nan} if len(calls) == 5 else terms

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
    assert len(rescued.card["training"]["chain"]) == 2


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
    while threading.active_count() > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == 1


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("16 GiB"), MemoryError()])
def test_out_of_memory(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def loss(self: VQVAE, samples: torch.Tensor) -> dict[str, torch.Tensor]:
        raise error

    monkeypatch.setattr(VQVAE, "loss", loss)
    with pytest.raises(TrainingError, match="out of memory at batches of 2") as caught:
        go([photos], tmp_path / "run")
    assert caught.value.hint == "--batch or --crop"


# what a run leaves


def test_the_run_folder(small_run: training.Run, photos: Path) -> None:
    folder = small_run.folder
    assert {path.name for path in folder.iterdir()} >= {
        *("config.json", "metrics.jsonl", "log.txt", "checkpoints", "samples"),
        *("best.safetensors", "best.json", "loss-curve.png"),
    }
    assert not list(folder.rglob(".*")), "no temporary file"
    config = json.loads((folder / "config.json").read_text())
    assert config["data"] == [str(photos)]
    assert (config["settings"]["steps"], config["settings"]["batch"], config["model"]["codes"]) == (30, 4, 64)
    (start,) = metrics(folder, "start")
    assert (start["files"], start["validation"], start["skipped"]) == (11, 1, [])
    validations = metrics(folder, "validation")
    assert [event["step"] for event in validations] == [0, 15, 30]
    assert all(15 < event["psnr_db"] < 40 and event["codes_used"] > 1 for event in validations)
    assert validations[-1]["psnr_db"] > validations[0]["psnr_db"]
    assert saved_steps(folder) == [15, 30]
    grids = sorted((folder / "samples").iterdir())
    assert [path.name for path in grids] == [f"step-{n:09d}.png" for n in (0, 15, 30)]
    with PIL.Image.open(grids[-1]) as grid:
        assert grid.size == (128, 256)
        pixels = np.asarray(grid).astype(int)
    original, decoded = pixels[:80, :96], pixels[128:208, :96]
    assert any(
        np.array_equal(original, np.asarray(PIL.Image.open(path))) for path in sorted(photos.iterdir())
    )
    assert 0 < np.square(original - decoded).mean() < 2000
    with PIL.Image.open(folder / "loss-curve.png") as plot:
        assert plot.width > 400
    log = (folder / "log.txt").read_text()
    assert "event validation, step 30" in log
    assert len(log.splitlines()) == len(metrics(folder, "start", "step", "validation", "end"))


def test_the_card(small_run: training.Run, photos: Path) -> None:
    card = small_run.card
    assert json.loads(small_run.best.with_suffix(".json").read_text()) == card
    assert weights.read_card(small_run.best) == card
    command = card["training"]["chain"]
    assert command == [
        f"vqcodec train $DATA/{photos.name} -m vqvae-image --stage codec --steps 30 --batch 4 --crop 64 "
        "--checkpoint-every 15 " + " ".join(f"--set {key}={value}" for key, value in SMALL.items())
    ]
    assert card["training"]["data"] == [{"name": photos.name, "files": 12}]
    assert card["training"]["best_step"] in (0, 15, 30)
    assert card["training"] | {"chain": 0, "data": 0, "best_step": 0} == {
        "chain": 0,
        "data": 0,
        "best_step": 0,
        "steps": 30,
        "hours": 0.0,
        "seed": 0,
        "device": "cpu",
        "note": "",
    }
    assert card["method"] == "VQ-VAE"


def test_the_card_tells_real_rates(small_run: training.Run, photos: Path) -> None:
    """What it measured is what `encode` and `decode` give for the held-out pictures."""
    measured = small_run.card["measured"]["validation"]
    _, held_out = datasets.split(datasets.entries([photos]), 0.05, 0)
    (entry,) = held_out
    encoded = pipeline.encode_file(PIL.Image.open(entry.path), pipeline.EncodeOptions(model=small_run.best))
    # An array has no source, whose name the file of a PNG carries: a length and three letters.
    assert measured["bpp"] == pytest.approx(8 * (len(encoded.data) - 4) / (96 * 80))
    assert measured["psnr_db"] == pytest.approx(pipeline.verify(encoded))
    assert measured["codes_used"] == len(np.unique(encoded.codes))
    assert measured["pictures"] == 1
    (end,) = metrics(small_run.folder, "end")
    assert end["bpp"] == measured["bpp"]


def test_averaged_weights_are_what_is_saved(small_run: training.Run) -> None:
    best = [event["step"] for event in metrics(small_run.folder, "validation") if event["best"]][-1]
    saved = load_file(small_run.folder / f"checkpoints/step-{best:09d}.safetensors")
    kept = load_file(small_run.best)
    differences = 0
    for name, array in kept.items():
        if not name.startswith("prior."):
            assert np.array_equal(saved[f"average/{name}"].astype(array.dtype), array), name
            differences += not np.array_equal(saved[f"model/{name}"].astype(array.dtype), array)
    assert differences > 5


def test_tars_are_recorded_with_their_hash(photos: Path, tmp_path: Path) -> None:
    archive, held = tmp_path / "my pictures.tar", tmp_path / "held.tar"
    for path, span in ((archive, range(6)), (held, range(6, 8))):
        with tarfile.open(path, "w") as tar:
            for number in span:
                tar.add(photos / f"{number:02}.png", f"{number}.png")
    run = go([archive], tmp_path / "run", steps=2, seed=5, note="mine, CC0", validation=held)
    recorded = run.card["training"]
    assert recorded["data"] == [
        {
            "name": "my pictures.tar",
            "bytes": archive.stat().st_size,
            "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
        }
    ]
    assert (recorded["seed"], recorded["steps"], recorded["note"]) == (5, 2, "mine, CC0")
    (command,) = recorded["chain"]
    assert command.startswith('vqcodec train "$DATA/my pictures.tar" -m vqvae-image --stage codec --steps 2 ')
    assert " --validation $DATA/held.tar " in command
    assert command.endswith(" --note 'mine, CC0'")
    assert str(tmp_path) not in json.dumps(run.card), "no path of this machine"
    assert run.card["measured"]["validation"]["pictures"] == 2


def test_from_given_weights(small_run: training.Run, photos: Path, tmp_path: Path) -> None:
    run = go([photos], tmp_path / "run", start=small_run.best, overrides={}, time_budget=0.01, seed=0)
    assert run.card["config"] == small_run.card["config"]
    parent, child = small_run.card["training"]["chain"], run.card["training"]["chain"]
    assert child[:-1] == parent
    assert " -m vqvae-image --stage codec --from best.safetensors " in child[-1]
    _, held_out = datasets.load_split(datasets.entries([photos]), 0.05, 0)
    _, wanted = finishing.image.validate(weights.load(small_run.best), held_out.arrays)
    first = metrics(run.folder, "validation")[0]
    assert {name: first[name] for name in wanted} == wanted
    with pytest.raises(UsageError, match="no setting 'codes' that --from leaves open"):
        go([photos], tmp_path / "other", start=small_run.best, overrides={"codes": "32"})
    with pytest.raises(UsageError, match="no model 'gone'"):
        go([photos], tmp_path / "other", start="gone", overrides={})
    assert not (tmp_path / "other").exists()


def test_from_given_weights_goes_on_from_them(small_run: training.Run, photos: Path, tmp_path: Path) -> None:
    """A step so small that nothing moves leaves the weights that were given."""
    run = go([photos], tmp_path / "run", start=small_run.best, overrides={"warmup": "0"}, learning_rate=1e-12)
    before, after = load_file(small_run.best), load_file(run.best)
    moved = [name for name in before if not np.allclose(before[name], after[name], atol=1e-3)]
    assert set(moved) <= {"quantizer.codebook", "prior.tables", "prior.classes"}, "the codebook is an average"
    shift = np.abs(before["quantizer.codebook"] - after["quantizer.codebook"]).max()
    assert shift < 0.5 * np.abs(before["quantizer.codebook"]).max()


def test_settings_of_an_earlier_run(small_run: training.Run, photos: Path, tmp_path: Path) -> None:
    config = small_run.folder / "config.json"
    run = training.train(
        photos,
        stage="codec",
        config=config,
        output=tmp_path / "run",
        steps=1,
        overrides={"codes": "32", "warmup": "7"},
    )
    saved = json.loads((run.folder / "config.json").read_text())
    earlier = json.loads(config.read_text())
    assert saved["model"] == {**earlier["model"], "codes": 32}
    assert saved["settings"] == {**earlier["settings"], "steps": 1, "warmup": 7}
    assert "--config config.json" in saved["chain"][0]


def test_a_first_try_writes_nothing(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    events: list[dict[str, Any]] = []
    run = go([photos], None, dry_run=True, report=events.append)
    assert list(tmp_path.iterdir()) == []
    preparing, event = events
    assert preparing == {"event": "preparing"}
    assert event["event"] == "dry-run"
    assert event["seconds_per_step"] > 0
    assert event["peak_bytes"] > 50e6
    assert math.isfinite(event["loss"])
    assert run.folder == Path("runs/vqvae-image-1")


def test_run_folders_are_numbered_and_never_overwritten(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs/vqvae-image-1").mkdir(parents=True)
    assert go(str(photos), None, steps=1).folder == Path("runs/vqvae-image-2")
    before = Path("runs/vqvae-image-2/best.safetensors").read_bytes()
    with pytest.raises(UsageError, match="runs/vqvae-image-2 exists") as caught:
        go([photos], "runs/vqvae-image-2", steps=1)
    assert "--resume runs/vqvae-image-2" in caught.value.hint
    assert Path("runs/vqvae-image-2/best.safetensors").read_bytes() == before
    Path("file").touch()
    with pytest.raises(UsageError, match="file exists"):
        go([photos], "file", steps=1)
    assert go([photos], "runs/vqvae-image-1", steps=1).best.is_file(), "an empty folder is free"


# what it refuses


def test_broken_files_are_listed(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    shutil.copytree(photos, folder)
    content = (folder / "03.png").read_bytes()
    (folder / "03.png").write_bytes(content[:500])
    (folder / "notes.txt").write_text("notes")
    run = go([folder], tmp_path / "run", steps=1)
    (start,) = metrics(run.folder, "start")
    assert sorted(start["skipped"])[0] == f"{folder}/03.png: truncated PNG"
    assert len(start["skipped"]) == 2
    assert start["files"] + start["validation"] == 11
    assert f"{folder}/03.png: truncated PNG" in (run.folder / "log.txt").read_text()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "0 files are too few to train on"),
        (["00.png"], "1 files are too few to train on"),
        (["notes.txt", "more.txt", "third.txt"], "no readable pictures"),
        (["00.png", "notes.txt"], "no readable pictures"),
    ],
)
def test_too_little_to_train_on(photos: Path, tmp_path: Path, files: list[str], message: str) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in files:
        shutil.copy(photos / "00.png", folder / name) if name == "00.png" else (folder / name).touch()
    with pytest.raises(TrainingError, match=message) as caught:
        go([folder], tmp_path / "run")
    assert caught.value.exit_code == 1
    assert caught.value.hint
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("share", ["0", "1", "1.5", "-0.1", "nan"])
def test_share_held_out(photos: Path, tmp_path: Path, share: str) -> None:
    with pytest.raises(UsageError, match=f"--validation {share}"):
        go([photos], tmp_path / "run", validation=share)


def test_held_out_folder_without_pictures(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "held").mkdir()
    with pytest.raises(TrainingError, match="no readable pictures"):
        go([photos], tmp_path / "run", validation=tmp_path / "held")
    with pytest.raises(UsageError, match="no such folder"):
        go([photos], tmp_path / "run", validation=tmp_path / "gone")


@pytest.mark.parametrize(
    ("overrides", "message", "hint"),
    [
        ({"colour": "red"}, "no setting 'colour'", "see config.json"),
        ({"codes": "many"}, "codes is 'many'", "give a whole number"),
        ({"codes": "64.5"}, "codes is '64.5'", "give a whole number"),
        ({"codes": "1"}, "codes is 1", "give 2 to 65535"),
        ({"decay": "fast"}, "decay is 'fast'", "give a number"),
        ({"decay": "1"}, "decay is 1.0", "give 0 to 1"),
        ({"decay": "nan"}, "decay is nan", "give 0 to 1"),
        ({"linear_start": "maybe"}, "linear_start is 'maybe'", "give true or false"),
        ({"topology": "round"}, "topology is 'round'", "one of shuffle, strided"),
        ({"code_dim": "49"}, "code_dim is 49", "give 1 to 48"),
        ({"encoder_width": "0"}, "encoder_width is 0", "give 1 to 16384"),
        ({"steps": "0"}, "steps is 0", "give 1 to"),
        ({"time_budget": "-5"}, "time_budget is -5.0", "give"),
        ({"crop": "50"}, "crop is 50", "give a multiple of 4"),
        ({"crop": "0"}, "crop is 0", "give 4 to"),
        ({"clip": "0"}, "clip is 0.0", "give"),
        ({"average": "1.0"}, "average is 1.0", "give 0 to 1"),
        ({"seed": "-1"}, "seed is -1", "give 0 to"),
        ({"validation": "gone"}, "gone: no such folder", ""),
    ],
)
def test_settings_are_checked(
    photos: Path, tmp_path: Path, overrides: dict[str, str], message: str, hint: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        go([photos], tmp_path / "run", overrides=overrides)
    assert caught.value.hint.startswith(hint)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_options_are_checked_as_settings_are(photos: Path, tmp_path: Path) -> None:
    for option in ({"crop": 50}, {"batch": 0}, {"learning_rate": 0}, {"seed": 1 << 40}):
        with pytest.raises(UsageError, match=f"{next(iter(option))} is "):
            go([photos], tmp_path / "run", **option)
    with pytest.raises(UsageError, match="crop is 0, |crop is 0"):
        go([photos], tmp_path / "run", crop=0)
    for config, ranges in RANGES.items():
        assert set(ranges) <= set(config.__dataclass_fields__), "each range is that of a setting"
    assert set(SETTINGS_RANGES) <= set(Settings.__dataclass_fields__)
    assert set(CROPS) == {"image", "audio"}


def test_a_model_and_data_must_be_named(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no model named") as caught:
        training.train([photos])
    assert "vqvae-image" in caught.value.hint
    with pytest.raises(UsageError, match="no model 'vae' to train"):
        training.train([photos], model="vae")
    with pytest.raises(UsageError, match="no folder or tar file to train on"):
        training.train(model="vqvae-image")
    with pytest.raises(UsageError, match="not the config.json of a run"):
        training.train([photos], config=photos / "00.png")
    with pytest.raises(UsageError, match="no such folder or tar file"):
        go([tmp_path / "gone"], tmp_path / "run")
    with pytest.raises(UsageError, match="unknown device"):
        go([photos], tmp_path / "run", device="tpu")
    assert not (tmp_path / "run").exists()


def test_two_runs_never_share_a_folder(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is taken before the data are read, so that a run that starts meanwhile takes the next."""
    monkeypatch.chdir(tmp_path)
    inner: list[training.Run] = []
    load = datasets.load_split

    def meanwhile(*arguments: Any) -> Any:
        monkeypatch.setattr(datasets, "load_split", load)
        options = {"model": "vqvae-image", "stage": "codec", "steps": 1, "batch": 1, "crop": 16}
        options["overrides"] = SMALL
        inner.append(training.train([photos], **options))
        with pytest.raises(UsageError, match="vqvae-image-1 exists"):
            training.train([photos], output="runs/vqvae-image-1", **options)
        return load(*arguments)

    monkeypatch.setattr(datasets, "load_split", meanwhile)
    outer = training.train(
        [photos], model="vqvae-image", stage="codec", steps=1, batch=1, crop=16, overrides=SMALL
    )
    assert {outer.folder.name, inner[0].folder.name} == {"vqvae-image-1", "vqvae-image-2"}


def test_a_run_that_never_began_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "data" / name).write_bytes(b"no picture")
    with pytest.raises(TrainingError, match=r"no readable pictures: .*not an image"):
        training.train([tmp_path / "data"], model="vqvae-image", output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", [name for name in MODELS if "image" in name])
def test_every_named_setting_can_be_trained(name: str, photos: Path, tmp_path: Path) -> None:
    run = go([photos], tmp_path / "run", model=name, steps=1, batch=1, crop=16, overrides={})
    image = pipeline.decode(pipeline.encode(photos / "00.png", model=run.best), model=run.best)
    assert (image.width, image.height) == (96, 80)
