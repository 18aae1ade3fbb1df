"""One method, one file or folder, in the order of its paper; what they have in common is `base.Codec`."""

from __future__ import annotations

from typing import Any

from ..errors import ModelError
from ..priors import PRIORS
from ..priors import RANGES as PRIOR_RANGES
from . import ppca, vae, variable_rate
from .base import Card, Model
from .fitting import PriorFit
from .vqvae import AudioVQVAE, ImageVQVAE, WaveNetVQVAE, audio, image, method, wavenet

__all__ = ["CLASSES", "GROWABLE", "MODELS", "PRIORS", "RANGES", "SHRINKABLE", "TRAINING_ONLY"]
__all__ += ["WHAT_IS_TRAINED", "PriorFit", "build", "from_card"]

MODELS: dict[str, Any] = {
    "vqvae-image": image.Config(),
    "vqvae-image-paper": image.PAPER,
    "vqvae-audio": audio.Config(),
    "vqvae-audio-wavenet": wavenet.Config(),
    "vqvae-audio-paper": wavenet.PAPER,
    "ppca-image": ppca.Config(),
    "vae-image": vae.Config(),
}
"""Name -> settings: the one list of what can be trained."""

CLASSES: dict[type, Any] = {
    ppca.Config: ppca.PPCACodec,
    vae.Config: vae.VAE,
    image.Config: ImageVQVAE,
    audio.Config: AudioVQVAE,
    wavenet.Config: WaveNetVQVAE,
}
"""Class of settings -> class of model."""

RANGES: dict[type, dict[str, tuple[float, float]]] = {
    **{module.Config: method.RANGES | module.RANGES for module in (image, audio, wavenet)},
    ppca.Config: ppca.RANGES,
    vae.Config: vae.RANGES,
    **PRIOR_RANGES,
}
"""Class of settings -> setting -> the smallest and the largest value that a training can work with."""

TRAINING_ONLY = method.TRAINING_ONLY | audio.TRAINING_ONLY
"""Settings that do not change what the weights mean."""

WHAT_IS_TRAINED = audio.WHAT_IS_TRAINED
"""Those of them that say which networks have an optimiser, so that a run cannot change them on its way."""


GROWABLE: dict[type, set[str]] = {kind: set() for kind in CLASSES} | {audio.Config: audio.GROWABLE}
"""Class of settings -> settings that may be larger than those of the weights that a training starts from."""

SHRINKABLE: dict[type, set[str]] = {kind: set() for kind in CLASSES}
SHRINKABLE |= {kind: variable_rate.SHRINKABLE for kind in (ppca.Config, vae.Config)}
"""Class of settings -> settings that may be smaller than those."""


def build(config: Any) -> Model:
    """A model with fresh weights for these settings."""
    model: Model = CLASSES[type(config)](config)
    return model


def from_card(card: Card) -> Model:
    """A model with fresh weights as a card describes it.

    Raises:
        ModelError: a method of a later version.
        TypeError: settings that the method does not have.
    """
    for settings, model in CLASSES.items():
        if (model.medium, model.method) == (card.medium, card.method):
            return build(settings(**card.config))
    raise ModelError(f"{card.name} is a {card.method} for {card.medium}, unknown here", "upgrade")
