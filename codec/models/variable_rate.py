"""Variable-rate VAE: quantisation, prior and loss, common to all transforms.

The ELBO of a VAE (Kingma and Welling 2014, eq. 3) is, for an image x and latents y,

    log p(x) >= E_q [ log p(x | y) ]  -  KL( q(y | x) || p(y) )

The posterior q is a uniform distribution, one step wide, around the encoder's output (Balle, Laparra,
Simoncelli 2017, section 3). Its entropy is the constant log 1 = 0 in units of the step, so that the KL term
is E_q [ -log p(y) ]: the *rate*, the cost of entropy-coding the latents. A Gaussian likelihood of
fixed variance makes the other term a squared error, the *distortion*. So the negative ELBO, in bits, is

    rate + lambda * distortion            lambda = 1 / beta of the beta-VAE (Higgins et al. 2017)

Sampling the posterior, y + u with u uniform, is the reparametrisation; coding rounds instead. As in Minnen
and Singh 2020 (section 3.3) the rate is that of noisy latents, the distortion that of rounded latents with
the gradient passed straight through. Where a latent is nearly certain, its symbol is 0 and it is decoded as
its mean: there the gradient of the distortion reaches the mean as well.

Regions are coded independently, and so are parts of crops in training (`cutting`). The distortion may be a
mixture of the squared error and 1 - MS-SSIM (`rate_distortion.distortion`).

One model covers all rates: training draws lambda for each image of a batch, the networks are conditioned on
its quality index, and each latent channel has a step that depends on it (gain vectors; Cui et al. 2021,
"gained VAE"). A latent is coded as an integer number of steps from its mean under the context model
(`priors.context`), and stored in sixteenths of its step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..bitstream.container import LEARNED
from ..bitstream.quality import LAST_INDEX
from ..errors import ModelError
from ..metrics.image import psnr_db
from ..priors import PREFIX, context, exact, gaussian
from ..priors.base import Prior
from ..priors.context import ContextModel, Shape
from ..priors.gaussian import GaussianPrior
from ..priors.gaussian_tables import LATENT_UNIT, SCALE_MAX, SCALE_MIN
from ..priors.scale_mixtures import ScaleMixtures
from ..priors.settings import Config, setting
from . import cutting
from .base import Card, Figures, LossStep, Model, RoundTrip
from .discriminators import PatchDiscriminator
from .exact_synthesis import IntegerSynthesis
from .losses import ms_ssim
from .rate_distortion import (
    INDICES_PER_LAMBDA_DOUBLING,
    NEARLY_CERTAIN,
    WHITE,
    distortion,
    likelihood,
    rd_loss,
)
from .trainable import DISCRIMINATOR
from .variable_rate_point import VariableRatePoint


@dataclass(frozen=True)
class VariableRateConfig(Config):
    """Settings of every variable-rate VAE; limits keep the integer sums of the prior exact (1,032 inputs).

    Attributes:
        components: M, channels of the latents.
        context_width, context_hidden, context_blocks, context_near, context_levels: of the prior, see
            `context.Shape`.
        end_step: step of the first slice at the ends of a region, see `GaussianPrior`.
    """

    components: int = setting(320, low=1, high=628, may_shrink=True)
    context_width: int = setting(64, low=1, high=114)
    context_hidden: int = setting(48, low=1, high=1024)
    context_blocks: int = setting(1, low=0, high=100)
    context_near: int = setting(48, low=3, high=128)
    context_levels: int = setting(1, low=1, high=4, may_grow=True)
    end_step: int = setting(
        LATENT_UNIT, low=LATENT_UNIT // 2, high=LATENT_UNIT, may_grow=True, may_shrink=True
    )


class VariableRateVAE(Model):
    """Base of variable-rate VAEs: steps, prior and loss; a subclass adds `analysis` and `synthesis`.

    Samples are float32 [B, 3, H, W] in -1..1, H and W multiples of `stride`; latents float32 [B, M, h, w] in
    units of pixel values 0..255 under an orthonormal transform, h = H / stride.

    Attributes:
        deviation: standard deviation of each channel of the latents over the training images.
        offset, slope: of each channel's step, see `log2_gain`.
        layers: of the context model, in training.
        mixtures: of the latents around their means, in training.
    """

    medium = "image"
    channels, axes = 3, 2
    stride = 16
    points = LAST_INDEX + 1
    has_residual = True

    validation_points = (51, 86, 121, 155, 180, 230)  # lambda .0018, .0044, .011, .026, .05, .18

    uses_rdoq: ClassVar[bool] = False
    """Whether quantisation is rate-distortion optimised: a trained analysis network gains nothing by it."""

    shares: tuple[float, float] = 0.0, 0.0
    """Shares of MS-SSIM in the distortion, and of luma in MS-SSIM, see `rate_distortion.distortion`."""

    weights: Mapping[str, float] = MappingProxyType({})
    """Of the terms of a discriminator, as shares of the squared error."""

    discriminator: PatchDiscriminator | None

    trains_latents: bool = True
    """Whether a training changes more than the synthesis."""

    integers: IntegerSynthesis | None = None
    """The synthesis in integers; None: it is computed in floating point."""

    config: VariableRateConfig
    deviation: Tensor
    mean: Tensor

    def __init__(self, config: VariableRateConfig) -> None:
        super().__init__()
        self.config = config
        self.shape = Shape(
            config.components,
            config.context_width,
            config.context_hidden,
            config.context_blocks,
            config.context_near,
            config.context_levels,
        )
        self.layers = context.layers_in_training(self.shape)
        self.mixtures = ScaleMixtures(len(self.shape.steps))
        self.register_buffer("deviation", torch.ones(config.components))
        self.register_buffer("mean", torch.zeros(3))
        self.offset = nn.Parameter(torch.zeros(config.components))
        self.slope = nn.Parameter(torch.zeros(config.components))

    # defined by subclasses

    @property
    def halo(self) -> int:
        """Positions around a block on which its samples, or its latents, can depend."""
        raise NotImplementedError

    def analysis(self, pixels: Tensor, index: Tensor) -> Tensor:
        """Map pixels less their mean colour, [B, 3, H, W] in 8-bit units, to latents [B, M, h, w]: g_a."""
        raise NotImplementedError

    def linear_analysis(self, pixels: Tensor) -> Tensor:
        """Map pixels to latents by a linear transform, of models whose synthesis is in integers."""
        raise NotImplementedError

    def synthesis(self, latents: Tensor, index: Tensor) -> Tensor:
        """Map latents to pixels less their mean colour: g_s."""
        raise NotImplementedError

    def preview(self, latents: Tensor) -> Tensor:
        """Map the first latents, [B, m, h, w], to means of 8 x 8 pixels less their mean colour."""
        raise NotImplementedError

    # coding

    def at(self, index: int, effort: int = 1) -> VariableRatePoint:
        """Return the operating point of a quality index."""
        return VariableRatePoint(self, index, effort)

    def priors_from(self, card: Card, tensors: Mapping[str, NDArray[np.generic]]) -> Mapping[int, Prior]:
        """Build the conditional Gaussian, as in `Model.priors_from`."""
        del card
        arrays = {n.removeprefix(PREFIX): array for n, array in tensors.items() if n.startswith(PREFIX)}
        return {LEARNED: GaussianPrior(arrays, shape=self.shape, end_step=self.config.end_step)}

    def decodes(self, other: Model) -> bool:
        """Return whether another model has the same latents, with the same probabilities."""
        if not (isinstance(other, VariableRateVAE) and self.shape == other.shape and other.priors):
            return False
        ours, theirs = ({**m.prior.arrays, "mixture": m.prior.mixture} for m in (self, other))
        return (
            self.config.end_step == other.config.end_step
            and torch.equal(self.deviation, other.deviation)
            and all(np.array_equal(ours[name], theirs[name]) for name in ours)
        )

    def latents(self, samples: Tensor, index: Tensor) -> Tensor:
        """Compute the mean of the posterior, in steps of the latents: -> [B, M, h, w].

        Args:
            samples: [B, 3, H, W] in -1..1.
            index: quality index, float32 [B], 0..LAST_INDEX.
        """
        pixels = samples * (WHITE / 2) - self.mean[:, None, None]
        latents = self.analysis(pixels, index)
        return latents / self._maps(self.step(index))

    def reconstruct(self, latents: Tensor, index: Tensor) -> Tensor:
        """Compute the mean of p(x | y), for latents in steps: -> [B, 3, H, W] in -1..1."""
        pixels = self.synthesis(latents * self._maps(self.step(index)), index)
        return (pixels + self.mean[:, None, None]) * (2 / WHITE)

    def log2_gain(self, index: Tensor) -> Tensor:
        """Return log2 of the ratio of deviation to step, rounded to sixteenths: [B] -> [B, M].

        At high rates a step of sqrt(26 / lambda) would be optimal, where the slope of the rate-distortion
        curve of all channels is lambda; `offset` and `slope` are the learned deviation from it. Gradients
        pass.
        """
        gain_slope, gain_offset = self.line()
        whole = torch.floor((gain_offset + gain_slope * index[:, None].double()) * 2.0**-16)
        log2_lambda = index[:, None] / INDICES_PER_LAMBDA_DOUBLING - 11
        log2_step = 0.5 * (math.log2(26) - log2_lambda) + self.offset + self.slope * log2_lambda
        real = self.deviation.log2() - log2_step
        return real + (whole.float() / 16 - real).detach()

    @torch.no_grad()
    def line(self) -> tuple[Tensor, Tensor]:
        """Return slope and offset of `log2_gain` over the index, [M], in 2**-20, half of 2**-4 included."""
        slope = (0.5 - self.slope) / INDICES_PER_LAMBDA_DOUBLING
        offset = self.deviation.log2() - 0.5 * math.log2(26) - self.offset - 11 * (0.5 - self.slope)
        unit = 2.0**20
        return torch.round(slope.double() * unit), torch.round(offset.double() * unit + unit / 32)

    def step(self, index: Tensor) -> Tensor:
        """Return the step of each channel, the width of the posterior: [B] -> [B, M]."""
        return self.deviation * torch.exp2(-self.log2_gain(index))

    # training

    def loss(self, samples: Tensor) -> LossStep:
        """Compute the weighted mean of the negative ELBO at random quality indexes.

        The terms are "rate" in bits per pixel, "distortion", the mean squared error of 8-bit values, and
        "mixture", the distortion of the loss.
        """
        (count, _, height, width), device = samples.shape, samples.device
        stratum = torch.arange(count, device=device) + torch.rand(count, device=device)
        index = torch.floor(stratum / count * self.points).clamp(max=LAST_INDEX)
        with torch.set_grad_enabled(self.trains_latents):
            latents = self.latents(samples, index)
            parts = cutting.random_parts(count, latents.shape[2], latents.shape[3], device)
            counts: list[Tensor] = []
            rounded, bits = self.quantise(latents, index, noisy=True, parts=parts, counts=counts)
        rate = bits / (height * width)
        reconstruction = self.reconstruct(rounded, index)
        mixture, error = distortion(reconstruction, samples, index, *self.shares)
        terms = {"rate": rate.mean(), "distortion": error.mean(), "mixture": mixture.mean()}
        kept = {"counts": torch.stack(counts)[None]}
        if self.discriminator is None:
            return LossStep(rd_loss(rate, mixture, index), terms, kept=kept)
        judged = self.discriminator.judge(reconstruction, samples)
        unlike = sum(self.weights[name] * term for name, term in judged.items())
        kept |= {"reconstruction": reconstruction.detach(), "samples": samples}
        loss = rd_loss(rate, mixture + error.detach() * unlike, index)
        return LossStep(loss, terms | judged, kept=kept)

    def update(self, step: LossStep, progress: float, generator: torch.Generator) -> dict[str, int]:
        """Update the mixtures, as in `Trainable.update`."""
        del progress, generator
        if self.trains_latents:
            self.mixtures.update(step.kept["counts"])
        return {}

    def log_figures(self, terms: Mapping[str, float]) -> dict[str, float]:
        """Compute the PSNR, as in `Trainable.log_figures`."""
        return {"psnr_db": psnr_db(terms["distortion"], peak=WHITE)}

    def round_trip(self, samples: Tensor, index: int = 0) -> RoundTrip:
        """Encode and decode in memory by the context model in training, as in `Trainable.round_trip`."""
        indexes = torch.full((len(samples),), float(index), device=samples.device)
        rounded, bits = self.quantise(self.latents(samples, indexes), indexes, noisy=False)
        decoded = self.reconstruct(rounded, indexes)
        pixels = samples.shape[0] * samples.shape[2] * samples.shape[3]
        whole = torch.round((decoded + 1) * (WHITE / 2)).clamp(0, WHITE) * (2 / WHITE) - 1
        mixture, _ = distortion(whole, samples, indexes, *self.shares)
        loss = rd_loss(bits * len(samples) / pixels, mixture, indexes)
        figures = {"ms_ssim": float(ms_ssim(whole, samples).mean())}
        return RoundTrip({}, decoded, float(bits.sum()), pixels, float(loss), figures)

    def quantise(
        self,
        latents: Tensor,
        index: Tensor,
        *,
        noisy: bool,
        parts: Tensor | None = None,
        counts: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return latents as decoded, [B, M, h, w] in steps, and the bits of each image, [B].

        Args:
            latents: [B, M, h, w], in steps.
            index: [B].
            noisy: measure the rate of a sample of the posterior, not of rounded latents.
            parts: as in `ContextModel`: coded independently, their gradients less at ends.
            counts: gets those of the symbols of each step, for `ScaleMixtures.update`.
        """
        count, size, height, width = latents.shape
        targets = latents.permute(0, 2, 3, 1).flatten(0, 2)
        owner = torch.arange(count, device=latents.device).repeat_interleave(height * width)
        log2_gains = self.log2_gain(index)
        layers, grids, arithmetic = dict(self.layers.items()), (count, height, width), context.FakeQuantized()
        model = ContextModel(self.shape, layers, arithmetic, grids, context.condition(index), parts)
        ends = (
            cutting.at_ends(grids, parts, latents.device) & (index < gaussian.END_STEP_BELOW)[:, None, None]
        )
        ends = ends.view(-1, 1)
        end_fineness = LATENT_UNIT / self.config.end_step - 1
        decoded = torch.zeros_like(targets)
        bits = latents.new_zeros(count)
        for number, (s, p) in enumerate(self.shape.steps):
            part, positions = self.shape.slices[s], model.positions(s, p)
            log2_gain = log2_gains[owner[positions], part]
            params = model.params(s, p)
            if parts is not None:
                params = cutting.less_at_ends(params, positions, grids)
            mean, log2_sigma = exact.limited(params).chunk(2, 1)
            mean = exact.rounded(mean * torch.exp2(log2_gain), 4)
            target = targets[positions, part]
            finer = 1 + end_fineness * ends[positions] * (s == 0)
            log2_scale = (log2_gain + log2_sigma + finer.log2()).clamp(SCALE_MIN / 16, SCALE_MAX / 16)
            residual = (target - mean) * finer
            error = residual.detach()
            coded = log2_scale > (SCALE_MIN + 1.5) / 16
            value = target + (torch.round(error) * coded - error) / finer
            value = value + (mean - mean.detach()) * (log2_scale < NEARLY_CERTAIN)
            if counts is not None:
                counts.append(self.mixtures.counts(error, log2_scale))
            residual = residual + (torch.rand_like(error) - 0.5 if noisy else torch.round(error) - error)
            weights, scales = self.mixtures.of(number, log2_scale)
            spent = -likelihood(residual, scales, weights).log2().sum(1)
            bits = bits.index_add(0, owner[positions], spent)
            channels = torch.arange(part.start, part.stop, device=positions.device)
            decoded = decoded.index_put((positions[:, None], channels), value)
            model.update(s, p, context.features(value, log2_gain))
        return decoded.view(count, height, width, size).permute(0, 3, 1, 2), bits

    def set_moments(self, mean: Tensor, deviation: Tensor) -> None:
        """Set the mean colour, [3], and the deviation of each channel of the latents, [M]."""
        self.mean.copy_(mean)
        self.deviation.copy_(deviation)

    def export(self) -> VariableRateVAE:
        """Return the model with its prior in integers, as in `Trainable.export`.

        Raises:
            ModelError: a layer exceeds the exact range of float32.
        """
        layers = {name: cast("exact.QATLinear", layer) for name, layer in self.layers.items()}
        prior = gaussian.export(layers, self.shape, self.line(), self.config.end_step, self.mixtures.export())
        return self.equipped(priors={LEARNED: prior})

    def make_card(self, name: str, training: Figures, measured: Figures) -> Card:
        """Make the card without settings of training alone: the fingerprint covers the card's settings."""
        card, limits = super().make_card(name, training, measured), self.config.limits()
        return replace(card, config={k: v for k, v in card.config.items() if not limits[k].training_only})

    @torch.no_grad()
    def load_from(self, other: Model, count: float) -> None:
        """Load the weights, or those of the first channels for a smaller model, as in `Trainable.load_from`.

        Channels do not depend on later ones, so that the probabilities of the remaining channels stay.
        """
        del count
        if not isinstance(other, VariableRateVAE):
            raise TypeError(f"{other.method} is no variable-rate VAE")
        known = other.state_dict()
        for name, tensor in self.state_dict().items():
            if not name.startswith(("layers.", "mixtures.", DISCRIMINATOR)):
                tensor.copy_(known[name][tuple(slice(size) for size in tensor.shape)])
        steps = [context.step_before(step, other.shape, self.shape) for step in self.shape.steps]
        rows = [other.shape.steps.index(step) for step in steps]
        self.mixtures.take(other.prior.mixture[rows])
        before = context.layers_in_training(other.shape)
        for name, layer in before.items():
            cast("exact.QATLinear", layer).take(other.prior.layers[name])
        self.layers.load_state_dict(context.fitted(before.state_dict(), other.shape, self.shape))

    @property
    def prior(self) -> GaussianPrior:
        """Conditional Gaussian in integers."""
        prior = self.priors.get(LEARNED)
        if not isinstance(prior, GaussianPrior):
            raise ModelError("the model has no prior", "copy the weights file again")
        return prior

    @staticmethod
    def _maps(values: Tensor) -> Tensor:
        return values[:, :, None, None]
