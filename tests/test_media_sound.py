from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import threading
import tracemalloc
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from vqcodec import media
from vqcodec.errors import DamagedError, LimitError, MediaError, MediaWarning, UsageError
from vqcodec.media import Audio
from vqcodec.media import audio as sound
from vqcodec.media import audio_files as sound_files
from vqcodec.media.opening import Guarded, created
from vqcodec.media.tags import MAX_TAGS, clean, pack_tags, unpack_tags

TAGS = {
    "title": "Stück Ω",
    "artist": "A. N. Other",
    "comment": "two\nlines",
    "copyright": "nobody",
    "album": "B",
    "date": "2001",
    "genre": "Jazz",
    "tracknumber": "3",
    "license": "CC0",
    "software": "press 1.0",
}


def tones(frames: int, channels: int = 1, rate: int = 16_000, hertz: float = 300) -> np.ndarray:
    """Sines of other pitch and loudness in each channel, float32 [frames, C]."""
    time = np.arange(frames)[:, None] / rate
    channel = np.arange(channels)
    return (0.3 / (1 + channel % 5) * np.sin(2 * np.pi * (hertz + 20 * channel) * time + 0.3)).astype("f4")


def written(samples: np.ndarray, rate: int, format: str, subtype: str, **tags: str) -> bytes:
    stream = io.BytesIO()
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(stream, "w", rate, channels, subtype, format=format) as file:
        for name, text in tags.items():
            setattr(file, name, text)
        file.write(samples)
    return stream.getvalue()


def saved(audio: Audio, format: str) -> bytes:
    stream = io.BytesIO()
    media.write_audio(audio, stream, format)
    return stream.getvalue()


def wav(data: bytes, size: int | None = None, whole: int | None = None, rate: int = 16_000) -> bytes:
    """A WAV of 16 bits and one channel by hand, which may lie about its sizes."""
    size = len(data) if size is None else size
    whole = 36 + len(data) if whole is None else whole
    form = struct.pack("<HHIIHH", 1, 1, rate, 2 * rate, 2, 16)
    head = b"RIFF" + struct.pack("<I", whole) + b"WAVEfmt " + struct.pack("<I", 16) + form
    return head + b"data" + struct.pack("<I", size) + data


def decibels(error: np.ndarray, signal: np.ndarray) -> float:
    return 10 * np.log10(np.square(error).mean() / np.square(signal).mean() + 1e-30)


# files in

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
    with pytest.raises(MediaError, match="not an image or sound"):
        media.read_audio(stream.getvalue())


# arrays in


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


