"""The linear synthesis of a lapped transform in integers: the same sums on every machine.

Latents have up to 20 bits, so float64 holds the sums. That is slow: only the first channels, whose deviations
are large, are summed so, with weights of 16 bits. Of the others the weights have 8 bits, and the latents are
split into digits of 7 bits, each of which goes through an `IntegerConv2d`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ModelError
from ..priors.base import Array
from ..priors.exact_convolutions import WEIGHT, Carrier, IntegerConv2d

SIDE = 4
"""Side of the squares of pixels that are the channels of its output."""

SAMPLES = 3 * SIDE**2
"""Samples of such a square."""

BLOCK = 4 * SAMPLES
"""Outputs of a tap of the basis, 8x8 pixels."""

WIDE = 64
"""Number of first channels whose weights have 16 bits."""

SAMPLE_BITS = 8
"""Fractional bits of the outputs, in levels."""

LARGEST = 2.0**22
"""Largest absolute value of the outputs."""

WIDE_BITS, WIDE_LARGEST = 22, 2.0**28
"""Fractional bits of the sums of the first channels, and the largest absolute value of their latents."""

NARROW_BITS, NARROW_LARGEST = 7, 2.0**19
"""Fractional bits of the other latents, in standard deviations, and their largest absolute value."""

DIGIT_BITS, DIGITS, DIGIT_ZERO = 7, 3, 64
"""Size and number of digits, and the digit that stands for 0."""

NOTHING = DIGIT_ZERO * sum(1 << DIGIT_BITS * n for n in range(DIGITS))
"""Added to latents before they are split, so that digits of small ones are DIGIT_ZERO, except the last."""

NARROW_BITS_MAX = 15
"""Largest number of fractional bits of their weights."""

TAPS = ((3, 1), (2, 0))
"""Of even and of odd outputs, the taps of a kernel of 4 at stride 2 that meet its two inputs."""


@dataclass(frozen=True, eq=False)
class IntegerLapped:
    """Latents in standard deviations -> samples, in 2**-SAMPLE_BITS levels.

    Attributes:
        wide: int16 [W, 192, 4, 4], times 2**-bits, of the first channels.
        bits: uint8 [W].
        narrow: int8 [M - W, 192, 4, 4], times 2**-shift, of the others.
        shift: int8 [192, 2, 2], of outputs in even and in odd rows and columns.

    Raises:
        ModelError: on construction, if shapes or types are others, or sums could be inexact.
    """

    wide: NDArray[np.int16]
    bits: NDArray[np.uint8]
    narrow: NDArray[np.int8]
    shift: NDArray[np.int8]

    def __post_init__(self) -> None:
        size = len(self.wide)
        expected = {
            "wide": ("int16", (size, BLOCK, 4, 4)),
            "bits": ("uint8", (size,)),
            "narrow": ("int8", (len(self.narrow), BLOCK, 4, 4)),
            "shift": ("int8", (BLOCK, 2, 2)),
        }
        for name, (kind, shape) in expected.items():
            array = getattr(self, name)
            if array.dtype != np.dtype(kind) or array.shape != shape:
                raise ModelError(f"a linear synthesis whose {name} is {array.dtype} {array.shape}")
        if (self.bits > WIDE_BITS).any():
            raise ModelError("a linear synthesis with weights below what is exact in float64")
        _ = self._phases

    def arrays(self) -> dict[str, Array]:
        """Return its integers by name."""
        return {name: getattr(self, name) for name in ("wide", "bits", "narrow", "shift")}

    def __call__(self, latents: Tensor, carrier: Carrier) -> Tensor:
        """Apply the transform.

        Args:
            latents: float64 [h, w, M], in standard deviations.
            carrier: of the sums of the digits.

        Returns:
            Integers, float32 [1, 48, 4 h, 4 w] with channels last in memory; channels in the order of
            `ORDER`.
        """
        height, width, _ = latents.shape
        wide = self._wide_padded(latents)
        digits = self._digits(latents)
        whole = torch.empty((height, 2, 2, width, 2, 2, SAMPLES), device=latents.device)
        for (row, column), (weights, layers) in self._phases.items():
            found = self._wide_sums(wide, weights, row, column).view(height, width, BLOCK)
            for layer, digit in zip(layers, digits, strict=True):
                if digit is not None:
                    part = digit[:, :, row : row + height + 1, column : column + width + 1]
                    part = part.contiguous(memory_format=torch.channels_last)
                    found += layer.exact(part, carrier).round_()[0].permute(1, 2, 0)
            found = found.clamp_(-LARGEST, LARGEST).view(height, width, 2, 2, SAMPLES)
            whole[:, row, :, :, column] = found.permute(0, 2, 1, 3, 4)
        return whole.view(1, 4 * height, 4 * width, SAMPLES).permute(0, 3, 1, 2)

    @cached_property
    def _phases(self) -> dict[tuple[int, int], tuple[Tensor, list[IntegerConv2d]]]:
        """Of outputs in even or odd rows and columns, wide weights [2, 2, W, 192] and layers of digits."""
        order = np.arange(BLOCK).reshape(3, 2, SIDE, 2, SIDE).transpose(1, 3, 2, 4, 0).ravel()
        found = {}
        for row, column in itertools.product(range(2), repeat=2):
            at = np.ix_(TAPS[row], TAPS[column])
            wide = self.wide[:, order][:, :, at[0], at[1]].transpose(2, 3, 0, 1)
            narrow = np.ascontiguousarray(self.narrow[:, order][:, :, at[0], at[1]].swapaxes(0, 1))
            shift = self.shift[order, row, column].astype(np.int64) + (NARROW_BITS - SAMPLE_BITS)
            bias = (-DIGIT_ZERO * narrow.astype(np.int64).sum((1, 2, 3))).astype(np.int32)
            layers = [
                IntegerConv2d(narrow, bias, (shift - DIGIT_BITS * n).astype(np.int8))
                for n in range(DIGITS)
                if len(self.narrow)
            ]
            found[row, column] = torch.from_numpy(wide.astype(np.float64)), layers
        return found

    def _wide_padded(self, latents: Tensor) -> Tensor:
        """Return latents of the first channels as integers, float64 [h + 2, w + 2, W]."""
        height, width, _ = latents.shape
        size = len(self.bits)
        scale = torch.from_numpy(np.ldexp(1.0, WIDE_BITS - self.bits.astype(np.int64))).to(latents.device)
        padded = latents.new_zeros((height + 2, width + 2, size))
        whole = (latents[:, :, :size] * scale).round_().clamp_(-WIDE_LARGEST, WIDE_LARGEST)
        padded[1:-1, 1:-1] = whole
        return padded

    def _wide_sums(self, padded: Tensor, weights: Tensor, row: int, column: int) -> Tensor:
        """Sum the first channels up, and round: float32 [h, w, 192]."""
        height, width = padded.shape[0] - 2, padded.shape[1] - 2
        flat = padded.view(-1, padded.shape[2])
        count = height * (width + 2) - 2  # the last two would reach beyond the end
        sums = flat.new_zeros((count + 2, BLOCK))
        for i, j in itertools.product(range(2), repeat=2):
            first = (row + i) * (width + 2) + column + j
            sums[:count].addmm_(flat[first : first + count], weights[i, j].to(flat.device))
        sums = sums.view(height, width + 2, BLOCK)[:, :width]
        return (sums * 2.0 ** (SAMPLE_BITS - WIDE_BITS)).round_().float()

    def _digits(self, latents: Tensor) -> list[Tensor | None]:
        """Split the latents of the other channels into digits, uint8 [1, M - W, h + 2, w + 2], lowest first.

        None stands for digits that are all DIGIT_ZERO.
        """
        size = len(self.bits)
        if size == latents.shape[2]:
            return []
        whole = (latents[:, :, size:] * 2.0**NARROW_BITS).round_().clamp_(-NARROW_LARGEST, NARROW_LARGEST)
        known = (whole + NOTHING).int()
        found: list[Tensor | None] = []
        for n in range(DIGITS):
            digit = ((known >> DIGIT_BITS * n) & ((1 << DIGIT_BITS) - 1)).to(torch.uint8)
            if (digit == DIGIT_ZERO).all():
                found.append(None)
                continue
            padded = digit.new_full((digit.shape[0] + 2, digit.shape[1] + 2, digit.shape[2]), DIGIT_ZERO)
            padded[1:-1, 1:-1] = digit
            found.append(padded.permute(2, 0, 1)[None])
        return found


ORDER = np.arange(SAMPLES).reshape(3, SIDE, SIDE).transpose(1, 2, 0).ravel()
"""Its output channels, and those of what is added to them: row, column, colour of 4x4 pixels."""


SLACK = 1e-5
"""Added to the bits of weights: the largest may be a rounding of float32 above what fits, and round to it."""


def quantised(basis: Tensor) -> tuple[Tensor, Tensor]:
    """Return a basis of latents in standard deviations, [M, 192, 4, 4], as integers, and their scale."""
    wide, narrow = basis[:WIDE], basis[WIDE:]
    largest = wide.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-9)
    bits = torch.floor(torch.log2(32767 / largest) + SLACK).clamp(0, WIDE_BITS - 6)
    scale = torch.exp2(bits).expand_as(wide)
    if len(narrow):
        narrow_scale = torch.empty_like(narrow[0])
        for row, column in itertools.product(range(2), repeat=2):
            rows, columns = (slice(1 - odd, None, 2) for odd in (row, column))  # the taps of these outputs
            most = narrow[:, :, rows, columns].abs().amax((0, 2, 3)).clamp(min=1e-9)
            bits = torch.floor(torch.log2(WEIGHT / most) + SLACK).clamp(0, NARROW_BITS_MAX)
            narrow_scale[:, rows, columns] = torch.exp2(bits)[:, None, None]
        scale = torch.cat((scale, narrow_scale.expand_as(narrow)))
    return torch.round(basis * scale), scale


def fake_quantised(basis: Tensor, deviation: Tensor) -> Tensor:
    """Return a basis [M, 192, 4, 4] rounded as `export` does, with its gradients, for training."""
    with torch.no_grad():
        units = deviation[:, None, None, None]
        whole, scale = quantised(basis.detach() * units)
        error = whole / scale / units - basis.detach()
    return basis + error


@torch.no_grad()
def export(basis: Tensor, deviation: Tensor) -> IntegerLapped:
    """Return the transform in integers.

    Args:
        basis: of latents, [M, 192, 4, 4].
        deviation: of each channel of the latents, [M].
    """
    units = deviation.double()[:, None, None, None]
    whole, scale = (array.cpu().numpy() for array in quantised(basis.double() * units))
    bits, size = np.log2(scale), min(WIDE, len(whole))
    outputs = bits[-1][:, 1::-1, 1::-1] if size < len(whole) else np.zeros((BLOCK, 2, 2))
    return IntegerLapped(
        whole[:size].astype(np.int16, order="C"),
        bits[:size, 0, 0, 0].astype(np.uint8),
        whole[size:].astype(np.int8, order="C"),
        np.ascontiguousarray(outputs).astype(np.int8),
    )


def restored(lapped: IntegerLapped, deviation: Tensor) -> Tensor:
    """Return the basis of a transform in integers, [M, 192, 4, 4]: undo `export`."""
    wide = np.ldexp(lapped.wide.astype(np.float64), -lapped.bits.astype(np.int64)[:, None, None, None])
    shifts = np.tile(lapped.shift[:, ::-1, ::-1], (1, 2, 2)).astype(np.int64)
    narrow = np.ldexp(lapped.narrow.astype(np.float64), -shifts)
    return torch.from_numpy(np.concatenate((wide, narrow))) / deviation.double()[:, None, None, None]
