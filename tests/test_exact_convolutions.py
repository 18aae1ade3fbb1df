"""Convolutions in integers: the numbers of integer arithmetic from every carrier, and nothing beyond."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from vqcodec.errors import ModelError
from vqcodec.priors import exact_convolutions
from vqcodec.priors.exact_convolutions import CARRIERS, ZERO, Carrier, IntegerConv2d


def integer_layer(seed: int, outputs: int, inputs: int, kernel: int, padding: int) -> IntegerConv2d:
    """A layer with all weights and shifts that may occur."""
    generator = np.random.default_rng(seed)
    return IntegerConv2d(
        generator.integers(-127, 128, (outputs, inputs, kernel, kernel)).astype(np.int8),
        generator.integers(-(2**18), 2**18, outputs).astype(np.int32),
        generator.integers(5, 13, outputs).astype(np.int8),
        padding,
    )


def sums(layer: IntegerConv2d, x: NDArray[np.uint8]) -> NDArray[np.int64]:
    """W * x + b, in int64 by its definition."""
    around = [(0, 0), (layer.padding,) * 2, (layer.padding,) * 2]
    padded = np.pad(x.astype(np.int64), around)
    size = layer.weight.shape[2]
    height, width = (side - size + 1 for side in padded.shape[1:])
    found = np.zeros((len(layer.weight), height, width), np.int64) + layer.bias[:, None, None]
    for i, j in itertools.product(range(size), repeat=2):
        taps = layer.weight[:, :, i, j].astype(np.int64)
        found += np.einsum("oi,ihw->ohw", taps, padded[:, i : i + height, j : j + width])
    return found


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize(("inputs", "kernel", "padding"), [(40, 3, 1), (17, 3, 0), (96, 1, 0), (5, 2, 0)])
def test_every_carrier_computes_integers(carrier: Carrier, inputs: int, kernel: int, padding: int) -> None:
    """Carriers that are there; the float ones are everywhere."""
    if carrier == "onednn" and exact_convolutions.best_carrier("cpu") != "onednn":
        pytest.skip("no int8 kernels here")
    layer = integer_layer(inputs, 21, inputs, kernel, padding)
    x = np.random.default_rng(1).integers(0, 128, (inputs, 19, 13)).astype(np.uint8)
    whole = np.ldexp(sums(layer, x).astype(np.float64), -layer.shift.astype(np.int64)[:, None, None])
    maps = torch.from_numpy(x)[None].contiguous(memory_format=torch.channels_last)
    assert np.array_equal(layer.exact(maps, carrier)[0].numpy(), whole)
    assert np.array_equal(layer.activated(maps, carrier)[0].numpy(), np.rint(whole).clip(0, 255))


def test_halves_are_rounded_to_even() -> None:
    """1/2, 3/2, 5/2 -> 0, 2, 2, by every carrier."""
    layer = IntegerConv2d(np.ones((1, 1, 1, 1), np.int8), np.zeros(1, np.int32), np.ones(1, np.int8))
    x = torch.tensor([1, 3, 5, 7], dtype=torch.uint8)[None, None, None]
    for carrier in ("float32", "float64", exact_convolutions.best_carrier("cpu")):
        assert layer.activated(x, carrier).flatten().tolist() == [0, 2, 2, 4]


def test_products_that_may_be_shortened_are_computed_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program may let torch round factors to bfloat16, in which 255 * 2**-9 is not exact with 9 bits."""
    layer = integer_layer(3, 21, 40, 3, 1)
    x = torch.randint(0, 128, (1, 40, 9, 9), dtype=torch.uint8)
    expected = layer.exact(x, "float64")
    before = torch.backends.mkldnn.conv.fp32_precision
    torch.backends.mkldnn.conv.fp32_precision = "bf16"
    try:
        used = []
        convolve = torch.nn.functional.conv2d

        def watched(x: torch.Tensor, *rest: torch.Tensor, padding: int) -> torch.Tensor:
            used.append(x.dtype)
            return convolve(x, *rest, padding=padding)

        monkeypatch.setattr("torch.nn.functional.conv2d", watched)
        found = layer.exact(x, "float32")
    finally:
        torch.backends.mkldnn.conv.fp32_precision = before
    assert torch.equal(found, expected)
    assert used == [torch.float64]


def test_a_carrier_that_errs_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The known answer decides, not a list of machines."""
    exact = IntegerConv2d.exact

    def wrong(self: IntegerConv2d, x: torch.Tensor, carrier: Carrier) -> torch.Tensor:
        return exact(self, x, carrier) + (carrier != "float64")

    exact_convolutions.best_carrier.cache_clear()
    monkeypatch.setattr(IntegerConv2d, "exact", wrong)
    assert exact_convolutions.best_carrier("cpu") == "float64"
    exact_convolutions.best_carrier.cache_clear()


def test_layers_beyond_float32_are_refused() -> None:
    """A sum that could reach 2**24; a weight that int8 kernels double; other types."""
    layer = integer_layer(0, 4, 8, 3, 1)
    large = np.array([2**24, 0, 0, 0], np.int32)
    low = layer.weight.copy()
    low[0, 0, 0, 0] = -128
    with pytest.raises(ModelError, match="exact in float32"):
        replace(layer, bias=large)
    with pytest.raises(ModelError, match="exact in float32"):
        replace(layer, weight=low)
    with pytest.raises(ModelError, match="int8, int32"):
        replace(layer, bias=layer.bias.astype(np.int64))
    with pytest.raises(ModelError, match="biases"):
        replace(layer, bias=layer.bias[:2])
    with pytest.raises(ModelError, match="shift"):
        replace(layer, shift=np.full(4, 25, np.int8))


def test_integers_give_what_rounded_weights_give() -> None:
    """Inputs with a sign and of two units; the layer in integers gives the same, but for its bias."""
    torch.manual_seed(0)
    layer, real_layer = nn.Conv2d(12, 6, 3, padding=1), nn.Conv2d(12, 6, 3, padding=1)
    before = [3] * 5 + [6] * 7
    exported = exact_convolutions.export(layer, before, 4, zeros=[ZERO] * 12)
    exact_convolutions.take(real_layer, exported, before, 4, zeros=[ZERO] * 12)
    half = 0.5 / exact_convolutions.scales(layer, before)
    assert ((real_layer.weight - layer.weight).abs() <= half).all()
    whole = torch.randint(-ZERO, 255 - ZERO + 1, (1, 12, 8, 8))
    real = whole / torch.exp2(torch.tensor(before))[:, None, None]
    expected = real_layer(real) * 2**4
    bordered = torch.nn.functional.pad(whole + ZERO, (1, 1, 1, 1), value=ZERO).to(torch.uint8)
    found = exported.exact(bordered, "float64")
    assert (found - expected).abs().max() < 1e-3


def test_what_is_exported_can_be_trained_again() -> None:
    """Weights taken from integers are exported as the same integers."""
    torch.manual_seed(0)
    layer, again = nn.Conv2d(12, 6, 3, padding=1), nn.Conv2d(12, 6, 3, padding=1)
    before = [4] * 12
    exported = exact_convolutions.export(layer, before, 4)
    exact_convolutions.take(again, exported, before, 4)
    twice = exact_convolutions.export(again, before, 4)
    for name in ("weight", "bias", "shift"):
        assert np.array_equal(getattr(twice, name), getattr(exported, name))
