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

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..bitstream.quality import LAST_INDEX
from ..priors.settings import setting
from . import ppca, variable_rate
from .networks import residual_stack, start_at_zero
from .variable_rate import VariableRateVAE

OUTPUT_SCALE = 32.0
"""Factor of the outputs of the networks, to match the scale of the linear transform."""


@dataclass(frozen=True)
class Config(variable_rate.VariableRateConfig):
    """Settings of the VAE; cards of shipped models have their own values.

    Attributes:
        components: M, channels of the latents, at most 628.
        fine, fine_hidden: channels at 1/16 of the pixels, and inside the residual blocks there.
        coarse, coarse_hidden: the same at 1/64 of the pixels.
        encoder_fine, encoder_coarse, decoder_fine, decoder_coarse: residual blocks.
        context_width, context_hidden, context_blocks, context_near: of the prior, see `context.Shape`.
        ms_ssim: share of 1 - MS-SSIM in the distortion, the rest is squared error; used in training alone.
        luma: share of the MS-SSIM of luma in MS-SSIM, the rest is of red, green and blue; in training alone.
    """

    context_width: int = setting(112, low=1, high=114)
    context_hidden: int = setting(96, low=1, high=1024)
    context_blocks: int = setting(2, low=0, high=100)
    context_near: int = setting(96, low=3, high=128)
    fine: int = setting(96, low=1, high=1 << 14)
    fine_hidden: int = setting(48, low=1, high=1 << 14)
    coarse: int = setting(128, low=1, high=1 << 14)
    coarse_hidden: int = setting(64, low=1, high=1 << 14)
    encoder_fine: int = setting(2, low=0, high=100)
    encoder_coarse: int = setting(2, low=0, high=100)
    decoder_fine: int = setting(4, low=0, high=100)
    decoder_coarse: int = setting(2, low=0, high=100)
    ms_ssim: float = setting(0.0, low=0, high=1, training_only=True)
    luma: float = setting(0.0, low=0, high=1, training_only=True)


class VAE(VariableRateVAE):
    """Variable-rate VAE of a lapped transform with networks, in analysis and synthesis."""

    method = "VAE"
    networks = ("forward_", "backward_", "encoder.", "decoder.")
    slow = ("forward_", "backward_")
    decoding = ("backward_", "decoder.", "deviation", "mean", "learned.")
    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.shares = config.ms_ssim, config.luma
        size = config.components
        self.forward_basis = nn.Parameter(torch.zeros(size, 192, 4, 4))
        self.backward_basis = nn.Parameter(torch.zeros(size, 192, 4, 4))
        self.encoder = _encoder(config)
        self.decoder = _Decoder(config)

    @property
    def halo(self) -> int:
        """Positions around a block on which its samples, or its latents, can depend."""
        config = self.config
        encoder = 2 * (1 + config.encoder_coarse) + config.encoder_fine + 2  # quarters of a position
        decoder = -(-(config.decoder_fine + 2) // 2) + max(config.decoder_coarse, 1)  # halves of a position
        return max(-(-encoder // 4), -(-decoder // 2))

    def analysis(self, pixels: Tensor, index: Tensor) -> Tensor:
        """Map pixels to latents, as in `VariableRateVAE.analysis`."""
        linear = F.conv2d(F.pixel_unshuffle(pixels, 8), self.forward_basis, stride=2, padding=1)
        corrected: Tensor = self.encoder(_with_index(F.pixel_unshuffle(pixels, 4) / 128, index))
        return linear + OUTPUT_SCALE * corrected

    def synthesis(self, latents: Tensor, index: Tensor) -> Tensor:
        """Map latents to pixels, as in `VariableRateVAE.synthesis`."""
        blocks = F.conv_transpose2d(latents, self.backward_basis, stride=2, padding=1)
        linear = F.pixel_unshuffle(F.pixel_shuffle(blocks, 8), 4)
        normalised = latents / self.deviation[:, None, None]
        corrected: Tensor = self.decoder(normalised, _with_index(linear / 128, index))
        return F.pixel_shuffle(linear + OUTPUT_SCALE * corrected, 4)

    def preview(self, latents: Tensor) -> Tensor:
        """Compute means of 8 x 8 pixels by the linear synthesis alone, as in `VariableRateVAE.preview`."""
        size = latents.shape[1]
        means = self.backward_basis[:size].view(size, 3, 64, 4, 4).mean(2)
        return F.conv_transpose2d(latents, means, stride=2, padding=1)

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


class _Decoder(nn.Module):
    """Synthesis network: normalised latents [B, M, h, w], linear synthesis -> correction."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        coarse, fine = config.coarse, config.fine
        self.deep = nn.Sequential(
            nn.Conv2d(config.components, 4 * coarse, 1),
            nn.PixelShuffle(2),
            *residual_stack(coarse, config.coarse_hidden, config.decoder_coarse),
            nn.Conv2d(coarse, 4 * fine, 1),
            nn.PixelShuffle(2),
        )
        last = nn.Conv2d(fine, 48, 3, padding=1)
        start_at_zero(last)
        self.shallow = nn.Sequential(
            nn.Conv2d(fine + 49, fine, 3, padding=1),
            *residual_stack(fine, config.fine_hidden, config.decoder_fine),
            nn.ReLU(),
            last,
        )

    def forward(self, normalised: Tensor, linear: Tensor) -> Tensor:
        """Compute the correction [B, 48, 4 h, 4 w]; the linear synthesis has a channel for the index."""
        correction: Tensor = self.shallow(torch.cat((self.deep(normalised), linear), 1))
        return correction


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


def _with_index(maps: Tensor, index: Tensor) -> Tensor:
    """Append a channel, the quality index scaled to -1..1."""
    plane = (2 * index / LAST_INDEX - 1).to(maps.dtype)[:, None, None, None]
    return torch.cat((maps, plane.expand(-1, 1, *maps.shape[2:])), 1)
