"""The synthesis network of the VAE, in real numbers, and with the roundings of `exact_synthesis` in training.

    normalised latents -> coarse maps -> features
    features, linear synthesis, quality index -> fine maps -> correction of the linear synthesis

The network is written once (`correction`), over an arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..bitstream.quality import LAST_INDEX
from ..priors.exact import rounded
from ..priors.exact_convolutions import INPUT, ZERO
from .exact_lapped import SAMPLE_BITS, SAMPLES
from .networks import residual_stack, start_at_zero

OUTPUT_SCALE, LINEAR_UNIT = 32, 128
"""Units of the outputs of the network, and of the linear synthesis as its input, in levels."""

ACTIVATION, LATENT, COARSE, FEATURE, LINEAR, INDEX = 5, 3, 4, 5, 7, 7
"""Fractional bits of activations, 0..INPUT as integers, and of maps with a sign, -ZERO..INPUT - ZERO: latents
in standard deviations, coarse maps, features, and the index. The linear synthesis, in its unit, enters as
its pixels, 0..INPUT. What enters one layer shares the 8 bits of its weights: where one part has more
bits, its weights have less."""


@dataclass(frozen=True)
class Shape:
    """Size of the network.

    Attributes:
        components: M, channels of the latents.
        coarse: channels of maps at 1/64 of the pixels, channels inside residual blocks, number of blocks.
        fine: the same at 1/16 of the pixels.
    """

    components: int
    coarse: tuple[int, int, int]
    fine: tuple[int, int, int]

    @property
    def coarse_blocks(self) -> list[str]:
        """Names of the residual blocks of coarse maps."""
        return [f"deep.{2 + n}" for n in range(self.coarse[2])]

    @property
    def fine_blocks(self) -> list[str]:
        """Names of the residual blocks of fine maps."""
        return [f"shallow.{1 + n}" for n in range(self.fine[2])]

    @property
    def spread(self) -> str:
        """Name of the layer from coarse maps to features."""
        return f"deep.{2 + self.coarse[2]}"

    @property
    def last(self) -> str:
        """Name of the last layer."""
        return f"shallow.{2 + self.fine[2]}"

    def sizes(self) -> dict[str, tuple[int, int, int]]:
        """Return outputs, inputs and side of the kernel of every layer."""
        (coarse, coarse_hidden, _), (fine, fine_hidden, _) = self.coarse, self.fine
        found = {
            "deep.0": (4 * coarse, self.components, 1),
            self.spread: (4 * fine, coarse, 1),
            "shallow.0": (fine, fine + SAMPLES + 1, 3),
            self.last: (SAMPLES, fine, 3),
        }
        stacks = (self.coarse_blocks, coarse, coarse_hidden), (self.fine_blocks, fine, fine_hidden)
        for names, channels, hidden in stacks:
            for name in names:
                found[f"{name}.spatial"] = hidden, channels, 3
                found[f"{name}.pointwise"] = channels, hidden, 1
        return found

    def after(self, name: str) -> int:
        """Return the fractional bits of the outputs of a layer: of the last one, those of samples."""
        return ACTIVATION if name != self.last else SAMPLE_BITS + OUTPUT_SCALE.bit_length() - 1

    def inputs(self) -> dict[str, list[int]]:
        """Return the fractional bits of the inputs of every layer, of each channel."""
        signs = {"deep.0": LATENT, self.spread: COARSE}
        found = {name: [signs.get(name, ACTIVATION)] * size for name, (_, size, _) in self.sizes().items()}
        found["shallow.0"] = [FEATURE] * self.fine[0] + [LINEAR] * SAMPLES + [INDEX]
        return found


class Arithmetic(Protocol):
    """What the network computes with."""

    def convolved(self, name: str, x: Tensor) -> Tensor:
        """Apply a layer."""

    def activated(self, name: str, x: Tensor) -> Tensor:
        """Apply a layer, and the activation."""

    def activation(self, x: Tensor) -> Tensor:
        """Apply ReLU."""

    def signed(self, x: Tensor, bits: int) -> Tensor:
        """Make inputs of a layer of maps with a sign."""

    def joined(self, features: Tensor, linear: Tensor, index: Tensor) -> Tensor:
        """Make inputs of the first layer of fine maps."""


def correction(shape: Shape, by: Arithmetic, latents: Tensor, linear: Tensor, index: Tensor) -> Tensor:
    """Compute the correction of the linear synthesis: [B, 48, 4 h, 4 w].

    Args:
        shape: of the network.
        by: arithmetic.
        latents: [B, M, h, w], in standard deviations.
        linear: [B, 48, 4 h, 4 w], in the units of the arithmetic.
        index: quality index, [B].
    """
    x = F.pixel_shuffle(by.convolved("deep.0", by.signed(latents, LATENT)), 2)
    x = _residual(by, shape.coarse_blocks, x)
    features = F.pixel_shuffle(by.signed(by.convolved(shape.spread, by.signed(x, COARSE)), FEATURE), 2)
    x = by.convolved("shallow.0", by.joined(features, linear, index))
    x = _residual(by, shape.fine_blocks, x)
    return by.convolved(shape.last, by.activation(x))


def _residual(by: Arithmetic, blocks: Sequence[str], x: Tensor) -> Tensor:
    for name in blocks:
        x = by.convolved(f"{name}.pointwise", by.activated(f"{name}.spatial", by.activation(x))).add_(x)
    return x


class Decoder(nn.Module):
    """Synthesis network, whose last layer starts at zero."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape, self.inputs = shape, shape.inputs()
        coarse, fine = shape.coarse[0], shape.fine[0]
        self.deep = nn.Sequential(
            nn.Conv2d(shape.components, 4 * coarse, 1),
            nn.PixelShuffle(2),
            *residual_stack(*shape.coarse),
            nn.Conv2d(coarse, 4 * fine, 1),
            nn.PixelShuffle(2),
        )
        last = nn.Conv2d(fine, SAMPLES, 3, padding=1)
        start_at_zero(last)
        self.shallow = nn.Sequential(
            nn.Conv2d(fine + SAMPLES + 1, fine, 3, padding=1), *residual_stack(*shape.fine), nn.ReLU(), last
        )

    def forward(self, latents: Tensor, linear: Tensor, index: Tensor, mean: Tensor | None = None) -> Tensor:
        """Compute `correction`, of a linear synthesis in its unit.

        Args:
            latents: as of `correction`.
            linear: as of `correction`.
            index: as of `correction`.
            mean: colour of the pixels, 0..255, [3]; where it is given, all is rounded as in integers.
        """
        by = Real(self) if mean is None else FakeQuantised(self, mean)
        return correction(self.shape, by, latents, linear, index)

    def layer(self, name: str) -> nn.Conv2d:
        """Return a convolution."""
        return cast("nn.Conv2d", self.get_submodule(name))


