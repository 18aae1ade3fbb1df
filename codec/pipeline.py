"""Samples -> codes -> bytes and back: the only module that knows all stages."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from . import chunks, container, loudness, media, metrics, search, sound_metrics, weights
from .binary import deflate
from .container import Bitstream, Geometry, Timeline
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
from .geometry import Place
from .models.vqvae import VQVAE, AudioVQVAE, ImageVQVAE
from .transform import Progress, analyse, analyse_signal, synthesise, synthesise_signal

Source = Any
"""A path, bytes, a binary file, a PIL image, a uint8 array [H, W, C], a media.Image or a media.Audio."""

MEDIA = {"image": "pictures", "audio": "sounds"}
"""Media in messages."""

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
        codes: int32, the code indices of the whole picture [h, w], or of a sound [C, T].
        original: the picture or sound that was encoded.
        geometry: its size.
        codec: the model.
        quality: operating point, 1..5.
    """

    data: bytes
    codes: np.ndarray
    original: media.Image | media.Audio
    geometry: Geometry | Timeline
    codec: VQVAE
    quality: float = QUALITY

    @property
    def model(self) -> str:
        """Name of the model."""
        return str(self.codec.card["name"])

    @property
    def bpp(self) -> float | None:
        """Bits of the whole file per pixel; None of a sound."""
        return container.read_info(self.data).bpp

    @property
    def kbps(self) -> float | None:
        """Kilobits of the whole file per second; None of a picture."""
        return container.read_info(self.data).kbps

    @property
    def estimate_bits(self) -> float | None:
        """Cross-entropy of the codes under the static tables, in bits; None without tables."""
        return chunks.ideal_bits(self.codes, self.codec, self.geometry)


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
        fast: code by static tables, even where a learned prior is there.
        effort: 0..3, how long the encoder of pictures searches for better codes; a decoder is not affected.
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
    del fast  # static tables are all there is so far
    goals = {"quality": quality, "bitrate": bitrate, "bpp": bpp, "psnr": psnr, "target size": target_size}
    if sum(goal is not None for goal in goals.values()) > 1:
        raise UsageError("quality, bitrate, bpp, psnr and target size exclude each other", "give one of them")
    if any(goal is not None and not goal > 0 for goal in goals.values()):
        raise UsageError("goals are numbers above zero", "for example bpp 0.4, psnr 30, target size 40000")
    if effort not in search.ROUNDS:
        raise UsageError(f"no effort {effort}", "0 to 3")
    named = None if model is None else weights.load(model, device)
    if isinstance(source, media.Image | media.Audio):
        original = source.without(strip)
    else:
        original = media.read(source, max_pixels=max_pixels, keep_gps=keep_gps).without(strip)
    medium = "image" if isinstance(original, media.Image) else "audio"
    codec = named or weights.load(weights.DEFAULTS[medium], device)
    name = codec.card["name"]
    if codec.medium != medium:
        raise UsageError(f"{name} is for {MEDIA[codec.medium]}, this is of {MEDIA[medium]}", "another -m")
    if quality is not None and quality != QUALITY:
        raise UsageError(f"{name} has no quality {quality:g}", f"its operating points: {QUALITY:g}")
    foreign = {"bitrate"} if medium == "image" else {"bpp", "psnr"}
    if wrong := sorted(goal for goal in foreign if goals[goal] is not None):
        raise UsageError(f"{wrong[0]} means nothing for {MEDIA[medium]}", "give target size, or quality")
    encoded: Encoded
    if isinstance(original, media.Image):
        encoded = encode_image(original, codec, effort=effort, progress=progress)
    else:
        encoded = encode_audio(original, codec, progress=progress)
    if bitrate is not None and encoded.kbps is not None and encoded.kbps > bitrate:
        raise TargetError(f"smallest is {encoded.kbps:.2f} kbit/s, target {bitrate:g}")
    if bpp is not None and encoded.bpp is not None and encoded.bpp > bpp:
        raise TargetError(f"smallest is {encoded.bpp:.3f} bpp, target {bpp:g}")
    if target_size is not None and len(encoded.data) > target_size:
        raise TargetError(f"smallest is {len(encoded.data):,} bytes, target {target_size:,}")
    if psnr is not None and (reached := verify(encoded)) < psnr:
        raise TargetError(f"best is {reached:.2f} dB, target {psnr:g}")
    return encoded


