"""VQ-VAE for pictures (van den Oord, Vinyals, Kavukcuoglu 2017, "Neural Discrete Representation Learning").

    x --encoder--> z_e(x) --nearest code--> z_q(x) --decoder--> mean of p(x | z_q)

A worked shape: x [1, 3, 128, 128] -> z_e [1, 8, 32, 32] -> codes [1, 32, 32] of K = 512, which is 9 bits for
16 pixels -> x [1, 3, 128, 128].

The prior is uniform while this trains, so the KL term of the ELBO is the constant log K and drops out;
what remains of it (eq. 3) is distortion + codebook term + commitment * beta. The prior that the bitstream is
coded by is fitted afterwards (`priors`).

Two departures from the paper, each a setting:

- *Linear start.* PCA, the linear case of the VAE, runs beside both networks; the last layers of the networks
  start at zero and the codebook starts at the k-means centres of the PCA coefficients. Training therefore
  begins with a working linear codec. `linear_start=False` gives the paper's random start.
- *Topology.* "shuffle" works at 1/16 of the pixels (space to depth, then residual blocks), the fastest form
  on a CPU; "strided" is the paper's: two convolutions 4x4 of stride 2 and their transposes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import losses
from ..networks import residual_stack, start_at_zero
from ..quantizers import VectorQuantizer, kmeans
from . import ppca

if TYPE_CHECKING:
    from ..priors.static import StaticPrior

PCA_SCALE = 2.0
"""Standard deviation that the first principal component is scaled to."""


@dataclass(frozen=True)
class Config:
    """Settings of a VQ-VAE for pictures; the card of a shipped model has its own.

    Attributes:
        topology: "shuffle" or "strided", see the module.
        encoder_width, encoder_hidden, encoder_blocks: channels, channels inside the residual blocks, blocks.
        decoder_width, decoder_hidden, decoder_blocks: the same for the decoder.
        codes: K, the codebook's size.
        code_dim: D, the dimension of a code.
        codebook_update: "ema" (appendix A.1) or "loss" (eq. 3).
        codebook_start: "kmeans" of the encoder's first outputs, or "random" (uniform in -1/K..1/K).
        decay: of the moving averages: how often each code is chosen and, with "ema", the codes themselves.
        restart_below: codes chosen less than this share of the mean are moved; 0 turns restarts off.
        restart_until: share of the training after which codes stay where they are.
        commitment: beta, the weight of the commitment term against the squared error of pixels in -1..1.
        linear_start: PCA beside the networks.
    """

    topology: Literal["shuffle", "strided"] = "shuffle"
    encoder_width: int = 96
    encoder_hidden: int = 48
    encoder_blocks: int = 2
    decoder_width: int = 128
    decoder_hidden: int = 64
    decoder_blocks: int = 4
    codes: int = 512
    code_dim: int = 8
    codebook_update: Literal["ema", "loss"] = "ema"
    codebook_start: Literal["kmeans", "random"] = "kmeans"
    decay: float = 0.99
    restart_below: float = 0.12
    restart_until: float = 0.8
    commitment: float = 0.125
    linear_start: bool = True


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
"""The paper's own setting (section 4.1): 128x128x3 -> 32x32x1, K = 512, 256 hidden units, beta = 0.25."""

TRAINING_ONLY = {"commitment", "decay", "restart_below", "restart_until"}
"""Settings that do not change what the weights mean."""

RANGES: dict[str, tuple[float, float]] = {
    "encoder_width": (1, 1 << 14),
    "encoder_hidden": (1, 1 << 14),
    "encoder_blocks": (0, 100),
    "decoder_width": (1, 1 << 14),
    "decoder_hidden": (1, 1 << 14),
    "decoder_blocks": (0, 100),
    "codes": (2, (1 << 16) - 1),
    "code_dim": (1, 1 << 14),
    "decay": (0, 1 - 1e-9),
    "restart_below": (0, 1),
    "restart_until": (0, 1),
    "commitment": (0, 1e38),
}
"""Setting -> the smallest and the largest value that a training can work with."""


