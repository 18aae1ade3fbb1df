"""`vqcodec train` with real, small models on small images."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_fakes import done, invoke, records
from conftest import SMALL, photo
from vqcodec import media, weights


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def settings_of(overrides: dict[str, str]) -> list[str]:
    return [word for key, value in overrides.items() for word in ("--set", f"{key}={value}")]


def test_train_then_encode_then_resume(photos: Path) -> None:
    result = done(
        *("train", photos, "-m", "vqvae-image", "-o", "runs/mine", "--steps", 6, "--batch", 2),
        *("--stage", "codec"),
        *("--crop", 32, "--checkpoint-every", 3, "--lr", "1e-3", "--seed", 1, "--note", "tests"),
        *("--device", "cpu", "--jobs", 1, *settings_of(SMALL)),
    )
    best = "runs/mine/best.safetensors"
    assert f"use it: vqcodec encode -m {best} FILES" in result.stderr
    assert "validation at step 6" in result.stderr
    card = weights.read_json(best)
    assert card["training"]["steps"] == 6
    photo("photo.png")
    done("encode", "photo.png", "-m", best, "--verify")
    done("decode", "photo.vqc", "-m", best)
    assert media.read_image("photo.decoded.png").width == 40
    again = invoke("train", photos, "-m", "vqvae-image", "-o", "runs/mine", "--steps", 6)
    assert (again.exit_code, "runs/mine exists" in again.stderr) == (2, True)
    found = records(done("train", "--resume", "runs/mine", "--steps", 8, "--json"))
    assert found[-1] == {"type": "done", "folder": "runs/mine", "best": best, "improved": True}
    validated = [r["step"] for r in found if r["type"] == "event" and r["event"] == "validation"]
    assert validated == [8]
    resumed = weights.read_json(best)
    assert resumed["training"]["steps"] == 8
    assert len(resumed["training"]["chain"]) == 2
    refused = invoke("train", "--resume", "runs/mine", "--batch", 4)
    assert (refused.exit_code, "--resume cannot change batch" in refused.stderr) == (2, True)


def test_what_train_refuses(photos: Path) -> None:
    Path("empty").mkdir()
    result = invoke("train", "empty", "-m", "vqvae-image")
    assert (result.exit_code, "too few to train on" in result.stderr) == (1, True)
    for options, message in (
        (["--crop", "50"], "crop is 50"),
        (["--set", "codes=many"], "codes is 'many'"),
        (["--set", "colour=red"], "no setting 'colour'"),
        (["--from", "gone"], "no model 'gone'"),
        (["--validation", "2"], "--validation 2"),
        (["--lr", "0"], "learning_rate is 0"),
    ):
        result = invoke("train", photos, "-m", "vqvae-image", *options)
        assert (result.exit_code, message in result.stderr) == (2, True), result.stderr
    assert [path.name for path in Path().iterdir()] == ["empty"], "nothing was begun"


def test_train_dry_run(photos: Path) -> None:
    result = done(
        "train", photos, "-m", "vqvae-image", "--dry-run", "--batch", 2, "--crop", 32, *settings_of(SMALL)
    )
    assert "seconds per step" in result.stderr and "peak bytes" in result.stderr
    assert list(Path().iterdir()) == []
