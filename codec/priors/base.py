"""The interface between priors and the driver that codes or samples by them.

A prior orders the symbols of all planes into steps and gives the symbols of each step their probabilities, as
integers, given the symbols of earlier steps. It never codes: `coding.driver` walks through the same steps in
encoding, decoding and sampling, passes the same symbols, and so gets the same probabilities.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError

PRECISION = 24
"""Bits of a probability."""

TOTAL = 1 << PRECISION
"""Sum of the frequencies of an alphabet."""

Array = NDArray[Any]
"""An array of numbers of any type."""

Symbols = dict[str, Array]
"""Plane -> its integers: indices int32 [h, w] or [T]; latents int16 [h, w, M] in 1/16 of their step."""

Codes = NDArray[np.int32]
Frequencies = NDArray[np.uint32]

Positions = tuple[Any, ...]
"""Index into the array of a plane: an integer array per axis, and for latents a slice of channels."""


@dataclass(frozen=True)
class Step:
    """A set of symbols that are coded together.

    Attributes:
        number: of the step, from 0.
        plane: name of their plane.
        positions: their positions in each region; empty arrays where a region has none.
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
        """Return indices as they are: they are their own symbols."""
        return np.asarray(targets, np.int32)

    def values(self, symbols: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the plane's values for these symbols: the symbols themselves."""
        return symbols

    def bits(self, symbols: NDArray[np.int32]) -> float:
        """Return the sum of -log2 of the probabilities of symbols, int32 [n]."""
        return -float(np.log2(self.frequencies[np.arange(len(symbols)), symbols] / TOTAL).sum())

    def sample(self, source: np.random.Philox) -> NDArray[np.int32]:
        """Draw symbols, int32 [n].

        The minimum frequency of 1 that the coder requires is subtracted, so that symbols that a prior
        excludes are never drawn.

        Args:
            source: counter-based generator, whose raw numbers are the same in every version of numpy.
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
        """Return the symbols nearest to the targets."""

    def values(self, symbols: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the plane's values for these symbols."""

    def bits(self, symbols: NDArray[np.int32]) -> float:
        """Return the sum of -log2 of the probabilities of symbols."""

    def sample(self, source: np.random.Philox) -> NDArray[np.int32]:
        """Draw symbols."""


class Scan(Protocol):
    """One pass over the symbols of regions, side by side."""

    @property
    def steps(self) -> Iterable[Step]:
        """Steps, which visit every symbol once."""

    def models(self, step: Step) -> Iterable[EntropyModel]:
        """Return the entropy model of this step for each region, in the order of its positions.

        Called once per step, in order, once the arrays hold the symbols of all earlier steps. The models may
        be yielded one by one: the arrays are read before the first of them.
        """


GROUP = 256
"""Smallest number of codes whose frequencies are computed together: they stay in the cache until coded."""

REGIONS_PER_BATCH = 256
"""Largest number of regions coded side by side: for audio, each takes half a megabyte meanwhile."""


class Prior(ABC):
    """p(symbols) in integers, the same on every machine."""

    @property
    def prior_id(self) -> bytes:
        """Bytes that identify the prior in a chunk; empty where the model's fingerprint covers it."""
        return b""

    @abstractmethod
    def scan(self, known: Sequence[Symbols], index: int) -> Scan:
        """Begin a scan.

        Args:
            known: symbols of each region; the driver fills the arrays step by step, the scan reads the
                symbols of earlier steps there, and never changes them.
            index: quality index, 0..255.
        """

    def in_parallel(self, symbols: Symbols) -> Iterator[tuple[Codes, Categorical]] | None:
        """Compute the probabilities of indices that are all known, as in training: many positions at once.

        Encoders need not wait for symbols, and large matrix products take less time than small ones.

        Args:
            symbols: of a region, of all planes.

        Returns:
            Indices int32 [n] with their entropy model, in the order of `scan`, and with the same frequencies;
            None: the scan is the only way.
        """
        del symbols
        return None

    @abstractmethod
    def to_tensors(self) -> dict[str, Array]:
        """Return its integers by their names in a weights file."""

    def estimate_bits(self, symbols: Symbols) -> float | None:
        """Return the bits of a region, where they can be computed without a scan; else None."""
        del symbols
        return None

    def batches(self, shapes: Sequence[tuple[int, ...]]) -> list[list[int]]:
        """Group the indexes of regions to be coded side by side, given the shapes of their first plane."""
        return in_order(len(shapes), REGIONS_PER_BATCH)

    def reshaped(self, temperature: float, top_k: int | None, plane: str | None = None) -> Self:
        """Return the same prior with other probabilities, for sampling.

        Args:
            temperature: below 1 makes likely symbols likelier.
            top_k: sample among this many of the likeliest symbols; None: all.
            plane: whose symbols; None: those of all.

        Raises:
            UsageError: the prior does not support the choice.
        """
        del plane
        if temperature != 1 or top_k is not None:
            raise UsageError("this prior has no temperature", "leave out temperature and top-k")
        return self


class PlanePrior(Prior):
    """p(symbols of one plane | those of earlier planes).

    Attributes:
        plane: whose symbols they are.
    """

    plane: str


@lru_cache(maxsize=256)
def slanted(shape: tuple[int, ...], slope: int) -> NDArray[np.intp]:
    """Return flat positions in order of column + slope * row, and for equal ones of the row: intp [h w]."""
    rows, columns = np.indices(shape)
    return np.lexsort((rows.ravel(), (columns + slope * rows).ravel()))


def in_order(count: int, most: int) -> list[list[int]]:
    """Split 0 .. count - 1 into batches of at most `most`, in order."""
    return [[*range(at, min(at + most, count))] for at in range(0, count, most)]


def in_time(plane: str, lengths: Sequence[int]) -> Iterator[Step]:
    """Yield steps of which each visits the next position of every region that has one."""
    none: Positions = (np.empty(0, np.intp),)
    for t in range(max(lengths, default=0)):
        current: Positions = (np.array([t]),)
        yield Step(t, plane, [current if t < length else none for length in lengths])
