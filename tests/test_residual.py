"""What the model leaves out of an image, coded to a step at high qualities."""

from __future__ import annotations

import math
import zlib
from dataclasses import replace

import numpy as np
import pytest
from coded import broken_in, salvaged
from conftest import draw
from vqcodec import pipeline, weights
from vqcodec.bitstream import container
from vqcodec.bitstream.container import Part
from vqcodec.bitstream.quality import LAST_INDEX, index_of
from vqcodec.coding import driver, residual
from vqcodec.errors import DamagedError, VersionError
from vqcodec.metrics.image import psnr
from vqcodec.pipeline import ladder
from vqcodec.priors import laplace
from vqcodec.priors.base import TOTAL
from vqcodec.priors.residual import DIAGONALS, ORDER, PLANE, ResidualPrior
from vqcodec.transform import dct

MODEL = "ppca-image"


def rough(height: int, width: int, channels: int = 3) -> np.ndarray:
    """A residual: noise whose strength goes from nothing to much, float32 [H, W, C]."""
    strength = np.linspace(0, 30, width)[:, None]
    return (np.random.default_rng(0).normal(0, 1, (height, width, channels)) * strength).astype(np.float32)


# tables


@pytest.mark.parametrize("level", [0, 20, 40, 52, 63])
def test_tables_are_two_sided_geometric(level: int) -> None:
    table = laplace.tables().tables[level]
    assert table is not None
    symbols = table[:-1].astype(np.int64)
    middle = len(symbols) // 2
    mean = laplace.magnitude(level)
    assert table.sum() == TOTAL and np.array_equal(symbols, symbols[::-1]) and table.min() == table[-1] == 16
    assert np.abs(np.arange(-middle, middle + 1)) @ symbols / TOTAL == pytest.approx(mean, rel=0.02, abs=3e-5)
    if level >= 40:
        ratios = symbols[middle + 2 : middle + 4] / symbols[middle + 1 : middle + 3]
        assert ratios[0] == pytest.approx(ratios[1], rel=1e-3)


def test_no_frequency_depends_on_rounding() -> None:
    for level in range(laplace.LEVELS):
        masses = laplace.scaled_masses(laplace.magnitude(level))
        assert np.abs(masses - np.floor(masses) - 0.5).min() > 1e-5


def test_levels_are_the_nearest() -> None:
    whole = [round(laplace.magnitude(level) * 2**laplace.MAGNITUDE_BITS) for level in range(laplace.LEVELS)]
    assert laplace.levels_of(np.array(whole)).tolist() == [*range(laplace.LEVELS)]
    assert laplace.levels_of(np.array([0, 2**50])).tolist() == [0, laplace.LEVELS - 1]


# transform


