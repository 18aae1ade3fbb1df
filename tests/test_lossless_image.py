"""Pixels coded without loss, from coarse to fine: tables, networks in integers, round trips, damage."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import vqcodec
from conftest import draw
from vqcodec import pipeline, training, weights
from vqcodec.bitstream import container
from vqcodec.bitstream.container import LEARNED, LEARNED_PIXELS, WEBP, Part
from vqcodec.coding import driver, learned_pixels
from vqcodec.errors import DamagedError, ModelError
from vqcodec.models import lossless
from vqcodec.priors import logistic, pyramid
from vqcodec.priors.base import TOTAL
from vqcodec.priors.exact_convolutions import CARRIERS, best_carrier
from vqcodec.priors.pyramid import PLANE, PyramidPrior
from vqcodec.transform.pixels import to_samples


def fresh(width: int = 8, layers: int = 2) -> lossless.LosslessImage:
    """Small networks whose last layers say something, the same for every test."""
    torch.manual_seed(0)
    model = lossless.LosslessImage(lossless.Config(width, layers, 8))
    with torch.no_grad():
        for name in model.config.shape.sizes():
            if ".out" in name or name.endswith("linear"):
                layer = model.heads.layer(name)
                layer.weight.normal_(0, 0.07)
                layer.bias.uniform_(-0.5, 0.5)
    return model


@pytest.fixture(scope="module")
def prior() -> PyramidPrior:
    """The small networks in integers."""
    found = fresh().export().priors[LEARNED]
    assert isinstance(found, PyramidPrior)
    return found


def coded(prior: PyramidPrior, pixels: np.ndarray) -> driver.CodedRegion:
    """Pixels, coded."""
    (found,) = driver.encode(prior, [{PLANE: pixels.astype(np.float32)}], 0)
    return found


def decoded(prior: PyramidPrior, payload: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """The pixels of a payload."""
    known = {PLANE: np.zeros(shape, np.int16)}
    assert driver.decode(prior, [payload], [known], 0) == [True]
    assert not (known[PLANE] % 16).any()
    return known[PLANE] // 16


def test_features_are_freed_with_their_scan(prior: PyramidPrior, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a large tile take half a gigabyte, and a collector of cycles may come late."""
    scans = []
    begin = PyramidPrior.scan

    def watched(self: PyramidPrior, known: list[dict[str, np.ndarray]], index: int) -> object:
        scan = begin(self, known, index)
        scans.append(weakref.ref(scan))
        return scan

    monkeypatch.setattr(PyramidPrior, "scan", watched)
    gc.disable()
    try:
        payload = coded(prior, draw(40, 30)).payload
        decoded(prior, payload, (30, 40, 3))
        assert [scan() for scan in scans] == [None, None]
    finally:
        gc.enable()


# tables


def test_tables_are_distributions() -> None:
    """Against the logistic function by its other formula, (1 + tanh(x / 2)) / 2."""
    tables = logistic.tables().tables
    assert len(tables) == logistic.tables().empty.size < 1 << 16
    for index, table in enumerate(tables):
        assert table is not None and table.sum(dtype=np.int64) == TOTAL and table.min() >= 1
        if index % 97 == 0:
            k, tail, fraction = place(index)
            largest, share, scale = len(table) // 2 - 1, 2 ** (1.5 * (tail - 3) - 1), 2 ** ((k - 11.5) / 4)
            for symbol in (-largest, -1, 1, min(3, largest)):
                mass = 0.0
                for weight, s in ((1 - share, scale), (share, 4 * scale)):
                    ends = [(symbol + side - fraction) / (2 * s) for side in (0.5, -0.5)]
                    mass += weight * (math.tanh(ends[0]) - math.tanh(ends[1])) / 2
                expected = 16 + mass * (TOTAL - 16 * (2 * largest + 2))
                assert abs(int(table[largest + symbol]) - expected) <= 0.5001


def place(index: int) -> tuple[int, int, float]:
    """Scale, tail and fraction of a table, by counting."""
    for k in range(logistic.SCALES):
        steps = 1 << logistic.fraction_bits(k)
        if index < logistic.TAILS * steps:
            return k, index // steps, index % steps / steps
        index -= logistic.TAILS * steps
    raise IndexError


