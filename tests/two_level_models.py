"""A small VQ-VAE-2 with both priors that the tests of two levels share, as fixtures of each module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import SMALL
from vqcodec import training
from vqcodec.priors import PRIORS, LearnedPriorEntry, attention, conditional
from vqcodec.priors.settings import TrainConfig

FAST = TrainConfig(steps=12, batch=4, crop=64, learning_rate=1e-2)
SHAPES = {
    "attentive-pixelcnn": attention.Config(4, 8, 4, 2, 1, 2, 4, 4),
    "conditional-pixelcnn": conditional.Config(
        4, 8, 4, 1, above_embedding=4, above_width=6, above_hidden=4, above_blocks=1
    ),
}


@pytest.fixture(autouse=True, scope="module")
def small_priors() -> None:
    """Priors that train in seconds."""
    with pytest.MonkeyPatch.context() as patch:
        for name, config in SHAPES.items():
            old = PRIORS[name]
            entry = LearnedPriorEntry("image", config, old.network, old.prior, FAST, old.given)
            patch.setitem(PRIORS, name, entry)
        yield  # type: ignore[misc]


OPTIONS: dict[str, Any] = {
    "model": "vqvae2-image",
    "steps": 12,
    "batch": 4,
    "crop": 64,
    "checkpoint_every": 6,
    "overrides": {**SMALL, "context": "6"},
}


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory, small_priors: None) -> training.Run:
    """12 steps of the codec, of the top's prior and of the bottom's, in one command."""
    return training.train([photos], output=tmp_path_factory.mktemp("runs") / "two", **OPTIONS)
