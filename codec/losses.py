"""Distortions and the terms of training losses, each with its unit."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def squared_error(reconstruction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error in squared units of the samples (pixels: the range -1..1 is 2 units)."""
    return F.mse_loss(reconstruction, target)


def commitment(latent: Tensor, quantized: Tensor) -> Tensor:
    """Mean squared distance of the encoder's output to its code (van den Oord 2017, eq. 3, third term).

    Gradients reach the encoder only. Unit: squared units of the latents, per element.
    """
    return F.mse_loss(latent, quantized.detach())


def codebook(latent: Tensor, quantized: Tensor) -> Tensor:
    """Mean squared distance of the codes to the encoder's output (van den Oord 2017, eq. 3, second term).

    Gradients reach the codebook only. Unit: squared units of the latents, per element.
    """
    return F.mse_loss(quantized, latent.detach())
