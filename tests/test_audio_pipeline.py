"""Sounds -> codes -> bytes and back."""

from __future__ import annotations

import copy
import json
import math
import tracemalloc
import warnings
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from conftest import draw, sing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from make_hostile import FOLDER, hostile_to_decoders
from vqcodec import media, pipeline, weights
from vqcodec.bitstream import container, header
from vqcodec.bitstream.container import RAW, SEGMENT, STATIC, AudioGeometry, Bitstream, Chunk
from vqcodec.coding import chunks
from vqcodec.errors import (
    BitstreamError,
    DamagedError,
    DamageWarning,
    LimitError,
    MediaError,
    MediaWarning,
    ModelError,
    TargetError,
    UsageError,
    VersionError,
)
from vqcodec.media import Audio
from vqcodec.models import build, losses
from vqcodec.models.vqvae import AudioVQVAE, audio
from vqcodec.pipeline import encoding as streams
from vqcodec.priors import base
from vqcodec.transform import image as transform
from vqcodec.transform import loudness

pytestmark = pytest.mark.filterwarnings("ignore:[346] channels, coded one by one")

BITS = 4
BLOCK = SEGMENT * 64
"""Samples of a chunk, at 16 kHz: 8 seconds."""


@pytest.fixture(scope="session")
def codec(small_sound: str) -> AudioVQVAE:
    """The model of `small_sound`, which nobody may change."""
    return weights.load(small_sound, "cpu")


