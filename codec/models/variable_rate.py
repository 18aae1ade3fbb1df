"""What every codec with rounded latents does, whatever its transform: the VAE in its rate-distortion form.

The ELBO of a VAE (Kingma and Welling 2014, eq. 3) is, for a picture x and latents y,

    log p(x) >= E_q [ log p(x | y) ]  -  KL( q(y | x) || p(y) )

The posterior q is a uniform distribution, one step wide, around the encoder's output (Balle, Laparra,
Simoncelli 2017, section 3). Its entropy is the constant log 1 = 0 in units of the step, so that the KL term
is E_q [ -log p(y) ]: the *rate*, what an entropy coder spends on rounded latents. A Gaussian likelihood of
fixed variance makes the other term a squared error, the *distortion*. So the negative ELBO, in bits, is

    rate + lambda * distortion            lambda = 1 / beta of the beta-VAE (Higgins et al. 2017)

Sampling the posterior, y + u with u uniform, is the reparametrisation; rounding is what coding does in its
place. As in Minnen and Singh 2020 (section 3.3) the rate is taken of noisy latents, the distortion of rounded
ones with the gradient passed straight through.

One model serves all rates: lambda is drawn anew for each picture of a batch and told to the networks, and a
step per latent channel follows it (gain vectors; Cui et al. 2021). A latent is coded as an integer number of
steps from its mean under the prior (`priors.context`), and held in sixteenths of its step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..bitstream.quality import DIAL
from ..coding.rangecoder import TOTAL
from ..priors import context, exact, gaussian
from ..priors import gaussian_tables as normal
from ..priors.context import Shape, Walk
from ..priors.gaussian import GaussianPrior

OCTAVE = 27
"""Places on the dial over which lambda doubles."""

WEIGHTING = 0.4
"""Losses are weighed by lambda to minus this, so that no end of the dial outshouts the other."""

BRIGHTEST = 255.0
"""Errors are told in squares of 8-bit values."""

SHRINKABLE = {"components"}
"""Settings that may be smaller than those of the weights that a training starts from."""

RANGES: dict[str, tuple[float, float]] = {
    "components": (1, 628),
    "context_width": (1, 114),
    "context_hidden": (1, 1024),
    "context_blocks": (0, 100),
    "context_near": (3, 128),
}
"""Setting -> the smallest and the largest value: no layer of the prior has more than 1,032 inputs."""


def lagrangian(place: Tensor) -> Tensor:
    """Return lambda, bits per pixel for a mean squared error of 1: 2**-11 at 0, 0.34 at DIAL."""
    return torch.exp2(place / OCTAVE - 11)


def weight(multiplier: Tensor) -> Tensor:
    """What the loss at this lambda is multiplied by."""
    return (multiplier / 0.01) ** -WEIGHTING


class ScalarCodec(nn.Module):
    """Steps, prior and loss; a method's class adds `transform` and `inverse`.

    Samples are float32 [B, 3, H, W] in -1..1, H and W multiples of `stride`; latents float32 [B, M, h, w] in
    units of pixel values 0..255 under an orthonormal transform, h = H / stride.

    Attributes:
        deviation: standard deviation of each channel of the latents over the training pictures.
        offset, slope: of each channel's step, see `ratio`.
        layers: of the prior, in training.
    """

    medium = "image"
    channels, axes = 3, 2
    stride = 16
    method: str
    networks: tuple[str, ...] = ()
    decoding: tuple[str, ...]
    """Prefixes of the tensors that a decoder needs; the fingerprint is taken over them."""

    slow: tuple[str, ...] = ()
    """Prefixes of the parameters that learn more slowly than the rest."""

    searched = False
    """Whether codes nearer to zero are taken where their bits outweigh the error (rate-distortion optimised
    quantisation). An encoder that is trained has learned it: a search brings it nothing."""

    critics = None
    codes = 0
    """There is no codebook."""

    deviation: Tensor
    mean: Tensor

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.shape = Shape(
            config.components,
            config.context_width,
            config.context_hidden,
            config.context_blocks,
            config.context_near,
        )
        self.layers = context.layers_in_training(self.shape)
        self.register_buffer("deviation", torch.ones(config.components))
        self.register_buffer("mean", torch.zeros(3))
        self.offset = nn.Parameter(torch.zeros(config.components))
        self.slope = nn.Parameter(torch.zeros(config.components))
        self.card: dict[str, Any] = {}
        self.prior = None
        self.learned: GaussianPrior | None = None

    @property
    def device(self) -> torch.device:
        """Where the networks run."""
        return self.deviation.device

    # what a method adds

    @property
    def halo(self) -> int:
        """Latents around a block that its samples, or its latents, can depend on."""
        raise NotImplementedError

    def transform(self, pixels: Tensor, place: Tensor) -> Tensor:
        """Pixels less their mean colour, [B, 3, H, W] in steps of 8 bits -> latents [B, M, h, w]."""
        raise NotImplementedError

    def inverse(self, latents: Tensor, place: Tensor) -> Tensor:
        """Latents -> pixels less their mean colour."""
        raise NotImplementedError

    def glance(self, latents: Tensor) -> Tensor:
        """The first of the latents, [B, m, h, w] -> means of 8 x 8 pixels less their mean colour."""
        raise NotImplementedError

    # coding

    def latents(self, samples: Tensor, place: Tensor) -> Tensor:
        """The mean of the posterior, in steps of the latents.

        Args:
            samples: [B, 3, H, W] in -1..1.
            place: on the dial, float32 [B], 0..DIAL.
        """
        pixels = samples * (BRIGHTEST / 2) - self.mean[:, None, None]
        latents = self.transform(pixels, place)
        return latents / self._maps(self.step(place))

    def reconstruct(self, latents: Tensor, place: Tensor) -> Tensor:
        """Mean of p(x | y), for latents in steps: -> [B, 3, H, W] in -1..1."""
        pixels = self.inverse(latents * self._maps(self.step(place)), place)
        return (pixels + self.mean[:, None, None]) * (2 / BRIGHTEST)

    def ratio(self, place: Tensor) -> Tensor:
        """log2 of a channel's standard deviation over its step, in whole sixteenths: [B] -> [B, M].

        At high rates a step of sqrt(26 / lambda) would be optimal: the slope of the rate-distortion curve of
        all channels is lambda then. `offset` and `slope` are what is learned beside it. Gradients pass.
        """
        rise, start = self.line()
        whole = torch.floor((start + rise * place[:, None].double()) * 2.0**-16)
        octaves = place[:, None] / OCTAVE - 11
        step = 0.5 * (math.log2(26) - octaves) + self.offset + self.slope * octaves
        real = self.deviation.log2() - step
        return real + (whole.float() / 16 - real).detach()

    @torch.no_grad()
    def line(self) -> tuple[Tensor, Tensor]:
        """Rise and start of `ratio` as a straight line over the dial, in 2**-20, half of 2**-4 included."""
        slope = (0.5 - self.slope) / OCTAVE
        start = self.deviation.log2() - 0.5 * math.log2(26) - self.offset - 11 * (0.5 - self.slope)
        unit = 2.0**20
        return torch.round(slope.double() * unit), torch.round(start.double() * unit + unit / 32)

    def step(self, place: Tensor) -> Tensor:
        """Width of the posterior of each channel: [B] -> [B, M]."""
        return self.deviation * torch.exp2(-self.ratio(place))

    # training

    def loss(self, samples: Tensor) -> dict[str, Tensor]:
        """The negative ELBO at random places on the dial.

        Returns:
            "loss", its weighted mean; "rate" in bits per pixel; "distortion", the mean squared error of 8-bit
            values.
        """
        count, device = len(samples), samples.device
        stratum = torch.arange(count, device=device) + torch.rand(count, device=device)
        place = torch.floor(stratum / count * (DIAL + 1)).clamp(max=DIAL)
        rate, distortion = self.measure(samples, place, noisy=True)
        multiplier = lagrangian(place)
        loss = ((rate + multiplier * distortion) * weight(multiplier)).mean()
        return {"loss": loss, "rate": rate.mean(), "distortion": distortion.mean()}

    def measure(self, samples: Tensor, place: Tensor, *, noisy: bool) -> tuple[Tensor, Tensor]:
        """Rate in bits per pixel and distortion in squares of 8-bit values, of each sample: [B] both.

        Args:
            samples: [B, 3, H, W].
            place: [B].
            noisy: take the rate of a sample of the posterior, not of rounded latents.
        """
        latents = self.latents(samples, place)
        rounded, bits = self.coded(latents, place, noisy=noisy)
        reconstruction = self.reconstruct(rounded, place)
        distortion = (reconstruction - samples).square().mean((1, 2, 3)) * (BRIGHTEST / 2) ** 2
        return bits / (samples.shape[2] * samples.shape[3]), distortion

    def coded(self, latents: Tensor, place: Tensor, *, noisy: bool) -> tuple[Tensor, Tensor]:
        """Latents as the decoder will have them, [B, M, h, w] in steps, and the bits of each picture, [B]."""
        count, size, height, width = latents.shape
        targets = latents.permute(0, 2, 3, 1).flatten(0, 2)
        owner = torch.arange(count, device=latents.device).repeat_interleave(height * width)
        ratio = self.ratio(place)
        layers = dict(self.layers.items())
        walk = Walk(self.shape, layers, context.Reals(), (count, height, width), condition(place))
        found = torch.zeros_like(targets)
        bits = latents.new_zeros(count)
        for s, p in self.shape.steps:
            part, where = self.shape.slices[s], walk.where(s, p)
            octaves = ratio[owner[where], part]
            mean, spread = exact.limited(walk.expect(s, p)).chunk(2, 1)
            mean = exact.rounded(mean * torch.exp2(octaves), 4)
            target = targets[where, part]
            logarithm = (octaves + spread).clamp(normal.NARROWEST / 16, normal.WIDEST / 16)
            error = (target - mean).detach()
            written = logarithm > (normal.NARROWEST + 1.5) / 16
            value = target + (torch.round(error) * written - error)
            residual = target - mean
            residual = residual + (torch.rand_like(error) - 0.5 if noisy else torch.round(error) - error)
            spent = -likelihood(residual, torch.exp2(logarithm)).log2().sum(1)
            bits = bits.index_add(0, owner[where], spent)
            channels = torch.arange(part.start, part.stop, device=where.device)
            found = found.index_put((where[:, None], channels), value)
            walk.put(s, p, features(value, octaves))
        return found.view(count, height, width, size).permute(0, 3, 1, 2), bits

    def update(self, progress: float, generator: torch.Generator) -> dict[str, Any]:
        """Nothing follows a step."""
        del progress, generator
        return {}

    def start(self, draw: Callable[[int], Tensor], generator: torch.Generator) -> None:
        """Set weights before the first step; `draw(n)` gives the n-th batch of samples."""
        raise NotImplementedError

    def finished(self) -> ScalarCodec:
        """The model that is saved: itself, with its prior in integers.

        Raises:
            ModelError: a layer is beyond what is exact.
        """
        self.learned = gaussian.export(self.layers, self.shape, self.line())  # type: ignore[arg-type]
        return self

    @torch.no_grad()
    def begin_from(self, other: Any, count: float) -> None:
        """Start from the weights of a trained model, the first of its channels where this one has fewer.

        What precedes a channel does not depend on it, so that those kept are coded as they were.

        Args:
            other: the model; no setting but its channels may be another.
            count: not needed.
        """
        del count
        known = other.state_dict()
        for name, tensor in self.state_dict().items():
            if not name.startswith("layers."):
                tensor.copy_(known[name][tuple(slice(size) for size in tensor.shape)])
        before = context.layers_in_training(other.shape)
        for name, layer in before.items():
            cast("exact.Linear", layer).take(other.learned.layers[name])
        self.layers.load_state_dict(context.first_channels(before.state_dict(), other.shape, self.shape))

    def describe(self, training: dict[str, Any], measured: dict[str, Any]) -> dict[str, Any]:
        """What its card says, but for its name."""
        figures = dict(measured)
        return {
            "medium": self.medium,
            "method": self.method,
            "config": asdict(self.config),
            "parameters": sum(p.numel() for p in self.parameters()),
            "points": figures.pop("points", []),
            "measured": {"validation": figures},
            "training": training,
        }

    def carry(self, other: Any) -> None:
        """Nothing is kept beside the weights."""

    @staticmethod
    def _maps(values: Tensor) -> Tensor:
        return values[:, :, None, None]


def likelihood(residual: Tensor, sigma: Tensor) -> Tensor:
    """Mass of N(0, sigma**2) within half a step of a residual in steps, and the floor of the tables."""
    size = residual.abs()
    upper, lower = (torch.special.ndtr((edge - size) / sigma) for edge in (0.5, -0.5))
    mass: Tensor = upper - lower + normal.FLOOR / TOTAL
    return mass


def features(values: Tensor, octaves: Tensor) -> Tensor:
    """Latents in steps as the prior's layers take them, [N, n] -> [N, 2 n]: over their deviation; compressed.

    Args:
        values: in steps.
        octaves: log2 of deviation over step.
    """
    return exact.embedded(torch.cat((values * torch.exp2(-octaves), torch.asinh(values)), 1))


def condition(place: Tensor) -> Tensor:
    """The place on the dial as the prior's layers take it: [B] -> [B, 1], in sixteenths."""
    told: Tensor = torch.floor((place - 128) / 2)[:, None] / 2**exact.ACTIVATION
    return told
