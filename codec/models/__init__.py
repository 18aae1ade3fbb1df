"""The models: each method has one file or folder in the order of its paper, and is a `base.Model`.

A new model is its file and one line in `MODELS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

from ..errors import ModelError, UsageError
from ..priors.settings import Config, TrainConfig
from . import lossless, ppca, thumbnail, vae
from .base import Card, Model
from .latent import VAE, VAEGAN, BetaVAE, DeltaVAE, LatentModel, beta_vae, delta_vae, vae_gan
from .latent import vae as latent_vae
from .vqvae import (
    AudioVQVAE,
    HierarchicalVQVAE,
    ImageVQVAE,
    ResidualAudioVQVAE,
    WaveNetVQVAE,
    audio,
    hierarchical,
    image,
    residual,
    wavenet,
)

__all__ = ["MODELS", "Entry", "LatentModel", "build", "class_for", "class_of", "from_card"]


@dataclass(frozen=True)
class Entry:
    """A model that can be trained.

    Attributes:
        config: default settings.
        model: class of the model, built from such settings.
        training: default settings of its training.
    """

    config: Config
    model: type[Model]
    training: TrainConfig


_IMAGE = TrainConfig()
_AUDIO = TrainConfig(crop=0.64, beta1=0.8, beta2=0.99)
_PPCA = TrainConfig(steps=500, batch=8, crop=192, learning_rate=2e-3, average=0.99)
_LATENT = TrainConfig(batch=128, crop=32, clip=1000.0, weight_decay=0.0, learning_rate=1e-3, average=0.998)
_LOSSLESS = TrainConfig(
    batch=4, crop=96, learning_rate=5e-3, average=0.998, downscale=2.0, noise=3.0, coarse_chroma=0.5
)
_THUMBNAIL = TrainConfig(steps=1, batch=16, crop=256, learning_rate=1e-6)

MODELS: dict[str, Entry] = {
    "vqvae-image": Entry(image.Config(), ImageVQVAE, _IMAGE),
    "vqvae-image-paper": Entry(image.PAPER, ImageVQVAE, _IMAGE),
    "vqvae-audio": Entry(audio.Config(), AudioVQVAE, _AUDIO),
    "rvqvae-audio": Entry(residual.Config(), ResidualAudioVQVAE, _AUDIO),
    "vqvae-audio-wavenet": Entry(wavenet.Config(), WaveNetVQVAE, _AUDIO),
    "vqvae-audio-paper": Entry(wavenet.PAPER, WaveNetVQVAE, _AUDIO),
    "vqvae2-image": Entry(hierarchical.ENTROPY_CONSTRAINED, HierarchicalVQVAE, _IMAGE),
    "vqvae2-image-paper": Entry(hierarchical.PAPER, HierarchicalVQVAE, _IMAGE),
    "ppca-image": Entry(ppca.Config(), ppca.PPCACodec, _PPCA),
    "ppca-thumbnail": Entry(thumbnail.Config(), thumbnail.ThumbnailPPCA, _THUMBNAIL),
    "vae-image": Entry(vae.Config(), vae.VAE, TrainConfig(batch=4, crop=192)),
    "lossless-image": Entry(lossless.Config(), lossless.LosslessImage, _LOSSLESS),
    "vae-bits": Entry(latent_vae.Config(), VAE, _LATENT),
    "vae-thumbnail": Entry(latent_vae.THUMBNAIL, VAE, replace(_LATENT, batch=64, crop=256)),
    "beta-vae": Entry(beta_vae.Config(), BetaVAE, _LATENT),
    "delta-vae": Entry(delta_vae.Config(), DeltaVAE, _LATENT),
    "vae-gan": Entry(vae_gan.Config(), VAEGAN, replace(_LATENT, beta1=0.5, learning_rate=3e-4)),
}
"""Name -> model: the only list of models that can be trained and read."""


def build(config: Config) -> Model:
    """Build a model with fresh weights from its settings."""
    return cast("Callable[[Config], Model]", class_of(config))(config)  # each class has its own settings


def class_of(config: Config) -> type[Model]:
    """Return the class of the model with these settings."""
    return next(entry.model for entry in MODELS.values() if type(entry.config) is type(config))


def class_for(medium: str, method: str) -> type[Model] | None:
    """Return the class of the models of a method; None: there is none."""
    found = (e.model for e in MODELS.values() if (e.model.medium, e.model.method) == (medium, method))
    return next(found, None)


def from_card(card: Card) -> Model:
    """Build a model with fresh weights from the settings of its card.

    Raises:
        ModelError: a method of a later version, or settings out of their range.
        TypeError: settings that the method does not have.
    """
    kind = class_for(card.medium, card.method)
    for entry in MODELS.values():
        if entry.model is kind:
            config = type(entry.config)(**card.config)
            try:
                config.check()
            except UsageError as error:
                raise ModelError(f"{card.name}: {error.message}", "copy the weights file again") from error
            return build(config)
    raise ModelError(f"{card.name} is a {card.method} for {card.medium}, unknown here", "upgrade vqcodec")
