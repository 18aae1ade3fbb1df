"""The contract between priors and the driver that codes or samples by them.

A prior orders the symbols of all planes into steps and gives the symbols of each step their probabilities, as
integers, given the symbols of earlier steps. It never codes: `coding.driver` walks through the same steps in
both directions and when it samples, sees the same symbols, and so the same probabilities.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError

PRECISION = 24
"""Bits of a probability."""

TOTAL = 1 << PRECISION
"""What the frequencies of a symbol sum to."""

Array = NDArray[Any]
"""An array of numbers of any type."""

Symbols = dict[str, Array]
"""Plane -> its integers: indices int32 [h, w] or [T]; latents int16 [h, w, M] in 1/16 of their step."""

Codes = NDArray[np.int32]
Frequencies = NDArray[np.uint32]

Positions = tuple[Any, ...]
"""Index into the array of a plane: an array of indices per axis, and of latents a slice of channels."""


@dataclass(frozen=True)
class Step:
    """Symbols that are coded together.

    Attributes:
        number: of the step, from 0.
        plane: whose symbols they are.
        positions: where they are in each region; empty arrays where a region has none.
    """

    number: int
    plane: str
    positions: Sequence[Positions]


@dataclass(frozen=True)
class Categorical:
    """Probabilities of n indices.

    Attributes:
        frequencies: uint32 [n, K], each at least 1, each row summing to TOTAL.
    """

    frequencies: Frequencies

    def quantise(self, targets: Array) -> NDArray[np.int32]:
        """Indices are integers already: they are their own symbols."""
        return np.asarray(targets, np.int32)

    def values(self, symbols: NDArray[np.int32]) -> NDArray[np.int32]:
        """What the plane holds for these symbols: themselves."""
        return symbols

    def bits(self, symbols: NDArray[np.int32]) -> float:
        """Sum of -log2 of the probabilities of symbols, int32 [n]."""
        return -float(np.log2(self.frequencies[np.arange(len(symbols)), symbols] / TOTAL).sum())

    def sample(self, source: np.random.Philox) -> NDArray[np.int32]:
        """Draw symbols, int32 [n].

        The least frequency of 1 that every symbol has for the coder's sake is left out: what a prior excludes
        is not drawn.

        Args:
            source: raw numbers of a counter-based generator, which no version of numpy changes.
        """
        if not len(self.frequencies):
            return np.zeros(0, np.int32)
        cumulative = np.cumsum(self.frequencies.astype(np.int64) - 1, axis=1)
        uniform = (source.random_raw(len(cumulative)) >> np.uint64(40)).astype(np.int64)
        drawn: NDArray[np.intp] = (cumulative <= (uniform * cumulative[:, -1] >> 24)[:, None]).sum(1)
        return drawn.astype(np.int32)


class EntropyModel(Protocol):
    """Probabilities of the symbols of a step in one region: `Categorical`, or `gaussian_tables.Gaussian`."""

    def quantise(self, targets: Array) -> NDArray[np.int32]:
        """The symbols nearest to what a transform gave."""

    def values(self, symbols: NDArray[np.int32]) -> NDArray[np.int32]:
        """What the plane holds for these symbols."""

    def bits(self, symbols: NDArray[np.int32]) -> float:
        """Sum of -log2 of the probabilities of symbols."""

    def sample(self, source: np.random.Philox) -> NDArray[np.int32]:
        """Draw symbols."""


class Scan(Protocol):
    """One walk through the symbols of regions, side by side."""

    @property
    def steps(self) -> Iterable[Step]:
        """The steps, which visit every symbol once."""

    def models(self, step: Step) -> Iterable[EntropyModel]:
        """The entropy model of this step in each region, in the order of its positions.

        Asked once per step, in order, after the symbols of all earlier steps are in place. They may come one
        by one: what they depend on is read before the first is given out.
        """


REGIONS_PER_BATCH = 256
"""Regions that are walked through side by side, at most: of audio, each takes half a megabyte meanwhile."""


class Prior(ABC):
    """p(symbols) as integers, the same on every machine."""

    @property
    def prior_id(self) -> bytes:
        """What a chunk names the prior by; empty where the model's fingerprint covers it."""
        return b""

    @abstractmethod
    def scan(self, known: Sequence[Symbols], index: int) -> Scan:
        """Begin a walk.

        Args:
            known: per region; the driver fills the arrays step by step, the scan reads there what earlier
                steps have coded, and never changes them.
            index: quality index, 0..255.
        """

    @abstractmethod
    def to_tensors(self) -> dict[str, Array]:
        """Its integers by the names they have in a weights file."""

    def estimate_bits(self, symbols: Symbols) -> float | None:
        """Bits that a region takes, where that is known without a walk; else None."""
        del symbols
        return None

    def batches(self, shapes: Sequence[tuple[int, ...]]) -> list[list[int]]:
        """Numbers of the regions that are walked through side by side, by the shapes of their first plane."""
        return in_order(len(shapes), REGIONS_PER_BATCH)

    def reshaped(self, temperature: float, top_k: int | None) -> Self:
        """The same prior for sampling.

        Args:
            temperature: below 1 what is likely becomes likelier.
            top_k: sample among the so many likeliest symbols; None: all.

        Raises:
            UsageError: the prior has no such choice.
        """
        if temperature != 1 or top_k is not None:
            raise UsageError("this prior has no temperature", "leave out temperature and top-k")
        return self


def in_order(count: int, most: int) -> list[list[int]]:
    """0 .. count - 1, at most so many at a time."""
    return [[*range(at, min(at + most, count))] for at in range(0, count, most)]


def in_time(plane: str, lengths: Sequence[int]) -> Iterator[Step]:
    """Steps of which each visits the next position of every region that is so long."""
    nowhere: Positions = (np.empty(0, np.intp),)
    for t in range(max(lengths, default=0)):
        here: Positions = (np.array([t]),)
        yield Step(t, plane, [here if t < length else nowhere for length in lengths])