class Real:
    """Arithmetic of real numbers."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder

    def convolved(self, name: str, x: Tensor) -> Tensor:
        """Apply a layer."""
        found: Tensor = self._decoder.layer(name)(x)
        return found

    def activated(self, name: str, x: Tensor) -> Tensor:
        """Apply a layer, and the activation."""
        return self.activation(self.convolved(name, x))

    def activation(self, x: Tensor) -> Tensor:
        """Apply ReLU."""
        return torch.relu(x)

    def signed(self, x: Tensor, bits: int) -> Tensor:
        """Make inputs of a layer of maps with a sign."""
        del bits
        return x

    def joined(self, features: Tensor, linear: Tensor, index: Tensor) -> Tensor:
        """Make inputs of the first layer of fine maps."""
        return torch.cat((features, with_index(linear, 2 * index / LAST_INDEX - 1)), 1)


class FakeQuantised(Real):
    """Arithmetic of real numbers whose maps are rounded like integers, for training.

    Weights are rounded at the end, by `adaptive_rounding`, which loses less than training with rounded ones.
    """

    def __init__(self, decoder: Decoder, mean: Tensor) -> None:
        super().__init__(decoder)
        self._mean = mean.repeat_interleave(SAMPLES // 3)[:, None, None] / LINEAR_UNIT

    def activation(self, x: Tensor) -> Tensor:
        """Apply ReLU."""
        return rounded(x, ACTIVATION, 0, INPUT)

    def signed(self, x: Tensor, bits: int) -> Tensor:
        """Make inputs of a layer of maps with a sign."""
        return rounded(x, bits, -ZERO, INPUT - ZERO)

    def joined(self, features: Tensor, linear: Tensor, index: Tensor) -> Tensor:
        """Make inputs of the first layer of fine maps."""
        plane = index / ZERO - 1
        levels = rounded(linear + self._mean, LINEAR, 0, INPUT) - self._mean
        return torch.cat((features, with_index(levels, plane)), 1)


def with_index(maps: Tensor, plane: Tensor) -> Tensor:
    """Append a channel, the quality index scaled to -1..1: [B]."""
    plane = plane.to(maps.dtype)[:, None, None, None]
    return torch.cat((maps, plane.expand(-1, 1, *maps.shape[2:])), 1)
