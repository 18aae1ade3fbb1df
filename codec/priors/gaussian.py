"""The conditional Gaussian in integers: probabilities of rounded latents, by the context model.

    symbol = round(latent / step - mean),   mean and sigma functions of all latents before (`context`)

The network's outputs, and everything made of them, are integers: means in sixteenths of a step, sigma an
index into a table of 64 (`gaussian_tables`). An encoder may choose other symbols than the nearest; a decoder
only needs the same means. A region's latents depend on nothing outside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ModelError, UsageError
from . import exact, gaussian_tables
from .base import Array, Positions, Step, Symbols, in_order
from .context import HEAD_BITS, ContextModel, Integer, Shape
from .gaussian_tables import SCALE_LEVELS, SCALE_MIN, Gaussian
from .learned import IntegerNetwork

REGIONS_PER_BATCH = 8
"""Regions of one size that are walked through side by side, at most."""

UNITS_PER_SCALE = 48
"""Units of the heads between one scale of the table and the next: 3 / 16 octave."""


@dataclass(frozen=True, eq=False)
class GaussianPrior(IntegerNetwork):
    """p(latents) at every quality index.

    Attributes:
        arrays: its integers by name: those of the layers, and "rise" and "start", int32 [M], slope and offset
            of the straight line over the index that gives a channel's log2(deviation / step) in 2**-20.
        shape: of the network.
        plane: whose latents they are.
        temperature: sigma is multiplied by it, to the nearest of the table; coding has 1.
    """

    shape: Shape = Shape(1, 1, 1, 0, 24)
    plane: str = "y"
    temperature: float = 1.0

    def check(self) -> None:
        """Refuse arrays that do not fit the shape.

        Raises:
            ModelError: they do not.
        """
        for name in ("rise", "start"):
            array = self.arrays.get(name)
            if array is None or array.dtype != np.int32 or array.shape != (self.shape.channels,):
                raise ModelError(f"a prior without a {name} of its {self.shape.channels} channels")
        for name, (inputs, outputs, _after, _gain) in self.shape.layers().items():
            self.fits(name, inputs, outputs)

    @cached_property
    def _line(self) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(self.arrays["rise"]).long(), torch.from_numpy(self.arrays["start"]).long()

    def log2_gains(self, index: int) -> Tensor:
        """log2(deviation / step) of every channel in sixteenths: int32 [M]."""
        slope, offset = self._line
        return ((offset + slope * index) >> 16).int()

    def scan(self, known: Sequence[Symbols], index: int) -> _Scan:
        """Begin a walk through regions of one size, as in `base.Prior`."""
        return _Scan(self, [symbols[self.plane] for symbols in known], index)

    def batches(self, shapes: Sequence[tuple[int, ...]]) -> list[list[int]]:
        """As in `base.Prior`: of one size each."""
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for number, shape in enumerate(shapes):
            by_shape.setdefault(shape, []).append(number)
        groups = by_shape.values()
        return [
            [group[n] for n in some] for group in groups for some in in_order(len(group), REGIONS_PER_BATCH)
        ]

    def reshaped(self, temperature: float, top_k: int | None) -> Self:
        """As in `base.Prior`.

        Raises:
            UsageError: top-k.
        """
        if top_k is not None:
            raise UsageError("top-k means nothing for latents that are Gaussian", "give a temperature")
        return replace(self, temperature=temperature)


class _Scan:
    """The context model over regions of one size, in integers."""

    def __init__(self, prior: GaussianPrior, latents: Sequence[NDArray[np.int16]], index: int) -> None:
        self._prior, self._latents, self._log2_gains = prior, latents, prior.log2_gains(index)
        self._widening = round(16 / 3 * np.log2(prior.temperature))
        self._before: Step | None = None
        height, width = latents[0].shape[:2] if latents else (0, 0)
        self._size = height, width
        condition = torch.full((len(latents), 1), float((index - 128) // 2), dtype=prior.carrier)
        grids = (len(latents), height, width)
        self._context = ContextModel(prior.shape, prior.layers, Integer(), grids, condition)

    @property
    def steps(self) -> Iterator[Step]:
        for number, (s, p) in enumerate(self._prior.shape.steps):
            rows, columns = self._context.grid_positions(s, p)
            positions: Positions = (rows, columns, self._prior.shape.slices[s])
            yield Step(number, self._prior.plane, [positions] * len(self._latents))

    def models(self, step: Step) -> Iterator[Gaussian]:
        if self._before is not None:
            self._update(self._before)
        self._before = step
        s, p = self._prior.shape.steps[step.number]
        log2_gains = self._log2_gains[self._prior.shape.slices[s]]
        with exact.arithmetic():
            outputs = self._context.params(s, p).clamp_(-exact.STREAM_MAX, exact.STREAM_MAX).int()
            means, log2_sigmas = outputs.chunk(2, 1)
            means = gaussian_tables.scaled(means, log2_gains, HEAD_BITS - 4)
            units = log2_sigmas + (log2_gains << 4) + (UNITS_PER_SCALE // 2 - (SCALE_MIN << 4))
            indexes = torch.div(units, UNITS_PER_SCALE, rounding_mode="floor")
            indexes = indexes.clamp_(0, SCALE_LEVELS - 1)
            if self._widening:
                indexes = (indexes + self._widening).clamp_(0, SCALE_LEVELS - 1)
        count = len(self._latents)
        each = zip(
            means.numpy().reshape(count, -1, means.shape[1]),
            indexes.to(torch.uint8).numpy().reshape(count, -1, means.shape[1]),
            strict=True,
        )
        return (Gaussian(mean, index) for mean, index in each)

    def _update(self, step: Step) -> None:
        """Show the context model what the latents of a step turned out to be."""
        s, p = self._prior.shape.steps[step.number]
        log2_gains = self._log2_gains[self._prior.shape.slices[s]]
        each = zip(self._latents, step.positions, strict=True)
        values = np.concatenate([region[positions] for region, positions in each])
        with exact.arithmetic():
            whole = torch.from_numpy(values).int()
            normalised = gaussian_tables.scaled(whole, -log2_gains, 0).clamp_(-exact.INPUT, exact.INPUT)
            features = torch.cat((normalised, gaussian_tables.compressed(whole)), 1)
            self._context.update(s, p, features.to(self._prior.carrier))


def export(layers: Mapping[str, exact.Linear], shape: Shape, line: tuple[Tensor, Tensor]) -> GaussianPrior:
    """The prior of a model in training.

    Args:
        layers: of `context.layers_in_training`.
        shape: of the network.
        line: slope and offset over the quality index, in 2**-20.

    Raises:
        ModelError: a layer is beyond what is exact.
    """
    arrays: dict[str, Array] = {
        name: part.cpu().numpy().astype(np.int32) for name, part in zip(("rise", "start"), line, strict=True)
    }
    for name, layer in layers.items():
        whole = layer.export()
        arrays |= {f"{name}.{part}": getattr(whole, part) for part in ("weight", "bias", "shift")}
    return GaussianPrior(arrays, shape=shape)
