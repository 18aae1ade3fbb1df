"""Convolutions that are integer arithmetic: the same numbers from every kernel, on every machine.

An integer convolution has int8 weights and takes integers of 0..INPUT. Its products and sums are integers
below 2**24, which float32 holds without rounding; its outputs are multiplied by powers of two. So any
kernel gives the same numbers: oneDNN's int8 convolution, or one of float32 or float64. Kernels for
processors without int8 dot products may add pairs of products in 16 bits, which is too little:
`best_carrier` finds them out. FORMAT-priors.md gives the arithmetic.

Training rounds maps likewise, and the gradient passes straight through (Bengio, Leonard, Courville 2013;
Jacob et al. 2018, section 3).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import ModelError
from .exact import EXACT

WEIGHT_BITS_MAX = 13
"""Largest number of fractional bits of sums."""

INPUT = 255
"""Largest integer of maps."""

WEIGHT = 127
"""Largest integer of weights; the smallest is -WEIGHT."""

ZERO = 128
"""The integer 0..INPUT that stands for 0 in maps with a sign."""

Carrier = Literal["onednn", "float32", "float64"]
CARRIERS: tuple[Carrier, ...] = ("onednn", "float32", "float64")
"""What computes the sums: int8 kernels, or those of floats that hold integers."""


@dataclass(frozen=True, eq=False)
class IntegerConv2d:
    """A convolution in integers: y = (W * x + b) / 2**s for each output, without rounding.

    Attributes:
        weight: int8 [O, I, k, k], none -128.
        bias: int32 [O].
        shift: int8 [O], -24..24.
        padding: rows and columns of zeros around x.
        largest: largest absolute value of x. Above INPUT, x are float32 integers with a sign.

    Raises:
        ModelError: on construction, if shapes or types are others, or a sum could reach EXACT.
    """

    weight: NDArray[np.int8]
    bias: NDArray[np.int32]
    shift: NDArray[np.int8]
    padding: int = 0
    largest: int = INPUT

    def __post_init__(self) -> None:
        kinds = (self.weight.dtype, self.bias.dtype, self.shift.dtype)
        if [*map(str, kinds)] != ["int8", "int32", "int8"]:
            raise ModelError("convolutions must be int8, int32 and int8")
        count = len(self.weight)
        if self.weight.ndim != 4 or not self.bias.shape == self.shift.shape == (count,):
            raise ModelError(f"a convolution {self.weight.shape} with {len(self.bias)} biases")
        if (self.bound >= EXACT).any() or (self.weight == -128).any():
            raise ModelError("a convolution is beyond what is exact in float32")
        if (np.abs(self.shift.astype(np.int64)) > 24).any():
            raise ModelError("a convolution with a shift beyond -24 to 24")

    @property
    def bound(self) -> NDArray[np.int64]:
        """Upper bound of the absolute value of every partial sum: int64 [O]."""
        weights = np.abs(self.weight.astype(np.int64)).sum((1, 2, 3))
        bound: NDArray[np.int64] = weights * self.largest + np.abs(self.bias.astype(np.int64))
        return bound

    def exact(self, x: Tensor, carrier: Carrier) -> Tensor:
        """Convolve uint8 maps [1, I, H, W] of 0..INPUT: -> float32, multiples of 2**-shift."""
        if carrier == "onednn" and self.largest <= INPUT:
            return self._quantised(x, torch.float32)
        return self._floating(x, torch.float64 if carrier == "float64" else torch.float32)

    def activated(self, x: Tensor, carrier: Carrier) -> Tensor:
        """Convolve, then take `activation`: uint8 maps [1, I, H, W] -> uint8."""
        if carrier == "onednn" and self.largest <= INPUT:
            return self._quantised(x, torch.uint8)
        return activation(self.exact(x, carrier))

    @cached_property
    def _packed(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weights as oneDNN orders them, their scales, zero points, and biases."""
        scale = torch.from_numpy(np.ldexp(np.float32(1), -self.shift.astype(np.int32)))
        unit, padding = [1, 1], [self.padding, self.padding]
        packed = torch.ops.onednn.qconv_prepack(
            torch.from_numpy(self.weight), scale, 1.0, 0, unit, padding, unit, 1, None
        )
        bias = torch.from_numpy(self.bias).float() * scale
        return packed, scale, torch.zeros(len(scale), dtype=torch.int32), bias

    def _quantised(self, x: Tensor, out: torch.dtype) -> Tensor:
        """Run oneDNN's int8 convolution, whose uint8 outputs are rounded, halves to even, and clipped."""
        weight, scale, zeros, bias = self._packed
        unit, padding = [1, 1], [self.padding, self.padding]
        found: Tensor = torch.ops.onednn.qconv2d_pointwise(
            x, 1.0, 0, weight, scale, zeros, bias, unit, padding, unit, 1, 1.0, 0, out, "none", [], ""
        )
        return found

    @cached_property
    def _by_place(self) -> dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor]]:
        return {}

    def _floating(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        if dtype is torch.float32 and _factors_are_shortened():
            dtype = torch.float64
        place = dtype, x.device
        if place not in self._by_place:
            scale = np.ldexp(1.0, -self.shift.astype(np.int32))
            pair = (self.weight * scale[:, None, None, None], self.bias * scale)
            weight, bias = (torch.from_numpy(array).to(x.device, dtype) for array in pair)
            self._by_place[place] = weight.contiguous(memory_format=torch.channels_last), bias
        found = F.conv2d(x.to(dtype), *self._by_place[place], padding=self.padding)
        if x.device.type != "cpu":  # other kernels may take another way to the sums, with errors far below 1
            units = torch.from_numpy(np.ldexp(1.0, self.shift.astype(np.int32))).to(x.device, dtype)
            found = (found * units[:, None, None]).round_() / units[:, None, None]
        return found.float()


def activation(x: Tensor) -> Tensor:
    """Round to integers, halves to even, and clip to 0..INPUT: -> uint8."""
    return x.clamp(0, INPUT).round_().to(torch.uint8)


def signed(x: Tensor, scale: float) -> Tensor:
    """Round scale * x to integers, halves to even, and clip so that ZERO + them is 0..INPUT: -> uint8."""
    return (x * scale).add_(ZERO).round_().clamp_(0, INPUT).to(torch.uint8)


@cache
def best_carrier(device: str) -> Carrier:
    """Return the fastest carrier that gives the known answer here."""
    if device != "cpu":
        return "float64"
    return next(carrier for carrier in CARRIERS if carrier == "float64" or _is_right(carrier))


def _is_right(carrier: Carrier) -> bool:
    """Return whether a carrier is there, and gives the numbers of integer arithmetic for extreme inputs."""
    count, size, side = 24, 40, 9
    at = np.arange(count * size * 9, dtype=np.int64).reshape(count, size, 3, 3)
    weight = np.where(at % 3 == 0, 127, at * 37 % 255 - 127).astype(np.int8)
    shift = (np.arange(count) % 12 + 6).astype(np.int8)
    bias = (np.arange(count) * 99991 % 65536 - 32768).astype(np.int32)
    x = np.arange(size * side * side).reshape(1, size, side, side) * 53 % 509
    x = np.minimum(x, INPUT).astype(np.uint8)
    layer = IntegerConv2d(weight, bias, shift, padding=1)
    rows = np.pad(x[0].astype(np.int64), ((0, 0), (1, 1), (1, 1)))
    whole = np.zeros((count, side, side), np.int64) + bias[:, None, None]
    for i, j in itertools.product(range(3), repeat=2):
        whole += np.einsum(
            "oc,chw->ohw", weight[:, :, i, j].astype(np.int64), rows[:, i:, j:][:, :side, :side]
        )
    expected = whole * np.ldexp(1.0, -shift.astype(np.int32))[:, None, None]
    maps = torch.from_numpy(x).contiguous(memory_format=torch.channels_last)
    try:
        exact, activated = layer.exact(maps, carrier), layer.activated(maps, carrier)
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):  # not built, or another signature
        return False
    rounded = np.rint(expected.clip(0, INPUT))
    return bool((exact[0].numpy() == expected).all() and (activated[0].numpy() == rounded).all())


