"""The commands of the README do what it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import soundfile
import vqcodec
from conftest import draw, sing
from typer.testing import CliRunner
from vqcodec.cli.main import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the README supposes; shapes.npy is of 0 and 1."""
    (tmp_path / "photos").mkdir()
    PIL.Image.fromarray(draw(120, 90)).save(tmp_path / "photo.png")
    soundfile.write(tmp_path / "talk.wav", sing(1.5), 16_000)
    for number in range(4):
        PIL.Image.fromarray(draw(96, 64, number)).save(tmp_path / "photos" / f"{number}.png")
    np.save(
        tmp_path / "digits.npy", np.random.default_rng(0).integers(256, size=(60, 28, 28), dtype=np.uint8)
    )
    np.save(tmp_path / "shapes.npy", np.load(tmp_path / "digits.npy") // 200)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands(text: str) -> list[str]:
    """The commands of indented blocks, without comments, each once."""
    lines = re.findall(r"^    (vqcodec .*)$", text, re.M)
    return list(dict.fromkeys(line.split("#")[0].strip() for line in lines))


def test_five_commands() -> None:
    assert len(commands(README.split("## Five commands")[1].split("##")[0])) == 5


def test_commands(folder: Path) -> None:
    for command in commands(README):
        words = shlex.split(command)[1:]
        if words[0] == "train":
            assert words[-2:] == ["--time-budget", "20m"]
            words = [*words[:-2], "--steps", "2", "--batch", "1"]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, (command, result.output)
    audio = ("talk.vqc", "talk.decoded.wav")
    trained = "runs/vae-image-1/best.safetensors"
    for made in ("photo.vqc", "photo.decoded.png", "shapes.decoded.npy", *audio, "samples.png", trained):
        assert (folder / made).is_file()


def test_python_example(folder: Path) -> None:
    example = README.split("```python")[1].split("```")[0]
    scope: dict[str, object] = {}
    exec(example, scope)
    assert isinstance(scope["data"], bytes)
    # `make check` runs a type checker over the same lines.
    assert example.strip() in (ROOT / "tests/typing_cases.py").read_text()


def test_python_guide(folder: Path) -> None:
    """With the workers of the loader in this process: the test is of the recipe."""
    scope: dict[str, object] = {"workers": 0}
    (folder / "packed").mkdir()
    for number in range(4):
        (folder / f"packed/{number}.vqc").write_bytes(vqcodec.encode(draw(80, 70, number)))
    for block in (ROOT / "docs/python.md").read_text().split("```python")[1:]:
        exec(block.split("```")[0], scope)
    (batch,) = scope["batches"]  # type: ignore[misc]
    assert batch.shape == (4, 3, 64, 64) and 0 <= batch.min() < batch.max() <= 1
    assert scope["tokens"].shape == (2, 16, 16) and scope["samples"].shape == (2, 3, 64, 64)  # type: ignore[attr-defined]
    assert scope["speech"].shape[0] == 1  # type: ignore[attr-defined]
    assert [vqcodec.info(data).kind for data in scope["bitstreams"]] == ["image", "audio"]  # type: ignore[attr-defined]
    assert scope["image"].samples.shape == (90, 120, 3)  # type: ignore[attr-defined]
    assert scope["audio"].samples.shape == (24_000, 1)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "document",
    ["README.md", "FORMAT.md", "FORMAT-priors.md", "FORMAT-placeholders.md", "benchmarks/README.md"],
)
def test_links(document: str) -> None:
    text = (ROOT / document).read_text()
    for target, heading in re.findall(r"\]\(([^)#]*)(?:#([^)]+))?\)", text):
        linked = (ROOT / document).parent / target if target else ROOT / document
        assert linked.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.M)
            assert heading in {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}, heading


def test_test_command_is_the_one_of_ci() -> None:
    assert "`make test`" in README
    assert "make test" in (ROOT / ".ci" / "run").read_text()
