"""Weights between the start of a training and its end."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from vqcodec import training, weights
from vqcodec.errors import UsageError
from vqcodec.training.interpolation import interpolate

SMALL = {"encoder_width": "8", "decoder_width": "8", "decoder_hidden": "8", "codes": "16", "unquantised": "1"}


def test_parameters_lie_between_those_of_the_same_name_and_size() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    start = {"0.weight": torch.ones(2, 2), "0.bias": torch.zeros(5), "other": torch.ones(1)}
    interpolate(model, start, 0.25)
    after = dict(model.named_parameters())
    assert torch.allclose(after["0.weight"], 0.75 * before["0.weight"] + 0.25)
    assert all(torch.equal(after[name], before[name]) for name in ("0.bias", "1.weight", "1.bias"))
    interpolate(model, {}, 0.0)
    with pytest.raises(UsageError, match="start_weight without weights to start from"):
        interpolate(model, {"other": torch.ones(1)}, 0.5)


def test_a_training_saves_them(talks: Path, tmp_path: Path) -> None:
    """From the same start: 0 keeps what was learned, 1 the start, 0.5 the mean of both."""

    def trained(name: str, share: str, start: str | None) -> dict[str, torch.Tensor]:
        chosen = {**({} if start else SMALL), "start_weight": share, "keep": "last", "warmup": "0"}
        run = training.train(
            talks, model="vqvae-audio", stage="codec", output=tmp_path / name, steps=3, batch=2, crop=0.2,
            start=start, overrides=chosen, learning_rate=0.05,
        )  # fmt: skip
        return dict(weights.load(str(run.best), "cpu").named_parameters())

    before = trained("before", "0", None)
    start = str(tmp_path / "before" / "best.safetensors")
    none, half, all_of_it = (trained(f"share{share}", share, start) for share in ("0", "0.5", "1"))
    moved = 0.0
    for name, parameter in before.items():
        assert torch.allclose(all_of_it[name], parameter, atol=2e-3, rtol=2e-3), name
        assert torch.allclose(half[name], (parameter + none[name]) / 2, atol=2e-3, rtol=2e-3), name
        moved = max(moved, float((none[name] - parameter).abs().max()))
    assert moved > 0.02
    with pytest.raises(UsageError, match="start_weight"):
        trained("nothing", "0.5", None)
