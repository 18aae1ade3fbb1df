"""Reading audio: depths, rates, sources, arrays."""

from __future__ import annotations

import io
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from media_files import (
    decibels,
    saved,
    tones,
    written,
)
from vqcodec import media
from vqcodec.errors import MediaError
from vqcodec.media import Audio
from vqcodec.media import audio as sound

EXACT = [
    *(("WAV", s) for s in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")),
    *(("AIFF", s) for s in ("PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")),
    *(("FLAC", s) for s in ("PCM_S8", "PCM_16", "PCM_24")),
    *(("WAVEX", "PCM_16"), ("RF64", "PCM_16"), ("RF64", "FLOAT"), ("W64", "PCM_16"), ("CAF", "PCM_16")),
    *(("AU", "PCM_16"), ("WAV", "ULAW"), ("WAV", "ALAW"), ("AIFF", "ULAW")),
]


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize(("format", "subtype"), EXACT)
def test_every_depth_is_read_exactly(format: str, subtype: str, channels: int) -> None:
    """Long enough for three blocks, and even: libsndfile adds to odd AIFFs of 8 bits."""
    frames = 2 * sound.BLOCK + 778 if channels == 1 else 5001
    content = written(tones(frames, channels), 16_000, format, subtype)
    expected, _ = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    audio = media.read_audio(content)
    assert np.array_equal(audio.signal, expected.T)
    assert (audio.frames, audio.rate, audio.channels) == (frames, 16_000, channels)
    assert audio.source == {"WAVEX": "WAV", "RF64": "WAV"}.get(format, format)
    worst = {"U8": 0.01, "S8": 0.01, "AW": 0.03, "LAW": 0.03}.get(subtype[-2:], 4e-5)
    assert np.abs(audio.samples - tones(frames, channels)).max() < worst


RATES = [8_000, 11_025, 22_050, 44_100, 47_999, 48_000, 96_001, 191_999, 192_000]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_any_rate_there_and_back(rate: int, channels: int) -> None:
    frames = rate // 2 + 13
    samples = tones(frames, channels, rate)
    audio = media.read_audio(written(samples, rate, "WAV", "FLOAT"))
    assert (audio.rate, audio.frames, audio.channels) == (rate, frames, channels)
    assert audio.signal.shape == (channels, -(-frames * 16_000 // rate))
    assert audio.seconds == frames / rate
    assert audio.samples.shape == (frames, channels)
    assert np.array_equal(Audio.of(samples, rate).signal, audio.signal)
    middle = slice(rate // 10, -rate // 10)
    assert decibels((audio.samples - samples)[middle], samples[middle]) < -100
    for suffix in ("wav", "aiff", "flac"):
        if suffix != "flac" or rate not in (96_001, 191_999):
            again = media.read_audio(saved(audio, suffix))
            assert (again.rate, again.frames, again.channels) == (rate, frames, channels)
            assert decibels((again.samples - samples)[middle], samples[middle]) < -55, "16 bits"


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("frames", [1, 2, 3, 1000])
def test_counts_of_frames_are_exact(rate: int, frames: int) -> None:
    samples = tones(frames, 2, rate) + 0.1
    for suffix in ("wav", "aiff", "ogg"):
        audio = media.read_audio(saved(Audio.of(samples, rate), suffix))
        assert (audio.frames, audio.rate) == (frames, rate)
    assert Audio.of(samples, rate).samples.shape == (frames, 2)
    assert np.isfinite(Audio.of(samples, rate).signal).all()


@pytest.mark.parametrize("rate", [8_000, 44_100, 47_999, 192_000])
def test_a_sine_survives_resampling(rate: int) -> None:
    samples = tones(rate, 1, rate, 1000)[:, 0]
    audio = Audio.of(samples, rate)
    time = np.arange(16_000) / 16_000
    ideal = 0.3 * np.sin(2 * np.pi * 1000 * time + 0.3)
    inside = slice(1600, -1600)
    assert decibels((audio.signal[0] - ideal)[inside], ideal) < -100, "no delay, no change of loudness"
    outside = slice(rate // 10, -rate // 10)
    assert decibels((audio.samples[:, 0] - samples)[outside], samples) < -100


def test_what_lies_above_half_the_rate_is_removed() -> None:
    audio = Audio.of(tones(48_000, 1, 48_000, 11_000), 48_000)
    assert np.abs(audio.signal[0, 1000:-1000]).max() < 1e-4


@pytest.mark.parametrize("suffix", ["ogg", "opus", "mp3"])
@pytest.mark.parametrize("channels", [1, 2])
def test_compressed_formats(suffix: str, channels: int) -> None:
    """They keep the number of samples; what they lose is theirs to lose."""
    samples = tones(48_000 * 2 + 5, channels, 48_000)
    audio = media.read_audio(saved(Audio.of(samples, 48_000), suffix))
    assert (audio.frames, audio.channels, audio.rate) == (len(samples), channels, 48_000)
    assert audio.source == suffix.upper()
    middle = slice(9600, -9600)
    assert decibels((audio.samples - samples)[middle], samples[middle]) < -15
    for other in ("wav", suffix):
        again = media.read_audio(saved(audio, other))
        assert (again.frames, again.channels, again.rate) == (len(samples), channels, 48_000)


@pytest.mark.parametrize("channels", [3, 8, 255])
def test_many_channels(channels: int) -> None:
    samples = tones(300, channels, 24_000)
    audio = Audio.of(samples, 24_000)
    for suffix in ("wav", "aiff", "ogg", "opus"):
        again = media.read_audio(saved(audio, suffix))
        assert (again.channels, again.frames) == (channels, 300)
    with pytest.raises(MediaError, match="256 channels, limit 255"):
        Audio.of(np.zeros((300, 256), np.float32), 24_000)


def test_all_kinds_of_sources(tmp_path: Path) -> None:
    content = written(tones(8000, 2), 16_000, "FLAC", "PCM_16")
    # The name says nothing: soundfile alone would take this for headerless samples.
    path = tmp_path / "sound.raw"
    path.write_bytes(content)
    wanted = media.read_audio(content).signal
    with path.open("rb") as file:
        sources: list[Any] = [
            path,
            str(path),
            bytearray(content),
            memoryview(content),
            io.BytesIO(content),
            file,
        ]
        for source in sources:
            assert np.array_equal(media.read_audio(source).signal, wanted)
            if hasattr(source, "seek"):
                assert not source.closed
                source.seek(0)
            assert np.array_equal(media.read(source).signal, wanted)


def test_a_pipe_in(tmp_path: Path) -> None:
    content = written(tones(30_000, 2), 16_000, "WAV", "PCM_16")
    for read in (media.read_audio, media.read):
        source, sink = os.pipe()

        def feed(sink: int = sink) -> None:
            with os.fdopen(sink, "wb") as file:
                file.write(content)

        thread = threading.Thread(target=feed)
        thread.start()
        with os.fdopen(source, "rb") as file:
            audio = read(file)
        thread.join()
        assert np.array_equal(audio.signal, media.read_audio(content).signal)


def test_pictures_and_sounds_are_told_apart() -> None:
    assert isinstance(media.read(written(tones(500), 16_000, "WAV", "PCM_16")), Audio)
    stream = io.BytesIO()
    media.write_image(media.Image(np.zeros((4, 4, 3), np.uint8)), stream, "webp")
    assert isinstance(media.read(stream.getvalue()), media.Image), "a RIFF too"
    with pytest.raises(MediaError, match="not an image or audio file"):
        media.read_audio(stream.getvalue())


def test_arrays() -> None:
    samples = tones(4000, 2)
    assert np.array_equal(Audio.of(samples, 16_000).signal, samples.T)
    assert np.array_equal(Audio.of(samples[:, 0], 16_000).signal, samples.T[:1])
    for kind in (np.float64, np.float32):
        assert np.array_equal(Audio.of(samples.astype(kind), 16_000).samples, samples)
    assert np.abs(Audio.of(samples.astype(np.float16), 16_000).samples - samples).max() < 1e-3
    whole = np.array([-32768, -1, 0, 1, 32767], np.int16)
    assert np.array_equal(Audio.of(whole, 16_000).samples[:, 0], whole / np.float32(32768))
    assert Audio.of(samples[::-1], np.int64(44_100)).rate == 44_100
    assert Audio.of(samples, 16_000).source == ""
    assert Audio.of(samples, 48_000, 24_000).signal.shape == (2, 2000)


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.zeros(0, np.float32), 16_000, "no samples"),
        (np.zeros((5, 0), np.float32), 16_000, "0 channels"),
        (np.zeros((5, 2, 1), np.float32), 16_000, "array is float32"),
        (np.float32(1), 16_000, "array is float32"),
        (np.zeros(5, np.int32), 16_000, "array is int32"),
        (np.zeros(5, np.uint8), 16_000, "array is uint8"),
        (np.zeros(5, complex), 16_000, "array is complex128"),
        (np.array([0, np.nan]), 16_000, "NaN samples"),
        (np.array([0, np.inf]), 16_000, "infinite samples"),
        (np.array([0, 1e300]), 16_000, "infinite samples"),
        (np.zeros(5), 7_999, "7,999 samples a second"),
        (np.zeros(5), 192_001, "192,001 samples a second"),
        (np.zeros(5), 0, "0 samples a second"),
        (np.zeros(5), 44_100.5, "rate is 44100.5"),
    ],
)
def test_arrays_that_are_no_sound(samples: np.ndarray, rate: Any, message: str) -> None:
    with pytest.raises(MediaError, match=message):
        Audio.of(samples, rate)


@pytest.mark.parametrize(
    "change",
    [
        {"signal": np.zeros((1, 99), np.float32)},
        {"signal": np.zeros((1, 100))},
        {"signal": np.zeros(100, np.float32)},
        {"signal": np.zeros((0, 100), np.float32)},
        {"frames": 0},
        {"rate": 0},
        {"rate": 8_000},
    ],
)
def test_a_sound_agrees_with_itself(change: dict[str, Any]) -> None:
    audio = Audio.of(np.zeros(100), 16_000)
    with pytest.raises(MediaError):
        replace(audio, **change)
