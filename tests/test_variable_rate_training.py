"""Training of variable-rate models."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import draw
from safetensors import safe_open
from test_gaussian import mixture
from variable_rate_models import model, run, train
from vqcodec import training, weights
from vqcodec.bitstream.container import LEARNED
from vqcodec.coding import driver
from vqcodec.errors import UsageError
from vqcodec.models import build, vae
from vqcodec.models.discriminators import PatchDiscriminator

__all__ = ["model", "run"]


def test_training_ends_with_measured_points(run: training.Run) -> None:
    points = run.card.points
    assert [point["quality"] for point in points] == [1, 2, 3, 4, 5]
    rates = [point["bpp"] for point in points]
    assert rates == sorted(rates) and rates[0] < rates[-1] / (4 if run.card.method == "pPCA" else 3)
    assert run.card.measured["validation"]["payload_over_ideal"] < 1.02
    assert run.card.learned is None, "its prior is trained with it"


def test_training_is_resumed_exactly(photos: Path, tmp_path: Path) -> None:
    """Weights, optimiser, quality indexes and noise: the same 12 steps, once with an interruption."""
    whole = train("vae-image", photos, tmp_path / "whole")
    cut = tmp_path / "cut"
    shutil.copytree(whole.folder, cut)
    last = cut / "checkpoints" / "step-000000012.safetensors"
    last.unlink()
    training.train(resume=cut)
    with safe_open(last, "pt") as ours, safe_open(whole.folder / "checkpoints" / last.name, "pt") as theirs:
        assert set(ours.keys()) == set(theirs.keys())
        assert all(torch.equal(ours.get_tensor(name), theirs.get_tensor(name)) for name in ours.keys())  # noqa: SIM118


def test_training_goes_on_from_weights(photos: Path, tmp_path: Path, model: str, run: training.Run) -> None:
    name = {"pPCA": "ppca-image", "VAE": "vae-image"}[run.card.method]
    before = weights.load(model, "cpu")
    after = training.train(
        photos, model=name, start=model, output=tmp_path / "on", steps=1, batch=2, crop=64, learning_rate=1e-9
    )
    codec = weights.load(after.best, "cpu")
    for layer, arrays in before.prior.layers.items():
        difference = codec.prior.layers[layer].weight.astype(int) - arrays.weight
        assert np.abs(difference).max() <= 1, layer
    with torch.inference_mode():
        index = torch.tensor([100.0])
        samples = torch.randn(1, 3, 32, 32).clamp(-1, 1)
        a, b = (c.analysis(samples * 127.5, index) for c in (before, codec))
    assert torch.allclose(a, b, atol=0.5)
    assert len(after.card.training["chain"]) == 2


@pytest.mark.parametrize("components", [20, 10])
def test_fewer_channels_begin_as_the_first_of_more(
    photos: Path, tmp_path: Path, model: str, run: training.Run, components: int
) -> None:
    """Whether the last slice is cut or gone, the channels kept are coded as they were, to a rounding."""
    name = {"pPCA": "ppca-image", "VAE": "vae-image"}[run.card.method]
    shared = {"output": tmp_path / "on", "steps": 1, "batch": 2, "crop": 64, "learning_rate": 1e-9}
    many = {"components": "25"}
    with pytest.raises(UsageError, match="components is 25, --from has 24"):
        training.train(photos, model=name, start=model, overrides=many, **shared)
    few = {"components": str(components)}
    after = training.train(photos, model=name, start=model, overrides=few, **shared)
    assert after.card.config == run.card.config | {"components": components}
    before, codec = weights.load(model, "cpu"), weights.load(after.best, "cpu")
    samples, index = torch.from_numpy(draw(64, 64)).permute(2, 0, 1)[None] / 127.5 - 1, torch.tensor([100.0])
    with torch.inference_mode():
        targets = [c.latents(samples, index)[0].permute(1, 2, 0).numpy() for c in (before, codec)]
    kept = np.ascontiguousarray(targets[0][..., :components])
    assert np.allclose(targets[1], kept, atol=0.05)
    ours, all_of_them = (
        driver.encode(c.prior, [{"y": t}], 100)[0] for c, t in ((codec, kept), (before, targets[0]))
    )
    difference = np.abs(ours.symbols["y"] - all_of_them.symbols["y"][..., :components])
    assert difference.max() <= 17 and (difference > 1).mean() < 0.01
    assert ours.bits < all_of_them.bits


def test_models_begin_as_their_kind(photos: Path, tmp_path: Path, model: str, small: str) -> None:
    name = {"pPCA": "vae-image", "VAE": "ppca-image"}[weights.load(model, "cpu").method]
    for start in (model, small):
        with pytest.raises(UsageError, match=f"{name} cannot begin as"):
            training.train(photos, model=name, start=start, output=tmp_path / "on", steps=1)


def test_the_rate_is_taken_of_noisy_latents_and_the_distortion_of_rounded_ones(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = weights.load(model, "cpu")
    samples = torch.from_numpy(draw(64, 64, 3)).permute(2, 0, 1)[None] / 127.5 - 1
    index = torch.tensor([200.0])
    latents = codec.latents(samples, index)
    torch.manual_seed(1)
    (rounded, bits), (again, same) = (codec.quantise(latents, index, noisy=False) for _ in range(2))
    assert torch.equal(rounded, again) and torch.equal(bits, same)
    draws = [codec.quantise(latents, index, noisy=True) for _ in range(3)]
    assert all(torch.equal(decoded, rounded) for decoded, _ in draws)
    assert len({float(spent) for _, spent in draws}) == 3

    drawn: list[torch.Tensor] = []
    rand_like = torch.rand_like

    def noise(like: torch.Tensor) -> torch.Tensor:
        drawn.append(rand_like(like))
        return drawn[-1]

    monkeypatch.setattr(torch, "rand_like", noise)
    codec.round_trip(samples, 200)
    assert not drawn
    first, second = codec.loss(samples), codec.loss(samples)
    assert drawn, "training draws from the posterior"
    assert sum(part.numel() for part in drawn) == 2 * latents.numel()
    assert float(first.loss) != float(second.loss)


def test_a_second_decoder_learns_from_a_discriminator_alone() -> None:
    """`synthesis_only` and `adversarial`: other decoders of the same latents, whose files stay the same."""
    torch.manual_seed(0)
    context = {"context_width": 8, "context_hidden": 8, "context_blocks": 0, "context_near": 8}
    plain = vae.Config(components=12, fine=8, fine_hidden=4, coarse=8, coarse_hidden=4, **context)
    sharp = replace(plain, adversarial=0.3, matching=0.5, synthesis_only=True)
    first, second = build(plain), build(sharp)
    second.load_from(first.export(), 1.0)
    samples = 0.3 * torch.randn(2, 3, 192, 192)
    step = second.loss(samples)
    step.loss.backward()
    assert {"adversarial", "matching"} < set(step.terms)
    assert second.discriminator.loss(step.kept["reconstruction"], step.kept["samples"]).loss > 0
    learned = {n for n, p in second.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert learned and all(name.startswith(("backward_", "decoder.", "discriminator.")) for name in learned)
    with torch.no_grad():
        second.backward_basis.add_(0.01)
    assert second.export().decodes(first.export()) and first.export().decodes(second.export())
    other = build(replace(plain, end_step=10))
    other.load_from(first.export(), 1.0)
    assert not other.export().decodes(first.export()), "other probabilities"


def small(**settings: Any) -> vae.Config:
    context = {"context_width": 8, "context_hidden": 8, "context_blocks": 0, "context_near": 8}
    return vae.Config(components=24, fine=8, fine_hidden=4, coarse=8, coarse_hidden=4, **context, **settings)


def trained(config: vae.Config) -> vae.VAE:
    """A model whose weights are random, the last layers' too."""
    torch.manual_seed(0)
    found = build(config)
    found.set_moments(torch.zeros(3), torch.full((config.components,), 100.0))
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return found


