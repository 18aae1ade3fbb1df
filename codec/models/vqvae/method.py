"""What every VQ-VAE does, whatever its networks (van den Oord, Vinyals, Kavukcuoglu 2017).

    x --encoder--> z_e(x) --nearest code--> z_q(x) --decoder--> mean of p(x | z_q)

The prior is uniform while this trains, so the KL term of the ELBO is the constant log K and drops out;
what remains of it (eq. 3) is distortion + codebook term + commitment * beta. The prior that the bitstream is
coded by is fitted afterwards (`priors`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor, nn

from .. import losses
from ..growth import grow
from ..quantizers import VectorQuantizer, as_vectors, kmeans

if TYPE_CHECKING:
    from ...priors.learned import LearnedPrior
    from ...priors.static import StaticPrior


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


class VQVAE(nn.Module):
    """Quantizer, loss and codebook; a medium's class adds the two networks and the distortion.

    Samples are float32 [B, C, ...]; latents float32 [B, D, ...]; codes int64 [B, ...] in 0..K-1.
    """

    method = "VQ-VAE"
    medium: str
    channels: int
    axes: int
    stride: int
    decoding: tuple[str, ...]
    networks: tuple[str, ...]
    """Prefixes of the tensors that are stored in half precision."""

    slow: tuple[str, ...] = ()
    """Prefixes of the parameters that learn more slowly than the rest."""

    rate: int
    """Samples a second, of sounds."""

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
        self.prior: StaticPrior | None = None
        self.learned: LearnedPrior | None = None
        self.card: dict[str, Any] = {}
        self._last: tuple[Tensor, Tensor] | None = None

    @property
    def frozen(self) -> bool:
        """Whether encoder and codebook stay as they are."""
        return bool(getattr(self.config, "frozen", False))

    @property
    def codes(self) -> int:
        """K."""
        return int(self.config.codes)

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

    def describe(self, training: dict[str, Any], measured: dict[str, Any]) -> dict[str, Any]:
        """What its card says, but for its name."""
        parameters = [p.numel() for n, p in self.named_parameters() if not n.startswith("critics.")]
        carried = {} if self.learned is None else {"learned": self.card["learned"]}
        return {
            "medium": self.medium,
            "method": self.method,
            "config": asdict(self.config),
            "parameters": sum(parameters),
            "measured": {"validation": measured},
            "training": training,
            **carried,
        }

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
        self.quantizer.set_codebook(self.quantizer.codebook.detach(), count / self.codes)

    def carry(self, other: Any) -> None:
        """Keep the learned prior of the weights that a training starts from, until it has a newer one.

        What it measured holds for those codes alone: it stays where encoder and codebook do.
        """
        if type(other) is type(self) and other.learned is not None:
            told = dict(other.card["learned"])
            if not self.frozen:
                told.pop("measured", None)
            self.learned, self.card = other.learned, {"learned": told}

    @torch.no_grad()
    def start_codebook(
        self, draw: Callable[[int], Tensor], batches: range, generator: torch.Generator, most: int
    ) -> None:
        """k-means of the encoder's outputs for these batches, of at most so many of them."""
        outputs = torch.cat([as_vectors(self.latents(draw(i))) for i in batches])
        picks = torch.randperm(len(outputs), generator=generator)[:most]
        self.quantizer.set_codebook(kmeans(outputs[picks].cpu(), self.config.codes, generator))
