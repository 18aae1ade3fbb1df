"""Lossless coding of pixels: the latents are the image itself, and all is in the prior (`priors.pyramid`).

The loss is -log2 p(pixels) in bits per pixel, of networks that round as those in integers do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from ..bitstream.container import LEARNED
from ..errors import UsageError
from ..priors import exact_convolutions, logistic, pyramid
from ..priors.base import TOTAL, Array, Prior
from ..priors.exact import rounded
from ..priors.exact_convolutions import INPUT, ZERO, fake_quantised
from ..priors.gaussian_tables import FLOOR, LATENT_UNIT
from ..priors.pyramid import ACTIVATION, MIDDLE, ORDER, OUTPUT_BITS, PHASES, SETS, PyramidPrior, Shape
from ..priors.settings import Config as BaseConfig
from ..priors.settings import setting
from .base import Card, LossStep, Model, OperatingPoint, Plane, Progress, RoundTrip
from .networks import start_at_zero

WHITE = 127.5
"""Levels of a sample of 1."""

LEVELS = 2**OUTPUT_BITS / LATENT_UNIT
"""Levels of a predicted mean of 1, as layers put it out."""


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of the networks of the pyramid.

    Attributes:
        width: channels of features.
        layers: 3x3 layers behind the first one, which is 5x5.
        hidden: channels of the networks of each colour.
    """

    width: int = setting(48, low=1, high=112)
    layers: int = setting(2, low=0, high=8)
    hidden: int = setting(32, low=1, high=1024)

    @property
    def shape(self) -> Shape:
        """Size of the networks."""
        return Shape(self.width, self.layers, self.hidden)


class Layers(nn.Module):
    """Some of the layers of `Shape`, in training, by name."""

    def __init__(self, shape: Shape, names: list[str]) -> None:
        super().__init__()
        self.before = {name: shape.before(name) for name in names}
        self.by_name = nn.ModuleDict()
        for name in names:
            outputs, inputs, side = shape.sizes()[name]
            layer = nn.Conv2d(inputs, outputs, side, padding=Shape.padding(name))
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            self.by_name[name.replace(".", "_")] = layer
            if ".out" in name or name.endswith("linear"):
                start_at_zero(layer)

    def layer(self, name: str) -> nn.Conv2d:
        """Return a layer."""
        layer = self.by_name[name.replace(".", "_")]
        if not isinstance(layer, nn.Conv2d):
            raise TypeError(name)
        return layer

    def convolved(self, name: str, x: Tensor) -> Tensor:
        """Apply a layer with rounded weights."""
        layer = self.layer(name)
        return F.conv2d(x, fake_quantised(layer, self.before[name]), layer.bias, padding=layer.padding[0])

    def activated(self, name: str, x: Tensor) -> Tensor:
        """Apply a layer, and the activation."""
        found: Tensor = _Activated.apply(self.convolved(name, x))  # type: ignore[no-untyped-call]
        return found


class Features(Layers):
    """The networks over the known pixels."""

    def forward(self, bordered: Tensor, name: str) -> Tensor:
        """Compute the features of every position, as `PyramidPrior.features` does: [B, 2 width, h, w]."""
        x = near = self.activated(f"{name}.first", bordered)
        for layer in self.before:
            if layer.startswith(f"{name}.body"):
                x = self.activated(layer, x)
        return torch.cat((near, x), 1)


