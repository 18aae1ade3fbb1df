"""Rate-distortion trade-off: lambda by quality index, and the likelihood of quantised latents."""

from __future__ import annotations

import torch
from torch import Tensor

from ..priors import gaussian_tables
from ..priors.base import TOTAL

INDICES_PER_LAMBDA_DOUBLING = 27

LOSS_EXPONENT = 0.4
"""w of the loss weight lambda^-w, which keeps low and high rates balanced within a batch."""

ERROR_SCALE = 1 / 3
"""256 lambda bits for the MSE over the 768 samples under a latent position: 1/3 per squared error."""


def rd_lambda(index: Tensor) -> Tensor:
    """Return lambda, bits per pixel for a mean squared error of 1: 2**-11 at index 0, 0.34 at LAST_INDEX."""
    return torch.exp2(index / INDICES_PER_LAMBDA_DOUBLING - 11)


def loss_weight(lambda_: Tensor) -> Tensor:
    """Return the weight of the loss at this lambda: (lambda / 0.01)**-LOSS_EXPONENT, 1 at 0.01."""
    return (lambda_ / 0.01) ** -LOSS_EXPONENT


def likelihood(residual: Tensor, sigma: Tensor) -> Tensor:
    """Return the mass of N(0, sigma**2) within half a step of a residual in steps, not below the tables'."""
    size = residual.abs()
    upper, lower = (torch.special.ndtr((edge - size) / sigma) for edge in (0.5, -0.5))
    mass: Tensor = upper - lower + gaussian_tables.FLOOR / TOTAL
    return mass
