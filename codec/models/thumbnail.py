"""pPCA of thumbnails (Tipping and Bishop 1999): one vector per 32x32 pixels, for placeholders.

    p(x | z) = N(W z + mean, noise_variance I),   x: 208 low-frequency coefficients of a thumbnail

The fit is in closed form (`ppca.fit`), and so are the integers that placeholders are decoded by
(`placeholders.fitting`). Training needs no gradient: its one parameter, the deviations of the components,
starts where the likelihood is largest, and the loss tells how large that is. As a codec of .vqc files, the
model codes an image in blocks of 32x32 pixels, each by the factorised prior.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor, nn

from ..bitstream.container import LEARNED
from ..bitstream.quality import LAST_INDEX
from ..placeholders import fitting, layout
from ..placeholders.tables import PREFIX, WEIGHT_BITS, Tables
from ..priors.base import Prior
from ..priors.factorised import NAME, FactorisedPrior, log2_step
from ..priors.gaussian_tables import LATENT_UNIT
from ..priors.settings import Config as BaseConfig
from ..priors.settings import setting
from . import ppca
from .base import Card, Figures, LossStep, Model, OperatingPoint, Plane, Progress, RoundTrip

PLANE = "z"

CROPS_PER_IMAGE = 10
"""Thumbnails made of each image of a batch."""


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of the pPCA of thumbnails.

    Attributes:
        components: M, the number of components.
        thumbnails: number of training thumbnails that it is fitted to.
    """

    components: int = setting(192, low=1, high=layout.SIZE)
    thumbnails: int = setting(48_000, low=2 * layout.SIZE, high=1 << 20, training_only=True)


class ThumbnailPPCA(Model):
    """pPCA of the low frequencies of 32x32 pixels.

    Attributes:
        deviation: standard deviation of each latent, float32 [M].
        noise: variance per coefficient of what the components leave, float32 [].
        placeholder: buffers with the arrays of `placeholders.tables.Tables`.
    """

    medium = "image"
    channels, axes = 3, 2
    method = "pPCA of thumbnails"
    stride = layout.SIDE
    points = LAST_INDEX + 1
    validation_points: ClassVar[tuple[int, ...]] = (128,)
    decoding = ("learned.", PREFIX)

    config: Config
    noise: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        size, limits = config.components, fitting.table_limits()
        self.deviation = nn.Parameter(torch.ones(size))
        self.register_buffer("noise", torch.ones(()))
        arrays = Tables(
            np.eye(size, layout.SIZE, dtype=np.int8),
            np.zeros(layout.SIZE, np.int16),
            np.ones(size, np.int16),
            np.zeros(size, np.uint8),
            limits,
            np.ones(int((2 * limits.astype(int) + 1).sum()), np.int16),
        )
        self.placeholder = nn.Module()
        for field in fields(arrays):
            self.placeholder.register_buffer(field.name, torch.from_numpy(getattr(arrays, field.name)))

    def at(self, index: int, effort: int = 1) -> ThumbnailPoint:
        """Return the operating point of a quality index."""
        return ThumbnailPoint(self, index, effort)

    def priors_from(self, card: Card, tensors: Mapping[str, NDArray[np.generic]]) -> Mapping[int, Prior]:
        """Build the factorised prior, as in `Model.priors_from`."""
        del card
        return {LEARNED: FactorisedPrior(np.asarray(tensors[NAME]), PLANE)}

    @property
    def components(self) -> Tensor:
        """Components as coefficients of the orthonormal transform, float32 [M, D]."""
        basis, weights = self.placeholder.get_buffer("basis"), self.placeholder.get_buffer("weights")
        scale = weights.float()[:, None] / (1 << WEIGHT_BITS)
        components: Tensor = basis.float() * scale / self._units
        return components

    @property
    def mean(self) -> Tensor:
        """Mean of the coefficients, float32 [D]."""
        return self.placeholder.get_buffer("mean").float() / self._units

    @property
    def _units(self) -> Tensor:
        return torch.from_numpy(layout.units()).float().to(self.device)

    @cached_property
    def _patterns(self) -> Tensor:
        """Pixels of each coefficient: float32 [D, 3 * 32 * 32]."""
        return torch.from_numpy(layout.patterns()).float()

    def analysis(self, samples: Tensor) -> Tensor:
        """Map blocks to latents in 8-bit units: [B, 3, H, W] in -1..1 -> [B, h, w, M], by least squares."""
        blocks = F.pixel_unshuffle(samples * 127.5, self.stride).permute(0, 2, 3, 1)
        coefficients = blocks @ self._patterns.t().to(samples.device) - self.mean
        latents: Tensor = coefficients @ torch.linalg.pinv(self.components)
        return latents

    def synthesis(self, latents: Tensor) -> Tensor:
        """Map latents in 8-bit units, [B, h, w, M], to samples: [B, 3, H, W]."""
        coefficients = latents @ self.components + self.mean
        blocks = coefficients @ self._patterns.to(latents.device)
        return F.pixel_shuffle(blocks.permute(0, 3, 1, 2), self.stride) / 127.5

    # training

    @torch.no_grad()
    def start(self, draw: Callable[[int], Tensor], generator: torch.Generator) -> None:
        """Fit all of the model in closed form to thumbnails of the training crops.

        Args:
            draw: returns the n-th batch of samples, [B, 3, H, W] in -1..1.
            generator: chooses the parts of crops.
        """
        source = np.random.default_rng(int(torch.randint(1 << 31, (1,), generator=generator)))
        batches = [layout.analyse(t) for t in self._thumbnails(draw, source)]
        linear = ppca.fit(*ppca.moments(torch.from_numpy(b) for b in batches), self.config.components)
        deviations = linear.variances.clamp(min=1).sqrt()
        tables = fitting.fit(
            linear.components.numpy(), linear.mean.numpy(), deviations.numpy(), np.concatenate(batches)
        )
        self.deviation.copy_(deviations)
        self.noise.fill_(max(linear.noise_variance, 1.0))
        for field in fields(tables):
            self.placeholder.get_buffer(field.name).copy_(torch.from_numpy(getattr(tables, field.name)))

    def _thumbnails(
        self, draw: Callable[[int], Tensor], source: np.random.Generator
    ) -> Iterator[NDArray[np.uint8]]:
        """Yield as many thumbnails of random parts of crops as the settings ask for: uint8 [n, 32, 32, 3]."""
        left, number = self.config.thumbnails, 0
        while left > 0:
            crops = _pixels(draw(number))
            number += 1
            found = [_thumbnail(crop, source) for crop in crops for _ in range(CROPS_PER_IMAGE)][:left]
            left -= len(found)
            yield np.stack(found)

    def loss(self, samples: Tensor) -> LossStep:
        """Compute -log p(x), in nats per thumbnail, of crops shrunk to 32x32 pixels (eq. 4).

        The components stay; the deviations of the closed form are its minimum over all training thumbnails.
        """
        small = F.adaptive_avg_pool2d(samples, self.stride)
        blocks = F.pixel_unshuffle(small * 127.5, self.stride).flatten(1)
        centred = blocks @ self._patterns.t().to(samples.device) - self.mean
        latents = centred @ torch.linalg.pinv(self.components)
        rest = (centred - latents @ self.components).square().sum(1)
        variances = self.deviation.square()
        left = layout.SIZE - len(variances)
        nats = 0.5 * (
            layout.SIZE * math.log(2 * math.pi)
            + variances.log().sum()
            + left * self.noise.log()
            + (latents.square() / variances).sum(1)
            + rest / self.noise
        )
        return LossStep(nats.mean(), {"nats": nats.mean()})

    def round_trip(self, samples: Tensor, index: int = 0) -> RoundTrip:
        """Encode and decode in memory by the nearest symbols, as in `Trainable.round_trip`."""
        point = self.at(index)
        symbols = torch.round(point.analyse(samples)[PLANE]) * LATENT_UNIT
        return RoundTrip({}, point.synthesise({PLANE: symbols}))

    def export(self) -> Model:
        """Return the model with its factorised prior in integers, as in `Trainable.export`."""
        log2 = torch.round(16 * self.deviation.detach().clamp(min=1).log2())
        return self.equipped(priors={LEARNED: FactorisedPrior(log2.cpu().numpy().astype(np.int16), PLANE)})

    def make_card(self, name: str, training: Figures, measured: Figures) -> Card:
        """Make the card without settings of training alone: the fingerprint covers the card's settings."""
        card, limits = super().make_card(name, training, measured), self.config.limits()
        card = replace(card, parameters=self.config.components * layout.SIZE)
        return replace(card, config={k: v for k, v in card.config.items() if not limits[k].training_only})