def test_no_frequency_hangs_on_the_last_bit_of_a_float() -> None:
    """Another library's exp may differ by one unit in the last place: no mass times TOTAL is near a half."""
    nearest = min(
        np.abs(np.mod(logistic.scaled_masses(k, tail, f / steps), 1) - 0.5).min()
        for k in range(logistic.SCALES)
        for tail in range(logistic.TAILS)
        for steps in [1 << logistic.fraction_bits(k)]
        for f in range(steps)
    )
    assert nearest > 1e-6


@pytest.mark.parametrize(
    ("k", "mean", "level", "fraction"), [(0, 165, 10, 5 / 16), (12, 167, 10, 0.5), (30, 168, 11, 0)]
)
def test_means_are_rounded_to_the_fractions_of_their_scale(
    k: int, mean: int, level: int, fraction: float
) -> None:
    model = logistic.model(*(np.array([x], np.int32) for x in (mean, k, 2)))
    assert model.means[0] == 16 * level
    assert place(int(model.scale_indexes[0])) == (k, 2, fraction)


# networks


SIZES = [(1, 1), (1, 40), (40, 1), (2, 2), (16, 17), (17, 16), (33, 64), (3, 100), (37, 51)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_come_back(prior: PyramidPrior, size: tuple[int, int], channels: int) -> None:
    pixels = draw(*size, 3)[:, :, :channels]
    found = coded(prior, pixels)
    assert np.array_equal(decoded(prior, found.payload, pixels.shape), pixels)
    assert 8 * len(found.payload) <= 1.005 * found.bits + 40
    corners = np.full_like(pixels, 255)
    corners[::2] = 0
    assert np.array_equal(decoded(prior, coded(prior, corners).payload, pixels.shape), corners)


def test_every_carrier_and_thread_count_gives_the_same_bytes(
    prior: PyramidPrior, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = draw(90, 70, 5)
    before = torch.get_num_threads()
    payloads = set()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for carrier in CARRIERS[0 if best_carrier("cpu") == "onednn" else 1 :]:
                payloads.add(coded(prior.with_carrier(carrier), pixels).payload)
        monkeypatch.setattr(pyramid, "STRIP", 100)
        payloads.add(coded(prior, pixels).payload)
    finally:
        torch.set_num_threads(before)
    assert len(payloads) == 1


def convolved(layer: dict[str, np.ndarray], x: np.ndarray, padding: int) -> np.ndarray:
    """A convolution of int64 maps [I, h, w], in real numbers that are exact: [O, h, w]."""
    weight = layer["weight"].astype(np.int64)
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    side = weight.shape[2]
    height, width = x.shape[1] - side + 1, x.shape[2] - side + 1
    sums = np.zeros((len(weight), height, width), np.int64) + layer["bias"][:, None, None]
    for i in range(side):
        for j in range(side):
            sums += np.einsum("oc,chw->ohw", weight[:, :, i, j], x[:, i : i + height, j : j + width])
    return np.ldexp(sums.astype(np.float64), -layer["shift"].astype(int)[:, None, None])


def activated(layer: dict[str, np.ndarray], x: np.ndarray, padding: int = 0) -> np.ndarray:
    return np.rint(convolved(layer, x, padding).clip(0, 255)).astype(np.int64)


def test_the_last_phase_by_a_reference(prior: PyramidPrior) -> None:
    """Mean, scale and tail of the pixels of odd rows and even columns, from FORMAT-priors.md alone."""
    pixels = draw(21, 19, 8)  # columns and rows
    scan = prior.scan([{PLANE: (16 * pixels.astype(np.int16))}], 0)
    found = [next(iter(scan.models(step))) for step in scan.steps][-3:]
    layers: dict[str, dict[str, np.ndarray]] = {}
    for name, array in prior.arrays.items():
        layers.setdefault(name.rpartition(".")[0], {})[name.rpartition(".")[2]] = array
    whole = pixels.astype(np.int64).transpose(2, 0, 1)
    even, odd, between = whole[:, ::2, ::2], whole[:, 1::2, 1::2], whole[:, ::2, 1::2]
    odd = np.pad(odd, ((0, 0), (0, 1), (0, 1)), "edge")
    between = np.pad(between, ((0, 0), (0, 0), (0, 1)), "edge")
    below = np.concatenate((even[:, 1:], even[:, -1:]), 1)
    left = np.concatenate((odd[:, :, :1], odd[:, :, :-1]), 2)
    sums = even + below + odd + left
    less = np.concatenate([4 * plane - sums for plane in (even, odd, between)]).clip(-508, 508)
    less = np.pad(less, ((0, 0), (2, 2), (2, 2)), "edge")
    linear = np.floor(convolved(layers["fine.oe.linear"], less, 0) + 0.5).astype(np.int64)
    near = deep = activated(layers["fine.oe.first"], less)
    for name in ("body0", "body1"):
        deep = activated(layers[f"fine.oe.{name}"], deep, 1)
    x = np.concatenate((near, deep))
    means = (4 * sums + linear)[:, :9]
    errors: list[np.ndarray] = []
    for number, colour in enumerate((1, 0, 2)):
        known = [np.rint(e / divisor).clip(-128, 127) + 128 for e in errors for divisor in (4, 16)]
        inputs = np.concatenate((*(one[None].astype(np.int64) for one in known), x[:, :9]))
        hidden = activated(layers[f"fine.oe.hidden{number}"], inputs)
        out = np.floor(convolved(layers[f"fine.oe.out{number}"], hidden, 0) + 0.5).astype(np.int64)
        shared = sum(errors) if errors else np.zeros_like(means[0])
        mean = (means[colour] + shared // max(len(errors), 1) + out[0]).clip(0, 255 * 16)
        scale = (out[1] // 8 + 20).clip(0, 43)
        tail = (out[2] // 32 + 1).clip(0, 3)
        expected = logistic.model(*(one.astype(np.int32)[:, :, None] for one in (mean, scale, tail)))
        assert np.array_equal(found[number].means, expected.means)
        assert np.array_equal(found[number].scale_indexes, expected.scale_indexes)
        errors.append(16 * whole[colour, 1::2, ::2] - means[colour])
    assert len(np.unique(found[2].scale_indexes)) > 10, "the networks say something"


def test_training_counts_the_bits_of_the_coder() -> None:
    """The loss is of real numbers; the tables round them."""
    model, pixels = fresh(), draw(96, 80, 2)
    prior = model.export().priors[LEARNED]
    assert isinstance(prior, PyramidPrior)
    with torch.no_grad():
        trip = model.round_trip(to_samples(pixels[None]))
    start = 9 * 5 * 6 * 3  # bits of the first step, about
    assert trip.bits == pytest.approx(coded(prior, pixels).bits - start, rel=0.01)


# the model


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> training.Run:
    """A few steps, of which the last are resumed."""
    folder = tmp_path_factory.mktemp("lossless") / "tiny"
    settings = {"width": "8", "layers": "1", "hidden": "8", "downscale": "1.5", "noise": "2"}
    options = {"batch": 4, "crop": 32, "learning_rate": 1e-2, "checkpoint_every": 20}
    training.train([photos], model="lossless-image", output=folder, steps=20, overrides=settings, **options)
    return training.train(resume=folder, steps=40)


def test_it_learns(run: training.Run) -> None:
    events = [
        e for e in training.validation.events(run.folder / "metrics.jsonl") if e["event"] == "validation"
    ]
    assert events[-1]["bits"] < events[0]["bits"] - 0.1
    card = weights.read_card(run.best)
    assert card.training["steps"] == 40 and card.measured["validation"]["bpp"] > 5


def test_crops_without_a_level_are_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(vqcodec.VqcodecError, match="crop is 8"):
        training.train([photos], model="lossless-image", output=tmp_path / "run", steps=1, crop=8)


def test_it_is_a_model_like_others(run: training.Run) -> None:
    pixels = draw(70, 50, 5)
    encoded = pipeline.encode_file(pixels, pipeline.EncodeOptions(model=run.best))
    assert pipeline.verify(encoded) == math.inf
    (image,) = vqcodec.sample(run.best, size=(40, 24), seed=3)
    assert image.samples.shape == (24, 40, 3)
    again = training.train(
        [run.folder / "samples"],
        model="lossless-image",
        start=run.best,
        steps=1,
        output=run.folder / "on",
        crop=32,
        batch=2,
    )
    prior, before = (weights.load(one, "cpu").priors[LEARNED] for one in (again.best, run.best))
    assert isinstance(prior, PyramidPrior) and isinstance(before, PyramidPrior)
    assert np.array_equal(prior.arrays["fine.oo.first.shift"], before.arrays["fine.oo.first.shift"])


def test_damaged_weights_are_refused(prior: PyramidPrior) -> None:
    lost = {name: array for name, array in prior.arrays.items() if name != "fine.oo.first.bias"}
    with pytest.raises(ModelError, match=r"without fine\.oo\.first\.bias"):
        replace(prior, arrays=lost)
    with pytest.raises(ModelError, match=r"first of the pyramid is \(8, 3, 5, 5\)"):
        replace(prior, shape=replace(prior.shape, width=9))


# stored pixels


@pytest.fixture
def tiny(run: training.Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stored pixels by the small networks."""
    monkeypatch.setattr(learned_pixels, "NAME", str(run.best))
    yield


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (1, 30), (61, 47)])
def test_tiles_come_back(tiny: None, size: tuple[int, int], channels: int) -> None:
    pixels = draw(*size, 4)[:, :, :channels]
    payload = learned_pixels.pack(pixels)
    assert payload is not None and payload[0] == LEARNED_PIXELS
    assert np.array_equal(learned_pixels.unpack(payload, pixels.shape[:2], channels), pixels)


def test_a_damaged_tile_is_found_or_has_the_right_shape(tiny: None) -> None:
    """Behind the CRC: a length is never trusted, and whatever is decoded are pixels."""
    pixels = draw(19, 12, 4)
    payload = learned_pixels.pack(pixels) or b""
    refused = 0
    for at in range(9, len(payload), 7):
        damaged = bytearray(payload)
        damaged[at] ^= 1 << at % 8
        try:
            found = learned_pixels.unpack(bytes(damaged), (12, 19), 3)
        except DamagedError:
            refused += 1
        else:
            assert found.shape == pixels.shape and found.dtype == np.uint8
    assert refused > 0
    for cut in (payload[:1], payload[:8], payload[:-1], payload[:99], payload + b"12345678"):
        with pytest.raises(DamagedError):
            learned_pixels.unpack(cut, (12, 19), 3)


def test_other_weights_are_named(tiny: None, monkeypatch: pytest.MonkeyPatch) -> None:
    payload = learned_pixels.pack(draw(8, 8)) or b""
    with pytest.raises(ModelError, match="need .*0102030405060708"):
        learned_pixels.unpack(payload[:1] + bytes(range(1, 9)) + payload[9:], (8, 8), 3)
    monkeypatch.setattr(learned_pixels, "NAME", "lossless-image-of-tomorrow")
    with pytest.raises(ModelError, match="which is not installed"):
        learned_pixels.unpack(payload, (8, 8), 3)
    assert learned_pixels.pack(draw(8, 8)) is None


def test_each_tile_is_the_smaller(tiny: None, small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = draw(120, 90, 6)
    options = pipeline.EncodeOptions(model=small, lossless=True)
    for coder, size, first in ((bytes([LEARNED_PIXELS]) * 9, 9, LEARNED_PIXELS), (bytes(10**6), None, WEBP)):
        monkeypatch.setattr(learned_pixels, "pack", lambda pixels, coder=coder: coder)
        (tile,) = container.parse(pipeline.encode_file(photo, options).data).tiles
        assert tile.payload[0] == first and size in (None, len(tile.payload))

    def never(pixels: np.ndarray) -> bytes:
        raise AssertionError

    monkeypatch.setattr(learned_pixels, "pack", never)
    page = np.full((90, 120, 3), 250, np.uint8)
    page[20:40, 10:90:3] = 30
    fast = pipeline.encode_file(photo, replace(options, fast=True)).data
    for data in (fast, pipeline.encode_file(page, options).data):
        assert pipeline.info(data).tiles == {WEBP: 1}


def test_a_file_is_damaged_and_salvaged(tiny: None, small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vqcodec.media.pack_pixels", lambda pixels, mask: bytes([WEBP]) * 10**6)
    photo = draw(60, 45, 6)
    data = vqcodec.encode(photo, model=small, lossless=True)
    assert np.array_equal(vqcodec.decode(data, model=small).samples, photo)
    info = pipeline.info(data)
    assert info.tiles == {LEARNED_PIXELS: 1} and info.tile_bytes == {LEARNED_PIXELS: info.stored_bytes}
    for at in range(len(data) - info.stored_bytes, len(data), 211):
        damaged = data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :]
        with pytest.raises(DamagedError, match="damaged in tile 1 of 1"):
            vqcodec.decode(damaged, model=small)
        with pytest.warns(vqcodec.VqcodecWarning, match="tile 1 of 1"):
            assert vqcodec.decode(damaged, model=small, salvage=True).samples.shape == photo.shape
    stream = container.parse(data)
    odd = replace(stream, tiles=[Part(stream.tiles[0].payload[:-4])])
    with pytest.raises(DamagedError, match="damaged in tile 1 of 1"):
        vqcodec.decode(container.pack(odd), model=small)
