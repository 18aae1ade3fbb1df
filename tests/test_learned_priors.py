"""Learned priors are integers: every way of computing them gives the same codes."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest
import torch
from coded import tables_of
from hypothesis import given, settings
from hypothesis import strategies as st
from one_plane import compress, decompress, draw
from vqcodec.errors import DamagedError, ModelError
from vqcodec.priors import base, exact, pixelcnn, wavenet
from vqcodec.priors.base import TOTAL
from vqcodec.priors.learned import LearnedPrior

LEVELS = 24


def network(kind: str, seed: int = 0) -> Any:
    """A small network in training, of random weights large enough to reach every limit."""
    torch.manual_seed(seed)
    codebook = torch.randn(LEVELS, 4)
    if kind == "pixelcnn":
        made: Any = pixelcnn.PixelCNN(pixelcnn.Config(8, 12, 6, 3), codebook)
    else:
        made = wavenet.WaveNet(wavenet.Config(8, 6, 3, 2), codebook)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(2.5).add_(0.1 * torch.randn_like(parameter))
    return made


def regions(kind: str, seed: int = 0) -> list[base.Codes]:
    rng = np.random.default_rng(seed)
    shapes: list[tuple[int, ...]] = [(9, 7), (1, 5), (6, 1), (4, 13)]
    if kind == "wavenet":
        shapes = [(40,), (1,), (17,)]
    return [rng.integers(0, LEVELS, shape).astype(np.int32) for shape in shapes]


def fixed(kind: str) -> list[base.Codes]:
    """Regions that no random numbers take part in."""
    return [(np.arange(r.size) ** 2 % 23).reshape(r.shape).astype(np.int32) for r in regions(kind)]


KINDS = pytest.mark.parametrize("kind", ["pixelcnn", "wavenet"])


def by_name(codes: list[base.Codes]) -> list[base.Symbols]:
    """The planes of regions of codes."""
    return [{"codes": region} for region in codes]


# what the arithmetic is


def test_exponentials() -> None:
    """round(65536 exp(-d / 16)), by another library."""
    table = exact._exponentials()
    assert np.array_equal(table, np.rint(65536 * np.exp(-np.arange(256) / 16)))


@given(st.lists(st.integers(-(2**14), 2**14), min_size=2, max_size=40), st.integers(2, 600))
@settings(deadline=None, max_examples=60)
def test_softmax_in_fixed_point(values: list[int], count: int) -> None:
    logits = np.resize(values, count).astype(np.float32)[None]
    found = exact.frequencies(logits)[0].astype(np.int64)
    assert found.min() >= 1 and found.sum() == TOTAL
    order = np.argsort(logits[0], kind="stable")
    assert (np.diff(found[order]) >= 0).all() or len(set(np.resize(values, count))) < count
    likely = torch.softmax(torch.from_numpy(logits[0]).double() / 16, 0).numpy()
    assert np.abs(found / TOTAL - likely).max() < 2e-4


def reference(prior: LearnedPrior, codes: np.ndarray) -> np.ndarray:
    """Logits by the text of FORMAT-priors.md, in numpy's int64, one code after the other: [*shape, K]."""

    def layer(name: str, x: np.ndarray) -> np.ndarray:
        weight, bias, shift = (
            prior.arrays[f"{name}.{part}"].astype(np.int64) for part in ("weight", "bias", "shift")
        )
        return (weight @ x + bias) >> shift

    def act(x: np.ndarray, low: int = 0) -> np.ndarray:
        return np.clip((x + 8) >> 4, low, 127)

    table = prior.arrays["embedding"].astype(np.int64)
    logits = np.zeros((*codes.shape, prior.alphabet_size), np.int64)
    if isinstance(prior, wavenet.WaveNetPrior):
        steps = np.arange(-511, 512) / 64
        tanh, sigmoid = np.rint(127 * np.tanh(steps)), np.rint(127 / (1 + np.exp(-steps)))
        past: list[list[np.ndarray]] = [[] for _ in prior.dilations]
        for t in range(len(codes)):
            x = table[codes[t - 1] if t else len(table) - 1] * 16
            total = np.zeros(1, np.int64)
            for number, dilation in enumerate(prior.dilations):
                now = act(x, -127)
                before = past[number][t - dilation] if t >= dilation else np.zeros_like(now)
                past[number].append(now)
                mixed = np.clip(layer(f"{number}.dilated", np.concatenate((before, now))), -511, 511) + 511
                half = len(mixed) // 2
                z = np.floor((tanh[mixed[:half]] * sigmoid[mixed[half:]] + 64) / 128).astype(np.int64)
                out = layer(f"{number}.output", z)
                x = np.clip(x + out[: len(x)], -(2**15), 2**15)
                skipped = out[len(x) :]
                total = np.clip(total + skipped, -(2**15), 2**15)
            logits[t] = layer("logits", act(layer("hidden", act(total))))
        return logits
    assert isinstance(prior, pixelcnn.PixelCNNPrior)
    height, width = codes.shape
    maps: list[dict[tuple[int, int], np.ndarray]] = [{} for _ in range(prior.blocks + 1)]
    for i in range(height):
        for j in range(width):
            near = [(i - 1, j - 1), (i - 1, j), (i - 1, j + 1), (i, j - 1)]
            x = layer("first", np.concatenate([maps[-1].get(p, 0 * table[0]) for p in near]))
            for number in range(prior.blocks):
                maps[number][i, j] = act(x)
                seen = [maps[number].get(p, 0 * x) for p in (*near, (i, j))]
                inner = np.clip(layer(f"{number}.spatial", np.concatenate(seen)), 0, 127)
                x = np.clip(x + layer(f"{number}.pointwise", inner), -(2**15), 2**15)
            logits[i, j] = layer("logits", act(x))
            maps[-1][i, j] = table[codes[i, j]]
    return logits


