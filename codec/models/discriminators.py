"""Discriminators between originals and reconstructions, with the hinge loss; in training alone."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from .trainable import Discriminator, LossStep

CHANNELS = (3, 32, 64, 128)
"""Channels of the maps of a `PatchDiscriminator` at full size, and at 1/2, 1/4, 1/8 of it."""


class HingeDiscriminator(Discriminator):
    """Networks for several scales: samples -> scores, high for originals, and maps of the layers before."""

    def __init__(self, scales: Iterable[nn.Module]) -> None:
        super().__init__()
        self.scales = nn.ModuleList(scales)

    def judge(self, reconstruction: Tensor, samples: Tensor) -> dict[str, Tensor]:
        """Compute the terms of the decoder's loss.

        Args:
            reconstruction: [B, C, ...].
            samples: the same shape.

        Returns:
            "adversarial": mean of max(0, 1 - score) of reconstructions; "matching": mean |difference| of
            feature maps over the mean |map| of the originals (relative feature matching, Defossez et al.
            2022, section 3.4).
        """
        scores, differences = [], []
        for scale in self.scales:
            with torch.no_grad():
                _, theirs = scale(samples)
            score, ours = scale(reconstruction)
            scores.append(F.relu(1 - score).mean())
            differences += [
                F.l1_loss(a, b) / b.abs().mean().clamp(min=1e-6) for a, b in zip(ours, theirs, strict=True)
            ]
        return {
            "adversarial": torch.stack(scores).mean(),
            "matching": torch.stack(differences).mean(),
        }

    def loss(self, reconstruction: Tensor, samples: Tensor) -> LossStep:
        """Compute the hinge loss, as in `Discriminator.loss`: 0 if all are distinguished, 2 if none is."""
        losses = []
        for scale in self.scales:
            real, unreal = scale(samples)[0], scale(reconstruction.detach())[0]
            losses.append(F.relu(1 - real).mean() + F.relu(1 + unreal).mean())
        return LossStep(torch.stack(losses).mean())


class PatchScale(nn.Module):
    """Discriminator of overlapping patches, PatchGAN (Isola et al. 2017, section 3.2.2), of a smaller image.

    Shapes: [B, 3, H, W] -> scores [B, 1, H / (8 s), W / (8 s)], and the maps of all layers before.
    """

    def __init__(self, smaller: int) -> None:
        super().__init__()
        self.smaller = smaller
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1) for a, b in pairwise(CHANNELS))
        self.score = nn.Conv2d(CHANNELS[-1], 1, 3, padding=1)

    def forward(self, samples: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return scores, high for originals, and feature maps."""
        x, maps = F.avg_pool2d(samples, self.smaller), []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            maps.append(x)
        return self.score(x), maps


class PatchDiscriminator(HingeDiscriminator):
    """PatchGAN at two scales, for images (Wang et al. 2018, "pix2pixHD", section 3.2)."""

    def __init__(self) -> None:
        super().__init__(PatchScale(smaller) for smaller in (1, 2))
