"""Static prior: fixed tables of frequencies, one for each pair of classes of two neighbours.

The neighbours are the left and the upper code in an image, the last two codes in audio. Codes are grouped
into C classes; class C stands for "outside the region". Codes on one diagonal of an image (row + column =
step) depend only on the diagonal before, so a region of h x w codes takes h + w - 1 steps.

The codes of a finer plane, two for each along both axes, may also have the class of the coarser code above
them for a context; then there is a set of such tables for each class of coarser codes.

An entry of a table is a frequency less one, in 16 bits: a frequency is 1 to TABLE_TOTAL. The coder's 24-bit
frequencies are exactly 256 times as large.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from .base import (
    GROUP,
    TOTAL,
    Array,
    Categorical,
    Codes,
    Frequencies,
    PlanePrior,
    Positions,
    Scan,
    Step,
    Symbols,
    in_time,
    slanted,
)

TABLE_TOTAL = 2**16

FINER = 2
"""Codes along each axis that one code of a coarser plane lies above; of a plane of the same grid, one."""


@dataclass(frozen=True, eq=False)
class StaticPrior(PlanePrior):
    """p(code | classes of the left and the upper code), or of the last code and the one before it.

    Attributes:
        tables: uint16 [C+1, C+1, K], frequencies less one by left (last) class, upper (last but one) class,
            code; every table's frequencies sum to TABLE_TOTAL. Given a coarser plane [A, C+1, C+1, K], by the
            class of the code above first.
        classes: uint8 [K], each in 0..C-1.
        plane: name of the plane of these codes.
        above: uint8, classes of the codes of the coarser plane, each in 0..A-1; None: there is none.
        above_plane: its name.

    Raises:
        ModelError: on construction, if shapes, types or sums are others.
    """

    tables: NDArray[np.uint16]
    classes: NDArray[np.uint8]
    plane: str = "codes"
    above: NDArray[np.uint8] | None = None
    above_plane: str = ""

    def __post_init__(self) -> None:
        tables, classes = self.tables, self.classes
        if tables.dtype != np.uint16 or classes.dtype != np.uint8:
            raise ModelError("prior.tables must be uint16 and prior.classes uint8")
        axes = 3 if self.above is None else 4
        if tables.ndim != axes or tables.shape[-3] != tables.shape[-2] or classes.shape != tables.shape[-1:]:
            raise ModelError(f"prior.tables {tables.shape} do not match prior.classes {classes.shape}")
        if not (2 <= self.alphabet_size < TABLE_TOTAL and classes.max() < self.class_count):
            raise ModelError(f"prior.classes must be in 0..{self.class_count - 1}, and at least two")
        if self.above is not None and (
            self.above.dtype != np.uint8 or self.above.ndim != 1 or self.above.max(initial=0) >= len(tables)
        ):
            raise ModelError(f"prior.above must be uint8, in 0..{len(tables) - 1}")
        if (tables.sum(axis=-1, dtype=np.int64) != TABLE_TOTAL - self.alphabet_size).any():
            raise ModelError(f"prior.tables do not sum to {TABLE_TOTAL}")

    @property
    def alphabet_size(self) -> int:
        """Size K of the codebook."""
        return int(self.tables.shape[-1])

    @property
    def class_count(self) -> int:
        """Number C of classes, without "outside"."""
        return int(self.tables.shape[-2]) - 1

    @cached_property
    def frequencies(self) -> Frequencies:
        """Tables of the coder: uint32 [(C+1)**2, K], rows by left class * (C+1) + upper class.

        Given a coarser plane [A (C+1)**2, K], rows by class above * (C+1)**2 + that.
        """
        frequencies = (self.tables.astype(np.uint32) + np.uint32(1)) * np.uint32(TOTAL // TABLE_TOTAL)
        return frequencies.reshape(-1, self.alphabet_size)

    def estimate_bits(self, symbols: Symbols) -> float:
        """Return the bits of a region without coding it: the sum of -log2 of its probabilities."""
        return float(-np.log2(self.frequencies[self._rows(symbols), symbols[self.plane]] / TOTAL).sum())

    def in_parallel(self, symbols: Symbols) -> Iterator[tuple[Codes, Categorical]]:
        """Look up the tables of many positions at once, as in `Prior.in_parallel`."""
        codes, rows = symbols[self.plane], self._rows(symbols).ravel()
        order = slanted(codes.shape, 1) if codes.ndim == 2 else np.arange(len(codes))
        for first in range(0, len(order), GROUP):
            chosen = order[first : first + GROUP]
            yield codes.ravel()[chosen], Categorical(self.frequencies.take(rows[chosen], axis=0))

    def scan(self, known: Sequence[Symbols], index: int) -> Scan:
        """Begin a scan of all regions at once, of one axis or two, as in `Prior.scan`."""
        del index
        codes = [symbols[self.plane] for symbols in known]
        sequences = bool(codes) and codes[0].ndim == 1
        return _SequenceScan(self, codes, known) if sequences else _DiagonalScan(self, codes, known)

    def _rows(self, symbols: Symbols) -> NDArray[np.intp]:
        """Return the row of the tables for every code of a region, intp [h, w] or [T]."""
        region = symbols[self.plane]
        rows = _contexts(region, self.classes, self.class_count)
        return rows + self._above_rows(symbols, *np.indices(region.shape, sparse=True))

    def _above_rows(self, symbols: Symbols, *positions: Array) -> NDArray[np.intp] | int:
        """What the codes above some positions add to the rows of the tables."""
        if self.above is None:
            return 0
        coarse = symbols[self.above_plane]
        scale = finer(symbols[self.plane].shape, coarse.shape)
        found = self.above[coarse[tuple(axis // scale for axis in positions)]]
        rows: NDArray[np.intp] = found.astype(np.intp) * (self.class_count + 1) ** 2
        return rows

    def to_tensors(self) -> dict[str, NDArray[np.generic]]:
        """Return the arrays by their names in a weights file."""
        above = {} if self.above is None else {"prior.above": self.above}
        return {"prior.tables": self.tables, "prior.classes": self.classes, **above}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, NDArray[np.generic]], plane: str = "codes", above_plane: str = ""
    ) -> StaticPrior:
        """Read the arrays of `to_tensors`; other names are ignored.

        Args:
            tensors: by name.
            plane: whose indices they are.
            above_plane: the coarser plane that they are given, or "".

        Raises:
            ModelError: an array is missing, or has another shape, type or sum.
        """
        try:
            tables, classes = np.asarray(tensors["prior.tables"]), np.asarray(tensors["prior.classes"])
            above = np.asarray(tensors["prior.above"]) if above_plane else None
        except KeyError as missing:
            raise ModelError(f"weights without {missing.args[0]}") from None
        return cls(tables, classes, plane, above, above_plane)


class _DiagonalScan:
    """Scan along diagonals: step t visits every (i, j) with i + j = t.

    A region's front holds the class of the latest code of every row, after one entry that stays "outside".
    Before step i + j, the latest code of row i is (i, j - 1) and that of row i - 1 is (i - 1, j): the left
    and the upper neighbour are entries i + 1 and i of the front.
    """

    def __init__(self, prior: StaticPrior, codes: Sequence[Codes], known: Sequence[Symbols]) -> None:
        self.prior, self.known = prior, known
        self.codes = codes
        self.fronts = [np.full(region.shape[0] + 1, prior.class_count, np.intp) for region in codes]
        self._count = max((sum(region.shape) - 1 for region in codes if region.size), default=0)

    @property
    def steps(self) -> Iterator[Step]:
        plane, shapes = self.prior.plane, [region.shape for region in self.codes]
        return (Step(t, plane, [_diagonal(shape, t) for shape in shapes]) for t in range(self._count))

    def models(self, step: Step) -> Iterator[Categorical]:
        tables, prior = self.prior.frequencies, self.prior
        contexts = []
        parts = zip(self.codes, self.fronts, self.known, step.positions, strict=True)
        for region, front, symbols, (now, along) in parts:
            rows, columns = _diagonal(region.shape, step.number - 1)
            front[rows + 1] = prior.classes[region[rows, columns]]
            context = front[now + 1] * (prior.class_count + 1) + front[now]
            contexts.append(context + prior._above_rows(symbols, now, along))
        # One region at a time, so that its frequencies are still in the cache when the coder reads them.
        return (Categorical(tables.take(context, axis=0)) for context in contexts)


class _SequenceScan:
    """Scan by time: step t visits the t-th code of every region that has one."""

    def __init__(self, prior: StaticPrior, codes: Sequence[Codes], known: Sequence[Symbols]) -> None:
        self.prior, self.known = prior, known
        self.codes = codes
        self.last = np.full(len(codes), prior.class_count, np.intp)
        self.before = self.last.copy()

    @property
    def steps(self) -> Iterator[Step]:
        return in_time(self.prior.plane, [len(region) for region in self.codes])

    def models(self, step: Step) -> Iterator[Categorical]:
        tables, prior, t = self.prior.frequencies, self.prior, step.number
        if t:
            self.before = self.last
            newest = [region[min(t, len(region)) - 1] for region in self.codes]
            self.last = prior.classes[newest].astype(np.intp)
        rows = self.last * (prior.class_count + 1) + self.before
        if prior.above is not None:
            parts = zip(self.known, self.codes, strict=True)
            rows += np.array(
                [prior._above_rows(s, np.array(t)) if t < len(c) else 0 for s, c in parts], np.intp
            )
        none = Categorical(tables[:0])
        return (
            Categorical(tables[row : row + 1]) if t < len(region) else none
            for row, region in zip(rows, self.codes, strict=True)
        )


def finer(shape: tuple[int, ...], coarse: tuple[int, ...]) -> int:
    """Return the codes along each axis under one code of the plane above: 1 or FINER."""
    return 1 if shape == coarse else FINER


def counts_given(
    regions: Iterable[tuple[Codes, Codes]],
    classes: NDArray[np.uint8],
    class_count: int,
    above: NDArray[np.uint8],
    above_count: int,
) -> NDArray[np.int64]:
    """Count codes by context, that of a coarser plane included.

    Args:
        regions: codes int32 [h, w], and those of the coarser plane, [ceil(h / 2), ceil(w / 2)]; or [T] both.
        classes: uint8 [K].
        class_count: C.
        above: classes of the codes of the coarser plane.
        above_count: A.

    Returns:
        int64 [A, C+1, C+1, K].
    """
    cells = (class_count + 1) ** 2
    counted = np.zeros(above_count * cells * len(classes), np.int64)
    for region, coarse in regions:
        scale = finer(region.shape, coarse.shape)
        nearest = np.ix_(*(np.arange(side) // scale for side in region.shape))
        rows = above[coarse][nearest].astype(np.intp) * cells + _contexts(region, classes, class_count)
        counted += np.bincount((rows * len(classes) + region).ravel(), minlength=counted.size)
    return counted.reshape(above_count, class_count + 1, class_count + 1, len(classes))


def counts(codes: Iterable[Codes], classes: NDArray[np.uint8], class_count: int) -> NDArray[np.int64]:
    """Count codes by context.

    Args:
        codes: int32 [h, w] or [T] each, coded as one region each.
        classes: uint8 [K].
        class_count: C.

    Returns:
        int64 [C+1, C+1, K] by the classes of both neighbours, and code; counts of several calls can be added.
    """
    alphabet = len(classes)
    counted = np.zeros((class_count + 1) ** 2 * alphabet, np.int64)
    for region in codes:
        cell = _contexts(region, classes, class_count) * alphabet + region
        counted += np.bincount(cell.ravel(), minlength=counted.size)
    return counted.reshape(class_count + 1, class_count + 1, alphabet)


def fit(counted: NDArray[np.int64], weight: float = 64.0) -> NDArray[np.uint16]:
    """Estimate tables from counts.

    Each table is smoothed by `weight` pseudo-counts from the order-0 distribution, which itself has half a
    pseudo-count per code. Its shares of TABLE_TOTAL are rounded by largest remainder, to at least one each.

    Args:
        counted: int64 [C+1, C+1, K], or [A, C+1, C+1, K].
        weight: pseudo-counts; more of them smooth the tables more.

    Returns:
        uint16 of the same shape, frequencies less one.
    """
    order0 = counted.reshape(-1, counted.shape[-1]).sum(0) + 0.5
    order0 /= order0.sum()
    share = counted + weight * order0
    share /= share.sum(axis=-1, keepdims=True)

    # Raising some codes to one makes the others smaller, perhaps below one too: repeat until none is.
    floored = np.zeros(share.shape, bool)
    while True:
        room = TABLE_TOTAL - floored.sum(axis=-1, keepdims=True)
        rest = np.where(floored, 0.0, share)
        wanted = np.where(floored, 1.0, rest * (room / rest.sum(axis=-1, keepdims=True)))
        if not (wanted < 1.0).any():
            break
        floored |= wanted < 1.0

    whole = np.floor(wanted).astype(np.int64)
    missing = TABLE_TOTAL - whole.sum(axis=-1, keepdims=True)
    order = np.argsort(whole - wanted, axis=-1, kind="stable")
    np.put_along_axis(
        whole, order, np.take_along_axis(whole, order, -1) + (np.arange(whole.shape[-1]) < missing), -1
    )
    return (whole - 1).astype(np.uint16)


def _diagonal(shape: tuple[int, ...], step: int) -> Positions:
    height, width = shape
    rows = np.arange(max(0, step - width + 1), min(height, step + 1), dtype=np.intp)
    return rows, step - rows


def _contexts(codes: Codes, classes: NDArray[np.uint8], class_count: int) -> NDArray[np.intp]:
    """Return the row of the tables for every code of a region: intp, of its shape."""
    if codes.ndim == 1:
        padded = np.full(len(codes) + 2, class_count, np.intp)
        padded[2:] = classes[codes]
        return padded[1:-1] * (class_count + 1) + padded[:-2]
    padded = np.full((codes.shape[0] + 1, codes.shape[1] + 1), class_count, np.intp)
    padded[1:, 1:] = classes[codes]
    return padded[1:, :-1] * (class_count + 1) + padded[:-1, 1:]