def test_a_frozen_synthesis_stays_in_integers() -> None:
    """`frozen_synthesis`: the rest learns for the pixels that are decoded."""
    first = trained(small(integer_synthesis=True)).export()
    second = build(small(integer_synthesis=True, frozen_synthesis=True))
    second.load_from(first, 1.0)

    def never(number: int) -> torch.Tensor:
        raise AssertionError(number)

    second.complete(never, torch.Generator())
    step = second.loss(0.3 * torch.randn(2, 3, 64, 64))
    step.loss.backward()
    learned = {n for n, p in second.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert {"forward_basis", "encoder.0.weight", "layers.0_head0.weight"} < learned
    assert not any(name.startswith(vae.SYNTHESIS) for name in learned)
    with torch.no_grad():
        for parameter in second.parameters():
            if parameter.grad is not None:
                parameter.sub_(0.01 * parameter.grad.sign())
    second.prepare_export(never)
    after = second.export()
    indexes = torch.randint(-40, 40, (1, 3, 5, 24), dtype=torch.int16)
    gains = first.prior.log2_gains(90)
    assert torch.equal(*(m.integers.pixels(indexes, gains, 90) for m in (first, after)))
    assert not np.array_equal(after.prior.arrays["0_head0.bias"], first.prior.arrays["0_head0.bias"])
    with pytest.raises(UsageError, match="leave nothing to train"):
        small(frozen_synthesis=True, synthesis_only=True).check()


def test_levels_of_the_context_are_added() -> None:
    """New phases start with the weights of those that stand alike at the next finer distance."""
    first = trained(small(context_levels=1))
    first.mixtures.take(mixture(5, 0))
    old = first.export()
    second = build(small(context_levels=3))
    second.load_from(old, 1.0)
    new = second.export()
    for p, before in enumerate((0, 1, 2, 1, 2, 1, 2)):
        assert np.array_equal(new.prior.mixture[p], old.prior.mixture[before])
        for kind in ("around", "expand", "contract", "head")[3 if p == 0 else 0 :]:
            ours, theirs = new.prior.layers[f"0_{kind}{p}"], old.prior.layers[f"0_{kind}{before}"]
            assert np.array_equal(ours.weight, theirs.weight) and np.array_equal(ours.bias, theirs.bias)
    assert np.array_equal(new.prior.mixture[7:], old.prior.mixture[3:])
    assert new.prior.mixture.shape[0] == 2 * 3 + 1 + 2
    assert not new.decodes(old) and not old.decodes(new)


@pytest.mark.parametrize("levels", [1, 3, 4])
def test_grids_without_positions_of_some_phases(levels: int) -> None:
    """Those of images narrower than the spacing of a phase."""
    model = trained(small(context_levels=levels))
    assert torch.isfinite(model.loss(0.5 * torch.randn(2, 3, 64, 64)).loss)
    prior = model.export().prior
    for sides in ((1, 1), (1, 7), (4, 32), (9, 11)):
        target = [{"y": np.random.default_rng(0).normal(0, 3, (*sides, 24)).astype(np.float32)}]
        (region,) = driver.encode(prior, target, 90)
        known = [{"y": np.zeros((*sides, 24), np.int16)}]
        assert driver.decode(prior, [region.payload], known, 90) == [True]
        assert np.array_equal(known[0]["y"], region.symbols["y"])


def test_training_measures_the_bits_of_each_step() -> None:
    """Its mixtures and counts are those of the symbols that coding writes, step by step."""
    model = trained(small(context_levels=2))
    model.mixtures.take(mixture(len(model.shape.steps), 4))
    samples, index = 0.5 * torch.randn(1, 3, 96, 96), torch.tensor([170.0])
    counts: list[torch.Tensor] = []
    with torch.no_grad():
        latents = model.latents(samples, index)
        _, bits = model.quantise(latents, index, noisy=False, counts=counts)
    prior = model.export().prior
    target = latents[0].permute(1, 2, 0).numpy()
    (region,) = driver.encode(prior, [{"y": target}], 170)
    assert float(bits) == pytest.approx(region.bits, rel=5e-3)
    scan = prior.scan([region.symbols], 170)
    for step, found in zip(scan.steps, counts, strict=True):
        (expected,) = scan.models(step)
        symbols = expected.quantise(target[step.positions[0]])
        coded = expected.scale_indexes > 0
        seen = np.zeros((64, 256))
        np.add.at(seen, (expected.scale_indexes[coded], np.abs(symbols[coded]).clip(0, 255)), 1)
        assert np.abs(seen[1:] - found.numpy()[1:]).sum() <= 0.05 * seen.sum() + 2


def test_what_stays_as_it_is_keeps_its_settings() -> None:
    first = trained(small(integer_synthesis=True)).export()
    for settings in (
        {"frozen_synthesis": True, "integer_synthesis": False},
        {"frozen_synthesis": True, "integer_synthesis": True, "decoder_fine": 6},
        {"synthesis_only": True, "integer_synthesis": True, "context_levels": 3},
    ):
        with pytest.raises(UsageError, match="with another"):
            build(small(**settings)).load_from(first, 1.0)


def test_other_decoders_of_files_of_gaussians() -> None:
    """Weights from before there were mixtures, and a decoder trained from them, whose file says them."""
    first = trained(small()).export()
    arrays = {name: array for name, array in first.prior.arrays.items() if name != "mixture"}
    old = first.equipped(priors={LEARNED: replace(first.prior, arrays=arrays)})
    second = build(small(synthesis_only=True))
    second.load_from(old, 1.0)
    assert second.export().decodes(old) and old.decodes(second.export())


def test_mixtures_follow_the_latents_of_a_training() -> None:
    """Counts of a batch are those of its symbols, each once."""
    model = trained(small())
    step = model.loss(0.5 * torch.randn(2, 3, 64, 64))
    counts = step.kept["counts"]
    assert counts.shape == (1, len(model.shape.steps), 64, 256) and counts.sum() == 2 * 16 * 24
    before = model.mixtures.export()
    for _ in range(30):
        model.update(step, 0.0, torch.Generator())
    assert not np.array_equal(model.mixtures.export(), before)
    fixed = trained(small(synthesis_only=True))
    fixed.update(fixed.loss(0.5 * torch.randn(2, 3, 64, 64)), 0.0, torch.Generator())
    assert np.array_equal(fixed.mixtures.export(), before), "the files stay the same"


def test_a_discriminator_of_patches_learns_to_tell() -> None:
    torch.manual_seed(0)
    discriminator = PatchDiscriminator()
    flat = torch.zeros(2, 3, 64, 64)
    rough = 0.2 * torch.randn(2, 3, 64, 64)
    optimiser = torch.optim.AdamW(discriminator.parameters(), lr=3e-3)
    first = float(discriminator.loss(flat, rough).loss.detach())
    for _ in range(15):
        optimiser.zero_grad()
        discriminator.loss(flat, rough).loss.backward()
        optimiser.step()
    assert float(discriminator.loss(flat, rough).loss.detach()) < 0.5 * first
    terms = discriminator.judge(flat.requires_grad_(), rough)
    assert float(terms["matching"].detach()) > 0.2
    terms["adversarial"].backward()
    assert flat.grad is not None and flat.grad.abs().sum() > 0
