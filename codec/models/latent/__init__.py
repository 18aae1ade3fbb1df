"""Models with one latent vector per picture: the VAE, its objectives and its relatives."""

from .base import LatentConfig, LatentModel, Posterior
from .beta_vae import BetaVAE
from .delta_vae import DeltaVAE
from .vae import VAE
from .vae_gan import VAEGAN

__all__ = ["VAE", "VAEGAN", "BetaVAE", "DeltaVAE", "LatentConfig", "LatentModel", "Posterior"]
