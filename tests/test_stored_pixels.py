"""Pixels that are stored losslessly: all of an image, or the drawn parts of it."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
from coded import codes_in, salvaged
from conftest import draw
from PIL import ImageDraw
from vqcodec import media, pipeline
from vqcodec.bitstream import container
from vqcodec.bitstream.container import PIXELS, Chunk, Part
from vqcodec.bitstream.geometry import REGION, TILE, ImageGeometry
from vqcodec.errors import DamagedError, ModelError
from vqcodec.transform import graphics


def written(width: int, height: int) -> np.ndarray:
    """A page of words, uint8 [H, W, 3]."""
    page = PIL.Image.new("RGB", (width, height), (250, 250, 252))
    pen = ImageDraw.Draw(page)
    for row in range(2, height - 10, 13):
        pen.text((5, row), "rate and distortion of a page " * (width // 100), "#203040")
    return np.asarray(page).copy()


BOX = (slice(61, 243), slice(77, 333))
"""The photograph on the screen, at the border of no block."""


@pytest.fixture(scope="module")
def screen() -> np.ndarray:
    """A page with a photograph in it."""
    pixels = written(600, 300)
    pixels[BOX] = draw(256, 182, 4)
    return pixels


@pytest.fixture(scope="module")
def encoded(small: str, screen: np.ndarray) -> pipeline.Encoded:
    """The screen in two regions and one tile, which nobody may change."""
    return pipeline.encode_file(screen, pipeline.EncodeOptions(model=small))


# packing


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_packed_pixels_come_back(channels: int, share: float) -> None:
    pixels = draw(53, 31)[:, :, :channels]
    mask = np.random.default_rng(0).random((31, 53)) < share
    data = media.pack_pixels(pixels, mask)
    found, there = media.unpack_pixels(data, (31, 53), channels)
    assert np.array_equal(there, mask) and np.array_equal(found[mask], pixels[mask])
    assert found.shape == pixels.shape
    riff = b"RIFF" + (len(data) + len(data) % 2 + 12).to_bytes(4, "little") + b"WEBPVP8L"
    riff += len(data).to_bytes(4, "little") + data + bytes(len(data) % 2)
    with PIL.Image.open(io.BytesIO(riff)) as picture:
        opened = np.asarray(picture.convert("RGB"))
    assert np.array_equal(opened[mask], np.broadcast_to(pixels, (31, 53, 3))[mask]), "FORMAT.md says how"
    assert media.pack_pixels(pixels, np.zeros((31, 53), bool)) == b""


def test_what_is_no_packed_picture_is_refused() -> None:
    pixels, whole = draw(20, 10), np.ones((10, 20), bool)
    data = media.pack_pixels(pixels, whole)
    half = np.dstack((pixels, np.full((10, 20), 200, np.uint8)))
    stream = io.BytesIO()
    PIL.Image.fromarray(half).save(stream, "WEBP", lossless=True)
    for payload, message in (
        (b"", "no lossless WebP"),
        (b"\x9d\x01\x2a" + data, "no lossless WebP"),
        (media.pack_pixels(draw(21, 10), np.ones((10, 21), bool)), "are 21 x 10, the tile 20 x 10"),
        (b"\x2f\xff\xff\xff\x0f" + data[5:], "are 16384 x 16384"),
        (data[:40], "damaged"),
        (stream.getvalue()[20:], "half transparent"),
    ):
        with pytest.raises(DamagedError, match=message):
            media.unpack_pixels(payload, (10, 20), 3)
    with pytest.raises(DamagedError, match="gray image have colours"):
        media.unpack_pixels(data, (10, 20), 1)


# choosing


def test_text_stays_exact_and_the_photograph_small(
    small: str, screen: np.ndarray, encoded: pipeline.Encoded
) -> None:
    info = pipeline.info(encoded.data)
    assert info.stored_bytes > 0 < info.code_bytes
    found = pipeline.decode(encoded.data, model=small).samples
    outside = np.ones(screen.shape[:2], bool)
    outside[BOX] = False
    wrong = (found != screen).any(2) & outside
    assert wrong.sum() < 0.002 * outside.sum(), "but for letters that the photograph cuts"
    assert not wrong[BOX[0].stop + 8 :].any()
    exact = (found == screen).all(2)[BOX]
    assert exact.mean() < 0.2, "the photograph is coded"
    lossless = pipeline.encode(screen, model=small, lossless=True)
    photo = pipeline.encode(screen[BOX], model=small)
    assert len(photo) < len(encoded.data) < len(lossless) / 3
    pipeline.verify(encoded)


def test_each_region_is_stored_coded_or_both(small: str) -> None:
    page, scene = written(REGION, 40), draw(REGION, 40, 9)
    both = scene.copy()
    both[:, :200] = page[:, :200]
    pixels = np.hstack((page, scene, both))
    encoded = pipeline.encode_file(pixels, pipeline.EncodeOptions(model=small))
    stream = container.parse(encoded.data)
    assert [chunk.prior == PIXELS for chunk in stream.chunks] == [True, False, False]
    _, mask = media.unpack_pixels(stream.tiles[0].payload, (40, 3 * REGION), 3)
    assert mask[:, :REGION].all() and not mask[:, REGION : 2 * REGION].any()
    assert mask[:, 2 * REGION :][:, :200].mean() > 0.95 and mask[:, -300:].mean() < 0.05
    assert not codes_in(encoded)[:, : REGION // 4].any()
    alone = pipeline.encode_file(scene, pipeline.EncodeOptions(model=small))
    assert len(stream.chunks[1].payload) <= len(container.parse(alone.data).chunks[0].payload) * 1.1


def test_photographs_are_not_searched(small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No trial, so that encoding them is as fast as without."""
    monkeypatch.setattr("vqcodec.transform.image.synthesise", None)
    encoded = pipeline.encode_file(draw(530, 90), pipeline.EncodeOptions(model=small))
    assert pipeline.info(encoded.data).stored_bytes == 0


