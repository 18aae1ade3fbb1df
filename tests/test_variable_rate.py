"""Variable-rate models, end to end: every rate out of one model, whatever the image."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import vqcodec
from coded import broken_in
from conftest import draw
from variable_rate_models import model, run
from vqcodec import media, pipeline, weights
from vqcodec.bitstream import container
from vqcodec.bitstream.quality import LAST_INDEX, index_of, quality_of
from vqcodec.coding import chunks
from vqcodec.errors import DamagedError, DamageWarning, ModelError, UsageError, VersionError
from vqcodec.metrics.image import psnr
from vqcodec.models import rate_distortion
from vqcodec.transform import image as image_transform
from vqcodec.transform import tiling

__all__ = ["model", "run"]


@pytest.fixture
def image() -> media.Image:
    return media.Image(draw(150, 130, 7), source="PNG")


def test_what_is_written_is_read(model: str, image: media.Image) -> None:
    sizes, figures = [], []
    for quality in (1, 2.5, 5):
        encoded = pipeline.encode_file(image, pipeline.EncodeOptions(model=model, quality=quality))
        decoded = pipeline.decode(encoded.data, model=model)
        assert isinstance(decoded, media.Image) and decoded.samples.shape == image.samples.shape
        assert decoded.source == "PNG"
        assert encoded.quality == pytest.approx(quality, abs=0.01)
        assert pipeline.verify(encoded) == psnr(decoded.samples, image.samples)
        sizes.append(len(encoded.data))
        figures.append(psnr(decoded.samples, image.samples))
        assert 8 * vqcodec.info(encoded.data).code_bytes - encoded.estimate_bits < 100
    assert sizes == sorted(sizes) and figures == sorted(figures) and figures[-1] > figures[0] + 3


def test_default_is_the_middle_and_the_ends_are_refused(model: str, image: media.Image) -> None:
    assert pipeline.encode_file(image, pipeline.EncodeOptions(model=model)).quality == pytest.approx(
        3, abs=0.01
    )
    for quality in (0.5, 5.01):
        with pytest.raises(UsageError, match="no quality"):
            pipeline.encode_file(image, pipeline.EncodeOptions(model=model, quality=quality))
    assert [index_of(q) for q in (1, 5)] == [0, LAST_INDEX] and quality_of(LAST_INDEX) == 5


def test_quality_has_as_few_decimals_as_tell_it_apart() -> None:
    assert [quality_of(index_of(q)) for q in (1, 2, 2.5, 3, 3.1, 5)] == [1, 2, 2.5, 3, 3.1, 5]
    assert all(index_of(quality_of(index)) == index for index in range(LAST_INDEX + 1))


def test_effort_trades_error_for_bits(model: str, image: media.Image) -> None:
    """Of a transform that keeps errors as they are: at the model's price of an error, the sum falls."""
    codec = weights.load(model, "cpu")
    geometry = container.ImageGeometry(150, 130, 3, 16)
    targets = image_transform.analyse(image.samples, codec.at(120))
    costs = []
    for effort in (0, 1):
        point = codec.at(120, effort)
        coded = chunks.encode(targets, point, geometry)
        decoded = image_transform.synthesise(coded.symbols, point, geometry)
        error = np.square(np.subtract(decoded, image.samples, dtype=np.float64)).mean()
        costs.append(sum(coded.bits) / (150 * 130) + point.rd_lambda * error)
    if codec.method == "pPCA":
        assert costs[1] < costs[0]
    else:
        assert costs[1] == costs[0], "its encoder has learned what a search would find"


def test_blocks_leave_no_seam(model: str) -> None:
    point = weights.load(model, "cpu").at(128)
    pixels = draw(300, 340, 3)
    geometry = container.ImageGeometry(300, 340, 3, 16)
    whole = image_transform.analyse(pixels, point)
    symbols = chunks.encode(whole, point, geometry).symbols
    image = image_transform.synthesise(symbols, point, geometry)
    assert len(tiling.blocks(*geometry.grid(16), point.halo, 40)) > 4
    pieces = image_transform.analyse(pixels, point, area=40)
    assert np.abs(pieces["y"] - whole["y"]).max() < 1e-3 * np.abs(whole["y"]).max()
    again = image_transform.synthesise(symbols, point, geometry, area=40)
    assert np.abs(again.astype(int) - image).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (17, 1), (16, 16), (33, 48)])
@pytest.mark.parametrize("channels", [1, 3])
def test_small_images_are_never_larger_than_their_pixels(
    model: str, size: tuple[int, int], channels: int
) -> None:
    image = media.Image(draw(*size, 2)[:, :, :channels])
    for quality in (1, 5):
        data = pipeline.encode(image, model=model, quality=quality)
        info = vqcodec.info(data)
        assert info.code_bytes + info.residual_bytes + info.stored_bytes <= image.samples.nbytes + 80
        decoded = pipeline.decode(data, model=model)
        assert decoded.samples.shape == image.samples.shape
        assert container.RAW not in info.priors, "which means packed indices"
        if container.PIXELS in info.priors:
            assert np.array_equal(decoded.samples, image.samples)


