"""One method, one file, in the order of its paper. `MODELS` is the one list of what can be trained."""

from __future__ import annotations

from . import vqvae

MODELS = {
    "vqvae-image": vqvae.Config(),
    "vqvae-image-paper": vqvae.PAPER,
}
"""Name -> settings. The class of the settings decides the class of the model, see `build`."""


def build(config: vqvae.Config) -> vqvae.VQVAE:
    """A model with fresh weights for these settings."""
    return vqvae.VQVAE(config)
