"""Audio -> symbols -> bytes and back."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from coded import codes_in, codes_of, decode_audio, long_audio, stereo
from conftest import draw, sing
from vqcodec import media, pipeline, weights
from vqcodec.bitstream import container
from vqcodec.bitstream.container import AudioGeometry
from vqcodec.errors import DamagedError, MediaError, ModelError, TargetError, UsageError
from vqcodec.media import Audio
from vqcodec.media.tag_names import first_values
from vqcodec.models.vqvae import AudioVQVAE

pytestmark = pytest.mark.filterwarnings("ignore:[346] channels, coded one by one")


@pytest.fixture(scope="module")
def codec(small_sound: str) -> AudioVQVAE:
    """The model of `small_sound`, which nobody may change."""
    return weights.load(small_sound, "cpu")


@pytest.fixture(scope="module")
def encoded(small_sound: str) -> pipeline.Encoded:
    """Two channels of 19 seconds, six chunks."""
    return long_audio(small_sound)


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
    assert codes_in(encoded).shape == geometry.grid(64)
    assert np.array_equal(codes_of(encoded.data, codec), codes_in(encoded))
    audio = decode_audio(encoded.data, small_sound)
    assert (audio.frames, audio.rate, audio.channels) == (frames, rate, channels)
    assert audio.samples.shape == (frames, channels)
    assert np.isfinite(audio.signal).all()
    assert np.array_equal(decode_audio(encoded.data, small_sound).signal, audio.signal)
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
        audio = decode_audio(data, small_sound)
        assert audio.source == suffix.upper() and audio.tags == read.tags
        assert tags.items() <= first_values(audio.tags).items()
        assert (audio.frames, audio.rate, audio.channels) == (24_000, 48_000, 2)
        bare = pipeline.encode(path, model=small_sound, strip=["tags"])
        assert (
            decode_audio(bare, small_sound).tags == {} == decode_audio(data, small_sound, strip=["all"]).tags
        )
        assert len(bare) < len(data)
        audio.save(tmp_path / f"b.{suffix}")
        assert media.read_audio(tmp_path / f"b.{suffix}").tags == read.tags


def test_verify(small_sound: str, encoded: pipeline.Encoded) -> None:
    assert math.isfinite(pipeline.verify(encoded))
    for position in ((0, 0), (1, -1)):
        codes = codes_in(encoded).copy()
        codes[position] ^= 1
        with pytest.raises(DamagedError, match="does not decode to the encoded symbols"):
            pipeline.verify(replace(encoded, symbols={"codes": codes}))
    stream = container.parse(encoded.data)
    swapped = replace(stream, chunks=[stream.chunks[1], stream.chunks[0], *stream.chunks[2:]])
    with pytest.raises(DamagedError):
        pipeline.verify(replace(encoded, data=container.pack(swapped)))


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
        audio = pipeline.reconstruct(encoded)
        assert isinstance(audio, Audio)
        assert audio.signal.shape == (channels, len(signal)) and np.isfinite(audio.signal).all()
        assert not math.isnan(pipeline.verify(encoded))
        peak = np.abs(signal).max()
        assert np.abs(audio.signal).max() < 100 * peak + 1e-3


@pytest.mark.parametrize("what", ["nan", "text", "empty", "cut", "slow"])
def test_what_is_no_audio(small_sound: str, what: str, tmp_path: Path) -> None:
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


def test_models_of_the_other_medium(small: str, small_sound: str, codec: AudioVQVAE) -> None:
    with pytest.raises(UsageError, match="is for images, not for audio"):
        pipeline.encode(Audio.of(sing(0.1), 16_000), model=small)
    with pytest.raises(UsageError, match="is for audio, not for images"):
        pipeline.encode(draw(20, 10), model=small_sound)
    with pytest.raises(UsageError, match="bitrate does not apply to images"):
        pipeline.encode(draw(20, 10), model=small, bitrate=5)
    stream = container.parse(pipeline.encode(Audio.of(sing(0.1), 16_000), model=small_sound))
    other = weights.load(small, "cpu")
    confused = replace(stream, model=other.card.name, fingerprint=bytes.fromhex(other.card.fingerprint))
    with pytest.raises(DamagedError, match="claims audio, .* is for image"):
        pipeline.decode(container.pack(confused), model=small)
    with pytest.raises(ModelError, match="needs model"):
        pipeline.decode(container.pack(stream), model=small)


def test_progress(small_sound: str, encoded: pipeline.Encoded) -> None:
    calls: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        calls.append((done, total))

    for work in (
        lambda: pipeline.encode(stereo(), model=small_sound, progress=progress),
        lambda: pipeline.decode(encoded.data, model=small_sound, progress=progress),
    ):
        calls.clear()
        work()
        assert calls == [(n, 6) for n in range(1, 7)]


# the search for codes


def test_effort_brings_audio_nearer_and_decoders_do_not_care(small_sound: str, codec: AudioVQVAE) -> None:
    """Chunk by chunk, channel by channel, by the model's own distortion."""
    distortions = []
    for effort in (1, 2):
        encoded = pipeline.encode_file(stereo(), pipeline.EncodeOptions(model=small_sound, effort=effort))
        assert np.array_equal(codes_of(encoded.data, codec), codes_in(encoded))
        decoded = torch.from_numpy(pipeline.reconstruct(encoded).signal)[:, None]
        samples = torch.from_numpy(encoded.original.signal)[:, None]
        distortions.append(float(codec.spectral_distance(decoded, samples)))
    assert distortions[1] < 0.97 * distortions[0]


@pytest.mark.parametrize("count", [1, 64, 65, 1024, 1025])
def test_effort_with_short_audio(small_sound: str, count: int) -> None:
    data = pipeline.encode(Audio.of(sing(0.1)[:count], 16_000), model=small_sound, effort=2)
    assert decode_audio(data, small_sound).frames == count


def test_effort_where_gradients_are_off(small_sound: str) -> None:
    """Weights that were first loaded there are used elsewhere afterwards."""
    audio = Audio.of(sing(0.3), 16_000)
    weights._load.cache_clear()
    with torch.inference_mode():
        inside = pipeline.encode(audio, model=small_sound, effort=2)
        pixels = pipeline.encode(draw(32, 32), model="vqvae-image", effort=2)
    assert inside == pipeline.encode(audio, model=small_sound, effort=2)
    assert pixels == pipeline.encode(draw(32, 32), model="vqvae-image", effort=2)
    assert torch.is_grad_enabled()


def test_effort_with_targets_and_without_the_prior(small_sound: str) -> None:
    audio = Audio.of(sing(0.3), 16_000)
    plain = pipeline.encode(audio, model=small_sound, effort=2)
    assert pipeline.encode(audio, model=small_sound, effort=2, target_size=len(plain)) == plain
    with pytest.raises(TargetError) as caught:
        pipeline.encode(audio, model=small_sound, effort=2, target_size=len(plain) - 1)
    assert caught.value.hint == "give a larger target, or --effort 1"
    fast = pipeline.encode(audio, model=small_sound, effort=2, fast=True)
    assert decode_audio(fast, small_sound).frames == audio.frames
