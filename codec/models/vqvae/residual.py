"""VQ-VAE for audio with residual levels: a rate for every number of levels, one decoder for all of them.

    z(x) --level 1--> q_1;   z - q_1 --level 2--> q_2;   z - q_1 - q_2 --level 3--> q_3;   ...
    q_1 + ... + q_n --decoder--> mean of p(x | q_1 .. q_n)

(Residual vector quantisation: Zeghidour et al. 2021, "SoundStream", section III.C.) For example:
x [1, 1, 16000] -> z [1, 32, 250] -> codes [1, 250] of K = 512 for each level, 2.25 kbit/s each before entropy
coding.

Level 1 is that of `audio`: it quantises the first dimensions of z, normalised to length one. The others
quantise what is left in all dimensions. Training draws the number of levels anew for each example (quantizer
dropout, the same section), so that any first levels are a codec of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ...bitstream.quality import LAST_INDEX
from ...priors.settings import setting
from .. import losses
from ..base import LossStep, Model, OperatingPoint, Plane, Progress
from ..quantizers import VectorQuantizer, as_vectors, kmeans
from . import audio
from .planes import PlanesOfCodes

LEVELS = 4
"""Number of levels."""

NAMES = tuple(f"level{number}" for number in range(1, LEVELS + 1))
"""Planes, in the order of coding."""

MISSING = -1
"""In place of a code that is not known: its vector is zero."""


@dataclass(frozen=True)
class Config(audio.Config):
    """Settings of residual levels; the others are those of `audio.Config`.

    Attributes:
        latent_dim: D, dimensions of z; `code_dim` of them are quantised by level 1.
        adversarial, frozen: not supported, 0 and off.
    """

    latent_dim: int = setting(32, low=1, high=1 << 14)
    encoder_blocks: int = setting(6, low=0, high=12)
    decoder_width: int = setting(256, low=1, high=1 << 14)
    decoder_hidden: int = setting(512, low=1, high=1 << 14)
    unquantised: int = setting(0, low=0, high=1 << 20, training_only=True, fixed_on_resume=True)


class Levels(NamedTuple):
    """The levels of a batch.

    Attributes:
        residuals: what each level quantises, [B, D, T], of level 1 [B, code_dim, T].
        codes: int64 [B, T] each.
        vectors: of the codes, [B, D, T] each.
    """

    residuals: list[Tensor]
    codes: list[Tensor]
    vectors: list[Tensor]


class ResidualAudioVQVAE(PlanesOfCodes):
    """VQ-VAE of audio with residual levels.

    Samples are float32 [B, 1, N] in -1..1, `rate` in hertz, N a multiple of `stride`; codes of each level
    int64 [B, N / stride] in 0..K-1.
    """

    method = "RVQ-VAE"
    medium = "audio"
    channels, axes = 1, 1
    rate = audio.AudioVQVAE.rate
    stride = audio.AudioVQVAE.stride
    points = LAST_INDEX + 1
    validation_points = (0, 85, 170, 255)
    prior_methods: ClassVar[Mapping[str, str]] = MappingProxyType({NAMES[0]: "wavenet"})
    decoding = ("decoder.", "quantizers.")
    networks = ("encoder.", "decoder.")
    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = audio.encoder(config, config.latent_dim)
        self.decoder = nn.Sequential(*audio.trunk(config, config.latent_dim), audio.waveform_head(config))
        self.quantizers = nn.ModuleList(
            VectorQuantizer(
                config.codes,
                config.code_dim if name == NAMES[0] else config.latent_dim,
                moving_average=config.codebook_update == "ema",
                decay=config.decay,
                restart_below=config.restart_below,
            )
            for name in NAMES
        )

    @classmethod
    def can_start_as(cls, other: type[Model]) -> bool:
        """Return whether weights of another class begin a training, as in `Model.can_start_as`."""
        return issubclass(other, audio.AudioVQVAE) or super().can_start_as(other)

    def codebook(self, plane: str) -> Tensor:
        """Return the vectors of a level's codes, as in `Model.codebook`."""
        return self._quantizer(NAMES.index(plane)).codebook.detach()

    def at(self, index: int, effort: int = 1) -> ResidualPoint:
        """Return the point with 1 to LEVELS levels, in equal parts of the scale."""
        return ResidualPoint(self, index, effort)

    def _quantizer(self, level: int) -> VectorQuantizer:
        found = self.quantizers[level]
        assert isinstance(found, VectorQuantizer)
        return found

    # x -> levels -> x

    def latents(self, samples: Tensor) -> Tensor:
        """Compute z(x): [B, 1, N] -> [B, D, N / 64]; the dimensions of level 1 have length one together."""
        first, rest = self.encoder(samples).split(
            (self.config.code_dim, self.config.latent_dim - self.config.code_dim), 1
        )
        return torch.cat((F.normalize(first, dim=1), rest), 1)

    def quantise(self, latents: Tensor, count: int = LEVELS) -> Levels:
        """Quantise latents, level by level."""
        found, rest = Levels([], [], []), latents.float()
        for level in range(count):
            residual = rest[:, : self._quantizer(level).dim]
            codes = self._quantizer(level).encode(residual.detach())
            vectors = self._vectors(level, codes)
            rest = rest - vectors
            found.residuals.append(residual)
            found.codes.append(codes)
            found.vectors.append(vectors)
        return found

    def synthesise(self, codes: Sequence[Tensor]) -> Tensor:
        """Decode the first levels, [B, T] each: the mean of p(x | q_1 .. q_n)."""
        total = torch.stack([self._vectors(level, found.long()) for level, found in enumerate(codes)]).sum(0)
        decoded: Tensor = self.decoder(total)
        return decoded

    def _vectors(self, level: int, codes: Tensor) -> Tensor:
        """Look codes up, zero in dimensions that the level does not have: [B, T] -> [B, D, T]."""
        quantizer = self._quantizer(level)
        vectors = quantizer.decode(codes.clamp(min=0)) * (codes >= 0)[:, None]
        return F.pad(vectors, (0, 0, 0, self.config.latent_dim - quantizer.dim))

    # training

    def loss(self, samples: Tensor) -> LossStep:
        """Compute the distances of spectra with a random number of levels, and the commitment of all levels.

        Every number of levels is drawn for the same share of a batch.
        """
        count = len(samples)
        latents = self.latents(samples)
        found = self.quantise(latents)
        stratum = (
            torch.arange(count, device=samples.device) + torch.rand(count, device=samples.device)
        ) / count
        depth = 1 + torch.floor(stratum * LEVELS)
        used = torch.stack([(depth > level).float() for level in range(LEVELS)])
        total = (torch.stack(found.vectors) * used[:, :, None, None]).sum(0)
        straight_through = latents + (total - latents).detach()
        terms = losses.spectral(self.decoder(straight_through).float(), samples, self.rate)
        config = self.config
        loss = config.mel * terms["mel"] + config.convergence * terms["convergence"]
        loss = loss + config.complex * terms["complex"]
        commitment = sum(
            losses.commitment(residual, self._quantizer(level).decode(codes))
            for level, (residual, codes) in enumerate(zip(found.residuals, found.codes, strict=True))
        )
        terms["commitment"] = torch.as_tensor(commitment)
        kept = {name: residual.detach() for name, residual in zip(NAMES, found.residuals, strict=True)}
        symbols = dict(zip(NAMES, found.codes, strict=True))
        return LossStep(loss + config.commitment * terms["commitment"], terms, symbols, kept)

    def update(self, step: LossStep, progress: float, generator: torch.Generator) -> dict[str, int]:
        """Update the codebooks of all levels, as in `Trainable.update`."""
        restart = self.config.restart_below > 0 and progress < self.config.restart_until
        moved = [
            self._quantizer(level).update(step.kept[name], step.symbols[name], restart, generator)
            for level, name in enumerate(NAMES)
        ]
        return {"restarted": sum(moved)}

    def log_figures(self, terms: Mapping[str, float]) -> dict[str, float]:
        """Return the log-mel distance, as in `Trainable.log_figures`."""
        return {"log_mel": terms["mel"]}

    @torch.no_grad()
    def load_from(self, other: Model, count: float) -> None:
        """Load the weights of such a model, or level 1 from an `AudioVQVAE`, as in `Trainable.load_from`.

        The dimensions that level 1 does not have start small, and without effect on the decoder.
        """
        if isinstance(other, audio.AudioVQVAE):
            self._begin_as(other)
        else:
            super().load_from(other, count)
        for level in range(LEVELS):
            quantizer = self._quantizer(level)
            quantizer.set_codebook(quantizer.codebook.detach(), count / self.config.codes)

    def _begin_as(self, other: audio.AudioVQVAE) -> None:
        last, first = str(len(self.encoder) - 1), "0"
        for network, known in ((self.encoder, other.encoder), (self.decoder, other.decoder)):
            for name, tensor in network.state_dict().items():
                theirs = known.state_dict()[name]
                if tensor.shape == theirs.shape:
                    tensor.copy_(theirs)
                elif name.startswith(f"{last}."):
                    tensor[: len(theirs)] = theirs
                    tensor[len(theirs) :] *= 0.03
                elif name.startswith(f"{first}."):
                    tensor[:, : theirs.shape[1]] = theirs
                    tensor[:, theirs.shape[1] :] *= 0.1
                else:
                    raise ValueError(f"{name}: {list(tensor.shape)} cannot start as {list(theirs.shape)}")
        for level in range(LEVELS):
            codebook = torch.zeros_like(self._quantizer(level).codebook)
            self._quantizer(level).set_codebook(codebook if level else other.quantizer.codebook.detach())

    @torch.no_grad()
    def start(self, draw: Callable[[int], Tensor], generator: torch.Generator) -> None:
        """Initialise the codebooks level by level, by k-means of what is left.

        Args:
            draw: returns the n-th batch of samples, [B, 1, N].
            generator: CPU generator for k-means.
        """
        self._start_levels(range(LEVELS), draw, generator)

    @torch.no_grad()
    def complete(self, draw: Callable[[int], Tensor], generator: torch.Generator) -> None:
        """Initialise the codebooks of levels that weights of one level do not have, as in `start`."""
        empty = [level for level in range(LEVELS) if not self._quantizer(level).codebook.any()]
        self._start_levels(empty, draw, generator)

    def _start_levels(
        self, levels: Iterable[int], draw: Callable[[int], Tensor], generator: torch.Generator
    ) -> None:
        for level in levels:
            batches = (self.quantise(self.latents(draw(n)), level + 1).residuals[level] for n in range(16))
            outputs = torch.cat([as_vectors(residual) for residual in batches])
            picks = torch.randperm(len(outputs), generator=generator)[:50_000]
            self._quantizer(level).set_codebook(kmeans(outputs[picks].cpu(), self.config.codes, generator))


