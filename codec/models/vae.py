"""The VAE as a codec: one model for every rate, initialised from pPCA.

For example: x [1, 3, 512, 512] -> y [1, 320, 32, 32], quantised with steps that follow lambda -> bits
-> x.

Both networks are corrections of a linear transform. The analysis transform is that of pPCA, with overlap: its
basis functions are 32 x 32 pixels in a raster of 16 x 16 (a lapped transform; Malvar 1990), whose centre
starts as the principal components of 16 x 16 blocks and whose margin starts at zero. The networks work at
1/16 and 1/64 of the pixels, and their last layers start at zero, so that training starts from pPCA with its
own prior, and the networks learn the nonlinear remainder. The loss is in `variable_rate`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ..bitstream.quality import LAST_INDEX
from ..errors import UsageError
from ..priors.settings import Config as BaseConfig
from ..priors.settings import setting
from . import exact_lapped, exact_synthesis, ppca, variable_rate
from .adaptive_rounding import round_weights
from .base import Model
from .discriminators import PatchDiscriminator
from .equalization import equalise
from .exact_synthesis import IntegerSynthesis
from .growth import grow
from .networks import residual_stack, start_at_zero
from .rate_distortion import WHITE
from .synthesis import LINEAR_UNIT, OUTPUT_SCALE, Decoder, Shape, with_index
from .trainable import DISCRIMINATOR
from .variable_rate import VariableRateVAE


@dataclass(frozen=True)
class Config(variable_rate.VariableRateConfig):
    """Settings of the VAE; cards of shipped models have their own values.

    Attributes:
        components: M, channels of the latents, at most 628.
        fine, fine_hidden: channels at 1/16 of the pixels, and inside the residual blocks there.
        coarse, coarse_hidden: the same at 1/64 of the pixels.
        encoder_fine, encoder_coarse, decoder_fine, decoder_coarse: residual blocks.
        context_width, context_hidden, context_blocks, context_near, context_levels: of the prior, see
            `context.Shape`.
        ms_ssim: share of 1 - MS-SSIM in the distortion, the rest is squared error; used in training alone.
        luma: share of the MS-SSIM of luma in MS-SSIM, the rest is of red, green and blue; in training alone.
        integer_synthesis: decode in integers, to the same pixels on every machine; of networks that are
            trained already.
        adversarial, matching: weights of the terms of `PatchDiscriminator`, as shares of the squared error; 0
            `adversarial` trains without it.
        synthesis_only: train the synthesis alone: the same latents, and the same files.
        frozen_synthesis: train all but the synthesis, which stays as it is, in integers too.
    """

    context_width: int = setting(112, low=1, high=114)
    context_hidden: int = setting(96, low=1, high=1024)
    context_blocks: int = setting(2, low=0, high=100)
    context_near: int = setting(96, low=3, high=128)
    context_levels: int = setting(1, low=1, high=4, may_grow=True)
    fine: int = setting(96, low=1, high=1 << 14)
    fine_hidden: int = setting(48, low=1, high=1 << 14)
    coarse: int = setting(128, low=1, high=1 << 14)
    coarse_hidden: int = setting(64, low=1, high=1 << 14)
    encoder_fine: int = setting(2, low=0, high=100)
    encoder_coarse: int = setting(2, low=0, high=100)
    decoder_fine: int = setting(4, low=0, high=100, may_grow=True)
    decoder_coarse: int = setting(2, low=0, high=100)
    ms_ssim: float = setting(0.0, low=0, high=1, training_only=True)
    luma: float = setting(0.0, low=0, high=1, training_only=True)
    integer_synthesis: bool = setting(False, may_grow=True, may_shrink=True)
    adversarial: float = setting(0.0, low=0, high=100, training_only=True, fixed_on_resume=True)
    matching: float = setting(0.0, low=0, high=100, training_only=True)
    synthesis_only: bool = setting(False, training_only=True, fixed_on_resume=True)
    frozen_synthesis: bool = setting(False, training_only=True, fixed_on_resume=True)

    def check(self) -> None:
        """Refuse values as `Config.check`, and a training of nothing.

        Raises:
            UsageError: a setting out of its range, or two that contradict each other.
        """
        super().check()
        if self.synthesis_only and self.frozen_synthesis:
            raise UsageError("synthesis_only and frozen_synthesis leave nothing to train", "give one of them")


SEEN_AT = 40, 80, 120, 160, 200
"""Quality indices at which maps are looked at before the synthesis becomes integers."""

SEEN = 4
"""Crops that are looked at, at each of them."""

SYNTHESIS = ("backward_", "decoder.")
"""Prefixes of the names of its parameters."""

KEPT = {
    "synthesis_only": ("components", "context_levels", "end_step"),
    "frozen_synthesis": ("components", "decoder_fine", "integer_synthesis"),
}
"""Setting -> settings of what it leaves as it is, which otherwise may differ from those of the start."""


class VAE(VariableRateVAE):
    """Variable-rate VAE of a lapped transform with networks, in analysis and synthesis."""

    method = "VAE"
    networks = ("forward_", "backward_", "encoder.", "decoder.")
    slow = ("forward_", "backward_")
    decoding = ("backward_", "decoder.", "deviation", "mean", "learned.", exact_synthesis.PREFIX)
    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.shares = config.ms_ssim, config.luma
        self.weights = {"adversarial": config.adversarial, "matching": config.matching}
        self.discriminator = PatchDiscriminator() if config.adversarial else None
        size = config.components
        self.forward_basis = nn.Parameter(torch.zeros(size, 192, 4, 4))
        self.backward_basis = nn.Parameter(torch.zeros(size, 192, 4, 4))
        self.trains_latents = not config.synthesis_only
        self.encoder = _encoder(config)
        self.decoder = Decoder(
            Shape(
                size,
                (config.coarse, config.coarse_hidden, config.decoder_coarse),
                (config.fine, config.fine_hidden, config.decoder_fine),
            )
        )
        for name, parameter in self.named_parameters():
            if name.startswith(SYNTHESIS):
                parameter.requires_grad_(not config.frozen_synthesis)
            elif not name.startswith(DISCRIMINATOR):
                parameter.requires_grad_(not config.synthesis_only)

    @property
    def halo(self) -> int:
        """Positions around a block on which its samples, or its latents, can depend."""
        config = self.config
        encoder = 2 * (1 + config.encoder_coarse) + config.encoder_fine + 2  # quarters of a position
        decoder = -(-(config.decoder_fine + 2) // 2) + max(config.decoder_coarse, 1)  # halves of a position
        return max(-(-encoder // 4), -(-decoder // 2))

    def analysis(self, pixels: Tensor, index: Tensor) -> Tensor:
        """Map pixels to latents, as in `VariableRateVAE.analysis`."""
        linear = self.linear_analysis(pixels)
        plane = 2 * index / LAST_INDEX - 1
        corrected: Tensor = self.encoder(with_index(F.pixel_unshuffle(pixels, 4) / LINEAR_UNIT, plane))
        return linear + OUTPUT_SCALE * corrected

    def linear_analysis(self, pixels: Tensor) -> Tensor:
        """Map pixels to latents without the network; weights as stored are exact in float64."""
        basis = self.forward_basis.to(pixels.dtype)
        return F.conv2d(F.pixel_unshuffle(pixels, 8), basis, stride=2, padding=1)

    def synthesis(self, latents: Tensor, index: Tensor) -> Tensor:
        """Map latents to pixels, as in `VariableRateVAE.synthesis`."""
        quantised, basis = self.config.integer_synthesis, cast("Tensor", self.backward_basis)
        if quantised:
            basis = exact_lapped.fake_quantised(basis, self.deviation)
        linear = self._linear(latents, basis)
        normalised = latents / self.deviation[:, None, None]
        mean = self.mean + WHITE / 2 if quantised else None
        corrected: Tensor = self.decoder(normalised, linear / LINEAR_UNIT, index, mean)
        return F.pixel_shuffle(linear + OUTPUT_SCALE * corrected, 4)

    @staticmethod
    def _linear(latents: Tensor, basis: Tensor) -> Tensor:
        """Compute the linear synthesis, [B, 48, 4 h, 4 w]."""
        blocks = F.conv_transpose2d(latents, basis, stride=2, padding=1)
        return F.pixel_unshuffle(F.pixel_shuffle(blocks, 8), 4)

    def preview(self, latents: Tensor) -> Tensor:
        """Compute means of 8 x 8 pixels by the linear synthesis alone, as in `VariableRateVAE.preview`."""
        size = latents.shape[1]
        means = self.backward_basis[:size].view(size, 3, 64, 4, 4).mean(2)
        return F.conv_transpose2d(latents, means, stride=2, padding=1)

    def export(self) -> VAE:
        """Return the model with its prior, and the synthesis as its settings say, in integers.

        Raises:
            ModelError: a layer exceeds the exact range of float32.
        """
        model = cast("VAE", super().export())
        if self.config.integer_synthesis:
            mean = self.mean + WHITE / 2
            model.integers = exact_synthesis.export(self.decoder, self.backward_basis, self.deviation, mean)
        return model

    @property
    def in_file_as_integers(self) -> tuple[str, ...]:
        """The synthesis, as in `Model.in_file_as_integers`."""
        return () if self.integers is None else SYNTHESIS

    def integer_tensors(self) -> Mapping[str, NDArray[np.generic]]:
        """Return the synthesis, as in `Model.integer_tensors`."""
        return {} if self.integers is None else self.integers.to_tensors()

    def with_integers(self, tensors: Mapping[str, NDArray[np.generic]]) -> Self:
        """Return the model with its synthesis in integers, as in `Model.with_integers`."""
        if not self.config.integer_synthesis:
            return self
        prefix = exact_synthesis.PREFIX
        arrays = {n.removeprefix(prefix): array for n, array in tensors.items() if n.startswith(prefix)}
        model = self.equipped()
        model.integers = IntegerSynthesis(arrays, self.decoder.shape)
        with torch.no_grad():
            basis = model.integers.take(self.decoder, torch.from_numpy(tensors["deviation"]))
            self.backward_basis.copy_(basis)
        return model

    @torch.no_grad()
    def load_from(self, other: Model, count: float) -> None:
        """Load the weights, as in `VariableRateVAE.load_from`; additional residual blocks start at zero.

        Raises:
            UsageError: settings of a part that is to stay as it is are others.
        """
        self._check_kept(other.config)
        super().load_from(other.with_blocks(self.config) if isinstance(other, VAE) else other, count)

    def _check_kept(self, before: BaseConfig) -> None:
        """Refuse settings that change the part that a training leaves as it is."""
        for name, settings in KEPT.items():
            for key in settings if getattr(self.config, name) else ():
                now, then = getattr(self.config, key), getattr(before, key, None)
                if then not in (None, now):
                    raise UsageError(f"{name} with another {key} ({now} for {then})", f"leave out {key}")

    @torch.no_grad()
    def complete(self, draw: Callable[[int], Tensor], generator: torch.Generator) -> None:
        """Scale the channels of the synthesis for integers, as in `Trainable.complete`."""
        del generator
        if self.config.integer_synthesis and not self.config.frozen_synthesis:
            equalise(self.decoder, self._seen(draw))

    @torch.no_grad()
    def prepare_export(self, draw: Callable[[int], Tensor]) -> None:
        """Round the weights of the synthesis, as in `Trainable.prepare_export`."""
        if self.config.integer_synthesis and not self.config.frozen_synthesis:
            round_weights(self.decoder, self._seen(draw))

    def _seen(self, draw: Callable[[int], Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Compute inputs of the synthesis network, at several quality indices."""
        device = self.deviation.device
        return [self._inputs(draw(n)[:SEEN].to(device), q) for n, q in enumerate(SEEN_AT)]

    def _inputs(self, samples: Tensor, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Compute what the synthesis network sees of samples [B, 3, H, W] at a quality index."""
        plane = torch.full((len(samples),), float(index), device=samples.device)
        latents = torch.round(self.latents(samples, plane)) * self._maps(self.step(plane))
        linear = self._linear(latents, self.backward_basis)
        return latents / self.deviation[:, None, None], linear / LINEAR_UNIT, plane

    def with_blocks(self, config: Config) -> VAE:
        """Return a model of the same function with as many fine blocks in the decoder as `config` has."""
        if config.decoder_fine == self.config.decoder_fine:
            return self
        larger = VAE(replace(self.config, decoder_fine=config.decoder_fine)).equipped(priors=self.priors)
        known = {name: x for name, x in self.state_dict().items() if not name.startswith("decoder.shallow.")}
        larger.load_state_dict(known, strict=False)
        grow(larger.decoder.shallow, self.decoder.shallow, torch.Generator())
        return larger

    @torch.no_grad()
    def start(self, draw: Callable[[int], Tensor], generator: torch.Generator) -> None:
        """Start from pPCA: its components in the centre of both bases, and its standard deviations.

        Args:
            draw: returns the n-th batch of samples, [B, 3, H, W].
            generator: unused.
        """
        del generator
        linear = ppca.of_pixels(draw, self.config.components)
        self.set_moments(linear.colour, linear.deviations)
        middle = linear.basis.view(-1, 3, 16, 16)
        for basis in (self.forward_basis, self.backward_basis):
            basis.copy_(F.pixel_unshuffle(F.pad(middle, (8, 8, 8, 8)), 8))


def _encoder(config: Config) -> nn.Sequential:
    """Build the analysis network: [B, 49, H / 4, W / 4] -> [B, M, H / 16, W / 16]."""
    last = nn.Conv2d(config.coarse, config.components, 4, 2, 1)
    start_at_zero(last)
    return nn.Sequential(
        nn.Conv2d(49, config.fine, 3, padding=1),
        *residual_stack(config.fine, config.fine_hidden, config.encoder_fine),
        nn.ReLU(),
        nn.Conv2d(config.fine, config.coarse, 4, 2, 1),
        *residual_stack(config.coarse, config.coarse_hidden, config.encoder_coarse),
        nn.ReLU(),
        last,
    )
