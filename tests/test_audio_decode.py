"""What decodes audio, and what is refused."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace

import pytest
from coded import assert_every_bit_counts, decode_audio, salvaged
from conftest import sing
from make_hostile import FOLDER, hostile_to_decoders
from vqcodec import pipeline
from vqcodec.bitstream import container
from vqcodec.errors import DamagedError, LimitError, MediaWarning, VersionError
from vqcodec.media import Audio

pytestmark = pytest.mark.filterwarnings("ignore:[346] channels, coded one by one")


def test_another_stride_or_settings(small_sound: str) -> None:
    stream = container.parse(pipeline.encode(Audio.of(sing(0.1), 16_000), model=small_sound))
    wide = replace(stream.geometry, stride=128)
    with pytest.raises(DamagedError, match="header claims stride 128"):
        pipeline.decode(container.pack(replace(stream, geometry=wide)), model=small_sound)
    with pytest.raises(VersionError, match="settings"):
        pipeline.decode(container.pack(replace(stream, settings=b"\1")), model=small_sound)


@pytest.mark.parametrize("name", hostile_to_decoders())
def test_what_is_larger_than_allowed(name: str) -> None:
    """Found before memory is asked for, and before the model is looked for."""
    content, error, message = hostile_to_decoders()[name]
    assert (FOLDER / f"{name}.vqc").read_bytes() == content
    tracemalloc.start()
    try:
        with pytest.raises(error) as caught:
            pipeline.decode(content)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert message in caught.value.message and caught.value.hint == "raise --max-seconds to decode it"
    assert peak < 2**20
    assert pipeline.info(content).chunks == 0


def test_the_limit_of_length_counts_channels(small_sound: str) -> None:
    data = pipeline.encode(Audio.of(sing(1, channels=3), 16_000), model=small_sound)
    assert decode_audio(data, small_sound, max_seconds=3).channels == 3
    with pytest.warns(MediaWarning, match="^3 channels, coded one by one$"):
        pipeline.encode(Audio.of(sing(1, channels=3), 16_000), model=small_sound)
    with pytest.raises(LimitError, match="3 channels of 16,000 samples"):
        pipeline.decode(data, model=small_sound, max_seconds=2.99)


@pytest.mark.parametrize("rate", [1, 999, 2**20])
def test_rates_that_no_file_has(small_sound: str, rate: int) -> None:
    """The format has room for them; no encoder writes them, and a few bytes could ask for much."""
    stream = container.parse(pipeline.encode(Audio.of(sing(1), 16_000), model=small_sound))
    size = replace(stream.geometry, frames=rate, rate=rate)
    with pytest.raises(LimitError, match="a second"):
        decode_audio(container.pack(replace(stream, geometry=size)), small_sound)


TAG_BOXES = [
    b"",
    b"[1]",
    b'{"title": 5}',
    b'{"title": "\\ud800"}',
    b'{"title": "a\\u0000b"}',
    b"\xff\xfe{\0}\0",
    b"[" * 200_000,
    b'{"a": ' * 50_000,
    json.dumps({"comment": "x" * 2**20}).encode(),
]


@pytest.mark.parametrize("box", TAG_BOXES)
def test_tags_that_lie(small_sound: str, box: bytes) -> None:
    stream = container.parse(pipeline.encode(Audio.of(sing(0.1), 16_000), model=small_sound))
    data = container.pack(replace(stream, boxes={"tags": box}))
    with pytest.raises(DamagedError, match="damaged in box tags") as caught:
        pipeline.decode(data, model=small_sound)
    assert caught.value.hint == "decode the undamaged part with --salvage"
    audio, messages = salvaged(data, small_sound)
    assert messages == ["damaged in box tags"] and audio.tags == {}


def test_every_flipped_bit_is_noticed(small_sound: str) -> None:
    audio = replace(Audio.of(sing(0.5, channels=2), 16_000), tags={"title": "x"}, source="FLAC")
    data = pipeline.encode(audio, model=small_sound)
    assert len(data) < 300
    assert_every_bit_counts(data, small_sound)
