"""Larger networks that begin as smaller ones do the same as those."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from vqcodec.models import build, vae
from vqcodec.models.growth import grow
from vqcodec.models.vqvae import audio, image

SMALL = audio.Config(
    encoder_width=8, encoder_blocks=1, decoder_width=8, decoder_hidden=12, decoder_blocks=2, codes=16
)


@pytest.mark.parametrize(
    "larger",
    [
        {},
        {"decoder_width": 16},
        {"decoder_hidden": 17},
        {"decoder_blocks": 4},
        {"encoder_blocks": 3},
        {"decoder_width": 24, "decoder_hidden": 30, "decoder_blocks": 3, "encoder_blocks": 2},
    ],
)
def test_the_function_stays(larger: dict[str, int]) -> None:
    torch.manual_seed(0)
    old, new = build(SMALL), build(replace(SMALL, **larger))
    samples = 0.3 * torch.randn(2, 1, 1280)
    new.load_from(old, 1.0)
    with torch.no_grad():
        assert torch.allclose(new.latents(samples), old.latents(samples), atol=1e-6)
        codes = old.analyse(samples)
        assert torch.allclose(new.synthesise(codes), old.synthesise(codes), atol=1e-5)


def test_copies_part_ways() -> None:
    """Two copies of a channel get different gradients: the wider network can become another."""
    torch.manual_seed(0)
    old, new = build(SMALL), build(replace(SMALL, decoder_width=16, decoder_hidden=24))
    new.load_from(old, 1.0)
    samples = 0.3 * torch.randn(2, 1, 1280)
    new.loss(samples).loss.backward()
    gradient = new.decoder[1].expand.weight.grad
    assert gradient is not None
    assert not torch.allclose(gradient[:12, :8], gradient[12:, 8:], rtol=1e-3)
    new_block = build(replace(SMALL, decoder_blocks=3))
    new_block.load_from(old, 1.0)
    new_block.loss(samples).loss.backward()
    assert new_block.decoder[3].contract.weight.grad.abs().sum() > 0


def test_smaller_or_other_networks_are_refused() -> None:
    old = build(replace(SMALL, decoder_width=16, decoder_blocks=3))
    for config in (SMALL, replace(SMALL, decoder_width=16), replace(SMALL, decoder_width=16, codes=8)):
        with pytest.raises(ValueError, match="cannot start as"):
            build(config).load_from(old, 1.0)
    with pytest.raises(ValueError, match="cannot start as"):
        grow(nn.Linear(2, 2), nn.Conv1d(2, 2, 1), torch.Generator())
    with pytest.raises(ValueError, match="cannot start without a correction"):
        grow(nn.Sequential(nn.ReLU(), nn.Linear(2, 2)), nn.Sequential(nn.ReLU()), torch.Generator())


def test_pictures_go_on_as_they_were() -> None:
    torch.manual_seed(0)
    config = image.Config(encoder_width=8, encoder_hidden=4, decoder_width=8, decoder_hidden=4, codes=16)
    old, new = build(config), build(config)
    new.load_from(old, 1.0)
    for name, tensor in old.state_dict().items():
        if "ema_" not in name:
            assert torch.equal(new.state_dict()[name], tensor), name


def test_a_synthesis_gets_further_blocks() -> None:
    """More residual blocks in the decoder of the VAE: the same samples, prior and rate; they learn."""
    torch.manual_seed(0)
    small = vae.Config(
        components=12, context_width=8, context_hidden=8, context_blocks=1, context_near=8, fine=8
    )
    old, new = build(small), build(replace(small, decoder_fine=7))
    with torch.no_grad():
        for parameter in old.decoder.parameters():
            parameter.normal_(std=0.1)
    start = old.export()
    new.load_from(start, 1.0)
    samples, index = 0.3 * torch.randn(1, 3, 64, 48), torch.tensor([100.0])
    with torch.no_grad():
        latents = torch.round(old.latents(samples, index))
        assert torch.equal(torch.round(new.latents(samples, index)), latents)
        assert torch.allclose(new.reconstruct(latents, index), old.reconstruct(latents, index), atol=1e-6)
    assert new.export().prior.arrays.keys() == start.prior.arrays.keys()
    for name, array in new.export().prior.arrays.items():
        assert (array == start.prior.arrays[name]).all(), name
    new.reconstruct(latents, index).square().sum().backward()
    assert new.decoder.layer("shallow.7.pointwise").weight.grad.abs().sum() > 0
