"""The VQ-VAE: quantisation, loss and codebook, common to all networks (van den Oord et al. 2017).

    x --encoder--> z_e(x) --nearest code--> z_q(x) --decoder--> mean of p(x | z_q)

The prior is uniform in this training, so the KL term of the ELBO is the constant log K and is omitted; the
remaining loss (eq. 3) is distortion + codebook term + commitment * beta. The prior of the bitstream is fitted
afterwards (`priors`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...bitstream.container import LEARNED, STATIC
from ...errors import ModelError, UsageError
from ...priors import PREFIX, PRIORS, static
from ...priors.base import Prior
from ...priors.settings import HUGE, Config, setting
from ...priors.static import StaticPrior
from .. import losses
from ..base import Card, LossStep, Model, OperatingPoint, Plane, Progress, Symbols
from ..growth import grow
from ..quantizers import VectorQuantizer, as_vectors, kmeans


@dataclass(frozen=True)
class CodebookConfig(Config):
    """Settings common to all VQ-VAEs.

    Attributes:
        codes: K, the codebook's size.
        code_dim: D, the dimension of a code.
        codebook_update: "ema" (appendix A.1) or "loss" (eq. 3).
        codebook_start: "kmeans" of the encoder's first outputs, or "random" (uniform in -1/K..1/K).
        decay: of the moving averages: the usage of each code and, with "ema", the codes themselves.
        restart_below: dead codes, used less than this share of the mean, are moved; 0 turns restarts off.
        restart_until: share of the training after which dead codes are no longer moved.
        commitment: beta, the weight of the commitment term.
    """

    codes: int = setting(512, low=2, high=(1 << 16) - 1)
    code_dim: int = setting(8, low=1, high=1 << 14)
    codebook_update: Literal["ema", "loss"] = "ema"
    codebook_start: Literal["kmeans", "random"] = "kmeans"
    decay: float = setting(0.99, low=0, high=1 - 1e-9, training_only=True)
    restart_below: float = setting(0.05, low=0, high=1, training_only=True)
    restart_until: float = setting(0.8, low=0, high=1, training_only=True)
    commitment: float = setting(1.0, low=0, high=HUGE, training_only=True)

    def check_components(self, samples: int) -> None:
        """Refuse a linear start from more principal components than a block of so many samples has.

        Raises:
            UsageError: it has fewer than `code_dim`.
        """
        if self.code_dim > samples:
            hint = f"give 1 to {samples}, the principal components of a block"
            raise UsageError(f"code_dim is {self.code_dim}", hint)


TABLE_CLASSES = 32
"""Number of classes of codes in the contexts of the static tables."""


def classes_of(codebook: Tensor, most: int, seed: int) -> NDArray[np.uint8]:
    """Group codes by likeness: [K, D] -> a class 0..min(most, K) - 1 for each, by k-means."""
    vectors = codebook.cpu().float()
    count = min(most, len(vectors))
    centres = kmeans(vectors, count, torch.Generator().manual_seed(seed), rounds=50)
    return torch.cdist(vectors, centres).argmin(1).numpy().astype(np.uint8)


class Distortion(NamedTuple):
    """-log p(x | z) up to scale and constant.

    Attributes:
        total: to be minimised.
        terms: its parts by name.
        kept: tensors for the discriminator, see `LossStep.kept`.
    """

    total: Tensor
    terms: dict[str, Tensor]
    kept: dict[str, Tensor]


class VQVAE(Model):
    """Base of VQ-VAEs: quantizer, loss and codebook; a subclass adds the two networks and the distortion.

    Samples are float32 [B, C, ...]; latents float32 [B, D, ...]; codes int64 [B, ...] in 0..K-1.
    """

    method = "VQ-VAE"
    config: CodebookConfig

    def __init__(self, config: CodebookConfig, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.decoder = decoder
        self.quantizer = VectorQuantizer(
            config.codes,
            config.code_dim,
            moving_average=config.codebook_update == "ema",
            decay=config.decay,
            restart_below=config.restart_below,
        )

    @property
    def frozen(self) -> bool:
        """Whether encoder and codebook are frozen."""
        return False

    @property
    def halo(self) -> int:
        """Codes around a block on which its samples, or its codes, can depend."""
        raise NotImplementedError

    @classmethod
    def trains_prior_next(cls, config: Config) -> bool:
        """Return whether the training continues with a learned prior, as in `Model.trains_prior_next`."""
        del config
        return True

    def codebook(self, plane: str) -> Tensor:
        """Return the vectors of the codes, [K, D]."""
        del plane
        return self.quantizer.codebook.detach()

    def latents(self, samples: Tensor) -> Tensor:
        """Compute z_e(x), before quantisation."""
        raise NotImplementedError

    def reconstruct(self, quantized: Tensor) -> Tensor:
        """Compute the mean of p(x | z), for any latents, quantized or not."""
        raise NotImplementedError

    def distortion(self, quantized: Tensor, samples: Tensor) -> Distortion:
        """Compute -log p(x | z) of latents, quantized or not."""
        raise NotImplementedError

    def at(self, index: int, effort: int = 1) -> CodebookPoint:
        """Return the only operating point."""
        return CodebookPoint(self, index, effort)

    def priors_from(self, card: Card, tensors: Mapping[str, NDArray[np.generic]]) -> Mapping[int, Prior]:
        """Build static tables, and the learned prior described by the card, as in `Model.priors_from`."""
        found: dict[int, Prior] = {}
        if "prior.tables" in tensors:
            static = StaticPrior.from_tensors(tensors)
            if static.alphabet_size != self.config.codes:
                raise ValueError(f"tables for {static.alphabet_size} codes")
            found[STATIC] = static
        if card.learned is None:
            return found
        method = card.learned["method"]
        if method not in PRIORS or PRIORS[method].medium != self.medium:
            raise ModelError(f"a prior of method {method} for {self.medium}, unknown here", "upgrade vqcodec")
        arrays = {n.removeprefix(PREFIX): array for n, array in tensors.items() if n.startswith(PREFIX)}
        learned = PRIORS[method].prior(arrays)
        if (
            learned.fingerprint.hex() != card.learned["fingerprint"]
            or learned.alphabet_size != self.config.codes
        ):
            raise ValueError("another prior")
        return found | {LEARNED: learned}

    def decodes(self, other: Model) -> bool:
        """Return whether the codes of another model, or those of its first level, are of this codebook."""
        first, mine = other.at(0).planes[0], self.at(0).planes[0]
        book = other.codebook(first.name)
        return (
            other.medium == self.medium
            and first.stride == mine.stride
            and book is not None
            and torch.equal(book, self.quantizer.codebook)
        )

    def searches(self, effort: int) -> bool:
        """Return whether a search with this effort decodes, so that its halo is that of the decoder too."""
        del effort
        return False

    def searcher(self, effort: int) -> Callable[[Tensor], Tensor]:
        """Return the function from samples to codes with this effort: by default the nearest codes."""
        del effort
        return self.analyse

    def analyse(self, samples: Tensor) -> Tensor:
        """Compute the posterior q(z | x), a point mass (eq. 1): samples -> codes."""
        return self.quantizer.encode(self.latents(samples))

    def synthesise(self, codes: Tensor) -> Tensor:
        """Compute the mean of the likelihood p(x | z_q): codes -> samples."""
        return self.reconstruct(self.quantizer.decode(codes.long()))

    def loss(self, samples: Tensor) -> LossStep:
        """Compute the weighted sum of eq. 3 for a batch of samples.

        The terms are those of the distortion and, unless encoder and codebook are frozen, "commitment" and,
        for a codebook learned by the loss, "codebook", per element of the latents.
        """
        if self.frozen:
            with torch.no_grad():
                codes = self.analyse(samples)
                quantized = self.quantizer.decode(codes)
            total, terms, kept = self.distortion(quantized, samples)
            return LossStep(total, terms, {"codes": codes}, kept)
        latents = self.latents(samples).float()
        codes = self.quantizer.encode(latents.detach())
        quantized = self.quantizer.decode(codes)
        straight_through = latents + (quantized - latents).detach()
        total, terms, kept = self.distortion(straight_through, samples)
        terms["commitment"] = losses.commitment(latents, quantized)
        total = total + self.config.commitment * terms["commitment"]
        if self.config.codebook_update == "loss":
            terms["codebook"] = losses.codebook(latents, quantized)
            total = total + terms["codebook"]
        return LossStep(total, terms, {"codes": codes}, kept | {"latents": latents.detach()})

    def update(self, step: LossStep, progress: float, generator: torch.Generator) -> dict[str, int]:
        """Update moving averages and revive dead codes, as in `Trainable.update`."""
        if self.frozen:
            return {"restarted": 0}
        restart = self.config.restart_below > 0 and progress < self.config.restart_until
        latents, codes = step.kept["latents"], step.symbols["codes"]
        return {"restarted": self.quantizer.update(latents, codes, restart, generator).shape[1]}

    def fit_tables(self, regions: Iterable[Symbols], seed: int) -> Self:
        """Fit static tables to the codes, as in `Model.fit_tables`."""
        classes = classes_of(self.quantizer.codebook.detach(), TABLE_CLASSES, seed)
        count = min(TABLE_CLASSES, self.config.codes)
        counts = static.counts((region["codes"] for region in regions), classes, count)
        prior = StaticPrior(static.fit(counts), classes)
        return self.equipped(priors={**self.priors, STATIC: prior})

    def load_from(self, other: Model, count: float) -> None:
        """Load the weights of a model of the same settings or a smaller one, as in `Trainable.load_from`.

        All codes get equal usage, since weights contain no counts.
        """
        generator = torch.Generator().manual_seed(0)
        for part in ("encoder", "decoder", "quantizer"):
            grow(getattr(self, part), getattr(other, part), generator)
        for name, tensor in self.named_buffers(recurse=False):
            tensor.copy_(other.get_buffer(name))
        self.quantizer.set_codebook(self.quantizer.codebook.detach(), count / self.config.codes)

    def keep_prior(self, other: Model) -> Self:
        """Return the model with the learned prior of another one, as in `Trainable.keep_prior`.

        The prior fits those codes alone, so it is kept only where encoder and codebook are frozen.
        """
        if type(other) is not type(self) or LEARNED not in other.priors:
            return self
        learned = dict(other.card.learned or {})
        if not self.frozen:
            learned.pop("measured", None)
        return self.equipped(replace(other.card, learned=learned), {LEARNED: other.priors[LEARNED]})

    @torch.no_grad()
    def start_codebook(
        self, draw: Callable[[int], Tensor], batches: range, generator: torch.Generator, most: int
    ) -> None:
        """Initialise the codebook by k-means of at most `most` of the encoder's outputs for these batches."""
        outputs = torch.cat([as_vectors(self.latents(draw(i))) for i in batches])
        picks = torch.randperm(len(outputs), generator=generator)[:most]
        self.quantizer.set_codebook(kmeans(outputs[picks].cpu(), self.config.codes, generator))