def encode_image(
    image: media.Image, codec: ImageVQVAE, *, effort: int = EFFORT, progress: Progress | None = None
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
    geometry = Geometry(image.width, image.height, image.channels, codec.stride)
    boxes = {"icc": image.icc, "exif": image.exif, "xmp": image.xmp}
    boxes["alpha"] = None if image.alpha is None else media.pack_alpha(image.alpha)
    return _packed(codes, image, geometry, codec, boxes)


def encode_audio(audio: media.Audio, codec: AudioVQVAE, *, progress: Progress | None = None) -> Encoded:
    """Compress a decoded sound with a loaded model.

    Channels are coded one by one, each brought to the loudness that the model knows; two that are much alike
    as their mean and their difference; one that is silent not at all.

    Args:
        audio: samples at the codec's rate, and the tags that go with them into the bitstream.
        codec: the model; its card has the "name" and the "fingerprint" that the bitstream tells.
        progress: called with blocks done and blocks in all.

    Raises:
        LimitError: the sound, or its metadata, is larger than the format allows.
    """
    signal, shared = audio.signal, audio.channels == 2 and loudness.is_shared(audio.signal)
    if shared:
        signal = loudness.mixed(signal)
    gains = bytes(loudness.gain_of(channel) for channel in signal)
    geometry = Timeline(audio.frames, audio.rate, gains, shared, codec.stride)
    codes = np.zeros(geometry.grid, np.int32)
    audible = [number for number, gain in enumerate(gains) if gain]
    for done, number in enumerate(audible):
        inside = signal[number] * np.float32(1 / loudness.factor_of(gains[number]))
        codes[number] = analyse_signal(inside, codec, progress=_part(progress, done, len(audible)))
    tags = json.dumps(audio.tags, ensure_ascii=False, sort_keys=True).encode() if audio.tags else None
    return _packed(codes, audio, geometry, codec, {"tags": tags})


def _packed(
    codes: np.ndarray,
    original: media.Image | media.Audio,
    geometry: Geometry | Timeline,
    codec: VQVAE,
    boxes: dict[str, bytes | None],
) -> Encoded:
    stream = Bitstream(
        model=codec.card["name"],
        fingerprint=bytes.fromhex(codec.card["fingerprint"]),
        geometry=geometry,
        source=original.source,
        boxes={name: box for name, box in boxes.items() if box is not None},
        chunks=chunks.write(codes, codec, geometry),
    )
    _tell_heavy_metadata(stream)
    return Encoded(container.pack(stream), codes, original, geometry, codec)


def _part(progress: Progress | None, number: int, count: int) -> Progress | None:
    """Progress of one of several equal parts of a work."""
    if progress is None:
        return None
    return lambda done, whole: progress(number * whole + done, count * whole)


def decode(
    data: bytes | str | os.PathLike[str] | IO[bytes],
    *,
    model: str | os.PathLike[str] | None = None,
    salvage: bool = False,
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
        salvage: fill damaged regions with grey or silence, with a DamageWarning for each, instead of an error.
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
    codec = _codec_for(stream, model, device)
    if stream.settings:
        raise VersionError(f"settings that {stream.model} does not have here", "upgrade")
    lost: list[Place] = []
    codes = chunks.read(stream, codec, salvage=salvage, lost=lost)
    return _restored(stream, codes, lost, codec, salvage, progress).without(strip)


def _restored(
    stream: Bitstream,
    codes: np.ndarray,
    lost: list[Place],
    codec: VQVAE,
    salvage: bool,
    progress: Progress | None,
) -> media.Image | media.Audio:
    geometry = stream.geometry
    if isinstance(geometry, Geometry):
        pixels = synthesise(codes, codec, geometry, progress=progress)
        alpha = _alpha(stream, salvage)
        icc, exif, xmp = (stream.boxes.get(name) for name in ("icc", "exif", "xmp"))
        return media.Image(pixels, alpha, icc, exif, xmp, stream.source)
    signal = np.zeros((geometry.channels, geometry.samples), np.float32)
    audible = [number for number, gain in enumerate(geometry.gains) if gain]
    for done, number in enumerate(audible):
        part = _part(progress, done, len(audible))
        channel = synthesise_signal(codes[number], codec, geometry.samples, progress=part)
        np.multiply(channel, np.float32(loudness.factor_of(geometry.gains[number])), out=signal[number])
    for channel, codes_lost in lost:
        start, stop = (edge * geometry.stride for edge in (codes_lost.start, codes_lost.stop))
        signal[channel, start:stop] = 0
    if geometry.mid_side:
        signal = loudness.unmixed(signal)
    return media.Audio(
        signal, codec.rate, geometry.rate, geometry.frames, _tags(stream, salvage), stream.source
    )


def reconstruct(encoded: Encoded) -> media.Image | media.Audio:
    """Decode what was just written, and compare every code.

    Raises:
        DamagedError: a code differs.
    """
    stream = container.parse(encoded.data)
    codes = chunks.read(stream, encoded.codec)
    if not np.array_equal(codes, encoded.codes):
        raise DamagedError("the bitstream does not decode to the codes it was made from", "report this")
    return _restored(stream, codes, [], encoded.codec, False, None)


def verify(encoded: Encoded) -> float:
    """Decode what was just written, compare every code, and measure the result.

    Returns:
        Of a picture the PSNR of the reconstruction in dB, of a sound the SI-SDR (the mean over its channels, at
        the codec's rate); infinite when nothing differs.

    Raises:
        DamagedError: a code differs.
    """
    decoded, original = reconstruct(encoded), encoded.original
    if isinstance(decoded, media.Image) and isinstance(original, media.Image):
        return metrics.psnr(decoded.samples, original.samples)
    pairs = zip(decoded.signal, original.signal, strict=True)
    return float(np.mean([sound_metrics.si_sdr(ours, theirs) for ours, theirs in pairs]))


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
        message = f"metadata takes {total:,} bytes, the codes {coded:,}; --strip {largest} leaves it out"
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


def _tags(stream: Bitstream, salvage: bool) -> dict[str, str]:
    try:
        tags = json.loads(stream.boxes.get("tags", b"{}"))
        if not isinstance(tags, dict) or not all(isinstance(text, str) for text in tags.values()):
            raise ValueError("not a text for each name")
    except ValueError:
        if not salvage:
            raise DamagedError("damaged in box tags", "--salvage") from None
        warnings.warn("damaged in box tags", DamageWarning, stacklevel=3)
        return {}
    return tags


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
    if codec.medium != stream.kind:
        raise DamagedError(f"header claims {MEDIA[stream.kind]}, {stream.model} is for {MEDIA[codec.medium]}")
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
