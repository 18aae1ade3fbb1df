"""One method, one file or folder, in the order of its paper; what they have in common is `base.Codec`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ModelError
from .vqvae import VQVAE, AudioVQVAE, ImageVQVAE, WaveNetVQVAE, audio, image, method, wavenet

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

RANGES = {module.Config: method.RANGES | module.RANGES for module in (image, audio, wavenet)}
"""Class of settings -> setting -> the smallest and the largest value that a training can work with."""

TRAINING_ONLY = method.TRAINING_ONLY | audio.TRAINING_ONLY
"""Settings that do not change what the weights mean."""

WHAT_IS_TRAINED = audio.WHAT_IS_TRAINED
"""Those of them that say which networks have an optimiser, so that a run cannot change them on its way."""


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
