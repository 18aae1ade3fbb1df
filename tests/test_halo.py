"""The halo of every image model: as far as its networks reach."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from vqcodec.models import MODELS, build
from vqcodec.models.base import Model, OperatingPoint

NAMES = [
    name for name, entry in MODELS.items() if entry.model.medium == "image" and entry.model.validation_points
]
INDEX = 200


def shaken(settings: str, **changed: int) -> Model:
    """A model whose weights are all at work: those that a training starts from end in zeros."""
    torch.manual_seed(3)
    model = build(replace(MODELS[settings].config, **changed))
    with torch.no_grad():
        for name, weight in (*model.named_parameters(), *model.named_buffers()):
            if name.startswith(("layers.", "mixtures.")) or not weight.is_floating_point():  # of a prior
                continue
            if weight.dim() > 1 and weight.numel():
                weight.normal_(std=(2 / weight[0].numel()) ** 0.5)
    exported = model.eval().requires_grad_(False).export()
    assert isinstance(exported, Model)
    return exported


def window(x: Tensor, keep: int, scale: int, axes: tuple[int, int]) -> Tensor:
    """The positions of the middle one of a square, and `keep` around it, at a scale."""
    middle = x.shape[axes[0]] // scale // 2
    start, size = scale * (middle - keep), scale * (2 * keep + 1)
    return x.narrow(axes[0], start, size).narrow(axes[1], start, size).contiguous()


def synthesis_error(point: OperatingPoint, keep: int) -> float:
    """Largest change in the samples of the middle position when symbols beyond `keep` are cut off."""
    positions = 4 * point.halo + 9
    symbols = {}
    for plane in point.planes:
        size = positions * (point.stride // plane.stride)
        if plane.alphabet:
            symbols[plane.name] = torch.randint(plane.alphabet, (1, size, size))
        else:
            symbols[plane.name] = torch.randint(-60, 60, (1, size, size, plane.depth)).short()
    cut = {p.name: window(symbols[p.name], keep, point.stride // p.stride, (1, 2)) for p in point.planes}
    whole, part = (window(point.synthesise(s), 0, point.stride, (2, 3)) for s in (symbols, cut))
    return float((whole - part).abs().max() / whole.std())


def analysis_errors(point: OperatingPoint, keep: int) -> list[float]:
    """Largest change in a plane's symbols of the middle position when samples beyond `keep` are cut off."""
    side = point.stride * (4 * point.analysis_halo + 9)
    whole = 2 * torch.rand(1, point.model.channels, side, side) - 1
    found, expected = (point.analyse(x) for x in (window(whole, keep, point.stride, (2, 3)), whole))
    errors = []
    for plane in point.planes:
        scale = point.stride // plane.stride
        a, b = (window(s[plane.name].float(), 0, scale, (1, 2)) for s in (found, expected))
        errors.append(float((a - b).abs().max() / b.abs().max()))
    return errors


@pytest.mark.parametrize("name", NAMES)
def test_the_halo_is_as_wide_as_synthesis_reaches(name: str) -> None:
    point = shaken(name).at(INDEX)
    assert synthesis_error(point, point.halo) < 1e-4
    if point.halo:
        assert synthesis_error(point, point.halo - 2) > 1e-4, "too wide costs time"


@pytest.mark.parametrize("name", NAMES)
def test_the_halo_is_as_wide_as_analysis_reaches(name: str) -> None:
    point = shaken(name).at(INDEX)
    assert max(analysis_errors(point, point.analysis_halo)) < 1e-4


@pytest.mark.parametrize("fine", range(4))
@pytest.mark.parametrize("coarse", range(4))
def test_the_halo_of_the_vae_follows_its_depths(fine: int, coarse: int) -> None:
    depths = {
        "encoder_fine": fine,
        "encoder_coarse": coarse,
        "decoder_fine": 3 - fine,
        "decoder_coarse": coarse,
    }
    point = shaken("vae-image", components=24, fine=12, coarse=12, **depths).at(INDEX)
    assert synthesis_error(point, point.halo) < 1e-4 > max(analysis_errors(point, point.halo))
    cut = point.halo - 1
    assert synthesis_error(point, cut) > 1e-6 or max(analysis_errors(point, cut)) > 1e-6
