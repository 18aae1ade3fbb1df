"""p(symbols) in integers, the same on every machine: what compresses, and what samples."""

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
    """A learned prior over the indices of a codebook, which is trained after them.

    Attributes:
        medium: of the models that it belongs to.
        config: its settings unless told otherwise.
        network: makes the network in training, from settings and codebook.
        prior: makes the prior in coding, from its integers.
        training: how it is trained unless told otherwise.
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
"""Method as cards name it -> learned prior: the one list of what can be trained and read."""


def learned_prior_for(medium: str) -> str | None:
    """The method that is trained for models of a medium: the first of its priors; None: there is none."""
    return next((method for method, entry in PRIORS.items() if entry.medium == medium), None)
