"""The tables of `benchmarks/rates.py`, of figures that are known."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

BPP = np.array([[0.25, 0.5, 1.0], [0.25, 0.5, 1.0], [0.3, 0.5, 1.0]])
PSNR = np.array([[30.0, 32.0, 34.0], [30.0, 36.0, np.inf], [31.0, 37.0, 44.0]])


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("rates")


def test_an_exact_image_is_counted_and_left_out_of_the_mean(rates: Any) -> None:
    """39 = (34 + 44) / 2; the infinite PSNR of one image made the whole mean infinite."""
    found = {
        rate: rates.cell(rates.at_rate(BPP, PSNR, rate, mean_first=False), 1) for rate in (0.25, 0.5, 1, 2)
    }
    assert found == {0.25: "30.0 (1 out of range)", 0.5: "35.0", 1: "39.0 (1 exact)", 2: ""}
    together = {rate: rates.cell(rates.at_rate(BPP, PSNR, rate, mean_first=True), 1) for rate in (0.5, 1, 2)}
    assert together == {0.5: "35.0", 1: "39.0 (1 exact)", 2: ""}
    assert rates.cell(np.array([np.inf, np.inf]), 2) == "- (2 exact)"


def test_the_table_of_qualities(rates: Any, capsys: pytest.CaptureFixture[str]) -> None:
    curve = np.stack([BPP, PSNR, PSNR / 100, PSNR], 2)
    rates.points(curve, "model", (1, 3, 5))
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "| 5 | 1.0000 | 39.00 (1 exact) | 0.3900 (1 exact) | 39.0 (1 exact) |"
