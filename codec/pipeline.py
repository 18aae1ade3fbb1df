"""Samples -> codes -> bytes and back: the only module that knows all stages."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from . import chunks, container, media, metrics, search, weights
from .binary import deflate
from .container import Bitstream, Geometry
from .errors import (
    DamagedError,
    DamageWarning,
    LimitError,
    MediaError,
    MediaWarning,
    ModelError,
    TargetError,
    UsageError,
    VersionError,
)
from .models.vqvae import VQVAE
from .transform import Progress, analyse, synthesise

Source = Any
"""A path, bytes, a binary file, a PIL image, a uint8 array [H, W, C], or a media.Image."""

QUALITY = 3.0
"""The operating point of models that have one."""

HEAVY_METADATA = 1000
"""Bytes of metadata that nobody need be told about, however small the picture."""

EFFORT = 1
"""The default effort of the search for codes."""


@dataclass(frozen=True)
class Encoded:
    """A bitstream, and what it was made from.

    Attributes:
        data: the .vqc file.
        codes: int32 [h, w], the code indices of the whole picture.
        image: the picture that was encoded.
        codec: the model.
        quality: operating point, 1..5.
    """

    data: bytes
    codes: np.ndarray
    image: media.Image
    codec: VQVAE
    quality: float = QUALITY

    @property
    def model(self) -> str:
        """Name of the model."""
        return str(self.codec.card["name"])

    @property
    def width(self) -> int:
        """In pixels."""
        return self.image.width

    @property
    def height(self) -> int:
        """In pixels."""
        return self.image.height

    @property
    def channels(self) -> int:
        """1 gray, 3 RGB; alpha not counted."""
        return self.image.channels

    @property
    def bpp(self) -> float:
        """Bits of the whole file per pixel."""
        return 8 * len(self.data) / (self.width * self.height)

    @property
    def estimate_bits(self) -> float | None:
        """Cross-entropy of the codes under the static tables, in bits; None without tables."""
        return chunks.ideal_bits(self.codes, self.codec)


def encode(
    source: Source,
    *,
    model: str | os.PathLike[str] | None = None,
    quality: float | None = None,
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
    """Compress a picture into a .vqc bitstream.

    Args:
        source: a path, bytes, a binary file, a PIL image, a uint8 array [H, W, C], or a media.Image.
        model: a shipped model's name or a .safetensors file; None for the default.
        quality: operating point, 1..5.
        bpp: best point that is not above this rate, bits per pixel of the file.
        psnr: cheapest point that is not under this quality, dB.
        target_size: best point whose file is not larger, bytes.
        fast: code by static tables, even where a learned prior is there.
        effort: 0..3, how long the encoder searches for better codes; a decoder is not affected.
        max_pixels: refuse larger pictures; a media.Image is in memory already, whatever its size.
        strip: metadata to leave out: "icc", "exif", "xmp", "all".
        keep_gps: keep the position where the picture was taken; a media.Image keeps the metadata that it has.
        device: for the networks; codes written by any device are read by any other.
        progress: called with blocks done and blocks in all.

    Raises:
        MediaError: the picture cannot be read.
        UsageError: no such model, point or device.
        TargetError: no operating point meets the rate, the quality or the size.
    """
    return encode_file(
        source,
        model=model,
        quality=quality,
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
    """As `encode`, and with the bytes also the codes and the picture they were made from."""
    del fast  # static tables are all there is so far
    if sum(goal is not None for goal in (quality, bpp, psnr, target_size)) > 1:
        raise UsageError("quality, bpp, psnr and target size exclude each other", "give one of them")
    if any(goal is not None and not goal > 0 for goal in (bpp, psnr, target_size)):
        raise UsageError("bpp, psnr and target size are numbers above zero", "for example 0.4, 30, 40000")
    codec = weights.load(model, device)
    if quality is not None and quality != QUALITY:
        raise UsageError(
            f"{codec.card['name']} has no quality {quality:g}", f"its operating points: {QUALITY:g}"
        )
    if effort not in search.ROUNDS:
        raise UsageError(f"no effort {effort}", "0 to 3")
    if isinstance(source, media.Image):
        image = source.without(strip)
    else:
        image = media.read_image(source, max_pixels=max_pixels, keep_gps=keep_gps).without(strip)
    encoded = encode_image(image, codec, effort=effort, progress=progress)
    if bpp is not None and encoded.bpp > bpp:
        raise TargetError(f"smallest is {encoded.bpp:.3f} bpp, target {bpp:g}")
    if target_size is not None and len(encoded.data) > target_size:
        raise TargetError(f"smallest is {len(encoded.data):,} bytes, target {target_size:,}")
    if psnr is not None and (reached := verify(encoded)) < psnr:
        raise TargetError(f"best is {reached:.2f} dB, target {psnr:g}")
    return encoded


def encode_image(
    image: media.Image, codec: VQVAE, *, effort: int = EFFORT, progress: Progress | None = None
) -> Encoded:
    """Compress a decoded picture with a loaded model.

    Args:
        image: samples, and the metadata and alpha that go with them into the bitstream.
        codec: the model; its card has the "name" and the "fingerprint" that the bitstream tells.
        effort: 0..3, see `encode`.
        progress: called with blocks done and blocks in all.

    Raises:
        LimitError: the picture, or its metadata, is larger than the format allows.
    """
    codes = analyse(image.samples, codec, effort=effort, progress=progress)
    boxes = {"icc": image.icc, "exif": image.exif, "xmp": image.xmp}
    boxes["alpha"] = None if image.alpha is None else media.pack_alpha(image.alpha)
    stream = Bitstream(
        kind="image",
        model=codec.card["name"],
        fingerprint=bytes.fromhex(codec.card["fingerprint"]),
        geometry=Geometry(image.width, image.height, image.channels, codec.stride),
        source=image.source,
        boxes={name: box for name, box in boxes.items() if box is not None},
        chunks=chunks.write(codes, codec),
    )
    _tell_heavy_metadata(stream)
    return Encoded(container.pack(stream), codes, image, codec)


def decode(
    data: bytes | str | os.PathLike[str] | IO[bytes],
    *,
    model: str | os.PathLike[str] | None = None,
    salvage: bool = False,
    max_pixels: int = media.MAX_PIXELS,
    strip: Iterable[str] = (),
    device: str = "auto",
    progress: Progress | None = None,
) -> media.Image:
    """Reconstruct the picture of a .vqc bitstream.

    Args:
        data: the bytes, a path or a binary file.
        model: weights to decode with, where they are not shipped.
        salvage: fill damaged regions with grey, with a DamageWarning for each, instead of an error.
        max_pixels: refuse larger pictures.
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
    if geometry.width * geometry.height > max_pixels:
        raise LimitError(f"header claims {geometry.width:,} x {geometry.height:,} pixels", "--max-pixels")
    codec = _codec_for(stream, model, device)
    if stream.settings:
        raise VersionError(f"settings that {stream.model} does not have here", "upgrade")
    codes = chunks.read(stream, codec, salvage=salvage)
    pixels = synthesise(codes, codec, geometry, progress=progress)
    alpha = _alpha(stream, salvage)
    icc, exif, xmp = (stream.boxes.get(name) for name in ("icc", "exif", "xmp"))
    return media.Image(pixels, alpha, icc, exif, xmp, stream.source).without(strip)


