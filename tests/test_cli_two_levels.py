"""`sample` by level, and `decode` of damaged files, on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import vqcodec
from cli_fakes import invoke
from conftest import draw
from two_level_models import run, small_priors
from vqcodec import training

__all__ = ["run", "small_priors"]


def test_a_new_bottom_under_the_top_of_a_file(
    run: training.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.vqc").write_bytes(vqcodec.encode(draw(40, 24, 1), model=run.best))
    model = ("sample", "-m", str(run.best))
    arguments = ("--resample", "bottom", "--from", "a.vqc", "--temperature", "bottom=0.9", "--top-k", "8")
    result = invoke(*model, *arguments, "-o", "b.png")
    assert result.exit_code == 0 and Path("b.png").is_file(), result.stderr
    for wrong in (("--resample", "bottom"), ("--temperature", "top=hot"), ("--top-k", "top=1.5")):
        assert invoke(*model, *wrong).exit_code == 2
    both = (*arguments, "--continue", "a.vqc")
    assert invoke(*model, *both).exit_code == 2


def test_a_damaged_bottom_is_named(
    run: training.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = bytearray(vqcodec.encode(draw(200, 152, 1), model=run.best))
    data[-1] ^= 1
    Path("a.vqc").write_bytes(data)
    model = ("-m", str(run.best))
    assert invoke("decode", "a.vqc", *model).exit_code == 1
    result = invoke("decode", "a.vqc", "--salvage", *model, "-o", "a.png")
    assert Path("a.png").is_file() and "chunk 1 is decoded to its top alone" in result.stderr
