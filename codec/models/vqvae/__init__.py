"""The VQ-VAE: `method` is what the paper says, `image` and `audio` are its networks."""

from . import audio, image, method
from .audio import AudioVQVAE
from .image import ImageVQVAE
from .method import VQVAE

__all__ = ["VQVAE", "AudioVQVAE", "ImageVQVAE", "audio", "image", "method"]