@KINDS
def test_the_text_of_the_format_gives_the_same_frequencies(kind: str) -> None:
    prior, codes = network(kind).export(), regions(kind)
    for region, table in zip(codes, tables_of(prior, by_name(codes)), strict=True):
        logits = reference(prior, region).reshape(-1, LEVELS).astype(np.float32)
        assert np.array_equal(exact.frequencies(logits), table.reshape(-1, LEVELS))


@KINDS
def test_training_sees_the_numbers_of_coding(kind: str) -> None:
    """The eager network, all codes at once, against the cached one, code by code."""
    trained, codes = network(kind), regions(kind)
    for region, table in zip(codes, tables_of(trained.export(), by_name(codes)), strict=True):
        with torch.no_grad():
            logits = trained(torch.from_numpy(region).long()[None])[0]
        whole = (logits * 2**exact.LOGIT_BITS).flatten(1).t()
        assert torch.equal(whole, whole.round())
        assert np.array_equal(exact.frequencies(whole.numpy()), table.reshape(-1, LEVELS))


@KINDS
@pytest.mark.parametrize("threads", [1, 2])
def test_dtypes_threads_and_batches(kind: str, threads: int) -> None:
    """A stream written under any is read under any other."""
    prior, codes = network(kind).export(), regions(kind)
    shapes = [region.shape for region in codes]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        narrow, wide = (compress(prior.with_dtype(c), codes) for c in (torch.float32, torch.float64))
        assert narrow == wide
        alone = [compress(prior, [region])[0] for region in codes]
        assert alone == narrow
    finally:
        torch.set_num_threads(before)
    read = decompress(prior.with_dtype(torch.float64), narrow, shapes)
    assert all(np.array_equal(a, b) for a, b in zip(read, codes, strict=True))


