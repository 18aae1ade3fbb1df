"""The VQ-VAE: `method` is what the paper says; `image`, `audio` and `wavenet` are its networks.

`hierarchical` is VQ-VAE-2, with two levels of codes.
"""

from . import audio, hierarchical, image, method, wavenet
from .audio import AudioVQVAE
from .hierarchical import HierarchicalVQVAE
from .image import ImageVQVAE
from .method import VQVAE
from .wavenet import WaveNetVQVAE

__all__ = [
    "VQVAE",
    "AudioVQVAE",
    "HierarchicalVQVAE",
    "ImageVQVAE",
    "WaveNetVQVAE",
    "audio",
    "hierarchical",
    "image",
    "method",
    "wavenet",
]
