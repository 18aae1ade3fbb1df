"""Rate control of models with one operating point, and the search that all of them share."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from conftest import draw, sing
from hypothesis import given, settings
from hypothesis import strategies as st
from vqcodec import media, pipeline, weights
from vqcodec.bitstream.container import PIXELS
from vqcodec.bitstream.quality import LAST_INDEX
from vqcodec.errors import MediaError, TargetError, UsageError, VqcodecWarning
from vqcodec.media import Audio
from vqcodec.pipeline import rate_control
from vqcodec.pipeline.rate_control import Target, find_index


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"bpp": 0.01}, TargetError, r"smallest is \d\.\d{3} bpp, target 0\.01"),
        ({"target_size": 40}, TargetError, r"smallest is \d+ bytes, target 40"),
        ({"quality": 5.1}, UsageError, r"no quality 5\.1"),
        ({"quality": 3, "bpp": 1}, UsageError, "exclude each other"),
        ({"psnr": 20, "target_size": 9}, UsageError, "exclude each other"),
        ({"device": "tpu"}, UsageError, "unknown device"),
        ({"model": "gone"}, UsageError, "no model 'gone'"),
        ({"max_pixels": 1199}, MediaError, "megapixels, limit"),
    ],
)
def test_what_cannot_be_had(
    small: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        pipeline.encode(draw(40, 30), **({"model": small} | options))


def test_what_can_be_had(small: str) -> None:
    pixels = draw(40, 30)
    plain = pipeline.encode_file(pixels, pipeline.EncodeOptions(model=small))
    reached = pipeline.verify(plain)
    for options in (
        {"quality": 3},
        {"bpp": plain.bpp},
        {"target_size": len(plain.data)},
        {"psnr": reached - 1e-6},
        {"max_pixels": 1200},
    ):
        assert pipeline.encode(pixels, model=small, **options) == plain.data
    with pytest.raises(TargetError):
        pipeline.encode(pixels, model=small, target_size=len(plain.data) - 1)
    beyond = pipeline.encode(pixels, model=small, psnr=reached + 1e-6)
    assert beyond == pipeline.encode(pixels, model=small, lossless=True), "no coding comes so near"
    assert np.array_equal(pipeline.decode(beyond, model=small).samples, pixels)


@pytest.mark.parametrize("target", [{"bpp": math.nan}, {"psnr": math.nan}, {"bpp": 0.0}, {"target_size": -1}])
def test_targets_that_are_none(small: str, target: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="must be positive"):
        pipeline.encode(draw(8, 8), model=small, **target)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"bpp": 1}, UsageError, "bpp does not apply to audio"),
        ({"psnr": 30}, UsageError, "psnr does not apply to audio"),
        ({"bitrate": 0.01}, TargetError, r"smallest is \d\.\d\d kbit/s, target 0\.01"),
        ({"target_size": 40}, TargetError, r"smallest is \d+ bytes, target 40"),
        ({"bitrate": 1, "target_size": 9}, UsageError, "exclude each other"),
        ({"bitrate": math.nan}, UsageError, "must be positive"),
        ({"quality": 7}, UsageError, "no quality 7"),
        ({"strip": ["gps"]}, UsageError, "cannot strip gps"),
        ({"device": "tpu"}, UsageError, "unknown device"),
    ],
)
def test_what_audio_cannot_have(
    small_sound: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        pipeline.encode(Audio.of(sing(0.3), 16_000), model=small_sound, **options)


def test_what_audio_can_have(small_sound: str) -> None:
    audio = Audio.of(sing(0.3), 16_000)
    plain = pipeline.encode_file(audio, pipeline.EncodeOptions(model=small_sound))
    assert plain.kbps is not None
    for options in (
        {"quality": 3},
        {"bitrate": plain.kbps},
        {"target_size": len(plain.data)},
        {"effort": 0},
        {"fast": True},
        {"max_pixels": 1},
        {"strip": ["icc", "exif"]},
    ):
        assert pipeline.encode(audio, model=small_sound, **options) == plain.data
    with pytest.raises(TargetError):
        pipeline.encode(audio, model=small_sound, bitrate=plain.kbps * 0.999)


# exactly what is asked for


def test_a_rate_or_figure_that_is_met_exactly_is_accepted(small: str) -> None:
    for width in range(20, 60, 7):
        pixels = draw(width, 31, width)
        plain = pipeline.encode_file(pixels, pipeline.EncodeOptions(model=small))
        for options in (
            {"bpp": plain.bpp},
            {"target_size": len(plain.data)},
            {"psnr": pipeline.verify(plain)},
        ):
            assert pipeline.encode(pixels, model=small, **options) == plain.data
        with pytest.raises(TargetError):
            pipeline.encode(pixels, model=small, bpp=8 * (len(plain.data) - 1) / (width * 31))


@pytest.mark.parametrize("frames", [4800, 9999, 23_999])
def test_no_rounding_refuses_a_rate_that_is_met_exactly(frames: int) -> None:
    audio = Audio.of(np.zeros((frames, 1), np.float32), 16_000)
    image = media.Image(np.zeros((31, frames // 100, 3), np.uint8))
    for size in range(1, 3000, 7):
        assert Target("bitrate", size / 125 / (frames / 16_000)).limit(audio) == size
        assert Target("bpp", 8 * size / (31 * (frames // 100))).limit(image) == size
        assert Target("bpp", 8 * (size - 0.001) / (31 * (frames // 100))).limit(image) == size - 1


def test_with_room_enough_images_keep_their_pixels(small: str) -> None:
    """Of any model: there is nothing better to do with the bytes."""
    image = media.Image(draw(40, 30), source="PNG")
    plain = pipeline.encode(image, model=small)
    stored = pipeline.encode_file(image, pipeline.EncodeOptions(model=small, target_size=10**6))
    assert pipeline.info(stored.data).priors == {PIXELS: 1}
    assert np.array_equal(pipeline.decode(stored.data, model=small).samples, image.samples)
    assert pipeline.verify(stored) == math.inf and not stored.symbols["codes"].any()
    for options, wanted in (
        ({"target_size": len(stored.data)}, stored.data),
        ({"target_size": len(stored.data) - 1}, plain),
        ({"bpp": stored.bpp}, stored.data),
        ({"bpp": 8 * (len(stored.data) - 1) / 1200}, plain),
        ({"quality": 3}, plain),
        ({"psnr": 15}, plain),
    ):
        assert pipeline.encode(image, model=small, **options) == wanted
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    data = pipeline.encode(noise, model=small, bpp=25)
    assert pipeline.info(data).code_bytes == 0 < pipeline.info(data).stored_bytes < 1.05 * noise.nbytes
    assert np.array_equal(pipeline.decode(data, model=small).samples, noise)


def test_audio_has_no_use_for_more_room(small_sound: str) -> None:
    audio = Audio.of(sing(0.3), 16_000)
    plain = pipeline.encode(audio, model=small_sound)
    assert pipeline.encode(audio, model=small_sound, target_size=10**6) == plain
    assert pipeline.encode(audio, model=small_sound, bitrate=1e300) == plain


@pytest.mark.parametrize("effort", [0, 1, 2])
def test_what_would_help(small: str, effort: int) -> None:
    with pytest.raises(TargetError) as caught:
        pipeline.encode(draw(40, 30), model=small, target_size=40, effort=effort)
    assert caught.value.hint == "give a larger target" + (", or --effort 1" if effort == 2 else "")


# targets


def test_a_target_is_one_figure() -> None:
    assert Target.of() == Target() == Target("quality", None)
    given = {"quality": 2.5, "bitrate": 3.0, "bpp": 0.4, "psnr": 30.0, "target_size": 40_000, "lossless": 1}
    for name, value in given.items():
        assert Target.of(**{name: value}) == Target(name.replace("_", " "), value)
    for first, second in itertools.combinations(given, 2):
        with pytest.raises(
            UsageError, match="quality, bitrate, bpp, psnr, target size and lossless exclude each other"
        ):
            Target.of(**{first: given[first], second: given[second]})
    for name in ("bitrate", "bpp", "psnr", "target_size"):
        for value in (0, -1, math.inf, -math.inf, math.nan):
            with pytest.raises(UsageError, match="targets must be positive"):
                Target.of(**{name: value})


@pytest.mark.parametrize(
    ("target", "medium", "message"),
    [
        (Target("bitrate", 3), "image", "bitrate does not apply to images"),
        (Target("bpp", 3), "audio", "bpp does not apply to audio"),
        (Target("psnr", 3), "audio", "psnr does not apply to audio"),
        (Target("lossless", 1), "audio", "lossless does not apply to audio"),
        (Target("quality", 0.9), "image", "no quality 0.9"),
        (Target("quality", 6), "audio", "no quality 6"),
    ],
)
def test_targets_that_a_model_does_not_have(
    small: str, small_sound: str, target: Target, medium: str, message: str
) -> None:
    models = {"image": weights.load(small, "cpu"), "audio": weights.load(small_sound, "cpu")}
    with pytest.raises(UsageError) as caught:
        target.check(models[medium])
    assert caught.value.message == message
    if target.unit != "quality":
        hints = {"image": "give target size, bpp, psnr or lossless", "audio": "give target size or bitrate"}
        assert caught.value.hint == hints[medium]
    with pytest.warns(VqcodecWarning, match="has one quality, 3, which is used"):
        Target("quality", 4).check(models[medium])
    Target("quality", 3).check(models[medium])
    Target().check(models[medium])


def test_limits_are_whole_bytes() -> None:
    image = media.Image(np.zeros((5, 3, 3), np.uint8))
    assert Target("bpp", 4.0).limit(image) == 7
    assert Target("target size", 40).limit(image) == 40
    assert (
        Target("quality", 3).limit(image) is Target("psnr", 30).limit(image) is Target().limit(image) is None
    )
    assert Target("bpp", 1e308).limit(image) == rate_control.MAX_BYTES
    assert Target("bitrate", 2.0).limit(Audio.of(np.zeros((8000, 1)), 16_000)) == 125


# the search


def search(
    figures: np.ndarray, target: float, at_least: bool, tolerance: float = 0.0
) -> tuple[int | None, list[int]]:
    asked: list[int] = []

    def measure(index: int) -> float:
        asked.append(index)
        return float(figures[index])

    last = len(figures) - 1
    return find_index(measure, target, 1.0, tolerance, at_least=at_least, last=last), asked


@given(
    st.lists(st.floats(0.01, 3), min_size=LAST_INDEX + 1, max_size=LAST_INDEX + 1),
    st.floats(-1, 800),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_search_finds_the_edge(steps: list[float], target: float, at_least: bool) -> None:
    figures = np.cumsum(steps)
    found, asked = search(figures, target, at_least)
    fits = figures >= target if at_least else figures <= target
    expected = (int(fits.argmax()) if at_least else int(fits.sum()) - 1) if fits.any() else None
    assert found == expected
    assert len(asked) == len(set(asked)) <= rate_control.TRIALS + 9


@given(st.lists(st.floats(0.01, 3), min_size=1, max_size=LAST_INDEX + 1), st.data(), st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_figure_that_equals_the_target_meets_it(
    steps: list[float], data: st.DataObject, at_least: bool
) -> None:
    figures = np.cumsum(steps)
    index = data.draw(st.integers(0, len(steps) - 1))
    assert search(figures, float(figures[index]), at_least)[0] == index


@pytest.mark.parametrize("at_least", [True, False])
def test_the_only_index_is_asked_for_once(at_least: bool) -> None:
    for target, meets_least in ((4.9, True), (5.0, True), (5.1, False)):
        found, asked = search(np.array([5.0]), target, at_least)
        assert asked == [0]
        assert found == (0 if meets_least == at_least or target == 5 else None)


def test_near_enough_ends_the_search_on_the_right_side_alone() -> None:
    figures = np.arange(256.0)
    for at_least in (True, False):
        for target in (0.3, 77.4, 200.6, 254.9):
            found, asked = search(figures, target, at_least, tolerance=3.0)
            assert found is not None and abs(figures[found] - target) < 3
            assert figures[found] >= target if at_least else figures[found] <= target
            assert len(asked) <= len(search(figures, target, at_least)[1])
