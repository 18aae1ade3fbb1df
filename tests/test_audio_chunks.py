"""What audio takes, and that FORMAT.md is enough to read it."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from coded import AUDIO_BITS, bits_by, codes_in, codes_of, decode_audio, file_of, long_audio, packed_bytes
from conftest import sing
from vqcodec import pipeline, weights
from vqcodec.bitstream import container
from vqcodec.bitstream.container import RAW, SEGMENT, STATIC
from vqcodec.coding import chunks
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


def test_payload_is_what_the_tables_promise(encoded: pipeline.Encoded, codec: AudioVQVAE) -> None:
    info = pipeline.info(encoded.data)
    assert info.priors == {STATIC: 6}
    promised = encoded.estimate_bits / 8
    assert promised < info.code_bytes <= promised * 1.005 + 6 * 8
    assert info.code_bytes < packed_bytes(encoded.geometry, 64, AUDIO_BITS)
    assert encoded.estimate_bits == pytest.approx(
        sum(
            bits_by(codec.priors[STATIC], [codes_in(encoded)[region.part(64)]])
            for region in encoded.geometry.regions
        )
    )


def test_each_chunk_by_what_is_smaller(codec: AudioVQVAE, encoded: pipeline.Encoded) -> None:
    rare = np.argsort(codec.priors[STATIC].tables.sum((0, 1), dtype=np.int64))[:3]
    codes = codes_in(encoded).copy()
    codes[0, :SEGMENT] = np.random.default_rng(0).choice(rare, SEGMENT)
    found = chunks.encode({"codes": codes}, codec.at(0), encoded.geometry)
    data = file_of(found, codec.at(0), encoded.geometry)
    stream = container.parse(data)
    assert [chunk.prior for chunk in stream.chunks if chunk] == [RAW, *[STATIC] * 5]
    assert len(stream.chunks[0].payload) == -(-AUDIO_BITS * SEGMENT // 8)
    assert stream.chunks[1:] == container.parse(encoded.data).chunks[1:]
    assert np.array_equal(codes_of(data, codec), codes)


@pytest.mark.parametrize("frames", [1, 64, 700, 16_000])
def test_never_larger_than_packing(small_sound: str, frames: int) -> None:
    samples = np.random.default_rng(frames).normal(0, 0.3, (frames, 2)).astype(np.float32)
    encoded = pipeline.encode_file(Audio.of(samples, 16_000), pipeline.EncodeOptions(model=small_sound))
    info = pipeline.info(encoded.data)
    assert len(encoded.data) <= info.header_bytes + packed_bytes(encoded.geometry, 64, AUDIO_BITS)


def test_a_model_without_tables(codec: AudioVQVAE, tmp_path: Path) -> None:
    bare = codec.equipped(priors={})
    path = tmp_path / "bare.safetensors"
    weights.save(bare, codec.card, path)
    encoded = pipeline.encode_file(Audio.of(sing(0.3), 16_000), pipeline.EncodeOptions(model=path))
    assert 0 <= 8 * packed_bytes(encoded.geometry, 64, AUDIO_BITS) - encoded.estimate_bits < 8
    info = pipeline.info(encoded.data)
    assert info.priors == {RAW: 1} and info.code_bytes == packed_bytes(encoded.geometry, 64, AUDIO_BITS)
    assert decode_audio(encoded.data, str(path)).frames == 4800


def test_codes_do_not_depend_on_threads(
    small_sound: str, codec: AudioVQVAE, encoded: pipeline.Encoded
) -> None:
    threads = torch.get_num_threads()
    decoded = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            assert np.array_equal(codes_of(encoded.data, codec), codes_in(encoded))
            decoded.append(decode_audio(encoded.data, small_sound).signal)
    finally:
        torch.set_num_threads(threads)
    assert np.abs(decoded[0] - decoded[1]).max() < 1e-5
    spoilt = copy.deepcopy(codec)
    with torch.no_grad():
        for tensor in (*spoilt.parameters(), *spoilt.buffers()):
            tensor.fill_(torch.nan)
    assert np.array_equal(codes_of(encoded.data, spoilt), codes_in(encoded)), "no float takes part"


def read_by_the_page(data: bytes, classes: np.ndarray, tables: np.ndarray) -> list[list[int]]:
    """The codes of audio without boxes, as FORMAT.md says, in Python's own integers."""
    at = 8 + data[7] + 8  # magic, version, kind, flags, name, fingerprint

    def varint() -> int:
        nonlocal at
        value, shift = 0, 0
        while True:
            value |= (data[at] & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if data[at - 1] < 0x80:
                return value

    stride, frames, rate = 1 << (data[6] & 7), varint(), varint()
    gains = data[at + 1 : at + 1 + data[at]]
    at += 1 + data[at]
    samples = (frames * 16_000 + rate - 1) // rate
    count = (samples + stride - 1) // stride
    order = [(c, start) for start in range(0, count, 2000) for c in range(len(gains)) if gains[c]]
    entries = []
    for _ in order:
        at += 1
        entries.append((data[at - 1], varint()))
        at += 4
    at += 4
    found: list[list[int]] = [[] for _ in gains]
    for (channel, start), (prior, size) in zip(order, entries, strict=True):
        payload, at = data[at : at + size], at + size
        assert prior == 1 and start == len(found[channel])
        words = [int.from_bytes(payload[n : n + 4], "little") for n in range(0, size, 4)] + [0, 0]
        low, span, point, next_word, mask = 0, 2**64 - 1, words[0] << 32 | words[1], 2, 2**64 - 1
        last = before = len(tables) - 1
        for _ in range(min(2000, count - start)):
            frequencies = [(int(entry) + 1) * 256 for entry in tables[last, before]]
            scale = span >> 24
            rest, code = ((point - low) & mask) // scale, 0
            while rest >= frequencies[code]:
                rest, code = rest - frequencies[code], code + 1
            found[channel].append(code)
            last, before = int(classes[code]), last
            low, span = (low + scale * sum(frequencies[:code])) & mask, scale * frequencies[code]
            if span < 2**32:
                word = words[next_word] if next_word < len(words) else 0
                low, span, point = low << 32 & mask, span << 32, (point << 32 | word) & mask
                next_word += 1
    assert at == len(data)
    return found


@pytest.mark.filterwarnings("ignore:3 channels, coded one by one")
def test_the_page_is_enough_to_read_audio(small_sound: str, codec: AudioVQVAE) -> None:
    """Two regions of each channel that is not silent; nothing of the package takes part."""
    samples = sing(8.3, 47_999, 3, seed=9)
    samples[:, 1] = 0
    encoded = pipeline.encode_file(Audio.of(samples, 47_999), pipeline.EncodeOptions(model=small_sound))
    found = read_by_the_page(encoded.data, codec.priors[STATIC].classes, codec.priors[STATIC].tables)
    assert found[1] == [] and len(found[0]) > SEGMENT
    assert found[0] == codes_in(encoded)[0].tolist() and found[2] == codes_in(encoded)[2].tolist()
