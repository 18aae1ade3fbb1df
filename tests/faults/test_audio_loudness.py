"""Short loud sounds in quiet audio come out as loud as they were."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import sing
from vqcodec import pipeline
from vqcodec.bitstream import container
from vqcodec.errors import DamagedError
from vqcodec.media import Audio
from vqcodec.transform.loudness import PARTS, gain_of, loudness_of

BLOCK = 128_000
"""Samples of a chunk."""


def vowel(count: int = 5120, peak: float = 0.7) -> np.ndarray:
    """A vowel of .32 seconds: harmonics of 120 Hz with formants at 700 and 1200 Hz."""
    time = np.arange(count) / 16_000
    hertz = 120 * np.arange(1, 25)[:, None]
    heights = np.exp(-(((hertz - 700) / 300) ** 2)) + 0.5 * np.exp(-(((hertz - 1200) / 200) ** 2))
    voice = (heights * np.sin(2 * np.pi * hertz * time)).sum(0) * np.hanning(count) ** 0.3
    return np.asarray(peak * voice / np.abs(voice).max())


def in_noise(sound: np.ndarray, floor_db: float, at: int, seconds: float = 2) -> np.ndarray:
    """The sound in noise of this RMS, float32 [N]."""
    noise = np.random.default_rng(0).normal(0, 10 ** (floor_db / 20), round(16_000 * seconds))
    noise[at : at + len(sound)] += sound
    return noise.astype(np.float32)


def decibels(ours: np.ndarray, theirs: np.ndarray) -> float:
    return 10 * np.log10(np.square(ours).sum() / np.square(theirs).sum())


@pytest.mark.parametrize("floor_db", [-30, -40, -50, -60, -70])
def test_a_word_in_a_quiet_clip_keeps_its_loudness(floor_db: float) -> None:
    at = 13_280
    clip = in_noise(vowel(), floor_db, at)
    again = pipeline.decode(pipeline.encode(Audio.of(clip, 16_000), fast=True)).signal[0]
    word = slice(at, at + 5120)
    assert abs(decibels(again[word], clip[word])) < 2
    # What is around it is not lifted to its loudness, nor lost.
    before = slice(0, at - 5120)
    assert abs(decibels(again[before], clip[before])) < 6


@pytest.mark.parametrize("at", [0, 2000, 2560, 13_000, 26_880])
@pytest.mark.parametrize("count", [400, 5120])
def test_the_level_follows_a_short_sound_wherever_it_is(at: int, count: int) -> None:
    clip = in_noise(vowel(count), -60, at)
    told = loudness_of(clip, BLOCK)
    factors = told.factors(0, len(clip))
    inside = clip / factors
    assert np.abs(inside).max() < 1, "full scale inside the codec"
    quiet = np.ones(len(clip), bool)
    quiet[max(at - 8000, 0) : at + count + 8000] = False
    usual = 10 ** ((gain_of(in_noise(vowel(), -60, at)[quiet]) - 192) / 40)
    if told.levels and count == 400:
        assert factors[quiet] == pytest.approx(usual, rel=0.1), "the rest is coded as it was"


def test_even_audio_keeps_its_bytes() -> None:
    for seed in range(5):
        told = loudness_of(sing(7, seed=seed)[:, 0], BLOCK)
        assert told.levels == b"" and told.gain == gain_of(sing(7, seed=seed)[:, 0])


def test_levels_of_parts_in_the_file(small_sound: str) -> None:
    """One channel has an event, the other a soft passage: both are told in parts."""
    other = sing(19, seed=7)[:, 0]
    other[BLOCK : 2 * BLOCK] *= np.float32(10 ** (-30 / 20))
    signal = np.stack((in_noise(vowel(), -50, 200_000, 19), other))
    encoded = pipeline.encode_file(Audio.of(signal.T, 16_000), pipeline.EncodeOptions(model=small_sound))
    stream = container.parse(encoded.data)
    levels = np.frombuffer(stream.boxes["levels"], np.uint8).reshape(3, 2, PARTS)
    gains = stream.geometry.gains
    first = loudness_of(signal[0], BLOCK)
    assert levels[:, 0].tobytes().startswith(first.levels) and gains[0] == first.gain
    assert (levels[:, 1] == levels[:, 1, :1]).all() and 40 < levels[1, 1, 0] <= 60
    decoded = pipeline.reconstruct(encoded)
    assert isinstance(decoded, Audio) and decoded.signal.shape == signal.shape
    for wrong in (levels.tobytes()[:-1], b"\0" * 12):
        with pytest.raises(DamagedError, match="levels for 6 chunks"):
            pipeline.decode(container.pack(replace(stream, boxes={"levels": wrong})), model=small_sound)
