"""The multi-period discriminator of audio: how it lays samples out, what it learns, where its weights go."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_training_sounds import TINY, go, whole_and_resumed
from training_runs import one_thread
from vqcodec import training
from vqcodec.errors import UsageError
from vqcodec.models import build
from vqcodec.models.vqvae import ResidualAudioVQVAE, audio, residual
from vqcodec.models.vqvae.discriminator import (
    PERIODS,
    WINDOWS,
    AudioDiscriminator,
    PeriodDiscriminator,
    ScaleDiscriminator,
)

__all__ = ["one_thread"]

SMALL = {name: int(value) for name, value in TINY.items()}


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.05


@pytest.mark.parametrize("period", PERIODS)
def test_columns_are_samples_one_period_apart(period: int) -> None:
    """The last row is filled by the samples before it, mirrored."""
    network = PeriodDiscriminator(period)
    count = 40 * period - 1
    counted = torch.arange(count, dtype=torch.float32)[None, None]
    rows = network.rows(counted)
    assert rows.shape == (1, 1, 40, period)
    assert torch.all(rows[0, 0, :-1].diff(dim=0) == period) and torch.all(rows[0, 0, :-1].diff(dim=1) == 1)
    assert rows[0, 0, -1, -1] == counted[0, 0, -2], "mirrored around the last sample"
    repeated = noise(1, 1, period).repeat(1, 1, 40)
    assert torch.equal(network.rows(repeated)[0, 0], repeated[0, 0, :period].expand(40, period))
    other = PeriodDiscriminator(period + 1).rows(repeated)[0, 0, :-1]
    assert float(other.diff(dim=0).abs().max()) > 0.01, "no period of its own"


@pytest.mark.parametrize(("period", "length"), [(2, 2560), (3, 2560), (7, 2555), (11, 2561)])
def test_shapes_at_lengths_that_are_no_multiples(period: int, length: int) -> None:
    scores, maps = PeriodDiscriminator(period)(noise(2, 1, length))
    height = math.ceil(length / period)
    for found, channels in zip(maps, (16, 32, 64, 128), strict=True):
        height = math.ceil(height / 3)
        assert found.shape == (2, channels, height, period)
    assert scores.shape == (2, 1, height, period)


@pytest.mark.parametrize("period", [3, 7])
def test_a_score_depends_on_samples_of_its_column(period: int) -> None:
    """Of those of the column before too, by pre-emphasis, but on no others; in the reach of its kernels."""
    samples = noise(1, 1, 400 * period).requires_grad_()
    scores = PeriodDiscriminator(period)(samples)[0]
    scores[0, 0, 2, 1].backward()
    assert samples.grad is not None
    heard = samples.grad[0, 0].nonzero()[:, 0]
    assert {int(n) % period for n in heard} == {0, 1}
    rows = heard // period
    # To each side: one row of scores, which is 81 rows of samples, and 2 (1 + 3 + 9 + 27) rows by the layers.
    assert int(rows.min()) == 1 and int(rows.max()) == 3 * 81 + 80


def test_a_shift_by_a_period_moves_rows_and_another_shift_columns() -> None:
    """The same weights judge all columns: what comes one sample later is judged one column later."""
    network = PeriodDiscriminator(5)
    samples = noise(1, 1, 5 * 243)
    later = torch.cat([torch.zeros(1, 1, 1), samples[:, :, :-1]], 2)
    plain, moved = network(samples)[0], network(later)[0]
    assert torch.allclose(plain[..., :4], moved[..., 1:], atol=1e-6)
    assert not torch.allclose(plain, moved, atol=1e-6)


def test_networks_are_those_of_the_setting() -> None:
    def kinds(critics: Any) -> list[tuple[type, int]]:
        return [(type(n), getattr(n, "window", 0) or n.period) for n in AudioDiscriminator(critics).scales]

    scales, periods = [(ScaleDiscriminator, w) for w in WINDOWS], [(PeriodDiscriminator, p) for p in PERIODS]
    assert kinds("stft") == scales and kinds("period") == periods and kinds("both") == scales + periods
    assert audio.Config().critics == residual.Config().critics == "stft" and audio.Config().adversarial == 0


def test_it_learns_to_tell_and_the_decoder_hears_of_it() -> None:
    """Sine waves and noise of the same loudness."""
    torch.manual_seed(0)
    network = AudioDiscriminator("period")
    pitch = torch.tensor([[[110.0]], [[190.0]], [[310.0]], [[470.0]]])
    real = 0.07 * torch.sin(2 * math.pi * pitch * torch.arange(2560) / 16_000)
    unreal = noise(4, 1, 2560)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    assert 1.9 < float(network.loss(unreal, real).loss.detach()) < 2.1, "as good as chance"
    for _ in range(20):
        optimiser.zero_grad()
        network.loss(unreal, real).loss.backward()
        optimiser.step()
    assert float(network.loss(unreal, real).loss.detach()) < 0.5
    assert float(network.loss(noise(4, 1, 2560, seed=1), real).loss.detach()) < 0.5, "other noise too"
    unreal.requires_grad_()
    terms = network.judge(unreal, real)
    assert float(terms["adversarial"].detach()) > 1 and float(terms["matching"].detach()) > 0.5
    same = network.judge(real, real)
    assert float(same["matching"].detach()) == 0 and float(same["adversarial"].detach()) < 0.5
    terms["adversarial"].backward()
    assert unreal.grad is not None and float(unreal.grad.abs().sum()) > 0


def test_critics_learn_ahead() -> None:
    """Of a training that starts from weights; nothing else moves."""
    settings = audio.Config(**SMALL, adversarial=1.0, critics="period", frozen=True)
    heard = []
    for ahead in (0, 12):
        torch.manual_seed(0)
        model = build(replace(settings, ahead=ahead))
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        model.complete(lambda number: noise(4, 1, 2560, seed=number), torch.Generator())
        changed = {n for n, tensor in model.state_dict().items() if not torch.equal(tensor, before[n])}
        assert bool(changed) == bool(ahead) and all(name.startswith("discriminator.") for name in changed)
        assert all(p.grad is None for n, p in model.named_parameters() if not n.startswith("discriminator."))
        kept = model.loss(noise(4, 1, 2560, seed=99)).kept
        heard.append(float(model.discriminator.loss(kept["reconstruction"], kept["samples"]).loss.detach()))
    assert heard[1] < heard[0] - 0.2


def test_larger_rates_alone_are_judged() -> None:
    """Examples of a batch have rising numbers of levels: of 8, the last 4 have 3 and 4."""
    torch.manual_seed(0)
    samples = noise(8, 1, 2560)
    config = residual.Config(**SMALL, adversarial=1.0, critics="period")
    for levels, first in ((1, 0), (3, 4), (4, 6)):
        model = build(replace(config, judged_levels=levels))
        assert isinstance(model, ResidualAudioVQVAE)
        step = model.loss(samples)
        assert torch.equal(step.kept["samples"], samples[first:])
        assert step.kept["reconstruction"].shape == (8 - first, 1, 2560)
        judged = model.discriminator.judge(step.kept["reconstruction"], samples[first:])
        assert torch.allclose(judged["matching"], step.terms["matching"])
    alone = build(replace(config, judged_levels=4)).loss(samples[:1])
    assert len(alone.kept["samples"]) == 1, "never none"


def test_resume_is_exact_and_its_weights_are_of_the_training_alone(talks: Path, tmp_path: Path) -> None:
    codec = go([talks], tmp_path / "codec")
    options: dict[str, Any] = {"steps": 4, "start": codec.best}
    options["overrides"] = {"frozen": "true", "adversarial": "1", "critics": "both", "ahead": "2"}
    whole, last = whole_and_resumed(talks, tmp_path, **options)
    critics = [name for name in load_file(last) if name.startswith("model/discriminator.")]
    assert {name.split(".")[2] for name in critics} == {str(n) for n in range(len(WINDOWS) + len(PERIODS))}
    assert not any("discriminator" in name for name in load_file(whole.best))
    assert whole.card.parameters == codec.card.parameters
    with pytest.raises(UsageError, match="cannot change critics"):
        training.train(resume=whole.folder, steps=5, overrides={"critics": "period"})
    steps = [json.loads(line) for line in (whole.folder / "metrics.jsonl").read_text().splitlines()]
    assert any(0 < event.get("discriminator", 0) < 3 and event.get("matching", 0) > 0 for event in steps)
