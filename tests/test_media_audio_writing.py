"""Writing audio, its tags, and the memory that both ways take."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from media_files import (
    TAGS,
    saved,
    tones,
    written,
)
from vqcodec import media
from vqcodec.errors import DamagedError, LimitError, MediaError, MediaWarning, UsageError
from vqcodec.media import Audio
from vqcodec.media import audio as sound
from vqcodec.media.opening import created
from vqcodec.media.tag_names import first_values
from vqcodec.media.tags import MAX_TAGS, clean, pack_tags, unpack_tags


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
        (1, 96_001, "flac", "FLAC has no 96,001 samples a second"),
        (1, 16_000, "txt", r"no audio format has the suffix \.txt"),
        (1, 16_000, None, r"no audio format has the suffix \(none\)"),
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
    assert (again.frames, again.source, again.tags) == (4000, "WAV", {"title": ["long"]})


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "opus", "mp3", "aiff"])
def test_tags(suffix: str) -> None:
    audio = replace(Audio.of(tones(3000), 16_000), tags=TAGS)
    for _ in range(3):
        audio = media.read_audio(saved(audio, suffix))
        assert first_values(audio.tags) == TAGS
        assert all(len(texts) == 1 for texts in audio.tags.values()), "no name piles up"
    assert media.read_audio(saved(Audio.of(tones(3000), 16_000), suffix)).tags == {}


@pytest.mark.parametrize("what", [["tags"], "tags", ["all"], ["exif", "all"]])
def test_tags_can_be_left_out(what: Any) -> None:
    content = written(tones(3000), 16_000, "FLAC", "PCM_16", title="x")
    assert media.read_audio(content).tags == {"title": ["x"]}
    assert media.read_audio(content, strip=what).tags == {}
    assert media.read_audio(content).without(what).tags == {}
    for other in ([], ["icc"], ["exif", "xmp"]):
        assert media.read_audio(content, strip=other).tags == {"title": ["x"]}
    with pytest.raises(UsageError, match="cannot strip gps"):
        media.read_audio(content, strip=["tags", "gps"])


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff"])
def test_strange_tags(suffix: str) -> None:
    """Texts that libsndfile would cut, refuse or spoil the file with."""
    audio = Audio.of(tones(3000), 16_000)
    strange = {"title": "a\x1b[2J\0b\ud800", "artist": "", "album": "\0", "mood": "blue"}
    content = saved(replace(audio, tags=strange), suffix)
    assert media.read_audio(content).tags == {"title": ["a[2Jb"], "mood": ["blue"]}
    long = {"comment": ["é" * 5000], "title": ["t"]}
    again = media.read_audio(saved(replace(audio, tags=long), suffix))
    assert again.frames == 3000 and again.tags == long
    for most in (2045, 2046, 8189, 8190, 20_000):
        again = media.read_audio(saved(replace(audio, tags={"comment": "x" * most}), suffix))
        assert again.tags == {"comment": ["x" * most]}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        saved(replace(audio, tags={"schön": "x"}), suffix)
    told = [str(warning.message) for warning in caught]
    assert told == ([f"{suffix.upper()} cannot hold schön: left out"] if suffix in ("flac", "ogg") else [])


def test_the_box_of_tags() -> None:
    assert first_values(unpack_tags(pack_tags(TAGS) or b"")) == TAGS
    assert pack_tags({}) is None is pack_tags({"title": "\0", "\x1b": "x"})
    assert pack_tags({"b": "\x07ü", "a": "1"}) == '{"a": ["1"], "b": ["ü"]}'.encode()
    assert clean(" a\r\nb\tc\x7f\x9b ") == "a\nb\tc"
    assert unpack_tags(b"{}") == {}
    assert unpack_tags(b' { "a" : " b\\tc\\n" } ') == {"a": [" b\tc\n"]}, "others may write it with less care"
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
        b'{"title": []}',
        b'{"title": ["x", 1]}',
        b'{"title": ["x", ""]}',
        b'{"title": [["x"]]}',
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