class VQVAE(nn.Module):
    """Encoder, quantizer and decoder.

    Samples are float32 [B, 3, H, W] in -1..1, H and W multiples of `stride`; codes int64
    [B, H / stride, W / stride] in 0..K-1.
    """

    medium = "image"
    method = "VQ-VAE"
    stride = 4
    decoding: tuple[str, ...] = ("decoder.", "quantizer.codebook", "pca_")
    """Prefixes of the tensors that a decoder needs; the fingerprint is taken over them."""

    pca_mean: Tensor
    pca_components: Tensor
    pca_scale: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        pixels = 3 * self.stride**2
        linear = config.linear_start
        self.encoder = _encoder(config)
        self.decoder = _decoder(config)
        self.quantizer = VectorQuantizer(
            config.codes,
            config.code_dim,
            moving_average=config.codebook_update == "ema",
            decay=config.decay,
            restart_below=config.restart_below,
        )
        self.register_buffer("pca_mean", torch.zeros(pixels if linear else 0))
        self.register_buffer("pca_components", torch.zeros(config.code_dim if linear else 0, pixels))
        self.register_buffer("pca_scale", torch.ones(1))
        self.prior: StaticPrior | None = None
        self.card: dict[str, Any] = {}
        self._last: tuple[Tensor, Tensor] | None = None

    @property
    def halo(self) -> int:
        """Codes around a block that its samples, or its codes, can depend on."""
        return max(self.config.encoder_blocks, self.config.decoder_blocks) + 3

    @property
    def device(self) -> torch.device:
        """Where the networks run."""
        return self.quantizer.codebook.device

    def latents(self, samples: Tensor) -> Tensor:
        """z_e(x): [B, 3, H, W] -> [B, D, H / 4, W / 4]."""
        latents: Tensor = self.encoder(samples)
        if self.config.linear_start:
            blocks = F.pixel_unshuffle(samples, self.stride)
            weight = self.pca_components * self.pca_scale
            latents = latents + F.conv2d(blocks, weight[:, :, None, None], -(weight @ self.pca_mean))
        return latents

    def analyse(self, samples: Tensor) -> Tensor:
        """The posterior q(z | x), a point mass (eq. 1): samples -> codes."""
        return self.quantizer.encode(self.latents(samples))

    def synthesise(self, codes: Tensor) -> Tensor:
        """Mean of the likelihood p(x | z_q): codes -> samples."""
        return self.reconstruct(self.quantizer.decode(codes))

    def reconstruct(self, quantized: Tensor) -> Tensor:
        """Mean of p(x | z) for any latents, [B, D, h, w] -> [B, 3, 4 h, 4 w]."""
        if not self.config.linear_start:
            decoded: Tensor = self.decoder(quantized)
            return decoded
        weight = self.pca_components.t() / self.pca_scale
        blocks = F.conv2d(quantized, weight[:, :, None, None], self.pca_mean)
        correction: Tensor = self.decoder(torch.cat((quantized, blocks), 1))
        return F.pixel_shuffle(blocks, self.stride) + correction

    def loss(self, samples: Tensor) -> dict[str, Tensor]:
        """Terms of eq. 3 for a batch [B, 3, H, W].

        Returns:
            "loss", their weighted sum; "distortion", squared error of pixels in -1..1; "commitment" and,
            where the codebook is learned by it, "codebook", per element of the latents.
        """
        latents = self.latents(samples).float()
        codes = self.quantizer.encode(latents.detach())
        quantized = self.quantizer.decode(codes)
        straight_through = latents + (quantized - latents).detach()
        distortion = losses.squared_error(self.reconstruct(straight_through).float(), samples)
        terms = {"distortion": distortion, "commitment": losses.commitment(latents, quantized)}
        total = distortion + self.config.commitment * terms["commitment"]
        if self.config.codebook_update == "loss":
            terms["codebook"] = losses.codebook(latents, quantized)
            total = total + terms["codebook"]
        self._last = (latents.detach(), codes)
        return {"loss": total, **terms}

    def update(self, progress: float, generator: torch.Generator) -> dict[str, Any]:
        """What follows an optimiser step: moving averages and revival of dead codes.

        Args:
            progress: share of the training that is done, 0..1.
            generator: CPU generator of this step.

        Returns:
            "codes" of the step's batch (int64) and the number of codes "restarted".
        """
        if self._last is None:
            raise RuntimeError("update() follows loss()")
        latents, codes = self._last
        restart = self.config.restart_below > 0 and progress < self.config.restart_until
        return {"codes": codes, "restarted": self.quantizer.update(latents, codes, restart, generator)}

    @torch.no_grad()
    def start(self, draw: Callable[[int], Tensor], generator: torch.Generator) -> None:
        """The linear start: PCA of the pixel blocks, then k-means of the encoder's outputs.

        Args:
            draw: gives the n-th batch of samples, [B, 3, H, W].
            generator: CPU generator for k-means.
        """
        if self.config.linear_start:
            blocks = (_block_vectors(F.pixel_unshuffle(draw(i), self.stride)) for i in range(64))
            linear = ppca.fit(*ppca.moments(blocks), self.config.code_dim)
            self.pca_mean.copy_(linear.mean)
            self.pca_components.copy_(linear.components)
            self.pca_scale.copy_(PCA_SCALE / linear.variances[:1].clamp(min=1e-6).sqrt())
        if self.config.codebook_start == "kmeans":
            outputs = torch.cat([_block_vectors(self.latents(draw(i))) for i in range(64, 80)])
            picks = torch.randperm(len(outputs), generator=generator)[:50_000]
            self.quantizer.set_codebook(kmeans(outputs[picks].cpu(), self.config.codes, generator))


def _block_vectors(maps: Tensor) -> Tensor:
    """[B, C, H, W] -> [B H W, C]."""
    return maps.permute(0, 2, 3, 1).flatten(0, 2)


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
