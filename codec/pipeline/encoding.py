"""A picture or a sound in memory <-> its bitstream, through a loaded model."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .. import media
from ..bitstream import container
from ..bitstream.binary import deflate
from ..bitstream.container import Bitstream, Geometry, Timeline
from ..bitstream.geometry import SEGMENT, SOUND_RATE, Place
from ..bitstream.quality import quality_of
from ..coding import chunks, dial
from ..errors import DamagedError, DamageWarning, MediaWarning
from ..metrics import audio as sound_metrics
from ..metrics import image as metrics
from ..models.points import Point
from ..models.variable_rate import ScalarCodec
from ..models.vqvae import VQVAE, AudioVQVAE, ImageVQVAE, WaveNetVQVAE
from ..models.vqvae.generation import generate
from ..transform import loudness
from ..transform.image import Progress, analyse, analyse_signal, synthesise, synthesise_signal
from ..transform.loudness import Loudness

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
        codes: int32, the code indices of the whole picture [h, w], or of a sound [C, T]; of a codec with a
            dial its latents, int16 [h, w, M].
        original: the picture or sound that was encoded.
        geometry: its size.
        codec: the model.
        estimate_bits: what the chunks ought to take: the cross-entropy of the codes under their priors.
        quality: operating point, 1..5.
    """

    data: bytes
    codes: np.ndarray
    original: media.Image | media.Audio
    geometry: Geometry | Timeline
    codec: VQVAE | ScalarCodec
    estimate_bits: float
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
    def count(self) -> int:
        """Codes that were coded: all of a picture's, those of a sound's channels that are not silent."""
        return sum(self.codes[place].size for place in self.geometry.places)

    @property
    def bits_per_code(self) -> float | None:
        """Bits of all chunks per code; None where there are no codes."""
        return 8 * container.read_info(self.data).code_bytes / self.count if self.count else None


def encode_image(
    image: media.Image,
    codec: ImageVQVAE,
    *,
    effort: int = EFFORT,
    fast: bool = False,
    progress: Progress | None = None,
) -> Encoded:
    """Compress a decoded picture with a loaded model.

    Args:
        image: samples, and the metadata and alpha that go with them into the bitstream.
        codec: the model; its card has the "name" and the "fingerprint" that the bitstream tells.
        effort: 0..3, see `encode`.
        fast: do without the learned prior.
        progress: called with blocks done and blocks in all.

    Raises:
        LimitError: the picture, or its metadata, is larger than the format allows.
    """
    codes = analyse(image.samples, codec, effort=effort, progress=progress)
    geometry = Geometry(image.width, image.height, image.channels, codec.stride)
    written = chunks.write(codes, codec, geometry, fast=fast)
    return _packed(codes, written, image, geometry, codec, _boxes(image))


def encode_at(
    image: media.Image,
    point: Point,
    *,
    effort: int = EFFORT,
    progress: Progress | None = None,
) -> Encoded:
    """Compress a decoded picture with a model that has a dial, at a place on it.

    Args:
        image: samples, and the metadata and alpha that go with them into the bitstream.
        point: the model and the place.
        effort: see `dial.write`.
        progress: called with blocks done and blocks in all.

    Raises:
        LimitError: the picture, or its metadata, is larger than the format allows.
    """
    geometry = Geometry(image.width, image.height, image.channels, point.stride)
    targets = dial.analyse(image.samples, point, progress=progress)
    written = dial.write(targets, point, geometry, effort=effort)
    stored = dial.store(image.samples, point, geometry, below=written.size)
    return packed_at(image, point, stored or written)


def packed_at(image: media.Image, point: Point, written: dial.Written) -> Encoded:
    """The bitstream of a picture whose chunks are written."""
    geometry = Geometry(image.width, image.height, image.channels, point.stride)
    chunked = chunks.Written([*written.chunks], written.bits)
    settings = bytes((point.place,))
    return _packed(written.latents, chunked, image, geometry, point.codec, _boxes(image), settings)


