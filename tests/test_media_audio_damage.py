"""Audio files that are damaged, truncated or lie about themselves."""

from __future__ import annotations

import io
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from media_files import (
    tones,
    wav,
    written,
)
from vqcodec import media
from vqcodec.errors import MediaError, MediaWarning
from vqcodec.media import audio_files as sound_files
from vqcodec.media import audio_reading as sound
from vqcodec.media.mp3 import mp3_links
from vqcodec.media.opening import Guarded


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
        (b"a text with the name of a sound", "not an image or audio file"),
        (b"RIFF", "not an image or audio file"),
        (b"RIFF\0\0\0\0WAVE", "damaged WAV"),
        (np.random.default_rng(5).bytes(3000), "not an image or audio file"),
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
        with pytest.warns(MediaWarning, match="no end flag: if it was cut"):
            assert 0 < media.read_audio(content[:page]).frames < 200_000
        with pytest.raises(MediaError, match="the last page is missing"):
            media.read_audio(content[: page + 2])


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
        assert tracemalloc.get_traced_memory()[1] < 4 * sound.MAX_SAMPLES_PER_BYTE * len(content) + 2**22
    finally:
        tracemalloc.stop()


def test_more_frames_than_memory_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of an hour of digital silence in a few bytes."""
    monkeypatch.setattr(sound, "MAX_SAMPLES_PER_BYTE", 0)
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
    assert 100_000 <= media.read_audio(mp3("VARIABLE")).frames < 103_000


@pytest.mark.parametrize("rate", sorted(sound_files._RATES["MPEG_LAYER_III"]))
def test_mp3_frames_are_followed_to_the_end(rate: int) -> None:
    content = written(tones(rate // 2, 2, rate), rate, "MP3", "MPEG_LAYER_III").replace(b"Xing", b"gniX")
    stream = io.BytesIO(content.replace(b"Info", b"ofnI"))
    (link,) = mp3_links(stream).streams
    assert link.read().endswith(stream.getvalue())


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
@pytest.mark.filterwarnings("ignore::vqcodec.errors.MediaWarning")
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


def test_chunks_of_odd_size_before_the_samples_are_padded() -> None:
    samples = bytes(2000)
    odd = b"LIST" + struct.pack("<I", 5) + b"INFO!" + b"\0"
    form = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16_000, 32_000, 2, 16)
    body = b"WAVE" + form + odd + b"data" + struct.pack("<I", len(samples)) + samples
    wave = b"RIFF" + struct.pack("<I", len(body)) + body
    stated = sound_files.stated_samples(io.BytesIO(wave[:-500]))
    assert (stated.size, stated.there) == (2000, 1500)
