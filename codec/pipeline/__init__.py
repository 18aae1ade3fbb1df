"""Encode and decode: samples -> targets -> symbols -> bytes, and back."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO

from .. import media, weights
from ..bitstream import container
from ..bitstream.container import STATIC
from ..bitstream.geometry import AudioGeometry, ImageGeometry, SetGeometry
from ..errors import DamageWarning, LimitError, UsageError, VqcodecWarning, warn
from ..models.base import Progress
from . import rate_control, sets
from .decoding import (
    bytes_of,
    decode_preview,
    decode_stream,
    model_for,
    other_decoder,
    point_for,
    reconstruct,
    verify,
)
from .encoding import Encoded, encode_at
from .rate_control import Target

__all__ = [
    "EFFORT",
    "EFFORTS",
    "EncodeOptions",
    "Encoded",
    "Target",
    "decode",
    "decode_set",
    "encode",
    "encode_at",
    "encode_file",
    "encode_set",
    "info",
    "reconstruct",
    "verify",
]

EFFORT = 1
"""Default effort."""

EFFORTS = range(4)
"""Efforts of the encoder's search for better symbols: 0, none, to 3."""

ModelName = str | os.PathLike[str]
"""A shipped model's name, or a .safetensors file."""


@dataclass(frozen=True)
class EncodeOptions:
    """Options of encoding: the arguments of `encode`, described there."""

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
        """Target of rate control.

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
        bitrate: for audio, the highest quality within this rate, in kilobits per second of the file.
        bpp: for images, the highest quality within this rate, in bits per pixel of the file.
        psnr: for images, the smallest file that reaches this PSNR, in dB.
        target_size: the highest quality within this size, in bytes.
        fast: code by static tables instead of a learned prior; models without such tables warn.
        effort: 0..3, how long the encoder searches for better symbols, for audio from 2 on; decoding does not
            depend on it. No gain with `vae-image` and autoregressive decoders.
        max_pixels: refuse larger images; a media.Image is in memory already, whatever its size.
        strip: metadata to leave out: "icc", "exif", "xmp", "tags", "all".
        keep_gps: keep the GPS position in EXIF; a media.Image keeps all its metadata.
        device: of the networks; files encoded on any device decode on any other.
        progress: called with the number of blocks done and of all blocks.

    Raises:
        MediaError: the image or audio cannot be read.
        UsageError: no such model, quality or device, or a model for another medium.
        TargetError: no operating point meets the rate, the PSNR or the size.
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
    """Encode as `encode`, and return the symbols and the original together with the bytes."""
    target = options.target
    if options.effort not in EFFORTS:
        raise UsageError(f"no effort {options.effort}", f"give {EFFORTS[0]} to {EFFORTS[-1]}")
    named = None if options.model is None else weights.load(options.model, options.device)
    if isinstance(source, media.Image | media.Audio):
        original = source.without(options.strip)
    else:
        read = media.read(source, max_pixels=options.max_pixels, keep_gps=options.keep_gps)
        original = read.without(options.strip)
    medium = "image" if isinstance(original, media.Image) else "audio"
    model = named or weights.load(weights.DEFAULTS[medium], options.device)
    if model.medium != medium:
        ours, theirs = (rate_control.FILES[name] for name in (model.medium, medium))
        message = f"{model.card.name} is for {ours}, not for {theirs}"
        raise UsageError(message, f"name a model for {medium} with -m, or leave out -m")
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
        model: weights for decoding, where they are not shipped.
        decoder: another decoder of the same codes: "wavenet", the autoregressive decoder of the shipped
            `vqvae-audio`, or a weights file.
        salvage: fill damaged regions with grey or silence, each with a DamageWarning, instead of an error.
        preview: decode an eighth of the size from a part of the symbols; variable-rate models only.
        max_pixels: refuse larger images.
        max_seconds: refuse longer audio; each channel counts.
        strip: metadata to leave out.
        device: of the networks.
        progress: called with the number of blocks done and of all blocks.

    Raises:
        MediaError: a path that cannot be read.
        BitstreamError: not a .vqc file, a newer one, damaged, or larger than allowed.
        ModelError: its weights are not available.
    """
    stream = container.parse(bytes_of(data), salvage=salvage)
    geometry = stream.geometry
    if isinstance(geometry, SetGeometry):
        raise UsageError(f"the file holds {geometry.describe}", "decode it with decode_set")
    if isinstance(geometry, ImageGeometry) and geometry.width * geometry.height > max_pixels:
        raise LimitError(f"header claims {geometry.describe}", "raise --max-pixels to decode it")
    if isinstance(geometry, AudioGeometry) and geometry.seconds * geometry.channels > max_seconds:
        raise LimitError(f"header claims {geometry.describe}", "raise --max-seconds to decode it")
    if isinstance(geometry, AudioGeometry) and not media.LOWEST_RATE <= geometry.rate <= media.HIGHEST_RATE:
        raise LimitError(f"header claims {geometry.describe}", "no encoder writes that rate")
    for message in stream.damage:
        warn(message, DamageWarning)
    point = point_for(stream, model, device)
    second = None if decoder is None else other_decoder(stream, point, decoder, device)
    decoded: media.Image | media.Audio
    if preview:
        decoded, damage = decode_preview(stream, point, salvage=salvage)
    else:
        decoded, damage = decode_stream(stream, point, decoder=second, salvage=salvage, progress=progress)
    for message in damage:
        warn(message, DamageWarning)
    return decoded.without(strip)


