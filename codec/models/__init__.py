"""One method, one file or folder, in the order of its paper; what they have in common is `base.Codec`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import ModelError
from ..priors.learned import PREFIX, LearnedPrior
from . import fitting
from .fitting import CODED, PRIORS, PriorFit
from .vqvae import VQVAE, AudioVQVAE, ImageVQVAE, WaveNetVQVAE, audio, image, method, wavenet

__all__ = ["CLASSES", "GROWABLE", "MODELS", "PRIORS", "RANGES", "TRAINING_ONLY", "WHAT_IS_TRAINED"]
__all__ += ["PriorFit", "build", "from_card", "learned_prior"]

MODELS: dict[str, image.Config | audio.Config] = {
    "vqvae-image": image.Config(),
    "vqvae-image-paper": image.PAPER,
    "vqvae-audio": audio.Config(),
    "vqvae-audio-wavenet": wavenet.Config(),
    "vqvae-audio-paper": wavenet.PAPER,
}
"""Name -> settings: the one list of what can be trained."""

CLASSES: dict[type, Any] = {
    image.Config: ImageVQVAE,
    audio.Config: AudioVQVAE,
    wavenet.Config: WaveNetVQVAE,
}
"""Class of settings -> class of model."""

RANGES: dict[type, dict[str, tuple[float, float]]] = {
    **{module.Config: method.RANGES | module.RANGES for module in (image, audio, wavenet)},
    **fitting.RANGES,
}
"""Class of settings -> setting -> the smallest and the largest value that a training can work with."""

TRAINING_ONLY = method.TRAINING_ONLY | audio.TRAINING_ONLY
"""Settings that do not change what the weights mean."""

WHAT_IS_TRAINED = audio.WHAT_IS_TRAINED
"""Those of them that say which networks have an optimiser, so that a run cannot change them on its way."""


GROWABLE: dict[type, set[str]] = {image.Config: set(), audio.Config: audio.GROWABLE, wavenet.Config: set()}
"""Class of settings -> settings that may be larger than those of the weights that a training starts from."""


def build(config: Any) -> VQVAE:
    """A model with fresh weights for these settings."""
    model: VQVAE = CLASSES[type(config)](config)
    return model


def from_card(card: Mapping[str, Any]) -> VQVAE:
    """A model with fresh weights as a card describes it: "medium", "method", "config".

    Raises:
        ModelError: a method of a later version.
        LookupError, TypeError: the card is not one of ours.
    """
    for settings, model in CLASSES.items():
        if (model.medium, model.method) == (card["medium"], card["method"]):
            return build(settings(**card["config"]))
    raise ModelError(f"{card['name']} is a {card['method']} for {card['medium']}, unknown here", "upgrade")


def learned_prior(medium: str, method: str, tensors: Mapping[str, np.ndarray]) -> LearnedPrior:
    """The learned prior among the tensors of a weight file.

    Raises:
        ModelError: a method of a later version, or tensors that do not fit it.
    """
    if (medium, method) not in CODED:
        raise ModelError(f"a prior of method {method} for {medium}, unknown here", "upgrade")
    return CODED[medium, method](
        {name.removeprefix(PREFIX): array for name, array in tensors.items() if name.startswith(PREFIX)}
    )
