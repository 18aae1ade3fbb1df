"""Pictures and sounds <-> codes through the networks, block by block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch

from ..bitstream.container import SEGMENT, Geometry
from ..models.base import Codec
from ..models.vqvae import AudioVQVAE, ImageVQVAE
from ..models.vqvae import search_audio as sounds
from ..models.vqvae import search_image as pictures
from . import tiling
from .loudness import Loudness
from .pixels import to_pixels, to_samples

Progress = Callable[[int, int], None]
"""Called with blocks done and blocks in all."""


class Synthesiser(Protocol):
    """What turns codes into pictures: a model, or one at a place on its dial."""

    @property
    def stride(self) -> int:
        """Pixels per code, along each side."""

    @property
    def halo(self) -> int:
        """Codes around a block that its samples can depend on."""

    @property
    def device(self) -> torch.device:
        """Where the networks run."""

    def synthesise(self, codes: torch.Tensor) -> torch.Tensor:
        """[B, h, w] or [B, h, w, M] -> samples [B, 3, H, W] in -1..1."""


@torch.inference_mode(False)
@torch.no_grad()
def analyse(
    pixels: np.ndarray,
    codec: ImageVQVAE,
    *,
    effort: int = 0,
    area: int = tiling.AREA,
    progress: Progress | None = None,
) -> np.ndarray:
    """Codes of a picture, block by block.

    Args:
        pixels: uint8 [H, W, C].
        codec: the model.
        effort: of the search for codes, 0..3; 0 takes the nearest (`search`).
        area: codes in a block at most.
        progress: called with blocks done and blocks in all.

    Returns:
        int32 [ceil(H / stride), ceil(W / stride)].
    """
    stride = codec.stride
    height, width = -(-pixels.shape[0] // stride), -(-pixels.shape[1] // stride)
    codes = np.empty((height, width), np.int32)
    # A search looks through the decoder after the encoder, so that both reaches add up.
    cut = tiling.blocks(height, width, codec.halo * (2 if pictures.ROUNDS[effort] else 1), area)
    rates = pictures.Rates.of(codec) if effort else None
    for number, block in enumerate(cut):
        samples = samples_around(pixels, block, stride).to(codec.device)
        found = pictures.find_codes(codec, samples, effort, rates)
        codes[block.inner] = found[0].cpu().numpy()[block.within]
        if progress:
            progress(number + 1, len(cut))
    return codes


def samples_around(pixels: np.ndarray, block: tiling.Block, stride: int) -> torch.Tensor:
    """What a network has to see for a block of codes: uint8 [H, W, C] -> [1, 3, h', w'] in -1..1."""
    window = pixels[tiling.scaled(block.outer, stride)]
    window = tiling.pad_to_multiple(np.broadcast_to(window, (*window.shape[:2], 3)), stride)
    return to_samples(window[None])


@torch.inference_mode()
def synthesise(
    codes: np.ndarray,
    codec: Synthesiser,
    geometry: Geometry,
    *,
    area: int | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """The picture that codes stand for, block by block: [h, w] or [h, w, M] -> uint8 [H, W, C].

    Args:
        codes: int32 indices of a codebook, or int16 latents.
        codec: what they are codes of.
        geometry: of the picture.
        area: codes in a block at most; by default as many as 1 megapixel has.
        progress: called with blocks done and blocks in all.
    """
    stride = codec.stride
    pixels = np.empty((geometry.height, geometry.width, geometry.channels), np.uint8)
    height, width = codes.shape[:2]
    cut = tiling.blocks(height, width, codec.halo, area or tiling.area_for(stride))
    for number, block in enumerate(cut):
        window = torch.from_numpy(np.ascontiguousarray(codes[block.outer])).to(codec.device)
        decoded = codec.synthesise(window[None])
        rows, columns = tiling.scaled(block.within, stride)
        decoded = decoded[:, :, rows, columns]
        if geometry.channels == 1:
            decoded = decoded.mean(1, keepdim=True)
        place = pixels[tiling.scaled(block.inner, stride)]
        place[:] = to_pixels(decoded)[0][: place.shape[0], : place.shape[1]]
        if progress:
            progress(number + 1, len(cut))
    return pixels


@torch.inference_mode(False)
@torch.no_grad()
def analyse_signal(
    signal: np.ndarray,
    codec: AudioVQVAE,
    *,
    effort: int = 0,
    loudness: Loudness | None = None,
    longest: int = SEGMENT,
    progress: Progress | None = None,
) -> np.ndarray:
    """Codes of one channel of a sound, block by block.

    Args:
        signal: float32 [N], at the codec's rate.
        codec: the model.
        effort: of the search for codes, 0..3; 0 takes the nearest (`search`).
        loudness: of the channel; None: it has that of the codec.
        longest: codes in a block at most.
        progress: called with blocks done and blocks in all.

    Returns:
        int32 [ceil(N / stride)].
    """
    stride = codec.stride
    codes = np.empty(-(-len(signal) // stride), np.int32)
    searched = sounds.steps_of(codec, effort) > 0
    # Codes at the end of a block are found together with some of the next, which are found again there.
    cut = tiling.spans(len(codes), codec.halo * (2 if searched else 1), longest)
    bits = sounds.bits_of(codec) if searched else None
    for number, span in enumerate(cut):
        (part,) = tiling.scaled((span.outer,), stride)
        window = signal[part]
        if loudness is not None:
            window = window * np.float32(1 / loudness.factors(part.start, part.start + len(window)))
        window = np.pad(window, (0, -len(window) % stride))
        samples = torch.from_numpy(window)[None, None].to(codec.device)
        found = sounds.find_codes(codec, samples, effort, bits)
        codes[span.inner] = found[0].cpu().numpy()[span.within]
        if progress:
            progress(number + 1, len(cut))
    return codes


@torch.inference_mode()
def synthesise_signal(
    codes: np.ndarray,
    codec: Codec,
    count: int,
    *,
    longest: int = SEGMENT,
    progress: Progress | None = None,
) -> np.ndarray:
    """The channel that codes stand for, block by block: int32 [T] -> float32 [count]."""
    stride = codec.stride
    signal = np.empty(count, np.float32)
    cut = tiling.spans(len(codes), codec.halo, longest)
    for number, span in enumerate(cut):
        window = torch.from_numpy(codes[span.outer].astype(np.int64)).to(codec.device)
        decoded = codec.synthesise(window[None])[0, 0].cpu().numpy()
        place = signal[tiling.scaled((span.inner,), stride)]
        place[:] = decoded[tiling.scaled((span.within,), stride)][: len(place)]
        if progress:
            progress(number + 1, len(cut))
    return signal