def test_what_looks_drawn() -> None:
    pixels = draw(200, 150)
    assert not graphics.find(pixels).any()
    pixels[40:110, 30:150] = written(120, 70)
    mask = graphics.find(pixels)
    assert mask[48:102, 40:140].mean() > 0.95
    mask[32:118, 22:158] = False
    assert not mask.any()
    assert graphics.find(written(90, 70)).all()
    assert np.array_equal(
        graphics.busiest(np.hstack((written(64, 64), pixels[:64, -64:])), 64), pixels[:64, -64:]
    )


# files


@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_stores_all(small: str, channels: int) -> None:
    pixels = draw(TILE + 30, 20)[:, :, :channels]
    alpha = np.full(pixels.shape[:2], 255, np.uint8)
    alpha[3] = 0
    encoded = pipeline.encode_file(
        media.Image(pixels, alpha), pipeline.EncodeOptions(model=small, lossless=True)
    )
    info = pipeline.info(encoded.data)
    assert (info.priors, info.code_bytes) == ({PIXELS: 5}, 0)
    assert len(container.parse(encoded.data).tiles) == 2
    found = pipeline.decode(encoded.data, model=small)
    assert np.array_equal(found.samples[alpha > 0], pixels[alpha > 0])
    assert np.array_equal(found.alpha, alpha) and pipeline.verify(encoded) == np.inf


def test_stored_images_outlive_weights() -> None:
    """Where all pixels are stored no weights are needed, of whatever fingerprint; else they are."""
    pixels = draw(70, 90, 2)
    others = {"fingerprint": bytes(8)}
    stored, coded = (container.parse(pipeline.encode(pixels, **how)) for how in ({"lossless": True}, {}))
    assert np.array_equal(pipeline.decode_image(container.pack(replace(stored, **others))).samples, pixels)
    with pytest.raises(ModelError, match="needs model vae-image"):
        pipeline.decode(container.pack(replace(coded, **others)))


def test_salvage_goes_on_behind_a_tile_of_other_weights(small: str) -> None:
    pixels = draw(TILE + 30, 20)
    stream = container.parse(pipeline.encode(pixels, model=small, lossless=True))
    foreign = Part(bytes([container.LEARNED_PIXELS]) + bytes(20))
    data = container.pack(replace(stream, tiles=[foreign, stream.tiles[1]]))
    with pytest.raises(ModelError, match="stored pixels need lossless-image"):
        pipeline.decode(data, model=small)
    image, messages = salvaged(data, small)
    assert messages[0].startswith("tile 1 of 2: stored pixels need lossless-image (0000000000000000), not ")
    assert np.array_equal(image.samples[:, TILE:], pixels[:, TILE:])


def test_repeated_textures_are_stored() -> None:
    """They look like noise to a quick estimate, and are small without loss."""
    rng = np.random.default_rng(0)
    glyphs = rng.integers(0, 256, (6, 8, 8, 3), np.uint8)
    sheet = glyphs[rng.integers(0, 6, (32, 32))].transpose(0, 2, 1, 3, 4).reshape(256, 256, 3)
    assert np.array_equal(pipeline.decode_image(pipeline.encode(sheet, model="vae-image")).samples, sheet)


def test_tiles_are_made_of_regions() -> None:
    geometry = ImageGeometry(TILE + 1, 2 * TILE)
    assert [[axis.stop for axis in tile.samples] for tile in geometry.tiles] == [
        [TILE, TILE],
        [TILE, TILE + 1],
        [2 * TILE, TILE],
        [2 * TILE, TILE + 1],
    ]
    for region in geometry.regions:
        places = [place for tile in geometry.tiles if (place := region.within(tile)) is not None]
        assert len(places) == 1 and [axis.start % REGION for axis in places[0]] == [0, 0]


