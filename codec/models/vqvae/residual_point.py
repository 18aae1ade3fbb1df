"""Operating points of `residual`: a number of levels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from ...bitstream.container import LEARNED
from ...bitstream.quality import quality_of
from ...priors.chain import ChainPrior
from ..base import OperatingPoint, Plane, Progress
from . import audio, search_audio

if TYPE_CHECKING:
    from .residual import ResidualAudioVQVAE

HOP = 64
"""Samples per code of each level."""

LEVELS = 4
"""Number of levels: the odd ones quantise latents, the even ones a spectral envelope."""

NAMES = tuple(f"level{number}" for number in range(1, LEVELS + 1))
"""Planes, in the order of coding."""

PARTS = 4
"""Codes of an envelope: one for each quarter of its bands."""

MISSING = -1
"""In place of a code that is not known: its vector is zero."""

CONTEXT = 64
"""Codes to each side on which bits depend that n-gram priors of the default settings give, at most."""


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
        """Blocks around a block on which its samples depend: decoder, envelope."""
        return -(-(self._decoder_halo + self._envelope_halo) // PARTS)

    @property
    def analysis_halo(self) -> int:
        """Blocks around a block on which its codes depend: a search decodes, and so do levels 2 and on."""
        searching = search_audio.STEPS[self.effort] > 0
        decoding = self._decoder_halo if searching or self.levels > 1 else 0
        latents = self.model.first.halo * (2 if searching else 1) + CONTEXT
        return -(-(latents + decoding + self._envelope_halo) // PARTS)

    @property
    def _decoder_halo(self) -> int:
        """Codes around one on which its samples depend by the decoder."""
        return 3 * (self.model.config.decoder_blocks + 1) + audio.WINDOW_HOPS // 2

    @property
    def _envelope_halo(self) -> int:
        """Codes on which samples, or codes, depend more by envelopes and filters."""
        return 2 * PARTS if self.levels > 1 else 0

    def analyse(self, samples: Tensor) -> dict[str, Tensor]:
        """Map samples to codes, as in `OperatingPoint.analyse`: level by level, the nearest or searched."""
        model, shape = self.model, self.model.envelope.shape
        latents = model.first.latents(samples)
        codes = {NAMES[0]: self._first(samples, latents)}
        if self.levels == 1:
            return codes

        def vectors_of(rest: Tensor, decode: Callable[[Tensor], Tensor]) -> Tensor:
            level = len(codes)
            codes[NAMES[level]] = self._next(samples, rest, codes, decode)
            return model.vectors(level, codes[NAMES[level]])

        base, wanted = model.vectors(0, codes[NAMES[0]]), model.envelope(samples)
        decoded = model.reconstruct(base)
        coarse = model.envelope(decoded)
        envelope = coarse + vectors_of(wanted - coarse, lambda e: shape(decoded, coarse + e))
        if self.levels > 2:
            finer = base + vectors_of(latents - base, lambda q: shape(model.reconstruct(base + q), envelope))
        if self.levels > 3:
            decoded = model.reconstruct(finer)
            vectors_of(wanted - envelope, lambda e: shape(decoded, envelope + e))
        return codes

    def _first(self, samples: Tensor, latents: Tensor) -> Tensor:
        """Codes of level 1."""
        chain = self.model.priors.get(LEARNED)
        learned = chain.by_plane[NAMES[0]] if isinstance(chain, ChainPrior) else None
        bits = search_audio.bits_of(learned, self.model.codebook(NAMES[0]))
        return search_audio.find_codes(self.model.first, samples, self.effort, bits, latents)

    def _next(
        self,
        samples: Tensor,
        rest: Tensor,
        before: dict[str, Tensor],
        decode: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """Codes of the level after some, with effort also by their bits; `decode` is of its vectors."""
        model, level = self.model, len(before)
        name, chain = NAMES[level], model.priors.get(LEARNED)
        known = search_audio.bits_given(chain.by_plane[name]) if isinstance(chain, ChainPrior) else None
        bits = None if known is None else lambda codes: known({**before, name: codes})
        searching, of = search_audio.searches(samples, self.effort), search_audio.Codebook.of
        codebooks = [of(quantizer, searching=searching) for quantizer in model.quantizers_of(level)]
        choose = search_audio.cheapest(codebooks, bits)
        if not searching:
            nearest = choose(rest, None, 0)
            return choose(rest, nearest, 1) if self.effort and bits else nearest
        return search_audio.descend(
            rest,
            lambda targets: targets,
            choose,
            lambda codes: model.vectors(level, codes),
            lambda vectors: model.first.spectral_distance(decode(vectors), samples),
            search_audio.STEPS[self.effort],
            search_audio.size_of(codebooks),
        )

    def synthesise(
        self, symbols: dict[str, Tensor], seed: int = 0, progress: Progress | None = None
    ) -> Tensor:
        """Map codes to the mean of the likelihood, as in `OperatingPoint.synthesise`."""
        del seed, progress
        return self.model.synthesise([symbols[plane.name] for plane in self.planes])
