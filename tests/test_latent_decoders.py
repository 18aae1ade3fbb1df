"""Decoders of models with one latent vector per picture: what a pixel depends on."""

from __future__ import annotations

import pytest
import torch
from test_latent_methods import SIDE, seeded
from torch import Tensor
from vqcodec.models.latent import VAE, networks, vae

__all__ = ["seeded"]


@torch.enable_grad()
@pytest.mark.parametrize(("strength", "reach"), [("local", 1), ("pixelcnn", SIDE)])
def test_an_autoregressive_decoder_sees_the_pixels_before(strength: str, reach: int) -> None:
    """Each of `reach` rows and columns around, none that comes later."""
    model = VAE(vae.Config(side=SIDE, units=3, hidden=8, decoder=strength, pixelcnn_width=8)).eval()
    x, z = torch.rand(1, 1, SIDE, SIDE, requires_grad=True), torch.randn(1, 3)
    parameters = model.pixels(x, model.maps(z))
    row, column = 3, 3
    (gradient,) = torch.autograd.grad(parameters[0, 0, row, column], x)
    seen = gradient[0, 0] != 0
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    before = (rows < row) | ((rows == row) & (columns < column))
    near = ((rows - row).abs() <= reach) & ((columns - column).abs() <= reach)
    assert not (seen & ~before).any() and seen.sum() >= (4 if strength == "local" else 12)
    assert not (seen & ~near).any()
    drawn = model.decode(torch.randn(2, 3))
    assert set(drawn.unique().tolist()) <= {0.0, 1.0} and drawn.shape == (2, 1, SIDE, SIDE)


def test_a_decoder_of_convolutions_has_no_checkerboard() -> None:
    """Features that are the same everywhere give pixels that are, but for the margin."""
    network = networks.decoder("conv", 16, 1, 64, 3)
    network[2].weight.zero_()
    network[2].bias.copy_(torch.rand(16).repeat_interleave(16))
    inside = network(torch.randn(2, 3))[:, 0, 4:-4, 4:-4]
    assert inside.abs().max() > 0.01
    assert torch.allclose(inside, inside[:, :1, :1].expand_as(inside), atol=1e-6)


def test_a_broadcast_decoder_knows_places_at_any_size() -> None:
    """Corners and middle are the same pixels of pictures of 7 and of 13."""
    small, large = (networks.decoder("broadcast", side, 2, 64, 3) for side in (7, 13))
    large.load_state_dict(small.state_dict())
    z = torch.randn(4, 3)
    maps = small(z)
    assert torch.allclose(maps, large(z)[:, :, ::2, ::2], atol=1e-5)
    assert min(maps.diff(dim=axis).abs().max() for axis in (0, 1, 2, 3)) > 0.01
    assert not torch.allclose(maps, maps.transpose(2, 3), atol=0.01)
    small[0].coordinates.weight.zero_()
    assert torch.allclose(small(z), small(z)[:, :, :1, :1].expand_as(maps), atol=1e-6)


def test_hidden_context_is_hidden_in_training_alone() -> None:
    config = vae.Config(side=SIDE, units=3, hidden=8, decoder="pixelcnn", context_dropout=0.8)
    model = VAE(config)
    assert model.pixels is not None
    x, z = torch.rand(2000, 1, SIDE, SIDE).round(), torch.zeros(2000, 3)

    def changed(other: Tensor) -> float:
        """Share of pictures whose last pixel is told otherwise by another pixel before it."""
        found = []
        for inputs in (x, other):
            torch.manual_seed(0)
            found.append(model.pixels(inputs, model.maps(z))[:, 0, -1, -1])
        return float((found[0] != found[1]).float().mean())

    flipped = x.clone()
    flipped[:, :, -1, -2] = 1 - flipped[:, :, -1, -2]
    step = model.train().loss(2 * x[:4].expand(-1, 3, -1, -1) - 1)
    for progress, seen in ((0.0, 0.2), (0.25, 0.6), (0.5, 1.0), (0.9, 1.0)):
        model.update(step, progress, torch.Generator())
        assert abs(changed(flipped) - seen) < 0.05
    model.update(step, 0.0, torch.Generator())
    assert changed(flipped) < 0.3
    model.eval()
    assert changed(flipped) > 0.95