# what is wrong with files


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "NaN samples"), (np.inf, "infinite samples"), (-np.inf, "infinite")]
)
def test_samples_that_are_no_numbers(value: float, subtype: str, message: str) -> None:
    samples = tones(70_000)
    samples[-1] = value
    with pytest.raises(MediaError, match=message):
        media.read_audio(written(samples, 16_000, "WAV", subtype))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (b"a text with the name of a sound", "not an image or sound"),
        (b"RIFF", "not an image or sound"),
        (b"RIFF\0\0\0\0WAVE", "damaged WAV"),
        (np.random.default_rng(5).bytes(3000), "not an image or sound"),
        (b"fLaC" + np.random.default_rng(5).bytes(3000), "damaged FLAC"),
        (b"\xff\xfb" + np.random.default_rng(5).bytes(3000), "damaged MP3"),
        (b"OggS" + np.random.default_rng(5).bytes(3000), "truncated|damaged OGG"),
        (b"FORM\0\0\0\0AIFF" + np.random.default_rng(5).bytes(300), "damaged AIFF"),
        (written(tones(0), 16_000, "WAV", "PCM_16"), "no samples"),
        (written(tones(0), 16_000, "AIFF", "PCM_16"), "no samples"),
        (written(tones(500), 4_000, "WAV", "PCM_16"), "4,000 samples a second"),
        (written(tones(500), 384_000, "WAV", "PCM_16"), "384,000 samples a second"),
    ],
)
def test_what_cannot_be_read(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    for source in (path, content):
        with pytest.raises(MediaError, match=message):
            media.read_audio(source)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no such file"):
        media.read_audio(tmp_path / "gone.wav")
    with pytest.raises(MediaError, match="is a folder"):
        media.read_audio(tmp_path)
    with pytest.raises(MediaError, match="a text stream"):
        media.read_audio(io.StringIO("x"))  # type: ignore[arg-type]


def cut(content: bytes, share: float) -> bytes:
    return content[: round(len(content) * share)]


@pytest.mark.parametrize(
    ("format", "subtype"),
    [
        *(("WAV", s) for s in ("PCM_U8", "PCM_16", "PCM_24", "FLOAT", "ULAW", "ALAW")),
        *(("WAVEX", "PCM_16"), ("RF64", "PCM_16"), ("W64", "PCM_16"), ("AU", "PCM_16")),
        *(("AIFF", "PCM_16"), ("AIFF", "PCM_24"), ("AIFF", "ULAW"), ("FLAC", "PCM_16"), ("FLAC", "PCM_24")),
    ],
)
@pytest.mark.parametrize("share", [0.4, 0.9, 1])
def test_truncated_files_tell_what_is_missing(format: str, subtype: str, share: float) -> None:
    content = written(tones(40_000, 2), 16_000, format, subtype)
    with pytest.raises(MediaError, match=r"^truncated: \d+ of 40000 frames") as caught:
        media.read_audio(cut(content, share)[: len(content) - 1])
    found = int(caught.value.message.split()[1])
    block = sound.FLAC_BLOCK if format == "FLAC" else len(content) - 80_000 if "LAW" in subtype else 30
    assert share * 40_000 - 2 * block - 50 <= found < 40_000
    assert caught.value.hint == "copy the file again"


def test_truncated_files_of_which_nothing_is_left() -> None:
    for format, least in (("WAV", 44), ("AIFF", 54)):
        content = written(tones(4000), 16_000, format, "PCM_16")
        with pytest.raises(MediaError, match="truncated: 1 of 4000 frames"):
            media.read_audio(content[: least + 2])
        for size in range(12, least):
            with pytest.raises(MediaError, match="damaged|truncated: 0 of 4000|no samples"):
                media.read_audio(content[:size])


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.999])
def test_other_truncated_files(share: float) -> None:
    samples = tones(60_000, 1, 48_000) + np.random.default_rng(0).normal(0, 0.05, (60_000, 1))
    for subtype in ("VORBIS", "OPUS"):
        content = written(samples, 48_000, "OGG", subtype)
        with pytest.raises(MediaError, match="truncated: the last page is missing"):
            media.read_audio(cut(content, share))
    content = written(samples, 48_000, "MP3", "MPEG_LAYER_III")
    with pytest.raises(MediaError, match=r"truncated: \d+ of 60000 frames"):
        media.read_audio(cut(content, share))
    content = written(samples, 48_000, "WAV", "IMA_ADPCM")
    with pytest.raises(MediaError, match=r"truncated: \d+ of \d+ bytes of samples"):
        media.read_audio(cut(content, share))


def test_an_ogg_cut_between_two_pages() -> None:
    content = written(np.random.default_rng(0).normal(0, 0.1, (200_000, 2)), 48_000, "OGG", "VORBIS")
    pages = [at for at in range(len(content)) if content.startswith(b"OggS\0", at)]
    assert len(pages) > 5
    assert media.read_audio(content).frames == 200_000
    assert media.read_audio(content + b"TAG" + bytes(125)).frames == 200_000
    for page in pages[3:]:
        with pytest.raises(MediaError, match="the last page is missing"):
            media.read_audio(content[:page])