def encode_audio(
    audio: media.Audio,
    codec: AudioVQVAE,
    *,
    effort: int = EFFORT,
    fast: bool = False,
    progress: Progress | None = None,
) -> Encoded:
    """Compress a decoded sound with a loaded model.

    Channels are coded one by one, each brought to the loudness that the model knows; two that are alike as
    one; one that is silent not at all.

    Args:
        audio: samples at the codec's rate, and the tags that go with them into the bitstream.
        codec: the model; its card has the "name" and the "fingerprint" that the bitstream tells.
        effort: 0..3, see `encode`.
        fast: do without the learned prior.
        progress: called with blocks done and blocks in all.

    Raises:
        LimitError: the sound, or its metadata, is larger than the format allows.
    """
    if audio.channels > 2:
        warnings.warn(f"{audio.channels} channels, coded one by one", MediaWarning, stacklevel=3)
    signal, shared = audio.signal, audio.channels == 2 and loudness.is_shared(audio.signal)
    if shared:
        signal = np.stack((signal.mean(0), np.zeros_like(signal[0])))
    heard = [loudness.loudness_of(channel, SEGMENT * codec.stride) for channel in signal]
    gains = bytes(channel.gain for channel in heard)
    geometry = Timeline(audio.frames, audio.rate, gains, shared, codec.stride)
    codes = np.zeros(geometry.grid, np.int32)
    audible = [number for number, gain in enumerate(gains) if gain]
    for done, number in enumerate(audible):
        part = _part(progress, done, len(audible))
        codes[number] = analyse_signal(
            signal[number], codec, effort=effort, loudness=heard[number], progress=part
        )
    written = chunks.write(codes, codec, geometry, fast=fast)
    boxes = {"levels": _levels(heard, geometry), "tags": media.pack_tags(audio.tags)}
    return _packed(codes, written, audio, geometry, codec, boxes)


