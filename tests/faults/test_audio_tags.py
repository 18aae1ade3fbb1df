"""Every value of every tag comes back, in every format that can hold it."""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import replace

import mutagen.apev2
import mutagen.flac
import mutagen.id3
import mutagen.mp3
import numpy as np
import pytest
from media_files import saved, tones, wav, written
from vqcodec import media, pipeline
from vqcodec.errors import MediaWarning
from vqcodec.media import Audio

MANY = {
    "artist": ["A", "B"],
    "albumartist": ["C"],
    "composer": ["D", "E"],
    "genre": ["Jazz", "Rock"],
    "discnumber": ["2"],
    "tracknumber": ["3/12"],
    "date": ["2001-02-03"],
    "lyrics": ["la\nla"],
    "replaygain_track_gain": ["-3.20 dB"],
    **{f"field{number}": [f"{number} ü", f"{number} b"] for number in range(30)},
}


def flac(tags: dict[str, list[str]]) -> bytes:
    stream = io.BytesIO(written(tones(4000), 16_000, "FLAC", "PCM_16"))
    file = mutagen.flac.FLAC(stream)
    file.tags.extend([(name.upper(), text) for name, texts in tags.items() for text in texts])
    stream.seek(0)
    file.save(stream)
    return stream.getvalue()


@pytest.mark.parametrize("suffix", ["flac", "ogg", "opus", "mp3", "wav", "aiff"])
def test_all_values_through_encode_and_decode(small_sound: str, suffix: str) -> None:
    data = pipeline.encode(flac(MANY), model=small_sound)
    decoded = pipeline.decode(data, model=small_sound)
    assert isinstance(decoded, Audio) and decoded.tags == MANY
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert media.read_audio(saved(decoded, suffix)).tags == MANY


def test_pictures_are_named_as_left_out() -> None:
    stream = io.BytesIO(flac({"title": ["x"]}))
    file = mutagen.flac.FLAC(stream)
    picture = mutagen.flac.Picture()
    picture.data, picture.mime = b"\x89PNG", "image/png"
    file.add_picture(picture)
    stream.seek(0)
    file.save(stream)
    with pytest.warns(MediaWarning, match="^picture: left out$"):
        assert media.read_audio(stream.getvalue()).tags == {"title": ["x"]}
    assert media.read_audio(stream.getvalue(), strip=["tags"]).tags == {}


def test_mp3s_with_id3_and_ape() -> None:
    content = io.BytesIO(saved(Audio.of(tones(9000, 1, 44_100), 44_100), "mp3"))
    frames = mutagen.id3.ID3()
    frames.add(mutagen.id3.TPE1(encoding=3, text=["A", "B"]))
    frames.add(mutagen.id3.COMM(encoding=3, lang="eng", desc="", text=["remark"]))
    frames.add(mutagen.id3.APIC(encoding=3, mime="image/png", type=3, desc="", data=b"\x89PNG"))
    frames.save(content)
    content.seek(0)
    ape = mutagen.apev2.APEv2()
    ape["Album Artist"], ape["Year"] = "C", "1999"
    ape.save(content)
    with pytest.warns(MediaWarning, match="^picture: left out$"):
        audio = media.read_audio(content.getvalue())
    expected = {"artist": ["A", "B"], "comment": ["remark"], "albumartist": ["C"], "date": ["1999"]}
    assert audio.tags == expected


@pytest.mark.parametrize(
    ("encoding", "text"), [("latin-1", "Café Müller"), ("utf-8", "Café Müller Ω"), ("cp1252", "“Müller”")]
)
def test_info_of_a_wav(encoding: str, text: str) -> None:
    field = text.encode(encoding) + b"\0"
    field += b"\0" * (len(field) % 2)
    info = b"INFOIART" + struct.pack("<I", len(field)) + field + b"IENG" + struct.pack("<I", 2) + b"x\0"
    content = (
        wav(np.int16(tones(500)[:, 0] * 30_000).tobytes()) + b"LIST" + struct.pack("<I", len(info)) + info
    )
    assert media.read_audio(content).tags == {"artist": [text], "engineer": ["x"]}


def test_chunks_that_hold_more_are_named() -> None:
    content = wav(np.int16(tones(500)[:, 0] * 30_000).tobytes())
    content += b"bext" + struct.pack("<I", 4) + bytes(4) + b"cue " + struct.pack("<I", 4) + bytes(4)
    with pytest.warns(MediaWarning, match=r"broadcast data \(bext\), cue points: left out"):
        media.read_audio(content)


def test_old_boxes_with_single_texts_are_read() -> None:
    assert media.unpack_tags(b'{"artist": "A", "title": ["B", "C"]}') == {
        "artist": ["A"],
        "title": ["B", "C"],
    }
    assert replace(Audio.of(tones(500), 16_000), tags={"title": "x"}).tags == {"title": ["x"]}


@pytest.mark.parametrize("at", [0, 5, 20, 40])
def test_damaged_tags_do_not_keep_the_samples_from_being_read(at: int) -> None:
    content = bytearray(saved(replace(Audio.of(tones(900), 16_000), tags={"mood": "x"}), "wav"))
    content[content.index(b"ID3") + at] ^= 0xFF
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert media.read_audio(bytes(content)).frames == 900