class LosslessImage(Model):
    """An image as its own latents, coded by the pyramid."""

    medium, channels, axes, method, stride = "image", 3, 2, "interlaced pyramid", 1
    networks = ("features.",)
    decoding = (pyramid.PREFIX,)
    lossless = True
    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config, shape = config, config.shape
        names = [*shape.sizes()]
        heads = [name for name in names if name.endswith("linear") or name[:-1].endswith(("hidden", "out"))]
        self.features = Features(shape, [name for name in names if name not in heads])
        self.heads = Layers(shape, heads)

    def at(self, index: int, effort: int = 1) -> LosslessPoint:
        """Return the only operating point."""
        return LosslessPoint(self, index, effort)

    def loss(self, samples: Tensor) -> LossStep:
        """-log p(pixels), in nats per sample.

        Raises:
            UsageError: a crop of so few pixels that all are coded without a network.
        """
        side = samples.shape[3]
        if not pyramid.level_count(side, side):
            raise UsageError(f"crop is {side}", f"give more than {pyramid.START}")
        bits = self.bits(to_pixels(samples)) / samples[:, 0].numel()
        return LossStep(bits * math.log(2) / self.channels, {"bits": bits.detach()})

    def round_trip(self, samples: Tensor, index: int = 0) -> RoundTrip:
        """Return the bits of the pixels, by the networks in training, as in `Trainable.round_trip`."""
        del index
        pixels = to_pixels(samples)
        return RoundTrip({}, samples, bits=float(self.bits(pixels)), units=samples[:, 0].numel())

    def bits(self, pixels: Tensor) -> Tensor:
        """Compute the bits of all pixels but those of the smallest image: [B, 3, H, W] -> scalar."""
        total = pixels.new_zeros(())
        for level in range(pyramid.level_count(*pixels.shape[2:])):
            found: list[Tensor] = []
            for phase in ("ee", *PHASES):
                plane = pixels[(..., *pyramid.part(level, phase))]
                if phase != "ee" and plane.numel():
                    total = total + self._bits(f"{SETS[min(level, 1)]}.{phase}", found, plane)
                known = plane - MIDDLE
                found.append(pyramid.extended(known, found[0]) if found else known)
        return total

    def _bits(self, name: str, planes: list[Tensor], pixels: Tensor) -> Tensor:
        """Compute the bits of the pixels of a phase, given the planes before."""
        height, width = pixels.shape[2:]
        sums = pyramid.around(planes)
        inputs = pyramid.differences(planes, sums) / 2**ACTIVATION
        inputs = F.pad(inputs, [pyramid.BORDER] * 4, mode="replicate")
        features = self.features(inputs, name)[:, :, :height, :width]
        linear = rounded(self.heads.convolved(f"{name}.linear", inputs), OUTPUT_BITS)
        means = (sums / 4 + MIDDLE + linear * LEVELS)[:, :, :height, :width]
        errors: list[Tensor] = []
        total = pixels.new_zeros(())
        for known, colour in enumerate(ORDER):
            seen = [_signed(error, units) for error in errors for units in pyramid.ERROR_UNITS]
            x = self.heads.activated(f"{name}.hidden{known}", torch.cat((*seen, features), 1))
            outputs = rounded(self.heads.convolved(f"{name}.out{known}", x), OUTPUT_BITS)
            mean, scale, tail = outputs.unbind(1)
            mean = pyramid.expected(means[:, colour], errors) + mean * LEVELS
            scale = scale * (2**OUTPUT_BITS / pyramid.SCALE_UNITS) + pyramid.SCALE_MIDDLE
            tail = tail * (2**OUTPUT_BITS / pyramid.TAIL_UNITS) + pyramid.TAIL_MIDDLE
            total = total + _bits_of(pixels[:, colour] - mean, scale, tail).sum()
            errors.append(pixels[:, colour] - means[:, colour])
        return total

    def _layer(self, name: str) -> nn.Conv2d:
        return (self.features if name in self.features.before else self.heads).layer(name)

    def export(self) -> LosslessImage:
        """Return the model with its prior in integers.

        Raises:
            ModelError: a layer exceeds the exact range of float32.
        """
        arrays: dict[str, Array] = {}
        shape = self.config.shape
        for name in shape.sizes():
            after, zeros, largest = Shape.after(name), Shape.zeros(name), Shape.largest(name)
            whole = exact_convolutions.export(self._layer(name), shape.before(name), after, zeros, largest)
            arrays |= {f"{name}.{part}": getattr(whole, part) for part in ("weight", "bias", "shift")}
        return self.equipped(priors={LEARNED: PyramidPrior(arrays, shape)})

    @property
    def in_file_as_integers(self) -> tuple[str, ...]:
        """All layers, as in `Model.in_file_as_integers`."""
        return "features.", "heads."

    def priors_from(self, card: Card, tensors: Mapping[str, NDArray[np.generic]]) -> Mapping[int, Prior]:
        """Build the prior, as in `Model.priors_from`."""
        del card
        return {LEARNED: self._prior(tensors)}

    def _prior(self, tensors: Mapping[str, NDArray[np.generic]]) -> PyramidPrior:
        prefix = pyramid.PREFIX
        arrays = {n.removeprefix(prefix): array for n, array in tensors.items() if n.startswith(prefix)}
        return PyramidPrior(arrays, self.config.shape)

    def with_integers(self, tensors: Mapping[str, NDArray[np.generic]]) -> Self:
        """Return the model with the layers of a weights file, as in `Model.with_integers`."""
        shape = self.config.shape
        for name, whole in self._prior(tensors).layers.items():
            after, zeros = Shape.after(name), Shape.zeros(name)
            exact_convolutions.take(self._layer(name), whole, shape.before(name), after, zeros)
        return self


