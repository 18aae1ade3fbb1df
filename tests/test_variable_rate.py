"""Variable-rate models, end to end: every rate out of one model, whatever the image."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import vqcodec
from conftest import draw
from variable_rate_models import MODELS, trained
from vqcodec import media, pipeline, training, weights
from vqcodec.bitstream import container
from vqcodec.bitstream.quality import LAST_INDEX, index_of, quality_of
from vqcodec.errors import (
    DamagedError,
    DamageWarning,
    ModelError,
    UsageError,
    VersionError,
)
from vqcodec.metrics.image import psnr
from vqcodec.transform import tiling


@pytest.fixture(scope="module", params=list(MODELS))
def run(
    request: pytest.FixtureRequest, photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> training.Run:
    return trained(request.param, photos, tmp_path_factory)


@pytest.fixture
def model(run: training.Run) -> str:
    return str(run.best)


@pytest.fixture
def picture() -> media.Image:
    return media.Image(draw(150, 130, 7), source="PNG")


def test_what_is_written_is_read(model: str, picture: media.Image) -> None:
    sizes, figures = [], []
    for quality in (1, 2.5, 5):
        encoded = pipeline.encode_file(picture, pipeline.EncodeOptions(model=model, quality=quality))
        decoded = pipeline.decode(encoded.data, model=model)
        assert isinstance(decoded, media.Image) and decoded.samples.shape == picture.samples.shape
        assert decoded.source == "PNG"
        assert encoded.quality == pytest.approx(quality, abs=0.01)
        assert pipeline.verify(encoded) == psnr(decoded.samples, picture.samples)
        sizes.append(len(encoded.data))
        figures.append(psnr(decoded.samples, picture.samples))
        assert 8 * vqcodec.info(encoded.data).code_bytes - encoded.estimate_bits < 100
    assert sizes == sorted(sizes) and figures == sorted(figures) and figures[-1] > figures[0] + 3


def test_default_is_the_middle_and_the_ends_are_refused(model: str, picture: media.Image) -> None:
    assert pipeline.encode_file(picture, pipeline.EncodeOptions(model=model)).quality == pytest.approx(
        3, abs=0.01
    )
    for quality in (0.5, 5.01):
        with pytest.raises(UsageError, match="no quality"):
            pipeline.encode_file(picture, pipeline.EncodeOptions(model=model, quality=quality))
    assert [index_of(q) for q in (1, 5)] == [0, LAST_INDEX] and quality_of(LAST_INDEX) == 5


def test_quality_has_as_few_decimals_as_tell_it_apart() -> None:
    assert [quality_of(index_of(q)) for q in (1, 2, 2.5, 3, 3.1, 5)] == [1, 2, 2.5, 3, 3.1, 5]
    assert all(index_of(quality_of(place)) == place for place in range(LAST_INDEX + 1))


def test_effort_trades_error_for_bits(model: str, picture: media.Image) -> None:
    """Of a transform that keeps errors as they are: at the model's price of an error, the sum falls."""
    codec = weights.load(model, "cpu")
    point, geometry = Point(codec, 120), container.ImageGeometry(150, 130, 3, 16)
    targets = dial.analyse(picture.samples, point)
    costs = []
    for effort in (0, 1):
        written = dial.write(targets, point, geometry, effort=effort)
        decoded = dial.synthesise(dial.Read(written.latents), point, geometry)
        error = np.square(np.subtract(decoded, picture.samples, dtype=np.float64)).mean()
        costs.append(written.bits / (150 * 130) + point.multiplier * error)
    if codec.method == "pPCA":
        assert costs[1] < costs[0]
    else:
        assert costs[1] == costs[0], "its encoder has learned what a search would find"


def test_blocks_leave_no_seam(model: str) -> None:
    point = Point(weights.load(model, "cpu"), 128)
    pixels = draw(300, 340, 3)
    geometry = container.ImageGeometry(300, 340, 3, 16)
    area = tiling.AREA
    whole = dial.analyse(pixels, point)
    latents = dial.write(whole, point, geometry).latents
    picture = dial.synthesise(dial.Read(latents), point, geometry)
    try:
        tiling.AREA = 16 * 40
        assert len(tiling.blocks(*geometry.grid, point.halo, tiling.area_for(16))) > 4
        assert np.abs(dial.analyse(pixels, point) - whole).max() < 1e-3 * np.abs(whole).max()
        again = dial.synthesise(dial.Read(latents), point, geometry)
    finally:
        tiling.AREA = area
    assert np.abs(again.astype(int) - picture).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (17, 1), (16, 16), (33, 48)])
@pytest.mark.parametrize("channels", [1, 3])
def test_small_pictures_are_never_larger_than_their_pixels(
    model: str, size: tuple[int, int], channels: int
) -> None:
    picture = media.Image(draw(*size, 2)[:, :, :channels])
    for quality in (1, 5):
        data = pipeline.encode(picture, model=model, quality=quality)
        told = vqcodec.info(data)
        assert told.code_bytes <= picture.samples.nbytes
        decoded = pipeline.decode(data, model=model)
        assert decoded.samples.shape == picture.samples.shape
        if container.RAW in told.priors:
            assert np.array_equal(decoded.samples, picture.samples)


