"""Rate-distortion trade-off: lambda by quality index, the distortion, and the likelihood of latents."""

from __future__ import annotations

import torch
from torch import Tensor

from ..priors import gaussian_tables
from ..priors.base import TOTAL
from .losses import luma, ms_ssim

WHITE = 255.0
"""Peak of 8-bit values, the unit of errors."""

INDICES_PER_LAMBDA_DOUBLING = 27

LOSS_EXPONENT = 0.4
"""w of the loss weight lambda^-w, which keeps low and high rates balanced within a batch."""

ERROR_SCALE = 1 / 3
"""256 lambda bits for the MSE over the 768 samples under a latent position: 1/3 per squared error."""

MSE_PER_MS_SSIM = 3000.0
"""Squared error equivalent to 1 - MS-SSIM. Over the quality indexes of a model trained by the squared error
alone, both fall with the rate in this proportion (2,850 to 3,050 up to index 120, 1,800 at the end)."""

LOW_RATE_EASING = 3.3
"""At index 0 the mixture is divided by 1 + LOW_RATE_EASING times the share of MS-SSIM, and by less as lambda
grows: MS-SSIM favours low rates, which would otherwise rise by half."""

LUMA_WEIGHTS = 0.02, 0.12, 0.5, 0.25, 0.11
"""Exponents of the scales in the MS-SSIM of luma. A quarter of the resolution counts most: SSIMULACRA 2
(Sneyers 2022-2023, libjxl) weighs structure of luma there highest, so that this term teaches part of it."""

NEARLY_CERTAIN = -2.0
"""log2 of sigma, in steps, below which at most one symbol in twenty is not 0."""


def rd_lambda(index: Tensor) -> Tensor:
    """Return lambda, bits per pixel for a mean squared error of 1: 2**-11 at index 0, 0.34 at LAST_INDEX."""
    return torch.exp2(index / INDICES_PER_LAMBDA_DOUBLING - 11)


def loss_weight(lambda_: Tensor) -> Tensor:
    """Return the weight of the loss at this lambda: (lambda / 0.01)**-LOSS_EXPONENT, 1 at 0.01."""
    return (lambda_ / 0.01) ** -LOSS_EXPONENT


def rd_loss(rate: Tensor, distortion: Tensor, index: Tensor) -> Tensor:
    """Return the weighted mean of rate + lambda * distortion over images: [B] each -> scalar."""
    lambda_ = rd_lambda(index)
    return ((rate + lambda_ * distortion) * loss_weight(lambda_)).mean()


def distortion(
    reconstruction: Tensor, samples: Tensor, index: Tensor, ms_ssim_share: float, luma_share: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return the distortion of the loss, and the mean squared error of 8-bit values, of each image: [B] both.

    The distortion is a mixture of the squared error and 1 - MS-SSIM, in units of the squared error.

    Args:
        reconstruction: [B, 3, H, W] in -1..1.
        samples: the same shape.
        index: quality index, [B].
        ms_ssim_share: share of 1 - MS-SSIM in the mixture, 0..1.
        luma_share: share of luma, with LUMA_WEIGHTS, in the MS-SSIM; the rest is of red, green, blue.
    """
    error = (reconstruction - samples).square().mean((1, 2, 3)) * (WHITE / 2) ** 2
    if not ms_ssim_share:
        return error, error
    dissimilarity = 1 - ms_ssim(reconstruction, samples)
    if luma_share:
        of_luma = 1 - ms_ssim(luma(reconstruction), luma(samples), LUMA_WEIGHTS)
        dissimilarity = (1 - luma_share) * dissimilarity + luma_share * of_luma
    mixture = (1 - ms_ssim_share) * error + ms_ssim_share * MSE_PER_MS_SSIM * dissimilarity
    easing = LOW_RATE_EASING * torch.exp2(-index / INDICES_PER_LAMBDA_DOUBLING)
    return mixture / (1 + ms_ssim_share * easing), error


def likelihood(residual: Tensor, log2_scale: Tensor, weights: Tensor) -> Tensor:
    """Return the mass of a mixture of Gaussians of mean 0 within half a step of a residual in steps: [...].

    It is not below that of the tables.

    Args:
        residual: [...].
        log2_scale: log2 of the deviations of the components, in steps, [..., J].
        weights: of the components, [..., J].
    """
    size, scale = residual.abs()[..., None], torch.exp2(-log2_scale)
    upper, lower = (torch.special.ndtr((edge - size) * scale) for edge in (0.5, -0.5))
    mass: Tensor = ((upper - lower) * weights).sum(-1) + gaussian_tables.FLOOR / TOTAL
    return mass