@dataclass(frozen=True)
class LosslessPoint(OperatingPoint):
    """Pixels to pixels."""

    @property
    def planes(self) -> tuple[Plane, ...]:
        """The pixels, of three colours."""
        return (Plane(pyramid.PLANE, 1, 3),)

    @property
    def halo(self) -> int:
        """0: each pixel is its own."""
        return 0

    def analyse(self, samples: Tensor) -> dict[str, Tensor]:
        """Return the pixels, as in `OperatingPoint.analyse`."""
        return {pyramid.PLANE: to_pixels(samples).permute(0, 2, 3, 1)}

    def synthesise(
        self, symbols: dict[str, Tensor], seed: int = 0, progress: Progress | None = None
    ) -> Tensor:
        """Return the samples of pixels, as in `OperatingPoint.synthesise`."""
        del seed, progress
        return symbols[pyramid.PLANE].permute(0, 3, 1, 2).float() / (LATENT_UNIT * WHITE) - 1


class _Activated(torch.autograd.Function):
    """`rounded` to 0..INPUT; what is above it takes gradients that lower it, or would stay there."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        whole = (x * 2.0**ACTIVATION).add_(0.5).floor_()
        ctx.save_for_backward(whole > 0, whole > INPUT)
        return whole.clamp_(0, INPUT).mul_(2.0**-ACTIVATION)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> Tensor:
        positive, above = ctx.saved_tensors  # type: ignore[attr-defined]
        passed: Tensor = gradients[0] * (positive & (~above | (gradients[0] > 0)))
        return passed


def to_pixels(samples: Tensor) -> Tensor:
    """Convert samples in -1..1 to levels 0..255, float32."""
    return ((samples + 1) * WHITE).round_()


def _signed(error: Tensor, units: int) -> Tensor:
    """Round an error, [B, h, w], as it enters a layer: [B, 1, h, w]."""
    scale = units / 2**ACTIVATION
    return rounded(error[:, None] * scale, ACTIVATION, -ZERO, INPUT - ZERO)


def _bits_of(distance: Tensor, scale: Tensor, tail: Tensor) -> Tensor:
    """Return -log2 of the probability that the tables of `logistic` give pixels so far from their mean.

    Args:
        distance: in levels.
        scale: index of the scale, a real number whose floor chooses the table.
        tail: the same of the tail.
    """
    scale = scale.clamp(0, logistic.SCALES)
    tail = tail.clamp(0.5, logistic.TAILS - 0.5) - 0.5
    inverse = torch.exp2((logistic.SCALE_ONE - scale) / 4)
    share = torch.exp2(1.5 * (tail + 1 - logistic.TAILS) - 1)
    low = -distance.abs()
    high, low = (low + 0.5) * inverse, (low - 0.5) * inverse
    narrow = torch.sigmoid(high) - torch.sigmoid(low)
    wide = torch.sigmoid(high / logistic.WIDER) - torch.sigmoid(low / logistic.WIDER)
    return -torch.log2(narrow + share * (wide - narrow) + FLOOR / TOTAL)
