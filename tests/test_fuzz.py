"""Whatever a file says, decoding ends well: of images and audio alike."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import pytest
from coded import SRGB, XMP
from conftest import draw, sing
from fuzz import FUZZ, end_well, mutate
from hypothesis import given, settings
from hypothesis import strategies as st
from vqcodec import media, pipeline
from vqcodec.bitstream import container
from vqcodec.bitstream.container import (
    LEARNED,
    PIXELS,
    RAW,
    STATIC,
    AudioGeometry,
    Bitstream,
    Chunk,
    ImageGeometry,
    Part,
)
from vqcodec.errors import BitstreamError
from vqcodec.media import Audio


@dataclass(frozen=True)
class Medium:
    """What is mutated.

    Attributes:
        model: a file of weights.
        corpus: sound bitstreams by it.
        geometry: draws the size of another image or audio, about the size of those of the corpus.
        starts: where a lying header begins to lie, counted from its end where negative.
        counts: of examples, for the three tests.
        believed: share of the files with right checksums that decode, at least and at most.
    """

    model: str
    corpus: list[bytes]
    geometry: Callable[[st.DataObject], container.ImageGeometry | AudioGeometry]
    starts: tuple[int, int, int]
    counts: tuple[int, int, int]
    believed: tuple[float, float]


def image_geometry(data: st.DataObject) -> ImageGeometry:
    sides = st.integers(1, 140) | st.sampled_from([512, 513, 1024, 1025, 5000])
    return ImageGeometry(data.draw(sides), data.draw(sides), data.draw(st.sampled_from([1, 3])), 4)


def audio_geometry(data: st.DataObject) -> AudioGeometry:
    gains = data.draw(st.lists(st.sampled_from([0, 1, 150, 255]), min_size=1, max_size=3))
    return AudioGeometry(
        data.draw(st.integers(1, 9000)),
        data.draw(st.sampled_from([1, 7_999, 16_000, 47_999, 2**20])),
        bytes(gains),
        len(gains) == 2 and data.draw(st.booleans()),
    )


def images(small: str) -> Medium:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    plane = np.arange(63, dtype=np.uint8).reshape(7, 9)
    text = np.full((24, 24, 3), 255, np.uint8)
    text[4:20:4, 3:20:3] = 0
    sources = [
        draw(24, 20),
        media.Image(draw(9, 7)[:, :, :1], plane, icc=SRGB[:60], exif=b"MM\0*" * 20, xmp=XMP, source="PNG"),
        noise,
        draw(520, 8),
        draw(100, 90, 2),
    ]
    corpus = [pipeline.encode(source, model=small) for source in sources]
    corpus.append(pipeline.encode(text, model=small, target_size=10_000))
    assert container.read_info(corpus[-1]).priors == {PIXELS: 1}
    screen = draw(160, 100, 3)
    screen[:, :100] = np.tile(text[:20, :20], (5, 5, 1))
    corpus.append(pipeline.encode(screen, model=small))
    assert (
        container.read_info(corpus[-1]).stored_bytes and PIXELS not in container.read_info(corpus[-1]).priors
    )
    return Medium(small, corpus, image_geometry, (0, 21, -20), (2000, 600, 800), (0.1, 0.9))


def audio(small_sound: str) -> Medium:
    one = sing(0.2, seed=4)
    sources = [
        Audio.of(one, 16_000),
        replace(Audio.of(sing(0.1, 44_100, 2), 44_100), tags={"title": "Stück"}, source="WAV"),
        Audio.of(np.hstack([one, 0.9 * one]), 16_000),
        Audio.of(np.hstack([one, 0 * one, one[::-1]]), 16_000),
        Audio.of(np.random.default_rng(0).normal(0, 0.2, 900), 47_999),
    ]
    corpus = [pipeline.encode(source, model=small_sound) for source in sources]
    return Medium(small_sound, corpus, audio_geometry, (0, 20, -25), (500, 400, 600), (0.1, 0.95))


@pytest.fixture(scope="module", params=["image", "audio"])
def medium(request: pytest.FixtureRequest, small: str, small_sound: str) -> Medium:
    with pytest.warns(match="3 channels") if request.param == "audio" else nullcontext():
        return images(small) if request.param == "image" else audio(small_sound)


def test_mutated_files_end_well(medium: Medium) -> None:
    @settings(FUZZ, max_examples=medium.counts[0])
    @given(st.data())
    def end(data: st.DataObject) -> None:
        mutated = mutate(data.draw(st.sampled_from(medium.corpus)), data.draw, medium.corpus)
        decoded = end_well(mutated, medium.model, data.draw(st.booleans()))
        if mutated not in medium.corpus and decoded is not None:
            # Only salvage takes a changed file.
            with pytest.raises(BitstreamError):
                pipeline.decode(mutated, model=medium.model)

    end()


def test_headers_that_lie_with_valid_checksums_end_well(medium: Medium) -> None:
    @settings(FUZZ, max_examples=medium.counts[1])
    @given(st.data())
    def lie(data: st.DataObject) -> None:
        original = data.draw(st.sampled_from(medium.corpus))
        size = container.read_info(original).header_bytes
        start = data.draw(st.sampled_from([at if at >= 0 else size + at for at in medium.starts]))
        lying = original[:start] + mutate(original[start : size - 4], data.draw, [original[:size]])
        signed = lying + zlib.crc32(lying).to_bytes(4, "little")
        end_well(signed + original[size:], medium.model, data.draw(st.booleans()))

    lie()


def test_content_that_lies_with_valid_checksums_ends_well(medium: Medium) -> None:
    """Payloads, priors, metadata and sizes that no encoder writes, in a container that is sound."""
    streams: list[Bitstream] = [container.parse(original) for original in medium.corpus]
    payloads = [chunk.payload for other in streams for chunk in other.chunks if chunk]
    believed: list[bool] = []
    too_long: list[int] = []

    @settings(FUZZ, max_examples=medium.counts[2])
    @given(st.data())
    def lie(data: st.DataObject) -> None:
        stream = data.draw(st.sampled_from(streams))
        geometry = medium.geometry(data) if data.draw(st.booleans()) else stream.geometry
        if geometry.chunk_count > 100:
            too_long.append(geometry.chunk_count)
            return
        chunks: list[Chunk | None] = []
        for number in range(geometry.chunk_count):
            chunk = stream.chunks[number % len(stream.chunks)]
            assert chunk is not None
            payload, prior = chunk.payload, chunk.prior
            if data.draw(st.booleans()):
                payload = mutate(payload, data.draw, payloads)
            if data.draw(st.integers(0, 5)) == 0:
                prior = data.draw(st.sampled_from([RAW, STATIC, LEARNED, PIXELS, 255]))
            chunks.append(Chunk(prior, payload))
        tiles: list[Part] = []
        for number in range(len(geometry.tiles) if stream.tiles else 0):
            stored = stream.tiles[number % len(stream.tiles)].payload
            tiles.append(Part(mutate(stored, data.draw, payloads) if data.draw(st.booleans()) else stored))
        tiles = tiles if any(tile.payload for tile in tiles) else []
        boxes = {
            name: mutate(box, data.draw, [*stream.boxes.values(), b"{}"]) if data.draw(st.booleans()) else box
            for name, box in stream.boxes.items()
        }
        lying = container.pack(replace(stream, geometry=geometry, chunks=chunks, boxes=boxes, tiles=tiles))
        believed.append(end_well(lying, medium.model, data.draw(st.booleans())) is not None)

    lie()
    assert len(believed) + len(too_long) >= medium.counts[2] and len(too_long) < 0.2 * medium.counts[2]
    low, high = medium.believed
    assert low < np.mean(believed) < high, "both of what stands behind the checksums was seen"
