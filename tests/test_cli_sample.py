"""`vqcodec sample`, with real but small models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import soundfile
from cli_fakes import invoke, records
from conftest import draw
from vqcodec import pipeline, training


def pixels(name: str) -> np.ndarray:
    with PIL.Image.open(name) as picture:
        return np.asarray(picture)


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_grid_of_pictures(with_prior: training.Run) -> None:
    model = str(with_prior.best)
    result = invoke(
        *("sample", "-m", model, "--count", "3", "--size", "40x24", "--seed", "7", "-o", "grid.png"),
        *("--temperature", "0.9", "--top-k", "20", "--device", "cpu", "--jobs", "1"),
    )
    assert result.exit_code == 0, result.stderr
    assert pixels("grid.png").shape == (50, 82, 3)
    assert "3 images" in result.stderr
    again = invoke(
        "sample", "--model", model, "--count", "3", "--size", "40x24", "--seed", "7", "--json", "-o", "b.png"
    )
    assert [record["type"] for record in records(again)] == ["sample"]
    other = invoke("sample", "-m", model, "--count", "3", "--size", "40x24", "--seed", "8", "-o", "c.png")
    assert other.exit_code == 0
    assert pixels("grid.png").shape == pixels("b.png").shape
    assert not np.array_equal(pixels("b.png"), pixels("c.png"))
    taken = invoke("sample", "-m", model, "-o", "grid.png")
    assert taken.exit_code == 1 and "grid.png exists" in taken.stderr and "-f" in taken.stderr
    assert invoke("sample", "-m", model, "-o", "grid.png", "--force", "--quiet").exit_code == 0


def test_a_picture_is_completed(with_prior: training.Run) -> None:
    Path("small.vqc").write_bytes(pipeline.encode(draw(64, 48), model=with_prior.best))
    arguments = ("sample", "-m", str(with_prior.best), "--continue", "small.vqc", "--fraction", "0.5")
    result = invoke(*arguments, "--output", "whole.png")
    assert result.exit_code == 0, result.stderr
    assert pixels("whole.png").shape == (48, 64, 3)
    assert "has a size already" in invoke(*arguments, "--size", "8x8").stderr
    assert invoke("sample", "--continue", "absent.vqc").exit_code == 2
    Path("text.vqc").write_text("no bitstream")
    assert "not a vqcodec bitstream" in invoke("sample", "--continue", "text.vqc").stderr


def test_sounds(sound_prior: training.Run) -> None:
    model = str(sound_prior.best)
    result = invoke("sample", "-m", model, "--seconds", "0.25", "--count", "2", "-o", "babble.wav")
    assert result.exit_code == 0, result.stderr
    assert soundfile.info("babble.wav").frames == 2 * 4000 + 8000
    assert invoke("sample", "-m", model, "--seconds", "0.25", "-o", "babble.flac").exit_code == 0
    assert soundfile.info("babble.flac").format == "FLAC"
    wrong = invoke("sample", "-m", model, "--seconds", "0.25", "-o", "babble.png")
    assert wrong.exit_code == 2 and "samples of this model are .wav or .flac" in wrong.stderr
    assert not Path("babble.png").exists()


@pytest.mark.parametrize(
    "options",
    [
        ("--size", "big"),
        ("--size", "0x5"),
        ("--seconds", "3"),
        ("--count", "0"),
        ("--temperature", "0"),
        ("--top-k", "0"),
        ("--seed", "-1"),
        ("--fraction", "2"),
    ],
)
def test_wrong_options(with_prior: training.Run, options: tuple[str, str]) -> None:
    result = invoke("sample", "-m", str(with_prior.best), *options)
    assert result.exit_code == 2 and result.stderr.startswith("vqcodec: "), result.stderr
    assert "hint: " in result.stderr and not list(Path().iterdir())


def test_a_model_without_a_prior(small: str) -> None:
    result = invoke("sample", "-m", small)
    assert result.exit_code == 2 and "has no learned prior" in result.stderr
