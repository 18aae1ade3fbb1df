"""The training of variable-rate models: the mixed distortion, and crops cut into parts."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import pytorch_msssim
import torch
from conftest import draw
from vqcodec import training, weights
from vqcodec.errors import UsageError
from vqcodec.metrics import image as metrics
from vqcodec.models import build, cutting, losses, rate_distortion, vae
from vqcodec.models.rate_distortion import distortion
from vqcodec.models.variable_rate import VariableRateVAE
from vqcodec.training.validation import MEDIA, Reconstructions
from vqcodec.transform.pixels import to_samples

CONFIG = vae.Config(
    components=24,
    **dict.fromkeys(("fine", "fine_hidden", "coarse", "coarse_hidden"), 8),
    **dict.fromkeys(("encoder_fine", "encoder_coarse", "decoder_fine", "decoder_coarse"), 1),
    context_width=12,
    context_hidden=8,
    context_blocks=1,
    context_near=24,
)


def codec(seed: int = 0, **changes: float) -> VariableRateVAE:
    """A small VAE with random weights, whose context model depends on what is around."""
    torch.manual_seed(seed)
    model = build(replace(CONFIG, **changes))
    assert isinstance(model, VariableRateVAE)
    with torch.no_grad():
        model.deviation.copy_(torch.logspace(2.5, 0.5, CONFIG.components))
        for name, parameter in model.named_parameters():
            if name.startswith("layers.") or name.endswith("_basis"):
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def distort(image: np.ndarray, deviation: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, deviation, image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


# MS-SSIM as a loss


@pytest.mark.parametrize("size", [(161, 161), (176, 256), (203, 171)])
def test_ms_ssim_equals_the_metric(size: tuple[int, int]) -> None:
    image = draw(*size)
    for other in (distort(image, 5), distort(image, 40)):
        ours = float(losses.ms_ssim(to_samples(other[None]), to_samples(image[None])))
        assert ours == pytest.approx(metrics.ms_ssim(other, image), abs=1e-5)
        planes = (torch.from_numpy(p.transpose(2, 0, 1)[None].astype(np.float64)) for p in (other, image))
        assert ours == pytest.approx(float(pytorch_msssim.ms_ssim(*planes, data_range=255)), abs=1e-4)


def test_ms_ssim_is_computed_image_by_image() -> None:
    images = np.stack([draw(176, 176, n) for n in range(3)])
    others = np.stack([distort(p, d) for p, d in zip(images, (0, 4, 30), strict=True)])
    found = losses.ms_ssim(to_samples(others), to_samples(images))
    assert found[0] == pytest.approx(1, abs=1e-6) and found[0] > found[1] > found[2]


@pytest.mark.parametrize("side", [11, 16, 64, 160])
def test_ms_ssim_of_small_images_has_fewer_scales(side: int) -> None:
    image = to_samples(draw(side, side)[None])
    other = to_samples(distort(draw(side, side), 10)[None])
    assert losses.ms_ssim(image, image) == pytest.approx(1, abs=1e-6)
    assert 0 < losses.ms_ssim(other, image) < 1


def test_gradients_of_ms_ssim() -> None:
    """They are those of differences, and numbers even where nothing is alike."""
    target = to_samples(draw(176, 176)[None]).double()
    start = to_samples(distort(draw(176, 176), 20)[None]).double().requires_grad_()
    losses.ms_ssim(start, target).sum().backward()
    assert start.grad is not None
    way = start.grad / start.grad.norm()
    with torch.no_grad():
        up, down = (losses.ms_ssim(start + step * way, target) for step in (1e-4, -1e-4))
    assert float(up - down) / 2e-4 == pytest.approx(float((start.grad * way).sum()), rel=1e-3)
    for other in (-target, torch.zeros_like(target), target):
        other = other.detach().clone().requires_grad_()
        losses.ms_ssim(other, target).sum().backward()
        assert other.grad is not None and other.grad.isfinite().all()


# the ends of parts


def test_ends_are_those_of_each_part() -> None:
    """Next to another part, or to the end of the grid."""
    parts = torch.tensor([[[0, 0, 0, 1, 1, 1]] * 4 + [[2, 2, 2, 3, 3, 3]] * 3])
    found = cutting.at_ends((1, 7, 6), parts, torch.device("cpu"))[0].int()
    assert ["".join(map(str, row)) for row in found.tolist()] == [
        *("111111", "101101", "101101", "111111"),
        *("111111", "101101", "111111"),
    ]
    whole = cutting.at_ends((2, 3, 4), None, torch.device("cpu"))
    assert whole.sum() == 2 * (3 * 4 - 2) and not whole[:, 1, 1:3].any()


def test_training_quantises_ends_more_finely() -> None:
    """A rounded latent is at most half of its step away, unless it is not coded; finer steps cost bits."""
    torch.manual_seed(1)
    model = codec(end_step=8)
    index = torch.tensor([120.0])
    latents = 6 * torch.randn(1, model.config.components, 6, 6)
    parts = torch.zeros(1, 6, 6, dtype=torch.int64)
    parts[:, :, 4:] = 1
    with torch.no_grad():
        decoded, bits = model.quantise(latents, index, noisy=False, parts=parts)
        _, fewer = codec(end_step=16).quantise(latents, index, noisy=False, parts=parts)
    error = (decoded - latents).abs()[0, :16]
    end = cutting.at_ends((1, 6, 6), parts, latents.device)[0]
    assert float(error[:, end].quantile(0.75)) <= 0.25 + 1e-3
    assert 0.25 + 1e-3 < float(error[:, ~end].quantile(0.75)) <= 0.5 + 1e-3
    assert bits > fewer


# the mixture


def test_the_mixture_is_of_both() -> None:
    image, other = (to_samples(p[None]) for p in (draw(176, 176), distort(draw(176, 176), 15)))
    error = float((image - other).square().mean()) * 127.5**2
    dissimilarity = 1 - float(losses.ms_ssim(other, image))
    for share in (0.0, 0.3, 1.0):
        mixtures = []
        for index in (0.0, 255.0):
            mixture, told = distortion(other, image, torch.tensor([index]), share)
            assert float(told) == pytest.approx(error, rel=1e-5)
            mixtures.append(float(mixture))
        expected = (1 - share) * error + share * rate_distortion.MSE_PER_MS_SSIM * dissimilarity
        assert mixtures[0] == pytest.approx(
            expected / (1 + share * rate_distortion.LOW_RATE_EASING), rel=1e-4
        )
        assert mixtures[1] == pytest.approx(expected, rel=0.03)


def test_luma_has_weights_of_its_own() -> None:
    image, other = (to_samples(p[None]) for p in (draw(176, 176), distort(draw(176, 176), 15)))
    index = torch.tensor([255.0])
    without, mixed, luma = (float(distortion(other, image, index, 1.0, s)[0]) for s in (0.0, 0.25, 1.0))
    assert mixed == pytest.approx(0.75 * without + 0.25 * luma, rel=1e-5)
    gray = [np.rint(p @ (0.299, 0.587, 0.114)) for p in (draw(176, 176), distort(draw(176, 176), 15))]
    planes = (torch.from_numpy(p[None, None].astype(np.float64)) for p in gray)
    weights = list(rate_distortion.LUMA_WEIGHTS)
    assert sum(weights) == pytest.approx(1)
    similarity = float(pytorch_msssim.ms_ssim(*planes, data_range=255, weights=weights))
    expected = rate_distortion.MSE_PER_MS_SSIM * (1 - similarity)
    easing = rate_distortion.LOW_RATE_EASING * 2 ** (-255 / 27)
    assert luma == pytest.approx(expected / (1 + easing), rel=0.01)


def test_validation_judges_by_the_trained_loss() -> None:
    images = [draw(176, 192, n) for n in range(2)]
    scores, told = zip(
        *(Reconstructions(MEDIA["image"]).validate(codec(ms_ssim=share), images) for share in (0.0, 1.0)),
        strict=True,
    )
    assert told[0]["psnr_db"] == told[1]["psnr_db"] and told[0]["bpp"] == told[1]["bpp"]
    assert 0 < told[0]["ms_ssim_half"] < 1
    assert scores[0] != scores[1] and [*scores] == [-t["loss"] for t in told]


def test_the_share_of_ms_ssim_is_not_in_the_card(photos: Path, tmp_path: Path) -> None:
    shared = {"batch": 2, "crop": 64, "learning_rate": 1e-12, "steps": 1}
    small = {name: str(value) for name, value in asdict(CONFIG).items() if name != "ms_ssim"}
    runs = [
        training.train(
            photos,
            model="vae-image",
            output=tmp_path / str(share),
            overrides=small | {"ms_ssim": str(share)},
            **shared,
        )
        for share in (0.0, 0.9)
    ]
    assert "ms_ssim" not in runs[0].card.config and "--set ms_ssim=0.9" in runs[1].card.training["chain"][0]
    assert runs[0].card.config == runs[1].card.config, "which the fingerprint covers"
    after = training.train(
        photos,
        model="vae-image",
        start=runs[0].best,
        output=tmp_path / "on",
        overrides={"ms_ssim": "0.5"},
        **shared,
    )
    assert weights.load(after.best, "cpu").config.components == CONFIG.components
    with pytest.raises(UsageError, match="ms_ssim is 1.5"):
        training.train(photos, model="vae-image", overrides={"ms_ssim": "1.5"}, output=tmp_path / "no")
    with pytest.raises(UsageError, match="no setting 'ms_ssim'"):
        training.train(
            photos, model="ppca-image", start="ppca-image", overrides={"ms_ssim": "1"}, output=tmp_path / "no"
        )


# crops in parts


def test_a_part_is_coded_as_a_region_by_itself() -> None:
    model = codec()
    torch.manual_seed(1)
    latents, index = 3 * torch.randn(2, 24, 10, 7), torch.tensor([60.0, 190.0])
    rows, columns = (slice(0, 4), slice(4, 10)), (slice(0, 2), slice(2, 7))
    parts = torch.zeros(2, 10, 7, dtype=torch.int64)
    parts[:, rows[1]] += 1
    parts[:, :, columns[1]] += 2
    with torch.no_grad():
        whole, bits = model.quantise(latents, index, noisy=False, parts=parts)
        uncut, _ = model.quantise(latents, index, noisy=False)
        summed = torch.zeros(2)
        for row in rows:
            for column in columns:
                alone, spent = model.quantise(latents[:, :, row, column], index, noisy=False)
                assert torch.equal(alone, whole[:, :, row, column])
                summed += spent
    assert torch.allclose(summed, bits, rtol=1e-4)
    assert not torch.equal(uncut, whole), "what is around counts"


@pytest.mark.parametrize("size", [(1, 2), (3, 4), (16, 11)])
def test_cuts_are_at_even_positions(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    height, width = size
    count = 400
    parts = cutting.random_parts(count, height, width, torch.device("cpu"))
    assert parts.shape == (count, height, width)
    for lines, length in ((parts[:, :, 0], height), (parts[:, 0], width)):
        found = (lines[:, 1:] != lines[:, :-1]).nonzero() if length > 1 else torch.zeros(0, 2)
        cuts = found[:, 1].long() + 1
        assert set(cuts.tolist()) == {*range(2, length, 2)}
        share = len(cuts) / count
        assert len(set(found[:, 0].tolist())) == len(cuts), "one cut at most"
        assert share == pytest.approx(cutting.CUT_SHARE if length > 2 else 0, abs=0.1)


def test_gradients_are_less_at_the_ends_of_crops() -> None:
    """The rate is the same, its gradient to the context model is less, that to the encoder is not."""
    model = codec()
    index, parts = torch.tensor([120.0]), torch.zeros(1, 2, 2, dtype=torch.int64)
    found = []
    for cut in (None, parts):
        latents = torch.randn(1, 24, 2, 2, generator=torch.Generator().manual_seed(3)).requires_grad_()
        bits = model.quantise(latents, index, noisy=False, parts=cut)[1].sum()
        # Of the last step: nothing depends on it.
        head = model.layers["1_head1"].bias
        found.append((bits.detach(), *torch.autograd.grad(bits, (head, latents))))
    assert found[0][0] == found[1][0]
    assert found[0][1].abs().max() > 0
    assert torch.allclose(found[1][1], cutting.END_WEIGHT * found[0][1], rtol=1e-4, atol=1e-6)
    last = [gradient[0, 16:, (0, 1), (1, 0)] for _, _, gradient in found]
    assert last[0].abs().max() > 0 and torch.allclose(*last)


@pytest.mark.parametrize(("sigma", "gradient"), [(-20.0, 4.0), (20.0, 0.0)])
def test_the_distortion_trains_the_mean_where_a_latent_is_nearly_certain(
    sigma: float, gradient: float
) -> None:
    """Of the latents of the first phase, two by two positions, those of the first channel."""
    model, index = codec(), torch.tensor([128.0])
    with torch.no_grad():
        model.layers["0_head0"].bias.view(2, -1)[1] = sigma
    found, _ = model.quantise(torch.zeros(1, 24, 4, 4), index, noisy=False)
    steps = torch.exp2(model.log2_gain(index)[0, 0])
    told = torch.autograd.grad(found[0, 0, ::2, ::2].sum(), model.layers["0_head0"].bias)[0]
    assert told[0] == pytest.approx(gradient * float(steps.detach()), rel=1e-5)
    assert (told[1:] == 0).all()
