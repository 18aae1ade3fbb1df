"""p(symbols) in integers, the same on every machine: what compresses, and what samples."""

from __future__ import annotations

from typing import Any

from . import learned, pixelcnn, wavenet
from .learned import PREFIX

__all__ = ["CODED", "NETWORKS", "PREFIX", "PRIORS", "RANGES"]

PRIORS: dict[str, Any] = {"image": pixelcnn.Config(), "audio": wavenet.Config()}
"""Medium -> settings of its learned prior."""

NETWORKS: dict[type, Any] = {pixelcnn.Config: pixelcnn.PixelCNN, wavenet.Config: wavenet.WaveNet}
"""Class of settings -> class of the network in training."""

CODED: dict[tuple[str, str], type[learned.LearnedPrior]] = {
    ("image", "pixelcnn"): pixelcnn.PixelCNNPrior,
    ("audio", "wavenet"): wavenet.WaveNetPrior,
}
"""Medium, and method as cards name it -> class of the prior in coding."""

RANGES: dict[type, dict[str, tuple[float, float]]] = {
    pixelcnn.Config: {"embedding": (1, 255), "width": (1, 204), "hidden": (1, 1024), "blocks": (0, 100)},
    wavenet.Config: {"width": (1, 512), "skip": (1, 1024), "layers": (1, 12), "stacks": (1, 20)},
}
"""Class of settings -> setting -> the smallest and the largest value: no layer has more than 1,024 inputs."""
