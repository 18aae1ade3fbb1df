"""New pictures and sounds from the prior that compresses them: ancestral sampling.

    codes ~ p(codes), one step of the prior's walk after the other;  x = mean of p(x | codes)

Frequencies and random numbers are integers, so a seed gives the same codes on every machine.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import media, weights
from ..bitstream.container import RAW, Bitstream, Geometry, Timeline
from ..bitstream.geometry import SOUND_RATE
from ..bitstream.quality import place_of
from ..coding import chunks, dial
from ..errors import UsageError
from ..models.points import Point
from ..models.variable_rate import ScalarCodec
from ..models.vqvae import VQVAE
from ..priors import base
from . import open_stream
from .encoding import QUALITY, restored, restored_at

DRAWING = "vqvae-image"
"""The model that draws when none is named: its prior sees farther than those of models with a dial."""

GREATEST = {Geometry: 1 << 26, Timeline: 1 << 28}
"""Pixels of a picture, and samples of all channels of a sound, that is drawn, at most."""


def sample(
    model: str | os.PathLike[str] | VQVAE | ScalarCodec | None = None,
    *,
    count: int = 1,
    size: tuple[int, int] | None = None,
    seconds: float | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int = 0,
    continued: bytes | str | os.PathLike[str] | None = None,
    fraction: float = 0.5,
    device: str = "auto",
) -> list[Any]:
    """Draw pictures or sounds, or the rest of one whose beginning is given.

    Args:
        model: a shipped model's name, a .safetensors file, or a loaded model; None for DRAWING, or for the
            model of the file that is continued.
        count: how many are drawn.
        size: of pictures, width and height in pixels; by default 128 x 128.
        seconds: length of sounds; by default 4.
        temperature: logits are divided by it, to the nearest 64th of its inverse: below 1 the likely becomes
            likelier. With a dial, deviations are multiplied by it, to the nearest of their 64 widths.
        top_k: draw among the so many likeliest codes; those as likely as the last of them are in, too. Not
            with a dial.
        seed: of all random choices, below 2**64.
        continued: a bitstream, or its path, whose beginning is kept: the upper part of a picture, the first
            seconds of a sound.
        fraction: how much of it is kept, 0..1.
        device: for the networks.

    Returns:
        `media.Image` or `media.Audio` each.

    Raises:
        UsageError: options that mean nothing for the medium, or a model without a learned prior.
        BitstreamError: the bitstream cannot be read.
    """
    if continued is not None and (size is not None or seconds is not None):
        raise UsageError("the file that is continued has a size already", "leave out size and seconds")
    if not 0 <= fraction <= 1:
        raise UsageError(f"a fraction of {fraction:g}", "0 to 1")
    if count < 1 or not 1 / 16 <= temperature <= 16 or (top_k is not None and top_k < 1):
        raise UsageError(
            "count and top-k are 1 or more, temperature 1/16 to 16", "for example temperature 0.9"
        )
    if not 0 <= seed < 2**64:
        raise UsageError(f"a seed of {seed}", "0 to 2**64 - 1")
    if continued is None:
        codec = model if isinstance(model, VQVAE | ScalarCodec) else weights.load(model or DRAWING, device)
        stream = _empty(codec, size, seconds)
        known = np.zeros(stream.geometry.grid, np.int32)
        kept = 0
    else:
        stream, codec = open_stream(continued, model=model, device=device)
        _check_size(stream.geometry)
        if isinstance(codec, ScalarCodec):
            return _on_the_dial(stream, codec, count, temperature, top_k, seed, fraction)
        known = chunks.read(stream, codec)
        kept = round(fraction * known.shape[-codec.axes])
    if isinstance(codec, ScalarCodec):
        return _on_the_dial(stream, codec, count, temperature, top_k, seed, fraction)
    if codec.learned is None:
        raise UsageError(
            f"{codec.card['name']} has no learned prior", "vqcodec train --stage prior --from NAME"
        )
    prior = codec.learned.reshaped(temperature, top_k)
    rows = _rows(known, stream.geometry)
    drawn = []
    for number in range(count):
        codes = known.copy()
        seeds = [(seed, number * len(rows) + row) for row in range(len(rows))]
        found = base.draw(prior, [known[row] for row in rows], kept, seeds)
        for row, values in zip(rows, found, strict=True):
            codes[row] = values
        drawn.append(restored(stream, codes, [], codec, False, None))
    return drawn


def _on_the_dial(
    stream: Bitstream,
    codec: ScalarCodec,
    count: int,
    temperature: float,
    top_k: int | None,
    seed: int,
    fraction: float,
) -> list[Any]:
    """`sample` by a model with a dial: regions of 512 x 512 pixels, each drawn by itself."""
    if top_k is not None:
        raise UsageError("top-k means nothing for latents that are Gaussian", "give a temperature")
    geometry = stream.geometry
    assert isinstance(geometry, Geometry)
    point = Point(codec, stream.settings[0] if stream.settings else place_of(QUALITY))
    given = all(stream.chunks)
    if any(chunk is not None and chunk.prior == RAW for chunk in stream.chunks):
        raise UsageError("the file holds pixels, which were smaller than codes", "continue another one")
    read = dial.read(stream, point) if given else None
    known = None if read is None else read.latents
    kept = round(fraction * geometry.grid[0]) if given else 0
    drawn = []
    for number in range(count):
        latents = np.zeros((*geometry.grid, point.prior.shape.channels), np.int16)
        for part, (rows, columns) in enumerate(geometry.places):
            before = None if known is None else known[rows, columns]
            latents[rows, columns] = point.prior.draw(
                point.place,
                (rows.stop - rows.start, columns.stop - columns.start),
                (seed, number * geometry.chunk_count + part),
                temperature,
                before,
                max(kept - rows.start, 0),
            )
        drawn.append(restored_at(stream, dial.Read(latents), point, False, None))
    return drawn


def sheet(pictures: Sequence[media.Image], gap: int = 2) -> media.Image:
    """Pictures of one size, side by side in about as many rows as columns; one alone as it is."""
    if len(pictures) == 1:
        return pictures[0]
    columns = math.ceil(math.sqrt(len(pictures)))
    height, width, channels = pictures[0].samples.shape
    rows = -(-len(pictures) // columns)
    size = (rows * (height + gap) - gap, columns * (width + gap) - gap, channels)
    whole = np.full(size, 255, np.uint8)
    for number, picture in enumerate(pictures):
        top, left = number // columns * (height + gap), number % columns * (width + gap)
        whole[top : top + height, left : left + width] = picture.samples
    return media.Image(whole)


def medley(sounds: Sequence[media.Audio], gap: float = 0.5) -> media.Audio:
    """Sounds of one rate, one after the other, so many seconds of silence between; one alone as it is."""
    first = sounds[0]
    if len(sounds) == 1:
        return first
    silence = np.zeros((first.channels, round(gap * SOUND_RATE)), np.float32)
    parts = [part for sound in sounds for part in (sound.signal, silence)][:-1]
    signal = np.concatenate(parts, axis=1)
    return media.Audio(signal, SOUND_RATE, SOUND_RATE, signal.shape[1])


def _check_size(geometry: Geometry | Timeline) -> None:
    samples = math.prod(geometry.grid) * geometry.stride ** (2 if isinstance(geometry, Geometry) else 1)
    if samples > (limit := GREATEST[type(geometry)]):
        raise UsageError(f"{samples:,} samples, limit {limit:,}", "something smaller")


def _rows(codes: np.ndarray, geometry: Geometry | Timeline) -> list[Any]:
    """What of a grid of codes is drawn as one: all of a picture's, each audible channel of a sound's."""
    if isinstance(geometry, Geometry):
        return [slice(None)]
    return [channel for channel in range(len(codes)) if geometry.gains[channel]]


def _empty(codec: VQVAE | ScalarCodec, size: tuple[int, int] | None, seconds: float | None) -> Bitstream:
    """The bitstream of a picture or sound of this size, without its codes."""
    geometry: Geometry | Timeline
    if codec.medium == "image":
        if seconds is not None:
            raise UsageError("seconds mean nothing for pictures", "give a size")
        width, height = size or (128, 128)
        if width < 1 or height < 1:
            raise UsageError(f"a size of {width} x {height}", "for example 128x128")
        geometry = Geometry(width, height, 3, codec.stride)
    else:
        if size is not None:
            raise UsageError("a size means nothing for sounds", "give seconds")
        length = 4.0 if seconds is None else seconds
        if not 0 < length <= media.MAX_SECONDS:
            raise UsageError(f"{length:g} seconds", "for example 4")
        geometry = Timeline(max(1, round(length * SOUND_RATE)), SOUND_RATE, b"\xc0", False, codec.stride)
    _check_size(geometry)
    geometry.check()
    return Bitstream("sample", bytes(8), geometry, [None] * geometry.chunk_count)
