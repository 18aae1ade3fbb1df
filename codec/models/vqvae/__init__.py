"""The VQ-VAE: `method` is common to all of them; `image`, `audio` and `wavenet` define the networks.

`hierarchical` is VQ-VAE-2, with two levels of codes; `residual` has levels of audio, one for each rate.
"""

from . import audio, hierarchical, image, method, residual, wavenet
from .audio import AudioVQVAE
from .hierarchical import HierarchicalVQVAE
from .image import ImageVQVAE
from .method import VQVAE
from .residual import ResidualAudioVQVAE
from .wavenet import WaveNetVQVAE

__all__ = [
    "VQVAE",
    "AudioVQVAE",
    "HierarchicalVQVAE",
    "ImageVQVAE",
    "ResidualAudioVQVAE",
    "WaveNetVQVAE",
    "audio",
    "hierarchical",
    "image",
    "method",
    "residual",
    "wavenet",
]
