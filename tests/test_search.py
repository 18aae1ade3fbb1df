from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import draw
from vqcodec import weights
from vqcodec.datasets import to_samples
from vqcodec.models.vqvae import ImageVQVAE
from vqcodec.priors.base import cost_bits
from vqcodec.search import pictures


@pytest.fixture(scope="module")
def codec(small: str) -> ImageVQVAE:
    return weights.load(small, "cpu")


def total_bits(codec: ImageVQVAE, codes: torch.Tensor) -> float:
    return cost_bits(codec.prior, [region.numpy().astype(np.int32) for region in codes])


def error(codec: ImageVQVAE, samples: torch.Tensor, codes: torch.Tensor) -> float:
    with torch.no_grad():
        return float((codec.synthesise(codes) - samples).square().sum())


def test_rates_are_those_of_the_coder(codec: ImageVQVAE) -> None:
    codes = torch.from_numpy(np.random.default_rng(0).integers(0, 64, (1, 9, 7)))
    rates = pictures.Rates.of(codec)
    assert float(rates._own(codes).sum()) == pytest.approx(total_bits(codec, codes), rel=1e-5)


def test_choices_are_the_bits_after_each_exchange(codec: ImageVQVAE) -> None:
    rng = np.random.default_rng(1)
    codes = torch.from_numpy(rng.integers(0, 64, (1, 4, 5)))
    rates = pictures.Rates.of(codec)
    for row, column in ((0, 0), (0, 4), (3, 0), (3, 4), (2, 2)):
        where = torch.zeros(4, 5, dtype=torch.bool)
        where[row, column] = True
        offered = rates.choices(codes, where)[0]
        for code in rng.integers(0, 64, 4):
            exchanged = codes.clone()
            exchanged[0, row, column] = int(code)
            change = total_bits(codec, exchanged) - total_bits(codec, codes)
            assert float(offered[code] - offered[codes[0, row, column]]) == pytest.approx(change, abs=1e-3)


def test_effort_zero_takes_the_nearest_codes(codec: ImageVQVAE) -> None:
    samples = to_samples(draw(64, 48, 5)[None])
    codes = pictures.find_codes(codec, samples, 0, pictures.Rates.of(codec))
    assert torch.equal(codes, codec.analyse(samples))


def test_effort_one_saves_bits(codec: ImageVQVAE) -> None:
    samples = to_samples(np.stack([draw(64, 64, n) for n in range(20, 40)]))
    rates = pictures.Rates.of(codec)
    nearest, cheap = (pictures.find_codes(codec, samples, effort, rates) for effort in (0, 1))
    assert total_bits(codec, cheap) < 0.99 * total_bits(codec, nearest)


@pytest.mark.parametrize("with_rates", [True, False])
def test_more_effort_costs_less(codec: ImageVQVAE, with_rates: bool) -> None:
    samples = to_samples(np.stack([draw(64, 64, n) for n in (20, 21)]))
    rates = pictures.Rates.of(codec) if with_rates else None

    def cost(effort: int) -> float:
        codes = pictures.find_codes(codec, samples, effort, rates)
        assert codes.shape == (2, 16, 16) and 0 <= codes.min() <= codes.max() < 64
        bits = total_bits(codec, codes) if with_rates else 0.0
        return error(codec, samples, codes) + pictures.RATE_WEIGHT * bits

    costs = [cost(effort) for effort in range(4)]
    assert max(costs[2:]) < costs[1] <= costs[0]