def test_flat_pictures_and_graphics_are_small(model: str) -> None:
    flat = media.Image(np.full((600, 700, 3), 77, np.uint8))
    data = pipeline.encode(flat, model=model)
    assert len(data) < flat.samples.nbytes / 900
    assert np.abs(pipeline.decode(data, model=model).samples.astype(int) - 77).max() <= 2
    text = np.full((512, 512, 3), 255, np.uint8)
    text[40:470:8, 30:480:3] = 0
    data = pipeline.encode(media.Image(text), model=model, quality=5)
    assert np.array_equal(pipeline.decode(data, model=model).samples, text), "deflated pixels are smaller"


def test_metadata_and_alpha_are_kept(model: str) -> None:
    alpha = np.arange(130 * 150, dtype=np.uint8).reshape(130, 150)
    picture = media.Image(draw(150, 130, 7), alpha, icc=b"profile", xmp=b"<x/>")
    decoded = pipeline.decode(pipeline.encode(picture, model=model), model=model)
    assert np.array_equal(decoded.alpha, alpha) and (decoded.icc, decoded.xmp) == (b"profile", b"<x/>")


def test_preview_is_an_eighth(model: str) -> None:
    pixels = draw(530, 140, 4)
    for quality, tolerance in ((5, 12), (3, 25)):
        data = pipeline.encode(media.Image(pixels), model=model, quality=quality)
        small = pipeline.decode(data, model=model, preview=True).samples
        assert small.shape == (18, 67, 3)
        means = pixels[:136, :528].reshape(17, 8, 66, 8, 3).mean((1, 3))
        assert np.abs(small[:17, :66] - means).mean() < tolerance
    tiny = pipeline.encode(media.Image(pixels[:9, :3]), model=model)
    assert pipeline.decode(tiny, model=model, preview=True).samples.shape == (2, 1, 3)


def test_damage_stays_in_its_region(model: str) -> None:
    picture = media.Image(draw(1100, 300, 5))
    data = bytearray(pipeline.encode(picture, model=model))
    whole = pipeline.decode(bytes(data), model=model).samples
    info = vqcodec.info(bytes(data))
    assert info.chunks == 3
    data[info.header_bytes + 10] ^= 4
    with pytest.raises(DamagedError, match="chunk 1 of 3"):
        pipeline.decode(bytes(data), model=model)
    with pytest.warns(DamageWarning, match="chunk 1 of 3"):
        saved = pipeline.decode(bytes(data), model=model, salvage=True).samples
    halo = 16 * weights.load(model, "cpu").halo
    assert np.array_equal(saved[:, 512 + halo :], whole[:, 512 + halo :])
    grey = saved[100:200, 100:400].astype(int)
    assert abs(grey.mean() - 128) < 30


def test_chunks_that_no_encoder_writes(model: str, picture: media.Image) -> None:
    stream = container.parse(pipeline.encode(picture, model=model))
    for chunk in (
        container.Chunk(container.LEARNED, b"abc"),
        container.Chunk(container.RAW, b"abc"),
        container.Chunk(container.RAW, bytes(150 * 130 * 3 - 1)),
    ):
        data = container.pack(dataclasses.replace(stream, chunks=[chunk]))
        with pytest.raises(DamagedError, match="chunk 1 of 1"):
            pipeline.decode(data, model=model)
        with pytest.warns(DamageWarning):
            assert pipeline.decode(data, model=model, salvage=True).samples.shape == (130, 150, 3)
    with pytest.raises(vqcodec.errors.ModelError, match="a prior that"):
        pipeline.decode(
            container.pack(dataclasses.replace(stream, chunks=[container.Chunk(1, b"abcd")])), model=model
        )
    for settings_ in (b"", b"\1\2"):
        with pytest.raises(VersionError, match="settings"):
            pipeline.decode(container.pack(dataclasses.replace(stream, settings=settings_)), model=model)


def test_reconstruction_is_compared_with_what_was_coded(model: str, picture: media.Image) -> None:
    encoded = pipeline.encode_file(picture, pipeline.EncodeOptions(model=model))
    other = dataclasses.replace(encoded, codes=encoded.codes + 16)
    with pytest.raises(DamagedError, match="does not decode"):
        streams.reconstruct(other)


def test_other_models_and_decoders_are_named(model: str, small: str, picture: media.Image) -> None:
    ours, theirs = (pipeline.encode(picture, model=m) for m in (model, small))
    for data, other in ((ours, small), (theirs, model)):
        with pytest.raises(ModelError, match="needs model"):
            pipeline.decode(data, model=other)
    with pytest.raises(UsageError, match="has no decoder") as caught:
        pipeline.decode(ours, model=model, decoder=small)
    assert caught.value.hint == "leave out --decoder"
    with pytest.raises(UsageError, match="does not decode the codes"):
        pipeline.decode(theirs, model=small, decoder=model)
    with pytest.raises(ModelError, match="no preview"):
        pipeline.decode(theirs, model=small, preview=True)
