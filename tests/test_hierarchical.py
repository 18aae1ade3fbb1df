"""VQ-VAE-2: two levels of codes, as a model in memory and on the road without a prior."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
import vqcodec
from conftest import SMALL, draw
from vqcodec import pipeline, weights
from vqcodec.bitstream.container import RAW
from vqcodec.bitstream.geometry import ImageGeometry
from vqcodec.errors import UsageError
from vqcodec.models import MODELS, build
from vqcodec.models.vqvae import HierarchicalVQVAE
from vqcodec.models.vqvae.hierarchical import PAPER, Config
from vqcodec.pipeline import EncodeOptions
from vqcodec.training.datasets import Images
from vqcodec.transform import image as transform
from vqcodec.transform.pixels import to_samples

TINY = Config(**{key: int(value) for key, value in SMALL.items()}, context=6)  # type: ignore[arg-type]
CONSTRAINED = replace(TINY, error_per_bit=0.05)
TINY_PAPER = replace(
    PAPER,
    codes=16,
    code_dim=4,
    encoder_width=8,
    encoder_hidden=4,
    decoder_width=8,
    decoder_hidden=4,
    context=4,
)


def pictures(count: int = 4) -> Images:
    return Images([draw(128, 128, n) for n in range(count)], [""] * count, [])


def begun(config: Config, shaken: bool = True) -> HierarchicalVQVAE:
    """A model after its linear start; shaken, none of its layers is zero, so that every reach shows."""
    torch.manual_seed(3)
    model = build(config).eval().requires_grad_(False)
    assert isinstance(model, HierarchicalVQVAE)
    data = pictures()
    model.start(lambda n: data.batch(n, seed=0, size=4, crop=64), torch.Generator().manual_seed(0))
    for name, parameter in model.named_parameters() if shaken else ():
        if parameter.dim() > 1 and "quantizer" not in name:
            torch.nn.init.normal_(parameter, std=0.4 if name.startswith("rate_network.") else 0.1)
    return model


@pytest.mark.parametrize("name", ["vqvae2-image", "vqvae2-image-paper"])
def test_worked_shape_of_the_paper(name: str) -> None:
    """256x256 pixels -> 32x32 and 64x64 codes of 512."""
    model = build(MODELS[name].config)
    point = model.at(255)
    with torch.no_grad():
        codes = point.analyse(torch.zeros(1, 3, 256, 256))
        assert codes["top"].shape == (1, 32, 32) and codes["bottom"].shape == (1, 64, 64)
        assert point.synthesise(codes).shape == (1, 3, 256, 256)
        assert model.at(0).synthesise({"top": codes["top"]}).shape == (1, 3, 256, 256)
        assert point.preview(codes).shape == (1, 3, 32, 32)  # type: ignore[union-attr]
    raw = [plane.raw_bits / plane.stride**2 for plane in point.planes]
    assert model.config.codes == 512 and sum(raw) == 0.703125


def test_operating_points() -> None:
    model = build(TINY)
    assert [plane.name for plane in model.at(0).planes] == ["top"] == [p.name for p in model.at(127).planes]
    assert [plane.name for plane in model.at(128).planes] == ["top", "bottom"]
    assert model.at(255).index == model.at(128).index == 128 and model.at(100).index == 0


@pytest.mark.parametrize(
    "config", [TINY, CONSTRAINED, TINY_PAPER, replace(TINY_PAPER, codebook_update="loss")]
)
def test_the_loss_is_the_sum_by_hand(config: Config) -> None:
    """The top alone is decoded for a quarter of the examples."""
    model = begun(config).requires_grad_(True)
    samples = to_samples(np.stack([draw(64, 48, n) for n in range(8)]))
    step = model.loss(samples)
    top, bottom = (model.quantizer(name).decode(step.symbols[name]) for name in ("top", "bottom"))
    features = model.features(samples)
    z_top = model.top_encoder(features)
    if config.linear_start:
        z_top = z_top + model._project("top", samples)
    z_bottom = model.bottom_encoder(torch.cat((features, model.top_decoder(top)), 1))
    if config.linear_start:
        z_bottom = z_bottom + model._project("bottom", samples - model._expand("top", top))
    expected = F.mse_loss(model.decode(top, bottom), samples)
    expected = expected + config.top_weight * F.mse_loss(model.decode(top[:2]), samples[:2])
    beta = config.commitment + (config.codebook_update == "loss")
    expected = expected + beta * (F.mse_loss(z_top, top) + F.mse_loss(z_bottom, bottom))
    if config.error_per_bit:
        expected = expected + config.error_per_bit * step.terms["bits"] / 48
    assert step.loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert ("distortion_top" in step.terms) == (config.top_weight > 0)


@pytest.mark.parametrize("config", [TINY, CONSTRAINED, TINY_PAPER])
def test_one_step_reaches_every_network(config: Config) -> None:
    """Straight through both levels, and the moving averages of both codebooks."""
    model = begun(config).requires_grad_(True).train()
    step = model.loss(to_samples(np.stack([draw(64, 48, n) for n in range(2)])))
    step.loss.backward()
    for name, parameter in model.named_parameters():
        assert "quantizer" in name or parameter.grad.abs().sum() > 0, name
    before = {name: model.codebook(name).clone() for name in ("top", "bottom")}
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    optimiser.step()
    assert model.update(step, 0.9, torch.Generator()) == {"restarted": 0}
    assert all(not torch.equal(model.codebook(name), before[name]) for name in before)
    assert model.loss(to_samples(draw(64, 48)[None])).loss.isfinite()


def test_step_zero_is_the_linear_codec() -> None:
    """PCA of 8x8 blocks, and of 4x4 blocks of what the top's codes leave."""
    model = begun(TINY, shaken=False)
    samples = pictures().batch(5, seed=1, size=8, crop=64)
    levels = model.encode(samples)
    rest = samples - model._expand("top", model.quantizer("top").decode(levels["top"].codes))
    blocks = F.pixel_unshuffle(rest, 4).permute(0, 2, 3, 1).reshape(-1, 48)
    by_hand = (blocks - model.pca_bottom_mean) @ model.pca_bottom_components.t() * model.pca_bottom_scale
    assert torch.allclose(levels["bottom"].latents.permute(0, 2, 3, 1).reshape(-1, 8), by_hand, atol=1e-4)
    codes = {name: level.codes for name, level in levels.items()}
    both, top = model.synthesise(codes), model.synthesise({"top": codes["top"]})
    errors = [(found - samples).square().mean() for found in (both, top)]
    assert errors[0] < 0.8 * errors[1] < samples.var() / 4


