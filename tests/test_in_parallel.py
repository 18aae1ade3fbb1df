"""Encoders compute the probabilities of all positions at once: the same as those of the scan that decodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from test_learned_priors import fixed_prior
from test_learned_priors import regions as codes_of
from test_ngram import chained as chained_levels
from test_ngram import regions as levels_of
from test_plane_priors import chained, prior_of
from test_plane_priors import regions as planes_of
from vqcodec.coding import driver
from vqcodec.priors import static
from vqcodec.priors.base import Symbols, slanted

SHAPES = (1, 1), (1, 9), (9, 1), (17, 6)
LENGTHS = 1, 2, 700


def table() -> static.StaticPrior:
    rng = np.random.default_rng(1)
    classes = rng.integers(0, 3, 24).astype(np.uint8)
    return static.StaticPrior(static.fit(rng.integers(0, 50, (4, 4, 24))), classes)


def cases() -> dict[str, tuple[Any, list[Symbols]]]:
    sequences = [{"codes": codes} for codes in codes_of("wavenet")]
    grids = [{"codes": codes} for codes in codes_of("pixelcnn")]
    rng = np.random.default_rng(0)
    return {
        "pixelcnn": (fixed_prior("pixelcnn"), grids),
        "wavenet": (fixed_prior("wavenet"), sequences),
        "attention": (prior_of("attention"), planes_of()),
        "conditional": (prior_of("conditional"), planes_of()),
        "chain": (chained(), planes_of()),
        "levels": (chained_levels(), levels_of()),
        "table of grids": (table(), [{"codes": rng.integers(0, 24, s, np.int32)} for s in SHAPES]),
        "table of sequences": (table(), [{"codes": rng.integers(0, 24, n, np.int32)} for n in LENGTHS]),
    }


CASES = cases()


def hidden(prior: Any, region: Symbols) -> Symbols:
    """A region whose codes a decoder does not know yet; a prior of one of two planes is given the other."""
    own = prior.by_plane if hasattr(prior, "by_plane") else {prior.plane}
    return {plane: codes * (plane not in own) for plane, codes in region.items()}


Coded = list[tuple[int, list[int]]]
"""Codes with their frequencies, in the order of coding."""


def by_scan(prior: Any, regions: list[Symbols]) -> list[Coded]:
    """What a decoder sees of regions side by side, step by step."""
    known = [hidden(prior, region) for region in regions]
    found: list[Coded] = [[] for _ in regions]
    scan = prior.scan(known, 0)
    for step in scan.steps:
        parts = zip(found, regions, known, step.positions, scan.models(step), strict=True)
        for coded, region, symbols, positions, model in parts:
            codes = symbols[step.plane][positions] = region[step.plane][positions]
            coded += [*zip(codes.tolist(), model.frequencies.tolist(), strict=True)]
    return found


def at_once(prior: Any, region: Symbols) -> Coded:
    return [
        pair
        for codes, model in prior.in_parallel(region)
        for pair in zip(codes.tolist(), model.frequencies.tolist(), strict=True)
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", CASES)
def test_the_same_frequencies_in_the_same_order(kind: str, dtype: torch.dtype) -> None:
    prior, regions = CASES[kind]
    prior = prior.with_dtype(dtype) if hasattr(prior, "with_dtype") else prior
    assert [at_once(prior, region) for region in regions] == by_scan(prior, regions)


@pytest.mark.parametrize("kind", sorted({*CASES} - {"conditional"}))
def test_the_same_bytes_which_decode(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    prior, regions = CASES[kind]
    in_parallel = driver.encode(prior, regions, 0)
    known = [hidden(prior, region) for region in regions]
    assert all(driver.decode(prior, [one.payload for one in in_parallel], known, 0))
    for region, decoded in zip(regions, known, strict=True):
        assert all(np.array_equal(decoded[plane], codes) for plane, codes in region.items())
    monkeypatch.setattr(driver, "_encode_in_parallel", lambda *_: None)
    by_steps = driver.encode(prior, regions, 0)
    assert [one.payload for one in in_parallel] == [one.payload for one in by_steps]
    assert [one.bits for one in in_parallel] == pytest.approx([one.bits for one in by_steps])


def test_a_chain_scans_where_a_link_has_to(monkeypatch: pytest.MonkeyPatch) -> None:
    prior = chained()
    monkeypatch.setattr(type(prior.links[0]), "in_parallel", lambda self, symbols: None)
    assert prior.in_parallel(planes_of()[0]) is None
    assert all(one.payload for one in driver.encode(prior, planes_of(), 0))


@pytest.mark.parametrize(("slope", "order"), [(1, [0, 1, 3, 2, 4, 5]), (2, [0, 1, 2, 3, 4, 5])])
def test_order_of_slanted_steps(slope: int, order: list[int]) -> None:
    assert slanted((2, 3), slope).tolist() == order