@pytest.mark.parametrize("shape", [(1, 1, 3), (8, 8, 1), (19, 30, 3), (17, 8, 1)])
def test_the_transform_is_undone(shape: tuple[int, int, int]) -> None:
    values = np.random.default_rng(1).normal(0, 50, shape).astype(np.float32)
    coefficients = dct.forward(values)
    assert coefficients.shape == (-(-shape[0] // 8), -(-shape[1] // 8), 64 * shape[2])
    assert np.abs(dct.inverse(coefficients, *shape[:2]) - values).max() < 1e-3
    if shape[0] % 8 == shape[1] % 8 == 0:
        assert np.square(coefficients).sum() == pytest.approx(np.square(values).sum(), rel=1e-5)


def test_known_coefficients() -> None:
    flat = np.full((8, 8, 3), 5, np.float32)
    expected = np.zeros(192)
    expected[0] = 5 * 8 * math.sqrt(3)
    assert np.allclose(dct.forward(flat)[0, 0], expected, atol=1e-4)
    wave = np.cos(np.pi * 3 * (2 * np.arange(8) + 1) / 16).astype(np.float32)
    found = dct.forward(np.broadcast_to(wave[:, None, None], (8, 8, 1)))[0, 0]
    assert ORDER[int(np.abs(found).argmax())] == 3 * 8 and np.abs(found).max() == pytest.approx(
        8 / math.sqrt(2)
    )


# coding


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("step", [0, 77, 154])
def test_a_residual_comes_back_to_a_step(channels: int, step: int) -> None:
    values, size = rough(45, 70, channels), residual.step_size(step)
    payload = residual.encode(values, step).payload
    found = residual.decode(payload, values.shape, step)
    errors = dct.forward(np.pad(values - found, ((0, 3), (0, 2), (0, 0)), mode="edge"))
    assert np.abs(dct.forward(values[:40, :64] - found[:40, :64])).max() < size
    assert np.square(values - found).mean() < size**2 / 6
    assert errors.shape == (6, 9, 64 * channels)


def test_what_vanishes_takes_no_bytes() -> None:
    assert residual.encode(np.full((30, 20, 3), 0.1, np.float32), 77).payload == b""


def test_the_prior_follows_the_strength() -> None:
    """The same coefficients cost more with blocks shuffled: a block foretells its neighbours."""
    targets = np.rint(dct.forward(rough(256, 256)) / 4)
    means = np.abs(targets).mean((0, 1)).reshape(64, 3)
    diagonal = np.array([n // 8 + n % 8 for n in ORDER])
    levels = laplace.levels_of(
        np.rint(
            np.stack([means[diagonal == d].mean(0) for d in range(DIAGONALS)]) * 2**laplace.MAGNITUDE_BITS
        ).astype(np.int64)
    )
    (coded,) = driver.encode(ResidualPrior(levels), [{PLANE: targets.astype(np.float32)}], 0)
    fixed = laplace.Laplace(
        np.zeros((1024, 192), np.int32), np.broadcast_to(levels[diagonal].reshape(192), (1024, 192))
    )
    alone = fixed.bits(targets.reshape(1024, 192).astype(np.int32))
    order = np.random.default_rng(2).permutation(1024)
    mixed = targets.reshape(1024, 192)[order].reshape(32, 32, 192).astype(np.float32)
    (shuffled,) = driver.encode(ResidualPrior(levels), [{PLANE: mixed}], 0)
    assert coded.bits < shuffled.bits < 0.95 * alone
    assert len(coded.payload) * 8 == pytest.approx(coded.bits, rel=0.01)


def test_bytes_are_those_of_every_machine() -> None:
    """Integers in, so that no rounding of a transform matters."""
    rng = np.random.default_rng(3)
    targets = np.rint(rng.laplace(0, np.linspace(6, 0.1, 192), (9, 7, 192))).astype(np.float32)
    targets[0, 0, 5] = 900
    levels = np.tile(np.arange(50, 35, -1, np.uint8)[:, None], (1, 3))
    (coded,) = driver.encode(ResidualPrior(levels), [{PLANE: targets}], 0)
    known = {PLANE: np.zeros(targets.shape, np.int16)}
    assert driver.decode(ResidualPrior(levels), [coded.payload], [known], 0) == [True]
    assert np.array_equal(known[PLANE], 16 * targets)
    assert zlib.crc32(coded.payload) == 2320547300


# files


def test_qualities_rise_to_the_end() -> None:
    model = weights.load(MODEL, "cpu")
    rungs = [ladder.Rung.of(model, position) for position in range(ladder.last_of(model) + 1)]
    assert rungs[ladder.FIRST - 1].step is None and rungs[ladder.FIRST].step is not None
    steps = [rung.step for rung in rungs[ladder.FIRST :]]
    assert steps == sorted(steps, reverse=True) and min(steps) >= ladder.FINEST
    assert all(ladder.LOWEST_BASE <= rung.base < ladder.FIRST for rung in rungs[ladder.FIRST :])
    for index in range(LAST_INDEX + 1):
        assert rungs[ladder.position_of(model, index)].index == index
    assert rungs[ladder.best_of(model)].step == ladder.FINE and rungs[-1].step == ladder.FINEST
    assert rungs[-1].settings[0] == LAST_INDEX and len(rungs[-1].settings) == 3


@pytest.mark.parametrize("channels", [1, 3])
def test_the_best_quality_is_near_the_original(channels: int) -> None:
    """Grain and noise too."""
    noise = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    reached = []
    for pixels in (draw(90, 70)[:, :, :channels], noise[:, :, :channels]):
        for quality in (4.4, 5):
            encoded = pipeline.encode_file(pixels, pipeline.EncodeOptions(model=MODEL, quality=quality))
            info = pipeline.info(encoded.data)
            assert info.residual_bytes or (channels, quality) != (3, 5)
            assert encoded.quality == pytest.approx(quality, abs=0.01)
            assert info.quality_index == index_of(quality)
            found = pipeline.decode(encoded.data).samples
            reached.append(psnr(pixels, found))
            assert pipeline.verify(encoded) == pytest.approx(reached[-1])
    assert min(reached[1::2]) > 44 and reached[0] < reached[1] - 3


def test_a_psnr_beyond_the_best_quality() -> None:
    pixels = draw(90, 70)
    data = pipeline.encode(pixels, psnr=48, model=MODEL)
    assert 48 <= psnr(pixels, pipeline.decode(data).samples) < 48.5
    assert pipeline.info(data).quality_index == LAST_INDEX
    assert len(data) < len(pipeline.encode(pixels, lossless=True, model=MODEL))


@pytest.fixture(scope="module")
def fine() -> bytes:
    """An image of two regions with residuals."""
    return pipeline.encode(draw(540, 40), model=MODEL, quality=5)


def test_damage_leaves_the_image_of_the_model(fine: bytes) -> None:
    stream = container.parse(fine)
    bare = pipeline.decode(container.pack(replace(stream, residuals=[Part(b""), Part(b"")]))).samples
    whole = pipeline.decode(fine).samples
    damaged = bytearray(fine)
    damaged[-20] ^= 1
    with pytest.raises(DamagedError, match="damaged in residual 2 of 2"):
        pipeline.decode(bytes(damaged))
    image, messages = salvaged(bytes(damaged), MODEL)
    assert messages == ["damaged in residual 2 of 2"]
    assert np.array_equal(image.samples[:, :512], whole[:, :512])
    assert np.array_equal(image.samples[:, 512:], bare[:, 512:])
    image, messages = salvaged(broken_in(fine, 0), MODEL)
    assert messages == ["damaged in chunk 1 of 2"], "nothing is added to a region that is lost"


@pytest.mark.parametrize(
    "payload", [b"\0", bytes(45), b"\x40" + bytes(80), bytes(45) + b"\1\2\3", bytes(900)]
)
def test_residuals_that_no_encoder_writes(fine: bytes, payload: bytes) -> None:
    stream = container.parse(fine)
    lying = container.pack(replace(stream, residuals=[Part(payload), stream.residuals[1]]))
    if payload != bytes(45):  # all coefficients zero: an encoder leaves it out, and nothing is wrong
        with pytest.raises(DamagedError, match="damaged in residual 1 of 2"):
            pipeline.decode(lying)
        assert salvaged(lying, MODEL)[1] == ["damaged in residual 1 of 2"]


def test_models_without_residuals_refuse_them(small: str) -> None:
    stream = container.parse(pipeline.encode(draw(30, 20), model=small))
    lying = container.pack(replace(stream, settings=bytes(3), residuals=[Part(b"")]))
    with pytest.raises(VersionError, match="settings that small does not have"):
        pipeline.decode(lying, model=small)
    with pytest.raises(ValueError, match="1 residuals for these settings"):
        container.pack(replace(stream, residuals=[Part(b"")]))
