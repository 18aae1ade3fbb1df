"""One prior per plane, one after the other: p(top) p(bottom | top).

A scan walks through the first plane to its end, then through the second, which may look at all of the first.
So every region is one stream of the range coder, coarse planes first, and what needs the coarse planes alone
reads a part of it. Planes that are not coded at a rate are passed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Self

import torch

from .base import Array, Categorical, Codes, EntropyModel, PlanePrior, Prior, Scan, Step, Symbols
from .learned import PREFIX, LearnedPrior, fingerprint


@dataclass(frozen=True, eq=False)
class ChainPrior(Prior):
    """p(first plane) p(second plane | first plane) ...

    Attributes:
        links: a prior for each plane, coarse planes first.
    """

    links: tuple[PlanePrior, ...]

    @property
    def by_plane(self) -> dict[str, PlanePrior]:
        """Plane -> its prior."""
        return {link.plane: link for link in self.links}

    @cached_property
    def fingerprint(self) -> bytes:
        """4 bytes of the SHA-256 over the integers of all learned links, by their names in the weights."""
        learned = {n.removeprefix(PREFIX): a for n, a in self.to_tensors().items() if n.startswith(PREFIX)}
        return fingerprint(learned)

    @property
    def prior_id(self) -> bytes:
        """As in `Prior.prior_id`: 2 bytes of the fingerprint, where a link is learned."""
        return self.fingerprint[:2] if any(link.prior_id for link in self.links) else b""

    def scan(self, known: Sequence[Symbols], index: int) -> Scan:
        """As in `Prior.scan`: the walks of the links whose planes are coded."""
        coded = known[0].keys() if known else ()
        return _ChainScan([link for link in self.links if link.plane in coded], known, index)

    def in_parallel(self, symbols: Symbols) -> Iterator[tuple[Codes, Categorical]] | None:
        """Compute plane after plane, as in `Prior.in_parallel`, where every prior can."""
        parts = [link.in_parallel(symbols) for link in self.links if link.plane in symbols]
        known = [part for part in parts if part is not None]
        return chain.from_iterable(known) if len(known) == len(parts) else None

    def to_tensors(self) -> dict[str, Array]:
        """As in `Prior.to_tensors`: the plane stands behind the first word of each name."""
        tensors = {}
        for link in self.links:
            for name, array in link.to_tensors().items():
                kind, _, rest = name.partition(".")
                tensors[f"{kind}.{link.plane}.{rest}"] = array
        return tensors

    def estimate_bits(self, symbols: Symbols) -> float | None:
        """As in `Prior.estimate_bits`: the sum over the planes, where all are known."""
        parts = [link.estimate_bits(symbols) for link in self.links if link.plane in symbols]
        known = [part for part in parts if part is not None]
        return sum(known) if len(known) == len(parts) else None

    def batches(self, shapes: Sequence[tuple[int, ...]]) -> list[list[int]]:
        """As in `Prior.batches`: those of the link that has the most."""
        return max((link.batches(shapes) for link in self.links), key=len)

    def reshaped(self, temperature: float, top_k: int | None, plane: str | None = None) -> Self:
        """As in `Prior.reshaped`: of one plane, or of all."""
        links = tuple(
            link.reshaped(temperature, top_k) if plane in (None, link.plane) else link for link in self.links
        )
        return replace(self, links=links)

    def with_dtype(self, dtype: torch.dtype) -> Self:
        """The same links computed in another dtype; tables have none."""
        typed = (link.with_dtype(dtype) if isinstance(link, LearnedPrior) else link for link in self.links)
        return replace(self, links=tuple(typed))

    def with_link(self, link: PlanePrior) -> Self:
        """The same chain with another prior for one plane."""
        return replace(self, links=tuple(link if old.plane == link.plane else old for old in self.links))


def of_plane(tensors: Mapping[str, Array], kind: str, plane: str) -> dict[str, Array]:
    """Undo the names of `ChainPrior.to_tensors`.

    Args:
        tensors: of a weights file.
        kind: the first word of the names, "prior" or "learned".
        plane: whose they are.

    Returns:
        Tensors by the names that they have without a chain, the first word included.
    """
    prefix = f"{kind}.{plane}."
    return {f"{kind}.{n.removeprefix(prefix)}": array for n, array in tensors.items() if n.startswith(prefix)}


class _ChainScan:
    """The walks of the links one after the other, their steps numbered through."""

    def __init__(self, links: Sequence[PlanePrior], known: Sequence[Symbols], index: int) -> None:
        self.links, self.known, self.index = links, known, index
        self._scan: Scan | None = None
        self._step: Step | None = None

    @property
    def steps(self) -> Iterator[Step]:
        number = 0
        for link in self.links:
            # Begun only now: the planes before are complete.
            self._scan = link.scan(self.known, self.index)
            for step in self._scan.steps:
                self._step = step
                yield replace(step, number=number)
                number += 1

    def models(self, step: Step) -> Iterable[EntropyModel]:
        if self._scan is None or self._step is None or self._step.positions is not step.positions:
            raise RuntimeError("models are asked for once per step, in order")
        return self._scan.models(self._step)
