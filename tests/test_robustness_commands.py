"""The commands that attack the program, each for a few seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(script: str, *arguments: object) -> str:
    command = [sys.executable, BENCHMARKS / script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_lies_and_damage_end_in_documented_errors(tmp_path: Path) -> None:
    told = run("fuzz.py", "--minutes", 0.03, "--share", 0.2, "--save", tmp_path / "failures")
    assert "failed: 0\n" in told
    assert not (tmp_path / "failures").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_nothing_half_written_is_left_at_random_moments() -> None:
    told = run("kill.py", "--moments", 9, "--commands", "encode", "replace", "decode")
    assert [line.split("|")[2:6] for line in told.splitlines()[2:]] == 3 * [[" 3 ", " 3 ", " 4 ", " 4 "]]
