"""The synthesis transform of the VAE in integers: the same pixels on every machine.

The linear synthesis is an `IntegerLapped`, the layers of the network are `IntegerConv2d`. FORMAT-priors.md
gives the arithmetic.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from ..errors import ModelError
from ..priors import exact, exact_convolutions
from ..priors.base import Array
from ..priors.exact_convolutions import ZERO, Carrier, IntegerConv2d, activation, best_carrier, signed
from ..priors.gaussian_tables import LATENT_UNIT, powers
from . import exact_lapped
from .exact_lapped import ORDER, SAMPLE_BITS, SAMPLES, SIDE, IntegerLapped
from .synthesis import ACTIVATION, LINEAR, LINEAR_UNIT, Decoder, Shape, correction

_LOGGER = logging.getLogger(__name__)

PREFIX = "synthesis."
"""Prefix of the names of its arrays in a weights file."""

FIRST_FINE = "shallow.0"
"""The layer whose inputs have a border already."""


@dataclass(frozen=True, eq=False)
class IntegerSynthesis:
    """Latents, in sixteenths of their steps -> pixels.

    Attributes:
        arrays: "NAME.weight", "NAME.bias", "NAME.shift" of every layer, "linear.NAME" of `IntegerLapped`, and
            "mean" int32 [3], the mean colour in 2**-SAMPLE_BITS levels.
        shape: of the network.
        carrier: what computes the sums; None: the fastest one here.

    Raises:
        ModelError: on construction, if an array is missing or has another shape or type, or sums could be
            inexact.
    """

    arrays: Mapping[str, Array]
    shape: Shape
    carrier: Carrier | None = None
    _layers: dict[str, IntegerConv2d] = field(init=False, repr=False)
    _lapped: IntegerLapped = field(init=False, repr=False)
    _mean: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        try:
            layers = {name: self._layer(name, *sizes) for name, sizes in self.shape.sizes().items()}
            lapped = IntegerLapped(*(self.arrays[f"linear.{n}"] for n in ("wide", "bits", "narrow", "shift")))
            mean = self.arrays["mean"]
        except KeyError as missing:
            raise ModelError(f"a synthesis without {missing.args[0]}") from None
        if mean.dtype != np.int32 or mean.shape != (3,):
            raise ModelError("a synthesis whose mean is no int32 of three colours")
        if len(lapped.wide) + len(lapped.narrow) != self.shape.components:
            raise ModelError(f"a linear synthesis that is not of {self.shape.components} channels")
        _check_sums(layers, self.shape, mean)
        object.__setattr__(self, "_layers", _in_rows(layers, self.shape))
        object.__setattr__(self, "_lapped", lapped)
        object.__setattr__(self, "_mean", torch.from_numpy(mean).float())

    def _layer(self, name: str, outputs: int, inputs: int, kernel: int) -> IntegerConv2d:
        weight, bias, shift = (self.arrays[f"{name}.{part}"] for part in ("weight", "bias", "shift"))
        layer = IntegerConv2d(weight, bias, shift, 0 if name == FIRST_FINE else kernel // 2)
        if layer.weight.shape != (outputs, inputs, kernel, kernel):
            raise ModelError(
                f"{name} of the synthesis is {layer.weight.shape}, not {(outputs, inputs, kernel)}"
            )
        return layer

    def to_tensors(self) -> dict[str, Array]:
        """Return its integers by their names in a weights file."""
        return {PREFIX + name: array for name, array in self.arrays.items()}

    def with_carrier(self, carrier: Carrier) -> Self:
        """Return the same synthesis computed in another way."""
        return replace(self, carrier=carrier)

    def pixels(self, latents: Tensor, log2_gains: Tensor, index: int) -> Tensor:
        """Compute the pixels of latents.

        Args:
            latents: int16 [1, h, w, M], in sixteenths of their steps.
            log2_gains: log2(deviation / step) of every channel in sixteenths: int32 [M].
            index: quality index.

        Returns:
            uint8 [16 h, 16 w, 3].
        """
        device = latents.device
        carrier = self.carrier or best_carrier(device.type)
        _LOGGER.debug("synthesis in integers by %s", carrier)
        with exact.arithmetic():
            deviations = latents[0].double() * (powers(-log2_gains.cpu()) / LATENT_UNIT).to(device)
            linear = self._lapped(deviations, carrier)
            maps = deviations.permute(2, 0, 1)[None]
            colours = self._mean.to(device).repeat(SIDE**2)
            by = _Integers(self._layers, carrier, colours)
            samples = correction(self.shape, by, maps, linear, torch.tensor([index])).add_(linear)[0]
            whole = (
                ((samples + colours[:, None, None]) * 2.0**-SAMPLE_BITS)
                .round_()
                .clamp_(0, 255)
                .to(torch.uint8)
            )
            height, width = whole.shape[1:]
            squares = whole.permute(1, 2, 0).reshape(height, width, SIDE, 3 * SIDE)
            return squares.transpose(1, 2).reshape(SIDE * height, SIDE * width, 3)

    def take(self, decoder: Decoder, deviation: Tensor) -> Tensor:
        """Undo `export`: set the weights of the network, and return the basis [M, 192, 4, 4]."""
        for name, inputs in self.shape.inputs().items():
            layer = self._layer(name, *self.shape.sizes()[name])
            zeros = _zeros(name, inputs, self.arrays["mean"])
            exact_convolutions.take(decoder.layer(name), layer, inputs, self.shape.after(name), zeros)
        return exact_lapped.restored(self._lapped, deviation)


class _Integers:
    """Arithmetic of the network in integers, see `synthesis.Arithmetic`."""

    def __init__(self, layers: Mapping[str, IntegerConv2d], carrier: Carrier, colours: Tensor) -> None:
        self._layers, self._carrier, self._colours = layers, carrier, colours

    def convolved(self, name: str, x: Tensor) -> Tensor:
        """Apply a layer."""
        return self._layers[name].exact(x, self._carrier)

    def activated(self, name: str, x: Tensor) -> Tensor:
        """Apply a layer, and the activation."""
        return self._layers[name].activated(x, self._carrier)

    def activation(self, x: Tensor) -> Tensor:
        """Apply ReLU."""
        return activation(x)

    def signed(self, x: Tensor, bits: int) -> Tensor:
        """Make inputs of a layer of maps with a sign."""
        # Latents come in standard deviations, all other maps in units of activations.
        return signed(x, 2.0 ** (bits if x.dtype is torch.float64 else bits - ACTIVATION))

    def joined(self, features: Tensor, linear: Tensor, index: Tensor) -> Tensor:
        """Make inputs of the first layer of fine maps."""
        count, height, width = features.shape[1:]
        size = count + SAMPLES + 1
        whole = features.new_full((height + 2, width + 2, size), ZERO)
        inner = whole[1:-1, 1:-1]
        inner[:, :, :count] = features[0].permute(1, 2, 0)
        scale = 2.0 ** (LINEAR - SAMPLE_BITS) / LINEAR_UNIT
        whole[:, :, count:-1] = activation(self._colours * scale)
        inner[:, :, count:-1] = activation((linear[0].permute(1, 2, 0) + self._colours) * scale)
        inner[:, :, -1] = int(index)
        return whole.permute(2, 0, 1)[None]


def export(decoder: Decoder, basis: Tensor, deviation: Tensor, mean: Tensor) -> IntegerSynthesis:
    """Return the synthesis of a model in training, in integers.

    Args:
        decoder: the network.
        basis: of the linear synthesis, [M, 192, 4, 4].
        deviation: of each channel of the latents, [M].
        mean: colour of the pixels, 0..255, [3].

    Raises:
        ModelError: sums could be inexact.
    """
    shape = decoder.shape
    levels = torch.round(mean.double() * 2**SAMPLE_BITS).cpu().numpy().astype(np.int32)
    arrays: dict[str, Array] = {"mean": levels}
    for name, inputs in shape.inputs().items():
        zeros = _zeros(name, inputs, levels)
        layer = exact_convolutions.export(decoder.layer(name), inputs, shape.after(name), zeros)
        arrays |= {f"{name}.{part}": getattr(layer, part) for part in ("weight", "bias", "shift")}
    lapped = exact_lapped.export(basis, deviation)
    arrays |= {f"linear.{name}": array for name, array in lapped.arrays().items()}
    return IntegerSynthesis(arrays, shape)


def _zeros(name: str, inputs: Sequence[int], mean: Array) -> list[float]:
    """Return the integers that stand for zero in each channel of a layer's inputs; none for activations."""
    if name != FIRST_FINE:
        return [] if inputs[0] == ACTIVATION else [ZERO] * len(inputs)
    scale = 2.0 ** (LINEAR - SAMPLE_BITS) / LINEAR_UNIT
    colours = np.repeat(mean * scale, SAMPLES // 3).tolist()
    return [ZERO] * (len(inputs) - SAMPLES - 1) + colours + [ZERO]


def _in_rows(layers: Mapping[str, IntegerConv2d], shape: Shape) -> dict[str, IntegerConv2d]:
    """Bring the channels of 4x4 pixels into the order of `exact_lapped.ORDER`."""
    first, last = layers[FIRST_FINE], layers[shape.last]
    columns = np.arange(first.weight.shape[1])
    columns[-SAMPLES - 1 : -1] = columns[-SAMPLES - 1 : -1][ORDER]
    return {
        **layers,
        FIRST_FINE: replace(first, weight=np.ascontiguousarray(first.weight[:, columns])),
        shape.last: replace(last, weight=last.weight[ORDER], bias=last.bias[ORDER], shift=last.shift[ORDER]),
    }


def _check_sums(layers: Mapping[str, IntegerConv2d], shape: Shape, mean: Array) -> None:
    """Refuse residual sums, and samples, that float32 might round.

    Raises:
        ModelError: there are some.
    """
    for first, names in (("deep.0", shape.coarse_blocks), (FIRST_FINE, shape.fine_blocks)):
        writers = [layers[first], *(layers[f"{name}.pointwise"] for name in names)]
        channels = len(writers[1].bias) if names else len(writers[0].bias)
        each = [layer.shift.astype(np.int64).reshape(channels, -1) for layer in writers]
        finest = np.stack([shift.max(1) for shift in each]).max(0)
        sums = sum(
            np.ldexp(layer.bound.reshape(channels, -1), finest[:, None] - shift).max(1)
            for layer, shift in zip(writers, each, strict=True)
        )
        if (np.asarray(sums) >= exact.EXACT).any():
            raise ModelError("residual sums of the synthesis are beyond what is exact in float32")
    last = layers[shape.last]
    sums = (
        np.ldexp(last.bound, -last.shift.astype(np.int64)).max() + np.abs(mean).max() + exact_lapped.LARGEST
    )
    if (last.shift > 0).any() or sums >= exact.EXACT:
        raise ModelError("the correction of the synthesis is beyond what is exact in float32")
