"""Channels and their loudness: what is silent, alike, or softer for a while."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from coded import BLOCK, codes_in, decode_audio, long_audio, mid_side_stream, salvaged, stereo
from conftest import sing
from vqcodec import pipeline
from vqcodec.bitstream import container
from vqcodec.bitstream.container import SEGMENT
from vqcodec.errors import DamagedError
from vqcodec.media import Audio
from vqcodec.transform import loudness

pytestmark = pytest.mark.filterwarnings("ignore:[346] channels, coded one by one")


@pytest.fixture(scope="module")
def encoded(small_sound: str) -> pipeline.Encoded:
    """Two channels of 19 seconds, six chunks."""
    return long_audio(small_sound)


def test_silent_channels_cost_nothing(small_sound: str) -> None:
    one = sing(1)
    silent = np.zeros_like(one)
    alone = pipeline.encode(Audio.of(one, 16_000), model=small_sound)
    among = pipeline.encode(Audio.of(np.hstack([silent, one, silent, silent]), 16_000), model=small_sound)
    assert len(among) == len(alone) + 3, "a byte each"
    assert container.parse(among).chunks == container.parse(alone).chunks
    audio = decode_audio(among, small_sound)
    assert not audio.signal[[0, 2, 3]].any()
    assert np.array_equal(audio.signal[1], decode_audio(alone, small_sound).signal[0])
    nothing = pipeline.encode_file(
        Audio.of(np.zeros((48_000, 2)), 48_000), pipeline.EncodeOptions(model=small_sound)
    )
    assert pipeline.info(nothing.data).chunks == 0 and len(nothing.data) <= 40
    assert nothing.estimate_bits == 0 and pipeline.verify(nothing) == math.inf
    audio = decode_audio(nothing.data, small_sound)
    assert audio.samples.shape == (48_000, 2) and not audio.signal.any()


def test_identical_channels_cost_one(small_sound: str) -> None:
    one = sing(1)
    alone = pipeline.encode(Audio.of(one, 16_000), model=small_sound)
    both = pipeline.encode(Audio.of(np.hstack([one, one]), 16_000), model=small_sound)
    assert len(both) == len(alone) + 1
    assert container.parse(both).geometry.flag
    audio = decode_audio(both, small_sound)
    assert np.array_equal(audio.signal[0], audio.signal[1])
    assert np.array_equal(audio.signal[0], decode_audio(alone, small_sound).signal[0])


def test_channels_that_differ_by_what_nobody_hears_share_their_mean(small_sound: str) -> None:
    middle, side = sing(1, seed=1), 0.005 * sing(1, seed=2)
    together = pipeline.encode_file(
        Audio.of(np.hstack([middle + side, middle - side]), 16_000), pipeline.EncodeOptions(model=small_sound)
    )
    assert together.geometry.mid_side and together.geometry.gains[1] == 0
    alone = pipeline.encode_file(Audio.of(middle, 16_000), pipeline.EncodeOptions(model=small_sound))
    assert (codes_in(together)[0] == codes_in(alone)[0]).mean() > 0.97, "but for rounding"
    assert len(together.data) <= len(alone.data) + 20
    audio = decode_audio(together.data, small_sound)
    assert np.array_equal(audio.signal[0], audio.signal[1]) and audio.signal.any()


def test_mid_and_side(small_sound: str) -> None:
    stream = mid_side_stream(small_sound)
    audio = decode_audio(container.pack(stream), small_sound)
    apart = decode_audio(
        container.pack(replace(stream, geometry=replace(stream.geometry, mid_side=False))), small_sound
    )
    middle, side = apart.signal
    assert np.abs(audio.signal - np.stack([middle + side, middle - side])).max() < 1e-6


def test_channels_are_coded_one_by_one(small_sound: str, encoded: pipeline.Encoded) -> None:
    assert not encoded.geometry.mid_side
    for number in range(2):
        one = replace(stereo(), signal=stereo().signal[number : number + 1])
        alone = pipeline.encode_file(one, pipeline.EncodeOptions(model=small_sound))
        assert np.array_equal(codes_in(alone)[0], codes_in(encoded)[number])
        stream = container.parse(encoded.data)
        assert container.parse(alone.data).chunks == stream.chunks[number::2], "time first, channels in turn"


def test_loudness_is_not_coded(small_sound: str, encoded: pipeline.Encoded) -> None:
    softer = pipeline.encode_file(
        replace(stereo(), signal=stereo().signal / 10), pipeline.EncodeOptions(model=small_sound)
    )
    assert (codes_in(softer) == codes_in(encoded)).mean() > 0.97, "but for rounding"
    assert [a - b for a, b in zip(encoded.geometry.gains, softer.geometry.gains, strict=True)] == [40, 40]
    loud, soft = (decode_audio(e.data, small_sound).signal for e in (encoded, softer))
    difference = np.square(loud - 10 * soft).mean() / np.square(loud).mean()
    assert difference < 0.02


def whispered() -> Audio:
    """Two channels of 19 seconds; in the second one, 8 seconds are 30 dB softer than the rest."""
    samples = sing(19, 16_000, 2, seed=7)
    samples[BLOCK : 2 * BLOCK, 1] *= np.float32(10 ** (-30 / 20))
    return Audio.of(samples, 16_000)


def test_soft_passages_have_a_level(small_sound: str, encoded: pipeline.Encoded) -> None:
    """What the codec is given is about as loud everywhere, and what it gives is as soft as it was."""
    audio = whispered()
    found = pipeline.encode_file(audio, pipeline.EncodeOptions(model=small_sound))
    stream = container.parse(found.data)
    levels = stream.boxes["levels"]
    assert len(levels) == len(stream.chunks) == 6
    assert [number for number, level in enumerate(levels) if level] == [3]  # time goes first
    assert abs(levels[3] - 60) <= 2
    assert "levels" not in container.parse(encoded.data).boxes, "none where it is even"
    unlevelled = replace(stream, boxes={})
    ratio = np.square(decode_audio(found.data, small_sound).signal).sum(1) / np.square(
        decode_audio(container.pack(unlevelled), small_sound).signal
    ).sum(1)
    assert ratio[0] == 1 and ratio[1] < 1
    middle = slice(BLOCK + loudness.RAMP, 2 * BLOCK - loudness.RAMP)
    soft, as_loud = (
        decode_audio(data, small_sound).signal[1, middle] for data in (found.data, container.pack(unlevelled))
    )
    assert np.abs(soft - as_loud * np.float32(10 ** (-levels[3] / 40))).max() < 1e-7
    # Far from the borders it is coded as the same passage would be, were it loud.
    even = sing(19, 16_000, 2, seed=7)
    plain = pipeline.encode_file(Audio.of(even, 16_000), pipeline.EncodeOptions(model=small_sound))
    inner = slice(SEGMENT + 300, 2 * SEGMENT - 300)
    assert (codes_in(found)[1, inner] == codes_in(plain)[1, inner]).mean() > 0.9


@pytest.mark.parametrize("levels", [b"\0" * 5, b"\0" * 7, b"\x14"])
def test_levels_of_other_chunks(small_sound: str, levels: bytes) -> None:
    stream = container.parse(pipeline.encode(whispered(), model=small_sound))
    data = container.pack(replace(stream, boxes={"levels": levels}))
    with pytest.raises(DamagedError, match=f"{len(levels)} levels for 6 chunks"):
        pipeline.decode(data, model=small_sound)
    audio, messages = salvaged(data, small_sound)
    assert audio.frames == 19 * 16_000 and messages == ["damaged in box levels"]
