"""Factorised Gaussian prior: every latent by itself, with a standard deviation of its channel's own.

The factorised case of `gaussian`: means are 0, and scales depend on the channel and the quality index alone.
Scales are in sixteenths of an octave, and choose one of the tables of `gaussian_tables`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from .base import Array, Prior, Step, Symbols
from .gaussian_tables import SCALE_LEVELS, SCALE_MIN, Gaussian
from .learned import PREFIX

NAME = f"{PREFIX}deviations"
"""Of the array in a weights file."""

INDICES_PER_OCTAVE = 36
"""Quality indexes per halving of the step."""

COARSEST = 11
"""log2 of the step at quality index 0, in 8-bit units."""


def log2_step(index: int) -> int:
    """Return log2 of the step at a quality index, in sixteenths: 8-bit units of orthonormal latents."""
    return 16 * COARSEST - 16 * index // INDICES_PER_OCTAVE


@dataclass(frozen=True, eq=False)
class FactorisedPrior(Prior):
    """p(latents) of one plane at every quality index.

    Attributes:
        deviations: log2 of the standard deviation of each channel, in sixteenths, int16 [M].
        plane: name of the plane.
    """

    deviations: NDArray[np.int16]
    plane: str

    def __post_init__(self) -> None:
        if self.deviations.dtype != np.int16 or self.deviations.ndim != 1:
            raise ModelError("a factorised prior without deviations", "copy the weights file again")

    def scan(self, known: Sequence[Symbols], index: int) -> _Scan:
        """Begin a scan, as in `Prior.scan`."""
        return _Scan(self, [symbols[self.plane] for symbols in known], index)

    def to_tensors(self) -> dict[str, Array]:
        """Return the deviations by their name in a weights file."""
        return {NAME: self.deviations}


@dataclass(frozen=True, eq=False)
class _Scan:
    """One step: all latents of a region."""

    prior: FactorisedPrior
    latents: Sequence[Array]
    index: int

    @property
    def steps(self) -> Iterator[Step]:
        grids = [np.indices(array.shape[:2]).reshape(2, -1) for array in self.latents]
        yield Step(0, self.prior.plane, [(rows, columns, slice(None)) for rows, columns in grids])

    @cached_property
    def _scales(self) -> NDArray[np.uint8]:
        scales = (self.prior.deviations.astype(np.int64) - log2_step(self.index) - SCALE_MIN + 1) // 3
        return np.clip(scales, 0, SCALE_LEVELS - 1).astype(np.uint8)

    def models(self, step: Step) -> Iterator[Gaussian]:
        for rows, _, _ in step.positions:
            shape = len(rows), len(self._scales)
            yield Gaussian(np.zeros(shape, np.int32), np.broadcast_to(self._scales, shape))