@dataclass(frozen=True)
class CodebookPoint(OperatingPoint):
    """The operating point of a VQ-VAE, with one plane of codebook indices."""

    model: VQVAE

    @property
    def planes(self) -> tuple[Plane, ...]:
        """Plane of the codes."""
        return (Plane("codes", self.model.stride, alphabet=self.model.config.codes),)

    @property
    def halo(self) -> int:
        """Codes around a block on which its samples can depend, as in `OperatingPoint.halo`."""
        return self.model.halo

    @property
    def analysis_halo(self) -> int:
        """Codes around a block on which its codes can depend: a search decodes, so both halos add up."""
        return self.model.halo * (2 if self.model.searches(self.effort) else 1)

    @cached_property
    def _search(self) -> Callable[[Tensor], Tensor]:
        return self.model.searcher(self.effort)

    def analyse(self, samples: Tensor) -> dict[str, Tensor]:
        """Map samples to codes, as in `OperatingPoint.analyse`."""
        return {"codes": self._search(samples)}

    def synthesise(
        self, symbols: dict[str, Tensor], seed: int = 0, progress: Progress | None = None
    ) -> Tensor:
        """Map codes to the mean of the likelihood, as in `OperatingPoint.synthesise`."""
        del seed, progress
        return self.model.synthesise(symbols["codes"])
