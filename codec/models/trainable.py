"""The contract between models and the training loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Self

import torch
from torch import Tensor, nn

from ..priors.settings import Config
from .card import Card, Figures

if TYPE_CHECKING:
    from .base import Model

DISCRIMINATOR = "discriminator."
"""Prefix of the parameters that an optimiser of their own trains."""


@dataclass
class LossStep:
    """What a batch gives in training.

    Attributes:
        loss: what is minimised; the only tensor that gradients come from.
        terms: parts of the loss, by the names that they have in the log.
        symbols: plane -> int64, of the planes of indices.
        kept: tensors that `Trainable.update` or the discriminator need.
    """

    loss: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)
    symbols: dict[str, Tensor] = field(default_factory=dict)
    kept: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class RoundTrip:
    """A batch through a model in memory, without priors in integers.

    Attributes:
        symbols: plane -> int64, of the planes of indices.
        samples: the reconstruction; None of a decoder that draws.
        bits: what `units` elements take, where the model can tell.
        units: pixels, samples or symbols.
        loss: what a training minimises, of reconstructions in 8 bits, where it is not the distortion.
    """

    symbols: dict[str, Tensor]
    samples: Tensor | None = None
    bits: float | None = None
    units: int = 1
    loss: float | None = None


class Discriminator(nn.Module, ABC):
    """Networks that tell reconstructions from originals, in training alone, with their own optimiser."""

    @abstractmethod
    def loss(self, reconstruction: Tensor, samples: Tensor) -> LossStep:
        """What they minimise; `LossStep.kept` of the model has both tensors, by these names."""


class Trainable(nn.Module, ABC):
    """What the training loop asks: a model, or the learned prior of one.

    Besides what coding asks, a new model has to bring `loss` alone.

        start or load_from -> (loss -> optimiser -> update) for every step -> export, make_card
    """

    slow: ClassVar[tuple[str, ...]] = ()
    """Prefixes of the parameters that learn more slowly than the rest."""

    config: Config
    """Settings."""

    def __init__(self) -> None:
        super().__init__()
        self.discriminator: Discriminator | None = None

    @property
    @abstractmethod
    def codec(self) -> Model:
        """The model whose samples and symbols these are."""

    def start(self, draw: Callable[[int], Tensor], generator: torch.Generator) -> None:
        """Set weights before the first step: by default those of construction stay.

        Args:
            draw: gives the n-th batch of samples.
            generator: CPU generator.
        """

    @abstractmethod
    def loss(self, samples: Tensor) -> LossStep:
        """What is minimised for a batch of samples.

        On CUDA devices this is captured as a graph: the same work at every call, no waiting for the device.
        """

    def update(self, step: LossStep, progress: float, generator: torch.Generator) -> dict[str, int]:
        """Do what follows an optimiser step: nothing, by default.

        Args:
            step: of the same batch.
            progress: share of the training that is done, 0..1.
            generator: CPU generator of this step.

        Returns:
            "restarted", the number of indices revived, where there is such a thing.
        """
        del step, progress, generator
        return {}

    @abstractmethod
    def round_trip(self, samples: Tensor, index: int = 0) -> RoundTrip:
        """Samples -> symbols -> samples at a quality index, in memory."""

    def log_figures(self, terms: Mapping[str, float]) -> dict[str, float]:
        """Figures of the log that follow from the mean terms of some steps, "loss" among them."""
        del terms
        return {}

    @abstractmethod
    def load_from(self, other: Model, count: float) -> None:
        """Start from the weights of a trained model.

        Args:
            other: a model of the same settings, but for those that may grow or shrink.
            count: positions of the coarsest plane in a batch.
        """

    def keep_prior(self, other: Model) -> Self:
        """Keep the learned prior of the weights that a training starts from, until there is a newer one."""
        del other
        return self

    @abstractmethod
    def export(self) -> Model:
        """The model that is saved, with its priors in integers as far as they are trained with it.

        Raises:
            ModelError: a layer is beyond what is exact.
        """

    @abstractmethod
    def make_card(self, name: str, training: Figures, measured: Figures) -> Card:
        """Describe what was trained.

        Args:
            name: what bitstreams will call the model.
            training: commands, data, steps, hours.
            measured: validation figures.
        """
