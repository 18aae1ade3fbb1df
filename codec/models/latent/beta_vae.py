"""beta-VAE (Higgins et al. 2017), with KL warm-up and free bits: objectives other than the ELBO.

beta       distortion + beta * rate (eq. 4)
warm-up    beta rises from 0 at the beginning of the training (Bowman et al. 2016)
free bits  the rate of a group of units counts as `free_bits` nats where the mean of the batch is less: no
gradient lowers it further (Kingma et al. 2016, eq. 15). A group is one unit, or all of them, which
leaves it to the units how they share the nats
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ...priors.settings import setting
from ..base import LossStep
from . import networks, vae


@dataclass(frozen=True)
class Config(vae.Config):
    """Settings of a beta-VAE.

    Attributes:
        side, channels, units, likelihood, variance: see `LatentConfig`.
        network, hidden, decoder, pixelcnn_width, pixelcnn_blocks, linear_start: see `vae.Config`.
        beta: weight of the rate.
        kl_warmup: share of the training over which the weight rises from 0 to `beta`.
        free_bits: nats of every group that cost nothing.
        free_bits_of: the groups: each "unit", or "all" of them as one.
    """

    side: int = setting(32, low=4, high=256)
    units: int = setting(10, low=1, high=1 << 12)
    network: networks.Kind = "conv"
    hidden: int = setting(256, low=1, high=1 << 14)
    beta: float = setting(4.0, low=0, high=1e6, training_only=True)
    kl_warmup: float = setting(0.0, low=0, high=1, training_only=True)
    free_bits: float = setting(0.0, low=0, high=1e3, training_only=True)
    free_bits_of: Literal["unit", "all"] = setting("unit", training_only=True)


class BetaVAE(vae.VAE):
    """VAE whose loss weighs the rate.

    Attributes:
        warm: share of beta that the warm-up has reached, [].
    """

    method = "beta-VAE"
    config: Config
    warm: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.register_buffer("warm", torch.tensor(0.0 if config.kl_warmup else 1.0))

    @property
    def rate_weight(self) -> float:
        """Weight of the rate, as in `LatentModel.rate_weight`."""
        return self.config.beta

    def rate_cost(self, kl: Tensor) -> Tensor:
        """Return what the loss has for the rate, as in `LatentModel.rate_cost`; warm-up in training alone."""
        groups = kl.mean(0) if self.config.free_bits_of == "unit" else kl.sum(1).mean()
        cost = self.config.beta * groups.clamp(min=self.config.free_bits).sum()
        return self.warm * cost if self.training else cost

    def update(self, step: LossStep, progress: float, generator: torch.Generator) -> dict[str, int]:
        """Continue the warm-up, as in `Trainable.update`."""
        if self.config.kl_warmup:
            self.warm.fill_(min(progress / self.config.kl_warmup, 1.0))
        return super().update(step, progress, generator)
