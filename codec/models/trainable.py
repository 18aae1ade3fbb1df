"""The interface of models to the training loop."""

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
"""Prefix of the names of the discriminator's parameters, which have their own optimiser."""


@dataclass
class LossStep:
    """The loss of a batch, with its parts.

    Attributes:
        loss: scalar to be minimised; the only tensor with gradients.
        terms: parts of the loss, by their names in the log.
        symbols: plane -> int64, of the planes of indices.
        kept: tensors for `Trainable.update` or the discriminator.
    """

    loss: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)
    symbols: dict[str, Tensor] = field(default_factory=dict)
    kept: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class RoundTrip:
    """A batch encoded and decoded in memory, without priors in integers.

    Attributes:
        symbols: plane -> int64, of the planes of indices.
        samples: the reconstruction; None for an autoregressive decoder.
        bits: of `units` elements, where the model computes them.
        units: number of pixels, samples or symbols.
        loss: what the reconstruction is judged by, distortion and rate, where it is not the distortion.
        figures: further measurements.
    """

    symbols: dict[str, Tensor]
    samples: Tensor | None = None
    bits: float | None = None
    units: int = 1
    loss: float | None = None
    figures: Mapping[str, float] = field(default_factory=dict)


class Discriminator(nn.Module, ABC):
    """Networks that distinguish reconstructions from originals, with their own optimiser."""

    @abstractmethod
    def loss(self, reconstruction: Tensor, samples: Tensor) -> LossStep:
        """Compute the loss of the discriminator; `LossStep.kept` of the model has both tensors by name."""

    def learns(self, step: LossStep) -> bool:
        """Return whether the discriminator takes a step for its loss: always, by default."""
        del step
        return True


class Trainable(nn.Module, ABC):
    """A network for the training loop: a model, or the learned prior of one.

    In addition to the methods of coding, a new model must define `loss` alone.

        start or load_from -> (loss -> optimiser -> update) for every step -> export, make_card
    """

    slow: ClassVar[tuple[str, ...]] = ()
    """Prefixes of the names of parameters with a lower learning rate."""

    networks: ClassVar[tuple[str, ...]] = ()
    """Prefixes of the names of tensors stored in half precision; training may use bfloat16 for them."""

    config: Config
    """Settings."""

    def __init__(self) -> None:
        super().__init__()
        self.discriminator: Discriminator | None = None

    @property
    @abstractmethod
    def codec(self) -> Model:
        """Model of these samples and symbols."""

    def start(self, draw: Callable[[int], Tensor], generator: torch.Generator) -> None:
        """Set weights before the first step: by default those of construction stay.

        Args:
            draw: returns the n-th batch of samples.
            generator: CPU generator.
        """

    @abstractmethod
    def loss(self, samples: Tensor) -> LossStep:
        """Compute the loss of a batch of samples.

        On CUDA devices this is captured as a graph: each call does the same work, without synchronisation.
        """

    def update(self, step: LossStep, progress: float, generator: torch.Generator) -> dict[str, int]:
        """Update state after an optimiser step: nothing, by default.

        Args:
            step: of the same batch.
            progress: completed share of the training, 0..1.
            generator: CPU generator of this step.

        Returns:
            Counts for the log, such as "restarted", the number of codes revived.
        """
        del step, progress, generator
        return {}

    @abstractmethod
    def round_trip(self, samples: Tensor, index: int = 0) -> RoundTrip:
        """Encode and decode samples at a quality index, in memory."""

    def log_figures(self, terms: Mapping[str, float]) -> dict[str, float]:
        """Compute figures of the log from the mean terms of some steps, "loss" among them."""
        del terms
        return {}

    @abstractmethod
    def load_from(self, other: Model, count: float) -> None:
        """Start from the weights of a trained model.

        Args:
            other: a model of the same settings, but for those that may grow or shrink.
            count: positions of the coarsest plane in a batch.
        """

    def complete(self, draw: Callable[[int], Tensor], generator: torch.Generator) -> None:
        """Set what the weights of `load_from` do not tell: nothing, by default.

        Args:
            draw: returns the n-th batch of samples.
            generator: CPU generator.
        """

    def prepare_export(self, draw: Callable[[int], Tensor]) -> None:
        """Round the averaged weights so that `export` changes them no more: nothing, by default.

        Args:
            draw: returns the n-th batch of samples.
        """

    def keep_prior(self, other: Model) -> Self:
        """Return the model with the learned prior of the weights that a training starts from."""
        del other
        return self

    @abstractmethod
    def export(self) -> Model:
        """Return the model to save, with the priors trained with it in integers.

        Raises:
            ModelError: a layer exceeds the exact range of float32.
        """

    @abstractmethod
    def make_card(self, name: str, training: Figures, measured: Figures) -> Card:
        """Make the model card.

        Args:
            name: of the model in bitstreams.
            training: commands, data, steps, hours.
            measured: validation figures.
        """
