"""What a model offers to the stages around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from ..priors.learned import LearnedPrior
from ..priors.static import StaticPrior


class Codec(Protocol):
    """A latent-variable model that is put to work; its class is an `nn.Module` besides.

    Samples of pictures are float32 [B, 3, H, W] in -1..1, H and W multiples of `stride`, of sounds [B, 1, N];
    latents float32 [B, D, h, w] or [B, D, T]; codes int64 [B, h, w] or [B, T] in 0..K-1, h = H / stride and
    so on.

    Attributes:
        medium: "image" or "audio".
        channels, axes: of the samples: 3 and 2 of pictures, 1 and 1 of sounds.
        method: the paper's name of it, e.g. "VQ-VAE"; `models.from_card` goes by medium and method.
        stride: samples per code, along each side.
        decoding: prefixes of the tensors that a decoder needs; the fingerprint is taken over them.
        card: the model card.
    """

    medium: str
    channels: int
    axes: int
    method: str
    stride: int
    decoding: tuple[str, ...]
    card: dict[str, Any]

    @property
    def config(self) -> Any:
        """The settings, a frozen dataclass; `codes` among them is K."""

    @property
    def prior(self) -> StaticPrior | None:
        """p(codes) by static tables, once they are fitted."""

    @property
    def learned(self) -> LearnedPrior | None:
        """p(codes) by a network, once it is trained."""

    @property
    def device(self) -> torch.device:
        """Where the networks run."""

    @property
    def halo(self) -> int:
        """Codes around a block that its samples, or its codes, can depend on."""

    def latents(self, samples: Tensor) -> Tensor:
        """The encoder's outputs, before they are quantized."""

    def analyse(self, samples: Tensor) -> Tensor:
        """Samples -> codes."""

    def synthesise(self, codes: Tensor) -> Tensor:
        """Codes -> samples."""

    def reconstruct(self, quantized: Tensor) -> Tensor:
        """Latents, quantized or not -> samples."""

    def start(self, draw: Callable[[int], Tensor], generator: torch.Generator) -> None:
        """Set weights before the first step; `draw(n)` gives the n-th batch of samples."""

    def loss(self, samples: Tensor) -> dict[str, Tensor]:
        """Terms for a batch: "loss", what is minimised; others of the method."""

    def update(self, progress: float, generator: torch.Generator) -> dict[str, Any]:
        """What follows an optimiser step: "codes" of the step's batch, how many were "restarted"."""
