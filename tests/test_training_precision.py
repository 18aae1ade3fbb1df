"""Training with products of the networks in bfloat16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.numpy import load_file
from torch import nn
from training_runs import QUICK, go, metrics, one_thread
from vqcodec.errors import UsageError
from vqcodec.training import precision

__all__ = ["one_thread"]


class Pair(nn.Module):
    """Two networks, of which one is named."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)


def test_only_the_named_networks_compute_in_bfloat16() -> None:
    torch.manual_seed(0)
    model, x = Pair(), torch.randn(1, 3, 8, 8)
    exact = model.encoder(x), model.head(x)
    precision.autocast(model, ("encoder.", "basis"), torch.bfloat16)
    loose, same = model.encoder(x), model.head(x)
    assert torch.equal(same, exact[1])
    assert loose.dtype == torch.float32
    assert 1e-4 < (loose - exact[0]).abs().max() < 0.05, "eight bits of each product"
    loose.sum().backward()
    assert model.encoder.weight.dtype == torch.float32
    assert model.encoder.weight.grad is not None
    assert model.encoder.weight.grad.dtype == torch.float32


def test_a_run_in_bfloat16_learns_nearly_the_same(photos: Path, tmp_path: Path) -> None:
    runs: dict[str, Any] = {
        name: go([photos], tmp_path / name, overrides={**QUICK, "precision": name})
        for name in ("float32", "bfloat16")
    }
    losses = {n: [e["psnr_db"] for e in metrics(run.folder, "validation")] for n, run in runs.items()}
    assert losses["float32"][0] == losses["bfloat16"][0], "validation is in float32"
    assert losses["bfloat16"][-1] == pytest.approx(losses["float32"][-1], abs=0.1)
    exact, loose = (load_file(run.best) for run in runs.values())
    assert any(exact[name].tobytes() != loose[name].tobytes() for name in exact)
    assert {n: a.dtype for n, a in exact.items()} == {n: a.dtype for n, a in loose.items()}


def test_an_unknown_precision_is_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="precision"):
        go([photos], tmp_path / "run", overrides={**QUICK, "precision": "float8"})
