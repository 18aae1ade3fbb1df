"""Sample new images and audio from the prior of a model.

    symbols ~ p(symbols), step by step of the prior's scan;  x = mean of p(x | symbols)

Probabilities and random numbers are integers, so a seed gives the same symbols on every machine.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence

import numpy as np

from .. import media, weights
from ..bitstream.container import LEARNED, PIXELS, Bitstream
from ..bitstream.geometry import AUDIO_RATE, AudioGeometry, Geometry, ImageGeometry
from ..bitstream.quality import DEFAULT_QUALITY, index_of
from ..coding import chunks, driver
from ..errors import UsageError
from ..models.base import Model, OperatingPoint
from ..priors.base import Symbols
from ..transform.pixels import to_pixels
from . import ladder
from .decoding import open_stream, render

DEFAULT_MODEL = "vqvae-image"
"""Default model of `sample`: its prior has a larger receptive field than those of variable-rate models."""

MAX_SAMPLES = {"image": 1 << 26, "audio": 1 << 28}
"""Largest size of a sample: pixels of an image, samples of all channels of audio."""


def sample(
    model: str | os.PathLike[str] | Model | None = None,
    *,
    count: int = 1,
    size: tuple[int, int] | None = None,
    seconds: float | None = None,
    quality: float | None = None,
    temperature: float | Mapping[str, float] = 1.0,
    top_k: int | Mapping[str, int] | None = None,
    seed: int = 0,
    continued: bytes | str | os.PathLike[str] | None = None,
    fraction: float = 0.5,
    resample: str | None = None,
    device: str = "auto",
) -> list[media.Image | media.Audio]:
    """Sample images or audio, or a continuation of a file.

    Args:
        model: a shipped model's name, a .safetensors file, or a loaded model; None for DEFAULT_MODEL, or for
            the model of the continued file.
        count: number of samples.
        size: width and height of images in pixels; by default 128 x 128.
        seconds: length of audio; by default 4.
        quality: 1..5, of models with several; by default 3.
        temperature: divisor of logits, its inverse rounded to a 64th: below 1 makes likely symbols likelier.
            For variable-rate models it is a factor of deviations, rounded to a scale of their table. By
            plane, or one for all.
        top_k: sample among this many of the likeliest indices, and those as likely as the last of them. By
            plane, or one for all. Not with variable-rate models.
        seed: of all random choices, below 2**64.
        continued: a bitstream, or its path, to continue: its upper part for an image, its first seconds for
            audio.
        fraction: share of its length to keep, 0..1.
        resample: a plane of `continued` to sample again, with those after it; the planes before it stay.
        device: of the networks.

    Returns:
        `media.Image` or `media.Audio` each.

    Raises:
        UsageError: options that do not apply to the medium, or a model without a learned prior.
        BitstreamError: the bitstream cannot be read.
    """
    temperatures = temperature if isinstance(temperature, Mapping) else {"": temperature}
    ranks = top_k if isinstance(top_k, Mapping) else {} if top_k is None else {"": top_k}
    for one in temperatures.values():
        _check_options(count, one, min(ranks.values(), default=None), seed, fraction)
    if resample is not None and continued is None:
        raise UsageError("planes are kept of a file", "name it")
    known: Symbols | None = None
    stream: Bitstream | None = None
    geometry: Geometry
    if continued is None:
        loaded = model if isinstance(model, Model) else weights.load(model or DEFAULT_MODEL, device)
        generated = loaded.generate(count, seed, temperatures.get("", 1.0))
        if generated is not None:
            if size or seconds or quality or ranks:
                raise UsageError(
                    f"{loaded.card.name} draws pictures of one size",
                    "leave out size, seconds, quality, top-k",
                )
            return [media.Image(pixels) for pixels in to_pixels(generated)]
        wanted = DEFAULT_QUALITY if quality is None else ladder.offered(loaded, quality)
        point = loaded.at(index_of(wanted))
        geometry = _geometry(point, size, seconds)
    else:
        if size is not None or seconds is not None:
            raise UsageError("the continued file has a size already", "leave out size and seconds")
        if quality is not None:
            raise UsageError("the continued file has a quality already", "leave out quality")
        stream, point = open_stream(continued, model=model, device=device)
        geometry = stream.geometry
        _check_size(geometry)
        if any(chunk.prior == PIXELS for chunk in stream.chunks):
            raise UsageError("the file stores pixels instead of codes", "continue another file")
        known = chunks.decode(stream, point).symbols
    if LEARNED not in point.model.priors:
        raise UsageError(
            f"{point.model.card.name} has no learned prior",
            "train one with vqcodec train --stage prior --from NAME",
        )
    planes, regions = point.planes, geometry.whole
    names = [plane.name for plane in planes]
    for name in (*temperatures, *ranks, *([] if resample is None else [resample])):
        if name not in ("", *names):
            raise UsageError(f"no plane '{name}' in {point.model.card.name}", " | ".join(names))
    prior = point.model.priors[LEARNED]
    for name in names:
        likelier = temperatures.get(name, temperatures.get("", 1.0))
        prior = prior.reshaped(likelier, ranks.get(name, ranks.get("")), name)
    symbols = known or {plane.name: plane.empty(geometry.grid(plane.stride)) for plane in planes}
    parts = [{p.name: symbols[p.name][region.part(p.stride)] for p in planes} for region in regions]
    share = 0.0 if known is None else fraction
    prefix = {p.name: round(share * len(parts[0][p.name])) if parts else 0 for p in planes}
    if resample is not None and parts:
        first = names.index(resample)
        prefix = {name: 0 if n >= first else len(parts[0][name]) for n, name in enumerate(names)}
    samples = []
    for n in range(count):
        seeds = [(seed, n * len(regions) + region) for region in range(len(regions))]
        drawn = driver.sample(prior, parts, prefix, seeds, point.index)
        whole = {name: array.copy() for name, array in symbols.items()}
        for region, part in zip(regions, drawn, strict=True):
            for plane in planes:
                whole[plane.name][region.part(plane.stride)] = part[plane.name]
        samples.append(render(whole, point, geometry, stream))
    return samples


def combine(drawn: Sequence[media.Image | media.Audio]) -> media.Image | media.Audio:
    """Put samples of one medium into one file: images in a grid, audio one after the other."""
    images = [one for one in drawn if isinstance(one, media.Image)]
    return image_grid(images) if images else concatenate([o for o in drawn if isinstance(o, media.Audio)])


def image_grid(images: Sequence[media.Image], gap: int = 2, columns: int | None = None) -> media.Image:
    """Arrange images of one size in about as many rows as columns; a single one is returned unchanged."""
    if len(images) == 1:
        return images[0]
    columns = columns or math.ceil(math.sqrt(len(images)))
    height, width, channels = images[0].samples.shape
    rows = -(-len(images) // columns)
    size = (rows * (height + gap) - gap, columns * (width + gap) - gap, channels)
    whole = np.full(size, 255, np.uint8)
    for n, image in enumerate(images):
        top, left = n // columns * (height + gap), n % columns * (width + gap)
        whole[top : top + height, left : left + width] = image.samples
    return media.Image(whole)


def concatenate(pieces: Sequence[media.Audio], gap: float = 0.5) -> media.Audio:
    """Join audio of one rate, with `gap` seconds of silence between; a single piece is returned unchanged."""
    first = pieces[0]
    if len(pieces) == 1:
        return first
    silence = np.zeros((first.channels, round(gap * AUDIO_RATE)), np.float32)
    parts = [part for piece in pieces for part in (piece.signal, silence)][:-1]
    signal = np.concatenate(parts, axis=1)
    return media.Audio(signal, AUDIO_RATE, AUDIO_RATE, signal.shape[1])


def _check_options(count: int, temperature: float, top_k: int | None, seed: int, fraction: float) -> None:
    if not 0 <= fraction <= 1:
        raise UsageError(f"a fraction of {fraction:g}", "give 0 to 1")
    if count < 1 or not 1 / 16 <= temperature <= 16 or (top_k is not None and top_k < 1):
        raise UsageError(
            "count and top-k are 1 or more, temperature 1/16 to 16", "for example temperature 0.9"
        )
    if not 0 <= seed < 2**64:
        raise UsageError(f"a seed of {seed}", "give 0 to 2**64 - 1")


def _check_size(geometry: Geometry) -> None:
    axes = len(geometry.grid(1)) if geometry.kind == "image" else 1
    samples = math.prod(geometry.grid(geometry.stride)) * geometry.stride**axes
    if samples > (limit := MAX_SAMPLES[geometry.kind]):
        raise UsageError(f"{samples:,} samples, limit {limit:,}", "give a smaller size")


def _geometry(point: OperatingPoint, size: tuple[int, int] | None, seconds: float | None) -> Geometry:
    """Return the geometry of an image or audio of this size."""
    geometry: Geometry
    if point.model.medium == "image":
        if seconds is not None:
            raise UsageError("seconds do not apply to images", "give a size")
        width, height = size or (128, 128)
        if width < 1 or height < 1:
            raise UsageError(f"a size of {width} x {height}", "give for example 128x128")
        geometry = ImageGeometry(width, height, 3, point.finest_stride)
    else:
        if size is not None:
            raise UsageError("a size does not apply to audio", "give seconds")
        length = 4.0 if seconds is None else seconds
        if not 0 < length <= media.MAX_SECONDS:
            raise UsageError(f"{length:g} seconds", "give for example 4")
        frames = max(1, round(length * AUDIO_RATE))
        geometry = AudioGeometry(frames, AUDIO_RATE, b"\xc0", False, point.finest_stride)
    _check_size(geometry)
    geometry.check()
    return geometry
