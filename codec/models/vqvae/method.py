"""What every VQ-VAE does, whatever its networks (van den Oord, Vinyals, Kavukcuoglu 2017).

    x --encoder--> z_e(x) --nearest code--> z_q(x) --decoder--> mean of p(x | z_q)

The prior is uniform while this trains, so the KL term of the ELBO is the constant log K and drops out;
what remains of it (eq. 3) is distortion + codebook term + commitment * beta. The prior that the bitstream is
coded by is fitted afterwards (`priors`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...bitstream.container import LEARNED, STATIC
from ...errors import ModelError
from ...priors import CODED, PREFIX
from ...priors.base import Prior
from ...priors.static import StaticPrior
from .. import losses
from ..base import Card, Model, OperatingPoint, Plane, Progress
from ..growth import grow
from ..quantizers import VectorQuantizer, as_vectors, kmeans


class Settings(Protocol):
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

    @property
    def codes(self) -> int: ...  # noqa: D102
    @property
    def code_dim(self) -> int: ...  # noqa: D102
    @property
    def codebook_update(self) -> Literal["ema", "loss"]: ...  # noqa: D102
    @property
    def codebook_start(self) -> Literal["kmeans", "random"]: ...  # noqa: D102
    @property
    def decay(self) -> float: ...  # noqa: D102
    @property
    def restart_below(self) -> float: ...  # noqa: D102
    @property
    def restart_until(self) -> float: ...  # noqa: D102
    @property
    def commitment(self) -> float: ...  # noqa: D102


TRAINING_ONLY = {"commitment", "decay", "restart_below", "restart_until"}
"""Settings that do not change what the weights mean."""

RANGES: dict[str, tuple[float, float]] = {
    "codes": (2, (1 << 16) - 1),
    "code_dim": (1, 1 << 14),
    "decay": (0, 1 - 1e-9),
    "restart_below": (0, 1),
    "restart_until": (0, 1),
    "commitment": (0, 1e38),
}
"""Setting -> the smallest and the largest value that a training can work with."""


class VQVAE(Model):
    """Quantizer, loss and codebook; a medium's class adds the two networks and the distortion.

    Samples are float32 [B, C, ...]; latents float32 [B, D, ...]; codes int64 [B, ...] in 0..K-1.
    """

    method = "VQ-VAE"
    slow: tuple[str, ...] = ()
    """Prefixes of the parameters that learn more slowly than the rest."""

    encoder: Any
    decoder: Any
    critics: Any
    """Networks; critics judge reconstructions, in the training alone, and have an optimiser of their own."""

    def __init__(self, config: Any, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.decoder = decoder
        self.critics = None
        self.quantizer = VectorQuantizer(
            config.codes,
            config.code_dim,
            moving_average=config.codebook_update == "ema",
            decay=config.decay,
            restart_below=config.restart_below,
        )
        self._last: tuple[Tensor, Tensor] | None = None

    @property
    def frozen(self) -> bool:
        """Whether encoder and codebook stay as they are."""
        return bool(getattr(self.config, "frozen", False))

    @property
    def device(self) -> torch.device:
        """Where the networks run."""
        return self.quantizer.codebook.device

    @property
    def halo(self) -> int:
        """Codes around a block that its samples, or its codes, can depend on."""
        raise NotImplementedError

    def start(self, draw: Callable[[int], Tensor], generator: torch.Generator) -> None:
        """Set weights before the first step; `draw(n)` gives the n-th batch of samples."""
        raise NotImplementedError

    def latents(self, samples: Tensor) -> Tensor:
        """z_e(x), before it is quantized."""
        raise NotImplementedError

    def reconstruct(self, quantized: Tensor) -> Tensor:
        """Mean of p(x | z) for any latents, quantized or not."""
        raise NotImplementedError

    def distortion(self, quantized: Tensor, samples: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """-log p(x | z) up to scale and constant, as it is minimised, and its terms by name."""
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
        if (self.medium, method) not in CODED:
            raise ModelError(f"a prior of method {method} for {self.medium}, unknown here", "upgrade")
        arrays = {n.removeprefix(PREFIX): array for n, array in tensors.items() if n.startswith(PREFIX)}
        learned = CODED[self.medium, method](arrays)
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

    def loss(self, samples: Tensor) -> dict[str, Tensor]:
        """Terms of eq. 3 for a batch of samples.

        Returns:
            "loss", their weighted sum; the terms of the distortion, which are all where encoder and codebook
            are frozen; "commitment" and, where the codebook is learned by it, "codebook", per element of the
            latents.
        """
        if self.frozen:
            with torch.no_grad():
                codes = self.analyse(samples)
                quantized = self.quantizer.decode(codes)
            total, terms = self.distortion(quantized, samples)
            self._last = (quantized, codes)
            return {"loss": total, **terms}
        latents = self.latents(samples).float()
        codes = self.quantizer.encode(latents.detach())
        quantized = self.quantizer.decode(codes)
        straight_through = latents + (quantized - latents).detach()
        total, terms = self.distortion(straight_through, samples)
        terms["commitment"] = losses.commitment(latents, quantized)
        total = total + self.config.commitment * terms["commitment"]
        if self.config.codebook_update == "loss":
            terms["codebook"] = losses.codebook(latents, quantized)
            total = total + terms["codebook"]
        self._last = (latents.detach(), codes)
        return {"loss": total, **terms}

    def update(self, progress: float, generator: torch.Generator) -> dict[str, Any]:
        """What follows an optimiser step: moving averages and revival of dead codes.

        Args:
            progress: share of the training that is done, 0..1.
            generator: CPU generator of this step.

        Returns:
            "codes" of the step's batch (int64) and the number of codes "restarted".
        """
        if self._last is None:
            raise RuntimeError("update() follows loss()")
        latents, codes = self._last
        if self.frozen:
            return {"codes": codes, "restarted": 0}
        restart = self.config.restart_below > 0 and progress < self.config.restart_until
        return {"codes": codes, "restarted": self.quantizer.update(latents, codes, restart, generator)}

    def finished(self) -> VQVAE:
        """The model that is saved: itself."""
        return self

    def describe(self, name: str, training: dict[str, Any], measured: dict[str, Any]) -> Card:
        """Its card."""
        parameters = [p.numel() for n, p in self.named_parameters() if not n.startswith("critics.")]
        return Card(
            name,
            self.medium,
            self.method,
            asdict(self.config),
            parameters=sum(parameters),
            measured={"validation": measured},
            training=training,
            learned=self.card.learned if LEARNED in self.priors else None,
        )

    def critics_loss(self) -> dict[str, Tensor]:
        """What the critics minimise, for the batch of the last `loss`, as "loss"."""
        raise RuntimeError("critics_loss() follows loss() of a model with critics")

    def begin_from(self, other: Any, count: float) -> None:
        """Start from the weights of a trained model of the same settings, or of a smaller one.

        Args:
            other: the model.
            count: codes in a batch; each is taken to be chosen equally often, since weights hold no counts.
        """
        generator = torch.Generator().manual_seed(0)
        for part in ("encoder", "decoder", "quantizer"):
            grow(getattr(self, part), getattr(other, part), generator)
        for name, tensor in self.named_buffers(recurse=False):
            tensor.copy_(other.get_buffer(name))
        self.quantizer.set_codebook(self.quantizer.codebook.detach(), count / self.config.codes)

    def keep_prior(self, other: Model) -> VQVAE:
        """Take the learned prior of the weights that a training starts from, until there is a newer one.

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
