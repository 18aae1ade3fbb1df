"""Sampling by variable-rate models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import draw
from variable_rate_models import model, run
from vqcodec import media, pipeline, training, weights
from vqcodec.bitstream.container import LEARNED, ImageGeometry
from vqcodec.bitstream.quality import DEFAULT_QUALITY, index_of
from vqcodec.coding import driver
from vqcodec.errors import UsageError
from vqcodec.pipeline import sampling
from vqcodec.transform import image as image_transform

__all__ = ["model", "run"]


def test_samples_are_the_same_for_a_seed(model: str) -> None:
    first = sampling.sample(model, count=2, size=(70, 40), seed=3)
    again = sampling.sample(model, count=2, size=(70, 40), seed=3)
    assert [one.samples.shape for one in first] == [(40, 70, 3)] * 2
    assert all(np.array_equal(a.samples, b.samples) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0].samples, first[1].samples)
    with pytest.raises(UsageError, match="top-k"):
        sampling.sample(model, top_k=5)


def test_an_image_can_be_continued(model: str) -> None:
    data = pipeline.encode(media.Image(draw(160, 160, 1)), model=model)
    whole = pipeline.decode(data, model=model).samples
    (drawn,) = sampling.sample(model, continued=data, fraction=0.5)
    assert np.array_equal(sampling.sample(model, continued=data, fraction=1)[0].samples, whole)
    rows = 80 - 16 * weights.load(model, "cpu").halo
    assert np.array_equal(drawn.samples[: max(rows, 0)], whole[: max(rows, 0)])
    assert not np.array_equal(drawn.samples, whole)


def test_samples_are_bounded(model: str) -> None:
    with pytest.raises(UsageError, match="samples, limit 67,108,864"):
        sampling.sample(model, size=(8193, 8192))


@pytest.mark.parametrize("size", [(560, 24), (20, 1030)])
def test_an_image_is_one_region_whatever_its_size(model: str, size: tuple[int, int]) -> None:
    """Chunks hold 512 x 512 pixels; what is sampled has no seams there."""
    codec = weights.load(model, "cpu")
    point = codec.at(index_of(DEFAULT_QUALITY))
    geometry = ImageGeometry(*size, 3, 16)
    assert geometry.chunk_count > 1
    _, second = sampling.sample(codec, count=2, size=size, seed=5)
    nothing = {"y": point.planes[0].empty(geometry.grid(16))}
    (symbols,) = driver.sample(codec.prior, [nothing], {"y": 0}, [(5, 1)], point.index)
    assert np.array_equal(image_transform.synthesise(symbols, point, geometry), second.samples)


def test_an_image_with_a_prior_over_indices_is_one_region(with_prior: training.Run) -> None:
    codec = weights.load(with_prior.best, "cpu")
    (whole,) = sampling.sample(codec, size=(520, 12), seed=5)
    geometry = ImageGeometry(520, 12)
    nothing = {"codes": np.zeros(geometry.grid(4), np.int32)}
    (symbols,) = driver.sample(codec.priors[LEARNED], [nothing], {"codes": 0}, [(5, 0)], 0)
    assert np.array_equal(image_transform.synthesise(symbols, codec.at(0), geometry), whole.samples)


def test_stored_pixels_cannot_be_continued(model: str, small: str) -> None:
    pixels = draw(40, 30)
    for name in (model, small):
        data = pipeline.encode(pixels, model=name, target_size=10**6)
        with pytest.raises(UsageError, match="the file stores pixels") as caught:
            sampling.sample(name, continued=data)
        assert caught.value.hint == "continue another file"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": 3}, "seconds do not apply to images"),
        ({"size": (0, 4)}, "a size of 0 x 4"),
        ({"fraction": 1.01}, "a fraction of 1.01"),
        ({"count": 0}, "count and top-k are 1 or more"),
        ({"top_k": 0}, "count and top-k are 1 or more"),
        ({"temperature": 0}, "temperature 1/16 to 16"),
        ({"seed": -1}, "a seed of -1"),
        ({"seed": 2**64}, "a seed of"),
    ],
)
def test_what_cannot_be_sampled(model: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        sampling.sample(model, **options)


def test_models_without_a_learned_prior_do_not_sample(small: str, small_sound: str) -> None:
    for name in (small, small_sound):
        with pytest.raises(UsageError, match="has no learned prior"):
            sampling.sample(name)
    with pytest.raises(UsageError, match="a size does not apply to audio"):
        sampling.sample(small_sound, size=(4, 4))
