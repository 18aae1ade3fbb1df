"""VQ-VAE for images (van den Oord, Vinyals, Kavukcuoglu 2017, "Neural Discrete Representation Learning").

For example: x [1, 3, 128, 128] -> z_e [1, 8, 32, 32] -> codes [1, 32, 32] of K = 512, which is 9 bits for
16 pixels -> x [1, 3, 128, 128].

Two departures from the paper, each a setting:

- *Linear start.* Both networks are corrections of PCA, the linear case of the VAE; their last layers start at
  zero and the codebook starts at the k-means centres of the PCA coefficients. Training therefore starts from
  a working linear codec. `linear_start=False` is the paper's random start.
- *Topology.* "shuffle" works at 1/16 of the pixels (space to depth, then residual blocks), the fastest form
  on a CPU; "strided" is the paper's: two convolutions 4x4 of stride 2 and their transposes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...bitstream.container import STATIC
from ...metrics.image import psnr_db
from ...priors.settings import HUGE, setting
from .. import losses, ppca
from ..networks import residual_stack, start_at_zero
from ..quantizers import as_vectors
from . import method, search_image

STRIDE = 4

PCA_SCALE = 2.0
"""Standard deviation of the first principal component, after scaling."""


@dataclass(frozen=True)
class Config(method.CodebookConfig):
    """Settings of a VQ-VAE for images; cards of shipped models have their own values.

    Attributes:
        topology: "shuffle" or "strided", see the module.
        encoder_width, encoder_hidden, encoder_blocks: channels, channels inside the residual blocks, blocks.
        decoder_width, decoder_hidden, decoder_blocks: the same for the decoder.
        codes, code_dim, codebook_update, codebook_start, decay, restart_below, restart_until, commitment: see
            `method.CodebookConfig`; the commitment is relative to the squared error of pixels in -1..1.
        linear_start: whether the networks are corrections of PCA.
    """

    topology: Literal["shuffle", "strided"] = "shuffle"
    encoder_width: int = setting(96, low=1, high=1 << 14)
    encoder_hidden: int = setting(48, low=1, high=1 << 14)
    encoder_blocks: int = setting(2, low=0, high=100)
    decoder_width: int = setting(128, low=1, high=1 << 14)
    decoder_hidden: int = setting(64, low=1, high=1 << 14)
    decoder_blocks: int = setting(4, low=0, high=100)
    restart_below: float = setting(0.12, low=0, high=1, training_only=True)
    commitment: float = setting(0.125, low=0, high=HUGE, training_only=True)
    linear_start: bool = True

    def check(self) -> None:
        """Refuse invalid values, as in `Config.check`, and more principal components than a block has."""
        super().check()
        if self.linear_start:
            self.check_components(3 * STRIDE**2)


PAPER = Config(
    topology="strided",
    encoder_width=256,
    encoder_hidden=256,
    encoder_blocks=2,
    decoder_width=256,
    decoder_hidden=256,
    decoder_blocks=2,
    code_dim=64,
    codebook_update="loss",
    codebook_start="random",
    restart_below=0.0,
    commitment=0.25,
    linear_start=False,
)
"""Settings of the paper (section 4.1): 128x128x3 -> 32x32x1, K = 512, 256 hidden units, beta = 0.25."""


class ImageVQVAE(method.VQVAE):
    """VQ-VAE of images.

    Samples are float32 [B, 3, H, W] in -1..1, H and W multiples of `stride`; codes int64
    [B, H / stride, W / stride] in 0..K-1.
    """

    medium = "image"
    channels, axes = 3, 2
    stride = STRIDE
    decoding = ("decoder.", "quantizer.codebook", "pca_")
    networks = ("encoder.", "decoder.")
    config: Config

    pca_mean: Tensor
    pca_components: Tensor
    pca_scale: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__(config, _encoder(config), _decoder(config))
        pixels = 3 * self.stride**2
        linear = config.linear_start
        self.register_buffer("pca_mean", torch.zeros(pixels if linear else 0))
        self.register_buffer("pca_components", torch.zeros(config.code_dim if linear else 0, pixels))
        self.register_buffer("pca_scale", torch.ones(1))

    @property
    def halo(self) -> int:
        """Codes around a block on which its samples, or its codes, can depend."""
        deeper: int = max(self.config.encoder_blocks, self.config.decoder_blocks)
        return deeper + 3

    def searches(self, effort: int) -> bool:
        """Return whether the encoder searches with this effort, as in `VQVAE.searches`."""
        return self.config.linear_start and search_image.ROUNDS[effort] > 0

    def searcher(self, effort: int) -> Callable[[Tensor], Tensor]:
        """Return a search by rate and distortion under the linear decoder, as in `VQVAE.searcher`."""
        if not effort or not self.config.linear_start:
            return self.analyse
        rates = search_image.Rates.of(self.priors.get(STATIC), self.device)
        return lambda samples: self.search(samples, effort, rates)

    def search(self, samples: Tensor, effort: int, rates: search_image.Rates | None) -> Tensor:
        """Search the codes of samples, see `search_image.find_codes`: [B, 3, H, W] -> [B, H / 4, W / 4]."""
        latents, codebook = self.latents(samples), self.quantizer.codebook.detach()
        curvature = float(1 / self.pca_scale**2)
        grid = search_image.Grid(latents, codebook, self.stride, curvature, self.reconstruct)
        return search_image.find_codes(grid, samples, self.quantizer.encode(latents), effort, rates)

    def latents(self, samples: Tensor) -> Tensor:
        """Compute z_e(x): [B, 3, H, W] -> [B, D, H / 4, W / 4]."""
        latents: Tensor = self.encoder(samples)
        if self.config.linear_start:
            blocks = F.pixel_unshuffle(samples, self.stride)
            weight = self.pca_components * self.pca_scale
            latents = latents + F.conv2d(blocks, weight[:, :, None, None], -(weight @ self.pca_mean))
        return latents

    def reconstruct(self, quantized: Tensor) -> Tensor:
        """Compute the mean of p(x | z), for any latents: [B, D, h, w] -> [B, 3, 4 h, 4 w]."""
        if not self.config.linear_start:
            decoded: Tensor = self.decoder(quantized)
            return decoded
        weight = self.pca_components.t() / self.pca_scale
        blocks = F.conv2d(quantized, weight[:, :, None, None], self.pca_mean)
        correction: Tensor = self.decoder(torch.cat((quantized, blocks), 1))
        return F.pixel_shuffle(blocks, self.stride) + correction

    def distortion(self, quantized: Tensor, samples: Tensor) -> method.Distortion:
        """Compute the squared error of pixels in -1..1: a Gaussian likelihood of fixed variance."""
        error = losses.squared_error(self.reconstruct(quantized).float(), samples)
        return method.Distortion(error, {"distortion": error}, {})

    def log_figures(self, terms: Mapping[str, float]) -> dict[str, float]:
        """Return the PSNR, as in `Trainable.log_figures`."""
        return {"psnr_db": psnr_db(terms["distortion"], peak=2)}

    @torch.no_grad()
    def start(self, draw: Callable[[int], Tensor], generator: torch.Generator) -> None:
        """Start from PCA of the pixel blocks, and k-means of the encoder's outputs.

        Args:
            draw: returns the n-th batch of samples, [B, 3, H, W].
            generator: CPU generator for k-means.
        """
        if self.config.linear_start:
            blocks = (as_vectors(F.pixel_unshuffle(draw(i), self.stride)) for i in range(64))
            linear = ppca.fit(*ppca.moments(blocks), self.config.code_dim)
            self.pca_mean.copy_(linear.mean)
            self.pca_components.copy_(linear.components)
            self.pca_scale.copy_(PCA_SCALE / linear.variances[:1].clamp(min=1e-6).sqrt())
        if self.config.codebook_start == "kmeans":
            self.start_codebook(draw, range(64, 80), generator, 50_000)


def _encoder(config: Config) -> nn.Sequential:
    width, hidden = config.encoder_width, config.encoder_hidden
    trunk = residual_stack(width, hidden, config.encoder_blocks)
    last = nn.Conv2d(width, config.code_dim, 3, padding=1)
    if config.linear_start:
        start_at_zero(last)
    if config.topology == "shuffle":
        return nn.Sequential(
            nn.PixelUnshuffle(4), nn.Conv2d(48, width, 3, padding=1), *trunk, nn.ReLU(), last
        )
    first, second = nn.Conv2d(3, width, 4, 2, 1), nn.Conv2d(width, width, 4, 2, 1)
    return nn.Sequential(first, nn.ReLU(), second, *trunk, nn.ReLU(), last)


def _decoder(config: Config) -> nn.Sequential:
    width, hidden = config.decoder_width, config.decoder_hidden
    inputs = config.code_dim + (48 if config.linear_start else 0)
    first = nn.Conv2d(inputs, width, 3, padding=1)
    trunk = residual_stack(width, hidden, config.decoder_blocks)
    last: nn.Conv2d | nn.ConvTranspose2d
    if config.topology == "shuffle":
        last = nn.Conv2d(width, 48, 3, padding=1)
        tail: list[nn.Module] = [nn.ReLU(), last, nn.PixelShuffle(4)]
    else:
        up = nn.ConvTranspose2d(width, width, 4, 2, 1)
        last = nn.ConvTranspose2d(width, 3, 4, 2, 1)
        tail = [nn.ReLU(), up, nn.ReLU(), last]
    if config.linear_start:
        start_at_zero(last)
    return nn.Sequential(first, *trunk, *tail)
