"""The VQ-VAE: `method` is what the paper says; `image`, `audio` and `wavenet` are its networks."""

from . import audio, image, method, wavenet
from .audio import AudioVQVAE
from .image import ImageVQVAE
from .method import VQVAE
from .wavenet import WaveNetVQVAE

__all__ = ["VQVAE", "AudioVQVAE", "ImageVQVAE", "WaveNetVQVAE", "audio", "image", "method", "wavenet"]
