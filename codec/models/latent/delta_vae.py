"""delta-VAE (Razavi et al. 2019): posteriors whose KL to the prior cannot fall below a committed rate.

In both forms the family of the posteriors does not contain the prior, and the distance between them is the
rate that no decoder, however strong, can make the encoder give up:

    independent   p(z) = N(0, I), and each posterior N(mu, v) is kept so far from it that its KL is at least
                  `delta`
    sequential    p(z) is a process AR(1) over a sequence of latents, whose posteriors are independent; the
                  encoder is anti-causal: the latent of a step sees its rows of the picture and those below

Once the model is trained, an auxiliary prior is fitted to the aggregate posterior, which lowers the rate and
is what samples are drawn from. Here it is the autoregressive prior with linear Gaussian conditionals: its
maximum likelihood is in closed form, a Cholesky factor of the covariance, and it contains both priors above.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor

from ...errors import TrainingError, UsageError
from ...priors.base import Symbols
from ...priors.settings import setting
from ..base import LossStep
from . import networks, vae
from .base import LOG_VARIANCES, LatentModel, Posterior, log_normal
from .integers import IntegerVAE

ROUNDING, SHARE = 1e-3, 1e-5
"""Nats per picture, and share of the bound, that sums in float32 may be short of it."""


@dataclass(frozen=True)
class Config(vae.Config):
    """Settings of a delta-VAE.

    Attributes:
        side, channels, likelihood, variance: see `LatentConfig`.
        network, hidden, decoder, pixelcnn_width, pixelcnn_blocks: see `vae.Config`.
        form: "sequential" or "independent".
        delta: committed rate of each unit, in nats, of the independent form.
        alpha: correlation of successive latents of a sequence, of the sequential form.
        steps: length of the sequence; each step has `side / steps` rows of pixels and `units / steps` units.
        units: M, of all steps together.
    """

    units: int = setting(28, low=1, high=1 << 12)
    decoder: networks.Strength = "pixelcnn"
    linear_start: bool = False
    form: Literal["sequential", "independent"] = "sequential"
    delta: float = setting(0.25, low=1e-4, high=5)
    alpha: float = setting(0.9, low=0, high=0.999)
    steps: int = setting(14, low=2, high=256)

    def check(self) -> None:
        """Refuse values out of range, as in `Config.check`."""
        super().check()
        if self.linear_start:
            raise UsageError("a delta-VAE with linear_start", "leave it out: pPCA commits no rate")
        if self.form == "sequential" and (self.side % self.steps or self.units % self.steps):
            raise UsageError(f"steps is {self.steps}", f"divide side ({self.side}) and units ({self.units})")


def variance_bounds(delta: float) -> tuple[float, float]:
    """Return the roots of ln v - v + 2 delta + 1 = 0: between them, N(0, v) has a KL to N(0, 1) below delta.

    By Newton's method, from below the smaller root and above the larger one: ln v - v is concave.
    """
    level = 2 * delta + 1
    roots = []
    for v in (math.exp(-level), 2 * level + 2):
        for _ in range(60):
            v -= (math.log(v) - v + level) / (1 / v - 1)
        roots.append(v)
    return roots[0], roots[1]


def ar1_bound(alpha: float, steps: int) -> float:
    """Return the least KL of independent Gaussians over a sequence to a process AR(1), in nats per dimension.

    1/2 [(n - 2) ln(1 + a^2) - ln(1 - a^2)]: that of means 0 and the variances of a step given all the others,
    1 - a^2 at both ends and (1 - a^2) / (1 + a^2) between.
    """
    return 0.5 * ((steps - 2) * math.log1p(alpha**2) - math.log1p(-(alpha**2)))


class DeltaVAE(vae.VAE):
    """VAE with a committed rate.

    Attributes:
        fitted: whether the auxiliary prior is fitted, 0 or 1.
        auxiliary_mean, auxiliary_factor: N(mean, L L^T), [M] and [M, M].
    """

    method = "delta-VAE"
    config: Config
    fitted: Tensor
    auxiliary_mean: Tensor
    auxiliary_factor: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.sequential = config.form == "sequential"
        if self.sequential:
            side, steps, inputs = config.side, config.steps, config.channels
            maps = inputs if self.pixels is None else config.pixelcnn_width
            self.encoder = networks.anticausal_encoder(side, inputs, steps, config.hidden, 2 * config.units)
            self.decoder = networks.causal_decoder(side, maps, steps, config.hidden, config.units)
        self.bounds = variance_bounds(config.delta)
        self.register_buffer("fitted", torch.zeros(()))
        self.register_buffer("auxiliary_mean", torch.zeros(config.units))
        self.register_buffer("auxiliary_factor", torch.eye(config.units))

    @property
    def committed_rate(self) -> float:
        """Nats per picture below which no posterior can fall."""
        config = self.config
        if self.sequential:
            return config.units // config.steps * ar1_bound(config.alpha, config.steps)
        return config.units * config.delta

    def posterior(self, x: Tensor) -> Posterior:
        """Compute q(z | x); in the independent form |mu| >= sqrt(2 delta + 1 + ln v - v)."""
        mean, free = self.encoder(x).chunk(2, 1)
        if self.sequential:
            return Posterior(mean, free.clamp(*LOG_VARIANCES))
        low, high = self.bounds
        variance = low + (high - low) * free.sigmoid()
        log_variance = variance.log()
        least = (2 * self.config.delta + 1 + log_variance - variance).clamp(min=1e-9).sqrt()
        return Posterior(least + mean.relu(), log_variance)

    def kl(self, posterior: Posterior) -> Tensor:
        """Return KL(q(z | x) || p(z)), [B, M]; in the sequential form units are steps by dimensions."""
        if not self.sequential:
            return super().kl(posterior)
        mean, log_variance = self._sequence(posterior.mean), self._sequence(posterior.log_variance)
        variance, a2 = log_variance.exp(), self.config.alpha**2
        first = mean[:, :1].square() + variance[:, :1] - 1 - log_variance[:, :1]
        change = (mean[:, 1:] - self.config.alpha * mean[:, :-1]).square()
        ratio = (variance[:, 1:] + change + a2 * variance[:, :-1]) / (1 - a2)
        later = ratio - 1 - log_variance[:, 1:] + math.log1p(-a2)
        return 0.5 * torch.cat((first, later), 1).flatten(1)

    def in_integers(self) -> IntegerVAE:
        """Refuse to code sets: posteriors within bounds are not what `IntegerVAE` computes.

        Raises:
            UsageError: always.
        """
        return LatentModel.in_integers(self)

    def log_prior(self, z: Tensor) -> Tensor:
        """Return log p(z), as in `LatentModel.log_prior`: under the auxiliary prior once it is fitted."""
        if self.fitted:
            white = (z - self.auxiliary_mean) @ torch.linalg.inv(self.auxiliary_factor).t()
            return super().log_prior(white) - self.auxiliary_factor.diagonal().log().sum()
        if not self.sequential:
            return super().log_prior(z)
        sequence, a = self._sequence(z), self.config.alpha
        variance = z.new_tensor(1 - a * a).log()
        first = log_normal(sequence[:, 0], z.new_zeros(()), z.new_zeros(())).sum(-1)
        later = log_normal(sequence[:, 1:], a * sequence[:, :-1], variance)
        return first + later.flatten(1).sum(-1)

    def _sequence(self, z: Tensor) -> Tensor:
        """Arrange units as a sequence: [B, M] -> [B, n, M / n]."""
        return z.view(len(z), self.config.steps, -1)

    # the committed rate

    def loss(self, samples: Tensor) -> LossStep:
        """Compute the negative ELBO, as in `VAE.loss`."""
        step = super().loss(samples)
        step.terms["committed"] = step.loss.new_tensor(self.committed_rate)
        return step

    def update(self, step: LossStep, progress: float, generator: torch.Generator) -> dict[str, int]:
        """Check that no picture of the batch has a smaller rate than the committed one.

        Raises:
            TrainingError: one has.
        """
        least, committed = float(step.kept["rate"].min()), self.committed_rate
        if least < committed * (1 - SHARE) - ROUNDING:
            raise TrainingError(f"a rate of {least:.6g} nats, {committed:.6g} committed", "report this")
        return super().update(step, progress, generator)

    # the auxiliary prior

    @torch.no_grad()
    def fit_tables(self, regions: Iterable[Symbols], seed: int) -> Self:
        """Fit the auxiliary prior to the aggregate posterior, whose moments are those of the mixture.

        Args:
            regions: batches of "pictures".
            seed: unused.
        """
        del seed
        size = self.config.units
        count, total = 0, torch.zeros(size, dtype=torch.float64)
        products = torch.zeros(size, size, dtype=torch.float64)
        for region in regions:
            posterior = self.posterior(torch.from_numpy(region["pictures"]).to(self.device))
            mean = posterior.mean.double().cpu()
            count, total = count + len(mean), total + mean.sum(0)
            products += mean.t() @ mean + posterior.log_variance.double().exp().sum(0).cpu().diag()
        centre = total / count
        covariance = products / count - torch.outer(centre, centre)
        self.auxiliary_mean.copy_(centre)
        self.auxiliary_factor.copy_(torch.linalg.cholesky(covariance))
        self.fitted.fill_(1.0)
        return self

    def auxiliary_kl(self, posterior: Posterior) -> Tensor | None:
        """Return KL(q(z | x) || auxiliary prior), in nats: [B]; None until it is fitted."""
        if not self.fitted:
            return None
        factor = self.auxiliary_factor.double()
        centred = posterior.mean.double() - self.auxiliary_mean
        inverse = torch.linalg.inv(factor)
        spread = (posterior.log_variance.double().exp() @ inverse.square().t()).sum(1)
        distance = (centred @ inverse.t()).square().sum(1)
        determinant = 2 * factor.diagonal().log().sum() - posterior.log_variance.double().sum(1)
        divergence: Tensor = 0.5 * (spread + distance - len(factor) + determinant)
        return divergence

    def sample_prior(self, count: int, generator: torch.Generator, temperature: float = 1.0) -> Tensor:
        """Draw latents from the auxiliary prior, or the process AR(1) until it is fitted."""
        noise = super().sample_prior(count, generator, temperature)
        if self.fitted:
            return self.auxiliary_mean + noise @ self.auxiliary_factor.t()
        if not self.sequential:
            return noise
        steps, a = list(self._sequence(noise).unbind(1)), self.config.alpha
        for t in range(1, len(steps)):
            steps[t] = a * steps[t - 1] + math.sqrt(1 - a * a) * steps[t]
        return torch.stack(steps, 1).flatten(1)
