"""Gaussian scale mixtures: tables in integers, and weights by online EM."""

from __future__ import annotations

import math
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_gaussian import SHAPE, mixture, prior
from vqcodec.errors import ModelError
from vqcodec.models.rate_distortion import likelihood
from vqcodec.priors import gaussian_tables, scale_mixtures
from vqcodec.priors.base import TOTAL
from vqcodec.priors.gaussian import GaussianPrior
from vqcodec.priors.scale_mixtures import OFFSETS, ScaleMixtures, plain


def sigma(index: int) -> float:
    return float(2 ** ((3 * index - 53) / 16))


def gaussian(scale: float, largest: int) -> np.ndarray:
    edges = torch.arange(-largest, largest + 2, dtype=torch.float64) - 0.5
    found: np.ndarray = torch.distributions.Normal(0.0, scale).cdf(edges).diff().numpy()
    return found


def test_tables_are_mixtures() -> None:
    weights = mixture(1, 5)[0]
    found = scale_mixtures.tables(weights)
    assert found.tables[0] is None and found.empty[0]
    for index in range(1, 64, 6):
        table = found.of(index)
        largest = len(table) // 2 - 1
        assert table.sum(dtype=np.int64) == TOTAL and table.min() >= gaussian_tables.FLOOR
        assert np.array_equal(table[:largest], table[2 * largest : largest : -1])
        each = [gaussian(sigma(min(max(index + o, 1), 63)), largest) for o in OFFSETS]
        mass = (weights[index][:, None] / 4096 * np.stack(each)).sum(0)
        assert np.abs(table[:-1] / TOTAL - mass).max() < 1e-2 * mass.max()


