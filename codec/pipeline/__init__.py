"""Encode and decode: samples -> targets -> symbols -> bytes, and back."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import IO

from .. import media, weights
from ..bitstream import container
from ..bitstream.container import STATIC
from ..bitstream.geometry import AudioGeometry, ImageGeometry, SetGeometry
from ..errors import DamageWarning, LimitError, MediaError, UsageError, VqcodecWarning, warn
from ..models.base import Model, Progress
from . import ladder, pixel_crc, rate_control
from .decoding import (
    bytes_of,
    decode_preview,
    decode_stream,
    other_decoder,
    point_for,
    reconstruct,
    sealed,
    verify,
)
from .encoding import Analysed, Encoded, analyse, code, encode_at
from .fidelity import checked, finish
from .rate_control import Target
from .sets import EncodedSet, decode_set, encode_set

__all__ = [
    "EFFORT",
    "EFFORTS",
    "Analysed",
    "EncodeOptions",
    "Encoded",
    "EncodedSet",
    "Target",
    "analyse_file",
    "code",
    "decode",
    "decode_audio",
    "decode_image",
    "decode_set",
    "encode",
    "encode_at",
    "encode_batch",
    "encode_file",
    "encode_set",
    "finish",
    "info",
    "reconstruct",
    "verify",
]

EFFORT = 1
"""Default effort."""

BATCH = 16
"""Images or sounds that `encode_batch` codes side by side."""

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
    lossless: bool = False
    fast: bool = False
    effort: int = EFFORT
    max_pixels: int = media.MAX_PIXELS
    strip: Iterable[str] = ()
    keep_gps: bool = False
    device: str = "auto"
    tune: str | None = None
    pixel_crc: bool = False

    @property
    def target(self) -> Target:
        """Target of rate control.

        Raises:
            UsageError: targets exclude each other, or are not above zero.
        """
        target = Target.of(
            quality=self.quality,
            bitrate=self.bitrate,
            bpp=self.bpp,
            psnr=self.psnr,
            target_size=self.target_size,
            lossless=self.lossless,
        )
        return replace(target, reserved=pixel_crc.BOX_BYTES) if self.pixel_crc else target


def encode(
    source: media.Source,
    *,
    model: ModelName | None = None,
    quality: float | None = None,
    bitrate: float | None = None,
    bpp: float | None = None,
    psnr: float | None = None,
    target_size: int | None = None,
    lossless: bool = False,
    fast: bool = False,
    effort: int = EFFORT,
    max_pixels: int = media.MAX_PIXELS,
    strip: Iterable[str] = (),
    keep_gps: bool = False,
    device: str = "auto",
    tune: str | None = None,
    pixel_crc: bool = False,
    progress: Progress | None = None,
) -> bytes:
    """Compress an image or audio into a .vqc bitstream.

    Args:
        source: a path, bytes, a binary file, a PIL image, a uint8 array [H, W, C], a tensor [C, H, W] (uint8,
            or floats in 0..1), a media.Image, or a media.Audio (`media.Audio.of(samples, rate)`).
        model: a shipped model's name or a .safetensors file; None for the default of the medium.
        quality: 1..5; images accept decimals.
        bitrate: for audio, the highest quality within this rate, in kilobits per second of the file.
        bpp: for images, the highest quality within this rate, in bits per pixel of the file.
        psnr: for images, the smallest file that reaches this PSNR, in dB.
        target_size: the highest quality within this size, in bytes.
        lossless: for images, store all pixels exactly, those of alpha 0 aside.
        fast: code by static tables instead of a learned prior; models without such tables warn. Lossless
            images are lossless WebP.
        effort: 0..3, how long the encoder searches for better symbols, for audio from 2 on; decoding does not
            depend on it. No gain with `vae-image` and autoregressive decoders.
        max_pixels: refuse larger images; a media.Image is in memory already, whatever its size.
        strip: metadata to leave out: "icc", "exif", "xmp", "tags", "all".
        keep_gps: keep the GPS position in EXIF; a media.Image keeps all its metadata.
        device: of the networks; files encoded on any device decode on any other.
        tune: which default model for images: "visual", trained for the eye, the default, or "psnr".
        pixel_crc: for images of models in integers, add the CRC of the decoded pixels, which `decode` checks.
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
        lossless,
        fast,
        effort,
        max_pixels,
        strip,
        keep_gps,
        device,
        tune,
        pixel_crc,
    )
    return encode_file(source, options, progress=progress).data


def encode_file(
    source: media.Source, options: EncodeOptions = EncodeOptions(), *, progress: Progress | None = None
) -> Encoded:
    """Encode as `encode`, and return the symbols and the original together with the bytes."""
    original, model = _opened(source, options)
    encoded = rate_control.encode(
        original, model, options.target, effort=options.effort, fast=options.fast, progress=progress
    )
    return sealed(encoded) if options.pixel_crc else checked(encoded)


def analyse_file(source: media.Source, options: EncodeOptions = EncodeOptions()) -> Analysed | Encoded:
    """Do the part of `encode_file` that concerns this file alone.

    What comes out can be coded together with others (`encoding.code`), and finished (`finish`). With
    a target that takes several trials, or the CRC of the pixels, the file is encoded here.
    """
    index = options.target.index
    if index is None or options.pixel_crc:
        return encode_file(source, options)
    original, model = _opened(source, options)
    rung = ladder.rung_at(model, index)
    return analyse(original, model.at(rung.base, options.effort), rung=rung)


