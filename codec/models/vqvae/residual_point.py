"""Operating points of `residual`: a number of levels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from torch import Tensor

from ...bitstream.container import LEARNED
from ...bitstream.quality import quality_of
from ...priors.chain import ChainPrior
from ..base import OperatingPoint, Plane, Progress
from . import audio, search_audio
from .lapped import HOP, MISSING, NAMES, PARTS

if TYPE_CHECKING:
    from .residual import ResidualAudioVQVAE


@dataclass(frozen=True)
class ResidualPoint(OperatingPoint):
    """The first 1 to LEVELS levels."""

    model: ResidualAudioVQVAE

    @property
    def levels(self) -> int:
        """Number of levels."""
        return int(quality_of(self.index))

    @property
    def planes(self) -> tuple[Plane, ...]:
        """A plane for each level."""
        codes = self.model.config.codes
        return tuple(Plane(name, HOP, alphabet=codes, missing=MISSING) for name in NAMES[: self.levels])

    @property
    def stride(self) -> int:
        """Samples of a block, as in `OperatingPoint.stride`; of level 1 alone too, a prefix of others."""
        return PARTS * HOP

    @property
    def halo(self) -> int:
        """Blocks around a block on which its samples depend: decoder, transform."""
        later = 2 * PARTS if self.levels > 1 else 0
        return -(-(self._decoder_halo + later) // PARTS)

    @property
    def analysis_halo(self) -> int:
        """Blocks around a block on which its codes depend: of later levels through the decoder."""
        later = self._decoder_halo + 2 * PARTS if self.levels > 1 else 0
        return -(-(self.model.first.halo + later) // PARTS)

    @property
    def _decoder_halo(self) -> int:
        """Codes around one on which its samples depend by the decoder of level 1."""
        return 3 * (self.model.config.decoder_blocks + 1) + audio.WINDOW_HOPS // 2

    @cached_property
    def _bits(self) -> Callable[[Tensor], Tensor] | None:
        """Bits of codes of level 1, for a search."""
        chain = self.model.priors.get(LEARNED)
        learned = chain.by_plane[NAMES[0]] if isinstance(chain, ChainPrior) else None
        return search_audio.bits_of(learned, self.model.codebook(NAMES[0]))

    def analyse(self, samples: Tensor) -> dict[str, Tensor]:
        """Map samples to the nearest codes, as in `OperatingPoint.analyse`; a search chooses level 1's."""
        model = self.model
        if model.first.searches(self.effort):
            codes = search_audio.find_codes(model.first, samples, self.effort, self._bits)
        else:
            codes = model.first.quantizer.encode(model.first.latents(samples))
        if self.levels == 1:
            return {NAMES[0]: codes}
        found = model.quantise(model.rest(samples, model.decode_first(codes)), self.levels)
        return dict(zip(NAMES, [codes, *found.codes], strict=False))

    def synthesise(
        self, symbols: dict[str, Tensor], seed: int = 0, progress: Progress | None = None
    ) -> Tensor:
        """Map codes to the mean of the likelihood, as in `OperatingPoint.synthesise`."""
        del seed, progress
        return self.model.synthesise([symbols[plane.name] for plane in self.planes])
