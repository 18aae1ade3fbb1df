"""Files of several parts, with something around them, or without a mark at their end."""

from __future__ import annotations

import io
import struct
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from media_files import saved, tones, wav, written
from vqcodec import media
from vqcodec.errors import MediaError, MediaWarning
from vqcodec.media import Audio
from vqcodec.media.opening import Spliced

ID3V1 = b"TAG" + b"Song".ljust(30, b"\0") + bytes(94) + b"\xff"


def steps(rate: int = 44_100, channels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Two sounds of 1 and 1.5 seconds, the second of half the loudness."""
    return tones(rate, channels, rate), tones(rate * 3 // 2, channels, rate, 700) / 2


def loudness(samples: np.ndarray) -> float:
    return float(np.sqrt(np.square(samples).mean()))


def mp3(samples: np.ndarray, rate: int = 44_100, mode: str = "CONSTANT", *, bare: bool = False) -> bytes:
    """An MP3, without the frame that states the number of frames where it is to be bare."""
    stream = io.BytesIO()
    with soundfile.SoundFile(
        stream, "w", rate, samples.shape[1], "MPEG_LAYER_III", format="MP3", bitrate_mode=mode
    ) as file:
        file.write(samples)
    content = stream.getvalue()
    return content[content.index(content[:2], 2) :] if bare else content


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
@pytest.mark.parametrize("channels", [1, 2])
def test_chained_oggs_are_read_to_the_end(subtype: str, channels: int) -> None:
    first, second = steps(48_000, channels)
    links = [
        written(samples, 48_000, "OGG", subtype, title=title)
        for samples, title in ((first, "one"), (second, "two"), (first, "one"))
    ]
    audio = media.read_audio(b"".join(links))
    assert audio.frames == 48_000 + 72_000 + 48_000
    parts = np.split(audio.samples, [48_000, 120_000])
    for part, samples in zip(parts, (first, second, first), strict=True):
        assert loudness(part) == pytest.approx(loudness(samples), rel=0.1)
    assert audio.tags["title"] == ["one", "two"]


def test_links_that_differ_are_refused() -> None:
    content = written(tones(8000, 1), 16_000, "OGG", "VORBIS")
    with pytest.raises(
        MediaError, match="several parts: 1 channels at 16,000 Hz, then 2 at 48,000"
    ) as caught:
        media.read_audio(content + written(tones(8000, 2), 48_000, "OGG", "VORBIS"))
    assert caught.value.hint == "split it, or convert it to WAV"
    with pytest.raises(MediaError, match="several parts"):
        media.read_audio(mp3(tones(9000), 44_100) + mp3(tones(9000), 48_000))


def unflagged(content: bytes) -> bytes:
    """An Ogg whose last page is not marked as the last, with the right checksum."""
    at = content.rindex(b"OggS\0")
    page = bytearray(content[at:])
    page[5] &= ~4
    page[22:26] = bytes(4)
    checksum = 0
    for byte in page:
        checksum ^= byte << 24
        for _ in range(8):
            checksum = (checksum << 1) ^ (0x04C11DB7 if checksum & 1 << 31 else 0)
            checksum &= 0xFFFFFFFF
    page[22:26] = checksum.to_bytes(4, "little")
    return content[:at] + page


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_without_an_end_flag_is_read_with_a_warning(subtype: str) -> None:
    content = unflagged(written(tones(48_000), 48_000, "OGG", subtype))
    with pytest.warns(MediaWarning, match="the Ogg has no end flag"):
        audio = media.read_audio(content)
    assert 47_000 < audio.frames <= 49_000
    with pytest.raises(MediaError, match="truncated"):
        media.read_audio(content[:-10])


@pytest.mark.parametrize("behind", [ID3V1, bytes(200), b"APETAGEX" + bytes(60)])
def test_what_lies_behind_an_ogg(behind: bytes) -> None:
    content = written(tones(20_000), 48_000, "OGG", "VORBIS")
    assert media.read_audio(content + behind).frames == 20_000
    with pytest.warns(MediaWarning, match="9 bytes behind the last page: left out"):
        assert media.read_audio(content + b"something").frames == 20_000


@pytest.mark.parametrize("bare", [(False, False), (False, True), (True, False)])
def test_joined_mp3s_are_read_to_the_end(bare: tuple[bool, bool]) -> None:
    first, second = steps()
    content = mp3(first, bare=bare[0]) + mp3(second, bare=bare[1])
    audio = media.read_audio(content)
    assert 0 <= audio.frames - 110_250 < 2 * 2400, "but for the silence that encoders add"
    assert loudness(audio.samples[5000:40_000]) == pytest.approx(loudness(first), rel=0.1)
    assert loudness(audio.samples[60_000:100_000]) == pytest.approx(loudness(second), rel=0.1)
    tagged = saved(replace(Audio.of(second, 44_100), tags={"title": "x"}), "mp3")
    assert media.read_audio(mp3(first) + ID3V1 + tagged).frames == 110_250


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_mp3s_that_state_no_length(mode: str) -> None:
    samples = tones(88_200, 1, 44_100) + np.random.default_rng(0).normal(0, 0.03, (88_200, 1))
    samples[:20_000] *= 0.01
    content = mp3(samples, mode=mode, bare=True)
    audio = media.read_audio(content)
    assert 88_200 - 529 <= audio.frames < 88_200 + 2400
    with pytest.warns(MediaWarning, match="the last frame of the MP3 is cut"):
        assert 0 < audio.frames - media.read_audio(content[:-9]).frames <= 1152


@pytest.mark.parametrize("junk", [bytes(3000), np.random.default_rng(1).bytes(3000), b"\xff" * 50])
def test_junk_before_the_first_frame(junk: bytes) -> None:
    content = mp3(tones(88_200, 1, 44_100))
    with pytest.warns(MediaWarning, match="bytes that are no MP3: left out"):
        audio = media.read(junk + content)
    assert isinstance(audio, Audio) and audio.frames == 88_200


def test_truncated_mp3s_are_refused_still() -> None:
    content = mp3(tones(88_200, 1, 44_100))
    with pytest.raises(MediaError, match=r"truncated: \d+ of 88200 frames"):
        media.read_audio(content[: len(content) // 2])


@pytest.mark.parametrize("before", [b"", b"ID3\4\0\0\0\0\0\x0a" + bytes(10)])
def test_a_flac_with_tags_of_other_formats(before: bytes) -> None:
    content = written(tones(9000), 16_000, "FLAC", "PCM_16", artist="B")
    audio = media.read_audio(before + content + ID3V1)
    assert (audio.frames, audio.source) == (9000, "FLAC")
    assert audio.tags == {"artist": ["B"], "title": ["Song"]}
    assert media.read_audio(content + b"garbage at the end").frames == 9000


def test_mp3_in_wav() -> None:
    content = mp3(tones(44_100, 2, 44_100))
    form = struct.pack("<HHIIHHHHIHHH", 0x55, 2, 44_100, 16_000, 1, 0, 12, 1, 2, 417, 1, 0)
    chunks = (
        b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(content)) + content
    )
    riff = b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks
    audio = media.read_audio(riff)
    assert (audio.frames, audio.channels, audio.rate) == (44_100, 2, 44_100)
    assert loudness(audio.samples[:, 0]) == pytest.approx(loudness(tones(44_100, 2, 44_100)[:, 0]), rel=0.05)


def test_bw64() -> None:
    data = np.int16(tones(1000)[:, 0] * 32_767).tobytes()
    long = b"ds64" + struct.pack("<IQQQI", 28, 72 + len(data), len(data), 1000, 0)
    content = b"BW64\xff\xff\xff\xffWAVE" + long + wav(data)[12:36] + b"data\xff\xff\xff\xff" + data
    audio = media.read_audio(content)
    assert (audio.frames, audio.source) == (1000, "WAV")
    assert np.abs(audio.signal - tones(1000).T).max() < 1e-4


def ogg_page(packet: bytes, number: int, flags: int, granule: int) -> bytes:
    lacing = b"\xff" * (len(packet) // 255) + bytes((len(packet) % 255,))
    head = b"OggS\0" + bytes((flags,)) + struct.pack("<qIII", granule, 1, number, 0)
    return head + bytes((len(lacing),)) + lacing + packet


def test_flac_in_ogg() -> None:
    flac = written(tones(3000), 16_000, "FLAC", "PCM_16", title="x")
    at, packets = 4, []
    while True:
        size = 4 + int.from_bytes(flac[at + 1 : at + 4], "big")
        packets.append(flac[at : at + size])
        at += size
        if packets[-1][0] & 0x80:
            break
    first = b"\x7fFLAC\1\0" + struct.pack(">H", len(packets) - 1) + b"fLaC" + packets[0]
    frames = flac[at:]
    content = ogg_page(first, 0, 2, 0)
    for number, packet in enumerate((*packets[1:], frames), 1):
        content += ogg_page(packet, number, 4 if packet is frames else 0, 3000)
    audio = media.read_audio(content)
    assert np.array_equal(audio.signal, media.read_audio(flac).signal)
    assert (audio.frames, audio.source, audio.tags) == (3000, "OGG", {"title": ["x"]})


def test_stretches_of_streams() -> None:
    spliced = Spliced((b"abc", 0, 3), (io.BytesIO(b"0123456789"), 2, 6), (b"xyz", 1, 2))
    assert spliced.read() == b"abc2345y"
    for start in range(9):
        for size in range(9):
            assert spliced.seek(start) == start
            assert spliced.read(size) == b"abc2345y"[start : start + size]
    assert spliced.seek(-2, 2) == 6 and spliced.read(9) == b"5y"
    with pytest.raises(ValueError, match="before the beginning"):
        spliced.seek(-1)
