"""Priors: p(symbols) in integers, the same on every machine, for coding and for sampling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from . import attention, conditional, ngram, pixelcnn, wavenet
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
        network: builds the network in training, from settings and codebook, and those of the planes before.
        prior: builds the prior in coding, from its integers.
        training: default settings of its training.
        given: whether it is given the codes of the planes before.
    """

    medium: str
    config: Config
    network: Callable[..., Network]
    prior: Callable[[Mapping[str, Array]], LearnedPrior]
    training: TrainConfig
    given: bool = False


_PIXELCNN = TrainConfig(steps=5000, learning_rate=2e-3)
_ATTENTIVE = TrainConfig(steps=5000, learning_rate=2e-3, crop=256)
_WAVENET = TrainConfig(steps=5000, learning_rate=2e-3, crop=2.048)
_NGRAM = TrainConfig(steps=2000, batch=2, learning_rate=2e-3, crop=2.048)

PRIORS: dict[str, LearnedPriorEntry] = {
    "pixelcnn": LearnedPriorEntry(
        "image", pixelcnn.Config(), pixelcnn.PixelCNN, pixelcnn.PixelCNNPrior, _PIXELCNN
    ),
    "attentive-pixelcnn": LearnedPriorEntry(
        "image",
        attention.Config(),
        attention.AttentivePixelCNN,
        attention.AttentivePixelCNNPrior,
        _ATTENTIVE,
    ),
    "conditional-pixelcnn": LearnedPriorEntry(
        "image",
        conditional.Config(),
        conditional.ConditionalPixelCNN,
        conditional.ConditionalPixelCNNPrior,
        _PIXELCNN,
        given=True,
    ),
    "wavenet": LearnedPriorEntry("audio", wavenet.Config(), wavenet.WaveNet, wavenet.WaveNetPrior, _WAVENET),
    "conditional-ngram": LearnedPriorEntry(
        "audio", ngram.Config(), ngram.NGram, ngram.NGramPrior, _NGRAM, given=True
    ),
}
"""Method, as named in cards -> learned prior: the only list of those that can be trained and read."""


def learned_prior_for(medium: str) -> str | None:
    """Return the method trained for models of a medium: the first of its priors; None: there is none."""
    return next((method for method, entry in PRIORS.items() if entry.medium == medium), None)