def test_damage_stays_within_the_tile(small: str, encoded: pipeline.Encoded) -> None:
    """What the chunks code of it is shown."""
    damaged = bytearray(encoded.data)
    damaged[-9] ^= 4
    with pytest.raises(DamagedError, match="damaged in tile 1 of 1"):
        pipeline.decode(bytes(damaged), model=small)
    image, messages = salvaged(bytes(damaged), small)
    assert messages == ["damaged in tile 1 of 1"]
    whole = pipeline.decode(encoded.data, model=small).samples
    middle = (slice(100, 200), slice(120, 290))
    assert np.array_equal(image.samples[middle], whole[middle])


def test_a_region_without_its_pixels(small: str) -> None:
    """An empty chunk under a tile that does not store all of it, or with a payload; a tile that is none."""
    stream = container.parse(pipeline.encode(draw(30, 20), model=small, lossless=True))
    half = np.zeros((20, 30), bool)
    half[:, :15] = True
    for chunks, tiles, message in (
        (stream.chunks, [], "chunk 1 of 1"),
        ([Chunk(PIXELS, b"x")], stream.tiles, "chunk 1 of 1"),
        (stream.chunks, [Part(media.pack_pixels(draw(30, 20), half))], "chunk 1 of 1"),
        (stream.chunks, [Part(stream.tiles[0].payload[:50])], "tile 1 of 1"),
    ):
        lying = container.pack(replace(stream, chunks=chunks, tiles=tiles))
        with pytest.raises(DamagedError, match=f"damaged in {message}"):
            pipeline.decode(lying, model=small)
        image, messages = salvaged(lying, small)
        assert messages == [f"damaged in {message}"] and image.samples.shape == (20, 30, 3)
    with pytest.raises(ValueError, match="or all of them empty"):
        container.pack(replace(stream, tiles=[Part(b"")]))


def test_a_preview_shows_what_is_stored() -> None:
    pixels = np.vstack((written(200, 60), draw(200, 60, 3)))
    data = pipeline.encode(pixels, model="ppca-image", quality=2)
    assert pipeline.info(data).stored_bytes and pipeline.info(data).code_bytes
    small = pipeline.decode(data, model="ppca-image", preview=True).samples
    means = pixels[:48].reshape(6, 8, 25, 8, 3).mean((1, 3))
    assert np.abs(small[:6] - means).max() <= 0.5


def test_the_model_is_not_run_where_all_is_stored(small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pipeline.encode(draw(30, 20), model=small, lossless=True)
    monkeypatch.setattr("vqcodec.transform.image.synthesise", None)
    assert np.array_equal(pipeline.decode(data, model=small).samples, draw(30, 20))


@pytest.mark.parametrize("quality", [3, 4.5])
def test_coded_regions_are_whole_beside_stored_ones(quality: float) -> None:
    """What is decoded at a border depends on what lies beyond it, of which the file has the pixels alone."""
    y, x = np.mgrid[:560, :600]
    smooth = np.stack([120 + x / 20 + y / 30, 150 + x / 25, 200 + y / 40], 2)
    waves = 40 * np.sin(x / 9)[:, :, None] * np.sin(y / 7)[:, :, None] * (x > 511)[:, :, None]
    grain = np.random.default_rng(1).normal(0, 2, (560, 600, 3)) * (x > 511)[:, :, None]
    pixels = (smooth + waves + grain).clip(0, 255).astype(np.uint8)
    encoded = pipeline.encode_file(media.Image(pixels), pipeline.EncodeOptions(quality=quality))
    kinds = [chunk.prior for chunk in container.parse(encoded.data).chunks]
    assert kinds[0] == PIXELS != kinds[1]
    decoded = pipeline.decode_image(encoded.data).samples
    error = np.abs(decoded.astype(int) - pixels)
    assert not error[:512, :512].any()
    assert error[:512, 512:516].mean() < 1.5 * error[:512, 530:].mean()
    assert pipeline.verify(encoded) > 20


@pytest.mark.parametrize("quality", [2.2, 2.5, 3])
def test_what_is_stored_in_part_is_stored_whole_where_that_is_smaller(quality: float) -> None:
    """Parts of this slope took more bytes, some coded and some packed, than all of it packed."""
    y, x = np.mgrid[:600, :600]
    slope = np.stack([120 + x / 20 + y / 30, 150 + x / 25, 200 + y / 40], 2).astype(np.uint8)
    data = pipeline.encode(media.Image(slope), quality=quality)
    assert np.array_equal(pipeline.decode_image(data).samples, slope)
    assert len(data) <= len(pipeline.encode(media.Image(slope), lossless=True))