@KINDS
def test_faster_products_elsewhere_are_not_ours(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that allows less exact products still decodes the same codes, and keeps its choice."""
    prior, codes = network(kind).export(), regions(kind)
    expected = compress(prior, codes)
    seen = []
    inside = exact.IntegerLinear.__call__

    def watched(layer: exact.IntegerLinear, x: torch.Tensor) -> torch.Tensor:
        products = torch.backends.mkldnn.matmul.fp32_precision
        seen.append((products, torch.is_autocast_enabled("cpu")))
        return inside(layer, x)

    monkeypatch.setattr(exact.IntegerLinear, "__call__", watched)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert compress(prior, codes) == expected
            assert torch.is_autocast_enabled("cpu")
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert set(seen) == {("bf16", False)}


@KINDS
def test_a_frozen_example(kind: str) -> None:
    """Integers made without torch give the bytes they always gave."""
    written = b"".join(compress(fixed_prior(kind), fixed(kind)))
    assert zlib.crc32(written) == FROZEN[kind]


def fixed_prior(kind: str) -> LearnedPrior:
    """A prior that no random numbers take part in."""
    arrays = {
        name: np.full_like(array, 6)
        if array.dtype == np.uint8
        else (np.arange(array.size) ** 2 % 181 - 90).reshape(array.shape).astype(array.dtype)
        for name, array in network(kind).export().arrays.items()
    }
    if kind == "wavenet":
        arrays["dilations"] = np.array([1, 2, 4, 1, 2, 4], np.int32)
        return wavenet.WaveNetPrior(arrays)
    return pixelcnn.PixelCNNPrior(arrays)


DRAWN = {"pixelcnn": 18653348, "wavenet": 3566532226}
FROZEN = {"pixelcnn": 1724730344, "wavenet": 2769727262}


# what is refused


def test_sums_that_float32_does_not_hold_are_refused() -> None:
    weight = np.full((1, 1100), 127, np.int8)
    with pytest.raises(ModelError, match="exact"):
        exact.IntegerLinear(weight, np.zeros(1, np.int32), np.zeros(1, np.uint8))
    exact.IntegerLinear(weight[:, :1000], np.zeros(1, np.int32), np.zeros(1, np.uint8))
    with pytest.raises(ModelError, match="exact"):
        exact.IntegerLinear(weight[:, :1], np.full(1, 2**24, np.int32), np.zeros(1, np.uint8))
    layer = exact.QATLinear(1100, 2, 4, 4)
    with torch.no_grad():
        layer.weight.fill_(1.98)
    with pytest.raises(ModelError, match="exact"):
        layer.export()


@KINDS
def test_priors_with_parts_missing_or_misshapen(kind: str) -> None:
    prior = network(kind).export()
    make = type(prior)
    for name in prior.arrays:
        with pytest.raises(ModelError):
            make({key: array for key, array in prior.arrays.items() if key != name})
        with pytest.raises(ModelError):
            make(prior.arrays | {name: prior.arrays[name][:-1].astype(np.float32)})
    with pytest.raises(ModelError):
        make(prior.arrays | {"logits.weight": prior.arrays["logits.weight"][:, :-1]})
    with pytest.raises(ModelError):
        make(prior.arrays | {"logits.bias": prior.arrays["logits.bias"][:, None]})
    with pytest.raises(ModelError):
        make({name: array for name, array in prior.arrays.items() if not name.startswith("logits.")})


def test_all_layers_of_a_wavenet_have_one_skip() -> None:
    arrays = dict(network("wavenet").export().arrays)
    for part in ("weight", "bias", "shift"):
        arrays[f"0.output.{part}"] = arrays[f"0.output.{part}"][:-1]
    with pytest.raises(ModelError, match=r"0\.output|1\.output"):
        wavenet.WaveNetPrior(arrays)


@KINDS
def test_damage(kind: str) -> None:
    """Other bytes give other codes in range, or an error; never anything else."""
    prior, codes = network(kind).export(), regions(kind)
    shapes = [region.shape for region in codes]
    payloads = compress(prior, codes)
    rng = np.random.default_rng(0)
    for _ in range(20):
        broken = bytearray(payloads[0])
        broken[rng.integers(len(broken))] ^= 1 << rng.integers(8)
        try:
            found = decompress(prior, [bytes(broken), *payloads[1:]], shapes)
        except DamagedError:
            continue
        assert all(np.array_equal(a, b) for a, b in zip(found[1:], codes[1:], strict=True))
        assert found[0].min() >= 0 and found[0].max() < LEVELS


# going on from integers


@KINDS
def test_a_network_goes_on_from_the_integers_of_another(kind: str) -> None:
    prior = network(kind, 1).export()
    other = network(kind, 2)
    other.take(prior)
    again = other.export()
    assert again.fingerprint == prior.fingerprint
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    longer: Any = wavenet.Config(8, 6, 3, 1) if kind == "wavenet" else pixelcnn.Config(8, 12, 6, 4)
    with pytest.raises(ValueError, match="other"):
        other.take(type(other)(longer, torch.randn(LEVELS, 4)).export())
    assert all(torch.equal(before[name], tensor) for name, tensor in other.state_dict().items())
    assert all(np.array_equal(again.arrays[name], array) for name, array in prior.arrays.items())


@KINDS
def test_gradients_reach_every_weight(kind: str) -> None:
    made: Any = network(kind)
    codes = torch.from_numpy(regions(kind)[0]).long()[None]
    torch.nn.functional.cross_entropy(made(codes), codes).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in made.parameters())


# drawing


@KINDS
def test_drawing(kind: str) -> None:
    prior, known = network(kind).export(), regions(kind)
    seeds = [(3, number) for number in range(len(known))]
    drawn = draw(prior, known, 0, seeds)
    assert [region.shape for region in drawn] == [region.shape for region in known]
    for one, other in zip(drawn, draw(prior.with_dtype(torch.float64), known, 0, seeds), strict=True):
        assert np.array_equal(one, other)
    alone = draw(prior, known[2:3], 0, seeds[2:3])
    assert np.array_equal(alone[0], drawn[2])
    assert not np.array_equal(draw(prior, known, 0, [(4, n) for n in range(len(known))])[0], drawn[0])
    kept = draw(prior, known, 3, seeds)
    for region, given_ in zip(kept, known, strict=True):
        assert np.array_equal(region[:3], given_[:3])
    steady = draw(fixed_prior(kind), fixed(kind), 0, [(1, number) for number in range(len(known))])
    assert zlib.crc32(b"".join(region.astype("<i4").tobytes() for region in steady)) == DRAWN[kind]
    greedy = draw(prior.reshaped(1.0, 1), known, 0, seeds)
    for region, table in zip(greedy, tables_of(prior, by_name(greedy)), strict=True):
        assert (np.take_along_axis(table, region[..., None], -1)[..., 0] + 1000 > table.max(-1)).all()


def test_drawing_follows_the_probabilities() -> None:
    """The first code of many regions, against its frequencies."""
    prior = network("pixelcnn").export()
    known = [np.zeros((1, 1), np.int32)] * 4000
    drawn = np.concatenate(draw(prior, known, 0, [(0, n) for n in range(4000)])).ravel()
    expected = tables_of(prior, by_name(known[:1]))[0][0, 0] / TOTAL
    found = np.bincount(drawn, minlength=LEVELS) / 4000
    assert np.abs(found - expected).max() < 4 * np.sqrt(0.25 / 4000)
    cold = np.concatenate(draw(prior.reshaped(0.25, None), known, 0, [(0, n) for n in range(4000)])).ravel()
    assert np.bincount(cold).max() > 1.5 * np.bincount(drawn).max()
