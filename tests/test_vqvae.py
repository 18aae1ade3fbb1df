from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import SMALL, draw
from vqcodec.bitstream.geometry import ImageGeometry
from vqcodec.models import MODELS, build
from vqcodec.models.vqvae import VQVAE
from vqcodec.models.vqvae.image import PCA_SCALE, Config
from vqcodec.training.datasets import Images
from vqcodec.transform import image as transform
from vqcodec.transform import tiling
from vqcodec.transform.pixels import to_samples

TINY = Config(**{key: int(value) for key, value in SMALL.items()})  # type: ignore[arg-type]


def shaken(config: Config) -> VQVAE:
    """A model none of whose layers is zero, so that every reach of the networks shows."""
    torch.manual_seed(3)
    model = build(config).eval().requires_grad_(False)
    pictures = Images([draw(128, 128, n) for n in range(4)], [""] * 4, [])
    model.start(lambda n: pictures.batch(n, seed=0, size=4, crop=64), torch.Generator().manual_seed(0))
    for parameter in (*model.encoder.parameters(), *model.decoder.parameters()):
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize("name", ["vqvae-image", "vqvae-image-paper"])
def test_worked_shape_of_the_paper(name: str) -> None:
    model = build(MODELS[name].config)
    codes = model.analyse(torch.zeros(1, 3, 128, 128))
    assert codes.shape == (1, 32, 32)
    assert model.config.codes == 512
    assert model.synthesise(codes).shape == (1, 3, 128, 128)


def test_paper_setting_learns_its_codebook_by_the_loss() -> None:
    model = build(replace(TINY, codebook_update="loss", linear_start=False, codebook_start="random"))
    step = model.loss(to_samples(draw(32, 32)[None]))
    terms = step.terms
    assert set(terms) == {"distortion", "commitment", "codebook"}
    assert torch.allclose(terms["commitment"], terms["codebook"])
    before = model.quantizer.codebook.detach().clone()
    step.loss.backward()
    assert model.quantizer.codebook.grad.abs().sum() > 0
    model.update(step, 0.9, torch.Generator())
    assert torch.equal(model.quantizer.codebook, before), "the optimiser, not an average, moves it"


def test_gradients_pass_straight_through_to_the_encoder() -> None:
    """Without the copy the encoder would see the commitment term only."""
    model = shaken(replace(TINY, commitment=0.0)).requires_grad_(True)
    model.loss(to_samples(draw(32, 32)[None])).loss.backward()
    assert model.encoder[1].weight.grad.abs().sum() > 0


def test_step_zero_is_the_linear_codec() -> None:
    pictures = Images([draw(128, 128, n) for n in range(6)], [""] * 6, [])
    model = build(TINY).eval().requires_grad_(False)
    model.start(lambda n: pictures.batch(n, seed=0, size=8, crop=64), torch.Generator().manual_seed(0))
    samples = pictures.batch(5, seed=1, size=8, crop=64)
    latents = model.latents(samples)
    blocks = torch.nn.functional.pixel_unshuffle(samples, 4).permute(0, 2, 3, 1).reshape(-1, 48)
    by_hand = (blocks - model.pca_mean) @ model.pca_components.t() * model.pca_scale
    assert torch.allclose(latents.permute(0, 2, 3, 1).reshape(-1, 8), by_hand, atol=1e-4)
    assert latents[:, 0].std() == pytest.approx(PCA_SCALE, rel=0.3)
    identity = model.pca_components @ model.pca_components.t()
    assert torch.allclose(identity, torch.eye(8), atol=1e-5)
    error = (model.reconstruct(latents) - samples).square().mean()
    quantized = (model.synthesise(model.analyse(samples)) - samples).square().mean()
    assert error < quantized < samples.var() / 5


@pytest.mark.parametrize("topology", ["shuffle", "strided"])
def test_no_seams_however_a_picture_is_cut(topology: str) -> None:
    model = shaken(replace(TINY, topology=topology, decoder_blocks=2))
    pixels = draw(150, 117)
    point = model.at(0, effort=0)
    targets = transform.analyse(pixels, point)
    whole = targets["codes"]
    samples = model.synthesise(torch.from_numpy(whole)[None].long())
    for area in (50, 300):
        # Two codes may be equally near; then rounding decides.
        assert (transform.analyse(pixels, point, area=area)["codes"] != whole).mean() < 1e-3
        pieces = torch.empty_like(samples)
        for block in tiling.blocks(*whole.shape, point.halo, area):
            decoded = model.synthesise(torch.from_numpy(whole[block.outer])[None].long())
            rows, columns = tiling.scaled(block.within, 4)
            at = tiling.scaled(block.inner, 4)
            pieces[:, :, at[0], at[1]] = decoded[:, :, rows, columns]
        assert (pieces - samples).abs().max() < 1e-4
        cut = transform.synthesise(targets, point, ImageGeometry(150, 117, 3, 4), area=area)
        uncut = transform.synthesise(targets, point, ImageGeometry(150, 117, 3, 4))
        assert np.abs(cut.astype(int) - uncut).max() <= 1
