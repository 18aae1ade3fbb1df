"""The interface of models to coding, training and evaluation.

A model maps samples to planes of integers and back (`OperatingPoint`), and has priors over the integers of
all its planes. Codebook indices, latents, coarse and fine grids, residual levels and vectors differ only in
their planes and priors, so that one driver codes and samples all of them.

    samples --analyse--> targets --quantise--> symbols --synthesise--> samples

Samples of images are float32 [B, 3, H, W] in -1..1, H and W multiples of the coarsest stride; of audio
[B, 1, N]. Symbols of a plane of indices are [B, h, w] or [B, T], of a plane of latents [B, h, w, M].
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..bitstream.container import LEARNED
from ..errors import UsageError
from ..priors.base import Array, EntropyModel, PlanePrior, Prior, Step, Symbols
from ..priors.gaussian_tables import LATENT_UNIT
from ..priors.settings import Config
from .card import Card, Figures, Json, Setting
from .trainable import DISCRIMINATOR, Discriminator, LossStep, RoundTrip, Trainable

if TYPE_CHECKING:
    from .latent.integers import IntegerVAE

Progress = Callable[[int, int], None]
"""Callback of the number of blocks done and the number of all blocks."""

RD_LAMBDA = 0.01
"""Slope of the rate-distortion curve at about 0.4 bits per pixel, of models with one operating point."""


@dataclass(frozen=True)
class Plane:
    """One grid of integers of a model, coarse planes first.

    Attributes:
        name: for example "codes", "y", "top".
        stride: samples per position, along each axis.
        depth: integers per position: 1 index, or M channels of latents.
        alphabet: size K of the codebook; None: signed latents, stored in 1/16 of their step.
        missing: what stands for symbols that a damaged file lacks; None: nothing is decoded without them.
    """

    name: str
    stride: int
    depth: int = 1
    alphabet: int | None = None
    missing: int | None = None

    def empty(self, grid: tuple[int, ...]) -> Array:
        """Return zeros for the symbols of a grid: int32 of its shape, or int16 [*grid, M] for latents."""
        return np.zeros(grid, np.int32) if self.alphabet else np.zeros((*grid, self.depth), np.int16)

    def symbols(self, targets: Array) -> Array:
        """Return the symbols nearest to targets: indices as they are, latents in 1/16 steps."""
        if self.alphabet:
            return targets
        limits = np.iinfo(np.int16)
        found: NDArray[np.int16] = (
            np.rint(LATENT_UNIT * targets).clip(limits.min, limits.max).astype(np.int16)
        )
        return found

    @property
    def raw_bits(self) -> int:
        """Bits of an index packed at a fixed width."""
        return max(1, ((self.alphabet or 1) - 1).bit_length())


@dataclass(frozen=True)
class OperatingPoint(ABC):
    """A model at one quality index, with the effort of its encoder.

    Attributes:
        model: with its priors.
        index: quality index, 0..255.
        effort: 0..3, how long the encoder searches for better symbols; decoding does not depend on it.
    """

    model: Model
    index: int
    effort: int = 1

    whole: ClassVar[bool] = False
    """Whether `synthesise` needs all symbols at once, and bounds its memory itself."""

    @property
    @abstractmethod
    def planes(self) -> tuple[Plane, ...]:
        """Planes that are coded at this rate, in coding order."""

    @property
    @abstractmethod
    def halo(self) -> int:
        """Positions of the coarsest plane around a block on which its samples can depend."""

    @property
    def analysis_halo(self) -> int:
        """Positions around a block on which its symbols can depend."""
        return self.halo

    @property
    def stride(self) -> int:
        """Samples per position of the coarsest plane."""
        return max(plane.stride for plane in self.planes)

    @property
    def finest_stride(self) -> int:
        """Samples per position of the finest plane."""
        return min(plane.stride for plane in self.planes)

    @property
    def device(self) -> torch.device:
        """Device of the networks."""
        return self.model.device

    @property
    def rd_lambda(self) -> float:
        """Lambda: bits per pixel for a mean squared error of 1 in 8-bit units."""
        return RD_LAMBDA

    @abstractmethod
    def analyse(self, samples: Tensor) -> dict[str, Tensor]:
        """Map samples to the targets of each plane: indices int64, or latents float32 in steps."""

    def analyse_known(self, samples: Tensor) -> dict[str, Tensor]:
        """Analyse stored pixels next to coded ones, in decoding: alike everywhere if the synthesis is."""
        return self.analyse(samples)

    def quantise(self, step: Step, targets: Array, model: EntropyModel) -> NDArray[np.int32]:
        """Quantise the targets of a step in one region, by default to the nearest symbols."""
        del step
        return model.quantise(targets)

    @abstractmethod
    def synthesise(
        self, symbols: dict[str, Tensor], seed: int = 0, progress: Progress | None = None
    ) -> Tensor:
        """Map symbols to samples: the mean of the likelihood, or a sample of an autoregressive decoder.

        Args:
            symbols: of each plane.
            seed: of an autoregressive decoder.
            progress: called by slow decoders.
        """

    def in_preview(self, step: Step) -> bool:
        """Return whether a preview needs the symbols of this step; steps of a preview come first."""
        del step
        return False

    def preview(self, symbols: dict[str, Tensor]) -> Tensor | None:
        """Return samples at 1/8 of the size from the steps `in_preview`; None: there is no preview."""
        del symbols
        return None

    def neutral(self) -> dict[str, Array]:
        """Return the symbols of mid-grey or silence, far from its borders: an array per plane, [] or [M]."""
        model, halo = self.model, self.halo
        side = self.stride * (2 * halo + 1)
        nothing = torch.zeros(1, model.channels, *[side] * model.axes, device=self.device)
        with torch.inference_mode():
            found = model.at(self.index, effort=0).analyse(nothing)
        values = {}
        for plane in self.planes:
            middle = halo * (self.stride // plane.stride)
            values[plane.name] = plane.symbols(found[plane.name][(0, *[middle] * model.axes)].cpu().numpy())
        return values


class Model(Trainable):
    """A latent-variable model with card and priors.

    Card and priors are immutable: `equipped` returns another object, so that a cached model can be shared.
    """

    medium: ClassVar[str]
    """"image" or "audio"."""

    channels: ClassVar[int]
    axes: ClassVar[int]
    """Channels and axes of the samples: 3 and 2 for images, 1 and 1 for audio."""

    rate: ClassVar[int] = 0
    """Sample rate in hertz, for audio."""

    method: ClassVar[str]
    """Name of the method in its paper; medium and method choose the class."""

    stride: int
    """Samples per position of the coarsest plane."""

    points: ClassVar[int] = 1
    """Number of operating points: 256, or 1."""

    has_residual: ClassVar[bool] = False
    """Whether what the latents leave out of an image is coded at high qualities (`pipeline.ladder`)."""

    decoding: ClassVar[tuple[str, ...]]
    """Prefixes of the names of tensors that decoding depends on; the fingerprint covers them."""

    prior_methods: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Plane -> method of its learned prior, of models with several planes, in the order of training."""

    draws: ClassVar[bool] = False
    """Whether the decoder is autoregressive, so that a model is measured by the likelihood of samples."""

    lossless: ClassVar[bool] = False
    """Whether samples come back as they were: its bits alone measure a model."""

    validation_points: ClassVar[tuple[int, ...]] = (0,)
    """Quality indexes of validation during a training; none of models that code no files."""

    def __init__(self) -> None:
        super().__init__()
        self._card: Card | None = None
        self._priors: Mapping[int, Prior] = MappingProxyType({})

    @property
    def card(self) -> Card:
        """Model card."""
        if self._card is None:
            raise RuntimeError("a model without a card")
        return self._card

    @property
    def priors(self) -> Mapping[int, Prior]:
        """Priors over all planes, by their number in a chunk (`container.STATIC`, `container.LEARNED`)."""
        return self._priors

    def equipped(self, card: Card | None = None, priors: Mapping[int, Prior] | None = None) -> Self:
        """Return the same networks with another card, or other priors."""
        other = copy.copy(self)
        other._card = card or self._card
        other._priors = self._priors if priors is None else MappingProxyType(dict(priors))
        return other

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        other = copy.copy(self)
        memo[id(self)] = other
        for name, value in vars(self).items():
            # Priors are frozen, and mapping proxies cannot be copied.
            frozen = name in ("_priors", "_card", "integers")
            vars(other)[name] = value if frozen else copy.deepcopy(value, memo)
        return other

    @property
    def device(self) -> torch.device:
        """Device of the networks."""
        return next(self.parameters()).device

    @property
    def binary(self) -> bool:
        """Whether samples are black or white, -1 or 1."""
        return False

    @abstractmethod
    def at(self, index: int, effort: int = 1) -> OperatingPoint:
        """Return the operating point nearest to a quality index, 0..255."""

    @abstractmethod
    def priors_from(self, card: Card, tensors: Mapping[str, NDArray[np.generic]]) -> Mapping[int, Prior]:
        """Build the priors from the tensors of a weights file.

        Raises:
            ModelError: a method of a later version, or tensors that do not fit it.
            LookupError, ValueError: the card describes another prior.
        """

    @property
    def in_file_as_integers(self) -> tuple[str, ...]:
        """Prefixes of the names of a decoder's tensors that a weights file holds as `integer_tensors`."""
        return ()

    def integer_tensors(self) -> Mapping[str, NDArray[np.generic]]:
        """Return the networks that are integer arithmetic, besides priors, as a weights file holds them."""
        return {}

    def with_integers(self, tensors: Mapping[str, NDArray[np.generic]]) -> Self:
        """Return the model with those of its networks that a weights file holds as integers."""
        del tensors
        return self

    def decodes(self, other: Model) -> bool:
        """Return whether this model decodes the symbols of another one."""
        return other is self

    def generate(self, count: int, seed: int, temperature: float = 1.0) -> Tensor | None:
        """Draw samples without priors over integers, [count, C, ...]; None: this model has such priors."""
        del count, seed, temperature
        return None

    def in_integers(self) -> IntegerVAE:
        """Return the networks in whole numbers, of a model that codes sets of small pictures.

        Raises:
            UsageError: it codes none.
        """
        raise UsageError(f"{self.card.name} codes no sets of pictures", "-m vae-bits, or weights like it")

    # training

    @property
    def codec(self) -> Model:
        """Model of these samples and symbols: itself."""
        return self

    @classmethod
    def trains_prior_next(cls, config: Config) -> bool:
        """Return whether a training with these settings continues with a learned prior of the symbols."""
        del config
        return False

    @classmethod
    def can_start_as(cls, other: type[Model]) -> bool:
        """Whether `load_from` takes weights of another class: those of a case of this one, or the reverse."""
        return issubclass(cls, other) or issubclass(other, cls)

    def codebook(self, plane: str) -> Tensor | None:
        """Return the vectors of the indices of a plane, [K, D]; None: they have none."""
        del plane
        return None

    def with_prior(self, plane: str, prior: PlanePrior) -> Self:
        """The same networks with another learned prior of a plane."""
        del plane
        return self.equipped(priors={**self.priors, LEARNED: prior})

    def fit_tables(self, regions: Iterable[Symbols], seed: int) -> Self:
        """Return the model with priors fitted once it is trained: by default as it is.

        Args:
            regions: symbols of the training data.
            seed: of random choices.
        """
        del regions, seed
        return self

    def round_trip(self, samples: Tensor, index: int = 0) -> RoundTrip:
        """Encode and decode in memory, without effort, as in `Trainable.round_trip`."""
        point = self.at(index, effort=0)
        found = point.analyse(samples)
        return RoundTrip({p.name: found[p.name] for p in point.planes if p.alphabet}, point.synthesise(found))

    @torch.no_grad()
    def load_from(self, other: Model, count: float) -> None:
        """Load all tensors of a model of the same settings, as in `Trainable.load_from`."""
        del count
        self.load_state_dict(other.state_dict())

    def export(self) -> Model:
        """Return the model to save: itself."""
        return self

    def make_card(self, name: str, training: Figures, measured: Figures) -> Card:
        """Make the model card, as in `Trainable.make_card`."""
        figures = dict(measured)
        sizes = [p.numel() for n, p in self.named_parameters() if not n.startswith(DISCRIMINATOR)]
        return Card(
            name,
            self.medium,
            self.method,
            self.config.to_json(),
            parameters=sum(sizes),
            points=figures.pop("points", ()),
            measured={"validation": figures},
            training=training,
            learned=self._card.learned if self._card is not None and LEARNED in self.priors else None,
        )


__all__ = [
    "DISCRIMINATOR",
    "Card",
    "Discriminator",
    "Figures",
    "Json",
    "LossStep",
    "Model",
    "OperatingPoint",
    "Plane",
    "Progress",
    "RoundTrip",
    "Setting",
    "Symbols",
    "Trainable",
]
