"""Samples -> codes -> bytes and back: the only module that knows all stages."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import torch

from .. import media, weights
from ..bitstream import container
from ..bitstream.container import Bitstream, Geometry, Timeline
from ..bitstream.geometry import Place
from ..bitstream.quality import BEST, WORST
from ..coding import chunks, dial
from ..errors import DamagedError, LimitError, MediaError, ModelError, TargetError, UsageError, VersionError
from ..models.points import Point
from ..models.variable_rate import ScalarCodec
from ..models.vqvae import VQVAE, search
from ..transform.image import Progress
from . import rate_control as goals
from .encoding import (
    EFFORT,
    QUALITY,
    Encoded,
    encode_at,
    encode_audio,
    encode_image,
    glanced,
    reconstruct,
    restored,
    restored_at,
    verify,
)

__all__ = [
    "EFFORT",
    "QUALITY",
    "Encoded",
    "decode",
    "encode",
    "encode_at",
    "encode_audio",
    "encode_file",
    "encode_image",
    "info",
    "reconstruct",
    "verify",
]

Source = Any
"""A path, bytes, a binary file, a PIL image, a uint8 array [H, W, C], a media.Image or a media.Audio."""

LARGEST = 1 << 62
"""Bytes of a file, where a rate would be more."""

MEDIA = {"image": "pictures", "audio": "sounds"}
"""Media in messages."""


def encode(
    source: Source,
    *,
    model: str | os.PathLike[str] | None = None,
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
    """Compress a picture or sound into a .vqc bitstream.

    Args:
        source: a path, bytes, a binary file, a PIL image, a uint8 array [H, W, C], a media.Image, or a
            media.Audio (`media.Audio.of(samples, rate)`).
        model: a shipped model's name or a .safetensors file; None for the default of the medium.
        quality: operating point, 1..5.
        bitrate: of a sound, best point that is not above this rate, kilobits a second of the file.
        bpp: of a picture, best point that is not above this rate, bits per pixel of the file.
        psnr: of a picture, cheapest point that is not under this quality, dB.
        target_size: best point whose file is not larger, bytes.
        fast: code by static tables, even where a learned prior is there; models with a dial have none.
        effort: 0..3, how long the encoder searches for better codes, of sounds from 2 on; a decoder is not
            affected. No gain with `vae-image` and autoregressive decoders.
        max_pixels: refuse larger pictures; a media.Image is in memory already, whatever its size.
        strip: metadata to leave out: "icc", "exif", "xmp", "tags", "all".
        keep_gps: keep the position where the picture was taken; a media.Image keeps the metadata that it has.
        device: for the networks; codes written by any device are read by any other.
        progress: called with blocks done and blocks in all.

    Raises:
        MediaError: the picture or sound cannot be read.
        UsageError: no such model, point or device, or a model for another medium.
        TargetError: no operating point meets the rate, the quality or the size.
    """
    return encode_file(
        source,
        model=model,
        quality=quality,
        bitrate=bitrate,
        bpp=bpp,
        psnr=psnr,
        target_size=target_size,
        fast=fast,
        effort=effort,
        max_pixels=max_pixels,
        strip=strip,
        keep_gps=keep_gps,
        device=device,
        progress=progress,
    ).data


def encode_file(
    source: Source,
    *,
    model: str | os.PathLike[str] | None = None,
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
) -> Encoded:
    """As `encode`, and with the bytes also the codes and what they were made from."""
    wishes = {"quality": quality, "bitrate": bitrate, "bpp": bpp, "psnr": psnr, "target size": target_size}
    if sum(wish is not None for wish in wishes.values()) > 1:
        raise UsageError("quality, bitrate, bpp, psnr and target size exclude each other", "give one of them")
    goals_given = [wish for name, wish in wishes.items() if wish is not None and name != "quality"]
    if not all(0 < wish < math.inf for wish in goals_given):
        raise UsageError("goals are numbers above zero", "for example bpp 0.4, psnr 30, target size 40000")
    if effort not in search.EFFORTS:
        raise UsageError(f"no effort {effort}", "0 to 3")
    named = None if model is None else weights.load(model, device)
    if isinstance(source, media.Image | media.Audio):
        original = source.without(strip)
    else:
        original = media.read(source, max_pixels=max_pixels, keep_gps=keep_gps).without(strip)
    medium = "image" if isinstance(original, media.Image) else "audio"
    codec: Any = named or weights.load(weights.DEFAULTS[medium], device)
    name = codec.card["name"]
    if codec.medium != medium:
        raise UsageError(f"{name} is for {MEDIA[codec.medium]}, not for {MEDIA[medium]}", "another -m")
    dialled = isinstance(codec, ScalarCodec)
    if quality is not None and dialled and not WORST <= quality <= BEST:
        raise UsageError(f"no quality {quality:g}", f"{WORST:g} to {BEST:g}, with decimals")
    if quality is not None and not dialled and quality != QUALITY:
        raise UsageError(f"{name} has no quality {quality:g}", f"its operating points: {QUALITY:g}")
    foreign = {"bitrate"} if medium == "image" else {"bpp", "psnr"}
    if wrong := sorted(wish for wish in foreign if wishes[wish] is not None):
        fitting = "target size, bpp or psnr" if medium == "image" else "target size or bitrate"
        raise UsageError(f"{wrong[0]} means nothing for {MEDIA[medium]}", f"give {fitting}")
    encoded: Encoded
    if isinstance(original, media.Image) and isinstance(codec, ScalarCodec):
        limit = target_size if bpp is None else int(min(bpp * original.width * original.height / 8, LARGEST))
        return goals.encode(
            original, codec, quality=quality, limit=limit, psnr=psnr, effort=effort, progress=progress
        )
    if isinstance(original, media.Image):
        encoded = encode_image(original, codec, effort=effort, fast=fast, progress=progress)
    else:
        encoded = encode_audio(original, codec, effort=effort, fast=fast, progress=progress)
    larger = "a larger target" if effort <= EFFORT else f"a larger target, or --effort {EFFORT}"
    if bitrate is not None and encoded.kbps is not None and encoded.kbps > bitrate:
        raise TargetError(f"smallest is {encoded.kbps:.2f} kbit/s, target {bitrate:g}", larger)
    if bpp is not None and encoded.bpp is not None and encoded.bpp > bpp:
        raise TargetError(f"smallest is {encoded.bpp:.3f} bpp, target {bpp:g}", larger)
    if target_size is not None and len(encoded.data) > target_size:
        raise TargetError(f"smallest is {len(encoded.data):,} bytes, target {target_size:,}", larger)
    if psnr is not None and (reached := verify(encoded)) < psnr:
        raise TargetError(f"best is {reached:.2f} dB, target {psnr:g}", "a smaller target")
    return encoded


def decode(
    data: bytes | str | os.PathLike[str] | IO[bytes],
    *,
    model: str | os.PathLike[str] | None = None,
    decoder: str | os.PathLike[str] | None = None,
    salvage: bool = False,
    preview: bool = False,
    max_pixels: int = media.MAX_PIXELS,
    max_seconds: float = media.MAX_SECONDS,
    strip: Iterable[str] = (),
    device: str = "auto",
    progress: Progress | None = None,
) -> media.Image | media.Audio:
    """Reconstruct the picture or sound of a .vqc bitstream.

    Args:
        data: the bytes, a path or a binary file.
        model: weights to decode with, where they are not shipped.
        decoder: another decoder of the same codes: "wavenet", the autoregressive one of the shipped
            `vqvae-audio`, or a file of its weights.
        salvage: fill damaged regions with grey or silence, each with a DamageWarning, instead of an error.
        preview: an eighth of the size, from a part of the codes alone, of models that have a dial.
        max_pixels: refuse larger pictures.
        max_seconds: refuse longer sounds; each channel counts.
        strip: metadata to leave out.
        device: for the networks.
        progress: called with blocks done and blocks in all.

    Raises:
        MediaError: a path that cannot be read.
        BitstreamError: no .vqc, newer, damaged, or larger than allowed.
        ModelError: the weights it needs are not here.
    """
    stream = container.parse(_bytes_of(data), salvage=salvage)
    geometry = stream.geometry
    if isinstance(geometry, Geometry) and geometry.width * geometry.height > max_pixels:
        raise LimitError(f"header claims {geometry.claim}", "--max-pixels")
    if isinstance(geometry, Timeline) and geometry.seconds * geometry.channels > max_seconds:
        raise LimitError(f"header claims {geometry.claim}", "--max-seconds")
    if isinstance(geometry, Timeline) and not media.LOWEST_RATE <= geometry.rate <= media.HIGHEST_RATE:
        raise LimitError(f"header claims {geometry.claim}", "no encoder writes that rate")
    codec = _codec_for(stream, model, device)
    if isinstance(codec, ScalarCodec):
        if decoder is not None:
            raise UsageError(f"{stream.model} has no decoder '{decoder}'", "leave out --decoder")
        point = Point(codec, stream.settings[0])
        if preview:
            return glanced(stream, point, salvage).without(strip)
        found = dial.read(stream, point, salvage=salvage)
        return restored_at(stream, found, point, salvage, progress).without(strip)
    if preview:
        raise ModelError(f"{stream.model} has no preview", "decode it whole")
    second = codec if decoder is None else _other_decoder(stream, codec, decoder, device)
    lost: list[Place] = []
    codes = chunks.read(stream, codec, salvage=salvage, lost=lost)
    return restored(stream, codes, lost, second, salvage, progress).without(strip)


def open_stream(
    data: bytes | str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | VQVAE | ScalarCodec | None,
    device: str,
) -> tuple[Bitstream, Any]:
    """A bitstream and the model that decodes it, as `decode` finds them, or a model in memory."""
    stream = container.parse(_bytes_of(data))
    return stream, _codec_for(stream, model, device)


def info(data: bytes | str | os.PathLike[str] | IO[bytes]) -> container.Info:
    """Header and metadata of a bitstream; nothing is decoded.

    Args:
        data: the bytes, a path or a binary file.

    Raises:
        MediaError: a path that cannot be read.
        BitstreamError: no .vqc, newer or damaged.
    """
    return container.read_info(_bytes_of(data))


def _codec_for(
    stream: Bitstream, model: str | os.PathLike[str] | VQVAE | ScalarCodec | None, device: str
) -> Any:
    """The model whose fingerprint the bitstream names.

    Raises:
        ModelError: it is not shipped, and not the one given.
    """
    needs = f"needs model {stream.model} ({stream.fingerprint.hex()})"
    if model is None and not (weights.folder() / f"{stream.model}.safetensors").is_file():
        raise ModelError(needs, "-m FILE")
    codec: Any = (
        model if isinstance(model, VQVAE | ScalarCodec) else weights.load(model or stream.model, device)
    )
    if codec.card["fingerprint"] != stream.fingerprint.hex():
        raise ModelError(f"{needs}, not {codec.card['name']} ({codec.card['fingerprint']})", "-m FILE")
    wanted = 1 if isinstance(codec, ScalarCodec) else 0
    if len(stream.settings) != wanted:
        raise VersionError(f"settings that {stream.model} does not have here", "upgrade")
    if codec.medium != stream.kind:
        raise DamagedError(f"header claims {MEDIA[stream.kind]}, {stream.model} is for {MEDIA[codec.medium]}")
    if codec.stride != stream.geometry.stride:
        raise DamagedError(
            f"header claims stride {stream.geometry.stride}, {stream.model} has {codec.stride}"
        )
    return codec


def _other_decoder(stream: Bitstream, codec: VQVAE, decoder: str | os.PathLike[str], device: str) -> VQVAE:
    """Another model with the same codebook.

    Raises:
        UsageError: there is none of this name, or it decodes other codes.
    """
    named = f"{stream.model}-{decoder}"
    shipped = (weights.folder() / f"{named}.safetensors").is_file()
    if not shipped and not Path(decoder).is_file():
        raise UsageError(f"{stream.model} has no decoder '{decoder}'", "wavenet, or a .safetensors file")
    other = weights.load(named if shipped else decoder, device)
    alike = isinstance(other, VQVAE) and other.medium == codec.medium
    if not alike or not torch.equal(other.quantizer.codebook, codec.quantizer.codebook):
        raise UsageError(
            f"{other.card['name']} does not decode the codes of {stream.model}", "another --decoder"
        )
    return other


def _bytes_of(data: bytes | str | os.PathLike[str] | IO[bytes]) -> bytes:
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    if isinstance(data, str | os.PathLike):
        try:
            return Path(data).read_bytes()
        except OSError as error:
            raise MediaError(f"{data}: {(error.strerror or str(error)).lower()}") from error
    if not hasattr(data, "read"):
        raise MediaError(f"a {type(data).__name__} is no bitstream", "give bytes, a path or a binary file")
    content = data.read()
    if not isinstance(content, bytes):
        raise MediaError("a text stream", "open the file in binary mode")
    return content
