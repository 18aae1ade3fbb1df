"""Optimisers of a model and of its discriminator."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..models.base import Discriminator, LossStep
from ..priors.settings import TrainConfig
from . import distributed
from .capture import CUDAGraphed

SLOW = 0.15
"""Learning rate of a model's `slow` parameters, over that of the others."""


class Opponent:
    """A discriminator with its optimiser; it learns half as fast as what it judges."""

    def __init__(self, network: Discriminator, settings: TrainConfig, device: str) -> None:
        self.network, self.settings = network, settings
        self.optimiser = optimiser_of(settings, device, list(network.parameters()))
        self._loss = CUDAGraphed(network, network.loss)

    def learn(self, step: LossStep, rate: float) -> Tensor:
        """Take a step for the batch of a model's loss; its own loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate / 2
        self.optimiser.zero_grad(set_to_none=True)
        inputs = step.kept["reconstruction"], step.kept["samples"]
        self._loss.prepare(*inputs)
        judged = distributed.gathered(self._loss.run(*inputs))  # so that all decide alike
        if not self.network.learns(judged):
            return judged.loss
        distributed.average([*self.network.parameters()])
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip)
        self.optimiser.step()
        return judged.loss


def optimiser_of(
    settings: TrainConfig, device: str, fast: Sequence[Tensor], slow: Sequence[Tensor] = ()
) -> torch.optim.Optimizer:
    """AdamW; `slow` parameters have SLOW times the learning rate."""
    groups = [{"params": fast, "lr_scale": 1.0}, {"params": slow, "lr_scale": SLOW}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        weight_decay=settings.weight_decay,
        fused=device != "mps",
    )
