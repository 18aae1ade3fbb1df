"""Models with one latent vector per picture: the VAE, its objectives and its relatives."""

from .base import LatentConfig, LatentModel, Posterior
from .vae import VAE

__all__ = ["VAE", "LatentConfig", "LatentModel", "Posterior"]
