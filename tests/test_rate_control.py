"""Targets: sizes, rates and PSNRs, of models with one operating point and with 256."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import draw, sing
from hypothesis import given, settings
from hypothesis import strategies as st
from variable_rate_models import MODELS, trained
from vqcodec import media, pipeline, training
from vqcodec.bitstream.quality import LAST_INDEX
from vqcodec.errors import (
    MediaError,
    TargetError,
    UsageError,
)
from vqcodec.media import Audio
from vqcodec.pipeline import rate_control


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


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"bpp": 0.01}, TargetError, r"smallest is \d\.\d{3} bpp, target 0\.01"),
        ({"target_size": 40}, TargetError, r"smallest is \d+ bytes, target 40"),
        ({"psnr": 70}, TargetError, r"best is \d\d\.\d\d dB, target 70"),
        ({"quality": 4}, UsageError, "small has no quality 4"),
        ({"quality": 2.5}, UsageError, r"small has no quality 2\.5"),
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
    with pytest.raises(error, match=message) as caught:
        pipeline.encode(draw(40, 30), **({"model": small} | options))
    if "no quality" in message:
        assert caught.value.hint == "its operating points: 3"


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
    with pytest.raises(TargetError):
        pipeline.encode(pixels, model=small, psnr=reached + 1e-6)


@pytest.mark.parametrize("goal", [{"bpp": math.nan}, {"psnr": math.nan}, {"bpp": 0.0}, {"target_size": -1}])
def test_goals_that_are_none(small: str, goal: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="above zero"):
        pipeline.encode(draw(8, 8), model=small, **goal)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"bpp": 1}, UsageError, "bpp means nothing for sounds"),
        ({"psnr": 30}, UsageError, "psnr means nothing for sounds"),
        ({"bitrate": 0.01}, TargetError, r"smallest is \d\.\d\d kbit/s, target 0\.01"),
        ({"target_size": 40}, TargetError, r"smallest is \d+ bytes, target 40"),
        ({"bitrate": 1, "target_size": 9}, UsageError, "exclude each other"),
        ({"bitrate": math.nan}, UsageError, "above zero"),
        ({"quality": 4}, UsageError, "no quality 4"),
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
    sound = Audio.of(sing(0.3), 16_000)
    plain = pipeline.encode_file(sound, pipeline.EncodeOptions(model=small_sound))
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
        assert pipeline.encode(sound, model=small_sound, **options) == plain.data
    with pytest.raises(TargetError):
        pipeline.encode(sound, model=small_sound, bitrate=plain.kbps * 0.999)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.7])
def test_a_target_size_is_kept_from_below(model: str, share: float) -> None:
    picture = media.Image(draw(400, 300, 1))
    least, most = (len(pipeline.encode(picture, model=model, quality=q)) for q in (1, 5))
    target = round(least + share * (most - least))
    size = len(pipeline.encode(picture, model=model, target_size=target))
    assert 0.96 * target < size <= target
    bpp = 8 * target / (400 * 300)
    assert len(pipeline.encode(picture, model=model, bpp=bpp)) <= target


def test_a_psnr_is_reached(model: str, picture: media.Image) -> None:
    low, high = (
        pipeline.verify(pipeline.encode_file(picture, pipeline.EncodeOptions(model=model, quality=q)))
        for q in (1, 4)
    )
    target = (low + high) / 2
    encoded = pipeline.encode_file(picture, pipeline.EncodeOptions(model=model, psnr=target))
    assert target <= pipeline.verify(encoded) < target + 0.5


def test_goals_out_of_reach(model: str, picture: media.Image) -> None:
    with pytest.raises(TargetError, match="smallest is .* bytes, target 60"):
        pipeline.encode(picture, model=model, target_size=60)
    with pytest.raises(TargetError, match="best is"):
        pipeline.encode(picture, model=model, psnr=120)


def test_with_room_enough_pixels_are_kept(model: str, picture: media.Image) -> None:
    data = pipeline.encode(picture, model=model, target_size=10**6)
    assert np.array_equal(pipeline.decode(data, model=model).samples, picture.samples)


@given(
    st.lists(st.floats(0.01, 3), min_size=LAST_INDEX + 1, max_size=LAST_INDEX + 1),
    st.floats(-1, 800),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_search_finds_the_edge(steps: list[float], goal: float, upwards: bool) -> None:
    figures = np.cumsum(steps)
    asked: list[int] = []

    def measure(place: int) -> float:
        asked.append(place)
        return float(figures[place])

    found = rate_control.search(measure, goal, 1.0, 0.0, upwards=upwards)
    fits = figures >= goal if upwards else figures <= goal
    expected = (int(fits.argmax()) if upwards else int(fits.sum()) - 1) if fits.any() else None
    assert found == expected
    assert len(asked) == len(set(asked)) <= rate_control.TRIALS + 9


@pytest.mark.parametrize("goal", [{"bpp": 1e-9}, {"bpp": 1e-4}, {"target_size": 5}])
def test_goals_of_less_than_a_byte(model: str, picture: media.Image, goal: dict[str, float]) -> None:
    with pytest.raises(TargetError, match="smallest is"):
        pipeline.encode_file(picture, pipeline.EncodeOptions(model=model, **goal))


def test_goals_without_bounds(model: str, picture: media.Image) -> None:
    for name in ("bpp", "psnr", "target_size"):
        for value in (float("inf"), float("nan"), 0, -1):
            with pytest.raises(UsageError, match="above zero"):
                pipeline.encode_file(picture, pipeline.EncodeOptions(model=model, **{name: value}))
    assert len(pipeline.encode(picture, model=model, bpp=1e308)) < picture.samples.nbytes + 60
    for quality in (0, float("nan"), 6):
        with pytest.raises(UsageError, match=r"1 to 5|no quality") as caught:
            pipeline.encode_file(picture, pipeline.EncodeOptions(model=model, quality=quality))
        assert caught.value.hint == "1 to 5, with decimals"