# torch.backends.mkldnn.conv.fp32_precision; other choices than IEEE keep 11 bits of a factor or fewer.
_precision = partial(torch._C._get_fp32_precision_getter, "mkldnn", "conv")


def _factors_are_shortened() -> bool:
    return _precision() not in ("none", "ieee")


# training


@torch.no_grad()
def scales(layer: nn.Conv2d, before: Sequence[int]) -> Tensor:
    """Return what the weights are multiplied by to be integers, powers of two: float32 [O, I, 1, 1].

    Args:
        layer: a convolution.
        before: fractional bits of its inputs, of each channel.
    """
    units = torch.exp2(-torch.tensor(before, device=layer.weight.device, dtype=torch.float32))[:, None, None]
    largest = (layer.weight * units).abs().flatten(1).amax(1).clamp(min=1e-9)
    bits = torch.floor(torch.log2(WEIGHT / largest)).clamp(max=WEIGHT_BITS_MAX)
    return units * torch.exp2(bits)[:, None, None, None]


def fake_quantised(layer: nn.Conv2d, before: Sequence[int]) -> Tensor:
    """Return the weights rounded as `export` does, [O, I, k, k], with their gradients."""
    scale = scales(layer, before)
    detached = layer.weight.detach()
    rounded = torch.round(detached * scale).clamp_(-WEIGHT, WEIGHT) / scale
    return layer.weight + (rounded - detached)


