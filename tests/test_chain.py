"""Priors over several planes: one after the other, in one stream."""

from __future__ import annotations

import math

import numpy as np
import pytest
from vqcodec.coding import driver
from vqcodec.errors import ModelError
from vqcodec.priors import chain, static
from vqcodec.priors.base import Symbols
from vqcodec.priors.chain import ChainPrior
from vqcodec.priors.static import StaticPrior

TOP, BOTTOM = 11, 17


def tables(seed: int = 0) -> ChainPrior:
    """Static tables of a top, and of a bottom given it, that no training made."""
    rng = np.random.default_rng(seed)
    classes = [rng.permutation(np.arange(n) % 3).astype(np.uint8) for n in (TOP, BOTTOM)]
    above = rng.permutation(np.arange(TOP) % 5).astype(np.uint8)
    top = StaticPrior(static.fit(rng.integers(0, 2000, (4, 4, TOP)) ** 2), classes[0], "top")
    counted = rng.integers(0, 2000, (5, 4, 4, BOTTOM)) ** 2
    return ChainPrior((top, StaticPrior(static.fit(counted), classes[1], "bottom", above, "top")))


def regions(seed: int = 0) -> list[Symbols]:
    """Also with an odd number of finer rows or columns."""
    rng = np.random.default_rng(seed)
    return [
        {
            "top": rng.integers(0, TOP, (-(-height // 2), -(-width // 2)), np.int32),
            "bottom": rng.integers(0, BOTTOM, (height, width), np.int32),
        }
        for height, width in [(8, 6), (7, 9), (1, 1), (2, 13)]
    ]


def empty(region: Symbols) -> Symbols:
    return {name: np.zeros_like(array) for name, array in region.items()}


def reference_bits(prior: ChainPrior, region: Symbols) -> float:
    """Code by code, straight from the tables."""
    bits = 0.0
    for link in prior.links:
        assert isinstance(link, StaticPrior)
        codes = region[link.plane]
        for i, j in np.ndindex(*codes.shape):
            table = link.tables
            if link.above is not None:
                table = table[link.above[region["top"][i // 2, j // 2]]]
            left = link.classes[codes[i, j - 1]] if j else 3
            upper = link.classes[codes[i - 1, j]] if i else 3
            bits -= math.log2((int(table[left, upper, codes[i, j]]) + 1) / 2**16)
    return bits


def test_planes_are_coded_one_after_the_other() -> None:
    prior, parts = tables(), regions()
    coded = driver.encode(prior, parts, 0)
    known = [empty(part) for part in parts]
    assert driver.decode(prior, [one.payload for one in coded], known, 0) == [True] * len(parts)
    for one, part, found in zip(coded, parts, known, strict=True):
        assert all(np.array_equal(found[name], part[name]) for name in part)
        assert one.bits == pytest.approx(reference_bits(prior, part))
        assert prior.estimate_bits(part) == pytest.approx(one.bits)
        assert driver.encode(prior, [part], 0)[0].payload == one.payload, "regions do not see each other"
    steps = [*prior.scan(known, 0).steps]
    assert [step.number for step in steps] == [*range(len(steps))]
    assert [step.plane for step in steps] == sorted((s.plane for s in steps), reverse=True)


def test_the_top_alone() -> None:
    """A rate without the bottom, and a preview that does not read it."""
    prior, parts = tables(), regions()
    alone = driver.encode(prior, [{"top": part["top"]} for part in parts], 0)
    both = driver.encode(prior, parts, 0)
    known = [empty(part) for part in parts]
    driver.decode(prior, [one.payload for one in both], known, 0, lambda step: step.plane != "top")
    for part, found, one in zip(parts, known, alone, strict=True):
        assert np.array_equal(found["top"], part["top"]) and not found["bottom"].any()
        assert prior.estimate_bits({"top": part["top"]}) == pytest.approx(one.bits)


def test_sampling_keeps_a_plane() -> None:
    prior, parts = tables(), regions()
    seeds = [(5, number) for number in range(len(parts))]
    new = driver.sample(prior, parts, {"top": 99, "bottom": 0}, seeds, 0)
    again = driver.sample(prior, parts, {"top": 99, "bottom": 0}, seeds, 0)
    for part, one, other in zip(parts, new, again, strict=True):
        assert np.array_equal(one["top"], part["top"]) and np.array_equal(one["bottom"], other["bottom"])
    assert not np.array_equal(new[0]["bottom"], parts[0]["bottom"])


def test_names_of_tensors() -> None:
    prior = tables()
    tensors = prior.to_tensors()
    assert sorted(tensors) == [
        "prior.bottom.above",
        "prior.bottom.classes",
        "prior.bottom.tables",
        "prior.top.classes",
        "prior.top.tables",
    ]
    top, bottom = (chain.of_plane(tensors, "prior", name) for name in ("top", "bottom"))
    read = ChainPrior(
        (StaticPrior.from_tensors(top, "top"), StaticPrior.from_tensors(bottom, "bottom", "top"))
    )
    parts = regions()
    payloads = [[one.payload for one in driver.encode(p, parts, 0)] for p in (prior, read)]
    assert payloads[0] == payloads[1]
    assert prior.prior_id == b"", "the model's fingerprint covers static tables"
    with pytest.raises(ModelError, match=r"prior\.above"):
        StaticPrior.from_tensors({n: a for n, a in bottom.items() if n != "prior.above"}, "bottom", "top")


def test_counts_given_a_coarser_plane() -> None:
    prior = tables().links[1]
    assert isinstance(prior, StaticPrior) and prior.above is not None
    parts = regions()
    pairs = [(part["bottom"], part["top"]) for part in parts]
    counted = static.counts_given(pairs, prior.classes, 3, prior.above, 5)
    assert counted.shape == (5, 4, 4, BOTTOM) and counted.sum() == sum(p["bottom"].size for p in parts)
    by_hand = np.zeros_like(counted)
    for part in parts:
        codes = part["bottom"]
        for i, j in np.ndindex(*codes.shape):
            left = prior.classes[codes[i, j - 1]] if j else 3
            upper = prior.classes[codes[i - 1, j]] if i else 3
            by_hand[prior.above[part["top"][i // 2, j // 2]], left, upper, codes[i, j]] += 1
    assert np.array_equal(counted, by_hand)
    assert (static.fit(counted).sum(-1, dtype=int) == 2**16 - BOTTOM).all()


def test_tables_that_do_not_fit_are_refused() -> None:
    prior = tables().links[1]
    assert isinstance(prior, StaticPrior) and prior.above is not None
    with pytest.raises(ModelError, match="do not match"):
        StaticPrior(prior.tables, prior.classes, "bottom")
    with pytest.raises(ModelError, match=r"prior\.above must be"):
        StaticPrior(prior.tables, prior.classes, "bottom", prior.above + np.uint8(1), "top")
