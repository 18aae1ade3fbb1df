"""Priors: p(symbols) in integers, the same on every machine, for coding and for sampling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from . import pixelcnn, wavenet
from .base import Array
from .learned import PREFIX, LearnedPrior, Network
from .settings import Config, TrainConfig

__all__ = ["PREFIX", "PRIORS", "LearnedPriorEntry", "learned_prior_for"]


@dataclass(frozen=True)
class LearnedPriorEntry:
    """A learned prior over the indices of a codebook, trained after the codebook.

    Attributes:
        medium: of its models, "image" or "audio".
        config: default settings.
        network: builds the network in training, from settings and codebook.
        prior: builds the prior in coding, from its integers.
        training: default settings of its training.
    """

    medium: str
    config: Config
    network: Callable[[Any, Tensor], Network]
    prior: Callable[[Mapping[str, Array]], LearnedPrior]
    training: TrainConfig


_PIXELCNN = TrainConfig(steps=5000, learning_rate=2e-3)
_WAVENET = TrainConfig(steps=5000, learning_rate=2e-3, crop=2.048)

PRIORS: dict[str, LearnedPriorEntry] = {
    "pixelcnn": LearnedPriorEntry(
        "image", pixelcnn.Config(), pixelcnn.PixelCNN, pixelcnn.PixelCNNPrior, _PIXELCNN
    ),
    "wavenet": LearnedPriorEntry("audio", wavenet.Config(), wavenet.WaveNet, wavenet.WaveNetPrior, _WAVENET),
}
"""Method, as named in cards -> learned prior: the only list of those that can be trained and read."""


def learned_prior_for(medium: str) -> str | None:
    """Return the method trained for models of a medium: the first of its priors; None: there is none."""
    return next((method for method, entry in PRIORS.items() if entry.medium == medium), None)
