"""Cross-layer equalization of a synthesis network, before its layers become integers.

Where a channel is multiplied by s, and the weights of its readers are divided by s, the function of the
network stays (Nagel, van Baalen, Blankevoort, Welling 2019, section 4.1; s passes through ReLU). But the map
in integers loses least for some s: small values have bits, and large ones are not clipped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..priors.exact_convolutions import INPUT, ZERO
from .synthesis import ACTIVATION, COARSE, FEATURE, Decoder, Real, correction

STEPS, SMALLEST, LARGEST = 4, -3, 4
"""Factors are 2**(n / STEPS), from 2**SMALLEST to 2**LARGEST."""

KEPT = 2048
"""Values of a channel that are looked at, of each batch."""


class _Seen(NamedTuple):
    """Values of the channels of a map, [C, N], that become integers of low..high."""

    values: Tensor
    bits: int
    low: int
    high: int


class _Recording(Real):
    """Arithmetic that keeps the maps that become integers."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__(decoder)
        self.activations: list[Tensor] = []
        self.signs: list[Tensor] = []

    def activation(self, x: Tensor) -> Tensor:
        self.activations.append(x)
        return super().activation(x)

    def signed(self, x: Tensor, bits: int) -> Tensor:
        self.signs.append(x)
        return super().signed(x, bits)


@torch.no_grad()
def equalise(decoder: Decoder, batches: Iterable[tuple[Tensor, Tensor, Tensor]]) -> None:
    """Scale channels so that the roundings and clippings of the integers change them least.

    Args:
        decoder: the network, which computes the same as before.
        batches: inputs of it: latents, linear synthesis and index, as of `synthesis.correction`.
    """
    shape, generator = decoder.shape, torch.Generator().manual_seed(0)
    seen: dict[str, list[_Seen]] = {}

    def keep(name: str, x: Tensor, bits: int = ACTIVATION, zero: int = 0) -> None:
        values = x.transpose(0, 1).flatten(1)
        chosen = torch.randint(values.shape[1], (KEPT,), generator=generator).to(values.device)
        seen.setdefault(name, []).append(_Seen(values[:, chosen], bits, -zero, INPUT - zero))

    for batch in batches:
        maps = _Recording(decoder)
        correction(shape, maps, *batch)
        activations = iter(maps.activations)
        for first, blocks in (("deep.0", shape.coarse_blocks), ("shallow.0", shape.fine_blocks)):
            for block in blocks:
                keep(first, next(activations))
                keep(f"{block}.spatial", next(activations))
        keep("shallow.0", next(activations))
        keep("deep.0", maps.signs[1], COARSE, ZERO)
        keep(shape.spread, _of_shuffled(maps.signs[2]), FEATURE, ZERO)
    for first, blocks, last in (
        ("deep.0", shape.coarse_blocks, shape.spread),
        ("shallow.0", shape.fine_blocks, shape.last),
    ):
        for block in blocks:
            hidden = f"{block}.spatial"
            _scale(decoder, best(seen[hidden]), [hidden], [f"{block}.pointwise"])
        writers, readers = (
            [f"{block}.pointwise" for block in blocks],
            [f"{block}.spatial" for block in blocks],
        )
        _scale(decoder, best(seen[first]), [first, *writers], [*readers, last])
    _scale(decoder, best(seen[shape.spread]), [shape.spread], ["shallow.0"])


def _of_shuffled(x: Tensor) -> Tensor:
    """Bring the four maps that a pixel shuffle makes one channel together: [B, 4 C, h, w] -> [B, C, ...]."""
    batch, count, height, width = x.shape
    return x.reshape(batch, count // 4, 4 * height, width)


def best(seen: Sequence[_Seen]) -> Tensor:
    """Return the factor of each channel with the least squared error; 1 where all are alike."""
    exponents = torch.arange(SMALLEST * STEPS, LARGEST * STEPS + 1) / STEPS
    errors = []
    for exponent in exponents.tolist():
        error = torch.zeros(len(seen[0].values))
        for values, bits, low, high in seen:
            exact = (values if low else values.clamp(min=0)).double()
            unit = 2.0 ** (bits + exponent)
            error = error + (torch.round(exact * unit).clamp(low, high) / unit - exact).square().mean(1).cpu()
        errors.append(error * (1 + 1e-3 * abs(exponent)) + 1e-12 * abs(exponent))
    return torch.exp2(exponents[torch.stack(errors).argmin(0)])


def _scale(decoder: Decoder, factors: Tensor, writers: Sequence[str], readers: Sequence[str]) -> None:
    """Multiply channels where they are written, and divide where they are read, first among the inputs."""
    for name in writers:
        layer = decoder.layer(name)
        of_rows = factors.to(layer.weight).repeat_interleave(layer.out_channels // len(factors))
        layer.weight.mul_(of_rows[:, None, None, None])
        if layer.bias is not None:
            layer.bias.mul_(of_rows)
    for name in readers:
        weight = decoder.layer(name).weight
        weight[:, : len(factors)].div_(factors.to(weight)[:, None, None])
