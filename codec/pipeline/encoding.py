"""Encode an image or audio in memory at an operating point of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .. import media
from ..bitstream import container
from ..bitstream.binary import deflate
from ..bitstream.container import PIXELS, Bitstream, Part
from ..bitstream.geometry import SEGMENT, AudioGeometry, Geometry, ImageGeometry
from ..bitstream.quality import DEFAULT_QUALITY, quality_of
from ..coding import chunks, residual
from ..coding.chunks import EncodedChunks
from ..errors import MediaWarning, warn
from ..models.base import OperatingPoint, Progress
from ..priors.base import Array, Symbols
from ..transform import audio as audio_transform
from ..transform import hidden
from ..transform import image as image_transform
from . import channels, storing
from .channels import Excerpts
from .ladder import Rung

HEAVY_METADATA = 1000
"""Metadata smaller than this (bytes) never raises a warning."""

SMALL = 1 << 14
"""Images of at most so many samples are also stored, for comparison with a residual."""


@dataclass(frozen=True)
class Encoded:
    """A bitstream, with its symbols and its original.

    Attributes:
        data: the .vqc file.
        symbols: of each plane, [h, w] or [h, w, M] for images, [C, T] or [C, T, M] for audio.
        original: the image or audio that was encoded.
        geometry: its size.
        point: the model, its quality index and effort.
        estimate_bits: cross-entropy of the symbols under their priors, in bits.
        rung: the quality of the file, which may be above that of the point.
        excerpts: of audio, to compare it with when decoded.
    """

    data: bytes
    symbols: Symbols
    original: media.Image | media.Audio
    geometry: Geometry
    point: OperatingPoint
    estimate_bits: float
    rung: Rung
    excerpts: Excerpts | None = None

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.point.model.card.name

    @property
    def quality(self) -> float:
        """Quality, 1..5; DEFAULT_QUALITY for models with one operating point."""
        several = self.point.model.points > 1
        return quality_of(self.rung.index) if several else DEFAULT_QUALITY

    @property
    def bpp(self) -> float | None:
        """Bits per pixel of the whole file; None for audio."""
        return container.read_info(self.data).bpp

    @property
    def kbps(self) -> float | None:
        """Kilobits per second of the whole file; None for an image."""
        return container.read_info(self.data).kbps

    @property
    def count(self) -> int:
        """Number of coded symbols; silent channels of audio have none."""
        parts = ((region, plane) for region in self.geometry.regions for plane in self.point.planes)
        return sum(self.symbols[plane.name][region.part(plane.stride)].size for region, plane in parts)

    @property
    def raw_bits(self) -> int:
        """Bits of the symbols packed at a fixed width; 0 for planes of latents."""
        planes = self.point.planes
        if not all(plane.alphabet for plane in planes):
            return 0
        parts = ((region, plane) for region in self.geometry.regions for plane in planes)
        return sum(self.symbols[p.name][region.part(p.stride)].size * p.raw_bits for region, p in parts)

    @property
    def bits_per_code(self) -> float | None:
        """Bits of all chunks per symbol; None without symbols."""
        return 8 * container.read_info(self.data).code_bytes / self.count if self.count else None


@dataclass(frozen=True)
class Analysed:
    """An original with the targets of its symbols, ready to be coded.

    Attributes:
        original: the image or audio.
        geometry: its size.
        point: the operating point.
        rung: the quality that the point is the base of.
        targets: plane -> output of the analysis transform.
        boxes: its metadata.
        pixels: of an image, with hidden ones filled: uint8 [H, W, C].
        excerpts: of audio, to compare it with when decoded.
    """

    original: media.Image | media.Audio
    geometry: Geometry
    point: OperatingPoint
    rung: Rung
    targets: dict[str, Array]
    boxes: dict[str, bytes | None]
    pixels: NDArray[np.uint8] | None = None
    excerpts: Excerpts | None = None


def encode_at(
    original: media.Image | media.Audio,
    point: OperatingPoint,
    *,
    rung: Rung | None = None,
    fast: bool = False,
    progress: Progress | None = None,
) -> Encoded:
    """Compress an image or audio in memory at an operating point.

    Args:
        original: samples (audio at the sample rate of the model), with their metadata.
        point: the operating point; the bitstream has the name and fingerprint of its card.
        rung: the quality that the point is the base of; by default that of the point itself.
        fast: skip learned priors, where there is another way.
        progress: called with the number of blocks done and of all blocks.

    Raises:
        LimitError: the original, or its metadata, is larger than the format allows.
    """
    analysed = analyse(original, point, rung=rung, progress=progress)
    (coded,) = code([analysed], fast=fast)
    analysed.targets.clear()  # those of large images are large
    return finish(analysed, coded, fast=fast)


def analyse(
    original: media.Image | media.Audio,
    point: OperatingPoint,
    *,
    rung: Rung | None = None,
    joint: bool = True,
    progress: Progress | None = None,
) -> Analysed:
    """Run the analysis transform, the first half of `encode_at`.

    With `joint`, two channels are analysed as one where one is enough.
    """
    rung = rung or Rung(point.index, point.index, point.index)
    if isinstance(original, media.Image):
        geometry = _image_geometry(original, point)
        pixels = hidden.fill(original.samples, original.alpha)
        targets = image_transform.analyse(pixels, point, progress=progress)
        return Analysed(original, geometry, point, rung, targets, _image_boxes(original), pixels)
    if original.channels > 2:
        warn(f"{original.channels} channels, coded one by one", MediaWarning)
    audio = channels.prepare(original.signal, point.model.rate, SEGMENT * point.finest_stride, joint=joint)
    gains = bytes(level.gain for level in audio.levels)
    size = AudioGeometry(original.frames, original.rate, gains, audio.mid_side, point.finest_stride)
    targets = audio_transform.analyse(audio.signal, point, size, audio.levels, progress=progress)
    tags = media.pack_tags(original.tags)
    boxes = {"levels": channels.pack_levels(audio.levels, size), "stereo": audio.cues, "tags": tags}
    return Analysed(original, size, point, rung, targets, boxes, excerpts=audio.excerpts(size))


def code(files: Sequence[Analysed], *, fast: bool = False) -> list[EncodedChunks]:
    """Code the targets of files, those of one operating point side by side.

    The result for a file does not depend on the others.
    """
    groups: dict[OperatingPoint, list[int]] = {}
    for number, file in enumerate(files):
        groups.setdefault(file.point, []).append(number)
    coded: dict[int, EncodedChunks] = {}
    for point, numbers in groups.items():
        some = [files[n] for n in numbers]
        targets, geometries = [file.targets for file in some], [file.geometry for file in some]
        found = chunks.encode_together(targets, point, geometries, fast=fast)
        coded.update(zip(numbers, found, strict=True))
    return [coded[number] for number in range(len(files))]


def finish(file: Analysed, coded: EncodedChunks, *, fast: bool = False) -> Encoded:
    """Pack the chunks of a file, or its pixels where these are smaller.

    Raises:
        LimitError: the original, or its metadata, is larger than the format allows.
    """
    if file.pixels is not None and isinstance(file.geometry, ImageGeometry):
        geometry, point = file.geometry, file.point
        coded = storing.choose(file.pixels, coded, point, geometry, file.rung, fast=fast)
        if file.rung.step is not None:
            coded = _with_residuals(coded, file.pixels, point, geometry, file.rung.step)
            if file.pixels.size <= SMALL:  # where headers of residuals count
                stored = storing.store_all(file.pixels, point, geometry, fast=fast)
                stored = replace(stored, residuals=[Part(b"") for _ in coded.residuals])
                coded = min(stored, coded, key=lambda one: one.size)
    packed = _pack(file.original, coded, file.geometry, file.point, file.rung, file.boxes)
    return replace(packed, excerpts=file.excerpts)


def store(image: media.Image, point: OperatingPoint, *, fast: bool = False) -> Encoded:
    """Store the pixels of an image losslessly. Colours under alpha 0 are not kept."""
    geometry = _image_geometry(image, point)
    stored = storing.store_all(hidden.fill(image.samples, image.alpha), point, geometry, fast=fast)
    return _pack(
        image, stored, geometry, point, Rung(point.index, point.index, point.index), _image_boxes(image)
    )


def store_within(
    image: media.Image, point: OperatingPoint, limit: int, *, fast: bool = False
) -> Encoded | None:
    """Store the pixels of an image losslessly; None where the file would be larger than `limit` bytes."""
    stored = store(image, point, fast=fast)
    return stored if len(stored.data) <= limit else None


def _with_residuals(
    coded: EncodedChunks, pixels: NDArray[np.uint8], point: OperatingPoint, geometry: ImageGeometry, step: int
) -> EncodedChunks:
    """Code the residual of each region, of the pixels that are not stored."""
    known = {
        number: pixels[region.samples]
        for number, (region, chunk) in enumerate(zip(geometry.regions, coded.chunks, strict=True))
        if chunk.prior == PIXELS
    }
    symbols = coded.symbols
    if known:
        symbols = {name: array.copy() for name, array in symbols.items()}
        image_transform.set_known(symbols, known, point, geometry)
    decoded = image_transform.synthesise(symbols, point, geometry)
    parts = []
    for region, chunk in zip(geometry.regions, coded.chunks, strict=True):
        if chunk.prior == PIXELS:
            parts.append(Part(b""))
            continue
        left = np.subtract(pixels[region.samples], decoded[region.samples], dtype=np.float32)
        if coded.mask is not None:
            left[coded.mask[region.samples]] = 0
        parts.append(residual.encode(left, step))
    return replace(coded, residuals=parts)


def _image_geometry(image: media.Image, point: OperatingPoint) -> ImageGeometry:
    return ImageGeometry(image.width, image.height, image.channels, point.finest_stride)


def _image_boxes(image: media.Image) -> dict[str, bytes | None]:
    alpha = None if image.alpha is None else media.pack_alpha(image.alpha)
    return {"icc": image.icc, "exif": image.exif, "xmp": image.xmp, "alpha": alpha}


def _pack(
    original: media.Image | media.Audio,
    coded: EncodedChunks,
    geometry: Geometry,
    point: OperatingPoint,
    rung: Rung,
    boxes: dict[str, bytes | None],
) -> Encoded:
    card = point.model.card
    stream = Bitstream(
        model=card.name,
        fingerprint=bytes.fromhex(card.fingerprint),
        geometry=geometry,
        settings=rung.settings if point.model.points > 1 else b"",
        source=original.source,
        boxes={name: box for name, box in boxes.items() if box is not None},
        chunks=[*coded.chunks],
        residuals=coded.residuals,
        tiles=coded.tiles,
    )
    _warn_of_heavy_metadata(stream)
    return Encoded(container.pack(stream), coded.symbols, original, geometry, point, sum(coded.bits), rung)


def _warn_of_heavy_metadata(stream: Bitstream) -> None:
    """Warn where metadata takes more bytes than the codes."""
    sizes = {name: len(deflate(box)) for name, box in stream.boxes.items() if name != "alpha"}
    coded = sum(len(chunk.payload) for chunk in stream.chunks)
    coded += sum(len(part.payload) for part in (*stream.residuals, *stream.tiles))
    if (total := sum(sizes.values())) > max(coded, HEAVY_METADATA):
        largest = max(sizes, key=lambda name: sizes[name])
        message = f"metadata takes {total:,} bytes, the codes {coded:,}; --strip {largest} leaves it out"
        warn(message, MediaWarning)
