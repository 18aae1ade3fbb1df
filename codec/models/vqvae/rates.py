"""Entropy-constrained choice of codes: by distance and bits, given codes before and what the top says.

    code = argmin over k of |z - e_k|^2 + distance_per_bit * -log2 p(k | codes before, context)

(Chou, Lookabaugh, Gray 1989, "Entropy-constrained vector quantization", here with probabilities in context.)
The network p learns with the codec and stays in the encoder; files are coded by the learned prior, or tables.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ..quantizers import VectorQuantizer, as_vectors, best

WIDTH, HIDDEN, BLOCKS = 64, 32, 2
"""Channels between residual blocks, channels inside them, number of blocks."""

PASSES = 3
"""Times that all codes are chosen anew, in the context of those before; five gain little over three."""

SPLIT_SHARE = 1 / 64
"""Of the probability of the code next to which a dead code is revived: new codes should not cost much."""

REACH = PASSES * (1 + BLOCKS)
"""Positions around one on which the choice of its code can depend."""


class MaskedConv2d(nn.Conv2d):
    """Convolution of the neighbours NW, N, NE, W (van den Oord et al. 2016, section 3.4), and of itself.

    Shapes: [B, C, h, w] -> [B, C', h, w].
    """

    mask: Tensor

    def __init__(self, inputs: int, outputs: int, *, itself: bool = True) -> None:
        super().__init__(inputs, outputs, (2, 3))
        self.register_buffer("mask", torch.tensor([[1.0, 1, 1], [1, float(itself), 0]]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve; outside of the grid are zeros."""
        return F.conv2d(F.pad(x, (1, 1, 1, 0)), self.weight * self.mask, self.bias)


class RateNetwork(nn.Module):
    """A small PixelCNN: p(code | codes before it, context), van den Oord et al. 2016.

    Shapes: vectors of codes [B, D, h, w] and embedded context [B, WIDTH, h, w] -> features [N, WIDTH] at all
    positions, of which logits are a linear map.
    """

    def __init__(self, codes: int, code_dim: int, context: int) -> None:
        super().__init__()
        self.first = MaskedConv2d(code_dim, WIDTH, itself=False)
        self.context = nn.Conv2d(context, WIDTH, 1)
        self.spatial = nn.ModuleList(MaskedConv2d(WIDTH, HIDDEN) for _ in range(BLOCKS))
        self.pointwise = nn.ModuleList(nn.Conv2d(HIDDEN, WIDTH, 1) for _ in range(BLOCKS))
        self.logits = nn.Linear(WIDTH, codes)

    def forward(self, vectors: Tensor, embedded: Tensor) -> Tensor:
        """Compute the features."""
        x = self.first(vectors) + embedded
        for spatial, pointwise in zip(self.spatial, self.pointwise, strict=True):
            x = x + pointwise(torch.relu(spatial(torch.relu(x))))
        return as_vectors(torch.relu(x))

    def bits(self, quantizer: VectorQuantizer, codes: Tensor, context: Tensor) -> Tensor:
        """Return the mean bits per code: int64 [B, h, w] -> scalar, with a gradient for the network alone."""
        logits = self.logits(self(quantizer.decode(codes).detach(), self.context(context.detach())))
        return F.cross_entropy(logits.float(), codes.flatten()) / math.log(2)

    @torch.no_grad()
    def split(self, moved: Tensor, parents: Tensor) -> None:
        """Give moved codes the probabilities of those whose vectors they moved onto, times `SPLIT_SHARE`.

        Otherwise they keep those of dead codes, and are not chosen wherever they are.

        Args:
            moved: codes, int64 [M].
            parents: codes, int64 [M].
        """
        self.logits.weight[moved] = self.logits.weight[parents]
        self.logits.bias[moved] = self.logits.bias[parents] + math.log(SPLIT_SHARE)

    @torch.no_grad()
    def cheapest(
        self, quantizer: VectorQuantizer, latents: Tensor, context: Tensor, distance_per_bit: Tensor
    ) -> Tensor:
        """Choose codes by distance and bits.

        Args:
            quantizer: of these latents.
            latents: float32 [B, D, h, w].
            context: [B, C, h, w].
            distance_per_bit: squared distance that a bit is worth, [1].

        Returns:
            int64 [B, h, w].
        """
        # The largest z . e - |e|^2 / 2 + share (w . f + b): distance and bits, up to factor and sign and what
        # all codes of a position have in common.
        share = distance_per_bit / (2 * math.log(2))
        directions = torch.cat((quantizer.codebook, share * self.logits.weight), 1)
        offset = share * self.logits.bias - quantizer.codebook.square().sum(1) / 2
        flat, codes, embedded = as_vectors(latents), quantizer.encode(latents), self.context(context)
        for _ in range(PASSES):
            features = self(quantizer.decode(codes), embedded).float()
            codes = best(torch.cat((flat, features), 1), directions, offset).view_as(codes)
        return codes


@dataclass(frozen=True)
class NetworkRates:
    """Bits of codes by a rate network, as `search_image.CodeRates`.

    An approximation: codes that are farther away change the bits a little as well.

    Attributes:
        network: gives the bits.
        quantizer: of the codes.
        embedded: context as the network takes it, [B, WIDTH, h, w].
        error_per_bit: squared error of samples equivalent to one bit.
    """

    network: RateNetwork
    quantizer: VectorQuantizer
    embedded: Tensor
    error_per_bit: float

    def around(self, codes: Tensor) -> Tensor:
        """Return the bits of each code and its neighbours E, SW, S, SE, as in `CodeRates.around`."""
        logits = self.network.logits(self._features(codes))
        own = F.cross_entropy(logits, codes.flatten(), reduction="none").view(codes.shape) / math.log(2)
        height, width = codes.shape[1:]
        padded = F.pad(own, (1, 1, 0, 1))
        below = sum(padded[:, 1:, start : start + width] for start in range(3))
        return own + padded[:, :height, 2:] + below

    def choices(self, codes: Tensor, where: Tensor) -> Tensor:
        """Return the bits of the codes themselves, as in `CodeRates.choices`."""
        features = self._features(codes).view(*codes.shape, -1)[:, where].flatten(0, 1)
        return F.log_softmax(self.network.logits(features), 1).div_(-math.log(2))

    def _features(self, codes: Tensor) -> Tensor:
        features: Tensor = self.network(self.quantizer.decode(codes), self.embedded).float()
        return features
