"""Weights between the start of a training and its end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import variable_rate_models
from safetensors.torch import load_file
from torch import nn
from vqcodec import training, weights
from vqcodec.errors import UsageError
from vqcodec.training.interpolation import interpolate

SMALL = {"encoder_width": "8", "decoder_width": "8", "decoder_hidden": "8", "codes": "16", "unquantised": "1"}


def test_parameters_lie_between() -> None:
    model, start = nn.Linear(2, 2), nn.Linear(2, 2)
    before = model.weight.detach().clone()
    interpolate(model, start, 0.25)
    assert torch.allclose(model.weight, 0.75 * before + 0.25 * start.weight)
    before = model.bias.detach().clone()
    interpolate(model, None, 0.5)
    assert torch.equal(model.bias, before)


def begun(talks: Path, folder: Path) -> str:
    run = training.train(
        talks, model="vqvae-audio", stage="codec", output=folder, steps=2, batch=2, crop=0.2, overrides=SMALL
    )
    return str(run.best)


def goes_on(talks: Path, folder: Path, start: str, share: str, steps: int = 3) -> training.Run:
    chosen = {"start_weight": share, "keep": "last", "warmup": "0", "frozen": "true"}
    return training.train(
        talks, model="vqvae-audio", stage="codec", start=start, output=folder, steps=steps, batch=2, crop=0.2,
        overrides=chosen, learning_rate=0.05, checkpoint_every=2,
    )  # fmt: skip


def parameters(run: training.Run) -> dict[str, torch.Tensor]:
    return dict(weights.load(str(run.best), "cpu").named_parameters())


def test_a_training_saves_them(talks: Path, tmp_path: Path) -> None:
    """From the same start: 0 keeps what was learned, 1 the start, 0.5 the mean of both."""
    start = begun(talks, tmp_path / "before")
    before = dict(weights.load(start, "cpu").named_parameters())
    none, half, all_of_it = (
        parameters(goes_on(talks, tmp_path / f"share{share}", start, share)) for share in ("0", "0.5", "1")
    )
    moved = 0.0
    for name, parameter in before.items():
        assert torch.allclose(all_of_it[name], parameter, atol=2e-3, rtol=2e-3), name
        assert torch.allclose(half[name], (parameter + none[name]) / 2, atol=2e-3, rtol=2e-3), name
        moved = max(moved, float((none[name] - parameter).abs().max()))
    assert moved > 0.02


def test_a_resumed_training_saves_the_same(talks: Path, tmp_path: Path) -> None:
    """Though the start is gone: checkpoints have it."""
    start = begun(talks, tmp_path / "before")
    whole = goes_on(talks, tmp_path / "whole", start, "0.5", 4)
    goes_on(talks, tmp_path / "parts", start, "0.5", 2)
    Path(start).unlink()
    parts = training.train(resume=tmp_path / "parts", steps=4)
    mine, theirs = (
        load_file(run.folder / "checkpoints" / "step-000000004.safetensors") for run in (parts, whole)
    )
    assert {name for name in mine if name.startswith("start/")}
    assert all(torch.equal(mine[name], theirs[name]) for name in mine if name.startswith("start/"))
    assert parameters(parts).keys() == parameters(whole).keys()
    with pytest.raises(UsageError, match="--resume cannot change start_weight"):
        training.train(resume=tmp_path / "parts", steps=6, overrides={"start_weight": "0.1"})


@pytest.mark.parametrize("name", list(variable_rate_models.MODELS))
def test_before_the_first_step_no_share_matters(
    name: str, photos: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Of models whose networks of the prior, or scales, are not saved as they are trained too."""
    start = variable_rate_models.trained(name, photos, tmp_path_factory).best
    found = []
    for share in ("0", "0.5"):
        chosen = {"batch": 2, "crop": 64, "overrides": {"start_weight": share}}
        training.train(photos, model=name, start=start, output=tmp_path / share, steps=1, **chosen)
        events = [json.loads(line) for line in (tmp_path / share / "metrics.jsonl").read_text().splitlines()]
        found.append(next(event for event in events if event["event"] == "validation"))
    assert [event["step"] for event in found] == [0, 0]
    for figure in ("loss", "psnr_db", "bpp"):
        assert found[0][figure] == pytest.approx(found[1][figure], rel=1e-5), figure


def test_it_needs_weights_to_start_from(talks: Path, tmp_path: Path, sound_prior: training.Run) -> None:
    """A dry run sees it too, and no folder is left."""
    for chosen in ({"model": "vqvae-audio"}, {"stage": "prior", "start": str(sound_prior.best)}):
        with pytest.raises(UsageError, match="start_weight is for a codec that begins from weights"):
            training.train(
                talks, output=tmp_path / "out", overrides={"start_weight": "0.5"}, dry_run=True, **chosen
            )
        assert not (tmp_path / "out").exists()