def _pixels(samples: Tensor) -> NDArray[np.uint8]:
    """Convert samples, [B, 3, H, W] in -1..1, to uint8 [B, H, W, 3]."""
    whole = ((samples + 1) * 127.5).round().clamp(0, 255)
    pixels: NDArray[np.uint8] = whole.permute(0, 2, 3, 1).to(torch.uint8).cpu().numpy()
    return pixels


def _thumbnail(crop: NDArray[np.uint8], source: np.random.Generator) -> NDArray[np.uint8]:
    """Shrink a random part of a crop, of .45 to 1 of its sides and varied shape, to a thumbnail."""
    height, width = crop.shape[:2]
    scale, stretch = source.uniform(0.45, 1), 2 ** source.uniform(-0.3, 0.3)
    w, h = (min(side, max(8.0, side * scale * s)) for side, s in ((width, stretch), (height, 1 / stretch)))
    left, top = source.uniform(0, width - w), source.uniform(0, height - h)
    kind = PIL.Image.Resampling.LANCZOS if source.random() < 0.5 else PIL.Image.Resampling.BOX
    image = PIL.Image.fromarray(crop[:, ::-1] if source.random() < 0.5 else crop)
    small = image.resize((layout.SIDE, layout.SIDE), kind, (left, top, left + w, top + h))
    return np.asarray(small)


@dataclass(frozen=True)
class ThumbnailPoint(OperatingPoint):
    """The pPCA of thumbnails at a quality index: one plane of latents."""

    model: ThumbnailPPCA

    @property
    def planes(self) -> tuple[Plane, ...]:
        """Plane of the latents."""
        return (Plane(PLANE, self.model.stride, depth=self.model.config.components),)

    @property
    def halo(self) -> int:
        """Blocks around a block on which it depends: none."""
        return 0

    @property
    def _step(self) -> float:
        return float(2 ** (log2_step(self.index) / 16))

    def analyse(self, samples: Tensor) -> dict[str, Tensor]:
        """Map samples to latents in steps, float32 [B, h, w, M]."""
        return {PLANE: self.model.analysis(samples) / self._step}

    def synthesise(
        self, symbols: dict[str, Tensor], seed: int = 0, progress: Progress | None = None
    ) -> Tensor:
        """Map latents to samples, as in `OperatingPoint.synthesise`."""
        del seed, progress
        return self.model.synthesis(symbols[PLANE].float() * (self._step / LATENT_UNIT))