def _opened(source: media.Source, options: EncodeOptions) -> tuple[media.Image | media.Audio, Model]:
    """Read a source, choose its model, and check the options against both."""
    target = options.target
    if options.effort not in EFFORTS:
        raise UsageError(f"no effort {options.effort}", f"give {EFFORTS[0]} to {EFFORTS[-1]}")
    if options.tune is not None and (options.model is not None or options.lossless):
        why = "as its name does" if options.model is not None else "and lossless stores pixels without one"
        raise UsageError(f"tune chooses the model, {why}", "leave out one of them")
    named = None if options.model is None else weights.load(options.model, options.device)
    if isinstance(source, media.Image | media.Audio):
        original = source.without(options.strip)
    else:
        read = media.read(source, max_pixels=options.max_pixels, keep_gps=options.keep_gps)
        original = read.without(options.strip)
    medium = "image" if isinstance(original, media.Image) else "audio"
    model = named or weights.load(weights.default(medium, options.tune), options.device)
    if model.medium != medium:
        ours, theirs = (rate_control.FILES[name] for name in (model.medium, medium))
        message = f"{model.card.name} is for {ours}, not for {theirs}"
        raise UsageError(message, f"name a model for {medium} with -m, or leave out -m")
    target.check(model)
    if options.pixel_crc:
        pixel_crc.check(model, lossless=options.lossless)
    if options.fast and STATIC not in model.priors and not options.lossless:
        warn(f"{model.card.name} has no static tables; fast changes nothing", VqcodecWarning)
    return original, model


def encode_batch(
    sources: Iterable[media.Source],
    *,
    model: ModelName | None = None,
    quality: float | None = None,
    fast: bool = False,
    effort: int = EFFORT,
    device: str = "auto",
) -> list[bytes]:
    """Compress many images or sounds, coding the symbols of BATCH of them side by side.

    The bitstreams are those that `encode` makes of each. Small images and short sounds gain most.

    Args:
        sources: as in `encode`; they are taken from the iterable batch by batch.
        model: as in `encode`, and so are the others.
        quality: 1..5; images accept decimals.
        fast: code by static tables instead of a learned prior.
        effort: 0..3, how long the encoder searches for better symbols.
        device: of the networks.

    Raises:
        MediaError, UsageError: as in `encode`, for the first source that fails.
    """
    options = EncodeOptions(model, quality, fast=fast, effort=effort, device=device)
    encoded: list[bytes] = []
    remaining = iter(sources)
    while batch := [analyse_file(source, options) for source in itertools.islice(remaining, BATCH)]:
        files = [file for file in batch if isinstance(file, Analysed)]
        pairs = zip(files, code(files, fast=fast), strict=True)
        encoded += [finish(file, one, fast=fast).data for file, one in pairs]
    return encoded


def decode_image(
    data: bytes | str | os.PathLike[str] | IO[bytes],
    *,
    model: ModelName | None = None,
    salvage: bool = False,
    preview: bool = False,
    levels: int | None = None,
    max_pixels: int = media.MAX_PIXELS,
    device: str = "auto",
) -> media.Image:
    """Reconstruct an image, as `decode` does.

    Raises:
        MediaError: the bitstream is one of audio.
        BitstreamError, ModelError: as in `decode`.
    """
    decoded = decode(
        data,
        model=model,
        salvage=salvage,
        preview=preview,
        levels=levels,
        max_pixels=max_pixels,
        device=device,
    )
    if not isinstance(decoded, media.Image):
        raise MediaError("audio, not an image", "decode it with decode_audio")
    return decoded


def decode_audio(
    data: bytes | str | os.PathLike[str] | IO[bytes],
    *,
    model: ModelName | None = None,
    decoder: ModelName | None = None,
    salvage: bool = False,
    levels: int | None = None,
    max_seconds: float = media.MAX_SECONDS,
    device: str = "auto",
) -> media.Audio:
    """Reconstruct audio, as `decode` does.

    Raises:
        MediaError: the bitstream is one of an image.
        BitstreamError, ModelError: as in `decode`.
    """
    decoded = decode(
        data,
        model=model,
        decoder=decoder,
        salvage=salvage,
        levels=levels,
        max_seconds=max_seconds,
        device=device,
    )
    if not isinstance(decoded, media.Audio):
        raise MediaError("an image, not audio", "decode it with decode_image")
    return decoded


def decode(
    data: bytes | str | os.PathLike[str] | IO[bytes],
    *,
    model: ModelName | None = None,
    decoder: ModelName | None = None,
    salvage: bool = False,
    preview: bool = False,
    levels: int | None = None,
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
            `vqvae-audio` and of the first level of `rvqvae-audio`, or a weights file.
        salvage: fill damaged regions with grey or silence, each with a DamageWarning, instead of an error.
        preview: decode an eighth of the size from a part of the symbols, of an image.
        levels: decode only the first levels of codes, this many, of a model that has several.
        max_pixels: refuse larger images.
        max_seconds: refuse longer audio; each channel counts.
        strip: metadata to leave out.
        device: of the networks.
        progress: called with the number of blocks done and of all blocks.

    Raises:
        MediaError: a path that cannot be read.
        BitstreamError: not a .vqc file, a newer one, damaged, or larger than allowed.
        ModelError: its weights are not available, or the file does not have so many levels.
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
        decoded, damage = decode_stream(
            stream, point, decoder=second, salvage=salvage, levels=levels, progress=progress
        )
    for message in damage:
        warn(message, DamageWarning)
    return decoded.without(strip)


def info(data: bytes | str | os.PathLike[str] | IO[bytes]) -> container.Info:
    """Read the header of a bitstream; nothing is decoded.

    Args:
        data: the bytes, a path or a binary file.

    Raises:
        MediaError: a path that cannot be read.
        BitstreamError: not a .vqc file, a newer one, or damaged.
    """
    return container.read_info(bytes_of(data))
