"""VAE-GAN (Larsen et al. 2016): the likelihood of a VAE is measured in the features of a discriminator.

    L_prior = KL(q(z | x) || p(z))
    L_like  = E_q[-log N(D_l(x); D_l(x~), s2 I)],   x~ = Dec(z), D_l: features of the discriminator
    L_GAN   = log D(x) + log(1 - D(x~)) + log(1 - D(Dec(z_p))),   z_p ~ p(z)

    encoder: L_prior + L_like,   decoder: gamma L_like - L_GAN,   discriminator: -L_GAN   (algorithm 1)

The paper has s2 = 1. As with pixels, a given variance decides how many nats the units may tell; here it is
the best one for each batch, the mean squared difference (Rybkin et al. 2021, the optimal sigma-VAE).

The decoder's part of L_GAN is -log D(x~) - log D(Dec(z_p)), the form that does not saturate (Goodfellow et
al. 2014, section 3). The pixel likelihood of the VAE stays as a measure: its variance is learned, and nothing
else gets gradients from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ...errors import UsageError
from ...priors.settings import setting
from ..base import Discriminator, LossStep
from . import networks, vae
from .base import log_normal

EQUILIBRIUM, MARGIN = 0.68, 0.4
"""Cost of the discriminator, in nats of a picture, around which both sides learn: ln 2 is that of a guess."""

LEAST_VARIANCE = 1e-6
"""Of the likelihood of features."""


@dataclass(frozen=True)
class Config(vae.Config):
    """Settings of a VAE-GAN.

    Attributes:
        side, channels, units, variance: see `LatentConfig`.
        network, hidden: see `vae.Config`.
        gamma: weight of the likelihood in the decoder's loss.
        features: channels of the discriminator's first convolution; the next have two and four times as many.
    """

    likelihood: Literal["gaussian", "bernoulli"] = "gaussian"
    network: networks.Kind = "conv"
    hidden: int = setting(256, low=1, high=1 << 14)
    linear_start: bool = False
    gamma: float = setting(0.1, low=1e-9, high=1e6, training_only=True)
    features: int = setting(32, low=1, high=1 << 12, training_only=True, fixed_on_resume=True)

    def check(self) -> None:
        """Refuse values out of range, as in `Config.check`."""
        super().check()
        for name, only in (("likelihood", "gaussian"), ("decoder", "factorised"), ("linear_start", False)):
            if (value := getattr(self, name)) != only:
                raise UsageError(f"a VAE-GAN with {name}={value}", f"leave it at {only}")
        if self.side < 8:
            raise UsageError(
                f"side is {self.side}", "at least 8 pixels, which the discriminator halves thrice"
            )


class PictureDiscriminator(Discriminator):
    """Three convolutions of stride 2, the last of which gives the features, and one layer."""

    def __init__(self, side: int, channels: int, width: int) -> None:
        super().__init__()
        self.convolutions = networks.started(
            nn.Conv2d(channels, width, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 4 * width, 4, 2, 1),
        )
        self.score = nn.Linear(4 * width * (side // 8) ** 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits, high for real pictures, [B], and features, [B, F], of pictures [B, C, S, S]."""
        features = self.convolutions(2 * x - 1).flatten(1)
        return self.score(F.leaky_relu(features, 0.2))[:, 0], features

    def loss(self, reconstruction: Tensor, samples: Tensor) -> LossStep:
        """Compute -L_GAN, as in `Discriminator.loss`; the unreal pictures are those of z and of z_p."""
        real, unreal = self(samples)[0], self(reconstruction)[0]
        terms = {"real": F.softplus(-real).mean(), "unreal": F.softplus(unreal).mean()}
        # Two kinds of unreal pictures, each in as many copies as there are real ones.
        return LossStep(terms["real"] + 2 * terms["unreal"], terms)

    def learns(self, step: LossStep) -> bool:
        """Return whether the discriminator is not too far ahead, as in `Discriminator.learns`."""
        least = torch.minimum(step.terms["real"], step.terms["unreal"])
        return bool(least >= EQUILIBRIUM - MARGIN)


class VAEGAN(vae.VAE):
    """VAE with a discriminator behind its decoder."""

    method = "VAE-GAN"
    config: Config
    discriminator: PictureDiscriminator

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.discriminator = PictureDiscriminator(config.side, config.channels, config.features)
        self._decoder_learns = torch.ones(())
        for parameter in self.decoder.parameters():
            parameter.register_hook(self._gate)  # type: ignore[no-untyped-call]

    def _gate(self, gradient: Tensor) -> Tensor:
        """Return the gradient of a parameter of the decoder, 0 while the decoder does not learn."""
        return gradient * self._decoder_learns

    def maps(self, z: Tensor) -> Tensor:
        """Return the mean of every pixel, in 0..1."""
        return super().maps(z).sigmoid()

    def loss(self, samples: Tensor) -> LossStep:
        """Compute the losses of encoder and decoder as one, each of whose parts reaches its own network."""
        x, gamma = self.pictures(samples), self.config.gamma
        posterior = self.posterior(x)
        z = posterior.sample()
        rate = self.kl(posterior).sum(1).mean()
        # gamma L_like of the decoder is L_like of the encoder: the gradient by z is divided by gamma.
        reconstruction = self.maps(z / gamma + (z - z / gamma).detach())
        logits, features = self.discriminator(x)
        ours = self.discriminator(reconstruction)[1]
        variance = (features.detach() - ours).square().mean().clamp(min=LEAST_VARIANCE)
        like = 0.5 * features.shape[1] * variance.log()
        # No gradient of L_GAN reaches the encoder.
        unreal = self.maps(torch.cat((z.detach(), torch.randn_like(z))))
        scores = self.discriminator(unreal)[0]
        adversarial = 2 * F.softplus(-scores).mean()
        costs = torch.stack((F.softplus(-logits).mean(), F.softplus(scores).mean())).detach()
        behind, ahead = costs.max() > EQUILIBRIUM + MARGIN, costs.min() < EQUILIBRIUM - MARGIN
        self._decoder_learns = (~behind | ahead).to(x.dtype)
        pixels = -log_normal(x, reconstruction.detach(), self.bounded_log_variance).flatten(1).sum(1).mean()
        terms = {"rate": rate, "features": like, "adversarial": adversarial, "distortion": pixels}
        terms |= {"elbo": -(pixels + rate), "decoder_learns": self._decoder_learns}
        loss = rate + gamma * like + adversarial + (pixels - pixels.detach())
        return LossStep(loss, terms, kept={"reconstruction": unreal.detach(), "samples": x})
