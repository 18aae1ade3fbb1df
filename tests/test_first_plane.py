"""What a damaged chunk of two planes is decoded to: its top alone, or nothing."""

from __future__ import annotations

import random
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
import vqcodec
from conftest import draw
from two_level_models import run, small_priors
from vqcodec import training, weights
from vqcodec.bitstream import container
from vqcodec.bitstream.container import PIXELS
from vqcodec.bitstream.geometry import ImageGeometry
from vqcodec.coding import chunks
from vqcodec.models.base import Model
from vqcodec.pipeline import EncodeOptions, encode_file
from vqcodec.transform import image as transform

__all__ = ["run", "small_priors"]


@pytest.fixture(scope="module")
def model(run: training.Run) -> Model:
    return weights.load(run.best, "cpu")


@pytest.fixture(scope="module", params=[False, True], ids=["learned", "fast"])
def data(run: training.Run, request: pytest.FixtureRequest) -> bytes:
    return encode_file(draw(200, 152, 5), EncodeOptions(model=run.best, fast=request.param)).data


def salvaged(data: bytes, model: Model) -> chunks.DecodedChunks:
    return chunks.decode(container.parse(data, salvage=True), model.at(255), salvage=True)


def test_the_top_of_a_damaged_bottom(run: training.Run, model: Model, data: bytes) -> None:
    """The picture is that of the top alone, and the planes say which codes are missing."""
    right = salvaged(data, model)
    broken = bytearray(data)
    broken[-1] ^= 1
    found = salvaged(bytes(broken), model)
    assert np.array_equal(found.symbols["top"], right.symbols["top"]) and not found.lost
    assert (found.symbols["bottom"] == -1).all()
    assert found.damage == ["chunk 1 is decoded to its top alone, which has a checksum of its own"]
    with torch.inference_mode():
        alone = model.at(0).synthesise({"top": torch.from_numpy(right.symbols["top"])[None]})
    with pytest.warns(vqcodec.VqcodecWarning):
        image = vqcodec.decode(bytes(broken), model=run.best, salvage=True).samples
    expected = ((alone[0].clamp(-1, 1) + 1) * 127.5).round().permute(1, 2, 0).numpy()
    assert np.abs(image - expected[:152, :200]).max() <= 1


def test_any_damage_keeps_a_right_top_or_none(model: Model, data: bytes) -> None:
    right, kept = salvaged(data, model).symbols["top"], 0
    stream = container.parse(data)
    start, rng = len(data) - len(stream.chunks[0].payload), random.Random(1)
    for _ in range(150):
        broken = bytearray(data)
        for _ in range(rng.choice((1, 1, 4))):
            broken[rng.randrange(start, len(data))] ^= rng.randrange(1, 256)
        found = salvaged(bytes(broken), model)
        if not found.lost:
            assert np.array_equal(found.symbols["top"], right)
            kept += 1
    assert 30 < kept < 150, "some hit the top"


def test_a_file_that_was_cut_off(model: Model, data: bytes) -> None:
    """The longer it is, the more: nothing, then the top."""
    right = salvaged(data, model).symbols["top"]
    start = len(data) - len(container.parse(data).chunks[0].payload)
    kept = []
    for end in range(start, len(data), 7):
        found = salvaged(data[:end], model)
        kept.append(not found.lost)
        assert found.lost or np.array_equal(found.symbols["top"], right)
    assert kept == sorted(kept) and kept[-1] and not kept[0]


def test_a_wrong_check_in_a_right_chunk(run: training.Run, model: Model, data: bytes) -> None:
    stream = container.parse(data)
    (chunk,) = stream.chunks
    skip = len(model.priors[chunk.prior].prior_id)
    payload = bytearray(chunk.payload)
    payload[skip] ^= 1
    lying = container.pack(replace(stream, chunks=[replace(chunk, payload=bytes(payload))]))
    with pytest.raises(vqcodec.VqcodecError, match="damaged in chunk 1 of 1"):
        vqcodec.decode(lying, model=run.best)
    assert salvaged(lying, model).lost
    with pytest.raises(ValueError, match="a damaged chunk"):
        container.pack(replace(stream, chunks=[replace(chunk, intact=False)]))


def test_the_top_alone_and_pixels_have_no_check(run: training.Run) -> None:
    broken = bytearray(encode_file(draw(200, 152, 5), EncodeOptions(model=run.best, quality=1.0)).data)
    broken[-1] ^= 1
    with pytest.warns(vqcodec.VqcodecWarning, match="damaged in chunk 1 of 1"):
        vqcodec.decode(bytes(broken), model=run.best, salvage=True)
    flat = bytearray(encode_file(np.zeros((152, 200, 3), np.uint8), EncodeOptions(model=run.best)).data)
    assert container.parse(bytes(flat)).chunks[0].prior == PIXELS
    flat[-1] ^= 1
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        image = vqcodec.decode(bytes(flat), model=run.best, salvage=True)
    assert [str(w.message) for w in caught] == ["damaged in tile 1 of 1"] and image.samples.shape == (
        152,
        200,
        3,
    )


def test_damage_stays_in_its_region(run: training.Run) -> None:
    image = draw(600, 530, 5)
    data = bytearray(vqcodec.encode(image, model=run.best))
    whole = vqcodec.decode(bytes(data), model=run.best).samples
    data[-1] ^= 1  # the last of four chunks: 88 x 18 pixels
    with pytest.raises(vqcodec.VqcodecError, match="damaged"):
        vqcodec.decode(bytes(data), model=run.best)
    with pytest.warns(vqcodec.VqcodecWarning, match="chunk 4 "):
        found = vqcodec.decode(bytes(data), model=run.best, salvage=True).samples
    far = 512 - 8 * weights.load(run.best).at(255).halo
    assert np.array_equal(found[:far], whole[:far]) and np.array_equal(found[:, :far], whole[:, :far])
    assert not np.array_equal(found[512:, 512:], whole[512:, 512:])


def test_a_preview_is_made_in_blocks(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its memory is bounded, and no border of a block is seen."""
    point, geometry = model.at(255), ImageGeometry(230, 170, 3, 4)
    symbols = {
        p.name: np.random.default_rng(1).integers(0, 8, geometry.grid(p.stride), np.int32)
        for p in point.planes
    }
    whole = transform.preview(symbols, point, geometry)
    monkeypatch.setattr(transform.tiling, "area_for", lambda stride: 40)
    pieces = transform.preview(symbols, point, geometry)
    assert whole is not None and pieces is not None and whole.shape == (22, 29, 3)
    assert np.abs(whole.astype(int) - pieces).max() <= 1