@torch.no_grad()
def export(
    layer: nn.Conv2d, before: Sequence[int], after: int, zeros: Sequence[float] = (), largest: int = INPUT
) -> IntegerConv2d:
    """Return a convolution in integers.

    Args:
        layer: in training, with biases.
        before: fractional bits of its inputs, of each channel.
        after: fractional bits of its outputs.
        zeros: by how much the integers of each channel are larger than what they stand for, of the first
            ones; where there are any, the map has a border already.
        largest: largest absolute value of an input.

    Raises:
        ModelError: a sum could be inexact in float32.
    """
    scale = scales(layer, before)
    weight = torch.round(layer.weight * scale).clamp_(-WEIGHT, WEIGHT).double()
    bits = torch.log2(scale[:, 0, 0, 0]) + before[0]
    bias = _bias(layer).double() * torch.exp2(bits).double()
    bias = torch.round(bias - _of_zeros(weight, zeros))
    return IntegerConv2d(
        weight.cpu().numpy().astype(np.int8, order="C"),
        bias.clamp_(-(2.0**31), 2.0**31 - 1).cpu().numpy().astype(np.int32),
        (bits - after).cpu().numpy().astype(np.int8),
        0 if zeros else int(layer.padding[0]),
        largest,
    )


@torch.no_grad()
def take(
    layer: nn.Conv2d, whole: IntegerConv2d, before: Sequence[int], after: int, zeros: Sequence[float] = ()
) -> None:
    """Undo `export`, for a layer of the same shape."""
    bits = torch.from_numpy(whole.shift.astype(np.float64)) + after
    weight = torch.from_numpy(whole.weight.astype(np.float64))
    bias = torch.from_numpy(whole.bias.astype(np.float64)) + _of_zeros(weight, zeros)
    units = torch.exp2(torch.tensor(before, dtype=torch.float64))[:, None, None]
    layer.weight.copy_(weight * units / torch.exp2(bits)[:, None, None, None])
    _bias(layer).copy_(bias / torch.exp2(bits))


def _of_zeros(weight: Tensor, zeros: Sequence[float]) -> Tensor:
    """Return what the outputs of a layer are for inputs that stand for zero, without the bias."""
    offsets = torch.tensor(zeros, device=weight.device, dtype=weight.dtype)
    return weight.sum((2, 3))[:, : len(zeros)] @ offsets


def _bias(layer: nn.Conv2d) -> Tensor:
    if layer.bias is None:
        raise TypeError("a convolution without biases")
    return layer.bias