@dataclass(frozen=True)
class ResidualPoint(OperatingPoint):
    """The first 1 to LEVELS levels."""

    model: ResidualAudioVQVAE

    @property
    def levels(self) -> int:
        """Number of levels."""
        return 1 + self.index * LEVELS // (LAST_INDEX + 1)

    @property
    def planes(self) -> tuple[Plane, ...]:
        """A plane for each level."""
        model = self.model
        return tuple(
            Plane(name, model.stride, alphabet=model.config.codes, missing=MISSING)
            for name in NAMES[: self.levels]
        )

    @property
    def halo(self) -> int:
        """Codes around a block on which its samples, or its codes, can depend, as in `AudioVQVAE.halo`."""
        encoder = int(2**self.model.config.encoder_blocks) + 1
        decoder = 3 * (self.model.config.decoder_blocks + 1) + audio.WINDOW_HOPS // 2
        return max(encoder, decoder)

    def analyse(self, samples: Tensor) -> dict[str, Tensor]:
        """Map samples to the nearest codes, as in `OperatingPoint.analyse`."""
        found = self.model.quantise(self.model.latents(samples), self.levels)
        return dict(zip(NAMES, found.codes, strict=False))

    def synthesise(
        self, symbols: dict[str, Tensor], seed: int = 0, progress: Progress | None = None
    ) -> Tensor:
        """Map codes to the mean of the likelihood, as in `OperatingPoint.synthesise`."""
        del seed, progress
        return self.model.synthesise([symbols[plane.name] for plane in self.planes])
