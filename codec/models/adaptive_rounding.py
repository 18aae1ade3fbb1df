"""Round the weights of a synthesis network so that its outputs change least, not each weight: GPTQ.

The weights of an output are rounded one after another, and the error of each is made up for by those that
follow (Frantar, Ashkboos, Hoefler, Alistarh 2022, section 3.3, with the inverse of the inputs' second
moments). Plain rounding errs most where inputs are alike, as neighbouring pixels are: its errors add up.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..priors.exact_convolutions import WEIGHT, scales
from .synthesis import Decoder, Real, correction

DAMPING = 0.01
"""Added to the second moments, as a share of their mean."""

SPARSE = 5
"""One in so many positions is looked at; neighbours are alike."""


class _Moments(Real):
    """Arithmetic that sums the second moments of what enters each layer."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__(decoder)
        self.sums: dict[str, Tensor] = {}

    def convolved(self, name: str, x: Tensor) -> Tensor:
        layer = self._decoder.layer(name)
        side = layer.kernel_size[0]
        for image in x:
            inputs = F.unfold(image[None], side, padding=side // 2)[0, :, ::SPARSE]
            sums = inputs @ inputs.T
            self.sums[name] = self.sums[name].add_(sums) if name in self.sums else sums
        return super().convolved(name, x)


@torch.no_grad()
def round_weights(decoder: Decoder, batches: Iterable[tuple[Tensor, Tensor, Tensor]]) -> None:
    """Replace the weights by such as have integers, see `exact_convolutions.scales`.

    Args:
        decoder: the network.
        batches: inputs of it: latents, linear synthesis and index, as of `synthesis.correction`.
    """
    moments = _Moments(decoder)
    for batch in batches:
        correction(decoder.shape, moments, *batch)
    for name, sums in moments.sums.items():
        layer = decoder.layer(name)
        scale = scales(layer, decoder.inputs[name]).expand_as(layer.weight)
        units = scale[0].flatten() / scale[0].flatten()[0]
        whole = rounded((layer.weight * scale).flatten(1), sums * torch.outer(1 / units, 1 / units))
        layer.weight.copy_(whole.view_as(layer.weight) / scale)


def rounded(weights: Tensor, moments: Tensor) -> Tensor:
    """Return integers -WEIGHT..WEIGHT for weights [O, N], whose products with inputs differ little.

    Args:
        weights: in units of integers.
        moments: sums of products of two inputs, [N, N].
    """
    whole = moments.double()
    whole = whole + DAMPING * whole.diagonal().mean().clamp(min=1e-12) * torch.eye(len(whole)).to(whole)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(whole))
    shares = torch.linalg.cholesky(inverse, upper=True)
    left, found = weights.double().clone(), []
    for n in range(left.shape[1]):
        column = left[:, n]
        found.append(column.round().clamp(-WEIGHT, WEIGHT))
        error = (column - found[-1]) / shares[n, n]
        left[:, n + 1 :] -= torch.outer(error, shares[n, n + 1 :])
    return torch.stack(found, 1).to(weights)