@pytest.fixture(scope="session")
def deep() -> AudioVQVAE:
    """A model as deep as the shipped one, and as untidy as chance makes it."""
    torch.manual_seed(3)
    settings_ = audio.Config(
        encoder_width=16, encoder_blocks=4, decoder_width=16, decoder_hidden=32, codes=64
    )
    model = build(settings_).eval().requires_grad_(False)
    with torch.no_grad():
        for name, tensor in model.decoder.named_parameters():
            if name.endswith("scale"):
                tensor.fill_(1)  # as far as the blocks reach at all, they shall be heard
        for name, tensor in model.encoder.named_parameters():
            if name.endswith("bias"):
                tensor.zero_()  # they would drown what the fresh weights hear
        heard = model.latents(torch.from_numpy(sing(1, seed=8)).t()[None, :, :15_936])
        model.quantizer.set_codebook(heard[0].t()[:: heard.shape[2] // 64][:64].contiguous())
    return model


@pytest.fixture(scope="session")
def stereo() -> Audio:
    """Two different channels of 19 seconds, so that each has three chunks, at 22.05 kHz."""
    samples = sing(19, 22_050, 2, seed=7)
    samples[:, 1] = np.roll(samples[::-1, 1], 3000)
    return Audio.of(samples, 22_050)


@pytest.fixture(scope="session")
def encoded(small_sound: str, stereo: Audio) -> pipeline.Encoded:
    """`stereo`, six chunks."""
    return pipeline.encode_file(stereo, pipeline.EncodeOptions(model=small_sound))


def codes_of(data: bytes, codec: AudioVQVAE) -> np.ndarray:
    return chunks.read(container.parse(data), codec)


def decode(data: bytes, model: str, **options: Any) -> Audio:
    decoded = pipeline.decode(data, model=model, **options)
    assert isinstance(decoded, Audio)
    return decoded


def salvaged(data: bytes, model: str) -> tuple[Audio, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sound = decode(data, model, salvage=True)
    assert all(warning.category is DamageWarning for warning in caught)
    return sound, [str(warning.message) for warning in caught]


# both ways


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize(
    ("frames", "rate"),
    [
        (1, 16_000),
        (2, 192_000),
        (64, 16_000),
        (65, 8_000),
        (16_000, 16_000),
        (23_999, 47_999),
        (9999, 44_100),
    ],
)
def test_round_trip(small_sound: str, codec: AudioVQVAE, frames: int, rate: int, channels: int) -> None:
    samples = sing(1.2, rate, channels, seed=1)[1000 : 1000 + frames]
    encoded = pipeline.encode_file(Audio.of(samples, rate), pipeline.EncodeOptions(model=small_sound))
    geometry = encoded.geometry
    assert isinstance(geometry, AudioGeometry)
    assert (geometry.frames, geometry.rate, geometry.channels) == (frames, rate, channels)
    assert encoded.codes.shape == geometry.grid
    assert np.array_equal(codes_of(encoded.data, codec), encoded.codes)
    sound = decode(encoded.data, small_sound)
    assert (sound.frames, sound.rate, sound.channels) == (frames, rate, channels)
    assert sound.samples.shape == (frames, channels)
    assert np.isfinite(sound.signal).all()
    assert np.array_equal(decode(encoded.data, small_sound).signal, sound.signal)
    info = pipeline.info(encoded.data)
    assert info.geometry == geometry and info.chunks == geometry.chunk_count
    assert encoded.bpp is None and encoded.kbps == info.kbps == len(encoded.data) / 125 / (frames / rate)


def test_files_of_every_format(small_sound: str, tmp_path: Path) -> None:
    """Rate, channels, number of samples, tags and the name of the format come back."""
    samples = sing(0.5, 48_000, 2)
    tags = {"title": "Stück", "artist": "x"}
    for suffix in ("wav", "flac", "ogg", "opus", "mp3", "aiff"):
        path = tmp_path / f"a.{suffix}"
        media.write_audio(replace(Audio.of(samples, 48_000), tags=tags), path)
        read = media.read_audio(path)
        data = pipeline.encode(path, model=small_sound)
        for source in (path.read_bytes(), read):
            assert pipeline.encode(source, model=small_sound) == data
        sound = decode(data, small_sound)
        assert sound.source == suffix.upper() and sound.tags == read.tags
        assert tags.items() <= sound.tags.items()
        assert (sound.frames, sound.rate, sound.channels) == (24_000, 48_000, 2)
        bare = pipeline.encode(path, model=small_sound, strip=["tags"])
        assert decode(bare, small_sound).tags == {} == decode(data, small_sound, strip=["all"]).tags
        assert len(bare) < len(data)
        sound.save(tmp_path / f"b.{suffix}")
        assert media.read_audio(tmp_path / f"b.{suffix}").tags == read.tags


def test_verify(small_sound: str, encoded: pipeline.Encoded) -> None:
    assert math.isfinite(pipeline.verify(encoded))
    for place in ((0, 0), (1, -1)):
        codes = encoded.codes.copy()
        codes[place] ^= 1
        with pytest.raises(DamagedError, match="does not decode to the codes"):
            pipeline.verify(replace(encoded, codes=codes))
    stream = container.parse(encoded.data)
    swapped = replace(stream, chunks=[stream.chunks[1], stream.chunks[0], *stream.chunks[2:]])
    with pytest.raises(DamagedError):
        pipeline.verify(replace(encoded, data=container.pack(swapped)))


# channels


def test_silent_channels_cost_nothing(small_sound: str) -> None:
    one = sing(1)
    silent = np.zeros_like(one)
    alone = pipeline.encode(Audio.of(one, 16_000), model=small_sound)
    among = pipeline.encode(Audio.of(np.hstack([silent, one, silent, silent]), 16_000), model=small_sound)
    assert len(among) == len(alone) + 3, "a byte each"
    assert container.parse(among).chunks == container.parse(alone).chunks
    sound = decode(among, small_sound)
    assert not sound.signal[[0, 2, 3]].any()
    assert np.array_equal(sound.signal[1], decode(alone, small_sound).signal[0])
    nothing = pipeline.encode_file(
        Audio.of(np.zeros((48_000, 2)), 48_000), pipeline.EncodeOptions(model=small_sound)
    )
    assert pipeline.info(nothing.data).chunks == 0 and len(nothing.data) <= 40
    assert nothing.estimate_bits == 0 and pipeline.verify(nothing) == math.inf
    sound = decode(nothing.data, small_sound)
    assert sound.samples.shape == (48_000, 2) and not sound.signal.any()


def test_identical_channels_cost_one(small_sound: str) -> None:
    one = sing(1)
    alone = pipeline.encode(Audio.of(one, 16_000), model=small_sound)
    both = pipeline.encode(Audio.of(np.hstack([one, one]), 16_000), model=small_sound)
    assert len(both) == len(alone) + 1
    assert container.parse(both).geometry.flag
    sound = decode(both, small_sound)
    assert np.array_equal(sound.signal[0], sound.signal[1])
    assert np.array_equal(sound.signal[0], decode(alone, small_sound).signal[0])


def test_channels_that_differ_by_what_nobody_hears_share_their_mean(small_sound: str) -> None:
    middle, side = sing(1, seed=1), 0.005 * sing(1, seed=2)
    together = pipeline.encode_file(
        Audio.of(np.hstack([middle + side, middle - side]), 16_000), pipeline.EncodeOptions(model=small_sound)
    )
    assert together.geometry.mid_side and together.geometry.gains[1] == 0
    alone = pipeline.encode_file(Audio.of(middle, 16_000), pipeline.EncodeOptions(model=small_sound))
    assert (together.codes[0] == alone.codes[0]).mean() > 0.97, "but for rounding"
    assert len(together.data) <= len(alone.data) + 20
    sound = decode(together.data, small_sound)
    assert np.array_equal(sound.signal[0], sound.signal[1]) and sound.signal.any()


def with_a_difference(small_sound: str, codec: AudioVQVAE) -> Bitstream:
    """Mid and side that both have codes: the format allows it, though no encoder here writes it."""
    signal = np.hstack([sing(1, seed=1), 0.1 * sing(1, seed=2)])
    stream = container.parse(pipeline.encode(Audio.of(signal, 16_000), model=small_sound))
    assert not stream.geometry.mid_side and 0 not in stream.geometry.gains
    return replace(stream, geometry=replace(stream.geometry, mid_side=True))


def test_mid_and_side(small_sound: str, codec: AudioVQVAE) -> None:
    stream = with_a_difference(small_sound, codec)
    sound = decode(container.pack(stream), small_sound)
    apart = decode(
        container.pack(replace(stream, geometry=replace(stream.geometry, mid_side=False))), small_sound
    )
    middle, side = apart.signal
    assert np.abs(sound.signal - np.stack([middle + side, middle - side])).max() < 1e-6


def test_channels_are_coded_one_by_one(small_sound: str, stereo: Audio, encoded: pipeline.Encoded) -> None:
    assert not encoded.geometry.mid_side
    for number in range(2):
        one = replace(stereo, signal=stereo.signal[number : number + 1])
        alone = pipeline.encode_file(one, pipeline.EncodeOptions(model=small_sound))
        assert np.array_equal(alone.codes[0], encoded.codes[number])
        stream = container.parse(encoded.data)
        assert container.parse(alone.data).chunks == stream.chunks[number::2], "time first, channels in turn"


def test_loudness_is_not_coded(small_sound: str, stereo: Audio, encoded: pipeline.Encoded) -> None:
    softer = pipeline.encode_file(
        replace(stereo, signal=stereo.signal / 10), pipeline.EncodeOptions(model=small_sound)
    )
    assert (softer.codes == encoded.codes).mean() > 0.97, "but for rounding"
    assert [a - b for a, b in zip(encoded.geometry.gains, softer.geometry.gains, strict=True)] == [40, 40]
    loud, soft = (decode(e.data, small_sound).signal for e in (encoded, softer))
    difference = np.square(loud - 10 * soft).mean() / np.square(loud).mean()
    assert difference < 0.02


# long sounds


def test_blocks_do_not_show_in_the_codes(codec: AudioVQVAE, deep: AudioVQVAE) -> None:
    """Where rounding decides between two codes, they are equally near."""
    signal = sing(6.01, seed=5)[:, 0]
    for model, least in ((codec, 0.8), (deep, 0.99)):
        whole = transform.analyse_signal(signal, model, longest=10**9)
        latents = model.latents(torch.from_numpy(np.pad(signal, (0, -len(signal) % 64)))[None, None])[0].t()
        distances = torch.cdist(latents.double(), model.quantizer.codebook.double()).square()
        assert len(np.unique(whole)) > 3
        for longest in (50, 333, SEGMENT):
            codes = transform.analyse_signal(signal, model, longest=longest)
            for at in np.flatnonzero(codes != whole):
                assert abs(distances[at, codes[at]] - distances[at, whole[at]]) < 2e-6
            assert (codes == whole).mean() > least, "the codes of the tiny model lie close together"


def test_blocks_do_not_show_in_the_sound(codec: AudioVQVAE, deep: AudioVQVAE) -> None:
    """Segments join without a click: what is decoded in pieces is what is decoded at once."""
    for model in (codec, deep):
        codes = np.random.default_rng(1).integers(0, model.config.codes, 1510, dtype=np.int32)
        count = 64 * 1510 - 13
        whole = transform.synthesise_signal(codes, model, count, longest=10**9)
        assert np.abs(whole).max() > 1e-3
        for longest in (50, 700, SEGMENT):
            pieces = transform.synthesise_signal(codes, model, count, longest=longest)
            assert np.abs(pieces - whole).max() <= 1e-4 * max(np.abs(whole).max(), 1)
            assert np.abs(np.diff(pieces) - np.diff(whole)).max() <= 1e-4 * max(np.abs(whole).max(), 1)


def test_a_halo_that_is_too_small_would_be_noticed(deep: AudioVQVAE, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = np.random.default_rng(1).integers(0, 64, 400, dtype=np.int32)
    whole = transform.synthesise_signal(codes, deep, 64 * 400, longest=10**9)
    monkeypatch.setattr(type(deep), "halo", property(lambda self: 4))
    assert np.abs(transform.synthesise_signal(codes, deep, 64 * 400, longest=50) - whole).max() > 1e-3


def test_memory_does_not_grow_with_the_sound(codec: AudioVQVAE) -> None:
    """But for the signal and the codes themselves."""
    peaks = []
    for seconds in (20, 80):
        signal = np.tile(sing(4)[:, 0], seconds // 4)
        tracemalloc.start()
        codes = transform.analyse_signal(signal, codec)
        transform.synthesise_signal(codes, codec, len(signal))
        peaks.append(tracemalloc.get_traced_memory()[1] - signal.nbytes)
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 2**20


def test_loudness_is_measured_in_little_memory() -> None:
    signal = np.zeros((2, 16_000 * 120), np.float32)
    signal[:, ::7] = 0.1
    tracemalloc.start()
    loudness.gain_of(signal[0])
    loudness.is_shared(signal)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_progress(small_sound: str, encoded: pipeline.Encoded, stereo: Audio) -> None:
    told: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        told.append((done, total))

    for work in (
        lambda: pipeline.encode(stereo, model=small_sound, progress=progress),
        lambda: pipeline.decode(encoded.data, model=small_sound, progress=progress),
    ):
        told.clear()
        work()
        assert told == [(n, 6) for n in range(1, 7)]


def test_codes_do_not_depend_on_threads(
    small_sound: str, codec: AudioVQVAE, encoded: pipeline.Encoded
) -> None:
    threads = torch.get_num_threads()
    sounds = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            assert np.array_equal(codes_of(encoded.data, codec), encoded.codes)
            sounds.append(decode(encoded.data, small_sound).signal)
    finally:
        torch.set_num_threads(threads)
    assert np.abs(sounds[0] - sounds[1]).max() < 1e-5
    spoilt = copy.deepcopy(codec)
    with torch.no_grad():
        for tensor in (*spoilt.parameters(), *spoilt.buffers()):
            tensor.fill_(torch.nan)
    assert np.array_equal(codes_of(encoded.data, spoilt), encoded.codes), "no float takes part"


# size


def raw_bytes(size: AudioGeometry) -> int:
    return sum(-(-BITS * (codes.stop - codes.start) // 8) for _, codes in size.places)  # type: ignore[union-attr]


def test_payload_is_what_the_tables_promise(encoded: pipeline.Encoded, codec: AudioVQVAE) -> None:
    info = pipeline.info(encoded.data)
    assert info.priors == {STATIC: 6}
    promised = encoded.estimate_bits / 8
    assert promised < info.code_bytes <= promised * 1.005 + 6 * 8
    assert info.code_bytes < raw_bytes(encoded.geometry)
    assert encoded.estimate_bits == pytest.approx(
        sum(base.cost_bits(codec.prior, [encoded.codes[place]]) for place in encoded.geometry.places)
    )


def test_each_chunk_by_what_is_smaller(
    small_sound: str,
    codec: AudioVQVAE,
    stereo: Audio,
    encoded: pipeline.Encoded,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rare = np.argsort(codec.prior.tables.sum((0, 1), dtype=np.int64))[:3]
    codes = encoded.codes.copy()
    codes[0, :SEGMENT] = np.random.default_rng(0).choice(rare, SEGMENT)
    rows = iter(codes)
    monkeypatch.setattr(streams, "analyse_signal", lambda *_, **__: next(rows))
    data = pipeline.encode(stereo, model=small_sound)
    stream = container.parse(data)
    assert [chunk.prior for chunk in stream.chunks if chunk] == [RAW, *[STATIC] * 5]
    assert len(stream.chunks[0].payload) == -(-BITS * SEGMENT // 8)
    assert stream.chunks[1:] == container.parse(encoded.data).chunks[1:]
    assert np.array_equal(codes_of(data, codec), codes)


@pytest.mark.parametrize("frames", [1, 64, 700, 16_000])
def test_never_larger_than_packing(small_sound: str, frames: int) -> None:
    samples = np.random.default_rng(frames).normal(0, 0.3, (frames, 2)).astype(np.float32)
    encoded = pipeline.encode_file(Audio.of(samples, 16_000), pipeline.EncodeOptions(model=small_sound))
    info = pipeline.info(encoded.data)
    assert len(encoded.data) <= info.header_bytes + raw_bytes(encoded.geometry)


def test_a_model_without_tables(codec: AudioVQVAE, tmp_path: Path) -> None:
    bare = copy.deepcopy(codec)
    bare.prior = None
    path = tmp_path / "bare.safetensors"
    weights.save(bare, codec.card, path)
    encoded = pipeline.encode_file(Audio.of(sing(0.3), 16_000), pipeline.EncodeOptions(model=path))
    assert 0 <= 8 * raw_bytes(encoded.geometry) - encoded.estimate_bits < 8
    info = pipeline.info(encoded.data)
    assert info.priors == {RAW: 1} and info.code_bytes == raw_bytes(encoded.geometry)
    assert decode(encoded.data, str(path)).frames == 4800


def read_by_the_page(data: bytes, classes: np.ndarray, tables: np.ndarray) -> list[list[int]]:
    """The codes of a sound without boxes, as FORMAT.md says, in Python's own integers."""
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
        low, span, point, place, mask = 0, 2**64 - 1, words[0] << 32 | words[1], 2, 2**64 - 1
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
                word = words[place] if place < len(words) else 0
                low, span, point = low << 32 & mask, span << 32, (point << 32 | word) & mask
                place += 1
    assert at == len(data)
    return found


def test_the_page_is_enough_to_read_a_sound(small_sound: str, codec: AudioVQVAE) -> None:
    """Two regions of each channel that is not silent; nothing of the package takes part."""
    samples = sing(8.3, 47_999, 3, seed=9)
    samples[:, 1] = 0
    encoded = pipeline.encode_file(Audio.of(samples, 47_999), pipeline.EncodeOptions(model=small_sound))
    found = read_by_the_page(encoded.data, codec.prior.classes, codec.prior.tables)
    assert found[1] == [] and len(found[0]) > SEGMENT
    assert found[0] == encoded.codes[0].tolist() and found[2] == encoded.codes[2].tolist()


# what is asked for


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"bpp": 1}, UsageError, "bpp means nothing for sounds"),
        ({"psnr": 30}, UsageError, "psnr means nothing for sounds"),
        ({"bitrate": 0.01}, TargetError, r"smallest is \d\.\d\d kbit/s, target 0\.01"),
        ({"target_size": 40}, TargetError, r"smallest is \d+ bytes, target 40"),
        ({"bitrate": 1, "target_size": 9}, UsageError, "exclude each other"),
        ({"bitrate": math.nan}, UsageError, "above zero"),
        ({"quality": 4}, UsageError, "no quality 4"),
        ({"strip": ["gps"]}, UsageError, "cannot strip gps"),
        ({"device": "tpu"}, UsageError, "unknown device"),
    ],
)
def test_what_cannot_be_had(
    small_sound: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        pipeline.encode(Audio.of(sing(0.3), 16_000), model=small_sound, **options)


def test_what_can_be_had(small_sound: str) -> None:
    sound = Audio.of(sing(0.3), 16_000)
    plain = pipeline.encode_file(sound, pipeline.EncodeOptions(model=small_sound))
    assert plain.kbps is not None
    for options in (
        {"quality": 3},
        {"bitrate": plain.kbps},
        {"target_size": len(plain.data)},
        {"effort": 0},
        {"fast": True},
        {"max_pixels": 1},
        {"strip": ["icc", "exif"]},
    ):
        assert pipeline.encode(sound, model=small_sound, **options) == plain.data
    with pytest.raises(TargetError):
        pipeline.encode(sound, model=small_sound, bitrate=plain.kbps * 0.999)


def test_effort_brings_sounds_nearer_and_decoders_do_not_care(
    small_sound: str, stereo: Audio, codec: AudioVQVAE
) -> None:
    """Chunk by chunk, channel by channel, by the model's own distortion."""
    distortions = []
    for effort in (1, 2):
        encoded = pipeline.encode_file(stereo, pipeline.EncodeOptions(model=small_sound, effort=effort))
        assert np.array_equal(codes_of(encoded.data, codec), encoded.codes)
        decoded = torch.from_numpy(pipeline.reconstruct(encoded).signal)[:, None]
        terms = losses.spectral(decoded, torch.from_numpy(encoded.original.signal)[:, None], codec.rate)
        distortions.append(float(codec.weighted(terms)))
    assert distortions[1] < 0.97 * distortions[0]


def whispered() -> Audio:
    """Two channels of 19 seconds; in the second one, 8 seconds are 30 dB softer than the rest."""
    samples = sing(19, 16_000, 2, seed=7)
    samples[BLOCK : 2 * BLOCK, 1] *= np.float32(10 ** (-30 / 20))
    return Audio.of(samples, 16_000)


def test_soft_passages_have_a_level(small_sound: str, codec: AudioVQVAE, encoded: pipeline.Encoded) -> None:
    """What the codec is given is about as loud everywhere, and what it gives is as soft as it was."""
    sound = whispered()
    found = pipeline.encode_file(sound, pipeline.EncodeOptions(model=small_sound))
    stream = container.parse(found.data)
    levels = stream.boxes["levels"]
    assert len(levels) == len(stream.chunks) == 6
    assert [number for number, level in enumerate(levels) if level] == [3]  # time goes first
    assert abs(levels[3] - 60) <= 2
    assert "levels" not in container.parse(encoded.data).boxes, "none where it is even"
    unlevelled = replace(stream, boxes={})
    ratio = np.square(decode(found.data, small_sound).signal).sum(1) / np.square(
        decode(container.pack(unlevelled), small_sound).signal
    ).sum(1)
    assert ratio[0] == 1 and ratio[1] < 1
    middle = slice(BLOCK + loudness.RAMP, 2 * BLOCK - loudness.RAMP)
    soft, as_loud = (
        decode(data, small_sound).signal[1, middle] for data in (found.data, container.pack(unlevelled))
    )
    assert np.abs(soft - as_loud * np.float32(10 ** (-levels[3] / 40))).max() < 1e-7
    # Far from the borders it is coded as the same passage would be, were it loud.
    even = sing(19, 16_000, 2, seed=7)
    codes = pipeline.encode_file(Audio.of(even, 16_000), pipeline.EncodeOptions(model=small_sound)).codes
    inner = slice(SEGMENT + 300, 2 * SEGMENT - 300)
    assert (found.codes[1, inner] == codes[1, inner]).mean() > 0.9


@pytest.mark.parametrize("levels", [b"\0" * 5, b"\0" * 7, b"\x14"])
def test_levels_of_other_chunks(small_sound: str, levels: bytes) -> None:
    stream = container.parse(pipeline.encode(whispered(), model=small_sound))
    data = container.pack(replace(stream, boxes={"levels": levels}))
    with pytest.raises(DamagedError, match=f"{len(levels)} levels for 6 chunks"):
        pipeline.decode(data, model=small_sound)
    sound, told = salvaged(data, small_sound)
    assert sound.frames == 19 * 16_000 and told == ["damaged in box levels"]


@pytest.mark.parametrize("count", [1, 64, 65, 1024, 1025])
def test_effort_with_short_sounds(small_sound: str, count: int) -> None:
    data = pipeline.encode(Audio.of(sing(0.1)[:count], 16_000), model=small_sound, effort=2)
    assert decode(data, small_sound).frames == count


def test_effort_where_gradients_are_off(small_sound: str) -> None:
    """Weights that were first loaded there are used elsewhere afterwards."""
    sound = Audio.of(sing(0.3), 16_000)
    weights._load.cache_clear()
    with torch.inference_mode():
        inside = pipeline.encode(sound, model=small_sound, effort=2)
        pixels = pipeline.encode(draw(32, 32), model="vqvae-image", effort=2)
    assert inside == pipeline.encode(sound, model=small_sound, effort=2)
    assert pixels == pipeline.encode(draw(32, 32), model="vqvae-image", effort=2)
    assert torch.is_grad_enabled()


def test_effort_with_goals_and_without_the_prior(small_sound: str) -> None:
    sound = Audio.of(sing(0.3), 16_000)
    plain = pipeline.encode(sound, model=small_sound, effort=2)
    assert pipeline.encode(sound, model=small_sound, effort=2, target_size=len(plain)) == plain
    with pytest.raises(TargetError) as caught:
        pipeline.encode(sound, model=small_sound, effort=2, target_size=len(plain) - 1)
    assert caught.value.hint == "a larger target, or --effort 1"
    fast = pipeline.encode(sound, model=small_sound, effort=2, fast=True)
    assert decode(fast, small_sound).frames == sound.frames


def test_models_of_the_other_medium(small: str, small_sound: str, codec: AudioVQVAE) -> None:
    with pytest.raises(UsageError, match="is for pictures, not for sounds"):
        pipeline.encode(Audio.of(sing(0.1), 16_000), model=small)
    with pytest.raises(UsageError, match="is for sounds, not for pictures"):
        pipeline.encode(draw(20, 10), model=small_sound)
    with pytest.raises(UsageError, match="bitrate means nothing for pictures"):
        pipeline.encode(draw(20, 10), model=small, bitrate=5)
    stream = container.parse(pipeline.encode(Audio.of(sing(0.1), 16_000), model=small_sound))
    other = weights.load(small, "cpu")
    confused = replace(stream, model=other.card["name"], fingerprint=bytes.fromhex(other.card["fingerprint"]))
    with pytest.raises(DamagedError, match="claims sounds, .* is for pictures"):
        pipeline.decode(container.pack(confused), model=small)
    with pytest.raises(ModelError, match="needs model"):
        pipeline.decode(container.pack(stream), model=small)


def test_another_stride_or_settings(small_sound: str) -> None:
    stream = container.parse(pipeline.encode(Audio.of(sing(0.1), 16_000), model=small_sound))
    wide = replace(stream.geometry, stride=128)
    with pytest.raises(DamagedError, match="header claims stride 128"):
        pipeline.decode(container.pack(replace(stream, geometry=wide)), model=small_sound)
    with pytest.raises(VersionError, match="settings"):
        pipeline.decode(container.pack(replace(stream, settings=b"\1")), model=small_sound)


# what a careless or hostile world brings


@pytest.mark.parametrize(
    "signal",
    [
        np.full(5000, 1.0),
        np.full(5000, -0.3),
        np.full(1, 0.5),
        np.full(1, -1.0),
        np.full(2, 1e-7),
        np.tile([1.0, -1.0], 2000),
        np.clip(5 * np.sin(np.arange(8000) / 9), -1, 1),
        np.eye(1, 9000, 4000)[0],
        np.sin(np.arange(8000) / 9) * 1000,
        np.sin(np.arange(8000) / 9) * 1e-4,
        np.linspace(-1, 1, 7000),
        np.random.default_rng(0).normal(0, 1, 5000),
    ],
    ids=[
        *("full-scale", "constant", "one-sample", "minus-one", "nearly-silent", "highest-tone", "clipped"),
        *("click", "far-too-loud", "very-soft", "ramp", "noise"),
    ],
)
def test_strange_signals(small_sound: str, signal: np.ndarray) -> None:
    for channels in (1, 2):
        samples = np.repeat(signal[:, None], channels, 1)
        encoded = pipeline.encode_file(Audio.of(samples, 16_000), pipeline.EncodeOptions(model=small_sound))
        sound = pipeline.reconstruct(encoded)
        assert isinstance(sound, Audio)
        assert sound.signal.shape == (channels, len(signal)) and np.isfinite(sound.signal).all()
        assert not math.isnan(pipeline.verify(encoded))
        peak = np.abs(signal).max()
        assert np.abs(sound.signal).max() < 100 * peak + 1e-3


@pytest.mark.parametrize("what", ["nan", "text", "empty", "cut", "slow"])
def test_what_is_no_sound(small_sound: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    samples = sing(0.3)
    if what == "nan":
        samples[-1] = np.nan
    soundfile.write(path, samples, 4_000 if what == "slow" else 16_000, "FLOAT")
    content = {"text": b"some words", "empty": b"", "cut": path.read_bytes()[:-100]}.get(what)
    if content is not None:
        path.write_bytes(content)
    message = {
        "nan": "NaN samples",
        "text": "not an image or audio file",
        "empty": "empty file",
        "cut": "truncated: 4775 of 4800 frames",
        "slow": "4,000 samples a second",
    }[what]
    with pytest.raises(MediaError, match=message):
        pipeline.encode(path, model=small_sound)


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
    assert message in caught.value.message and caught.value.hint == "--max-seconds"
    assert peak < 2**20
    assert pipeline.info(content).chunks == 0


def test_the_limit_of_length_counts_channels(small_sound: str) -> None:
    data = pipeline.encode(Audio.of(sing(1, channels=3), 16_000), model=small_sound)
    assert decode(data, small_sound, max_seconds=3).channels == 3
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
        decode(container.pack(replace(stream, geometry=size)), small_sound)


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
    assert caught.value.hint == "--salvage"
    sound, messages = salvaged(data, small_sound)
    assert messages == ["damaged in box tags"] and sound.tags == {}


# damage


@pytest.mark.parametrize("broken", range(6))
def test_a_damaged_chunk_is_silent_alone(
    small_sound: str, codec: AudioVQVAE, encoded: pipeline.Encoded, broken: int
) -> None:
    head, at = header.read_header(encoded.data)
    at += sum(chunk.size for chunk in head.chunks[:broken]) + head.chunks[broken].size // 2
    damaged = bytearray(encoded.data)
    damaged[at] ^= 16
    message = f"damaged in chunk {broken + 1} of 6"
    with pytest.raises(DamagedError, match=message) as caught:
        pipeline.decode(bytes(damaged), model=small_sound)
    assert caught.value.hint == "--salvage"
    sound, messages = salvaged(bytes(damaged), small_sound)
    assert messages == [message]
    whole = decode(encoded.data, small_sound).signal
    channel, part = list(encoded.geometry.places)[broken]
    start, stop = part.start * 64, part.stop * 64  # type: ignore[union-attr]
    assert not sound.signal[channel, start:stop].any(), "silent"
    assert np.array_equal(sound.signal[1 - channel], whole[1 - channel])
    reach = codec.halo * 64
    near = np.abs(sound.signal[channel] - whole[channel])
    assert near[: max(start - reach, 0)].max(initial=0) < 1e-5
    assert near[stop + reach :].max(initial=0) < 1e-5


def test_half_a_shared_sound_is_better_than_none(small_sound: str, codec: AudioVQVAE) -> None:
    data = container.pack(with_a_difference(small_sound, codec))
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
    sound, messages = salvaged(lying, small_sound)
    assert messages == ["damaged in chunk 4 of 6"]
    assert not sound.signal[1, BLOCK : 2 * BLOCK].any()
    assert np.array_equal(sound.signal[0], decode(encoded.data, small_sound).signal[0])
    later = container.pack(replace(stream, chunks=[Chunk(7, b"learned"), *stream.chunks[1:]]))
    with pytest.raises(ModelError, match="chunk 1 is coded by a prior"):
        pipeline.decode(later, model=small_sound)


def test_salvage_of_a_cut_file(small_sound: str, encoded: pipeline.Encoded) -> None:
    head, size = header.read_header(encoded.data)
    cut = encoded.data[: size + head.chunks[0].size + head.chunks[1].size + 3]
    with pytest.raises(DamagedError, match=f"truncated: {len(cut)} of {len(encoded.data)} bytes"):
        pipeline.decode(cut, model=small_sound)
    sound, messages = salvaged(cut, small_sound)
    assert messages[1:] == [f"damaged in chunk {n} of 6" for n in (3, 4, 5, 6)]
    assert sound.frames == encoded.geometry.frames
    assert not sound.signal[:, BLOCK:].any()
    whole = decode(encoded.data, small_sound).signal
    assert np.abs(sound.signal - whole)[:, : BLOCK - 2000].max() < 1e-5
    good, messages = salvaged(encoded.data, small_sound)
    assert messages == [] and np.array_equal(good.signal, whole)


def test_every_flipped_bit_is_noticed(small_sound: str) -> None:
    sound = replace(Audio.of(sing(0.5, channels=2), 16_000), tags={"title": "x"}, source="FLAC")
    data = pipeline.encode(sound, model=small_sound)
    assert len(data) < 300
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BitstreamError):
            pipeline.decode(bytes(flipped), model=small_sound)
    for size in range(len(data)):
        with pytest.raises(BitstreamError):
            pipeline.decode(data[:size], model=small_sound)


# fuzz

FUZZ = settings(derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
SECONDS = 3.0


@pytest.fixture(scope="session")
def corpus(small_sound: str) -> list[bytes]:
    one = sing(0.2, seed=4)
    sounds = [
        Audio.of(one, 16_000),
        replace(Audio.of(sing(0.1, 44_100, 2), 44_100), tags={"title": "Stück"}, source="WAV"),
        Audio.of(np.hstack([one, 0.9 * one]), 16_000),
        Audio.of(np.hstack([one, 0 * one, one[::-1]]), 16_000),
        Audio.of(np.random.default_rng(0).normal(0, 0.2, 900), 47_999),
    ]
    return [pipeline.encode(sound, model=small_sound) for sound in sounds]


def mutate(data: bytes, draw_: st.DrawFn, others: list[bytes]) -> bytes:
    out = bytearray(data)
    for _ in range(draw_(st.integers(1, 4))):
        kind = draw_(st.sampled_from(["flip", "flip", "set", "cut", "insert", "delete", "splice"]))
        at = min(draw_(st.integers(0, max(len(out) - 1, 0)) | st.integers(0, 40)), len(out))
        if kind == "flip" and at < len(out):
            out[at] ^= 1 << draw_(st.integers(0, 7))
        elif kind == "set" and at < len(out):
            out[at] = draw_(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
        elif kind == "cut":
            del out[at:]
        elif kind == "insert":
            out[at:at] = draw_(st.binary(min_size=1, max_size=8))
        elif kind == "delete":
            del out[at : at + draw_(st.integers(1, 8))]
        elif kind == "splice":
            other = draw_(st.sampled_from(others))
            out[at:] = other[draw_(st.integers(0, len(other))) :]
    return bytes(out)


def end_well(data: bytes, model: str, salvage: bool) -> Audio | None:
    """The sound, or None after an error of ours; everything else, warnings included, comes through."""
    with warnings.catch_warnings():
        if salvage:
            warnings.simplefilter("ignore", DamageWarning)
        try:
            sound = pipeline.decode(data, model=model, salvage=salvage, max_seconds=SECONDS)
        except (BitstreamError, ModelError) as error:
            assert error.message
            return None
    assert isinstance(sound, Audio) and isinstance(size := container.read_info(data).geometry, AudioGeometry)
    assert (sound.channels, sound.frames, sound.rate) == (size.channels, size.frames, size.rate)
    assert np.isfinite(sound.signal).all()
    return sound


@settings(FUZZ, max_examples=500)
@given(st.data())
def test_mutated_files_end_well(small_sound: str, corpus: list[bytes], data: st.DataObject) -> None:
    mutated = mutate(data.draw(st.sampled_from(corpus)), data.draw, corpus)
    salvage = data.draw(st.booleans())
    sound = end_well(mutated, small_sound, salvage)
    assert sound is None or salvage or mutated in corpus


@settings(FUZZ, max_examples=400)
@given(st.data())
def test_headers_that_lie_with_valid_checksums_end_well(
    small_sound: str, corpus: list[bytes], data: st.DataObject
) -> None:
    original = data.draw(st.sampled_from(corpus))
    size = container.read_info(original).header_bytes
    start = data.draw(st.sampled_from([0, 20, size - 25]))
    part = mutate(original[start : size - 4], data.draw, [original[:size]])
    lying = original[:start] + part
    signed = lying + zlib.crc32(lying).to_bytes(4, "little")
    end_well(signed + original[size:], small_sound, data.draw(st.booleans()))


def test_content_that_lies_with_valid_checksums_ends_well(small_sound: str, corpus: list[bytes]) -> None:
    bitstreams: list[Bitstream] = [container.parse(original) for original in corpus]
    payloads = [chunk.payload for other in bitstreams for chunk in other.chunks if chunk]
    believed: list[bool] = []

    @settings(FUZZ, max_examples=300)
    @given(st.data())
    def lie(data: st.DataObject) -> None:
        stream = data.draw(st.sampled_from(bitstreams))
        geometry = stream.geometry
        if data.draw(st.booleans()):
            gains = data.draw(st.lists(st.sampled_from([0, 1, 150, 255]), min_size=1, max_size=3))
            geometry = AudioGeometry(
                data.draw(st.integers(1, 9000)),
                data.draw(st.sampled_from([1, 7_999, 16_000, 47_999, 2**20])),
                bytes(gains),
                len(gains) == 2 and data.draw(st.booleans()),
            )
        if geometry.chunk_count > 100:
            return
        chunks: list[Chunk | None] = []
        for number in range(geometry.chunk_count):
            chunk = stream.chunks[number % len(stream.chunks)]
            assert chunk is not None
            payload, prior = chunk.payload, chunk.prior
            if data.draw(st.booleans()):
                payload = mutate(payload, data.draw, payloads)
            if data.draw(st.integers(0, 5)) == 0:
                prior = data.draw(st.sampled_from([RAW, STATIC, 2, 255]))
            chunks.append(Chunk(prior, payload))
        boxes = {name: mutate(box, data.draw, [b"{}"]) for name, box in stream.boxes.items()}
        lying = container.pack(replace(stream, geometry=geometry, chunks=chunks, boxes=boxes))
        believed.append(end_well(lying, small_sound, data.draw(st.booleans())) is not None)

    lie()
    assert 0.1 < np.mean(believed) < 0.95, "both of what stands behind the checksums was seen"
