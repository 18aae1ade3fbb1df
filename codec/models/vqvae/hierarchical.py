"""VQ-VAE-2 for images (Razavi, van den Oord, Vinyals 2019, "Generating Diverse High-Fidelity Images").

A worked shape: x [1, 3, 256, 256] -> top [1, 32, 32] of K = 512, a code for 8x8 pixels -> bottom [1, 64, 64]
of K = 512, a code for 4x4 pixels, given the decoded top -> x [1, 3, 256, 256] (algorithm 1). Packed, the top
takes 9/64 and the bottom 9/16 bits per pixel.

    features(x) --top encoder--> z_top --nearest code--> q_top --top decoder--> context, at a quarter
    features(x), context --bottom encoder--> z_bottom --nearest code--> q_bottom
    q_bottom, context --decoder--> mean of p(x | q_top, q_bottom)

One context serves the bottom's encoder and the decoder. Two operating points: the top alone, whose decoder
takes zeros for the bottom's codes, and both. Departures from the paper, each a setting:

- *Linear start.* PCA of 8x8 blocks is added to the networks of the top, PCA of 4x4 blocks of what is left to
  those of the bottom; last layers start at zero, codebooks at k-means centres.
- *Topology.* "shuffle" or "strided", as in `image`.
- *Top alone.* `top_weight` weighs the distortion of the top's own picture.
- *Entropy-constrained codes.* With `error_per_bit` bottom codes are chosen by distance and bits (Chou,
  Lookabaugh, Gray 1989), see `rates`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ...bitstream.quality import LAST_INDEX
from ...errors import UsageError
from ...metrics.image import psnr_db
from ...priors.settings import HUGE, setting
from .. import losses, ppca
from ..base import LossStep, Model, RoundTrip
from ..quantizers import VectorQuantizer, as_vectors, kmeans
from . import levels
from .hierarchical_point import BOTH, STRIDES, HierarchicalPoint
from .image import PCA_SCALE
from .method import CodebookConfig
from .planes import PlanesOfCodes
from .rates import NetworkRates, RateNetwork
from .search_image import CodeRates, Grid, find_codes


@dataclass(frozen=True)
class Config(CodebookConfig):
    """Settings of a VQ-VAE-2; `codes` and `code_dim` are those of each level.

    Attributes:
        topology: "shuffle" or "strided", see `image`.
        encoder_width, encoder_hidden, encoder_blocks: channels, channels inside the residual blocks, blocks,
            of features, both encoders and the top decoder.
        decoder_width, decoder_hidden, decoder_blocks: the same of the decoder.
        context: channels at a quarter of the size that the top is decoded to.
        commitment: beta, against the squared error of pixels in -1..1; of each level.
        top_weight: weight of the distortion of the top alone, of one in `TOP_PARTS` examples of a batch.
        error_per_bit: lambda, the squared error, summed over samples in -1..1, that is worth a bit of the
            bottom, as lambda of Lagrangian D + lambda R; 0: nearest codes. It needs the linear start.
        linear_start: PCA added to the networks.
    """

    topology: Literal["shuffle", "strided"] = "shuffle"
    encoder_width: int = setting(96, low=1, high=1 << 14)
    encoder_hidden: int = setting(48, low=1, high=1 << 14)
    encoder_blocks: int = setting(2, low=0, high=100)
    decoder_width: int = setting(128, low=1, high=1 << 14)
    decoder_hidden: int = setting(64, low=1, high=1 << 14)
    decoder_blocks: int = setting(4, low=0, high=100)
    context: int = setting(32, low=1, high=1 << 14)
    restart_below: float = setting(0.12, low=0, high=1, training_only=True)
    commitment: float = setting(0.0125, low=0, high=HUGE, training_only=True)
    top_weight: float = setting(0.25, low=0, high=HUGE, training_only=True)
    error_per_bit: float = setting(0.0, low=0, high=HUGE, may_grow=True, may_shrink=True)
    linear_start: bool = True

    def check(self) -> None:
        """As in `Config.check`: no more principal components than a block of the bottom has."""
        super().check()
        if self.error_per_bit and not self.linear_start:
            hint = "leave one of them out: the error of a code is that of the linear decoder"
            raise UsageError("error_per_bit without linear_start", hint)
        if self.linear_start:
            self.check_components(3 * STRIDES["bottom"] ** 2)


ENTROPY_CONSTRAINED = Config(error_per_bit=0.03)
"""The setting that is shipped."""

PAPER = Config(
    topology="strided",
    encoder_width=128,
    encoder_hidden=64,
    encoder_blocks=2,
    decoder_width=128,
    decoder_hidden=64,
    decoder_blocks=2,
    context=64,
    code_dim=64,
    codebook_start="random",
    restart_below=0.0,
    commitment=0.25,
    top_weight=0.0,
    linear_start=False,
)
"""The setting of the paper's appendix for 256x256 pixels: 128 hidden units, 64 residual units,
2 residual layers, K = 512, D = 64, beta = 0.25, codebooks by moving averages of decay 0.99."""


TOP_PARTS = 4
"""In training the top alone is decoded for one in so many examples: it costs as much as both levels."""

SAMPLES_PER_CODE = 3 * STRIDES["bottom"] ** 2
"""Of the bottom."""


class Quantized(NamedTuple):
    """A level of a batch.

    Attributes:
        latents: z, the encoder's outputs, float32 [B, D, h, w].
        codes: int64 [B, h, w].
        vectors: their vectors, with the gradient of the latents.
    """

    latents: Tensor
    codes: Tensor
    vectors: Tensor


class HierarchicalVQVAE(PlanesOfCodes):
    """Two levels of codes, the second one given the first.

    Samples are float32 [B, 3, H, W] in -1..1, H and W multiples of 8; codes int64 [B, H / 8, W / 8] of the
    top and [B, H / 4, W / 4] of the bottom, in 0..K-1.
    """

    medium, channels, axes = "image", 3, 2
    method = "VQ-VAE-2"
    stride = STRIDES["top"]
    points = LAST_INDEX + 1
    validation_points = (BOTH,)
    prior_methods: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"top": "attentive-pixelcnn", "bottom": "conditional-pixelcnn"}
    )
    networks = ("features.", "top_encoder.", "top_decoder.", "bottom_encoder.", "decoder.", "rate_network.")
    decoding = ("top_decoder.", "decoder.", "top_quantizer.codebook", "bottom_quantizer.codebook", "pca_")
    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.features, self.top_encoder = levels.features(config), levels.top_encoder(config)
        self.top_quantizer = levels.quantizer(config)
        self.top_decoder, self.bottom_encoder = levels.top_decoder(config), levels.bottom_encoder(config)
        self.bottom_quantizer = levels.quantizer(config)
        self.decoder = levels.decoder(config)
        self.rate_network: RateNetwork | None = None
        if config.error_per_bit:
            self.rate_network = RateNetwork(config.codes, config.code_dim, config.context)
        for name, stride in STRIDES.items():
            samples, size = 3 * stride**2, config.code_dim
            linear = config.linear_start
            self.register_buffer(f"pca_{name}_mean", torch.zeros(samples if linear else 0))
            self.register_buffer(f"pca_{name}_components", torch.zeros(size if linear else 0, samples))
            self.register_buffer(f"pca_{name}_scale", torch.ones(1))

    def quantizer(self, plane: str) -> VectorQuantizer:
        """The quantizer of a level."""
        return self.top_quantizer if plane == "top" else self.bottom_quantizer

    def codebook(self, plane: str) -> Tensor:
        """As in `Model.codebook`."""
        return self.quantizer(plane).codebook.detach()

    def at(self, index: int, effort: int = 1) -> HierarchicalPoint:
        """As in `Model.at`: the top alone below the middle of the scale, both from there on."""
        return HierarchicalPoint(self, BOTH if 2 * index > LAST_INDEX else 0, effort)

    # x -> top, bottom -> x

    def encode(self, samples: Tensor, top_alone: bool = False) -> dict[str, Quantized]:
        """The levels of samples: [B, 3, H, W] -> "top", and unless it is alone "bottom"."""
        features = self.features(samples)
        latents = self.top_encoder(features)
        if self.config.linear_start:
            latents = latents + self._project("top", samples)
        codes = self.top_quantizer.encode(latents.detach().float())
        found = {"top": self._quantized("top", latents, codes)}
        if top_alone:
            return found
        context = self.top_decoder(found["top"].vectors)
        latents = self.bottom_encoder(torch.cat((features, context), 1))
        if self.config.linear_start:
            rest = samples - self._expand("top", found["top"].vectors)
            latents = latents + self._project("bottom", rest)
        codes = self._bottom_codes(latents.detach().float(), context.detach())
        found["bottom"] = self._quantized("bottom", latents, codes)
        return found

    def decode(self, top: Tensor, bottom: Tensor | None = None) -> Tensor:
        """Mean of p(x | q_top, q_bottom), or of the top alone.

        Args:
            top: vectors, float32 [B, D, h, w].
            bottom: vectors, [B, D, 2 h, 2 w]; None: zeros.

        Returns:
            float32 [B, 3, 8 h, 8 w].
        """
        context = self.top_decoder(top)
        if bottom is None:
            bottom = top.new_zeros(len(top), self.config.code_dim, *context.shape[2:])
        if not self.config.linear_start:
            decoded: Tensor = self.decoder(torch.cat((bottom, context), 1))
            return decoded
        linear = self._expand("top", top) + self._expand("bottom", bottom)
        blocks = F.pixel_unshuffle(linear, STRIDES["bottom"])
        correction: Tensor = self.decoder(torch.cat((bottom, context, blocks), 1))
        return linear + correction

    def synthesise(self, codes: Mapping[str, Tensor]) -> Tensor:
        """Samples of the codes of the top, or of both; see MISSING."""
        vectors = {}
        for name, found in codes.items():
            found = found.long()
            vectors[name] = self.quantizer(name).decode(found.clamp(min=0)) * (found >= 0)[:, None]
        return self.decode(vectors["top"], vectors.get("bottom"))

    def _quantized(self, plane: str, latents: Tensor, codes: Tensor) -> Quantized:
        latents = latents.float()
        return Quantized(latents, codes, latents + (self.quantizer(plane).decode(codes) - latents).detach())

    def _bottom_codes(self, latents: Tensor, context: Tensor) -> Tensor:
        """Codes of the bottom, nearest or cheapest: latents and context -> int64 [B, h, w]."""
        if self.rate_network is None:
            return self.bottom_quantizer.encode(latents)
        # A tensor, so that a loss on CUDA devices does not wait for its value.
        distance_per_bit = self.config.error_per_bit * self._linear("bottom")[2] ** 2
        return self.rate_network.cheapest(self.bottom_quantizer, latents, context, distance_per_bit)

    def _bits(self, codes: Mapping[str, Tensor]) -> Tensor | None:
        """Bits per bottom code, by the rate network; None without one."""
        if self.rate_network is None:
            return None
        with torch.no_grad():
            context = self.top_decoder(self.top_quantizer.decode(codes["top"]))
        return self.rate_network.bits(self.bottom_quantizer, codes["bottom"], context)

    def _project(self, plane: str, samples: Tensor) -> Tensor:
        """Scaled principal components of blocks: [B, 3, H, W] -> [B, D, h, w]."""
        mean, components, scale = self._linear(plane)
        weight = components * scale
        blocks = F.pixel_unshuffle(samples, STRIDES[plane])
        return F.conv2d(blocks, weight[:, :, None, None], -(weight @ mean))

    def _expand(self, plane: str, vectors: Tensor) -> Tensor:
        """Blocks of scaled principal components: [B, D, h, w] -> [B, 3, H, W]."""
        mean, components, scale = self._linear(plane)
        weight = (components / scale).t()
        return F.pixel_shuffle(F.conv2d(vectors, weight[:, :, None, None], mean), STRIDES[plane])

    def _linear(self, plane: str) -> tuple[Tensor, Tensor, Tensor]:
        mean, components, scale = (
            self.get_buffer(f"pca_{plane}_{part}") for part in ("mean", "components", "scale")
        )
        return mean, components, scale

    @torch.no_grad()
    def search(self, samples: Tensor, effort: int, rates: CodeRates | None) -> Tensor:
        """Search the codes of the top alone, see `search_image.find_codes`."""
        latents = self.encode(samples, top_alone=True)["top"].latents
        grid = Grid(latents, self.codebook("top"), STRIDES["top"], self._curvature("top"), self.decode)
        return find_codes(grid, samples, self.top_quantizer.encode(latents), effort, rates)

    @torch.no_grad()
    def search_bottom(self, samples: Tensor, effort: int, network: RateNetwork) -> dict[str, Tensor]:
        """Search the codes of the bottom, given those of the top as the encoder finds them.

        The top's codes are so far apart that their bits change no choice, on validation crops.
        """
        top, bottom = self.encode(samples).values()
        embedded = network.context(self.top_decoder(top.vectors))
        rates = NetworkRates(network, self.bottom_quantizer, embedded, self.config.error_per_bit)
        book, curvature = self.codebook("bottom"), self._curvature("bottom")
        grid = Grid(bottom.latents, book, STRIDES["bottom"], curvature, partial(self.decode, top.vectors))
        return {"top": top.codes, "bottom": find_codes(grid, samples, bottom.codes, effort, rates)}

    def _curvature(self, plane: str) -> float:
        """Squared error of samples per squared distance of latents, under the linear decoder."""
        return float(self._linear(plane)[2] ** -2)

    # training

    def loss(self, samples: Tensor) -> LossStep:
        """The weighted sum of eq. 2 for a batch of samples.

            distortion + top_weight distortion_top + beta (commitment_top + commitment_bottom)

        Distortions are squared errors of pixels in -1..1, commitments those of latents, per element. With
        `error_per_bit` lambda, lambda / 48 times the bits per bottom code are added, per sample as well.
        """
        config, found = self.config, self.encode(samples)
        top, bottom = found["top"], found["bottom"]
        terms = {
            "distortion": losses.squared_error(self.decode(top.vectors, bottom.vectors).float(), samples)
        }
        total = terms["distortion"]
        if config.top_weight:
            part = -(-len(samples) // TOP_PARTS)
            decoded = self.decode(top.vectors[:part]).float()
            terms["distortion_top"] = losses.squared_error(decoded, samples[:part])
            total = total + config.top_weight * terms["distortion_top"]
        for name, level in found.items():
            quantized = self.quantizer(name).decode(level.codes)
            terms[f"commitment_{name}"] = losses.commitment(level.latents, quantized)
            total = total + config.commitment * terms[f"commitment_{name}"]
            if config.codebook_update == "loss":
                terms[f"codebook_{name}"] = losses.codebook(level.latents, quantized)
                total = total + terms[f"codebook_{name}"]
        codes = {name: level.codes for name, level in found.items()}
        if (bits := self._bits(codes)) is not None:
            terms["bits"] = bits
            total = total + config.error_per_bit / SAMPLES_PER_CODE * bits
        return LossStep(total, terms, codes, {n: level.latents.detach() for n, level in found.items()})

    def update(self, step: LossStep, progress: float, generator: torch.Generator) -> dict[str, int]:
        """As in `Trainable.update`: moving averages and revival of dead codes, of both levels."""
        restart, moved = self.config.restart_below > 0 and progress < self.config.restart_until, 0
        for name in STRIDES:
            network = self.rate_network if name == "bottom" else None
            kept, codes, by_error = step.kept[name], step.symbols[name], network is not None
            revived = self.quantizer(name).update(kept, codes, restart, generator, by_error=by_error)
            if network is not None:
                network.split(*revived)
            moved += revived.shape[1]
        return {"restarted": moved}

    def log_figures(self, terms: Mapping[str, float]) -> dict[str, float]:
        """As in `Trainable.log_figures`: the PSNR."""
        return {"psnr_db": psnr_db(terms["distortion"], peak=2)}

    def round_trip(self, samples: Tensor, index: int = 0) -> RoundTrip:
        """As in `Trainable.round_trip`; the loss is distortion and rate, as far as it is known."""
        trip = super().round_trip(samples, index)
        if "bottom" not in trip.symbols or (bits := self._bits(trip.symbols)) is None:
            return trip
        if trip.samples is None:
            return trip
        error = losses.squared_error(trip.samples, samples)
        loss = float(error + self.config.error_per_bit / SAMPLES_PER_CODE * bits)
        return replace(trip, loss=loss, figures={"bits": float(bits)})

    @torch.no_grad()
    def load_from(self, other: Model, count: float) -> None:
        """As in `Trainable.load_from`; each code is taken to be chosen equally often."""
        state, optional = self.state_dict(), "rate_network."
        fresh = {n: t for n, t in state.items() if n.startswith(optional)}
        known = {n: t for n, t in other.state_dict().items() if n in state or not n.startswith(optional)}
        self.load_state_dict({**fresh, **known})
        for name, stride in STRIDES.items():
            positions = count * (self.stride // stride) ** 2
            quantizer = self.quantizer(name)
            quantizer.set_codebook(quantizer.codebook.detach(), positions / self.config.codes)

    @torch.no_grad()
    def start(self, draw: Callable[[int], Tensor], generator: torch.Generator) -> None:
        """The linear start, level by level: PCA of blocks, then k-means of the encoder's outputs.

        Args:
            draw: gives the n-th batch of samples, [B, 3, H, W].
            generator: CPU generator for k-means.
        """
        fit, cluster = range(64), range(64, 80)
        for name, stride in STRIDES.items():
            if self.config.linear_start:
                rests = (self._rest(name, draw(n)) for n in fit)
                blocks = (as_vectors(F.pixel_unshuffle(rest, stride)) for rest in rests)
                linear = ppca.fit(*ppca.moments(blocks), self.config.code_dim)
                mean, components, scale = self._linear(name)
                mean.copy_(linear.mean)
                components.copy_(linear.components)
                scale.copy_(PCA_SCALE / linear.variances[:1].clamp(min=1e-6).sqrt())
            if self.config.codebook_start == "kmeans":
                batches = (self.encode(draw(n), top_alone=name == "top")[name] for n in cluster)
                outputs = torch.cat([as_vectors(level.latents) for level in batches])
                picks = torch.randperm(len(outputs), generator=generator)[:50_000]
                centres = kmeans(outputs[picks].cpu(), self.config.codes, generator)
                self.quantizer(name).set_codebook(centres)

    def _rest(self, plane: str, samples: Tensor) -> Tensor:
        """What the principal components of a level are taken of."""
        if plane == "top":
            return samples
        return samples - self._expand("top", self.encode(samples, top_alone=True)["top"].vectors)
