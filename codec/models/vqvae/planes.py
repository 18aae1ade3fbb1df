"""Models with several planes of codebook indices: their priors are chains, a link for each plane."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...bitstream.container import LEARNED, STATIC
from ...errors import ModelError
from ...priors import PREFIX, PRIORS, static
from ...priors.base import PlanePrior, Prior, Symbols
from ...priors.chain import ChainPrior, of_plane
from ...priors.settings import Config
from ...priors.static import StaticPrior
from ..base import Card, Model
from .method import TABLE_CLASSES, classes_of


class PlanesOfCodes(Model):
    """Priors of a model whose planes are all indices, each of the stride of the plane before, or of half."""

    table_classes: ClassVar[tuple[int, int, int]] = (TABLE_CLASSES, 8, 16)
    """Classes of codes in the tables: of the first plane's, of the others' (they are counted for each class
    of the code above), and of the codes above."""

    def codebook(self, plane: str) -> Tensor:
        """As in `Model.codebook`."""
        raise NotImplementedError

    @property
    def plane_names(self) -> list[str]:
        """Coarse planes first."""
        return [plane.name for plane in self.at(self.validation_points[-1]).planes]

    @classmethod
    def trains_prior_next(cls, config: Config) -> bool:
        """As in `Model.trains_prior_next`."""
        del config
        return True

    def decodes(self, other: Model) -> bool:
        """Whether another model has the same codebooks."""
        return (
            isinstance(other, PlanesOfCodes)
            and other.plane_names == self.plane_names
            and all(torch.equal(other.codebook(name), self.codebook(name)) for name in self.plane_names)
        )

    def priors_from(self, card: Card, tensors: Mapping[str, NDArray[np.generic]]) -> Mapping[int, Prior]:
        """As in `Model.priors_from`: static tables, and where the card tells of them learned links."""
        names = self.plane_names
        if f"prior.{names[0]}.tables" not in tensors:
            return {}
        links: list[PlanePrior] = []
        for name, above in zip(names, ["", *names], strict=False):
            table = StaticPrior.from_tensors(of_plane(tensors, "prior", name), name, above)
            if table.alphabet_size != len(self.codebook(name)):
                raise ValueError(f"tables for {table.alphabet_size} codes")
            links.append(table)
        static_chain = ChainPrior(tuple(links))
        if card.learned is None:
            return {STATIC: static_chain}
        chain = static_chain
        for name, entry in card.learned["planes"].items():
            method = entry["method"]
            if method not in PRIORS or PRIORS[method].medium != self.medium:
                raise ModelError(f"a prior of method {method} for {self.medium}, unknown here", "upgrade")
            arrays = of_plane(tensors, PREFIX.rstrip("."), name)
            learned = PRIORS[method].prior({n.removeprefix(PREFIX): array for n, array in arrays.items()})
            if learned.alphabet_size != len(self.codebook(name)):
                raise ValueError("another prior")
            chain = chain.with_link(replace(learned, plane=name))
        if chain.fingerprint.hex() != card.learned["fingerprint"]:
            raise ValueError("another prior")
        return {STATIC: static_chain, LEARNED: chain}

    def keep_prior(self, other: Model) -> Self:
        """As in `Trainable.keep_prior`: the links fit the codes before, and a training goes on from them."""
        learned = other.priors.get(LEARNED)
        if type(other) is not type(self) or not isinstance(learned, ChainPrior):
            return self
        planes = (other.card.learned or {})["planes"]
        kept = {name: {k: v for k, v in entry.items() if k != "measured"} for name, entry in planes.items()}
        card = replace(other.card, learned={"planes": kept, "fingerprint": learned.fingerprint.hex()})
        return self.equipped(card, other.priors)

    def with_prior(self, plane: str, prior: PlanePrior) -> Self:
        """As in `Model.with_prior`: planes without a learned prior have their tables."""
        chain = self.priors.get(LEARNED, self.priors.get(STATIC))
        if not isinstance(chain, ChainPrior):
            raise ModelError("a model without static tables", "train the codec to its end")
        return self.equipped(priors={**self.priors, LEARNED: chain.with_link(prior)})

    def fit_tables(self, regions: Iterable[Symbols], seed: int) -> Self:
        """As in `Model.fit_tables`: by both neighbours, and of finer planes also by the code above."""
        names, (first, fine, coarse) = self.plane_names, self.table_classes
        own = [first, *[fine] * (len(names) - 1)]
        classes = [classes_of(self.codebook(n), c, seed) for n, c in zip(names, own, strict=True)]
        above = [classes_of(self.codebook(name), coarse, seed) for name in names[:-1]]
        counted: list[NDArray[np.int64]] = []
        for region in regions:
            more = [static.counts([region[names[0]]], classes[0], int(classes[0].max()) + 1)]
            for finer, coarser, ours, theirs in zip(names[1:], names, classes[1:], above, strict=False):
                pair = [(region[finer], region[coarser])]
                sizes = int(ours.max()) + 1, int(theirs.max()) + 1
                more.append(static.counts_given(pair, ours, sizes[0], theirs, sizes[1]))
            counted = [a + b for a, b in zip(counted, more, strict=True)] if counted else more
        tables = [static.fit(counts) for counts in counted]
        links = [StaticPrior(tables[0], classes[0], names[0])]
        rest = zip(tables[1:], classes[1:], names[1:], above, names, strict=False)
        links += [StaticPrior(*parts) for parts in rest]
        chain = ChainPrior(tuple(links))
        priors: dict[int, Prior] = {STATIC: chain}
        if isinstance(learned := self.priors.get(LEARNED), ChainPrior):
            for link in learned.links:  # planes without a learned link have the new tables
                chain = chain if isinstance(link, StaticPrior) else chain.with_link(link)
            priors[LEARNED] = chain
        return self.equipped(priors=priors)