def test_flat_images_and_graphics_are_small(model: str) -> None:
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
    image = media.Image(draw(150, 130, 7), alpha, icc=b"profile", xmp=b"<x/>")
    decoded = pipeline.decode(pipeline.encode(image, model=model), model=model)
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
    image = media.Image(draw(1100, 300, 5))
    data = bytearray(pipeline.encode(image, model=model))
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


def test_chunks_that_no_encoder_writes(model: str, image: media.Image) -> None:
    stream = container.parse(pipeline.encode(image, model=model))
    for chunk in (
        container.Chunk(container.LEARNED, b"abc"),
        container.Chunk(container.PIXELS, b"abc"),
        container.Chunk(container.PIXELS, bytes(150 * 130 * 3 - 1)),
    ):
        data = container.pack(dataclasses.replace(stream, chunks=[chunk]))
        with pytest.raises(DamagedError, match="chunk 1 of 1"):
            pipeline.decode(data, model=model)
        with pytest.warns(DamageWarning):
            assert pipeline.decode(data, model=model, salvage=True).samples.shape == (130, 150, 3)
    for number in (container.RAW, container.STATIC, 4, 255):
        data = container.pack(dataclasses.replace(stream, chunks=[container.Chunk(number, b"abcd")]))
        message = "packed indices" if number == container.RAW else "a prior that"
        with pytest.raises(ModelError, match=message):
            pipeline.decode(data, model=model)
    for settings_ in (b"", b"\1\2"):
        with pytest.raises(VersionError, match="settings"):
            pipeline.decode(container.pack(dataclasses.replace(stream, settings=settings_)), model=model)


def test_reconstruction_is_compared_with_what_was_coded(model: str, image: media.Image) -> None:
    encoded = pipeline.encode_file(image, pipeline.EncodeOptions(model=model))
    other = dataclasses.replace(encoded, symbols={"y": encoded.symbols["y"] + 16})
    with pytest.raises(DamagedError, match="does not decode"):
        pipeline.reconstruct(other)


def test_other_models_and_decoders_are_named(model: str, small: str, image: media.Image) -> None:
    ours, theirs = (pipeline.encode(image, model=m) for m in (model, small))
    for data, other in ((ours, small), (theirs, model)):
        with pytest.raises(ModelError, match="needs model"):
            pipeline.decode(data, model=other)
    with pytest.raises(UsageError, match="has no decoder 'wavenet'") as caught:
        pipeline.decode(ours, model=model, decoder="wavenet")
    assert caught.value.hint == "leave out --decoder"
    for data, right, other in ((ours, model, small), (theirs, small, model)):
        with pytest.raises(UsageError, match="does not decode the codes") as caught:
            pipeline.decode(data, model=right, decoder=other)
        assert caught.value.hint == "leave out --decoder"
    with pytest.raises(ModelError, match="no preview"):
        pipeline.decode(theirs, model=small, preview=True)


def test_a_lost_region_is_what_grey_has(model: str) -> None:
    """The latents of the middle of mid-grey, the nearest, whatever the effort."""
    point = weights.load(model, "cpu").at(128)
    (value,) = point.neutral().values()
    assert value.dtype == np.int16 and value.shape == (24,)
    with torch.inference_mode():
        grey = point.analyse(torch.zeros(1, 3, 512, 512))["y"][0, 16, 16]
    assert np.array_equal(value, np.rint(16 * grey.numpy()))
    data = pipeline.encode(media.Image(draw(600, 40, 5)), model=model)
    stream = container.parse(broken_in(data, 1), salvage=True)
    found = chunks.decode(stream, point)
    assert [region.samples for region in found.lost] == [(slice(0, 40), slice(512, 600))]
    assert (found.symbols["y"][found.lost[0].part(16)] == value).all()


def test_other_decoders_are_refused_before_a_preview(model: str) -> None:
    data = pipeline.encode(media.Image(draw(60, 40, 5)), model=model)
    with pytest.raises(UsageError, match="has no decoder 'wavenet'"):
        pipeline.decode(data, model=model, preview=True, decoder="wavenet")


def test_files_that_store_pixels_under_the_number_of_packed_indices_are_refused(model: str) -> None:
    data = pipeline.encode(media.Image(draw(60, 40, 5)), model=model)
    stream = container.parse(data)
    old = dataclasses.replace(stream, chunks=[container.Chunk(container.RAW, bytes(60 * 40 * 3))])
    with pytest.raises(ModelError, match="packed indices") as caught:
        pipeline.decode(container.pack(old), model=model)
    assert "encode the image again" in caught.value.hint


def test_warnings_come_from_the_line_that_called(model: str) -> None:
    data = broken_in(pipeline.encode(media.Image(draw(600, 40, 5)), model=model), 1)
    for preview in (False, True):
        with pytest.warns(DamageWarning, match="^damaged in chunk 2 of 2$") as caught:
            pipeline.decode(data, model=model, salvage=True, preview=preview)
        assert [warning.filename for warning in caught] == [__file__]


def test_lambda_of_the_index() -> None:
    """2**-11 bits a pixel for a mean squared error of 1 at index 0, doubled every 27 indices."""
    found = rate_distortion.rd_lambda(torch.tensor([0.0, 27.0, 270.0, LAST_INDEX]))
    assert found.tolist() == pytest.approx([2**-11, 2**-10, 0.5, 2 ** (LAST_INDEX / 27 - 11)])
