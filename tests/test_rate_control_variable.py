"""Rate control of variable-rate models: sizes, rates and PSNRs are met by the best index."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
from conftest import draw
from variable_rate_models import model, run
from vqcodec import media, pipeline, weights
from vqcodec.bitstream.quality import LAST_INDEX
from vqcodec.errors import TargetError, UsageError
from vqcodec.pipeline import rate_control

__all__ = ["model", "run"]


@pytest.fixture
def image() -> media.Image:
    return media.Image(draw(150, 130, 7), source="PNG")


@pytest.mark.parametrize("share", [0.1, 0.3, 0.7])
def test_a_target_size_is_kept_from_below(model: str, share: float) -> None:
    image = media.Image(draw(400, 300, 1))
    least, most = (len(pipeline.encode(image, model=model, quality=q)) for q in (1, 5))
    target = round(least + share * (most - least))
    size = len(pipeline.encode(image, model=model, target_size=target))
    assert 0.95 * target < size <= target
    bpp = 8 * target / (400 * 300)
    assert len(pipeline.encode(image, model=model, bpp=bpp)) <= target


def test_a_psnr_is_reached(model: str, image: media.Image) -> None:
    low, high = (
        pipeline.verify(pipeline.encode_file(image, pipeline.EncodeOptions(model=model, quality=q)))
        for q in (1, 4)
    )
    target = (low + high) / 2
    encoded = pipeline.encode_file(image, pipeline.EncodeOptions(model=model, psnr=target))
    assert target <= pipeline.verify(encoded) < target + 0.5


def test_targets_out_of_reach(model: str, image: media.Image) -> None:
    with pytest.raises(TargetError, match="smallest is .* bytes, target 60"):
        pipeline.encode(image, model=model, target_size=60)
    beyond = pipeline.encode(image, model=model, psnr=120)
    assert np.array_equal(pipeline.decode(beyond, model=model).samples, image.samples)


def test_with_room_enough_pixels_are_kept(model: str, image: media.Image) -> None:
    data = pipeline.encode(image, model=model, target_size=10**6)
    assert np.array_equal(pipeline.decode(data, model=model).samples, image.samples)


@pytest.mark.parametrize("target", [{"bpp": 1e-9}, {"bpp": 1e-4}, {"target_size": 5}])
def test_targets_of_less_than_a_byte(model: str, image: media.Image, target: dict[str, float]) -> None:
    with pytest.raises(TargetError, match="smallest is"):
        pipeline.encode_file(image, pipeline.EncodeOptions(model=model, **target))


def test_targets_without_bounds(model: str, image: media.Image) -> None:
    for name in ("bpp", "psnr", "target_size"):
        for value in (float("inf"), float("nan"), 0, -1):
            with pytest.raises(UsageError, match="must be positive"):
                pipeline.encode_file(image, pipeline.EncodeOptions(model=model, **{name: value}))
    assert len(pipeline.encode(image, model=model, bpp=1e308)) < image.samples.nbytes + 60
    for quality in (0, float("nan"), 6):
        with pytest.raises(UsageError, match=r"1 to 5|no quality") as caught:
            pipeline.encode_file(image, pipeline.EncodeOptions(model=model, quality=quality))
        assert caught.value.hint == "give 1 to 5, decimals included"


def test_the_smallest_file_and_the_best_figure_are_within_reach(model: str, image: media.Image) -> None:
    """To the byte, and to the last digit."""
    codec = weights.load(model, "cpu")
    first, last = (pipeline.encode_at(image, codec.at(index)) for index in (0, LAST_INDEX))
    assert pipeline.encode(image, model=model, target_size=len(first.data)) == first.data
    assert pipeline.encode(image, model=model, bpp=first.bpp) == first.data
    with pytest.raises(TargetError, match=f"smallest is {len(first.data):,} bytes"):
        pipeline.encode(image, model=model, target_size=len(first.data) - 1)
    best = pipeline.verify(last)
    reached = pipeline.encode_file(image, pipeline.EncodeOptions(model=model, psnr=best))
    assert pipeline.verify(reached) >= best


@pytest.mark.parametrize("unit", ["target_size", "psnr"])
def test_the_best_encoding_alone_is_kept(
    model: str, image: media.Image, unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are large: before each trial all are given up but the best so far, which is not made twice."""
    alive: list[weakref.ref[pipeline.Encoded]] = []
    before: list[int] = []
    tried: list[int] = []
    real = rate_control.encode_at

    def counted(*given: Any, **options: Any) -> pipeline.Encoded:
        gc.collect()
        before.append(sum(ref() is not None for ref in alive))
        tried.append(options["rung"].position)
        encoded = real(*given, **options)
        alive.append(weakref.ref(encoded))
        return encoded

    monkeypatch.setattr(rate_control, "encode_at", counted)
    low, high = (pipeline.encode_file(image, pipeline.EncodeOptions(model=model, quality=q)) for q in (1, 5))
    middle = {"target_size": (len(low.data) + len(high.data)) // 3}
    middle["psnr"] = (pipeline.verify(low) + 2 * pipeline.verify(high)) / 3
    del low, high
    before.clear()
    tried.clear()
    encoded = pipeline.encode_file(image, pipeline.EncodeOptions(model=model, **{unit: middle[unit]}))
    gc.collect()
    assert len(before) >= 2 and set(before) <= {0, 1}
    assert len(set(tried)) == len(tried)
    assert [ref() for ref in alive if ref() is not None] == [encoded]


def test_progress_over_all_trials(model: str, image: media.Image) -> None:
    calls: list[tuple[int, int]] = []
    data = pipeline.encode(
        image, model=model, bpp=1.1, progress=lambda done, count: calls.append((done, count))
    )
    assert data and calls[0] == (1, rate_control.TRIALS)
    shares = [done / count for done, count in calls]
    assert shares == sorted(shares) and shares[0] > 0 and shares[-1] <= 1
    assert [done for done, _ in calls] == [*range(1, len(calls) + 1)], "one image of one block each"