def _levels(heard: Sequence[Loudness], geometry: Timeline) -> bytes | None:
    """The levels of all chunks, in their order; None where no segment has one."""
    if not any(channel.levels for channel in heard):
        return None
    places = ((heard[number].levels, codes.start // SEGMENT) for number, codes in geometry.places)
    return bytes(levels[segment] if levels else 0 for levels, segment in places)


def _loudness(stream: Bitstream, geometry: Timeline, salvage: bool) -> list[Loudness]:
    """Undo `_levels`, with the gains of the header."""
    levels, count = stream.boxes.get("levels", b""), geometry.chunk_count
    if levels and len(levels) != count:
        if not salvage:
            raise DamagedError(f"{len(levels)} levels for {count} chunks")
        warnings.warn("damaged in box levels", DamageWarning, stacklevel=4)
        levels = b""
    rows = [bytearray() for _ in geometry.gains]
    for level, (number, _) in zip(levels, geometry.places, strict=False):
        rows[number].append(level)
    segment = SEGMENT * geometry.stride
    return [Loudness(gain, bytes(row), segment) for gain, row in zip(geometry.gains, rows, strict=True)]


def _boxes(image: media.Image) -> dict[str, bytes | None]:
    alpha = None if image.alpha is None else media.pack_alpha(image.alpha)
    return {"icc": image.icc, "exif": image.exif, "xmp": image.xmp, "alpha": alpha}


def _packed(
    codes: np.ndarray,
    written: chunks.Written,
    original: media.Image | media.Audio,
    geometry: Geometry | Timeline,
    codec: VQVAE | ScalarCodec,
    boxes: dict[str, bytes | None],
    settings: bytes = b"",
) -> Encoded:
    stream = Bitstream(
        model=codec.card["name"],
        fingerprint=bytes.fromhex(codec.card["fingerprint"]),
        geometry=geometry,
        settings=settings,
        source=original.source,
        boxes={name: box for name, box in boxes.items() if box is not None},
        chunks=written.chunks,
    )
    _tell_heavy_metadata(stream)
    quality = quality_of(settings[0]) if settings else QUALITY
    return Encoded(container.pack(stream), codes, original, geometry, codec, written.bits, quality)


def _part(progress: Progress | None, number: int, count: int) -> Progress | None:
    """Progress of one of several equal parts of a work."""
    if progress is None:
        return None
    return lambda done, whole: progress(number * whole + done, count * whole)


def restored(
    stream: Bitstream,
    codes: np.ndarray,
    lost: list[Place],
    codec: VQVAE,
    salvage: bool,
    progress: Progress | None,
) -> media.Image | media.Audio:
    """What the codes of a bitstream stand for, with its metadata.

    Args:
        stream: parsed.
        codes: its codes, int32 of the geometry's grid.
        lost: places whose codes were lost to damage; of a sound they become silence.
        codec: the model that decodes them.
        salvage: leave out damaged metadata, with a DamageWarning, instead of an error.
        progress: called with blocks done and blocks in all.

    Raises:
        DamagedError: metadata cannot be read.
    """
    geometry = stream.geometry
    if isinstance(geometry, Geometry):
        return _image(synthesise(codes, codec, geometry, progress=progress), stream, salvage)
    signal = np.zeros((geometry.channels, geometry.samples), np.float32)
    heard = _loudness(stream, geometry, salvage)
    audible = [number for number, gain in enumerate(geometry.gains) if gain]
    for done, number in enumerate(audible):
        part = _part(progress, done, len(audible))
        if isinstance(codec, WaveNetVQVAE):
            channel = generate(codes[number], codec, geometry.samples, seed=number, progress=part)
        else:
            channel = synthesise_signal(codes[number], codec, geometry.samples, progress=part)
        for start in range(0, len(channel), block := SEGMENT * geometry.stride):
            stop = min(start + block, len(channel))
            factors = np.float32(heard[number].factors(start, stop))
            np.multiply(channel[start:stop], factors, out=signal[number, start:stop])
    for row, part_lost in lost:
        signal[row, part_lost.start * geometry.stride : part_lost.stop * geometry.stride] = 0
    if geometry.mid_side:
        signal = loudness.unmixed(signal)
    return media.Audio(
        signal, SOUND_RATE, geometry.rate, geometry.frames, _tags(stream, salvage), stream.source
    )


def restored_at(
    stream: Bitstream, found: dial.Read, point: Point, salvage: bool, progress: Progress | None
) -> media.Image:
    """What the chunks of a picture with a dial stand for, with its metadata; as `restored`."""
    assert isinstance(stream.geometry, Geometry)
    return _image(dial.synthesise(found, point, stream.geometry, progress=progress), stream, salvage)


def glanced(stream: Bitstream, point: Point, salvage: bool) -> media.Image:
    """A small picture from a part of the codes, with the metadata that does not speak of its size."""
    assert isinstance(stream.geometry, Geometry)
    found = dial.read(stream, point, salvage=salvage, slices=dial.SLICES_GLANCED)
    pixels = dial.preview(found, point, stream.geometry)
    return media.Image(pixels, icc=stream.boxes.get("icc"), source=stream.source)


def _image(pixels: np.ndarray, stream: Bitstream, salvage: bool) -> media.Image:
    icc, exif, xmp = (stream.boxes.get(name) for name in ("icc", "exif", "xmp"))
    return media.Image(pixels, _alpha(stream, salvage), icc, exif, xmp, stream.source)


def reconstruct(encoded: Encoded) -> media.Image | media.Audio:
    """Decode what was just written, and compare every code.

    Raises:
        DamagedError: a code differs.
    """
    stream, codec = container.parse(encoded.data), encoded.codec
    if isinstance(codec, ScalarCodec):
        point = Point(codec, stream.settings[0])
        found = dial.read(stream, point)
        codes = found.latents
    else:
        codes = chunks.read(stream, codec)
    if not np.array_equal(codes, encoded.codes):
        raise DamagedError("the bitstream does not decode to the codes it was made from", "report this")
    if isinstance(codec, ScalarCodec):
        return restored_at(stream, found, point, False, None)
    return restored(stream, codes, [], codec, False, None)


def verify(encoded: Encoded) -> float:
    """Decode what was just written, compare every code, and measure the result.

    Returns:
        Of a picture the PSNR of the reconstruction in dB, of a sound the SI-SDR (the mean over its channels,
        at the codec's rate); infinite when nothing differs.

    Raises:
        DamagedError: a code differs.
    """
    decoded, original = reconstruct(encoded), encoded.original
    if isinstance(decoded, media.Image) or isinstance(original, media.Image):
        return metrics.psnr(decoded.samples, original.samples)
    pairs = zip(decoded.signal, original.signal, strict=True)
    ratios = [sound_metrics.si_sdr(ours, theirs) for ours, theirs in pairs]
    # A silent channel without error says nothing of the others.
    audible = [ratio for ratio in ratios if ratio != math.inf]
    return float(np.mean(audible)) if audible else math.inf


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
    if box is None or isinstance(geometry, Timeline):
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
        return media.unpack_tags(stream.boxes.get("tags", b"{}"))
    except DamagedError:
        if not salvage:
            raise
        warnings.warn("damaged in box tags", DamageWarning, stacklevel=3)
        return {}
