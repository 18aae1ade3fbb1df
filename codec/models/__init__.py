"""One method, one file or folder, in the order of its paper; what they have in common is `base.Codec`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import ModelError
from ..priors.gaussian import GaussianPrior
from ..priors.learned import PREFIX, LearnedPrior
from . import fitting, ppca, vae
from . import variable_rate as scalar
from .fitting import CODED, PRIORS, PriorFit
from .variable_rate import ScalarCodec
from .vqvae import VQVAE, AudioVQVAE, ImageVQVAE, WaveNetVQVAE, audio, image, method, wavenet

__all__ = ["CLASSES", "GROWABLE", "MODELS", "PRIORS", "RANGES", "SHRINKABLE", "TRAINING_ONLY"]
__all__ += ["WHAT_IS_TRAINED", "PriorFit", "build", "from_card", "learned_prior"]

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
    **fitting.RANGES,
}
"""Class of settings -> setting -> the smallest and the largest value that a training can work with."""

TRAINING_ONLY = method.TRAINING_ONLY | audio.TRAINING_ONLY
"""Settings that do not change what the weights mean."""

WHAT_IS_TRAINED = audio.WHAT_IS_TRAINED
"""Those of them that say which networks have an optimiser, so that a run cannot change them on its way."""


GROWABLE: dict[type, set[str]] = {kind: set() for kind in CLASSES} | {audio.Config: audio.GROWABLE}
"""Class of settings -> settings that may be larger than those of the weights that a training starts from."""

SHRINKABLE: dict[type, set[str]] = {kind: set() for kind in CLASSES}
SHRINKABLE |= {kind: scalar.SHRINKABLE for kind in (ppca.Config, vae.Config)}
"""Class of settings -> settings that may be smaller than those."""


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


def learned_prior(
    model: VQVAE | ScalarCodec, card: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> LearnedPrior | GaussianPrior | None:
    """The learned prior among the tensors of a weight file; None where there is none.

    Raises:
        ModelError: a method of a later version, or tensors that do not fit it.
        LookupError, ValueError: the card tells of another prior.
    """
    arrays = {n.removeprefix(PREFIX): array for n, array in tensors.items() if n.startswith(PREFIX)}
    if isinstance(model, ScalarCodec):
        return GaussianPrior(arrays, shape=model.shape)
    if "learned" not in card:
        return None
    told, medium = card["learned"], card["medium"]
    if (medium, told["method"]) not in CODED:
        raise ModelError(f"a prior of method {told['method']} for {medium}, unknown here", "upgrade")
    prior = CODED[medium, told["method"]](arrays)
    if prior.fingerprint.hex() != told["fingerprint"] or prior.levels != model.codes:
        raise ValueError("another prior")
    return prior
