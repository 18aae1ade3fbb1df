"""VQ-VAE for audio with residual levels: a rate for every number of levels, one decoder for all of them.

    x --encoder--> z;   z --level 1--> q_1;   decoder(q_1) = y_1
    env(x) - env(y_1) --level 2--> e_2        env: the spectral envelope, logarithms
    z - q_1 --level 3--> q_3
    env(x) - env(y_1) - e_2 --level 4--> e_4
    mean of p(x | codes) = decoder(q_1 + q_3), filtered to the envelope env(y_1) + e_2 + e_4

(Residual vector quantisation: Zeghidour et al. 2021, "SoundStream", section III.C; a separate code of the
spectral envelope: Buzo et al. 1980, "Speech coding based upon vector quantization".) For example:
x [1, 1, 16000] -> codes [1, 250] of K = 512 for each level, 2.25 kbit/s each before entropy coding.

Encoder and level 1 are those of an `AudioVQVAE` and stay as they are: its codes, their prior and other
decoders of them remain. What a decoder of so few codes leaves most is loudness, by 4 dB in each of the 36
bands: an envelope costs 4 codes of 9 bands each for 256 samples. Training draws the number of levels anew for
each example (quantizer dropout, the same section), so that any first levels are a codec of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar, Self

import numpy as np
import torch
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
from ..quantizers import EntropyConstrainedQuantizer, VectorQuantizer, as_vectors
from . import audio
from .discriminator import AudioDiscriminator
from .envelope import SpectralEnvelope
from .planes import PlanesOfCodes
from .residual_point import HOP, LEVELS, NAMES, PARTS, ResidualPoint

START_BATCHES = 32
"""Batches of examples to which codebooks are fitted before a training."""

TRADEOFFS = (0.0, 0.02, 0.068, 0.052)
"""Squared distance that counts as much as a bit, by level, relative to the energy of what it quantises;
level 1 has other codes."""

BANDS = 36
"""Bands of an envelope."""

QUIET = 1e-7
"""Added to the energy of what a level quantises, so that silence has a share."""


@dataclass(frozen=True)
class Config(audio.Config):
    """Settings of residual levels; the others are those of `audio.Config`, of level 1.

    Attributes:
        commitment: weight of the share of the energy of what a level quantises that it leaves.
        judged_levels: least number of levels of the examples that the discriminator judges.
    """

    encoder_blocks: int = setting(6, low=0, high=12)
    decoder_width: int = setting(256, low=1, high=1 << 14)
    decoder_hidden: int = setting(512, low=1, high=1 << 14)
    frozen: bool = setting(True, training_only=True, fixed_on_resume=True)
    judged_levels: int = setting(1, low=1, high=LEVELS, training_only=True)

    def check(self) -> None:
        """Refuse to train level 1, as in `Config.check`."""
        super().check()
        if not self.frozen:
            raise UsageError("frozen is false", "leave it out: encoder and codes of level 1 stay as they are")


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
    decoding = (
        "first.decoder.",
        "first.quantizer.codebook",
        "second.codebook",
        *(f"quantizers.{number}.codebook" for number in range(LEVELS // 2 * PARTS)),
    )
    networks = ("first.encoder.", "first.decoder.")
    config: Config
    discriminator: AudioDiscriminator | None

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.first = audio.AudioVQVAE(replace(config, frozen=True, adversarial=0.0))
        self.discriminator = AudioDiscriminator(config.critics) if config.adversarial else None
        self.second = _quantizer(config, config.code_dim)
        self.envelope = SpectralEnvelope(self.stride, BANDS, self.rate)
        parts = LEVELS // 2 * PARTS
        self.quantizers = nn.ModuleList(_quantizer(config, BANDS // PARTS) for _ in range(parts))

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
        """Return the vectors of a level's codes, as in `Model.codebook`; of an envelope all bands'."""
        books = [found.codebook.detach() for found in self.quantizers_of(NAMES.index(plane))]
        return torch.cat(books, 1)

    def quantizers_of(self, level: int) -> list[VectorQuantizer]:
        """Return the quantizers of a level, from 0: one of latents, or of each part of an envelope."""
        if level % 2 == 0:
            return [self.second if level else self.first.quantizer]
        start = level // 2 * PARTS
        found = self.quantizers[start : start + PARTS]
        return [quantizer for quantizer in found if isinstance(quantizer, VectorQuantizer)]

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

    # x -> levels -> x

    def encode(self, level: int, rest: Tensor) -> Tensor:
        """Return the nearest codes of what a level quantises: [B, D, n] -> [B, T], part by part."""
        quantizers = self.quantizers_of(level)
        parts = torch.split(rest, [quantizer.dim for quantizer in quantizers], 1)
        codes = [q.encode(part) for q, part in zip(quantizers, parts, strict=True)]
        return torch.stack(codes, 2).flatten(1)

    def vectors(self, level: int, codes: Tensor) -> Tensor:
        """Look codes of a level up, those that are missing as zeros: [B, T] -> [B, D, n]."""
        quantizers = self.quantizers_of(level)
        parts = codes.long().view(len(codes), -1, len(quantizers)).unbind(2)
        return torch.cat([_looked_up(q, part) for q, part in zip(quantizers, parts, strict=True)], 1)

    def reconstruct(self, vectors: Tensor) -> Tensor:
        """Decode sums of vectors of latents: [B, D, T] -> [B, 1, 64 T]."""
        return self.first.reconstruct(vectors).float()

    def synthesise(self, codes: Sequence[Tensor]) -> Tensor:
        """Decode the first levels, [B, T] each: the mean of p(x | their codes)."""
        found = [self.vectors(level, plane) for level, plane in enumerate(codes)]
        decoded = self.reconstruct(found[0])
        if len(found) == 1:
            return decoded
        envelope = self.envelope(decoded) + sum(found[1::2])
        if len(found) > 2:
            decoded = self.reconstruct(torch.stack(found[::2]).sum(0))
        return self.envelope.shape(decoded, envelope)

    # training

    def loss(self, samples: Tensor) -> LossStep:
        """Compute the distances of spectra with 1 to LEVELS levels, each for the same share of a batch."""
        count, device = len(samples), samples.device
        with torch.no_grad():
            latents = self.first.latents(samples)
            codes = [self.encode(0, latents)]
            base = self.vectors(0, codes[0])
            envelope = self.envelope(self.reconstruct(base))
            rests = [self.envelope(samples) - envelope, latents - base]
        codes += [self.encode(level, rest) for level, rest in enumerate(rests, 1)]
        found = [self.vectors(level, plane) for level, plane in enumerate(codes)]
        rests.append(rests[0] - found[1].detach())
        codes.append(self.encode(3, rests[2]))
        found.append(self.vectors(3, codes[3]))
        stratum = (torch.arange(count, device=device) + torch.rand(count, device=device)) / count
        depth = torch.floor(stratum * LEVELS)[:, None, None]
        decoded = self.reconstruct(base + found[2] * (depth > 1))
        wanted = envelope + found[1] * (depth > 0) + found[3] * (depth > 2)
        shaped = torch.where(depth > 0, self.envelope.shape(decoded, wanted), decoded)
        # Their numbers of levels rise; the last example is always judged.
        judged = min(-(-count * (self.config.judged_levels - 1) // LEVELS), count - 1)
        distance = audio.distance(self.config, self.discriminator, shaped, samples, judged)
        shares = [_share(rest, near) for rest, near in zip(rests, found[1:], strict=True)]
        terms = {**distance.terms, "left": torch.stack(shares).mean()}
        symbols = dict(zip(NAMES, codes, strict=True))
        kept = {**distance.kept, **dict(zip(NAMES[1:], rests, strict=True))}
        return LossStep(distance.total + self.config.commitment * terms["left"], terms, symbols, kept)

    def update(self, step: LossStep, progress: float, generator: torch.Generator) -> dict[str, int]:
        """Update the usage of the later levels' codes, as in `Trainable.update`."""
        del progress
        for level, name in enumerate(NAMES[1:], 1):
            quantizers, symbols = self.quantizers_of(level), step.symbols[name]
            rests = torch.split(step.kept[name], [quantizer.dim for quantizer in quantizers], 1)
            codes = symbols.view(len(symbols), -1, len(quantizers)).unbind(2)
            for quantizer, rest, chosen in zip(quantizers, rests, codes, strict=True):
                quantizer.update(rest, chosen, False, generator)
        return {}

    def log_figures(self, terms: Mapping[str, float]) -> dict[str, float]:
        """Return the log-mel distance, as in `Trainable.log_figures`."""
        return {"log_mel": terms["mel"]}

    @torch.no_grad()
    def load_from(self, other: Model, count: float) -> None:
        """Load the weights of such a model, or level 1 from an `AudioVQVAE`, as in `Trainable.load_from`."""
        known = not isinstance(other, audio.AudioVQVAE)
        start = self if known else self.first
        start.load_state_dict({**start.state_dict(), **other.state_dict()})
        for level in range(1, LEVELS):
            quantizers = self.quantizers_of(level)
            uses = count * PARTS / len(quantizers) / self.config.codes
            for quantizer in quantizers:
                codes = quantizer.codebook.detach()
                quantizer.set_codebook(codes if known else torch.zeros_like(codes), uses)

    def start(self, draw: Callable[[int], Tensor], generator: torch.Generator) -> None:
        """Refuse to begin without level 1.

        Raises:
            UsageError: always.
        """
        raise UsageError("residual levels begin from weights of level 1", "--from vqvae-audio")

    def complete(self, draw: Callable[[int], Tensor], generator: torch.Generator) -> None:
        """Fit codebooks, then train the discriminator ahead, as in `Trainable.complete`."""
        self.fit_codebooks(draw, generator)
        audio.train_ahead(self, self.config.ahead, draw)

    @torch.no_grad()
    def fit_codebooks(self, draw: Callable[[int], Tensor], generator: torch.Generator) -> None:
        """Fit the codebooks of the later levels to what is left, from those that the weights have."""
        rests: list[list[Tensor]] = []
        for batch in range(START_BATCHES):
            samples = draw(batch)
            latents = self.first.latents(samples)
            base = self.vectors(0, self.encode(0, latents))
            left = self.envelope(samples) - self.envelope(self.reconstruct(base))
            rests.append([left, latents - base])
        envelopes, latents = (
            torch.cat([as_vectors(rest) for rest in level]) for level in zip(*rests, strict=True)
        )
        for level, rest in zip(range(1, LEVELS), (envelopes, latents, envelopes), strict=True):
            quantizers = self.quantizers_of(level)
            parts = torch.split(rest, [quantizer.dim for quantizer in quantizers], 1)
            for part, quantizer in zip(parts, quantizers, strict=True):
                if isinstance(quantizer, EntropyConstrainedQuantizer):
                    quantizer.fit(part.contiguous(), TRADEOFFS[level], generator)
                part -= quantizer.decode(quantizer.encode(part))


def _quantizer(config: Config, dim: int) -> EntropyConstrainedQuantizer:
    """A codebook that follows the gradient."""
    return EntropyConstrainedQuantizer(config.codes, dim, decay=config.decay)


def _looked_up(quantizer: VectorQuantizer, codes: Tensor) -> Tensor:
    """Look codes up, those that are missing as zeros: [B, T] -> [B, D, T]."""
    return quantizer.decode(codes.clamp(min=0)) * (codes >= 0)[:, None]


def _share(rest: Tensor, vectors: Tensor) -> Tensor:
    """Return the share of the energy of what a level quantises that it leaves."""
    return losses.codebook(rest, vectors) / (rest.square().mean() + QUIET)
