"""Qualities of the encoder: those of the model, and beyond them a residual coded to ever finer steps.

A model of fewer latents than samples stops gaining at high rates. From FIRST on the step of a residual gets
finer position by position. The latents under it stay, and from the step COARSER on they get coarser: there
the residual codes what they would for fewer bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..bitstream.quality import BEST, DEFAULT_QUALITY, LAST_INDEX, WORST, index_of, quality_of
from ..coding.residual import step_size
from ..errors import UsageError, VqcodecWarning, warn
from ..models.base import Model

FIRST = 192
"""First quality index with a residual: quality 4. On validation crops its files are smaller from there on."""

COARSEST, COARSER, FINE, FINEST = 186, 116, 72, 32
"""Steps, in 1/32 octaves: 56 levels at FIRST, 4.8 at LAST_INDEX, and 2, where storing pixels wins."""

LOWEST_BASE = 159
"""Quality index of the latents at LAST_INDEX and beyond: quality 3.5."""


@dataclass(frozen=True)
class Rung:
    """One quality of the encoder.

    Attributes:
        position: on the ladder, from 0; every quality index below FIRST and every step has one.
        index: quality index.
        base: quality index of the model's operating point.
        step: of the residual, see `coding.residual.step_size`; None: there is none.
    """

    position: int
    index: int
    base: int
    step: int | None = None

    @classmethod
    def of(cls, model: Model, position: int) -> Rung:
        """Return the rung at a position, 0 to `last_of(model)`."""
        if not model.has_residual:
            index = model.at(position).index
            return cls(position, index, index)
        if position < FIRST:
            return cls(position, position, position)
        step = COARSEST - (position - FIRST)
        index = FIRST + (LAST_INDEX - FIRST) * (position - FIRST) // (COARSEST - FINE)
        lower = (FIRST - 1 - LOWEST_BASE) * (COARSER - step) // (COARSER - FINE)
        base = FIRST - 1 - min(max(lower, 0), FIRST - 1 - LOWEST_BASE)
        return cls(position, min(index, LAST_INDEX), base, step)

    @property
    def settings(self) -> bytes:
        """Bytes of the header's settings, for a model with several operating points."""
        return bytes((self.index,) if self.step is None else (self.index, self.base, self.step))

    def cost(self, error: float, channels: int, rd_lambda: float) -> float:
        """Return what errors of the model cost, in bits per pixel.

        With a residual they are coded down to the distortion of its step, D = step**2 / 12. Of samples of
        variance v that takes log2(v / D) / 2 bits each at high rates, and D is worth 1 / (2 ln 2) bits.

        Args:
            error: mean squared error in 8-bit units.
            channels: of the image.
            rd_lambda: of the model's point, bits per pixel for a mean squared error of 1.
        """
        if self.step is None:
            return rd_lambda * error
        ratio = 12 * error / step_size(self.step) ** 2
        return channels * (math.log2(max(ratio, 1)) / 2 + min(ratio, 1) / (2 * math.log(2)))


def offered(model: Model, quality: float) -> float:
    """Return the quality that a model codes at where this one is asked for.

    Raises:
        UsageError: there is no such quality.

    Warns:
        VqcodecWarning: it is another one, of a model of one or a few operating points.
    """
    if not WORST <= quality <= BEST:
        raise UsageError(f"no quality {quality:g}", f"give {WORST:g} to {BEST:g}, decimals included")
    index = index_of(quality)
    found = index_of(DEFAULT_QUALITY) if model.points == 1 else model.at(index).index
    if found == index:
        return quality
    name, used = model.card.name, quality_of(found)
    if model.points == 1:
        warn(f"{name} has one quality, {used:g}, which is used", VqcodecWarning)
    else:
        warn(f"{name} has no quality {quality:g}; {used:g} is used", VqcodecWarning)
    return used


def position_of(model: Model, index: int) -> int:
    """Return the position of a quality index."""
    if not model.has_residual or index < FIRST:
        return index
    return FIRST + -(-(COARSEST - FINE) * (index - FIRST) // (LAST_INDEX - FIRST))


def rung_at(model: Model, index: int) -> Rung:
    """Return the rung of a quality index."""
    return Rung.of(model, position_of(model, index))


def best_of(model: Model) -> int:
    """Return the position of the best quality of a model."""
    return position_of(model, model.points - 1)


def last_of(model: Model) -> int:
    """Return the last position, that of FINEST where a residual is coded: for targets alone."""
    return FIRST + COARSEST - FINEST if model.has_residual else model.points - 1
