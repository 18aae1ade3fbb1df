"""Sampling by variable-rate models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import draw
from variable_rate_models import MODELS, trained
from vqcodec import media, pipeline, training, weights
from vqcodec.errors import (
    UsageError,
)
from vqcodec.pipeline import sampling


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


def test_samples_are_the_same_for_a_seed(model: str) -> None:
    first = sampling.sample(model, count=2, size=(70, 40), seed=3)
    again = sampling.sample(model, count=2, size=(70, 40), seed=3)
    assert [one.samples.shape for one in first] == [(40, 70, 3)] * 2
    assert all(np.array_equal(a.samples, b.samples) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0].samples, first[1].samples)
    with pytest.raises(UsageError, match="top-k"):
        sampling.sample(model, top_k=5)


def test_a_picture_can_be_continued(model: str) -> None:
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
