"""What every VQ-VAE does, whatever its networks (van den Oord, Vinyals, Kavukcuoglu 2017).

    x --encoder--> z_e(x) --nearest code--> z_q(x) --decoder--> mean of p(x | z_q)

The prior is uniform while this trains, so the KL term of the ELBO is the constant log K and drops out;
what remains of it (eq. 3) is distortion + codebook term + commitment * beta. The prior that the bitstream is
coded by is fitted afterwards (`priors`).
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
from ...errors import ModelError
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
    """Settings that every VQ-VAE has.

    Attributes:
        codes: K, the codebook's size.
        code_dim: D, the dimension of a code.
        codebook_update: "ema" (appendix A.1) or "loss" (eq. 3).
        codebook_start: "kmeans" of the encoder's first outputs, or "random" (uniform in -1/K..1/K).
        decay: of the moving averages: how often each code is chosen and, with "ema", the codes themselves.
        restart_below: codes chosen less than this share of the mean are moved; 0 turns restarts off.
        restart_until: share of the training after which codes stay where they are.
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


TABLE_CLASSES = 32
"""Classes of codes that make the context of the static tables."""


class Distortion(NamedTuple):
    """-log p(x | z) up to scale and constant.

    Attributes:
        total: as it is minimised.
        terms: its parts by name.
        kept: what a discriminator needs, see `LossStep.kept`.
    """

    total: Tensor
    terms: dict[str, Tensor]
    kept: dict[str, Tensor]


