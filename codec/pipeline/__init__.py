"""The road both ways: samples -> targets -> symbols -> bytes, and back."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO

from .. import media, weights
from ..bitstream import container
from ..bitstream.container import STATIC
from ..bitstream.geometry import AudioGeometry, ImageGeometry
from ..errors import DamageWarning, LimitError, UsageError, VqcodecWarning, warn
from ..models.base import Progress
from . import rate_control
from .decoding import bytes_of, decode_preview, decode_stream, other_decoder, point_for, reconstruct, verify
from .encoding import Encoded, encode_at
from .rate_control import Target

__all__ = [
    "EFFORT",
    "EFFORTS",
    "EncodeOptions",
    "Encoded",
    "Target",
    "decode",
    "encode",
    "encode_at",
    "encode_file",
    "info",
    "reconstruct",
    "verify",
]

EFFORT = 1
"""The default effort."""

EFFORTS = range(4)
"""How long an encoder searches for better symbols: 0, not at all, to 3."""

ModelName = str | os.PathLike[str]
"""A shipped model's name, or a .safetensors file."""


@dataclass(frozen=True)
class EncodeOptions:
    """How an image or audio is encoded: the arguments of `encode`, which describes them."""

    model: ModelName | None = None
    quality: float | None = None
    bitrate: float | None = None
    bpp: float | None = None
    psnr: float | None = None
    target_size: int | None = None
    fast: bool = False
    effort: int = EFFORT
    max_pixels: int = media.MAX_PIXELS
    strip: Iterable[str] = ()
    keep_gps: bool = False
    device: str = "auto"

    @property
    def target(self) -> Target:
        """What the encoding has to meet.

        Raises:
            UsageError: targets exclude each other, or are not above zero.
        """
        return Target.of(
            quality=self.quality,
            bitrate=self.bitrate,
            bpp=self.bpp,
            psnr=self.psnr,
            target_size=self.target_size,
        )


def encode(
    source: media.Source,
    *,
    model: ModelName | None = None,
    quality: float | None = None,
    bitrate: float | None = None,
    bpp: float | None = None,
    psnr: float | None = None,
    target_size: int | None = None,
    fast: bool = False,
    effort: int = EFFORT,
    max_pixels: int = media.MAX_PIXELS,
    strip: Iterable[str] = (),
    keep_gps: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
) -> bytes:
    """Compress an image or audio into a .vqc bitstream.

    Args:
        source: a path, bytes, a binary file, a PIL image, a uint8 array [H, W, C], a media.Image, or a
            media.Audio (`media.Audio.of(samples, rate)`).
        model: a shipped model's name or a .safetensors file; None for the default of the medium.
        quality: 1..5; images accept decimals.
        bitrate: of audio, highest quality within this rate, kilobits a second of the file.
        bpp: of an image, highest quality within this rate, bits per pixel of the file.
        psnr: of an image, smallest file that reaches this quality, dB.
        target_size: highest quality whose file is not larger, bytes.
        fast: code by static tables, even where a learned prior is there; a warning where there are none.
        effort: 0..3, how long the encoder searches for better symbols, of audio from 2 on; a decoder is not
            affected. No gain with `vae-image` and autoregressive decoders.
        max_pixels: refuse larger images; a media.Image is in memory already, whatever its size.
        strip: metadata to leave out: "icc", "exif", "xmp", "tags", "all".
        keep_gps: keep the position where the image was taken; a media.Image keeps the metadata that it has.
        device: for the networks; symbols written by any device are read by any other.
        progress: called with blocks done and blocks in all.

    Raises:
        MediaError: the image or audio cannot be read.
        UsageError: no such model, quality or device, or a model for another medium.
        TargetError: no operating point meets the rate, the quality or the size.
    """
    options = EncodeOptions(
        model,
        quality,
        bitrate,
        bpp,
        psnr,
        target_size,
        fast,
        effort,
        max_pixels,
        strip,
        keep_gps,
        device,
    )
    return encode_file(source, options, progress=progress).data


