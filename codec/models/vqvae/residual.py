"""VQ-VAE for audio with residual levels: a rate for every number of levels, one decoder for all of them.

    x --level 1: `audio`--> codes --its decoder--> x_1
    x - x_1 --MDCT, over the envelope of x_1--> c;   c --level 2--> q_2;   c - q_2 --level 3--> q_3;   ...
    x_1 + inverse MDCT of the envelope times q_2 + .. + q_n = mean of p(x | codes of levels 1 to n)

(Residual vector quantisation: Zeghidour et al. 2021, "SoundStream", section III.C. A codec of the waveform
that another one leaves: Zhen et al. 2019, "Cascaded Cross-Module Residual Learning".) For example:
x [1, 1, 16000] -> codes [1, 250] of K = 512 for each level, 2.25 kbit/s each before entropy coding.

Level 1 is an `AudioVQVAE` whose weights stay as they are: its codes, their prior and other decoders of them
remain. What its spectra leave out is the waveform, which the ear follows at low frequencies: the later levels
code that, 4 vectors for the 4 bands of a block of 256 samples. Training draws the number of levels anew for
each example (quantizer dropout, the same section), so that any first levels are a codec of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar, NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ...bitstream.container import LEARNED, STATIC
from ...bitstream.quality import LAST_INDEX, index_of, quality_of
from ...errors import UsageError
from ...priors import static
from ...priors.chain import ChainPrior
from ...priors.learned import LearnedPrior
from ...priors.settings import setting
from ...priors.static import StaticPrior
from .. import losses
from ..base import LossStep, Model
from ..quantizers import VectorQuantizer, kmeans, nearest
from . import audio
from .lapped import BANDS, HOP, LEVELS, NAMES, PARTS, QUIET, LappedTransform
from .planes import PlanesOfCodes
from .residual_point import ResidualPoint

START_BATCHES = 24
"""Batches of 16 examples of which codebooks are initialised."""


@dataclass(frozen=True)
class Config(audio.Config):
    """Settings of residual levels; the others are those of `audio.Config`, of level 1.

    Attributes:
        commitment: weight of the share of the energy of c that the levels leave, in their mean.
    """

    encoder_blocks: int = setting(6, low=0, high=12)
    decoder_width: int = setting(256, low=1, high=1 << 14)
    decoder_hidden: int = setting(512, low=1, high=1 << 14)
    frozen: bool = setting(True, training_only=True, fixed_on_resume=True)


class Levels(NamedTuple):
    """The later levels of a batch.

    Attributes:
        rests: what each level quantises, [B, M, T / PARTS], M coefficients.
        codes: int64 [B, T] each.
        vectors: of the codes, [B, M, T / PARTS] each.
    """

    rests: list[Tensor]
    codes: list[Tensor]
    vectors: list[Tensor]


class ResidualAudioVQVAE(PlanesOfCodes):
    """VQ-VAE of audio with residual levels.

    Samples are float32 [B, 1, N] in -1..1, `rate` in hertz, N a multiple of `stride`; codes of each level
    int64 [B, N / 64] in 0..K-1.
    """

    method = "RVQ-VAE"
    medium = "audio"
    channels, axes = 1, 1
    rate = audio.AudioVQVAE.rate
    stride = PARTS * HOP
    points = LAST_INDEX + 1
    validation_points = tuple(index_of(level) for level in range(1, LEVELS + 1))
    prior_methods: ClassVar[Mapping[str, str]] = MappingProxyType(
        {NAMES[0]: "wavenet", **dict.fromkeys(NAMES[1:], "conditional-ngram")}
    )
    table_classes = 16, 4, 4
    decoding = ("first.decoder.", "first.quantizer.codebook", "quantizers.")
    networks = ("first.encoder.", "first.decoder.")
    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.first = audio.AudioVQVAE(config).requires_grad_(False)
        self.transform = LappedTransform(self.stride, max(ends[-1] for ends in BANDS))
        self.quantizers = nn.ModuleList(
            VectorQuantizer(
                config.codes,
                high - low,
                moving_average=False,
                decay=config.decay,
                restart_below=config.restart_below,
            )
            for ends in BANDS
            for low, high in zip(ends, ends[1:], strict=False)
        )

    @classmethod
    def can_start_as(cls, other: type[Model]) -> bool:
        """Return whether weights of another class begin a training, as in `Model.can_start_as`."""
        return issubclass(other, audio.AudioVQVAE) or super().can_start_as(other)

    @classmethod
    def trains_prior_next(cls, config: object) -> bool:
        """Return no: the prior of level 1 is that of its codes, as in `Model.trains_prior_next`."""
        del config
        return False

    def codebook(self, plane: str) -> Tensor:
        """Return the vectors of a level's codes, as in `Model.codebook`: of later ones those of all bands."""
        level = NAMES.index(plane)
        if not level:
            return self.first.quantizer.codebook.detach()
        return torch.cat([quantizer.codebook.detach() for quantizer in self._quantizers(level)], 1)

    def at(self, index: int, effort: int = 1) -> ResidualPoint:
        """Return the point of as many levels as the quality says, rounded down: 4 at qualities 4 to 5."""
        return ResidualPoint(self, index_of(min(int(quality_of(index)), LEVELS)), effort)

    def keep_prior(self, other: Model) -> Self:
        """Return the model with the priors of the weights that a training starts from.

        Those of an `AudioVQVAE` have a prior of level 1.
        """
        learned, entry = other.priors.get(LEARNED), other.card.learned
        if not isinstance(other, audio.AudioVQVAE) or not isinstance(learned, LearnedPrior) or entry is None:
            return super().keep_prior(other)
        # Until tables are fitted, all codes are equally likely.
        even, none = static.fit(np.zeros((1, 2, 2, self.config.codes), np.int64)), np.zeros(self.config.codes)
        classes = none.astype(np.uint8)
        links = [StaticPrior(even[0], classes, NAMES[0])]
        links += [
            StaticPrior(even, classes, name, classes, before)
            for before, name in zip(NAMES, NAMES[1:], strict=False)
        ]
        tables = ChainPrior(tuple(links))
        chain = tables.with_link(replace(learned, plane=NAMES[0]))
        kept = {key: value for key, value in entry.items() if key not in ("measured", "fingerprint")}
        card = replace(
            other.card, learned={"planes": {NAMES[0]: kept}, "fingerprint": chain.fingerprint.hex()}
        )
        return self.equipped(card, {STATIC: tables, LEARNED: chain})

    def _quantizers(self, level: int) -> list[VectorQuantizer]:
        """Return the quantizers of the bands of a later level."""
        return self._all_quantizers[(level - 1) * PARTS : level * PARTS]

    @property
    def _all_quantizers(self) -> list[VectorQuantizer]:
        return [found for found in self.quantizers if isinstance(found, VectorQuantizer)]

    # x -> levels -> x

    def quantise(self, rest: Tensor, count: int = LEVELS) -> Levels:
        """Quantise the coefficients that level 1 leaves, over its envelope, by levels 2 to `count`."""
        found = Levels([], [], [])
        for level in range(1, count):
            bands = zip(BANDS[level - 1], BANDS[level - 1][1:], self._quantizers(level), strict=False)
            codes = torch.stack([q.encode(rest[:, low:high]) for low, high, q in bands], 2)
            found.rests.append(rest)
            found.codes.append(codes.flatten(1))
            found.vectors.append(self._vectors(level, found.codes[-1]))
            rest = rest - found.vectors[-1].detach()
        return found

    def _vectors(self, level: int, codes: Tensor) -> Tensor:
        """Look codes of a later level up, see MISSING: [B, T] -> [B, M, T / PARTS]."""
        by_band = codes.view(len(codes), -1, PARTS).unbind(2)
        pairs = zip(by_band, self._quantizers(level), strict=True)
        parts = [q.decode(band.clamp(min=0)) * (band >= 0)[:, None] for band, q in pairs]
        vectors = torch.cat(parts, 1)
        return F.pad(vectors, (0, 0, 0, len(self.transform.basis) - vectors.shape[1]))

    def decode_first(self, codes: Tensor) -> Tensor:
        """Decode level 1 alone: [B, T] -> [B, 1, 64 T]; see MISSING."""
        vectors = self.first.quantizer.decode(codes.clamp(min=0)) * (codes >= 0)[:, None]
        return self.first.reconstruct(vectors).float()

    def synthesise(self, codes: Sequence[Tensor]) -> Tensor:
        """Decode the first levels, [B, T] each: the mean of p(x | their codes)."""
        decoded = self.decode_first(codes[0].long())
        later = [self._vectors(level, found.long()) for level, found in enumerate(codes[1:], 1)]
        return self._with(decoded, torch.stack(later).sum(0)) if later else decoded

    def _with(self, first: Tensor, vectors: Tensor) -> Tensor:
        """Add the waveform of vectors to level 1."""
        return first + self.transform.inverse(vectors * self.transform.envelope(first))

    def rest(self, samples: Tensor, first: Tensor) -> Tensor:
        """Return the coefficients that level 1 leaves, over its envelope."""
        coefficients: Tensor = self.transform(samples - first)
        return coefficients / self.transform.envelope(first)

    # training

    def loss(self, samples: Tensor) -> LossStep:
        """Compute the distances of spectra with 2 to LEVELS levels, each for the same share of a batch."""
        count, device = len(samples), samples.device
        with torch.no_grad():
            codes = self.first.quantizer.encode(self.first.latents(samples))
            first = self.decode_first(codes)
            rest = self.rest(samples, first)
        found = self.quantise(rest)
        stratum = (torch.arange(count, device=device) + torch.rand(count, device=device)) / count
        depth = 1 + torch.floor(stratum * (LEVELS - 1))[:, None, None]
        total = torch.stack([v * (depth > n) for n, v in enumerate(found.vectors)]).sum(0)
        terms = losses.spectral(self._with(first, total), samples, self.rate)
        loss = self.first.weighted(terms)
        pairs = zip(found.rests, found.vectors, strict=True)
        left = torch.stack([losses.codebook(wanted, vectors) for wanted, vectors in pairs]).mean()
        terms["left"] = left / (rest.square().mean() + QUIET)
        kept = dict(zip(NAMES[1:], found.rests, strict=True))
        symbols = dict(zip(NAMES, [codes, *found.codes], strict=True))
        return LossStep(loss + self.config.commitment * terms["left"], terms, symbols, kept)

    def update(self, step: LossStep, progress: float, generator: torch.Generator) -> dict[str, int]:
        """Update the codebooks of the later levels, as in `Trainable.update`."""
        restart = self.config.restart_below > 0 and progress < self.config.restart_until
        moved = 0
        for level, name in enumerate(NAMES[1:], 1):
            by_band = step.symbols[name].view(len(step.symbols[name]), -1, PARTS).unbind(2)
            ends = BANDS[level - 1]
            for low, high, codes, quantizer in zip(
                ends, ends[1:], by_band, self._quantizers(level), strict=False
            ):
                moved += quantizer.update(step.kept[name][:, low:high], codes, restart, generator)
        return {"restarted": moved}

    def log_figures(self, terms: Mapping[str, float]) -> dict[str, float]:
        """Return the log-mel distance, as in `Trainable.log_figures`."""
        return {"log_mel": terms["mel"]}

    @torch.no_grad()
    def load_from(self, other: Model, count: float) -> None:
        """Load the weights of such a model, or level 1 from an `AudioVQVAE`, as in `Trainable.load_from`."""
        if isinstance(other, audio.AudioVQVAE):
            self.first.load_state_dict(other.state_dict())
            for quantizer in self._all_quantizers:
                quantizer.set_codebook(torch.zeros_like(quantizer.codebook))
        else:
            super().load_from(other, count)
        for quantizer in self._all_quantizers:
            quantizer.set_codebook(quantizer.codebook.detach(), count / PARTS / self.config.codes)

    def start(self, draw: Callable[[int], Tensor], generator: torch.Generator) -> None:
        """Refuse to begin without level 1.

        Raises:
            UsageError: always.
        """
        raise UsageError("residual levels begin from weights of level 1", "--from vqvae-audio")

    @torch.no_grad()
    def complete(self, draw: Callable[[int], Tensor], generator: torch.Generator) -> None:
        """Initialise the codebooks of later levels that weights of level 1 do not have."""
        if not self.codebook(NAMES[-1]).any():
            self._start_levels(draw, generator)

    def _start_levels(self, draw: Callable[[int], Tensor], generator: torch.Generator) -> None:
        """Set codebooks by k-means of what is left, level by level, in the order of their lengths.

        So a code's number tells how loud it is, in all bands alike, which contexts of tables rely on.
        """
        batches = (draw(number) for number in range(START_BATCHES))
        firsts = ((x, self.decode_first(self.first.quantizer.encode(self.first.latents(x)))) for x in batches)
        rest = torch.cat([self.rest(x, first).movedim(1, 2).flatten(0, 1) for x, first in firsts])
        for level, ends in enumerate(BANDS, 1):
            for low, high, quantizer in zip(ends, ends[1:], self._quantizers(level), strict=False):
                part = rest[:, low:high].contiguous()
                centres = kmeans(part.cpu(), self.config.codes, generator, rounds=10).to(part.device)
                quantizer.set_codebook(centres[centres.norm(dim=1).argsort()])
                rest[:, low:high] -= quantizer.codebook[nearest(part, quantizer.codebook)]