def test_a_damaged_flac_is_not_called_truncated() -> None:
    content = bytearray(written(np.random.default_rng(0).normal(0, 0.1, 60_000), 16_000, "FLAC", "PCM_16"))
    content[len(content) // 2] ^= 0xFF
    with pytest.raises(MediaError, match="damaged FLAC"):
        media.read_audio(bytes(content))


def flac_of(total: int, frames: int = 60_000) -> bytes:
    """A FLAC that claims so many frames: 36 bits at the end of eight bytes."""
    content = bytearray(written(tones(frames, 2), 16_000, "FLAC", "PCM_16"))
    field = int.from_bytes(content[18:26], "big")
    content[18:26] = (field >> 36 << 36 | total).to_bytes(8, "big")
    return bytes(content)


def test_a_flac_from_a_pipe_does_not_know_its_length() -> None:
    audio = media.read_audio(flac_of(0))
    assert audio.frames == 60_000
    assert np.array_equal(audio.signal, media.read_audio(flac_of(60_000)).signal)
    with pytest.raises(MediaError, match="damaged FLAC"):
        media.read_audio(cut(flac_of(0), 0.5))


def test_memory_is_not_asked_for_on_the_word_of_a_header() -> None:
    content = flac_of(2**36 - 1)
    tracemalloc.start()
    try:
        with pytest.raises(MediaError, match="truncated: 60000 of 68719476735 frames"):
            media.read_audio(content)
        assert tracemalloc.get_traced_memory()[1] < 4 * sound.BELIEVED * len(content) + 2**22
    finally:
        tracemalloc.stop()


def test_more_frames_than_memory_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of an hour of digital silence in a few bytes."""
    monkeypatch.setattr(sound, "BELIEVED", 0)
    samples = tones(700_001, 2, 44_100)
    content = written(samples, 44_100, "FLAC", "PCM_16")
    grown = media.read_audio(content)
    monkeypatch.undo()
    assert np.array_equal(grown.signal, media.read_audio(content).signal)
    assert grown.frames == 700_001


@pytest.mark.parametrize(
    "size", [0, 0xFFFFFFFF, 0xFFFFFFDB, 0x7FFFFFFF, 0x7FFFF000, 0x7FFFFF00, 0x80000000, 0xFFFFFF00]
)
@pytest.mark.parametrize("whole", [0, 0xFFFFFFFF, None])
def test_wavs_from_a_pipe(size: int, whole: int | None) -> None:
    """Programs that cannot go back leave one of these sizes."""
    data = (tones(5000)[:, 0] * 32767).astype("<i2")
    content = wav(data.tobytes(), size, whole if whole is not None else (size + 36) & 0xFFFFFFFF)
    audio = media.read_audio(content)
    assert np.array_equal(audio.signal[0], data / np.float32(32768))


def test_sizes_that_are_statements() -> None:
    data = bytes(range(200)) * 10
    assert media.read_audio(wav(data, 1000)).frames == 500, "what follows belongs to others"
    with pytest.raises(MediaError, match="truncated: 1000 of 1001 frames"):
        media.read_audio(wav(data, 2002))
    assert media.read_audio(wav(data, 2001)).frames == 1000, "half a frame is none"
    with pytest.raises(MediaError, match="no samples"):
        media.read_audio(wav(data, 0, 36 + len(data)))
    padded = wav(data + b"\0", 1999) + b"LIST" + struct.pack("<I", 4) + b"INFO"
    assert media.read_audio(padded).frames == 999
    early = b"RIFF\0\0\0\0WAVEJUNK" + struct.pack("<I", 3) + b"abc\0" + wav(data)[12:]
    assert media.read_audio(early).frames == 1000


def test_mp3s_without_a_count_of_their_frames() -> None:
    samples = tones(100_000, 1, 44_100)[:, 0] + np.random.default_rng(0).normal(0, 0.03, 100_000)

    def mp3(mode: str) -> bytes:
        stream = io.BytesIO()
        with soundfile.SoundFile(
            stream, "w", 44_100, 1, "MPEG_LAYER_III", format="MP3", bitrate_mode=mode, compression_level=0.5
        ) as file:
            file.write(samples)
        content = stream.getvalue()
        assert media.read_audio(content).frames == 100_000
        return content[content.index(content[:2], 2) :]

    steady = mp3("CONSTANT")
    assert 100_000 <= media.read_audio(steady).frames < 103_000, "with the silence that encoders add"
    assert media.read_audio(steady + b"TAG" + bytes(125)).frames == media.read_audio(steady).frames
    assert media.read_audio(b"ID3\3\0\0\0\0\1\0" + bytes(128) + steady).frames >= 100_000
    # libsndfile would guess the length from the first frame, and stop there.
    with pytest.raises(MediaError, match="changing bitrate") as caught:
        media.read_audio(mp3("VARIABLE"))
    assert caught.value.hint == "convert it to WAV"


@pytest.mark.parametrize("rate", sorted(sound_files._RATES["MPEG_LAYER_III"]))
def test_mp3_frames_are_followed_to_the_end(rate: int) -> None:
    content = written(tones(rate // 2, 2, rate), rate, "MP3", "MPEG_LAYER_III").replace(b"Xing", b"gniX")
    stream = io.BytesIO(content.replace(b"Info", b"ofnI"))
    assert sound_files.stated_samples(stream).guessed
    assert stream.tell() == len(content)


def test_errors_of_the_disk_are_told(capfd: pytest.CaptureFixture[str]) -> None:
    content = written(tones(90_000), 16_000, "WAV", "PCM_16")

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 50_000:
                raise OSError(5, "Input/output error")
            return super().read(size)

    with pytest.raises(MediaError, match="cannot be read: Input/output error"):
        media.read_audio(Failing(content))

    class Interrupted(Failing):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 50_000:
                raise KeyboardInterrupt
            return super().read(size)

    with pytest.raises(KeyboardInterrupt):
        media.read_audio(Interrupted(content))
    damaged = bytearray(written(tones(5000), 16_000, "WAV", "PCM_16"))
    damaged[4:8] = damaged[16:20] = b"\xf0\xff\xff\xff"
    with pytest.raises(MediaError):
        media.read_audio(bytes(damaged))
    assert capfd.readouterr().err == ""


def test_a_guarded_stream() -> None:
    guarded = Guarded(io.BytesIO(b"abcdefgh"), (2, b"XY"))
    assert [guarded.read(n) for n in (1, 2, 3, 4)] == [b"a", b"bX", b"Yef", b"gh"]
    assert guarded.ended
    assert guarded.seek(-3) == 8, "stays where it is"
    assert guarded.seek(0) == 0 and guarded.read(8) == b"abXYefgh"
    guarded.check()
    closed = io.BytesIO(b"x")
    broken = Guarded(closed)
    closed.close()
    assert broken.read(1) == b"" and broken.write(b"x") == 0
    with pytest.raises(ValueError, match="closed"):
        broken.check()


@pytest.mark.parametrize(
    ("format", "subtype"),
    [
        *((format, "PCM_16") for format in ("WAV", "WAVEX", "RF64", "AIFF", "FLAC", "W64", "CAF", "AU")),
        *(("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III"), ("WAV", "MS_ADPCM")),
    ],
)
def test_garbage_ends_well(format: str, subtype: str) -> None:
    """Every byte of the headers set to something else: a sound or a MediaError."""
    rng = np.random.default_rng(0)
    content = written(tones(900, 2), 16_000, format, subtype)
    for at in range(min(len(content), 90)):
        for value in (0, 0x7F, 0xFF, rng.integers(256)):
            broken = bytearray(content)
            broken[at] = value
            try:
                audio = media.read_audio(bytes(broken))
            except MediaError:
                continue
            assert np.isfinite(audio.signal).all()


# files out


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "opus", "mp3", "aiff", "aif"])
def test_paths_streams_and_pipes(suffix: str, tmp_path: Path) -> None:
    audio = Audio.of(tones(9000, 2), 16_000)
    path = tmp_path / f"a.{suffix.upper()}"
    media.write_audio(audio, path)
    audio.save(str(tmp_path / "b"), suffix)
    named = path.read_bytes()
    assert len((tmp_path / "b").read_bytes()) == len(named)
    assert len(saved(audio, f".{suffix.upper()}")) == len(named)
    source, sink = os.pipe()
    parts: list[bytes] = []

    def drain() -> None:
        with os.fdopen(source, "rb") as file:
            parts.append(file.read())

    thread = threading.Thread(target=drain)
    thread.start()
    with os.fdopen(sink, "wb") as file:
        media.write_audio(audio, file, suffix)
        assert not file.closed
    thread.join()
    assert len(parts[0]) == len(named)
    assert np.array_equal(media.read_audio(parts[0]).signal, media.read_audio(named).signal)
    # Behind something else, a stream gets the sound in one piece too.
    stream = io.BytesIO(b"before")
    stream.seek(6)
    media.write_audio(audio, stream, suffix)
    assert media.read_audio(stream.getvalue()[6:]).frames == 9000


@pytest.mark.parametrize(
    ("channels", "rate", "suffix", "message"),
    [
        (3, 16_000, "mp3", "MP3 cannot hold 3 channels"),
        (9, 16_000, "flac", "FLAC cannot hold 9 channels"),
        (1, 47_999, "mp3", "MP3 has no 47,999 samples a second"),
        (1, 96_000, "mp3", "MP3 has no 96,000 samples a second"),
        (1, 44_100, "opus", "Opus has no 44,100 samples a second"),
        (1, 96_001, "flac", "FLAC has no 96,001 samples a second"),
        (1, 16_000, "txt", r"no sound format has the suffix \.txt"),
        (1, 16_000, None, r"no sound format has the suffix \(none\)"),
    ],
)
def test_what_a_format_cannot_hold(channels: int, rate: int, suffix: str | None, message: str) -> None:
    audio = Audio.of(tones(500, channels, rate), rate)
    with pytest.raises(MediaError, match=message) as caught:
        media.write_audio(audio, io.BytesIO(), suffix)
    assert caught.value.hint


def test_a_disk_that_is_full(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    audio = Audio.of(tones(200_000), 16_000)

    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            if self.tell() > 100_000:
                raise OSError(28, "No space left on device")
            return super().write(data)

    for suffix in ("wav", "aiff"):
        with pytest.raises(OSError, match="No space left"):
            media.write_audio(audio, Full(), suffix)
    with pytest.raises(FileNotFoundError):
        media.write_audio(audio, tmp_path / "gone" / "a.wav")
    with pytest.raises(OSError, match="lost"), created(tmp_path / "new.wav") as file:
        file.write(b"half")
        raise OSError("lost")
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().err == ""


def test_clipping_is_told_and_no_sample_wraps_around() -> None:
    samples = tones(8000)
    samples[100:103] = [[1.5], [-1.2], [1.0]]
    audio = Audio.of(samples, 16_000)
    for suffix in ("wav", "flac", "aiff"):
        stream = io.BytesIO()
        with pytest.warns(MediaWarning, match="2 samples beyond full scale"):
            media.write_audio(audio, stream, suffix)
        again = media.read_audio(stream.getvalue()).signal[0]
        assert again[100] > 0.99 and again[101] < -0.99
        assert np.abs(again - np.clip(samples[:, 0], -1, 1)).max() < 1e-4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        saved(Audio.of(np.clip(samples, -1, 1), 16_000), "wav")


def test_what_is_too_long_for_a_wav(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sound, "_LARGEST_WAV", 5000)
    audio = replace(Audio.of(tones(4000, 2), 16_000), tags={"title": "long"})
    content = saved(audio, "wav")
    assert content[:4] == b"RF64"
    again = media.read_audio(content)
    assert (again.frames, again.source, again.tags) == (4000, "WAV", {"title": "long"})


# tags

LOST = {
    "wav": {"license"},
    "flac": set(),
    "ogg": set(),
    "opus": set(),
    "mp3": {"copyright", "license"},
    "aiff": {"album", "date", "genre", "license", "tracknumber"},
}


@pytest.mark.parametrize("suffix", LOST)
def test_tags(suffix: str) -> None:
    audio = replace(Audio.of(tones(3000), 16_000), tags=TAGS)
    lost = LOST[suffix]
    for _ in range(3):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            content = saved(audio, suffix)
        told = [str(warning.message) for warning in caught]
        assert bool(told) is bool(lost & set(audio.tags))
        assert all(name in told[0] for name in lost & set(audio.tags))
        audio = media.read_audio(content)
        kept = {name: text for name, text in TAGS.items() if name not in lost | {"software"}}
        assert {name: text for name, text in audio.tags.items() if name != "software"} == kept
        if suffix != "mp3":  # whose encoder signs for itself
            assert audio.tags["software"] == "press 1.0", "libsndfile's own name does not pile up"
    assert media.read_audio(saved(Audio.of(tones(3000), 16_000), suffix)).tags == {}


@pytest.mark.parametrize("what", [["tags"], "tags", ["all"], ["exif", "all"]])
def test_tags_can_be_left_out(what: Any) -> None:
    content = written(tones(3000), 16_000, "FLAC", "PCM_16", title="x")
    assert media.read_audio(content).tags == {"title": "x"}
    assert media.read_audio(content, strip=what).tags == {}
    assert media.read_audio(content).without(what).tags == {}
    for other in ([], ["icc"], ["exif", "xmp"]):
        assert media.read_audio(content, strip=other).tags == {"title": "x"}
    with pytest.raises(UsageError, match="cannot strip gps"):
        media.read_audio(content, strip=["tags", "gps"])


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff"])
def test_strange_tags(suffix: str) -> None:
    """Texts that libsndfile would cut, refuse or spoil the file with."""
    audio = Audio.of(tones(3000), 16_000)
    strange = {"title": "a\x1b[2J\0b\ud800", "artist": "", "album": "\0", "mood": "blue"}
    with pytest.warns(MediaWarning, match="cannot hold mood: left out"):
        content = saved(replace(audio, tags=strange), suffix)
    assert {"title": "a[2Jb"}.items() <= media.read_audio(content).tags.items()
    long = {"comment": "é" * 5000, "title": "t"}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        again = media.read_audio(saved(replace(audio, tags=long), suffix))
    assert again.frames == 3000 and again.tags["title"] == "t"
    assert ("comment" in again.tags) is (not caught) is (suffix not in ("wav", "aiff"))
    most = {"WAV": 2045, "AIFF": 8189}.get(suffix.upper(), 20_000)
    for name in ("comment", "title"):
        again = media.read_audio(saved(replace(audio, tags={name: "x" * most}), suffix))
        assert again.tags[name] == "x" * most


def test_the_box_of_tags() -> None:
    assert unpack_tags(pack_tags(TAGS) or b"") == TAGS
    assert pack_tags({}) is None is pack_tags({"title": "\0", "\x1b": "x"})
    assert pack_tags({"b": "\x07ü", "a": "1"}) == '{"a": "1", "b": "ü"}'.encode()
    assert clean(" a\r\nb\tc\x7f\x9b ") == "a\nb\tc"
    assert unpack_tags(b"{}") == {}
    assert unpack_tags(b' { "a" : " b\\tc\\n" } ') == {"a": " b\tc\n"}, "others may write it with less care"
    with pytest.raises(LimitError, match="--strip tags"):
        pack_tags({"comment": "x" * MAX_TAGS})


@pytest.mark.parametrize(
    "box",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"title"',
        b'{"title": 1}',
        b'{"title": null}',
        b'{"title": ["x"]}',
        b'{"title": ""}',
        b'{"": "x"}',
        b'{"title": "\\u001b[2J"}',
        b'{"title": "\\ud800"}',
        b'{"title": "\xff"}',
        b'{"title": NaN}',
        '{"title": "x"}'.encode("utf-16"),
        b'\xef\xbb\xbf{"title": "x"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"title": "' + b"x" * MAX_TAGS + b'"}',
    ],
)
def test_boxes_of_tags_that_lie(box: bytes) -> None:
    with pytest.raises(DamagedError, match="damaged in box tags"):
        unpack_tags(box)


# memory


def test_a_long_sound_is_never_held_at_its_own_rate(tmp_path: Path) -> None:
    """Two minutes of stereo: 85 MB in float32 at 44.1 kHz, of which 31 at 16 kHz stay."""
    path = tmp_path / "long.flac"
    block = tones(44_100, 2, 44_100)
    with soundfile.SoundFile(path, "w", 44_100, 2, "PCM_16", format="FLAC", compression_level=0) as file:
        for _ in range(120):
            file.write(block)
    code = (
        "import resource, sys\nfrom vqcodec import media\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "before = peak()\naudio = media.read_audio(sys.argv[1])\nread = peak() - before\n"
        "media.write_audio(audio, sys.argv[1] + '.wav')\nprint(read, peak() - before, audio.frames)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True, timeout=60
    )
    read, both, frames = (float(word) for word in result.stdout.split())
    assert frames == 120 * 44_100
    assert read < 31 + 12 and both < 31 + 16
    assert soundfile.info(str(path) + ".wav").frames == frames


def test_nothing_is_left_open(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    path = tmp_path / "a.wav"
    calls: list[Callable[[], Any]] = [
        lambda: media.write_audio(Audio.of(tones(500), 16_000), path),
        lambda: media.read_audio(path),
        lambda: path.write_bytes(path.read_bytes()[:100]),
    ]
    for call in calls:
        call()
    with pytest.raises(MediaError):
        media.read_audio(path)
    path.unlink()
    assert not list(recwarn)
