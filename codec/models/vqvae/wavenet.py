"""VQ-VAE for audio with the paper's decoder, an autoregressive WaveNet.

    p(x | z) = product over t of p(x_t | x_1 .. x_t-1, z)

Each factor is a distribution over 256 mu-law levels (van den Oord et al. 2016, "WaveNet", section 2.2). It
is given by a gated stack of dilated convolutions over the samples before, conditioned on a network over the
codes that runs once per code. The likelihood is exact, so the distortion is its negative logarithm.

With `guided`, the reconstruction of the feed-forward decoder around each sample is an input of the stack: it
is a function of z too, and shortens the training.

With `frozen`, encoder and codebook stay those of the weights that the training starts from: the model is then
a second decoder of the same bitstreams. `PAPER` trains all parts together, as the paper does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ...errors import UsageError
from ...priors.settings import setting
from ..base import Model, Progress, RoundTrip
from ..networks import GatedStack
from . import audio, generation, method
from .method import Distortion
from .mu_law import LEVELS, to_levels

GUIDE_REACH = 16
"""Receptive field of a sample in the guide, in samples to each side."""


@dataclass(frozen=True)
class Config(audio.Config):
    """Settings of a VQ-VAE with a WaveNet; those of "decoder" in `audio.Config` are of the code network.

    Attributes:
        residual, skip, head: channels of the gated stack, of its output, of the layer after it.
        layers, stacks: dilations 1, 2, .. 2^(layers - 1), repeated `stacks` times.
        guided: whether the feed-forward decoder of the start, frozen, guides the stack.
        frozen: as in `audio.Config`, here the default.
    """

    # `growth` covers neither a gated stack nor the network that conditions it.
    encoder_blocks: int = setting(4, low=0, high=12)
    decoder_width: int = setting(128, low=1, high=1 << 14)
    decoder_hidden: int = setting(384, low=1, high=1 << 14)
    decoder_blocks: int = setting(8, low=0, high=100)
    residual: int = setting(32, low=1, high=1 << 14)
    skip: int = setting(64, low=1, high=1 << 14)
    head: int = setting(128, low=1, high=1 << 14)
    layers: int = setting(10, low=1, high=16)
    stacks: int = setting(2, low=1, high=100)
    guided: bool = True
    frozen: bool = setting(True, training_only=True, fixed_on_resume=True)

    def check(self) -> None:
        """Refuse invalid values, as in `Config.check`, and a discriminator, which needs a reconstruction."""
        super().check()
        if self.adversarial:
            raise UsageError(
                "an autoregressive decoder cannot be trained with a discriminator", "leave out adversarial"
            )


PAPER = Config(
    encoder_width=768,
    encoder_blocks=0,
    decoder_blocks=0,
    code_dim=64,
    codebook_update="loss",
    codebook_start="random",
    restart_below=0.0,
    commitment=0.25,
    normalise=False,
    unquantised=0,
    residual=64,
    skip=128,
    guided=False,
    frozen=False,
)
"""Settings of the paper (section 4.2): six convolutions of stride 2, K = 512, a WaveNet decoder."""


class WaveNet(nn.Module):
    """Autoregressive decoder: latents [B, D, T / hop] and samples -> logits of mu-law levels."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.trunk = audio.trunk(config)
        self.embed = nn.Embedding(LEVELS, config.residual)
        self.stack = GatedStack(
            config.residual, config.skip, config.decoder_width, layers=config.layers, stacks=config.stacks
        )
        self.hidden = nn.Linear(config.skip, config.head)
        self.logits = nn.Linear(config.head, LEVELS)
        self.waveform = self.guide = None
        if config.guided:
            self.waveform = audio.waveform_head(config)
            self.guide = nn.Conv1d(1, config.residual, 2 * GUIDE_REACH + 1, padding=GUIDE_REACH, bias=False)
            self.trunk.requires_grad_(False)
            self.waveform.requires_grad_(False)

    def conditions(self, quantized: Tensor) -> tuple[Tensor, Tensor | None]:
        """Compute the conditions of the stack.

        Args:
            quantized: [B, D, T / hop].

        Returns:
            Features of the codes, [B, T / hop, C]; and the guide's addition to the stack's input, [B, T, R].
        """
        features = self.trunk(quantized)
        if self.guide is None or self.waveform is None:
            return features.transpose(1, 2), None
        waveform = self.waveform(features).clamp(-1, 1)
        companded = waveform.sign() * torch.log1p(255 * waveform.abs()) / math.log(256)
        return features.transpose(1, 2), self.guide(companded).transpose(1, 2)

    def forward(self, quantized: Tensor, levels: Tensor) -> Tensor:
        """Compute the logits of every sample, given all before it: int64 [B, T] -> [B, T, 256]."""
        before = F.pad(levels[:, :-1], (1, 0), value=LEVELS // 2)
        features, guide = self.conditions(quantized)
        x = self.embed(before)
        skipped = self.stack(x if guide is None else x + guide, features)
        logits: Tensor = self.logits(torch.relu(self.hidden(torch.relu(skipped))))
        return logits


class WaveNetVQVAE(audio.AudioVQVAE):
    """VQ-VAE of audio with an autoregressive decoder."""

    method = "VQ-VAE with WaveNet decoder"
    draws = True
    config: Config
    decoder: WaveNet

    @staticmethod
    def make_decoder(config: audio.Config) -> nn.Module:
        """Build the network of the likelihood."""
        if not isinstance(config, Config):
            raise TypeError("settings of another decoder")
        return WaveNet(config)

    def at(self, index: int, effort: int = 1) -> AutoregressivePoint:
        """Return the only operating point."""
        return AutoregressivePoint(self, index, effort)

    def searches(self, effort: int) -> bool:
        """Return False: a search needs the mean of the likelihood, which this decoder lacks."""
        del effort
        return False

    def distortion(self, quantized: Tensor, samples: Tensor) -> Distortion:
        """Compute -log p(x | z) in nats per sample, as "nll"."""
        levels = to_levels(samples[:, 0])
        nll = F.cross_entropy(self.decoder(quantized, levels).flatten(0, 1).float(), levels.flatten())
        return Distortion(nll, {"nll": nll}, {})

    def log_figures(self, terms: Mapping[str, float]) -> dict[str, float]:
        """Return bits per sample, as in `Trainable.log_figures`."""
        return {"bits": terms["nll"] / math.log(2)}

    def round_trip(self, samples: Tensor, index: int = 0) -> RoundTrip:
        """Compute the bits of the samples, without sampling, as in `Trainable.round_trip`."""
        del index
        codes = self.analyse(samples)
        nll = self.distortion(self.quantizer.decode(codes), samples).total
        bits = float(nll) * samples.numel() / math.log(2)
        return RoundTrip({"codes": codes}, bits=bits, units=samples.numel())

    def start(self, draw: Callable[[int], Tensor], generator: torch.Generator) -> None:
        """Initialise the codebook of a joint training, if by k-means.

        Raises:
            UsageError: the encoder is frozen, and there is no model to start from.
        """
        if self.frozen:
            raise UsageError(
                "this decoder needs the encoder of a trained model", "start from one with --from vqvae-audio"
            )
        if self.config.codebook_start == "kmeans":
            self.start_codebook(draw, range(16), generator, 50_000)

    def load_from(self, other: Model, count: float) -> None:
        """Load all weights of such a model, or encoder, codebook and decoder of an `AudioVQVAE`."""
        if isinstance(other, WaveNetVQVAE):
            super().load_from(other, count)
            return
        if not isinstance(other, audio.AudioVQVAE) or not isinstance(other.decoder, nn.Sequential):
            raise TypeError(f"{other.method} has another encoder")
        self.encoder.load_state_dict(other.encoder.state_dict())
        self.decoder.trunk.load_state_dict(other.decoder[:-1].state_dict())
        if self.decoder.waveform is not None:
            self.decoder.waveform.load_state_dict(other.decoder[-1].state_dict())
        self.quantizer.set_codebook(other.quantizer.codebook.detach(), count / self.config.codes)


@dataclass(frozen=True)
class AutoregressivePoint(method.CodebookPoint):
    """The operating point of a VQ-VAE with an autoregressive decoder."""

    model: WaveNetVQVAE

    whole = True

    def synthesise(
        self, symbols: dict[str, Tensor], seed: int = 0, progress: Progress | None = None
    ) -> Tensor:
        """Sample the likelihood, see `generation.generate`, as in `OperatingPoint.synthesise`."""
        return torch.stack(
            [
                torch.from_numpy(generation.generate(codes, self.model, seed=seed, progress=progress))[None]
                for codes in symbols["codes"].cpu().numpy().astype(np.int32)
            ]
        )
