"""A codec at one place on its dial, as coding takes it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..errors import ModelError
from ..priors.gaussian import GaussianPrior
from .variable_rate import BRIGHTEST, ScalarCodec, lagrangian


@dataclass(frozen=True)
class Point:
    """A codec with its dial at a place.

    Samples are float32 [B, 3, H, W] in -1..1, latents [B, h, w, M] in sixteenths of a step, h = H / stride.

    Attributes:
        codec: with its prior.
        place: 0..DIAL.
    """

    codec: ScalarCodec
    place: int

    @property
    def stride(self) -> int:
        """Pixels per latent, along each side."""
        return self.codec.stride

    @property
    def halo(self) -> int:
        """Latents around a block that its samples, or its latents, can depend on."""
        return self.codec.halo

    @property
    def device(self) -> torch.device:
        """Where the networks run."""
        return self.codec.device

    @property
    def prior(self) -> GaussianPrior:
        """p(latents)."""
        if self.codec.learned is None:
            raise ModelError("a model without its prior", "copy the file again")
        return self.codec.learned

    @property
    def multiplier(self) -> float:
        """Lambda: bits per pixel for a mean squared error of 1 in steps of 8 bits."""
        return float(lagrangian(torch.tensor(float(self.place))))

    @cached_property
    def steps(self) -> Tensor:
        """Width of each channel's step: float32 [M]."""
        exponents = self.prior.exponents(self.place).to(self.device)
        return self.codec.deviation * torch.exp2(-exponents.float() / 16)

    @property
    def _told(self) -> Tensor:
        return torch.full((1,), float(self.place), device=self.device)

    def analyse(self, samples: Tensor) -> Tensor:
        """Samples -> what the codes are rounded from: float32 [B, h, w, M], in steps."""
        codec = self.codec
        pixels = samples * (BRIGHTEST / 2) - codec.mean[:, None, None]
        return codec.transform(pixels, self._told).permute(0, 2, 3, 1) / self.steps

    def synthesise(self, latents: Tensor) -> Tensor:
        """Latents -> samples."""
        codec = self.codec
        real = latents.float() * (self.steps / 16)
        pixels = codec.inverse(real.permute(0, 3, 1, 2), self._told)
        return (pixels + codec.mean[:, None, None]) * (2 / BRIGHTEST)

    def glance(self, latents: Tensor, slices: int) -> Tensor:
        """Means of 8 x 8 pixels from the first slices of the latents alone: [B, 3, H / 8, W / 8]."""
        codec, last = self.codec, self.prior.shape.slices[slices - 1].stop
        real = latents[..., :last].float() * (self.steps[:last] / 16)
        pixels = codec.glance(real.permute(0, 3, 1, 2))
        return (pixels + codec.mean[:, None, None]) * (2 / BRIGHTEST)
