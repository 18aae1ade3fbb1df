"""Each channel comes out of its own loudspeaker in every format."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile
from media_files import saved, written
from vqcodec import media
from vqcodec.errors import MediaWarning
from vqcodec.media import Audio

# Speakers of Vorbis I, 4.3.9, and of the bits of WAVE masks.
VORBIS = {
    3: "FL FC FR",
    4: "FL FR BL BR",
    5: "FL FC FR BL BR",
    6: "FL FC FR BL BR LFE",
    7: "FL FC FR SL SR BC LFE",
    8: "FL FC FR SL SR BL BR LFE",
}
BITS = dict(FL=1, FR=2, FC=4, LFE=8, BL=0x10, BR=0x20, BC=0x100, SL=0x200, SR=0x400)
MASKS = {3: 0x7, 4: 0x33, 5: 0x37, 6: 0x3F, 7: 0x70F, 8: 0x63F}
LOUDNESS = dict(FL=0.5, FR=0.4, FC=0.3, LFE=0.24, BL=0.19, BR=0.15, BC=0.12, SL=0.09, SR=0.07)


def sound(speakers: list[str], rate: int = 48_000) -> np.ndarray:
    """A sine in each channel, as loud as its speaker says; the LFE is low."""
    time = np.arange(rate)[:, None] / rate
    hertz = np.array([60 if speaker == "LFE" else 400 for speaker in speakers])
    return np.float32(np.array([LOUDNESS[s] for s in speakers]) * np.sin(2 * np.pi * hertz * time))


def heard(samples: np.ndarray, speakers: list[str]) -> None:
    found = np.sqrt(2 * np.square(samples[5000:-5000]).mean(0))
    assert found == pytest.approx([LOUDNESS[speaker] for speaker in speakers], rel=0.22)


@pytest.mark.parametrize("channels", VORBIS)
@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_channels_of_ogg_both_ways(channels: int, subtype: str) -> None:
    outside = VORBIS[channels].split()
    inside = sorted(outside, key=BITS.__getitem__)
    audio = media.read_audio(written(sound(outside), 48_000, "OGG", subtype))
    heard(audio.samples, inside)
    again = saved(Audio.of(sound(inside), 48_000), "opus" if subtype == "OPUS" else "ogg")
    heard(media.read_audio(again).samples, inside)
    heard(soundfile.read(io.BytesIO(again))[0], outside)


@pytest.mark.parametrize("channels", MASKS)
def test_wavs_say_which_speakers(channels: int) -> None:
    inside = sorted(VORBIS[channels].split(), key=BITS.__getitem__)
    content = saved(Audio.of(sound(inside), 48_000), "wav")
    at = content.index(b"fmt ") + 8
    tag, count, _, _, width, _, extra, _, mask = struct.unpack("<HHIIHHHHI", content[at : at + 24])
    assert (tag, count, width, extra, mask) == (0xFFFE, channels, 2 * channels, 22, MASKS[channels])
    assert mask == sum(BITS[speaker] for speaker in inside)
    heard(media.read_audio(content).samples, inside)


def test_one_and_two_channels_are_plain_wavs() -> None:
    for channels in (1, 2):
        content = saved(Audio.of(sound(["FL", "FR"][:channels]), 48_000), "wav")
        assert content[20:22] == b"\1\0"


def test_other_speakers_are_told() -> None:
    content = bytearray(saved(Audio.of(sound(["FL", "FR", "BL", "BR"]), 48_000), "wav"))
    content[40:44] = (0x107).to_bytes(4, "little")
    with pytest.warns(MediaWarning, match="speakers 0x107"):
        media.read_audio(bytes(content))


def test_opus_of_another_rate_is_resampled() -> None:
    time = np.arange(44_100) / 44_100
    audio = Audio.of(0.3 * np.sin(2 * np.pi * 500 * time), 44_100)
    with pytest.warns(MediaWarning, match="Opus has no 44,100 samples a second: resampled to 48,000"):
        content = saved(audio, "opus")
    again = media.read_audio(content)
    assert (again.frames, again.rate) == (48_000, 48_000)
    spectrum = np.abs(np.fft.rfft(again.samples[:, 0]))
    assert abs(int(spectrum.argmax()) - 500) <= 1