def test_more_components_than_a_block_has() -> None:
    with pytest.raises(UsageError, match="code_dim is 49"):
        Config(code_dim=49).check()


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        replace(TINY, decoder_blocks=3),
        replace(CONSTRAINED, error_per_bit=0.5, encoder_blocks=0),  # bits that matter, little other reach
        TINY_PAPER,
    ],
)
@pytest.mark.parametrize("index", [0, 255])
def test_no_seams_however_a_picture_is_cut(config: Config, index: int) -> None:
    """Also with sides that are no multiples of either stride."""
    model = begun(config)
    pixels, point = draw(333, 219), model.at(index)
    geometry = ImageGeometry(333, 219, 3, point.finest_stride)
    whole = transform.analyse(pixels, point)
    assert whole["top"].shape == (28, 42)
    cut = transform.analyse(pixels, point, area=60)
    for name, codes in whole.items():
        # Two codes may be equally near; then rounding decides.
        assert (cut[name] != codes).mean() < 2e-3
    uncut = transform.synthesise(whole, point, geometry)
    pieces = transform.synthesise(whole, point, geometry, area=60)
    assert uncut.shape == pixels.shape and np.abs(pieces.astype(int) - uncut).max() <= 1


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights after the linear start, with no prior."""
    model, path = begun(TINY, shaken=False), tmp_path_factory.mktemp("two") / "two.safetensors"
    weights.save(model, model.make_card("two", {}, {}), path)
    return path


@pytest.mark.parametrize("size", [(64, 48), (65, 47), (1, 1), (7, 530)])
@pytest.mark.parametrize("quality", [1.0, 3.0])
def test_any_size_goes_the_road(saved: Path, size: tuple[int, int], quality: float) -> None:
    image = draw(*size, 5)
    encoded = pipeline.encode_file(image, EncodeOptions(model=saved, quality=quality))
    pipeline.verify(encoded)
    assert list(encoded.symbols) == (["top"] if quality == 1 else ["top", "bottom"])
    assert vqcodec.decode(encoded.data, model=saved).samples.shape == image.shape
    assert set(pipeline.info(encoded.data).priors) <= {RAW, 3}


def test_a_preview_is_the_picture_of_the_top(saved: Path) -> None:
    image = draw(203, 150, 5)
    small = vqcodec.decode(vqcodec.encode(image, model=saved), model=saved, preview=True).samples
    alone = vqcodec.decode(vqcodec.encode(image, model=saved, quality=1.0), model=saved).samples
    assert small.shape == (19, 26, 3)
    means = alone[:144, :200].reshape(18, 8, 25, 8, 3).mean((1, 3))
    assert np.abs(means - small[:18, :25]).max() < 2


def test_the_quality_is_monotone(saved: Path) -> None:
    image = draw(200, 150, 5)
    sizes, errors = [], []
    for quality in (1.0, 3.0):
        data = vqcodec.encode(image, model=saved, quality=quality)
        sizes.append(len(data))
        errors.append(np.square(vqcodec.decode(data, model=saved).samples - image.astype(float)).mean())
    assert sizes[0] < sizes[1] and errors[0] > errors[1]
    assert len(vqcodec.encode(image, model=saved, target_size=sizes[0])) == sizes[0]
