"""The n-gram model of residual levels is integers: every way of computing them gives the same codes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from coded import check_streams, tables_of
from vqcodec.coding import driver
from vqcodec.errors import ModelError, UsageError
from vqcodec.priors import exact, ngram, wavenet
from vqcodec.priors.base import Symbols
from vqcodec.priors.chain import ChainPrior

SIZE, PERIOD, HISTORY = 24, 3, 5
NAMES = ("level1", "level2", "level3")
CONFIG = ngram.Config(PERIOD, HISTORY, 5, 7, 9, 2, 4, 8, 6, 2)
LEVELS = pytest.mark.parametrize("level", [1, 2])


def network(level: int, seed: int = 0) -> ngram.NGram:
    """A small network in training, of random weights large enough to reach every limit."""
    torch.manual_seed(seed)
    made = ngram.NGram(CONFIG, *(torch.randn(SIZE, 4) for _ in range(level + 1)))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(2.5).add_(0.1 * torch.randn_like(parameter))
    return made


def prior_of(level: int, seed: int = 0) -> ngram.NGramPrior:
    return replace(network(level, seed).export(), plane=NAMES[level])


def chained() -> ChainPrior:
    torch.manual_seed(3)
    first = wavenet.WaveNet(wavenet.Config(8, 6, 3, 2), torch.randn(SIZE, 4)).export()
    return ChainPrior((replace(first, plane=NAMES[0]), prior_of(1), prior_of(2)))


def regions(seed: int = 0) -> list[Symbols]:
    """Also shorter than a block, and of no whole number of blocks."""
    rng = np.random.default_rng(seed)
    return [{name: rng.integers(0, SIZE, n).astype(np.int32) for name in NAMES} for n in (38, 1, 0, 12)]


def inputs(level: int, part: Symbols) -> list[torch.Tensor]:
    """What the network in training is given."""
    return [torch.from_numpy(part[NAMES[n]]).long()[None] for n in (level, *range(level))]


def reference(prior: ngram.NGramPrior, part: Symbols) -> np.ndarray:
    """Logits by the text of FORMAT-priors.md, in numpy's int64, one code after the other: [T, K]."""

    def layer(name: str, x: np.ndarray) -> np.ndarray:
        weight, bias, shift = (
            prior.arrays[f"{name}.{part}"].astype(np.int64) for part in ("weight", "bias", "shift")
        )
        return (weight @ x + bias) >> shift

    def act(x: np.ndarray) -> np.ndarray:
        return np.clip((x + 8) >> 4, 0, 127)

    def add(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.clip(x + y, -(2**15), 2**15)

    def window(rows: list[np.ndarray], at: int, radius: int) -> np.ndarray:
        none = np.zeros_like(rows[0])
        return np.concatenate(
            [rows[n] if 0 <= n < len(rows) else none for n in range(at - radius, at + radius + 1)]
        )

    own, other = (prior.arrays[n].astype(np.int64) for n in ("embedding", "known_embedding"))
    level, codes = NAMES.index(prior.plane), part[prior.plane]
    count = -(-len(codes) // PERIOD)
    none = np.zeros(other.shape[1], np.int64)
    blocks = [
        np.concatenate(
            [
                other[(n * PERIOD + q) * SIZE + part[NAMES[n]][b * PERIOD + q]]
                if b * PERIOD + q < len(codes)
                else none
                for n in range(level)
                for q in range(PERIOD)
            ]
        )
        for b in range(count)
    ]
    y = [layer("known_first", window(blocks, b, 2)) for b in range(count)]
    for n in range(CONFIG.known_blocks):
        f = [act(v) for v in y]
        h = [np.clip(layer(f"known_window{n}", window(f, b, 1)), 0, 127) for b in range(count)]
        y = [add(v, layer(f"known_pointwise{n}", w)) for v, w in zip(y, h, strict=True)]
    known = np.array([layer("known_last", act(v)) for v in y]).reshape(count * PERIOD, -1)
    logits, before = [], [np.zeros(own.shape[1], np.int64)] * HISTORY
    for t, code in enumerate(codes):
        x = add(known[t], layer("enter", np.concatenate(before[-HISTORY:])))
        for n in range(CONFIG.blocks):
            x = add(x, layer(f"contract{n}", np.clip(layer(f"expand{n}", act(x)), 0, 127)))
        place = t % PERIOD * SIZE
        logits.append(layer("logits", act(x))[place : place + SIZE])
        before.append(own[place + code])
    return np.array(logits).reshape(len(codes), SIZE)


@LEVELS
def test_the_text_of_the_format_gives_the_same_frequencies(level: int) -> None:
    prior, parts = prior_of(level), regions()
    for part, table in zip(parts, tables_of(prior, parts), strict=True):
        if len(table):
            assert np.array_equal(exact.frequencies(reference(prior, part).astype(np.float32)), table)


@LEVELS
def test_training_sees_the_numbers_of_coding(level: int) -> None:
    trained, parts, prior = network(level), regions(), prior_of(level)
    for part, table in zip(parts, tables_of(prior, parts), strict=True):
        if not len(table):
            continue
        with torch.no_grad():
            whole = (trained(*inputs(level, part))[0] * 2**exact.LOGIT_BITS).t()
        assert torch.equal(whole, whole.round())
        assert np.array_equal(exact.frequencies(whole.numpy()), table)


@LEVELS
def test_codes_depend_on_those_before_and_on_all_of_other_levels(level: int) -> None:
    """Of its own level the last HISTORY codes alone, of the levels before also what follows."""
    prior, part = prior_of(level), regions()[0]
    tables = tables_of(prior, [part])[0]

    def changed(name: str, at: int) -> set[int]:
        codes = part[name].copy()
        codes[at] = (codes[at] + 5) % SIZE
        other = tables_of(prior, [{**part, name: codes}])[0]
        return {*np.flatnonzero((tables != other).any(1)).tolist()}

    own, before = changed(NAMES[level], 20), changed(NAMES[0], 20)
    assert own and own <= {*range(21, 21 + HISTORY)}
    assert min(before) < 20 < max(before)


@pytest.mark.parametrize("threads", [1, 2])
def test_dtypes_threads_and_batches(threads: int) -> None:
    """Streams of all levels; one written under any is read under any other."""
    check_streams(chained(), regions(), threads)


def test_a_prefix_of_the_levels_is_coded_alike() -> None:
    """Files of fewer levels have the same chain, and the same words in front."""
    prior, parts = chained(), regions()
    fewer = [{name: part[name] for name in NAMES[:2]} for part in parts]
    bits = [sum(one.bits for one in driver.encode(prior, some, 0)) for some in (fewer, parts)]
    assert 0 < bits[0] < bits[1]
    found = [{name: np.zeros_like(a) for name, a in part.items()} for part in fewer]
    assert all(driver.decode(prior, [one.payload for one in driver.encode(prior, fewer, 0)], found, 0))
    assert all(np.array_equal(a[n], b[n]) for a, b in zip(fewer, found, strict=True) for n in a)


@LEVELS
def test_a_training_continues_from_the_integers(level: int) -> None:
    second, prior, part = network(level, seed=1), prior_of(level), regions()[0]
    second.take(prior)
    again = replace(second.export(), plane=prior.plane)
    assert np.array_equal(tables_of(prior, [part])[0], tables_of(again, [part])[0])
    with pytest.raises(ValueError, match="another embedding"):
        network(3 - level).take(prior)


@LEVELS
def test_gradients_reach_every_layer(level: int) -> None:
    made, part = network(level), regions()[0]
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(0.3)
    given = inputs(level, part)
    torch.nn.functional.cross_entropy(made(*given), given[0]).backward()
    assert not [n for n, p in made.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


def test_a_histogram_counts_codes_by_their_place_in_a_block() -> None:
    counted = network(1).histogram(torch.tensor([[3, 4, 5, 3, 4, 4]])).view(PERIOD, SIZE)
    assert counted.sum() == 6
    assert counted[0, 3] == 2 and counted[1, 4] == 2 and counted[2, 5] == counted[2, 4] == 1


def test_priors_that_do_not_fit_are_refused() -> None:
    arrays: dict[str, Any] = dict(prior_of(1).arrays)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"known_embedding": np.zeros((SIZE * PERIOD, 4), np.int16)}, "must be int8"),
        ({"known_embedding": np.zeros((SIZE * PERIOD + 1, 4), np.int8)}, "embeddings of"),
        ({"known_embedding": np.zeros((SIZE * PERIOD, 5), np.int8)}, "known_first"),
        ({"embedding": np.zeros((SIZE * PERIOD, 6), np.int8)}, "layer of the codes before"),
        (
            {f"known_last.{part}": arrays[f"known_last.{part}"][1:] for part in ("weight", "bias", "shift")},
            "whole",
        ),
    ]
    for changes, message in wrong:
        with pytest.raises(ModelError, match=message):
            ngram.NGramPrior({**arrays, **changes})
    for layer in ("enter", "known_last", "contract1", "known_pointwise0"):
        with pytest.raises(ModelError):
            ngram.NGramPrior({n: a for n, a in arrays.items() if not n.startswith(f"{layer}.")})
    part = {name: array for name, array in regions()[0].items() if name != NAMES[0]}
    with pytest.raises(ModelError, match="given 1 planes, of which there are 0"):
        prior_of(1).scan([part], 0)


def test_settings_beyond_what_is_exact() -> None:
    with pytest.raises(UsageError, match="a layer of 1,215 inputs, limit 1,024"):
        ngram.NGram(replace(CONFIG, known_embedding=81), *[torch.randn(SIZE, 4)] * 2)
