"""Training: what is refused, and when."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import SMALL
from training_runs import (
    go,
    metrics,
    one_thread,
)
from vqcodec import pipeline, training, weights
from vqcodec.errors import TrainingError, UsageError
from vqcodec.models import MODELS
from vqcodec.priors import PRIORS
from vqcodec.training import datasets
from vqcodec.training.settings import CROPS, TrainConfig

__all__ = ["one_thread"]


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
        (["notes.txt", "more.txt", "third.txt"], "no readable images"),
        (["00.png", "notes.txt"], "no readable images"),
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
    with pytest.raises(TrainingError, match="no readable images"):
        go([photos], tmp_path / "run", validation=tmp_path / "held")
    with pytest.raises(UsageError, match="no such folder"):
        go([photos], tmp_path / "run", validation=tmp_path / "gone")


@pytest.mark.parametrize(
    ("overrides", "message", "hint"),
    [
        ({"colour": "red"}, "no setting 'colour' of vqvae-image", "give one of average, "),
        (
            {"integer_synthesis": "true"},
            "no setting 'integer_synthesis' of vqvae-image",
            "give one of average, ",
        ),
        ({"decoder_widht": "8"}, "no setting 'decoder_widht' of vqvae-image", "is it decoder_width?"),
        ({"codes": "many"}, "codes is 'many'", "give a whole number"),
        ({"codes": "64.5"}, "codes is '64.5'", "give a whole number"),
        ({"codes": "1"}, "codes is 1", "give 2 to 65535"),
        ({"decay": "fast"}, "decay is 'fast'", "give a number"),
        ({"decay": "1"}, "decay is 1.0", "give 0 to 1"),
        ({"decay": "nan"}, "decay is nan", "give 0 to 1"),
        ({"linear_start": "maybe"}, "linear_start is 'maybe'", "give true or false"),
        ({"topology": "round"}, "topology is 'round'", "give one of shuffle, strided"),
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


def test_networks_may_grow_alone(talks: Path, small_sound: str, tmp_path: Path) -> None:
    key = "decoder_width"
    before = int(weights.read_card(small_sound).config[key])
    options: dict[str, Any] = {
        "model": "vqvae-audio",
        "start": small_sound,
        "stage": "codec",
        "dry_run": True,
    }
    with pytest.raises(UsageError, match=f"{key} is {before - 1}, --from has {before}") as caught:
        training.train([talks], output=tmp_path / "a", overrides={key: str(before - 1)}, **options)
    assert caught.value.hint == "give as much or more"
    for number in (before, before + 1):
        training.train(
            [talks], output=tmp_path / "b", overrides={key: str(number)}, batch=1, crop=0.2, **options
        )


def test_options_are_checked_as_settings_are(photos: Path, tmp_path: Path) -> None:
    for option in ({"crop": 50}, {"batch": 0}, {"learning_rate": 0}, {"seed": 1 << 40}):
        with pytest.raises(UsageError, match=f"{next(iter(option))} is "):
            go([photos], tmp_path / "run", **option)
    with pytest.raises(UsageError, match="crop is 0, |crop is 0"):
        go([photos], tmp_path / "run", crop=0)
    for config in (TrainConfig(), *(e.config for e in (*MODELS.values(), *PRIORS.values()))):
        config.check()
        numbers = {name for name, value in config.to_json().items() if type(value) in (int, float)}
        limited = {name for name, limits in config.limits().items() if limits.high is not None}
        assert numbers - {"crop"} <= limited, "each number has its range"
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

    def meanwhile(*arguments: Any, **named: Any) -> Any:
        monkeypatch.setattr(datasets, "load_split", load)
        options = {"model": "vqvae-image", "stage": "codec", "steps": 1, "batch": 1, "crop": 16}
        options["overrides"] = SMALL
        inner.append(training.train([photos], **options))
        with pytest.raises(UsageError, match="vqvae-image-1 exists"):
            training.train([photos], output="runs/vqvae-image-1", **options)
        return load(*arguments, **named)

    monkeypatch.setattr(datasets, "load_split", meanwhile)
    outer = training.train(
        [photos], model="vqvae-image", stage="codec", steps=1, batch=1, crop=16, overrides=SMALL
    )
    assert {outer.folder.name, inner[0].folder.name} == {"vqvae-image-1", "vqvae-image-2"}


def test_a_run_that_never_began_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "data" / name).write_bytes(b"no picture")
    with pytest.raises(TrainingError, match=r"no readable images: .*not an image"):
        training.train([tmp_path / "data"], model="vqvae-image", output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", [name for name in MODELS if "image" in name])
def test_every_named_setting_can_be_trained(name: str, photos: Path, tmp_path: Path) -> None:
    run = go([photos], tmp_path / "run", model=name, steps=1, batch=1, crop=16, overrides={})
    image = pipeline.decode(pipeline.encode(photos / "00.png", model=run.best), model=run.best)
    assert (image.width, image.height) == (96, 80)
