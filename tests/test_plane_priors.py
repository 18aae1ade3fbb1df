"""Learned priors of two planes are integers: attention over the top, the bottom given the top."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from coded import check_streams, tables_of
from vqcodec.coding import driver
from vqcodec.errors import ModelError
from vqcodec.priors import attention, conditional, exact
from vqcodec.priors.base import TOTAL, Symbols
from vqcodec.priors.chain import ChainPrior

TOP, BOTTOM = 19, 24
KINDS = pytest.mark.parametrize("kind", ["attention", "conditional"])


def network(kind: str, seed: int = 0) -> Any:
    """A small network in training, of random weights large enough to reach every limit."""
    torch.manual_seed(seed)
    top, bottom = torch.randn(TOP, 4), torch.randn(BOTTOM, 4)
    if kind == "attention":
        made: Any = attention.AttentivePixelCNN(attention.Config(8, 12, 6, 4, 2, 2, 4, 3), top)
    else:
        config = conditional.Config(8, 12, 6, 3, above_embedding=5, above_width=7, above_hidden=4)
        made = conditional.ConditionalPixelCNN(config, bottom, top)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(2.5).add_(0.1 * torch.randn_like(parameter))
    return made


def prior_of(kind: str) -> Any:
    from dataclasses import replace

    return replace(network(kind).export(), plane="top" if kind == "attention" else "bottom")


def chained() -> ChainPrior:
    return ChainPrior((prior_of("attention"), prior_of("conditional")))


def regions(seed: int = 0) -> list[Symbols]:
    """Also with odd numbers of finer rows, larger than a block of attention, and two that are alike."""
    rng = np.random.default_rng(seed)
    return [
        {
            "top": rng.integers(0, TOP, (-(-height // 2), -(-width // 2)), np.int32),
            "bottom": rng.integers(0, BOTTOM, (height, width), np.int32),
        }
        for height, width in [(10, 13), (1, 1), (70, 6), (3, 90), (70, 6)]
    ]


def act(x: np.ndarray) -> np.ndarray:
    return np.clip((x + 8) >> 4, 0, 127)


def reference(prior: Any, part: Symbols) -> np.ndarray:
    """Logits by the text of FORMAT-priors.md, in numpy's int64, one code after the other: [h, w, K]."""

    def layer(name: str, x: np.ndarray) -> np.ndarray:
        weight, bias, shift = (
            prior.arrays[f"{name}.{part}"].astype(np.int64) for part in ("weight", "bias", "shift")
        )
        return (weight @ x + bias) >> shift

    def add(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.clip(x + y, -(2**15), 2**15)

    table, codes = prior.arrays["embedding"].astype(np.int64), part[prior.plane]
    known = None if prior.plane == "top" else _known(prior, part, layer, add)
    order = sorted(np.ndindex(*codes.shape), key=lambda p: (p[1] + 2 * p[0], p[0]))
    maps: list[dict[tuple[int, ...], np.ndarray]] = [{} for _ in range(prior.blocks + 1)]
    memory: dict[int, list[tuple[tuple[int, ...], np.ndarray, np.ndarray]]] = {}
    logits = np.zeros((*codes.shape, prior.alphabet_size), np.int64)
    exponentials = np.rint(65536 * np.exp(-np.arange(256) / 16)).astype(np.int64)
    for i, j in order:
        near = [(i - 1, j - 1), (i - 1, j), (i - 1, j + 1), (i, j - 1)]
        code = table[codes[i, j]]
        x = layer("first", np.concatenate([maps[-1].get(p, 0 * code) for p in near]))
        if known is not None:
            x = add(x, known[i, j])
        for n in range(prior.blocks):
            if f"{n}.query.weight" in prior.arrays:
                heads, f = int(prior.arrays["heads"][0]), act(x)
                c = np.array([4 * (i % 32) - 62, 4 * (j % 32) - 62])
                query = np.clip(layer(f"{n}.query", np.concatenate((f, c))), -127, 127)
                seen = [
                    (k, v)
                    for (a, b), k, v in memory.setdefault(n, [])
                    if (a // 32, b // 32) == (i // 32, j // 32) and b + 2 * a < j + 2 * i
                ]
                key = np.clip(layer(f"{n}.key", np.concatenate((f, code, c))), -127, 127)
                value = np.clip(layer(f"{n}.value", np.concatenate((f, code))), -127, 127)
                mixed = np.zeros(len(value), np.int64)
                for h in range(heads if seen else 0):
                    s, v = (slice(h * len(y) // heads, (h + 1) * len(y) // heads) for y in (key, value))
                    scores = np.array([query[s] @ k[s] for k, _ in seen])
                    e = exponentials[np.minimum((scores.max() - scores) >> 6, 255)]
                    w = (e * (2**28 // e.sum())) >> 16
                    mixed[v] = (sum(a * b[v] for a, (_, b) in zip(w, seen, strict=True)) + 2048) >> 12
                x = add(x, layer(f"{n}.output", mixed))
                memory[n].append(((i, j), key, value))
            maps[n][i, j] = act(x)
            around = [maps[n].get(p, 0 * x) for p in (*near, (i, j))]
            inner = np.clip(layer(f"{n}.spatial", np.concatenate(around)), 0, 127)
            x = add(x, layer(f"{n}.pointwise", inner))
        logits[i, j] = layer("logits", act(x))
        maps[-1][i, j] = code
    return logits


def _known(prior: Any, part: Symbols, layer: Any, add: Any) -> np.ndarray:
    """What is known of the codes above: int64 [2 h, 2 w, C]."""

    def window(maps: np.ndarray, i: int, j: int) -> np.ndarray:
        return np.pad(maps, ((1, 1), (1, 1), (0, 0)))[i : i + 3, j : j + 3].reshape(-1)

    maps = prior.arrays["above_embedding"].astype(np.int64)[part["top"]]
    height, width = part["top"].shape
    grid = [*np.ndindex(height, width)]
    x = np.array([layer("above_first", window(maps, *p)) for p in grid])
    for n in range(prior.above_blocks):
        f = act(x).reshape(height, width, -1)
        inner = [np.clip(layer(f"above_spatial{n}", window(f, *p)), 0, 127) for p in grid]
        x = np.array([add(a, layer(f"above_pointwise{n}", h)) for a, h in zip(x, inner, strict=True)])
    below = np.array([layer("above_spread", a) for a in act(x)]).reshape(height, width, 2, 2, -1)
    return below.transpose(0, 2, 1, 3, 4).reshape(2 * height, 2 * width, -1)


@KINDS
def test_the_text_of_the_format_gives_the_same_frequencies(kind: str) -> None:
    prior, parts = prior_of(kind), regions()
    for part, table in zip(parts, tables_of(prior, parts), strict=True):
        logits = reference(prior, part).reshape(-1, prior.alphabet_size).astype(np.float32)
        assert np.array_equal(exact.frequencies(logits), table.reshape(-1, prior.alphabet_size))


@KINDS
def test_training_sees_the_numbers_of_coding(kind: str) -> None:
    """The eager network, all codes at once, against the cached one, code by code."""
    trained, parts, prior = network(kind), regions(), prior_of(kind)
    for part, table in zip(parts, tables_of(prior, parts), strict=True):
        inputs = [torch.from_numpy(part[prior.plane]).long()[None]]
        if kind == "conditional":
            inputs.append(torch.from_numpy(part["top"]).long()[None])
        with torch.no_grad():
            logits = trained(*inputs)[0]
        whole = (logits * 2**exact.LOGIT_BITS).flatten(1).t()
        assert torch.equal(whole, whole.round())
        assert np.array_equal(exact.frequencies(whole.numpy()), table.reshape(-1, prior.alphabet_size))


@pytest.mark.parametrize("threads", [1, 2])
def test_dtypes_threads_and_batches(threads: int) -> None:
    """Streams of both planes; one written under any is read under any other."""
    check_streams(chained(), regions(), threads)


def test_payload_is_near_the_ideal() -> None:
    coded = driver.encode(chained(), regions()[2:], 0)
    paid, ideal = sum(len(one.payload) for one in coded), sum(one.bits for one in coded)
    assert 8 * paid <= 1.002 * ideal + 64 * len(coded)


def test_faster_products_elsewhere_are_not_ours() -> None:
    """A program that allows less exact products still decodes the same codes."""
    prior, parts = chained(), regions()
    expected = [one.payload for one in driver.encode(prior, parts, 0)]
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert [one.payload for one in driver.encode(prior, parts, 0)] == expected
    finally:
        torch.set_float32_matmul_precision("highest")


def test_sampling_by_plane() -> None:
    """The top alone is greedy; a seed gives the same codes in another dtype."""
    prior, parts = chained(), regions()[:2]
    seeds = [(3, n) for n in range(len(parts))]
    none = {"top": 0, "bottom": 0}
    greedy = driver.sample(prior.reshaped(1.0, 1, "top"), parts, none, seeds, 0)
    other = driver.sample(prior.reshaped(1.0, 1, "top"), parts, none, [(4, n) for n in (0, 1)], 0)
    assert all(np.array_equal(a["top"], b["top"]) for a, b in zip(greedy, other, strict=True))
    assert not np.array_equal(greedy[0]["bottom"], other[0]["bottom"])
    wide = prior.with_dtype(torch.float64)
    for one, again in zip(
        driver.sample(prior, parts, none, seeds, 0), driver.sample(wide, parts, none, seeds, 0), strict=True
    ):
        assert all(np.array_equal(one[name], again[name]) for name in one)


@KINDS
def test_a_training_continues_from_the_integers(kind: str) -> None:
    first, second = network(kind), network(kind, seed=1)
    prior = first.export()
    second.take(prior)
    again = second.export()
    assert prior.arrays.keys() == again.arrays.keys()
    parts = regions()[:1]
    from dataclasses import replace

    plane = "top" if kind == "attention" else "bottom"
    tables = [tables_of(replace(p, plane=plane), parts)[0] for p in (prior, again)]
    assert np.array_equal(*tables)


@KINDS
def test_gradients_reach_every_layer(kind: str) -> None:
    made = network(kind)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(0.3)
    part = regions()[0]
    inputs = [torch.from_numpy(part["top" if kind == "attention" else "bottom"]).long()[None]]
    if kind == "conditional":
        inputs.append(torch.from_numpy(part["top"]).long()[None])
    logits = made(*inputs)
    torch.nn.functional.cross_entropy(logits, inputs[0]).backward()
    missing = [n for n, p in made.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not missing


@pytest.mark.parametrize("count", [1, 2, 33, 1024])
def test_shares_of_attention(count: int) -> None:
    """Softmax within a 16th of a nat; sums that float32 holds."""
    rng = np.random.default_rng(count)
    scores = torch.from_numpy(rng.integers(-(2**14), 2**14, (5, count)).astype(np.float32))
    found = exact.shares(scores)
    assert torch.equal(found, found.round()) and (found.sum(1) <= exact.SHARES).all()
    assert (found.sum(1) >= exact.SHARES - count).all()
    likely = torch.softmax(scores.double() / 1024, 1)
    assert (found / exact.SHARES - likely).abs().max() < 0.07
    assert torch.equal(found, exact.shares(scores.double()).float())
    assert exact.SHARES * exact.INPUT < exact.EXACT


def test_the_gradient_is_taken_of_nearly_the_attention_of_coding() -> None:
    source = torch.Generator().manual_seed(5)
    query, key = ((torch.randn(2, 3, 40, 4, generator=source) * 32).round() / 16 for _ in range(2))
    value = (torch.randn(2, 3, 40, 6, generator=source) * 16).round() / 16
    before = torch.ones(40, 40).tril(-1).bool()
    for given in (query, key, value):
        given.requires_grad_()
    soft = attention.attend(query, key, value, before)
    soft.square().sum().backward()
    with torch.no_grad():
        whole = attention.attend(query, key, value, before)
    assert 0 < float((soft - whole).detach().square().mean().sqrt()) < 0.5 * 2.0**-exact.ACTIVATION_BITS
    assert not soft[:, :, 0].any() and not whole[:, :, 0].any()  # the first position has none before it
    assert all(float(given.grad[:, :, 1:].abs().sum()) > 0 for given in (query, key, value))
    assert not key.grad[:, :, -1].any() and not value.grad[:, :, -1].any()  # nor any that follow the last


def test_priors_that_do_not_fit_are_refused() -> None:
    arrays = dict(prior_of("attention").arrays)
    with pytest.raises(ModelError, match="heads"):
        attention.AttentivePixelCNNPrior({n: a for n, a in arrays.items() if n != "heads"})
    with pytest.raises(ModelError, match="split into 3 heads"):
        attention.AttentivePixelCNNPrior({**arrays, "heads": np.array([3], np.int32)})
    arrays = dict(prior_of("conditional").arrays)
    with pytest.raises(ModelError, match="codes above"):
        conditional.ConditionalPixelCNNPrior({**arrays, "above_embedding": np.zeros((2, 2), np.int16)})
    with pytest.raises(ModelError, match="above_first"):
        conditional.ConditionalPixelCNNPrior({**arrays, "above_embedding": np.zeros((TOP, 6), np.int8)})


def test_attention_matters() -> None:
    """A far code of the block changes the frequencies, one of another block or of a later step does not."""
    prior = prior_of("attention")
    codes = np.random.default_rng(0).integers(0, TOP, (40, 40)).astype(np.int32)

    def at(i: int, j: int, changed: tuple[int, int]) -> bool:
        other = codes.copy()
        other[changed] = (other[changed] + 7) % TOP
        a, b = (tables_of(prior, [{"top": c}])[0][i, j] for c in (codes, other))
        assert a.sum() == TOTAL
        return not np.array_equal(a, b)

    assert at(30, 5, (2, 28))
    assert not at(2, 28, (20, 1)), "a later step"
