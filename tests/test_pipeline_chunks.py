"""What images take: each chunk by the prior that makes it smallest, or pixels."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from coded import IMAGE_BITS, bits_by, codes_in, codes_of, file_of, large_image, packed_bytes
from conftest import draw
from vqcodec import pipeline, weights
from vqcodec.bitstream import container
from vqcodec.bitstream.container import RAW, STATIC, Chunk, ImageGeometry
from vqcodec.coding import chunks
from vqcodec.errors import ModelError, UsageError
from vqcodec.models.vqvae import VQVAE
from vqcodec.models.vqvae.search_image import ERROR_PER_BIT
from vqcodec.transform import image as image_transform


@pytest.fixture(scope="module")
def codec(small: str) -> VQVAE:
    """The model of `small`, which nobody may change."""
    return weights.load(small)


@pytest.fixture(scope="module")
def large(small: str) -> pipeline.Encoded:
    """An image of four chunks."""
    return large_image(small)


def test_payload_is_what_the_tables_promise(large: pipeline.Encoded, codec: VQVAE) -> None:
    info = pipeline.info(large.data)
    assert info.priors == {STATIC: 4}
    promised = large.estimate_bits / 8
    assert promised < info.code_bytes <= promised * 1.005 + 4 * 8
    assert large.estimate_bits == pytest.approx(
        sum(
            bits_by(codec.priors[STATIC], [codes_in(large)[region.part(4)]])
            for region in large.geometry.regions
        )
    )


@pytest.mark.parametrize(("width", "height"), [(1, 1), (30, 20), (128, 128), (600, 520)])
@pytest.mark.parametrize("what", ["random", "rare", "noise"])
def test_never_larger_than_packing(small: str, codec: VQVAE, width: int, height: int, what: str) -> None:
    rng = np.random.default_rng(0)
    geometry = ImageGeometry(width, height)
    pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
    if what != "noise":
        counts = codec.priors[STATIC].tables.sum((0, 1), dtype=np.int64)
        rare = np.argsort(counts)[: 64 if what == "random" else 20]
        codes = rng.choice(rare, geometry.grid(4)).astype(np.int32)
        data = file_of(chunks.encode({"codes": codes}, codec.at(0), geometry), codec.at(0), geometry)
    else:
        encoded = pipeline.encode_file(pixels, pipeline.EncodeOptions(model=small))
        codes, data = codes_in(encoded), encoded.data
    info = pipeline.info(data)
    packed = packed_bytes(geometry, 4, IMAGE_BITS)
    assert len(data) <= info.header_bytes + packed
    assert np.array_equal(codes_of(data, codec), codes)
    if what == "rare" and width > 1:
        assert set(info.priors) == {RAW}
        assert info.code_bytes == packed


def test_each_chunk_by_what_is_smaller(codec: VQVAE, large: pipeline.Encoded) -> None:
    codes = codes_in(large).copy()
    rare = np.argsort(codec.priors[STATIC].tables.sum((0, 1), dtype=np.int64))[:20]
    codes[:128, :128] = np.random.default_rng(0).choice(rare, (128, 128))
    found = chunks.encode({"codes": codes}, codec.at(0), large.geometry)
    assert np.array_equal(found.symbols["codes"], codes)
    data = file_of(found, codec.at(0), large.geometry)
    stream = container.parse(data)
    assert [chunk.prior for chunk in stream.chunks if chunk] == [RAW, STATIC, STATIC, STATIC]
    assert stream.chunks[1:] == container.parse(large.data).chunks[1:], "chunks know nothing of each other"
    assert np.array_equal(codes_of(data, codec), codes)


def test_a_model_without_tables(codec: VQVAE, tmp_path: Path) -> None:
    """As the best weights are while a training still runs."""
    bare = codec.equipped(priors={})
    path = tmp_path / "bare.safetensors"
    weights.save(bare, codec.card, path)
    encoded = pipeline.encode_file(draw(40, 30), pipeline.EncodeOptions(model=path))
    packed = packed_bytes(encoded.geometry, 4, IMAGE_BITS)
    assert 0 <= 8 * packed - encoded.estimate_bits < 8
    info = pipeline.info(encoded.data)
    assert info.priors == {RAW: 1} and info.code_bytes == packed
    assert np.array_equal(codes_of(encoded.data, bare), codes_in(encoded))
    assert pipeline.decode(encoded.data, model=path).width == 40
    lying = container.parse(encoded.data)
    lying = replace(lying, chunks=[Chunk(STATIC, b"1234")])
    with pytest.raises(ModelError, match="chunk 1 is coded by a prior that small does not have"):
        pipeline.decode(container.pack(lying), model=path)


def test_effort_buys_cost_and_decoders_do_not_care(small: str, codec: VQVAE) -> None:
    """Effort 2 and 3 look at the decoded image: less error, and less error + weighted bits."""
    pixels = draw(200, 160, 3)
    errors, costs = [], []
    for effort in range(4):
        encoded = pipeline.encode_file(pixels, pipeline.EncodeOptions(model=small, effort=effort))
        assert np.array_equal(codes_of(encoded.data, codec), codes_in(encoded))
        decoded = pipeline.decode(encoded.data, model=small).samples
        error = np.square((decoded.astype(float) - pixels) / 127.5).sum()
        errors.append(error)
        costs.append(error + ERROR_PER_BIT * encoded.estimate_bits)
        nearest = image_transform.analyse(pixels, codec.at(0, effort=0))["codes"]
        assert np.array_equal(codes_in(encoded), nearest) is (effort == 0)
    assert costs[3] < costs[2] < min(costs[:2])
    assert errors[3] < errors[1] and errors[2] < errors[1]
    with pytest.raises(UsageError, match="no effort 4"):
        pipeline.encode(pixels, model=small, effort=4)


def test_codes_do_not_depend_on_threads_or_precision(
    small: str, codec: VQVAE, large: pipeline.Encoded
) -> None:
    threads = torch.get_num_threads()
    images = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            assert np.array_equal(codes_of(large.data, codec), codes_in(large))
            images.append(pipeline.decode(large.data, model=small).samples.astype(int))
    finally:
        torch.set_num_threads(threads)
    double = copy.deepcopy(codec).double()
    assert np.array_equal(codes_of(large.data, double), codes_in(large))
    images.append(
        image_transform.synthesise(large.symbols, double.at(0), ImageGeometry(600, 520)).astype(int)
    )
    for image in images[1:]:
        assert np.abs(image - images[0]).max() <= 1


def test_codes_do_not_depend_on_any_float(codec: VQVAE, large: pipeline.Encoded) -> None:
    spoilt = copy.deepcopy(codec)
    with torch.no_grad():
        for tensor in (*spoilt.parameters(), *spoilt.buffers()):
            tensor.fill_(torch.nan)
    assert np.array_equal(codes_of(large.data, spoilt), codes_in(large))


def test_fast_is_the_same_while_static_tables_are_all_there_is(small: str) -> None:
    pixels = draw(40, 30)
    assert pipeline.encode(pixels, model=small, fast=True) == pipeline.encode(pixels, model=small)


def test_a_prior_is_tried_where_its_ideal_is_a_little_larger(codec: VQVAE) -> None:
    class Ideal:
        def __init__(self, bits: float) -> None:
            self.bits = bits

        def estimate_bits(self, part: object) -> float:
            return self.bits

    best = chunks._Candidate(Chunk(RAW, bytes(100)), 800.0)
    tried = [chunks._may_win(Ideal(bits), {}, best) for bits in (700.0, 800.0, 870.0, 890.0)]  # type: ignore[arg-type]
    assert tried == [True, True, True, False]