def verify(encoded: Encoded) -> float:
    """Decode what was just written, compare every code, and measure the picture.

    Returns:
        PSNR of the reconstruction in dB, infinite when nothing differs.

    Raises:
        DamagedError: a code differs.
    """
    stream = container.parse(encoded.data)
    codes = chunks.read(stream, encoded.codec)
    if not np.array_equal(codes, encoded.codes):
        raise DamagedError("the bitstream does not decode to the codes it was made from", "report this")
    return metrics.psnr(synthesise(codes, encoded.codec, stream.geometry), encoded.image.samples)


def info(data: bytes | str | os.PathLike[str] | IO[bytes]) -> container.Info:
    """Header and metadata of a bitstream; nothing is decoded.

    Args:
        data: the bytes, a path or a binary file.

    Raises:
        MediaError: a path that cannot be read.
        BitstreamError: no .vqc, newer or damaged.
    """
    return container.read_info(_bytes_of(data))


def _tell_heavy_metadata(stream: Bitstream) -> None:
    """Warn where metadata, not the picture, makes most of the file."""
    sizes = {name: len(deflate(box)) for name, box in stream.boxes.items() if name != "alpha"}
    coded = sum(len(chunk.payload) for chunk in stream.chunks if chunk is not None)
    if (total := sum(sizes.values())) > max(coded, HEAVY_METADATA):
        largest = max(sizes, key=lambda name: sizes[name])
        message = f"metadata takes {total:,} bytes, the picture {coded:,}; --strip {largest} leaves it out"
        warnings.warn(message, MediaWarning, stacklevel=4)


def _alpha(stream: Bitstream, salvage: bool) -> np.ndarray | None:
    box, geometry = stream.boxes.get("alpha"), stream.geometry
    if box is None:
        return None
    try:
        return media.unpack_alpha(box, geometry.width, geometry.height)
    except DamagedError:
        if not salvage:
            raise
        warnings.warn("damaged in box alpha", DamageWarning, stacklevel=3)
        return None


def _codec_for(stream: Bitstream, model: str | os.PathLike[str] | None, device: str) -> VQVAE:
    """The model whose fingerprint the bitstream names.

    Raises:
        ModelError: it is not shipped, and not the one given.
    """
    needs = f"needs model {stream.model} ({stream.fingerprint.hex()})"
    if model is None and not (weights.folder() / f"{stream.model}.safetensors").is_file():
        raise ModelError(needs, "-m FILE")
    codec = weights.load(stream.model if model is None else model, device)
    if codec.card["fingerprint"] != stream.fingerprint.hex():
        raise ModelError(f"{needs}, not {codec.card['name']} ({codec.card['fingerprint']})", "-m FILE")
    if codec.stride != stream.geometry.stride:
        raise DamagedError(
            f"header claims stride {stream.geometry.stride}, {stream.model} has {codec.stride}"
        )
    return codec


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
