"""Conditional Gaussian prior: probabilities of quantised latents from the context model, in integers.

    symbol = round(latent / step - mean),   mean and sigma functions of all latents before (`context`)

The network's outputs, and everything computed from them, are integers: means in sixteenths of a step, sigma
the index of one of 64 tables of each step (`scale_mixtures`). An encoder may choose other symbols than the
nearest; a decoder needs the same means and scales, not the reason. A region's latents depend on nothing
outside it.
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
from . import exact, gaussian_tables, scale_mixtures
from .base import Array, Positions, Step, Symbols, in_order
from .context import HEAD_BITS, ContextModel, Integer, Shape
from .gaussian_tables import LATENT_UNIT, SCALE_LEVELS, SCALE_MIN, SignedTables
from .learned import IntegerNetwork
from .scale_mixtures import OFFSETS, WEIGHT_BITS, ScaleMixture

REGIONS_PER_BATCH = 8
"""Largest number of regions of one size coded side by side."""

END_STEP_BELOW = 160
"""Quality index from which on steps at the ends of a region are those inside: nearly all latents are coded
there, with the same error everywhere."""

UNITS_PER_OCTAVE = 256
"""Units of log2 sigma, as the heads output it."""

UNITS_PER_SCALE = 48
"""Units of log2 sigma between two scales of the table: 3 / 16 octave."""


@dataclass(frozen=True, eq=False)
class GaussianPrior(IntegerNetwork):
    """p(latents) at every quality index.

    Attributes:
        arrays: its integers by name: those of the layers, "rise" and "start", int32 [M]: slope and offset
            of a channel's log2(deviation / step) as a linear function of the quality index, in 2**-20, and
            "mixture", uint16 [steps, SCALE_LEVELS, J]: see `scale_mixtures`; without it there are Gaussians.
        shape: of the network.
        plane: name of the plane of these latents.
        temperature: factor of sigma, to the nearest scale of the table; 1 in coding.
        end_step: step of the first slice of channels in the first and last rows and columns of a region, in
            sixteenths of the step elsewhere. Context is missing there, and the errors of these channels
            would show as lines in smooth areas.
    """

    shape: Shape = Shape(1, 1, 1, 0, 24)
    plane: str = "y"
    temperature: float = 1.0
    end_step: int = LATENT_UNIT

    def check(self) -> None:
        """Refuse arrays that do not fit the shape.

        Raises:
            ModelError: they do not.
        """
        for name in ("rise", "start"):
            array = self.arrays.get(name)
            if array is None or array.dtype != np.int32 or array.shape != (self.shape.channels,):
                raise ModelError(f"a prior without a {name} of its {self.shape.channels} channels")
        weights, sizes = self.mixture, (len(self.shape.steps), SCALE_LEVELS, len(OFFSETS))
        if weights.dtype != np.uint16 or weights.shape != sizes:
            raise ModelError(f"a prior whose mixture is no uint16 {sizes}")
        if (weights.sum(2, dtype=np.int64) != 1 << WEIGHT_BITS).any():
            raise ModelError("a prior with a mixture whose weights do not sum to one")
        for name, (inputs, outputs, _after, _gain) in self.shape.layers().items():
            self.fits(name, inputs, outputs)

    @cached_property
    def mixture(self) -> Array:
        """Weights of the mixtures, uint16 [steps, SCALE_LEVELS, J]."""
        found = self.arrays.get("mixture")
        return scale_mixtures.plain(len(self.shape.steps)) if found is None else found

    @cached_property
    def tables(self) -> list[SignedTables]:
        """Tables of each step."""
        return [scale_mixtures.tables(weights) for weights in self.mixture]

    @cached_property
    def _line(self) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(self.arrays["rise"]).long(), torch.from_numpy(self.arrays["start"]).long()

    def log2_gains(self, index: int) -> Tensor:
        """Return log2(deviation / step) of every channel in sixteenths: int32 [M]."""
        slope, offset = self._line
        return ((offset + slope * index) >> 16).int()

    def scan(self, known: Sequence[Symbols], index: int) -> _Scan:
        """Begin a scan of regions of one size, as in `Prior.scan`."""
        return _Scan(self, [symbols[self.plane] for symbols in known], index)

    def batches(self, shapes: Sequence[tuple[int, ...]]) -> list[list[int]]:
        """Group the indexes of regions of one size, as in `Prior.batches`."""
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for region, shape in enumerate(shapes):
            by_shape.setdefault(shape, []).append(region)
        groups = by_shape.values()
        return [
            [group[n] for n in some] for group in groups for some in in_order(len(group), REGIONS_PER_BATCH)
        ]

    def reshaped(self, temperature: float, top_k: int | None, plane: str | None = None) -> Self:
        """Return the same prior with scaled deviations, as in `Prior.reshaped`.

        Raises:
            UsageError: top-k.
        """
        del plane
        if top_k is not None:
            raise UsageError("top-k does not apply to Gaussian latents", "give a temperature")
        return replace(self, temperature=temperature)


class _Scan:
    """Scan of regions of one size by the context model, in integers."""

    def __init__(self, prior: GaussianPrior, latents: Sequence[NDArray[np.int16]], index: int) -> None:
        self._prior, self._latents, self._log2_gains = prior, latents, prior.log2_gains(index)
        self._end_step = prior.end_step if index < END_STEP_BELOW else LATENT_UNIT
        self._widening = round(16 / 3 * np.log2(prior.temperature))
        self._before: Step | None = None
        height, width = latents[0].shape[:2] if latents else (0, 0)
        self._size = height, width
        condition = torch.full((len(latents), 1), float((index - 128) // 2), dtype=prior.dtype)
        grids = (len(latents), height, width)
        self._context = ContextModel(prior.shape, prior.layers, Integer(), grids, condition)

    @property
    def steps(self) -> Iterator[Step]:
        for number, (s, p) in enumerate(self._prior.shape.steps):
            rows, columns = self._context.grid_positions(s, p)
            positions: Positions = (rows, columns, self._prior.shape.slices[s])
            yield Step(number, self._prior.plane, [positions] * len(self._latents))

    def models(self, step: Step) -> Iterator[ScaleMixture]:
        if self._before is not None:
            self._update(self._before)
        self._before = step
        s, p = self._prior.shape.steps[step.number]
        log2_gains = self._log2_gains[self._prior.shape.slices[s]]
        steps = self._relative_steps(s, p)
        finer = torch.from_numpy(np.rint(UNITS_PER_OCTAVE * np.log2(LATENT_UNIT / steps)).astype(np.int32))
        with exact.arithmetic():
            outputs = self._context.params(s, p).clamp_(-exact.ACCUMULATOR_MAX, exact.ACCUMULATOR_MAX).int()
            means, log2_sigmas = outputs.chunk(2, 1)
            means = gaussian_tables.scaled(means, log2_gains, HEAD_BITS - 4)
            units = log2_sigmas + (log2_gains << 4) + (UNITS_PER_SCALE // 2 - (SCALE_MIN << 4))
            units += finer.repeat(len(self._latents), 1)
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
        tables = self._prior.tables[step.number]
        return (ScaleMixture(mean, index, steps, tables) for mean, index in each)

    def _relative_steps(self, s: int, p: int) -> NDArray[np.int32]:
        """Return the step at the positions of a phase, in sixteenths of the step inside: [n, 1]."""
        (rows, columns), (height, width) = self._context.grid_positions(s, p), self._size
        at_end = (rows == 0) | (rows == height - 1) | (columns == 0) | (columns == width - 1)
        end_step = LATENT_UNIT if s else self._end_step
        return np.where(at_end, end_step, LATENT_UNIT).astype(np.int32)[:, None]

    def _update(self, step: Step) -> None:
        """Pass the latents of a step to the context model."""
        s, p = self._prior.shape.steps[step.number]
        log2_gains = self._log2_gains[self._prior.shape.slices[s]]
        each = zip(self._latents, step.positions, strict=True)
        values = np.concatenate([region[positions] for region, positions in each])
        with exact.arithmetic():
            whole = torch.from_numpy(values).int()
            normalised = gaussian_tables.scaled(whole, -log2_gains, 0).clamp_(-exact.INPUT, exact.INPUT)
            features = torch.cat((normalised, gaussian_tables.compressed(whole)), 1)
            self._context.update(s, p, features.to(self._prior.dtype))


def export(
    layers: Mapping[str, exact.QATLinear],
    shape: Shape,
    line: tuple[Tensor, Tensor],
    end_step: int,
    mixture: NDArray[np.uint16],
) -> GaussianPrior:
    """Return the prior of a model in training, in integers.

    Args:
        layers: of `context.layers_in_training`.
        shape: of the network.
        line: slope and offset of log2(deviation / step) over the quality index, in 2**-20, [M] each.
        end_step: as in `GaussianPrior`.
        mixture: as in `GaussianPrior.arrays`.

    Raises:
        ModelError: a layer exceeds the exact range of float32.
    """
    arrays: dict[str, Array] = {
        name: part.cpu().numpy().astype(np.int32) for name, part in zip(("rise", "start"), line, strict=True)
    }
    arrays["mixture"] = mixture
    for name, layer in layers.items():
        whole = layer.export()
        arrays |= {f"{name}.{part}": getattr(whole, part) for part in ("weight", "bias", "shift")}
    return GaussianPrior(arrays, shape=shape, end_step=end_step)
