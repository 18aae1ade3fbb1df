"""Operating points of `hierarchical`: the top alone, or both levels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ...bitstream.container import STATIC
from ...bitstream.quality import DEFAULT_QUALITY, index_of
from ...priors.base import Step
from ...priors.chain import ChainPrior
from ..base import OperatingPoint, Plane, Progress
from .rates import REACH
from .search_image import ROUNDS, Rates

if TYPE_CHECKING:
    from .hierarchical import HierarchicalVQVAE

STRIDES = {"top": 8, "bottom": 4}
"""Plane -> pixels per code along each axis, in the order of coding."""

BOTH = index_of(DEFAULT_QUALITY)
"""Quality index of both levels."""

MISSING = -1
"""In place of a code that is not known: its vector is zero."""

PREVIEW = 8
"""Side of the blocks of pixels that a pixel of a preview stands for."""


@dataclass(frozen=True)
class HierarchicalPoint(OperatingPoint):
    """The top alone (index 0), or both levels."""

    model: HierarchicalVQVAE

    @property
    def top_alone(self) -> bool:
        """Whether the bottom is left out."""
        return self.index == 0

    @property
    def planes(self) -> tuple[Plane, ...]:
        """Top, bottom."""
        codes = self.model.config.codes
        planes = (Plane(name, stride, alphabet=codes, missing=MISSING) for name, stride in STRIDES.items())
        return tuple(planes)[: 1 if self.top_alone else 2]

    @property
    def halo(self) -> int:
        """As in `OperatingPoint.halo`: the top decoder, and the decoder at a quarter of the size."""
        config = self.model.config
        return config.encoder_blocks + 1 + -(-(config.decoder_blocks + 3) // 2)

    @property
    def analysis_halo(self) -> int:
        """As in `OperatingPoint.analysis_halo`: encoders, top decoder, and the search or the rate network.

        Of a search this is what matters: each turn reaches a little farther.
        """
        blocks = self.model.config.encoder_blocks
        rates = 0 if self.top_alone or self.model.rate_network is None else -(-REACH // 2)
        return 2 * blocks + 4 + -(-(blocks + 3) // 2) + rates + (self.halo if self._turns else 0)

    @property
    def _turns(self) -> int:
        """Of a search, whose candidates are those of the linear start."""
        searches = self.top_alone or self.model.rate_network is not None
        return ROUNDS[self.effort] if searches and self.model.config.linear_start else 0

    @cached_property
    def _rates(self) -> Rates | None:
        """Of the top, by its static table."""
        chain = self.model.priors.get(STATIC)
        table = chain.by_plane["top"] if isinstance(chain, ChainPrior) else None
        return Rates.of(table, self.device)

    def analyse(self, samples: Tensor) -> dict[str, Tensor]:
        """As in `OperatingPoint.analyse`: the codes of the encoder, or of a search."""
        network = self.model.rate_network
        if self._turns and not self.top_alone and network is not None:
            return self.model.search_bottom(samples, self.effort, network)
        if self._turns:
            return {"top": self.model.search(samples, self.effort, self._rates)}
        return {name: level.codes for name, level in self.model.encode(samples, self.top_alone).items()}

    def synthesise(
        self, symbols: dict[str, Tensor], seed: int = 0, progress: Progress | None = None
    ) -> Tensor:
        """As in `OperatingPoint.synthesise`: the mean."""
        del seed, progress
        return self.model.synthesise({plane.name: symbols[plane.name] for plane in self.planes})

    def in_preview(self, step: Step) -> bool:
        """As in `OperatingPoint.in_preview`: the top."""
        return step.plane == "top"

    def preview(self, symbols: dict[str, Tensor]) -> Tensor:
        """As in `OperatingPoint.preview`: the picture of the top alone, reduced."""
        return F.avg_pool2d(self.model.synthesise({"top": symbols["top"]}), PREVIEW)
