"""VQ-VAE for audio (van den Oord, Vinyals, Kavukcuoglu 2017, section 4.2).

For example: x [1, 1, 16000], one second at 16 kHz -> z_e [1, 8, 250] -> codes [1, 250] of K = 512, which is
2.25 kbit/s -> x [1, 1, 16000].

The encoder is the paper's: six convolutions of stride 2 and window 4. Their receptive field is 12 ms, less
than a period of a low voice, so residual units of growing dilation follow. Latents are normalised to length
one, so that codes are directions and the scale of the commitment is fixed. The decoder is feed-forward:
ConvNeXt blocks at the rate of the codes and an inverse STFT (Siuzdak 2023, "Vocos"); its likelihood is a
distance of spectra.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ...bitstream.container import LEARNED
from ...priors import settings
from ...priors.settings import HUGE, setting
from .. import losses
from ..networks import ConvNeXtBlock, InverseSTFT, ResidualBlock
from ..trainable import Trainable
from . import method, search_audio
from .discriminator import AudioDiscriminator, Critics

DOWNSAMPLINGS = 6
"""Convolutions of stride 2."""

WINDOW_HOPS = 4
"""Length of a frame of the inverse STFT, in codes."""


@dataclass(frozen=True)
class Config(method.CodebookConfig):
    """Settings of a VQ-VAE for audio; cards of shipped models have their own values.

    Attributes:
        encoder_width: channels of the last convolutions; the first have a quarter, a half, three quarters.
        encoder_blocks: residual units after them, of dilation 1, 2, 4 and so on.
        decoder_width, decoder_hidden, decoder_blocks: channels, channels inside the ConvNeXt blocks, blocks.
        codes, code_dim, codebook_update, codebook_start, decay, restart_below, restart_until, commitment: see
            `method.CodebookConfig`.
        normalise: whether latents are normalised to length one.
        unquantised: steps of training without a codebook, before k-means initialises it.
        mel, convergence, complex, loudness: weights of the terms of `losses.spectral`.
        adversarial, matching: weights of the terms of `AudioDiscriminator`; 0 `adversarial`: none of it.
        critics: the networks of the discriminator.
        ahead: steps in which the discriminator learns alone, before a training that starts from weights.
        frozen: whether encoder and codebook are frozen, so that bitstreams stay decodable.
    """

    encoder_width: int = setting(128, low=4, high=1 << 14)
    encoder_blocks: int = setting(4, low=0, high=12, may_grow=True)
    decoder_width: int = setting(128, low=1, high=1 << 14, may_grow=True)
    decoder_hidden: int = setting(384, low=1, high=1 << 14, may_grow=True)
    decoder_blocks: int = setting(8, low=0, high=100, may_grow=True)
    normalise: bool = True
    unquantised: int = setting(200, low=0, high=1 << 20, training_only=True, fixed_on_resume=True)
    mel: float = setting(15.0, low=0, high=HUGE, training_only=True)
    convergence: float = setting(1.0, low=0, high=HUGE, training_only=True)
    complex: float = setting(3.0, low=0, high=HUGE, training_only=True)
    loudness: float = setting(1.0, low=0, high=HUGE, training_only=True)
    adversarial: float = setting(0.0, low=0, high=HUGE, training_only=True, fixed_on_resume=True)
    matching: float = setting(2.0, low=0, high=HUGE, training_only=True)
    critics: Critics = setting("stft", training_only=True, fixed_on_resume=True)
    ahead: int = setting(0, low=0, high=1 << 20, training_only=True, fixed_on_resume=True)
    frozen: bool = setting(False, training_only=True, fixed_on_resume=True)


class AudioVQVAE(method.VQVAE):
    """VQ-VAE with a feed-forward decoder of audio.

    Samples are float32 [B, 1, N] in -1..1, `rate` in hertz, N a multiple of `stride`; codes int64
    [B, N / stride] in 0..K-1.
    """

    medium = "audio"
    channels, axes = 1, 1
    rate = 16_000
    stride = 2**DOWNSAMPLINGS
    decoding = ("decoder.", "quantizer.codebook")
    networks = ("encoder.", "decoder.")
    config: Config
    discriminator: AudioDiscriminator | None

    def __init__(self, config: Config) -> None:
        super().__init__(config, encoder(config), self.make_decoder(config))
        self.discriminator = AudioDiscriminator(config.critics) if config.adversarial else None
        if config.frozen:
            self.encoder.requires_grad_(False)
            self.quantizer.requires_grad_(False)

    @staticmethod
    def make_decoder(config: Config) -> nn.Module:
        """Build the network of `reconstruct`."""
        return nn.Sequential(*trunk(config), waveform_head(config))

    @classmethod
    def trains_prior_next(cls, config: settings.Config) -> bool:
        """Return whether the codes are its own, as in `Model.trains_prior_next`."""
        return isinstance(config, Config) and not config.frozen

    @property
    def frozen(self) -> bool:
        """Whether encoder and codebook are frozen."""
        return self.config.frozen

    @property
    def halo(self) -> int:
        """Codes around a block on which its samples, or its codes, can depend."""
        encoder = int(2**self.config.encoder_blocks) + 1
        decoder = 3 * (self.config.decoder_blocks + 1) + WINDOW_HOPS // 2
        return max(encoder, decoder)

    def searches(self, effort: int) -> bool:
        """Return whether the encoder searches with this effort, as in `VQVAE.searches`."""
        return search_audio.STEPS[effort] > 0

    def searcher(self, effort: int) -> Callable[[Tensor], Tensor]:
        """Return a search by the distance of spectra after decoding, as in `VQVAE.searcher`."""
        if not self.searches(effort):
            return self.analyse
        bits = search_audio.bits_of(self.priors.get(LEARNED), self.quantizer.codebook)
        return lambda samples: search_audio.find_codes(self, samples, effort, bits)

    def latents(self, samples: Tensor) -> Tensor:
        """Compute z_e(x): [B, 1, N] -> [B, D, N / 64]."""
        return self.normalised(self.encoder(samples))

    def normalised(self, latents: Tensor) -> Tensor:
        """Return the inputs of the quantizer, of length one by the settings: [B, D, T]."""
        return F.normalize(latents, dim=1) if self.config.normalise else latents

    def reconstruct(self, quantized: Tensor) -> Tensor:
        """Compute the mean of p(x | z), for any latents: [B, D, T] -> [B, 1, 64 T]."""
        decoded: Tensor = self.decoder(quantized)
        return decoded

    def distortion(self, quantized: Tensor, samples: Tensor) -> method.Distortion:
        """Compute the distance of the decoded audio, see `distance`."""
        return distance(self.config, self.discriminator, self.reconstruct(quantized).float(), samples)

    def spectral_distance(self, reconstruction: Tensor, samples: Tensor) -> Tensor:
        """Compute the weighted sum of `losses.spectral` alone: [B, 1, N] each."""
        return weighted(self.config, losses.spectral(reconstruction, samples, self.rate))

    def log_figures(self, terms: Mapping[str, float]) -> dict[str, float]:
        """Return the log-mel distance, as in `Trainable.log_figures`."""
        return {"log_mel": terms["mel"]}

    def start(self, draw: Callable[[int], Tensor], generator: torch.Generator) -> None:
        """Train some steps without a codebook, then initialise it by k-means of the encoder's outputs.

        Args:
            draw: returns the n-th batch of samples, [B, 1, N].
            generator: CPU generator for k-means.
        """
        count = self.config.unquantised
        parameters = [*self.encoder.parameters(), *self.decoder.parameters()]
        train_before(parameters, lambda x: self.distortion(self.latents(x), x).total, draw, count)
        if self.config.codebook_start == "kmeans":
            self.start_codebook(draw, range(count, count + 16), generator, 50_000)

    def complete(self, draw: Callable[[int], Tensor], generator: torch.Generator) -> None:
        """Train the discriminator ahead, as in `Trainable.complete`."""
        del generator
        train_ahead(self, self.config.ahead, draw)


def distance(
    config: Config,
    discriminator: AudioDiscriminator | None,
    reconstruction: Tensor,
    samples: Tensor,
    judged: int = 0,
) -> method.Distortion:
    """Compute the weighted sum of `losses.spectral` and of a discriminator's terms.

    Args:
        config: with the weights.
        discriminator: None: without its terms.
        reconstruction: [B, 1, N].
        samples: the same shape.
        judged: the first example of the batch that the discriminator judges.
    """
    terms = losses.spectral(reconstruction, samples, AudioVQVAE.rate)
    if discriminator is None:
        return method.Distortion(weighted(config, terms), terms, {})
    terms |= discriminator.judge(reconstruction[judged:], samples[judged:])
    kept = {"reconstruction": reconstruction[judged:].detach(), "samples": samples[judged:]}
    return method.Distortion(weighted(config, terms), terms, kept)


def weighted(config: Config, terms: Mapping[str, Tensor]) -> Tensor:
    """Return the sum of terms of a distortion, by the weights of the settings."""
    return torch.as_tensor(sum(getattr(config, name) * term for name, term in terms.items()))


def train_ahead(model: Trainable, count: int, draw: Callable[[int], Tensor]) -> None:
    """Train the discriminator of a model alone, if it has one.

    Args:
        model: which stays as it is.
        count: steps.
        draw: returns the n-th batch of samples, [B, 1, N], of which every other example is used.
    """
    discriminator = model.discriminator
    if discriminator is None:
        return

    def loss(samples: Tensor) -> Tensor:
        with torch.no_grad():
            kept = model.loss(samples[::2]).kept
        return discriminator.loss(kept["reconstruction"], kept["samples"]).loss

    train_before([*discriminator.parameters()], loss, draw, count)


def train_before(
    parameters: Sequence[nn.Parameter],
    loss: Callable[[Tensor], Tensor],
    draw: Callable[[int], Tensor],
    count: int,
) -> None:
    """Train networks for some steps before a training: those whose outputs initialise codebooks, or critics.

    Args:
        parameters: of the networks.
        loss: of a batch of samples.
        draw: returns the n-th batch of samples, [B, 1, N].
        count: steps.
    """
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.8, 0.99))
    for batch in range(count):
        total = loss(draw(batch))
        optimiser.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()


def encoder(config: Config) -> nn.Sequential:
    """Build the encoder: [B, 1, N] -> [B, D, N / 64]."""
    width = config.encoder_width
    widths = [1, width // 4, width // 2, width * 3 // 4, width, width, width]
    layers: list[nn.Module] = []
    for inputs, outputs in zip(widths, widths[1:], strict=False):
        layers += [nn.Conv1d(inputs, outputs, 4, 2, 1), nn.SiLU()]
    layers.pop()  # the residual units begin with a nonlinearity of their own
    layers += [ResidualBlock(width, width, axes=1, dilation=2**n) for n in range(config.encoder_blocks)]
    return nn.Sequential(*layers, nn.ReLU(), nn.Conv1d(width, config.code_dim, 1))


def trunk(config: Config) -> nn.Sequential:
    """Build the network at the rate of the codes, common to decoders: [B, D, T] -> [B, C, T]."""
    width = config.decoder_width
    return nn.Sequential(
        nn.Conv1d(config.code_dim, width, 7, padding=3),
        *(ConvNeXtBlock(width, config.decoder_hidden) for _ in range(config.decoder_blocks)),
    )


def waveform_head(config: Config) -> InverseSTFT:
    """Build the inverse STFT: [B, C, T] -> [B, 1, 64 T]."""
    hop = 2**DOWNSAMPLINGS
    return InverseSTFT(config.decoder_width, WINDOW_HOPS * hop, hop)
