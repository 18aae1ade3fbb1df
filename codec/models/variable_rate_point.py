"""The operating points of variable-rate VAEs: latents of one quality index to samples and back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..priors.base import Array, EntropyModel, Step
from ..priors.gaussian_tables import LATENT_UNIT, Gaussian, powers
from .base import OperatingPoint, Plane, Progress
from .exact_lapped import SAMPLE_BITS
from .rate_distortion import ERROR_SCALE, WHITE, rd_lambda

if TYPE_CHECKING:
    from .variable_rate import VariableRateVAE

PREVIEW_SLICES = 1
"""Number of slices of channels in a preview."""


@dataclass(frozen=True)
class VariableRatePoint(OperatingPoint):
    """A variable-rate VAE at a quality index: one plane of latents."""

    model: VariableRateVAE

    @property
    def planes(self) -> tuple[Plane, ...]:
        """Plane of the latents."""
        return (Plane("y", self.model.stride, depth=self.model.shape.channels),)

    @property
    def halo(self) -> int:
        """Positions around a block on which its samples can depend, as in `OperatingPoint.halo`."""
        return self.model.halo

    @property
    def rd_lambda(self) -> float:
        """Lambda: bits per pixel for a mean squared error of 1 in 8-bit units."""
        return float(rd_lambda(torch.tensor(float(self.index))))

    @cached_property
    def steps(self) -> Tensor:
        """Step of each channel: float32 [M]."""
        log2_gains = self.model.prior.log2_gains(self.index).to(self.device)
        return self.model.deviation * torch.exp2(-log2_gains.float() / 16)

    @cached_property
    def rd_tradeoff(self) -> NDArray[np.float32]:
        """Bits equivalent to a squared error of one step, for each channel: float32 [M]."""
        steps: NDArray[np.float32] = self.steps.square().cpu().numpy()
        return np.float32(ERROR_SCALE * self.rd_lambda) * steps

    @property
    def _index(self) -> Tensor:
        return torch.full((1,), float(self.index), device=self.device)

    def analyse(self, samples: Tensor) -> dict[str, Tensor]:
        """Map samples to latents, float32 [B, h, w, M] in steps, as in `OperatingPoint.analyse`."""
        model = self.model
        pixels = samples * (WHITE / 2) - model.mean[:, None, None]
        return {"y": model.analysis(pixels, self._index).permute(0, 2, 3, 1) / self.steps}

    def analyse_known(self, samples: Tensor) -> dict[str, Tensor]:
        """Map samples to latents by linear analysis where the synthesis is in integers, exact in float64."""
        model = self.model
        if model.integers is None:
            return self.analyse(samples)
        mean = torch.from_numpy(model.integers.arrays["mean"]).to(samples.device)[:, None, None]
        levels = torch.round((samples.double() + 1) * (WHITE / 2)) - mean * 2.0**-SAMPLE_BITS
        steps = model.deviation.double() * powers(-model.prior.log2_gains(self.index)).to(samples.device)
        return {"y": model.linear_analysis(levels).permute(0, 2, 3, 1) / steps}

    def quantise(self, step: Step, targets: Array, model: EntropyModel) -> NDArray[np.int32]:
        """Quantise to the nearest symbols or, with effort and a model that gains by it, by RDOQ."""
        if self.effort and self.model.uses_rdoq and isinstance(model, Gaussian):
            return model.quantise(targets, self.rd_tradeoff[step.positions[0][-1]])
        return model.quantise(targets)

    def synthesise(
        self, symbols: dict[str, Tensor], seed: int = 0, progress: Progress | None = None
    ) -> Tensor:
        """Map latents to samples, as in `OperatingPoint.synthesise`."""
        del seed, progress
        model = self.model
        if model.integers is not None:
            log2_gains = model.prior.log2_gains(self.index)
            each = [model.integers.pixels(part[None], log2_gains, self.index) for part in symbols["y"]]
            return torch.stack(each).permute(0, 3, 1, 2).float() * (2 / WHITE) - 1
        latents = symbols["y"].float() * (self.steps / LATENT_UNIT)
        pixels = model.synthesis(latents.permute(0, 3, 1, 2), self._index)
        return (pixels + model.mean[:, None, None]) * (2 / WHITE)

    def in_preview(self, step: Step) -> bool:
        """Return whether a step codes the first slices of channels."""
        last: int = self.model.shape.slices[PREVIEW_SLICES - 1].stop
        return bool(step.positions[0][-1].stop <= last) if step.positions else False

    def preview(self, symbols: dict[str, Tensor]) -> Tensor:
        """Compute means of 8 x 8 pixels from the first slices of latents: [B, 3, H / 8, W / 8]."""
        model, last = self.model, self.model.shape.slices[PREVIEW_SLICES - 1].stop
        latents = symbols["y"][..., :last].float() * (self.steps[:last] / LATENT_UNIT)
        pixels = model.preview(latents.permute(0, 3, 1, 2))
        return (pixels + model.mean[:, None, None]) * (2 / WHITE)