class VQVAE(Model):
    """Quantizer, loss and codebook; a medium's class adds the two networks and the distortion.

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
        """Whether encoder and codebook stay as they are."""
        return False

    @property
    def halo(self) -> int:
        """Codes around a block that its samples, or its codes, can depend on."""
        raise NotImplementedError

    @classmethod
    def trains_prior_next(cls, config: Config) -> bool:
        """As in `Model.trains_prior_next`."""
        del config
        return True

    def codebook(self, plane: str) -> Tensor:
        """The codes."""
        del plane
        return self.quantizer.codebook.detach()

    def latents(self, samples: Tensor) -> Tensor:
        """z_e(x), before it is quantized."""
        raise NotImplementedError

    def reconstruct(self, quantized: Tensor) -> Tensor:
        """Mean of p(x | z) for any latents, quantized or not."""
        raise NotImplementedError

    def distortion(self, quantized: Tensor, samples: Tensor) -> Distortion:
        """-log p(x | z) of latents, quantized or not."""
        raise NotImplementedError

    def at(self, index: int, effort: int = 1) -> CodebookPoint:
        """The one operating point."""
        return CodebookPoint(self, index, effort)

    def priors_from(self, card: Card, tensors: Mapping[str, NDArray[np.generic]]) -> Mapping[int, Prior]:
        """As in `Model.priors_from`: static tables, and the learned prior that the card tells of."""
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
            raise ModelError(f"a prior of method {method} for {self.medium}, unknown here", "upgrade")
        arrays = {n.removeprefix(PREFIX): array for n, array in tensors.items() if n.startswith(PREFIX)}
        learned = PRIORS[method].prior(arrays)
        if (
            learned.fingerprint.hex() != card.learned["fingerprint"]
            or learned.alphabet_size != self.config.codes
        ):
            raise ValueError("another prior")
        return found | {LEARNED: learned}

    def decodes(self, other: Model) -> bool:
        """Whether another model has the same codebook."""
        return (
            isinstance(other, VQVAE)
            and other.medium == self.medium
            and torch.equal(other.quantizer.codebook, self.quantizer.codebook)
        )

    def searches(self, effort: int) -> bool:
        """Whether a search with this effort looks through the decoder."""
        del effort
        return False

    def searcher(self, effort: int) -> Callable[[Tensor], Tensor]:
        """Return what finds the codes of samples with this effort: by default the nearest."""
        del effort
        return self.analyse

    def analyse(self, samples: Tensor) -> Tensor:
        """The posterior q(z | x), a point mass (eq. 1): samples -> codes."""
        return self.quantizer.encode(self.latents(samples))

    def synthesise(self, codes: Tensor) -> Tensor:
        """Mean of the likelihood p(x | z_q): codes -> samples."""
        return self.reconstruct(self.quantizer.decode(codes.long()))

    def loss(self, samples: Tensor) -> LossStep:
        """The weighted sum of eq. 3 for a batch of samples.

        Its terms are those of the distortion, which are all where encoder and codebook are frozen;
        "commitment" and, where the codebook is learned by it, "codebook", per element of the latents.
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
        """As in `Trainable.update`: moving averages and revival of dead codes."""
        if self.frozen:
            return {"restarted": 0}
        restart = self.config.restart_below > 0 and progress < self.config.restart_until
        latents, codes = step.kept["latents"], step.symbols["codes"]
        return {"restarted": self.quantizer.update(latents, codes, restart, generator)}

    def fit_tables(self, regions: Iterable[Symbols], seed: int) -> Self:
        """As in `Model.fit_tables`: static tables over the codes."""
        codebook = self.quantizer.codebook.detach().cpu().float()
        count = min(TABLE_CLASSES, self.config.codes)
        centres = kmeans(codebook, count, torch.Generator().manual_seed(seed), rounds=50)
        classes = torch.cdist(codebook, centres).argmin(1).numpy().astype(np.uint8)
        counts = static.counts((region["codes"] for region in regions), classes, count)
        prior = StaticPrior(static.fit(counts), classes)
        return self.equipped(priors={**self.priors, STATIC: prior})

    def load_from(self, other: Model, count: float) -> None:
        """As in `Trainable.load_from`: of the same settings, or of a smaller one.

        Each code is taken to be chosen equally often, since weights hold no counts.
        """
        generator = torch.Generator().manual_seed(0)
        for part in ("encoder", "decoder", "quantizer"):
            grow(getattr(self, part), getattr(other, part), generator)
        for name, tensor in self.named_buffers(recurse=False):
            tensor.copy_(other.get_buffer(name))
        self.quantizer.set_codebook(self.quantizer.codebook.detach(), count / self.config.codes)

    def keep_prior(self, other: Model) -> Self:
        """As in `Trainable.keep_prior`.

        What the prior measured holds for those codes alone: it stays where encoder and codebook do.
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
        """k-means of the encoder's outputs for these batches, of at most so many of them."""
        outputs = torch.cat([as_vectors(self.latents(draw(i))) for i in batches])
        picks = torch.randperm(len(outputs), generator=generator)[:most]
        self.quantizer.set_codebook(kmeans(outputs[picks].cpu(), self.config.codes, generator))


@dataclass(frozen=True)
class CodebookPoint(OperatingPoint):
    """A VQ-VAE, which has one rate: one plane of codebook indices."""

    model: VQVAE

    @property
    def planes(self) -> tuple[Plane, ...]:
        """The codes."""
        return (Plane("codes", self.model.stride, alphabet=self.model.config.codes),)

    @property
    def halo(self) -> int:
        """As in `OperatingPoint.halo`."""
        return self.model.halo

    @property
    def analysis_halo(self) -> int:
        """A search looks through the decoder after the encoder, so that both halos add up."""
        return self.model.halo * (2 if self.model.searches(self.effort) else 1)

    @cached_property
    def _search(self) -> Callable[[Tensor], Tensor]:
        return self.model.searcher(self.effort)

    def analyse(self, samples: Tensor) -> dict[str, Tensor]:
        """As in `OperatingPoint.analyse`."""
        return {"codes": self._search(samples)}

    def synthesise(
        self, symbols: dict[str, Tensor], seed: int = 0, progress: Progress | None = None
    ) -> Tensor:
        """As in `OperatingPoint.synthesise`: the mean."""
        del seed, progress
        return self.model.synthesise(symbols["codes"])
