"""VAE (Kingma and Welling 2014, "Auto-Encoding Variational Bayes") with one latent vector per picture.

For example, with `units=50`: x [128, 1, 28, 28] -> q(z | x): mean and log variance [128, 50] -> z [128, 50]
-> the mean of p(x | z), [128, 1, 28, 28].

The likelihood is Gaussian with one variance for all pixels, learned unless it is given, or Bernoulli for
pixels of 0 and 1. Its decoder may be autoregressive (`networks.AutoregressiveDecoder`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ...errors import UsageError
from ...priors.settings import setting
from .. import ppca
from ..base import LossStep
from ..networks import start_at_zero
from . import networks
from .base import LOG_VARIANCES, LatentConfig, LatentModel, Posterior, log_normal
from .integers import IntegerVAE

LEAST_VARIANCE = 1e-5
"""Of the likelihood after the linear start, pixels being 0..1: below that of rounding to 8 bits."""

DROPOUT_UNTIL = 0.5
"""Share of the training after which an autoregressive decoder sees all pixels before."""

START_PICTURES, START_ROWS = 20_000, 1000
"""Training pictures that the linear start is fitted to; of which so many make one product of matrices."""


@dataclass(frozen=True)
class Config(LatentConfig):
    """Settings of a VAE.

    Attributes:
        side, channels, units, likelihood, variance: see `LatentConfig`.
        network: kind of encoder and decoder, see `networks.encoder`.
        hidden: width of their hidden layers.
        decoder: "factorised", or autoregressive: "local", "pixelcnn".
        pixelcnn_width, pixelcnn_blocks: channels and residual blocks of the autoregressive part.
        context_dropout: share of the pixels that the autoregressive part does not see at first, so that it
            learns to ask z (Bowman et al. 2016, section 3.2, but falling to 0 by DROPOUT_UNTIL).
        linear_start: whether a Gaussian VAE with a factorised decoder has linear layers parallel to its
            networks, set to pPCA before the first step.
    """

    network: networks.Kind = "mlp"
    hidden: int = setting(200, low=1, high=1 << 14)
    decoder: networks.Strength = "factorised"
    pixelcnn_width: int = setting(16, low=1, high=1 << 12)
    pixelcnn_blocks: int = setting(4, low=0, high=64)
    context_dropout: float = setting(0.0, low=0, high=1, training_only=True)
    linear_start: bool = True

    @property
    def has_linear_parts(self) -> bool:
        """Whether linear layers are parallel to the networks."""
        return self.linear_start and self.likelihood == "gaussian" and self.decoder == "factorised"

    def check(self) -> None:
        """Refuse values out of range, as in `Config.check`."""
        super().check()
        if self.network == "conv" and self.side % 4:
            raise UsageError(f"side is {self.side}", "give a multiple of 4, or --set network=mlp")
        if self.has_linear_parts and self.units > self.channels * self.side**2:
            raise UsageError(f"units is {self.units}", f"at most {self.channels * self.side**2} pixels")


THUMBNAIL = Config(side=32, channels=3, units=128, likelihood="gaussian", network="conv", hidden=256)
"""A Gaussian VAE of photos shrunk to 32x32 pixels."""


class VAE(LatentModel):
    """Variational autoencoder.

    Attributes:
        encoder: x -> mean and log variance of q(z | x), [B, 2 M].
        decoder: z -> parameters of p(x | z), or the maps that an autoregressive decoder is given.
        pixels: the autoregressive decoder, or None.
        log_variance: log of the variance of the Gaussian likelihood.
        linear_encoder, linear_decoder: added to encoder and decoder, see `Config.linear_start`.
    """

    method = "VAE of small pictures"
    slow = ("linear_",)
    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        kind, side, channels, hidden = config.network, config.side, config.channels, config.hidden
        self.encoder = networks.encoder(kind, side, channels, hidden, 2 * config.units)
        self.pixels: networks.AutoregressiveDecoder | None = None
        maps = channels
        if config.decoder != "factorised":
            maps = config.pixelcnn_width
            self.pixels = networks.AutoregressiveDecoder(
                config.decoder, channels, maps, config.pixelcnn_blocks
            )
            self.pixels.dropout.fill_(config.context_dropout)
        self.decoder = networks.decoder(kind, side, maps, hidden, config.units)
        self.log_variance = nn.Parameter(torch.tensor(config.variance or 0.05).log())
        self.log_variance.requires_grad_(config.likelihood == "gaussian" and not config.variance)
        self.linear_encoder: nn.Linear | None = None
        self.linear_decoder: nn.Linear | None = None
        if config.has_linear_parts:
            self.linear_encoder = nn.Linear(channels * side**2, config.units)
            self.linear_decoder = nn.Linear(config.units, channels * side**2)

    # section 2.2: the variational bound

    def loss(self, samples: Tensor) -> LossStep:
        """Compute the negative ELBO of a batch, in nats per picture (eq. 3 with one sample of z).

        -ELBO = E_q[-log p(x | z)] + KL(q(z | x) || p(z)) = distortion + rate
        """
        x = self.pictures(samples)
        posterior = self.posterior(x)
        distortion = -self.log_likelihood(x, posterior.sample()).mean()
        kl = self.kl(posterior)
        rate = kl.sum(1)
        terms = {"elbo": -(distortion + rate.mean()), "distortion": distortion, "rate": rate.mean()}
        return LossStep(distortion + self.rate_cost(kl), terms, kept={"rate": rate.detach()})

    def update(self, step: LossStep, progress: float, generator: torch.Generator) -> dict[str, int]:
        """Hide fewer pixels from the autoregressive decoder, as in `Trainable.update`."""
        if self.pixels is not None:
            self.pixels.dropout.fill_(self.config.context_dropout * max(0.0, 1 - progress / DROPOUT_UNTIL))
        return super().update(step, progress, generator)

    # appendix C: encoder and decoder

    def posterior(self, x: Tensor) -> Posterior:
        """Compute q(z | x), its log variances bounded (appendix C.2)."""
        mean, log_variance = self.encoder(x).chunk(2, 1)
        if self.linear_encoder is not None:
            mean = mean + self.linear_encoder(x.flatten(1))
        return Posterior(mean, log_variance.clamp(*LOG_VARIANCES))

    def maps(self, z: Tensor) -> Tensor:
        """Return the mean (Gaussian) or logit (Bernoulli) of every pixel, or what `pixels` is given."""
        maps: Tensor = self.decoder(z)
        return maps if self.linear_decoder is None else maps + self.linear_decoder(z).view_as(maps)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """Compute log p(x | z), as in `LatentModel.log_likelihood` (appendix C.1, C.2)."""
        maps = self.maps(z)
        parameters = maps if self.pixels is None else self.pixels(x, maps)
        if self.binary:
            return -F.binary_cross_entropy_with_logits(parameters, x, reduction="none").flatten(1).sum(1)
        return log_normal(x, parameters, self.bounded_log_variance).flatten(1).sum(1)

    @property
    def bounded_log_variance(self) -> Tensor:
        """Log of the variance of the Gaussian likelihood, [], within bounds."""
        return self.log_variance.clamp(*LOG_VARIANCES)

    @property
    def noise_variance(self) -> Tensor | None:
        """Variance of the Gaussian likelihood, as in `LatentModel.noise_variance`."""
        return None if self.binary else self.bounded_log_variance.exp()

    def decode(self, z: Tensor) -> Tensor:
        """Return the mean of p(x | z), or draw from an autoregressive one, as in `LatentModel.decode`."""
        maps = self.maps(z)
        if self.pixels is not None:
            return self.pixels.draw(maps, self.config.channels, self._drawn)
        return maps.sigmoid() if self.binary else maps.clamp(0, 1)

    def _drawn(self, parameters: Tensor) -> Tensor:
        """Draw pixels from their parameters."""
        if self.binary:
            return parameters.sigmoid().bernoulli()
        noise = torch.randn_like(parameters) * (0.5 * self.bounded_log_variance).exp()
        return (parameters + noise).clamp(0, 1)

    def in_integers(self) -> IntegerVAE:
        """Return the networks in whole numbers, as in `Model.in_integers`.

        Raises:
            UsageError: the likelihood is not Bernoulli, or pixels are not independent given z.
            ModelError: other networks than "mlp".
        """
        if not self.binary or self.pixels is not None or self.config.network != "mlp":
            return super().in_integers()
        return IntegerVAE(self.encoder, self.decoder)

    # linear start

    @torch.no_grad()
    def start(self, draw: Callable[[int], Tensor], generator: torch.Generator) -> None:
        """Start a Gaussian VAE as pPCA, its networks ending in zeros.

        Args:
            draw: returns the n-th batch of samples, [B, 3, H, W] in -1..1.
            generator: unused.

        Raises:
            UsageError: pictures are not of the model's size.
        """
        del generator
        size = len(self.pictures(draw(0)))
        if self.linear_encoder is None or self.linear_decoder is None:
            return

        def batches() -> Iterator[Tensor]:
            count, together = -(-START_PICTURES // size), -(-START_ROWS // size)
            for first in range(0, count, together):
                numbers = range(first, min(first + together, count))
                yield torch.cat([self.pictures(draw(n)).flatten(1) for n in numbers])

        self.set_linear(ppca.fit(*ppca.moments(batches()), self.config.units))

    @torch.no_grad()
    def set_linear(self, linear: ppca.PPCA) -> None:
        """Become a pPCA: with a fixed variance of the likelihood the best one with that.

        A weight of the rate is a factor of that variance.
        """
        if self.linear_encoder is None or self.linear_decoder is None:
            raise ValueError("a VAE without linear parts")
        # Fewer pictures than units leave no noise, and a rate without bound.
        noise = self.config.variance or max(linear.noise_variance, LEAST_VARIANCE)
        linear = linear.with_noise(noise * self.rate_weight if self.config.variance else noise)
        for network in (self.encoder, self.decoder):
            last = [layer for layer in network if isinstance(layer, nn.Linear | nn.Conv2d)][-1]
            start_at_zero(last)
        means, variances = linear.posterior(torch.zeros_like(linear.mean)[None])
        self.linear_encoder.weight.copy_((linear.weights / linear.variances).t())
        self.linear_encoder.bias.copy_(means[0])
        self.linear_decoder.weight.copy_(linear.weights)
        self.linear_decoder.bias.copy_(linear.mean)
        self.encoder[-1].get_parameter("bias")[self.config.units :] = variances.log()
        self.log_variance.fill_(noise).log_()