def encode_file(
    source: media.Source, options: EncodeOptions = EncodeOptions(), *, progress: Progress | None = None
) -> Encoded:
    """As `encode`, and with the bytes also the symbols and what they were made from."""
    target = options.target
    if options.effort not in EFFORTS:
        raise UsageError(f"no effort {options.effort}", f"{EFFORTS[0]} to {EFFORTS[-1]}")
    named = None if options.model is None else weights.load(options.model, options.device)
    if isinstance(source, media.Image | media.Audio):
        original = source.without(options.strip)
    else:
        read = media.read(source, max_pixels=options.max_pixels, keep_gps=options.keep_gps)
        original = read.without(options.strip)
    medium = "image" if isinstance(original, media.Image) else "audio"
    model = named or weights.load(weights.DEFAULTS[medium], options.device)
    if model.medium != medium:
        message = f"{model.card.name} is for {model.medium}, not for {medium}"
        raise UsageError(message, f"name a model for {medium} with -m, or none")
    target.check(model)
    if options.fast and STATIC not in model.priors:
        warn(f"{model.card.name} has no static tables; fast changes nothing", VqcodecWarning)
    return rate_control.encode(
        original, model, target, effort=options.effort, fast=options.fast, progress=progress
    )


def decode(
    data: bytes | str | os.PathLike[str] | IO[bytes],
    *,
    model: ModelName | None = None,
    decoder: ModelName | None = None,
    salvage: bool = False,
    preview: bool = False,
    max_pixels: int = media.MAX_PIXELS,
    max_seconds: float = media.MAX_SECONDS,
    strip: Iterable[str] = (),
    device: str = "auto",
    progress: Progress | None = None,
) -> media.Image | media.Audio:
    """Reconstruct the image or audio of a .vqc bitstream.

    Args:
        data: the bytes, a path or a binary file.
        model: weights to decode with, where they are not shipped.
        decoder: another decoder of the same codes: "wavenet", the autoregressive one of the shipped
            `vqvae-audio`, or a file of its weights.
        salvage: fill damaged regions with grey or silence, each with a DamageWarning, instead of an error.
        preview: an eighth of the size, from a part of the symbols alone, of variable-rate models.
        max_pixels: refuse larger images.
        max_seconds: refuse longer audio; each channel counts.
        strip: metadata to leave out.
        device: for the networks.
        progress: called with blocks done and blocks in all.

    Raises:
        MediaError: a path that cannot be read.
        BitstreamError: no .vqc, newer, damaged, or larger than allowed.
        ModelError: the weights it needs are not here.
    """
    stream = container.parse(bytes_of(data), salvage=salvage)
    geometry = stream.geometry
    if isinstance(geometry, ImageGeometry) and geometry.width * geometry.height > max_pixels:
        raise LimitError(f"header claims {geometry.describe}", "--max-pixels")
    if isinstance(geometry, AudioGeometry) and geometry.seconds * geometry.channels > max_seconds:
        raise LimitError(f"header claims {geometry.describe}", "--max-seconds")
    if isinstance(geometry, AudioGeometry) and not media.LOWEST_RATE <= geometry.rate <= media.HIGHEST_RATE:
        raise LimitError(f"header claims {geometry.describe}", "no encoder writes that rate")
    point = point_for(stream, model, device)
    decoded: media.Image | media.Audio
    if preview:
        decoded, damage = decode_preview(stream, point, salvage=salvage)
    else:
        second = None if decoder is None else other_decoder(stream, point, decoder, device)
        decoded, damage = decode_stream(stream, point, decoder=second, salvage=salvage, progress=progress)
    for message in damage:
        warn(message, DamageWarning)
    return decoded.without(strip)


def info(data: bytes | str | os.PathLike[str] | IO[bytes]) -> container.Info:
    """Header and metadata of a bitstream; nothing is decoded.

    Args:
        data: the bytes, a path or a binary file.

    Raises:
        MediaError: a path that cannot be read.
        BitstreamError: no .vqc, newer or damaged.
    """
    return container.read_info(bytes_of(data))
