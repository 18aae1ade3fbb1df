"""Decode a bitstream to an image or audio in memory, with its metadata."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from .. import media, weights
from ..bitstream import container
from ..bitstream.container import PIXELS, Bitstream
from ..bitstream.geometry import AUDIO_RATE, AudioGeometry, Geometry, ImageGeometry
from ..bitstream.header import RESIDUAL_SETTINGS
from ..coding import chunks, residual, stored
from ..coding.chunks import DecodedChunks
from ..errors import (
    DamagedError,
    MediaError,
    MediaWarning,
    ModelError,
    UsageError,
    VersionError,
    confined,
    warn,
)
from ..metrics import audio as audio_metrics
from ..metrics import image as image_metrics
from ..models.base import Model, OperatingPoint, Progress
from ..priors.base import Symbols
from ..transform import audio as audio_transform
from ..transform import image as image_transform
from . import channels, pixel_crc
from .encoding import Encoded


def decode_stream(
    stream: Bitstream,
    point: OperatingPoint,
    *,
    decoder: OperatingPoint | None = None,
    salvage: bool = False,
    levels: int | None = None,
    progress: Progress | None = None,
) -> tuple[media.Image | media.Audio, list[str]]:
    """Decode a parsed bitstream, and describe the damage that was tolerated behind its checksums.

    Args:
        stream: parsed.
        point: the model of the encoder, at its quality index.
        decoder: another model that decodes the same symbols, or those of the first levels.
        salvage: fill damaged regions with grey or silence and leave out damaged metadata.
        levels: decode only the first levels of codes, this many.
        progress: called with the number of blocks done and of all blocks.

    Raises:
        DamagedError: damage, without `salvage`.
        ModelError: a chunk is coded by a prior that the model does not have, or the file does not have so
            many levels.
    """
    if levels is not None:
        _check_levels(levels, point)
    if decoder is not None and len(decoder.planes) < len(point.planes):
        levels = _first_levels(decoder, point, levels)
    found = chunks.decode(stream, point, salvage=salvage, levels=levels)
    damage = found.damage
    if decoder is not None:
        pairs = zip(decoder.planes, point.planes, strict=False)
        found = replace(found, symbols={own.name: found.symbols[plane.name] for own, plane in pairs})
    if decoder is not None or levels is not None:
        # Residuals and the CRC are those of the model's own decoder.
        boxes = {name: box for name, box in stream.boxes.items() if name != pixel_crc.BOX}
        stream = replace(stream, residuals=[], boxes=boxes)
    decoded = _render(found, decoder or point, stream.geometry, stream, damage, salvage, progress)
    return decoded, damage


def _first_levels(decoder: OperatingPoint, point: OperatingPoint, levels: int | None) -> int:
    """Return how many levels another decoder reads, and warn that they are not all."""
    name, count = decoder.model.card.name, len(decoder.planes)
    if levels is None:
        warn(f"{name} decodes {count} of {len(point.planes)} levels", MediaWarning)
    elif levels > count:
        raise UsageError(f"levels is {levels}, and {name} decodes {count}", "leave out --levels")
    return count


def _check_levels(levels: int, point: OperatingPoint) -> None:
    """Refuse a number of levels that a file does not have, or one alone."""
    count = len(point.planes)
    possible = [n for n in range(1, count + 1) if all(p.missing is not None for p in point.planes[n:])]
    if not isinstance(levels, int) or levels not in possible:
        has = f"levels 1 to {count}" if count > 1 else "one level"
        message = f"levels is {levels}, and the file of {point.model.card.name} has {has}"
        raise ModelError(message, "decode it without levels, or with fewer")


def decode_preview(
    stream: Bitstream, point: OperatingPoint, *, salvage: bool
) -> tuple[media.Image, list[str]]:
    """Decode an image at an eighth of the size, with the metadata that does not depend on it.

    Raises:
        ModelError: the model has no preview.
    """
    if not isinstance(stream.geometry, ImageGeometry):
        raise ModelError(f"{stream.model} has no preview", "decode the whole image")
    found = chunks.decode(stream, point, salvage=salvage, preview=True)
    _set_stored(found, point, stream.geometry)
    pixels = image_transform.preview(found.symbols, point, stream.geometry)
    if pixels is None:
        raise ModelError(f"{stream.model} has no preview", "decode the whole image")
    for tile in found.stored:
        part = pixels[tile.region.part(image_transform.PREVIEW)]
        part[...] = image_transform.overlay(part, tile.samples, tile.mask)
    image = media.Image(pixels, icc=stream.boxes.get("icc"), source=stream.source)
    return image, found.damage


def render(
    symbols: Symbols, point: OperatingPoint, geometry: Geometry, stream: Bitstream | None = None
) -> media.Image | media.Audio:
    """Decode symbols to an image or audio, without metadata.

    Args:
        symbols: of each plane.
        point: their operating point.
        geometry: of the result.
        stream: whose loudness and stereo a sound has.
    """
    if stream is not None and isinstance(geometry, AudioGeometry):
        sound = {name: box for name, box in stream.boxes.items() if name in ("levels", "stereo")}
        stream = replace(stream, boxes=sound, source="")
    else:
        stream = None
    return _render(DecodedChunks(symbols), point, geometry, stream, [], False, None)


def reconstruct(encoded: Encoded) -> media.Image | media.Audio:
    """Decode an encoded file again, and compare every symbol.

    Raises:
        DamagedError: a symbol differs.
    """
    stream = container.parse(encoded.data)
    found = chunks.decode(stream, encoded.point)
    if not all(np.array_equal(found.symbols[name], array) for name, array in encoded.symbols.items()):
        raise DamagedError("the bitstream does not decode to the encoded symbols", "report this")
    return _render(found, encoded.point, stream.geometry, stream, [], False, None)


def sealed(encoded: Encoded) -> Encoded:
    """Decode an encoded image again, and add the CRC of its pixels to the file."""
    decoded = reconstruct(encoded)
    if not isinstance(decoded, media.Image):
        raise TypeError("audio has no pixels")
    stream = container.parse(encoded.data)
    stream.boxes[pixel_crc.BOX] = pixel_crc.crc_of(decoded.samples)
    return replace(encoded, data=container.pack(stream))


def verify(encoded: Encoded) -> float:
    """Decode an encoded file again, compare every symbol, and the CRC of its pixels, and measure the result.

    Returns:
        Of an image the PSNR of the reconstruction in dB, each pixel weighed by its alpha; of audio the SI-SDR
        (the mean over its channels, at the rate of the model). Infinite when nothing differs.

    Raises:
        DamagedError: a symbol differs, or a pixel from the CRC.
    """
    decoded, original = reconstruct(encoded), encoded.original
    if isinstance(decoded, media.Image) and isinstance(original, media.Image):
        return image_metrics.psnr(decoded.samples, original.samples, original.alpha)
    if not isinstance(decoded, media.Audio) or not isinstance(original, media.Audio):
        raise TypeError("an image for audio")
    pairs = zip(decoded.signal, original.signal, strict=True)
    ratios = [audio_metrics.si_sdr(ours, theirs) for ours, theirs in pairs]
    # A silent channel without error would make the mean infinite.
    audible = [ratio for ratio in ratios if ratio != math.inf]
    return float(np.mean(audible)) if audible else math.inf


def open_stream(
    data: bytes | str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | Model | None,
    device: str,
) -> tuple[Bitstream, OperatingPoint]:
    """Parse a bitstream, and return it with its operating point, as in `point_for`."""
    stream = container.parse(bytes_of(data))
    return stream, point_for(stream, model, device)


def point_for(stream: Bitstream, model: str | os.PathLike[str] | Model | None, device: str) -> OperatingPoint:
    """Return the operating point of a bitstream, by its fingerprint and quality index.

    Raises:
        ModelError: the model is not shipped, and not the given one.
        VersionError: settings that this version does not know.
        DamagedError: the header contradicts the model.
    """
    loaded = model_for(stream, model, device)
    lengths = (0,) if loaded.points == 1 else (1, RESIDUAL_SETTINGS) if loaded.has_residual else (1,)
    if len(stream.settings) not in lengths:
        raise VersionError(f"settings that {stream.model} does not have here", "upgrade vqcodec")
    if loaded.medium != stream.kind:
        raise DamagedError(f"header claims {stream.kind}, {stream.model} is for {loaded.medium}")
    point = loaded.at(stream.model_index)
    if point.finest_stride != stream.geometry.stride:
        raise DamagedError(
            f"header claims stride {stream.geometry.stride}, {stream.model} has {point.finest_stride}"
        )
    return point


def model_for(stream: Bitstream, model: str | os.PathLike[str] | Model | None, device: str) -> Model:
    """Return the model of a bitstream, by its fingerprint; where all pixels are stored, by its name alone.

    Raises:
        ModelError: it is not shipped, and not the given one.
    """
    needs = f"needs model {stream.model} ({stream.fingerprint.hex()})"
    if model is None and not (weights.folder() / f"{stream.model}.safetensors").is_file():
        raise ModelError(needs, "name its weights with -m FILE")
    loaded = model if isinstance(model, Model) else weights.load(model or stream.model, device)
    card = loaded.card
    stored = all(chunk.prior == PIXELS for chunk in stream.chunks)
    if card.fingerprint != stream.fingerprint.hex() and not (stored and stream.kind == "image"):
        raise ModelError(f"{needs}, not {card.name} ({card.fingerprint})", "name its weights with -m FILE")
    return loaded


def other_decoder(
    stream: Bitstream, point: OperatingPoint, decoder: str | os.PathLike[str], device: str
) -> OperatingPoint:
    """Return the operating point of another decoder of the same symbols, or of those of the first level.

    Args:
        stream: parsed.
        point: the model of the encoder.
        decoder: the end of the name of shipped weights, or a weights file.
        device: of its networks.

    Raises:
        UsageError: no such decoder, or one of other symbols.
    """
    names = sorted(path.stem for path in weights.folder().glob("*.safetensors"))
    ends = f"-{decoder}"
    # Those of the model itself come first.
    for name in sorted((n for n in names if n.endswith(ends)), key=lambda n: n != stream.model + ends):
        other = weights.load(name, device)
        if other.decodes(point.model):
            return other.at(point.index)
    if not Path(decoder).is_file():
        own = (name for name in names if name.startswith(f"{stream.model}-"))
        found = {*own}.difference(*(models.values() for models in weights.TUNES.values()))
        known = ", ".join(sorted(name.removeprefix(f"{stream.model}-") for name in found))
        hint = f"choose {known}, or a .safetensors file" if known else "leave out --decoder"
        raise UsageError(f"{stream.model} has no decoder '{decoder}'", hint)
    other = weights.load(decoder, device)
    if not other.decodes(point.model):
        raise UsageError(
            f"{other.card.name} does not decode the codes of {stream.model}", "leave out --decoder"
        )
    return other.at(point.index)


def bytes_of(data: bytes | str | os.PathLike[str] | IO[bytes]) -> bytes:
    """Return the bytes of a bitstream, a path or a binary file.

    Raises:
        MediaError: it cannot be read.
    """
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    if isinstance(data, str | os.PathLike):
        try:
            return Path(data).read_bytes()
        except OSError as error:
            raise MediaError(f"{data}: {(error.strerror or str(error)).lower()}", "check the name") from error
    if not hasattr(data, "read"):
        raise MediaError(f"a {type(data).__name__} is no bitstream", "give bytes, a path or a binary file")
    content = data.read()
    if not isinstance(content, bytes):
        raise MediaError("a text stream", "open the file in binary mode")
    return content


def _render(
    found: DecodedChunks,
    point: OperatingPoint,
    geometry: Geometry,
    stream: Bitstream | None,
    damage: list[str],
    salvage: bool,
    progress: Progress | None,
) -> media.Image | media.Audio:
    """Decode symbols to samples, with the metadata of the bitstream; append to `damage` when salvaging."""
    boxes = {} if stream is None else stream.boxes
    source = "" if stream is None else stream.source
    if isinstance(geometry, ImageGeometry):
        pixels = _pixels(found, point, geometry, stream, damage, salvage, progress)
        whole = not (damage or found.lost or (stream and stream.damage))
        if whole and pixel_crc.BOX in boxes and boxes[pixel_crc.BOX] != pixel_crc.crc_of(pixels):
            damage.append(pixel_crc.DIFFERENT)
            if not salvage:
                raise DamagedError(pixel_crc.DIFFERENT, "--salvage writes them as they are; report this")
        icc, exif, xmp = (boxes.get(name) for name in ("icc", "exif", "xmp"))
        alpha = None if "alpha" not in boxes else _alpha(boxes["alpha"], geometry, damage, salvage)
        return media.Image(pixels, alpha, icc, exif, xmp, source)
    if not isinstance(geometry, AudioGeometry):
        raise TypeError(geometry.kind)
    levels = channels.unpack_levels(boxes.get("levels", b""), geometry, damage, salvage=salvage)
    cues = channels.unpack_cues(boxes.get("stereo"), geometry, damage, salvage=salvage)
    signal = audio_transform.synthesise(
        found.symbols, point, geometry, levels, cues, found.lost, progress=progress
    )
    tags = _tags(boxes.get("tags", b"{}"), damage, salvage)
    return media.Audio(signal, AUDIO_RATE, geometry.rate, geometry.frames, tags, source)


def _pixels(
    found: DecodedChunks,
    point: OperatingPoint,
    geometry: ImageGeometry,
    stream: Bitstream | None,
    damage: list[str],
    salvage: bool,
    progress: Progress | None,
) -> NDArray[np.uint8]:
    """Return the image of chunks, uint8 [H, W, C]; the networks do not run where all pixels are stored."""
    if found.has_symbols:
        _set_stored(found, point, geometry)
        pixels = image_transform.synthesise(found.symbols, point, geometry, progress=progress)
    else:
        pixels = np.empty((geometry.height, geometry.width, geometry.channels), np.uint8)
    if stream is not None and stream.residuals:
        _add_residuals(pixels, found, stream, damage, salvage)
    for tile in found.stored:
        np.copyto(pixels[tile.region.samples], tile.samples, where=tile.mask[:, :, None])
    return pixels


def _set_stored(found: DecodedChunks, point: OperatingPoint, geometry: ImageGeometry) -> None:
    """Set the symbols of regions whose pixels are all stored, where they count."""
    known = stored.whole_regions(found.stored, geometry)
    image_transform.set_known(found.symbols, known, point, geometry)


def _add_residuals(
    pixels: NDArray[np.uint8], found: DecodedChunks, stream: Bitstream, damage: list[str], salvage: bool
) -> None:
    """Add the residual of every region whose chunk is not lost; append to `damage` when salvaging."""
    for number, (region, part) in enumerate(zip(stream.geometry.regions, stream.residuals, strict=True), 1):
        if not part.payload or not part.intact or region in found.lost:
            continue
        target = pixels[region.samples]
        with confined(f"residual {number} of {len(stream.residuals)}", damage, salvage=salvage):
            added = residual.decode(part.payload, target.shape, stream.settings[-1])
            target[...] = np.rint(added + target).clip(0, 255)


def _alpha(box: bytes, geometry: ImageGeometry, damage: list[str], salvage: bool) -> NDArray[np.uint8] | None:
    try:
        return media.unpack_alpha(box, geometry.width, geometry.height)
    except DamagedError:
        if not salvage:
            raise
        damage.append("damaged in box alpha")
        return None


def _tags(box: bytes, damage: list[str], salvage: bool) -> media.Tags:
    try:
        return media.unpack_tags(box)
    except DamagedError:
        if not salvage:
            raise
        damage.append("damaged in box tags")
        return {}
