"""Audio with damage: lost regions are silent, every other is as it was."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from coded import BLOCK, broken_in, decode_audio, long_audio, mid_side_stream, salvaged
from conftest import sing
from vqcodec import pipeline, weights
from vqcodec.bitstream import container, header
from vqcodec.bitstream.container import STATIC, Chunk
from vqcodec.coding import chunks
from vqcodec.errors import DamagedError, DamageWarning, MediaWarning, ModelError
from vqcodec.media import Audio
from vqcodec.models.vqvae import AudioVQVAE


@pytest.fixture(scope="module")
def codec(small_sound: str) -> AudioVQVAE:
    """The model of `small_sound`, which nobody may change."""
    return weights.load(small_sound, "cpu")


@pytest.fixture(scope="module")
def encoded(small_sound: str) -> pipeline.Encoded:
    """Two channels of 19 seconds, six chunks."""
    return long_audio(small_sound)


@pytest.mark.parametrize("broken", range(6))
def test_a_damaged_chunk_is_silent_alone(
    small_sound: str, codec: AudioVQVAE, encoded: pipeline.Encoded, broken: int
) -> None:
    damaged = broken_in(encoded.data, broken)
    message = f"damaged in chunk {broken + 1} of 6"
    with pytest.raises(DamagedError, match=message) as caught:
        pipeline.decode(damaged, model=small_sound)
    assert caught.value.hint == "decode the undamaged part with --salvage"
    audio, messages = salvaged(damaged, small_sound)
    assert messages == [message]
    whole = decode_audio(encoded.data, small_sound).signal
    region = list(encoded.geometry.regions)[broken]
    channel, part = region.channel, region.samples[0]
    start, stop = part.start, min(-(-part.stop // 64) * 64, encoded.geometry.samples)
    assert not audio.signal[channel, start:stop].any(), "silent"
    assert np.array_equal(audio.signal[1 - channel], whole[1 - channel])
    reach = codec.halo * 64
    near = np.abs(audio.signal[channel] - whole[channel])
    assert near[: max(start - reach, 0)].max(initial=0) < 1e-5
    assert near[stop + reach :].max(initial=0) < 1e-5


def test_half_a_shared_mean_is_better_than_none(small_sound: str) -> None:
    data = container.pack(mid_side_stream(small_sound))
    head, at = header.read_header(data)
    damaged = bytearray(data)
    damaged[at + head.chunks[0].size] ^= 1
    both, messages = salvaged(bytes(damaged), small_sound)
    assert messages == ["damaged in chunk 2 of 2"]
    assert np.array_equal(both.signal[0], both.signal[1]) and both.signal.any(), "the mean alone"


def test_salvage_of_content_that_no_encoder_writes(small_sound: str, encoded: pipeline.Encoded) -> None:
    """Checksums that are right do not help a decoder."""
    stream = container.parse(encoded.data)
    broken = list(stream.chunks)
    broken[3] = Chunk(STATIC, stream.chunks[3].payload + bytes(400))
    lying = container.pack(replace(stream, chunks=broken))
    with pytest.raises(DamagedError, match="damaged in chunk 4 of 6"):
        pipeline.decode(lying, model=small_sound)
    audio, messages = salvaged(lying, small_sound)
    assert messages == ["damaged in chunk 4 of 6"]
    assert not audio.signal[1, BLOCK : 2 * BLOCK].any()
    assert np.array_equal(audio.signal[0], decode_audio(encoded.data, small_sound).signal[0])
    later = container.pack(replace(stream, chunks=[Chunk(7, b"learned"), *stream.chunks[1:]]))
    with pytest.raises(ModelError, match="chunk 1 is coded by a prior"):
        pipeline.decode(later, model=small_sound)


def test_salvage_of_a_cut_file(small_sound: str, encoded: pipeline.Encoded) -> None:
    head, size = header.read_header(encoded.data)
    cut = encoded.data[: size + head.chunks[0].size + head.chunks[1].size + 3]
    with pytest.raises(DamagedError, match=f"truncated: {len(cut)} of {len(encoded.data)} bytes"):
        pipeline.decode(cut, model=small_sound)
    audio, messages = salvaged(cut, small_sound)
    assert messages[1:] == [f"damaged in chunk {n} of 6" for n in (3, 4, 5, 6)]
    assert audio.frames == encoded.geometry.frames
    assert not audio.signal[:, BLOCK:].any()
    whole = decode_audio(encoded.data, small_sound).signal
    assert np.abs(audio.signal - whole)[:, : BLOCK - 2000].max() < 1e-5
    good, messages = salvaged(encoded.data, small_sound)
    assert messages == [] and np.array_equal(good.signal, whole)


def test_a_lost_region_has_the_codes_of_silence(codec: AudioVQVAE, encoded: pipeline.Encoded) -> None:
    (value,) = codec.at(0).neutral().values()
    with torch.inference_mode():
        silence = codec.analyse(torch.zeros(1, 1, 64 * 200))
    assert value.shape == () and value == silence[0, 100]
    assert codec.at(0, effort=3).neutral()["codes"] == value
    stream = container.parse(broken_in(encoded.data, 2), salvage=True)
    assert stream.damage == ["damaged in chunk 3 of 6"]
    found = chunks.decode(stream, codec.at(0))
    assert found.lost == [list(encoded.geometry.regions)[2]] and found.damage == []
    assert (found.symbols["codes"][found.lost[0].part(64)] == value).all()


def test_warnings_come_from_the_line_that_called(small_sound: str, encoded: pipeline.Encoded) -> None:
    stream = container.parse(encoded.data)
    lying = container.pack(replace(stream, boxes={"tags": b"[1]", "levels": b"\1"}))
    with pytest.warns(DamageWarning) as caught:
        pipeline.decode(lying, model=small_sound, salvage=True)
    assert [str(warning.message) for warning in caught] == ["damaged in box levels", "damaged in box tags"]
    assert {warning.filename for warning in caught} == {__file__}
    with pytest.warns(MediaWarning, match="3 channels") as caught:
        pipeline.encode(Audio.of(sing(0.1, channels=3), 16_000), model=small_sound)
    assert [w.filename for w in caught if w.category is MediaWarning] == [__file__]
