"""Training: what a run folder holds, what a card tells, where a run starts from."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from conftest import SMALL
from safetensors.numpy import load_file
from training_runs import (
    go,
    metrics,
    one_thread,
    saved_steps,
)
from vqcodec import pipeline, training, weights
from vqcodec.errors import UsageError
from vqcodec.figures import text_of
from vqcodec.training import datasets, run_report, validation
from vqcodec.training.events import numbers
from vqcodec.training.plan import new_plan

__all__ = ["one_thread"]


def test_the_run_folder(small_run: training.Run, photos: Path) -> None:
    folder = small_run.folder
    assert {path.name for path in folder.iterdir()} >= {
        *("config.json", "metrics.jsonl", "log.txt", "checkpoints", "samples"),
        *("best.safetensors", "best.json", "loss-curve.png", "report.html"),
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


def test_the_page_of_a_run(small_run: training.Run, tmp_path: Path) -> None:
    page = (small_run.folder / "report.html").read_text()
    assert page.count("<img ") == 3 and page.count("best so far") >= 1
    for sheet in (small_run.folder / "samples").iterdir():
        assert base64.b64encode(sheet.read_bytes()).decode() in page
    (end,) = metrics(small_run.folder, "end")
    assert f'<td class="number" data-value="{end["psnr_db"]!r}">' in page
    assert "vqcodec train $DATA/" in page and "config.json" in page and "http://" not in page
    # On the way: a run of a hostile name, with a step that is told twice and figures that are no numbers.
    folder = tmp_path / "<b>run"
    (folder / "samples").mkdir(parents=True)
    (folder / "config.json").write_text('{"data": "<script>"}')
    events = [{"event": "step", "step": 100, "loss": value} for value in (9.0, 0.5)]
    events += [{"event": "validation", "step": 100, "best": True, "psnr_db": math.inf, "points": [1, 2]}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events) + '{"cut')
    run_report.write_report(folder, ["vqcodec train <i>"], "cpu")
    page = (folder / "report.html").read_text()
    assert "Step 100 so far; the best weights are those of step 100." in page
    assert "training: 100, 0.5" in page and "training: 100, 9" not in page
    assert "<b>run" not in page and "<i>" not in page and page.count("<script>") == 1
    # At the end: figures by unit, which `inspect` prints, and by operating point.
    end = {"event": "end", "elbo": -90.5, "kl": [2.25, 0.125], "points": [{"quality": 3, "bpp": 0.6328125}]}
    (folder / "metrics.jsonl").write_text(json.dumps(end) + "\n")
    run_report.write_report(folder, ["vqcodec train"], "cpu")
    page = (folder / "report.html").read_text()
    assert 'data-value="-90.5"' in page and 'data-value="0.6328125"' in page
    assert "validation: 1, 2.25" in page and "validation: 2, 0.125" in page


def test_the_card(small_run: training.Run, photos: Path) -> None:
    card = small_run.card
    assert json.loads(small_run.best.with_suffix(".json").read_text()) == card.to_json()
    assert weights.read_card(small_run.best) == card
    command = card.training["chain"]
    assert command == [
        f"vqcodec train $DATA/{photos.name} -m vqvae-image --stage codec --steps 30 --batch 4 --crop 64 "
        "--checkpoint-every 15 " + " ".join(f"--set {key}={value}" for key, value in SMALL.items())
    ]
    assert card.training["data"] == [{"name": photos.name, "files": 12}]
    assert card.training["best_step"] in (0, 15, 30)
    assert card.training | {"chain": 0, "data": 0, "best_step": 0} == {
        "chain": 0,
        "data": 0,
        "best_step": 0,
        "steps": 30,
        "hours": 0.0,
        "seed": 0,
        "device": "cpu",
        "note": "",
    }
    assert card.method == "VQ-VAE"


def test_the_card_tells_real_rates(small_run: training.Run, photos: Path) -> None:
    """What it measured is what `encode` and `decode` give for the held-out pictures."""
    measured = small_run.card.measured["validation"]
    _, held_out = datasets.split(datasets.entries([photos]), 0.05, 0)
    (entry,) = held_out
    encoded = pipeline.encode_file(PIL.Image.open(entry.path), pipeline.EncodeOptions(model=small_run.best))
    # An array has no source, whose name the file of a PNG carries: a length and three letters.
    assert measured["bpp"] == pytest.approx(8 * (len(encoded.data) - 4) / (96 * 80))
    assert measured["psnr_db"] == pytest.approx(pipeline.verify(encoded))
    assert measured["codes_used"] == len(np.unique(encoded.symbols["codes"]))
    assert measured["files"] == 1
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
    recorded = run.card.training
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
    assert str(tmp_path) not in json.dumps(run.card.to_json()), "no path of this machine"
    assert run.card.measured["validation"]["files"] == 2


def test_from_given_weights(small_run: training.Run, photos: Path, tmp_path: Path) -> None:
    run = go([photos], tmp_path / "run", start=small_run.best, overrides={}, time_budget=0.01, seed=0)
    assert run.card.config == small_run.card.config
    parent, child = small_run.card.training["chain"], run.card.training["chain"]
    assert child[:-1] == parent
    assert " -m vqvae-image --stage codec --from best.safetensors " in child[-1]
    _, held_out = datasets.load_split(datasets.entries([photos]), 0.05, 0)
    _, wanted = validation.Reconstructions(validation.MEDIA["image"]).validate(
        weights.load(small_run.best), held_out.arrays
    )
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


def test_a_run_that_did_not_beat_its_start_says_so(photos: Path, tmp_path: Path, small: str) -> None:
    """Its weights are those of the start."""
    run = go([photos], tmp_path / "worse", start=small, overrides={}, learning_rate=1.0, steps=2)
    assert not run.improved
    (end,) = metrics(run.folder, "end")
    assert end["best_step"] == 0
    better = go([photos], tmp_path / "better", steps=12, checkpoint_every=12)
    assert better.improved and metrics(better.folder, "end")[0]["best_step"] == 12


def test_tensorboard_gets_the_numbers_of_the_metrics(photos: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = go([photos], tmp_path / "run", tensorboard=True)
    board = EventAccumulator(str(run.folder / "tensorboard")).Reload()
    (first, *_) = metrics(run.folder, "step")
    losses = board.Scalars("step/loss")
    assert [(event.step, event.value) for event in losses] == [(1, pytest.approx(first["loss"]))]
    told = metrics(run.folder, "validation")
    assert [event.step for event in board.Scalars("validation/psnr_db")] == [event["step"] for event in told]
    assert (run.folder / "metrics.jsonl").is_file()


def test_tensorboard_that_is_not_installed(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto", None)
    with pytest.raises(UsageError, match="TensorBoard is not installed") as caught:
        go([photos], tmp_path / "run", tensorboard=True)
    assert "vqcodec[tensorboard]" in caught.value.hint and not (tmp_path / "run").exists()


def test_figures_are_text_without_brackets() -> None:
    points = [{"quality": 1, "bpp": 0.12345}, {"quality": 2, "bpp": 0.25}]
    assert text_of(points) == "quality 1 bpp 0.1235; quality 2 bpp 0.25"
    assert text_of([0.38848, 1.7571995]) == "0.3885 1.757"
    assert text_of(["a.png", "b.png"]) == "2: a.png, b.png"
    assert (text_of([]), text_of(True), text_of(3), text_of(1e-7)) == ("0", "true", "3", "1e-07")
    assert numbers({"event": "x", "step": 3, "bpp": [1.0, 2], "best": True, "name": "n"}) == {
        "bpp_0": 1.0,
        "bpp_1": 2.0,
    }


@pytest.mark.parametrize(
    ("options", "rate"),
    [
        ({}, 1e-4),
        ({"learning_rate": 5e-4}, 5e-4),
        ({"overrides": {"learning_rate": "0.002"}}, 2e-3),
        ({"overrides": {"commitment": "0.2"}}, 1e-4),
        ({"model": "vae-image", "start": "vae-image"}, 1e-4),
        ({"model": "vae-image", "start": "vae-image", "overrides": {"components": "8"}}, 1e-3),
        ({"start": None}, 1e-3),
    ],
)
def test_a_run_that_continues_networks_has_a_tenth_of_the_learning_rate(
    photos: Path, small: str, tmp_path: Path, options: dict[str, Any], rate: float
) -> None:
    """Networks of another size, and fresh ones, have all of it."""
    defaults: dict[str, Any] = {"model": "vqvae-image", "start": small, "overrides": {}}
    settings = defaults | options
    plan = new_plan(
        [photos], settings["model"], settings["start"], tmp_path / "run", None,
        {name: value for name, value in settings.items() if name == "learning_rate"},
        settings["overrides"], "",
    )  # fmt: skip
    assert plan.settings.learning_rate == pytest.approx(rate)
