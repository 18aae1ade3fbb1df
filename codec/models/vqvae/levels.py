"""The networks of VQ-VAE-2: what `hierarchical` is put together from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from ..networks import residual_stack, start_at_zero
from ..quantizers import VectorQuantizer

if TYPE_CHECKING:
    from .hierarchical import Config


def quantizer(config: Config) -> VectorQuantizer:
    """The codebook of a level."""
    return VectorQuantizer(
        config.codes,
        config.code_dim,
        moving_average=config.codebook_update == "ema",
        decay=config.decay,
        restart_below=config.restart_below,
    )


def features(config: Config) -> nn.Sequential:
    """Samples [B, 3, H, W] -> features [B, C, H / 4, W / 4]."""
    width = config.encoder_width
    trunk = residual_stack(width, config.encoder_hidden, config.encoder_blocks)
    if config.topology == "shuffle":
        return nn.Sequential(nn.PixelUnshuffle(4), nn.Conv2d(48, width, 3, padding=1), *trunk, nn.ReLU())
    half, relu = max(width // 2, 1), nn.ReLU()
    first, second = nn.Conv2d(3, half, 4, 2, 1), nn.Conv2d(half, width, 4, 2, 1)
    return nn.Sequential(first, relu, second, relu, nn.Conv2d(width, width, 3, padding=1), *trunk, relu)


def top_encoder(config: Config) -> nn.Sequential:
    """Features -> z_top [B, D, H / 8, W / 8]."""
    width = config.encoder_width
    trunk = residual_stack(width, config.encoder_hidden, config.encoder_blocks)
    down = nn.Conv2d(width, width, 4, 2, 1)
    return nn.Sequential(down, *trunk, nn.ReLU(), _last(config, width, config.code_dim))


def top_decoder(config: Config) -> nn.Sequential:
    """q_top [B, D, h, w] -> context [B, C, 2 h, 2 w]."""
    width = config.encoder_width
    first = nn.Conv2d(config.code_dim, width, 3, padding=1)
    trunk = residual_stack(width, config.encoder_hidden, config.encoder_blocks)
    return nn.Sequential(first, *trunk, nn.ReLU(), nn.ConvTranspose2d(width, config.context, 4, 2, 1))


def bottom_encoder(config: Config) -> nn.Sequential:
    """Features and context -> z_bottom [B, D, H / 4, W / 4]."""
    width = config.encoder_width
    first = nn.Conv2d(width + config.context, width, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), _last(config, width, config.code_dim))


def decoder(config: Config) -> nn.Sequential:
    """q_bottom, context and, with a linear start, the linear picture's blocks -> x [B, 3, H, W]."""
    width = config.decoder_width
    inputs = config.code_dim + config.context + (48 if config.linear_start else 0)
    trunk = residual_stack(width, config.decoder_hidden, config.decoder_blocks)
    first = nn.Conv2d(inputs, width, 3, padding=1)
    if config.topology == "shuffle":
        return nn.Sequential(first, *trunk, nn.ReLU(), _last(config, width, 48), nn.PixelShuffle(4))
    half = max(width // 2, 1)
    up, last = nn.ConvTranspose2d(width, half, 4, 2, 1), nn.ConvTranspose2d(half, 3, 4, 2, 1)
    if config.linear_start:
        start_at_zero(last)
    return nn.Sequential(first, *trunk, nn.ReLU(), up, nn.ReLU(), last)


def _last(config: Config, inputs: int, outputs: int) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, 3, padding=1)
    if config.linear_start:
        start_at_zero(layer)
    return layer