def test_whole_numbers_give_the_same_tables() -> None:
    """The arithmetic of FORMAT-priors.md once more, in Python's integers."""
    weights = mixture(1, 6)[0]
    found, gaussians = scale_mixtures.tables(weights), gaussian_tables.tables()
    for index in (1, 7, 30, 63):
        row = [int(w) for w in weights[index]]
        parts = [gaussians.of(min(max(index + o, 1), 63)).tolist() for o in OFFSETS]
        used = [(w, part) for w, part in zip(row, parts, strict=True) if w]
        largest = max(len(part) // 2 - 1 for _, part in used)
        masses = []
        for k in range(largest + 1):
            inside = [(w, part[len(part) // 2 - 1 + k]) for w, part in used if k <= len(part) // 2 - 1]
            masses.append(sum(w * (f - 16) for w, f in inside))
        whole = masses[0] + 2 * sum(masses[1:])
        size = 2**24 - 16 * (2 * largest + 2)
        expected = [16 + (2 * mass * size + whole) // (2 * whole) for mass in masses]
        expected[0] = 2**24 - 2 * sum(expected[1:]) - 16
        assert found.of(index).tolist() == [*expected[:0:-1], *expected, 16]


def test_tables_of_mixtures_are_part_of_the_format() -> None:
    tables = scale_mixtures.tables(mixture(1, 7)[0])
    whole = np.concatenate([table for table in tables.tables if table is not None])
    assert zlib.crc32(whole.astype("<u4").tobytes()) == 1633333876


def test_one_component_is_a_gaussian() -> None:
    tables, gaussians = scale_mixtures.tables(plain(1)[0]), gaussian_tables.tables()
    assert all(np.array_equal(tables.of(i), gaussians.of(i)) for i in range(1, 64))
    old = prior()
    arrays = {name: array for name, array in old.arrays.items() if name != "mixture"}
    assert np.array_equal(GaussianPrior(arrays, shape=SHAPE).mixture, plain(len(SHAPE.steps)))


def test_mixtures_that_do_not_fit_are_refused() -> None:
    arrays = dict(prior().arrays)
    good = arrays["mixture"]
    for bad in (good[1:], good.astype(np.int32), good[:, :, 1:]):
        with pytest.raises(ModelError, match="mixture is no uint16"):
            GaussianPrior({**arrays, "mixture": bad}, shape=SHAPE)
    bad = good.copy()
    bad[0, 5, 2] += 1
    with pytest.raises(ModelError, match="do not sum to one"):
        GaussianPrior({**arrays, "mixture": bad}, shape=SHAPE)


def test_weights_follow_what_is_coded() -> None:
    """Online EM of symbols of two deviations comes to the bits of their own distribution."""
    index, share, rng = 20, 0.8, np.random.default_rng(0)
    scale = torch.full((4000,), (3 * index - 53) / 16)
    trained = ScaleMixtures(2)

    def symbols() -> torch.Tensor:
        wide = np.where(rng.random(4000) < share, sigma(index - 3), sigma(index + 6))
        return torch.from_numpy(np.rint(rng.normal(size=4000) * wide)).float()

    for _ in range(400):
        counts = torch.stack([trained.counts(symbols(), scale), torch.zeros(64, 256)])
        trained.update(counts[None])
    weights = trained.export()
    assert (weights.sum(2) == 4096).all() and np.array_equal(weights[1], plain(2)[1])
    assert np.array_equal(weights[0, :index], plain(1)[0, :index]), "of another index"
    largest = 60
    true = share * gaussian(sigma(index - 3), largest) + (1 - share) * gaussian(sigma(index + 6), largest)
    table = scale_mixtures.tables(weights[0]).of(index)[:-1] / TOTAL
    middle = len(table) // 2
    found = np.maximum(np.pad(table, largest)[middle : middle + 2 * largest + 1], 1e-6)
    entropy = -(true * np.log2(true + 1e-300)).sum()
    assert -(true * np.log2(found)).sum() < 1.003 * entropy
    plainly = np.maximum(gaussian(sigma(index), largest), 1e-6)
    assert -(true * np.log2(plainly)).sum() > 1.05 * entropy


def test_training_measures_the_bits_of_coding() -> None:
    weights = mixture(1, 8)
    trained = ScaleMixtures(1)
    trained.take(weights)
    assert np.array_equal(trained.export()[0], weights[0])
    tables = scale_mixtures.tables(weights[0])
    for index in (1, 9, 33, 47, 50):
        symbols = torch.arange(-3, 4).float()
        log2_scale = torch.full((7,), (3 * index - 53) / 16)
        shares, scales = trained.of(0, log2_scale)
        bits = -likelihood(symbols, scales, shares).log2()
        coded = tables.bits(symbols.numpy().astype(np.int32), np.full(7, index, np.uint8))
        if index < scale_mixtures.MIXED_LEVELS:
            assert bits.numpy() == pytest.approx(coded, abs=0.03)
        else:
            assert bits[3].item() == pytest.approx(-np.log2(gaussian(sigma(index), 0)[0]), abs=0.01)


def test_weights_that_are_not_used_stay() -> None:
    """Their counts fade, below what float32 holds in the end."""
    weights = mixture(1, 3)
    trained = ScaleMixtures(1)
    trained.take(weights)
    seen = torch.zeros(1, 1, 64, 256)
    seen[0, 0, 20, :9] = 50.0
    for _ in range(25_000):
        trained.update(seen)
    after = trained.export()
    assert (after.sum(2) == 4096).all()
    moved = np.abs(after[0].astype(int) - weights[0]).max(1)
    assert moved[20] > 1000 and np.delete(moved, 20).max() < 500


def test_divergence_is_left_to_the_loss() -> None:
    broken = torch.tensor([math.nan, math.inf, -math.inf, 1e30, 2.0])
    counts = ScaleMixtures(1).counts(broken, torch.tensor([math.nan, 0.0, math.inf, 0.0, 0.0]))
    assert counts.sum() == 1 and counts[18, 2] == 1


def test_a_wider_prior_has_wider_mixtures() -> None:
    model = prior()
    nothing = {"y": np.zeros((3, 3, SHAPE.channels), np.int16)}
    scans = [one.scan([nothing], 90) for one in (model, replace(model, temperature=4.0))]
    first, second = (next(iter(scan.models(next(iter(scan.steps))))) for scan in scans)
    assert second.scale_indexes.mean() > first.scale_indexes.mean() + 3
    same = zip(first.tables.tables[1:], second.tables.tables[1:], strict=True)
    assert all(np.array_equal(a, b) for a, b in same)
