"""The VQ-VAE: `method` is common to all of them; `image`, `audio` and `wavenet` define the networks."""

from . import audio, image, method, wavenet
from .audio import AudioVQVAE
from .image import ImageVQVAE
from .method import VQVAE
from .wavenet import WaveNetVQVAE

__all__ = ["VQVAE", "AudioVQVAE", "ImageVQVAE", "WaveNetVQVAE", "audio", "image", "method", "wavenet"]
