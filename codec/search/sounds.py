"""Codes of sounds whose reconstruction is nearer to the original, at no more bits, than that of the nearest.

The latents are moved down the gradient of the model's own distortion, which passes the quantizer straight
through (van den Oord et al. 2017, section 3.2), in the manner of Djelouah et al. 2019 ("Content adaptive
optimization for neural image compression"). On the way a code is chosen by its distance and by its bits in
the context of the codes chosen before. The codes that sounded best are kept.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import losses
from ..models.vqvae import AudioVQVAE, WaveNetVQVAE

STEPS = {0: 0, 1: 0, 2: 10, 3: 20}
"""Steps of gradient descent, by effort. On validation speech 40 and 60 gained nothing over 20."""

PACE = 0.27
"""How far the first step moves a number of the latents, over the mean size of the codebook's numbers, times
the square root of the steps."""

RATE_WEIGHT = 0.04
"""Squared distance that one bit is worth, over the mean square of the codes: on validation speech 20 steps
then take as many bits as the nearest codes; with 0.02 4 % more, with none 8 %."""

LOOK_EVERY = 5
"""Steps between questions to the learned prior: what it says of a sound changes slowly."""


@torch.no_grad()
def find_codes(codec: AudioVQVAE, samples: Tensor, effort: int, prior: nn.Module | None) -> Tensor:
    """Codes of a sound, searched for with this effort.

    Args:
        codec: the model; an autoregressive decoder has no reconstruction to judge by, and the nearest are
            taken.
        samples: float32 [1, 1, N] in -1..1, N a multiple of the stride.
        effort: 0 and 1, the nearest codes; 2 and 3, also by the distortion after decoding, in 10 and 20
            steps; it is never above that of the nearest.
        prior: gives logits of all codes, int64 [1, T] -> [1, K, T]; or None to look at distances alone.

    Returns:
        int64 [1, N / stride].
    """
    latents = codec.latents(samples)
    nearest = codec.quantizer.encode(latents)
    steps = STEPS[effort]
    if not steps or isinstance(codec, WaveNetVQVAE):
        return nearest
    codebook = codec.quantizer.codebook.detach()
    square = codebook.square()
    bits, worth = torch.zeros(()), RATE_WEIGHT * float(square.sum(1).mean())
    pace = PACE * float(square.mean().sqrt()) / steps**0.5
    latents = latents.clone().requires_grad_()
    optimiser = torch.optim.Adam([latents], betas=(0.5, 0.99))
    codes = best = nearest
    least = math.inf
    for step in range(steps):
        with torch.enable_grad():
            aims = F.normalize(latents, dim=1) if codec.config.normalise else latents
            if step:
                codes = _choose(aims.detach(), codebook, worth * bits)
            quantized = aims + (codec.quantizer.decode(codes) - aims).detach()
            reconstruction = codec.reconstruct(quantized)
            distortion = codec.weighted(losses.spectral(reconstruction, samples, codec.rate))
        if distortion < least:
            best, least = codes, float(distortion)
        (latents.grad,) = torch.autograd.grad(distortion, latents)
        optimiser.param_groups[0]["lr"] = pace * (1 - 0.9 * step / steps)
        optimiser.step()
        if prior is not None and step % LOOK_EVERY == 0:
            bits = -F.log_softmax(prior(codes).float(), 1) / math.log(2)
    return best


def _choose(latents: Tensor, codebook: Tensor, costs: Tensor) -> Tensor:
    """Codes of the least squared distance and cost: [1, D, T], [K, D], [1, K, T] -> int64 [1, T]."""
    products = codebook @ latents
    return (codebook.square().sum(1)[:, None] - 2 * products + costs).argmin(1)
