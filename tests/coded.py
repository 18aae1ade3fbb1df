"""Bitstreams that the tests of the pipeline share, what they hold, and damage done to them."""

from __future__ import annotations

import functools
import io
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from conftest import draw, sing
from PIL import ImageCms
from vqcodec import media, pipeline
from vqcodec.bitstream import container, header
from vqcodec.bitstream.geometry import SEGMENT, AudioGeometry, Geometry
from vqcodec.coding import chunks, driver
from vqcodec.errors import BitstreamError, DamageWarning
from vqcodec.models.base import Model, OperatingPoint
from vqcodec.priors.base import Prior, Symbols

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><note/></x:xmpmeta>'

IMAGE_BITS, AUDIO_BITS = 6, 4
"""Of a packed index of the small models."""

BLOCK = SEGMENT * 64
"""Samples of a chunk of audio, at 16 kHz: 8 seconds."""


@functools.cache
def large_image(model: str) -> pipeline.Encoded:
    """An image of four chunks, which nobody may change."""
    return pipeline.encode_file(draw(600, 520, 5), pipeline.EncodeOptions(model=model))


@functools.cache
def stereo() -> media.Audio:
    """Two different channels of 19 seconds, so that each has three chunks, at 22.05 kHz."""
    samples = sing(19, 22_050, 2, seed=7)
    samples[:, 1] = np.roll(samples[::-1, 1], 3000)
    return media.Audio.of(samples, 22_050)


@functools.cache
def long_audio(model: str) -> pipeline.Encoded:
    """`stereo`, six chunks, which nobody may change."""
    return pipeline.encode_file(stereo(), pipeline.EncodeOptions(model=model))


def codes_of(data: bytes, model: Model) -> np.ndarray:
    """The codebook indices of a bitstream."""
    return chunks.decode(container.parse(data), model.at(0)).symbols["codes"]


def codes_in(encoded: pipeline.Encoded) -> np.ndarray:
    """The codebook indices that an encoder chose."""
    return encoded.symbols["codes"]


def bits_by(prior: Prior, regions: list[np.ndarray], index: int = 0) -> float:
    """Bits that regions of codebook indices ought to take, all together."""
    return sum(one.bits for one in driver.encode(prior, [{"codes": region} for region in regions], index))


def packed_bytes(geometry: Geometry, stride: int, bits: int) -> int:
    """What packing indices at a fixed width takes."""
    return sum(-(-bits * int(np.prod(region.shape(stride))) // 8) for region in geometry.regions)


def saved(image: PIL.Image.Image, format: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def decode_audio(data: bytes, model: str, **options: Any) -> media.Audio:
    decoded = pipeline.decode(data, model=model, **options)
    assert isinstance(decoded, media.Audio)
    return decoded


def salvaged(data: bytes, model: str) -> tuple[Any, list[str]]:
    """What is saved, and the warnings: of damage alone, from the line that called into the package."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        decoded = pipeline.decode(data, model=model, salvage=True)
    assert all(warning.category is DamageWarning for warning in caught)
    assert all(Path(warning.filename) == Path(__file__) for warning in caught)
    return decoded, [str(warning.message) for warning in caught]


def broken_in(data: bytes, number: int) -> bytes:
    """With a flipped bit in the middle of a chunk."""
    head, at = header.read_header(data)
    at += sum(chunk.size for chunk in head.chunks[:number]) + head.chunks[number].size // 2
    damaged = bytearray(data)
    damaged[at] ^= 16
    return bytes(damaged)


def file_of(coded: chunks.EncodedChunks, point: OperatingPoint, geometry: Geometry) -> bytes:
    """The bitstream of chunks, without metadata."""
    card = point.model.card
    settings = bytes((point.index,)) if point.model.points > 1 else b""
    fingerprint = bytes.fromhex(card.fingerprint)
    return container.pack(container.Bitstream(card.name, fingerprint, geometry, [*coded.chunks], settings))


def mid_side_stream(model: str) -> container.Bitstream:
    """Mid and side that both have codes: the format allows it, though no encoder here writes it."""
    signal = np.hstack([sing(1, seed=1), 0.1 * sing(1, seed=2)])
    stream = container.parse(pipeline.encode(media.Audio.of(signal, 16_000), model=model))
    assert isinstance(stream.geometry, AudioGeometry)
    assert not stream.geometry.mid_side and 0 not in stream.geometry.gains
    return replace(stream, geometry=replace(stream.geometry, mid_side=True))


def assert_every_bit_counts(data: bytes, model: str) -> None:
    """A decoder notices each bit that is flipped, and each byte that the end lacks."""
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BitstreamError):
            pipeline.decode(bytes(flipped), model=model)
    for size in range(len(data)):
        with pytest.raises(BitstreamError):
            pipeline.decode(data[:size], model=model)


def tables_of(prior: Any, parts: list[Symbols]) -> list[np.ndarray]:
    """All frequencies of a walk, uint32 [h, w, K] per region."""
    codes = [part[prior.plane] for part in parts]
    tables = [np.zeros((*region.shape, prior.alphabet_size), np.uint32) for region in codes]
    scan = prior.scan(parts, 0)
    for step in scan.steps:
        models = [*scan.models(step)]
        for number, (table, positions) in enumerate(zip(tables, step.positions, strict=True)):
            if len(positions[0]):
                table[positions] = models[number].frequencies
    return tables


def check_streams(prior: Any, parts: list[Symbols], threads: int) -> None:
    """Check that streams written in either dtype, with any threads, together or alone, are read by others."""
    wide, before = prior.with_dtype(torch.float64), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        written = [[one.payload for one in driver.encode(p, parts, 0)] for p in (prior, wide)]
        assert written[0] == written[1]
        assert [driver.encode(prior, [part], 0)[0].payload for part in parts] == written[0]
    finally:
        torch.set_num_threads(before)
    known = [{name: np.zeros_like(array) for name, array in part.items()} for part in parts]
    assert driver.decode(wide, written[0], known, 0) == [True] * len(parts)
    for part, found in zip(parts, known, strict=True):
        assert all(np.array_equal(part[name], found[name]) for name in part)
