"""One method, one file, in the order of its paper; what they have in common is `base.Codec`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ModelError
from . import vqvae

MODELS = {
    "vqvae-image": vqvae.Config(),
    "vqvae-image-paper": vqvae.PAPER,
}
"""Name -> settings: the one list of what can be trained."""

CLASSES = {vqvae.Config: vqvae.VQVAE}
"""Class of settings -> class of model."""


def build(config: vqvae.Config) -> vqvae.VQVAE:
    """A model with fresh weights for these settings."""
    return CLASSES[type(config)](config)


def from_card(card: Mapping[str, Any]) -> vqvae.VQVAE:
    """A model with fresh weights as a card describes it: "medium", "method", "config".

    Raises:
        ModelError: a method of a later version.
        LookupError, TypeError: the card is not one of ours.
    """
    for settings, model in CLASSES.items():
        if (model.medium, model.method) == (card["medium"], card["method"]):
            return model(settings(**card["config"]))
    raise ModelError(f"{card['name']} is a {card['method']} for {card['medium']}, unknown here", "upgrade")
