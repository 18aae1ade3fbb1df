"""The interface of models with one latent vector per picture, of a fixed size.

    x --posterior--> q(z | x) --sample--> z --likelihood--> p(x | z),   z ~ p(z)

Pictures x are float32 [B, C, S, S] in 0..1; latents z are [B, M]. All likelihoods and divergences are sums
over pixels and units, in nats per picture. Such a model codes no .vqc files: its latents are real numbers,
and pictures have one size. It is trained, inspected and sampled.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NoReturn

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from ...errors import UsageError
from ...priors.base import Prior
from ...priors.settings import Config, setting
from ..base import Card, Model, RoundTrip

LOG_VARIANCES = -12.0, 8.0
"""Bounds of log variances: without them a unit that is not used, or a picture without noise, gives NaN."""

LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class Posterior:
    """q(z | x) = N(mean, diag exp(log_variance)), [B, M] each."""

    mean: Tensor
    log_variance: Tensor

    def sample(self) -> Tensor:
        """Draw z = mean + sigma * epsilon, epsilon ~ N(0, I) (the reparametrisation trick): [B, M]."""
        return self.mean + (0.5 * self.log_variance).exp() * torch.randn_like(self.mean)

    def log_density(self, z: Tensor) -> Tensor:
        """Return log q(z | x), in nats: [..., B, M] -> [..., B]."""
        return log_normal(z, self.mean, self.log_variance).sum(-1)


def log_normal(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return log N(x; mean, exp(log_variance)) of every element, in nats."""
    return -0.5 * (LOG_2PI + log_variance + (x - mean).square() / log_variance.exp())


@dataclass(frozen=True)
class LatentConfig(Config):
    """Settings of pictures, likelihood and latents.

    Attributes:
        side: height and width of a picture, in pixels.
        channels: 1 (gray) or 3 (RGB).
        units: M, the size of the latent vector.
        likelihood: p(x | z): "gaussian" with one variance for all pixels, "bernoulli" for pixels of 0 and 1.
        variance: of the Gaussian likelihood, pixels being 0..1; 0: one learned variance.
    """

    side: int = setting(28, low=4, high=256)
    channels: int = setting(1, low=1, high=3)
    units: int = setting(50, low=1, high=1 << 12)
    likelihood: Literal["gaussian", "bernoulli"] = "bernoulli"
    variance: float = setting(0.0, low=0, high=1e6)

    def check(self) -> None:
        """Refuse values out of range, as in `Config.check`."""
        super().check()
        if self.channels == 2:
            raise UsageError("channels is 2", "give 1 (gray) or 3 (RGB)")


class LatentModel(Model):
    """A model with one latent vector per picture."""

    medium = "image"
    channels, axes = 3, 2
    stride = 1
    validation_points = ()
    decoding = ("",)
    config: LatentConfig

    @abstractmethod
    def posterior(self, x: Tensor) -> Posterior:
        """Compute q(z | x)."""

    @abstractmethod
    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """Compute log p(x | z), in nats: [B, C, S, S], [B, M] -> [B]."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """Return the mean of p(x | z), or draw from an autoregressive one: [B, M] -> [B, C, S, S] in 0..1."""

    def kl(self, posterior: Posterior) -> Tensor:
        """Return KL(q(z | x) || N(0, I)) of every unit, in nats: [B, M] (Kingma and Welling, appendix B)."""
        mean, log_variance = posterior.mean, posterior.log_variance
        return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)

    def log_prior(self, z: Tensor) -> Tensor:
        """Return log p(z) under the prior of `sample_prior`, N(0, I), in nats: [..., M] -> [...]."""
        return -0.5 * (LOG_2PI + z.square()).sum(-1)

    def auxiliary_kl(self, posterior: Posterior) -> Tensor | None:
        """Return KL(q(z | x) || auxiliary prior), in nats, [B]; None: there is no such prior."""
        del posterior
        return None

    def sample_prior(self, count: int, generator: torch.Generator, temperature: float = 1.0) -> Tensor:
        """Draw latents from p(z), whose standard deviation is multiplied by the temperature: [count, M]."""
        return torch.randn(count, self.config.units, generator=generator).to(self.device) * temperature

    @property
    def noise_variance(self) -> Tensor | None:
        """Variance of the Gaussian likelihood, [], pixels being 0..1; None: another likelihood."""
        return None

    @property
    def rate_weight(self) -> float:
        """Weight of the rate in the loss: with a Gaussian likelihood, a factor of its variance."""
        return 1.0

    def rate_cost(self, kl: Tensor) -> Tensor:
        """Return what the loss has for the rate, in nats: here the KL of all units, [B, M] -> []."""
        return kl.sum(1).mean()

    # between pictures and samples

    @property
    def binary(self) -> bool:
        """Whether pixels are 0 or 1."""
        return self.config.likelihood == "bernoulli"

    def pictures(self, samples: Tensor) -> Tensor:
        """Convert samples, [B, 3, H, W] in -1..1, to pictures; a multiple of their size is shrunk by means.

        Pixels of 0 and 1 are not shrunk: means are neither.

        Raises:
            UsageError: another size.
        """
        side, (height, width) = self.config.side, samples.shape[2:]
        if height != width or height % side or (self.binary and height > side):
            raise UsageError(
                f"pictures are {width}x{height}, the model's {side}x{side}",
                f"train with --set side={height}" if height == width else "give square pictures",
            )
        x = (samples + 1) / 2
        if self.config.channels == 1:
            x = x[:, :1] if self.binary else x.mean(1, keepdim=True)
        return F.avg_pool2d(x, height // side) if height > side else x

    def generate(self, count: int, seed: int, temperature: float = 1.0) -> Tensor:
        """Draw pictures, as in `Model.generate`; the temperature is that of `sample_prior`."""
        generator = torch.Generator().manual_seed(seed % (1 << 63))
        with torch.random.fork_rng([]), torch.inference_mode():
            torch.manual_seed(seed % (1 << 63))
            x = self.decode(self.sample_prior(count, generator, temperature))
        return x.expand(-1, 3, -1, -1) * 2 - 1

    def round_trip(self, samples: Tensor, index: int = 0) -> RoundTrip:
        """Decode the posterior's mean, as in `Trainable.round_trip`."""
        del index
        x = self.decode(self.posterior(self.pictures(samples)).mean)
        return RoundTrip({}, x.expand(-1, 3, -1, -1) * 2 - 1)

    def at(self, index: int, effort: int = 1) -> NoReturn:
        """Refuse to code files.

        Raises:
            UsageError: always.
        """
        side = self.config.side
        raise UsageError(
            f"{self.card.name} codes no image files: it maps {side}x{side} pixels to real numbers",
            "inspect or sample it; encode with vae-image",
        )

    def priors_from(self, card: Card, tensors: Mapping[str, NDArray[np.generic]]) -> Mapping[int, Prior]:
        """Return no priors over integers."""
        del card, tensors
        return {}