def encode_set(
    source: media.PictureSet | media.Readable, *, model: ModelName | None = None, device: str = "auto"
) -> bytes:
    """Compress a set of small pictures of 0 and 1 into a .vqc bitstream, without loss.

    Args:
        source: a media.PictureSet, or a path, bytes or binary file of .npy, .npz or idx(.gz).
        model: a shipped model's name or a .safetensors file, of the method of `vae-bits`.
        device: where the weights are loaded; the networks run in numpy.

    Raises:
        MediaError: no such set.
        UsageError: no such model or device, or a model of other pictures.
    """
    loaded = weights.load(model or weights.DEFAULTS["set"], device)
    pictures = source if isinstance(source, media.PictureSet) else media.read_set(source)
    return sets.encode(pictures, loaded)


def decode_set(
    data: bytes | str | os.PathLike[str] | IO[bytes],
    *,
    model: ModelName | None = None,
    salvage: bool = False,
    max_pixels: int = media.MAX_PIXELS,
    device: str = "auto",
) -> media.PictureSet:
    """Restore a set of small pictures.

    Args:
        data: the bytes, a path or a binary file.
        model: weights for decoding, where they are not shipped.
        salvage: leave the pictures of damaged chunks black, each chunk with a DamageWarning.
        max_pixels: refuse larger sets.
        device: as in `encode_set`.

    Raises:
        MediaError, BitstreamError, ModelError: as in `decode`.
        UsageError: the bitstream holds an image or audio.
    """
    stream = container.parse(bytes_of(data), salvage=salvage)
    geometry = stream.geometry
    if not isinstance(geometry, SetGeometry):
        raise UsageError(f"the file holds {geometry.describe}", "decode it with decode")
    if math.prod(geometry.grid(1)) > max_pixels:
        raise LimitError(f"header claims {geometry.describe}", "raise --max-pixels to decode it")
    pictures, damage = sets.decode(stream, model_for(stream, model, device), salvage=salvage)
    for message in [*stream.damage, *damage]:
        warn(message, DamageWarning)
    return pictures


def info(data: bytes | str | os.PathLike[str] | IO[bytes]) -> container.Info:
    """Read the header of a bitstream; nothing is decoded.

    Args:
        data: the bytes, a path or a binary file.

    Raises:
        MediaError: a path that cannot be read.
        BitstreamError: not a .vqc file, a newer one, or damaged.
    """
    return container.read_info(bytes_of(data))
