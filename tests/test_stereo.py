"""Two channels that are predicted from one: their cues, and what becomes of them."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cli_fakes import invoke
from coded import BLOCK, broken_in, decode_audio, salvaged
from conftest import sing
from hypothesis import given, settings
from hypothesis import strategies as st
from vqcodec import media, pipeline
from vqcodec.bitstream import container
from vqcodec.bitstream.geometry import AudioGeometry
from vqcodec.errors import DamagedError
from vqcodec.pipeline import sampling, tokens
from vqcodec.transform import stereo, stereo_analysis
from vqcodec.transform.stereo import MAX_DELAY, MAX_LEVEL, STEP, Cues

MODERATE = settings(derandomize=True, deadline=None, database=None)
FLAT = st.tuples(st.integers(-MAX_LEVEL, MAX_LEVEL))
BANDED = st.tuples(*[st.integers(-MAX_LEVEL, MAX_LEVEL)] * 8)
CUES = st.builds(Cues, st.integers(1, 10**6), st.integers(-MAX_DELAY, MAX_DELAY), FLAT | BANDED)


def voice(seconds: float, seed: int = 0) -> np.ndarray:
    """A voice that fades in and out, float32 [N]."""
    one = sing(seconds, seed=seed)[:, 0]
    fade = np.linspace(0, 1, 1000, dtype=np.float32)
    one[:1000] *= fade
    one[-1000:] *= fade[::-1]
    return one


def placed(one: np.ndarray, level_db: float, delay: int) -> np.ndarray:
    """Left and right of a talker, left so much louder and so many samples later."""
    left, right = (one * np.float32(10 ** (db / 40)) for db in (level_db, -level_db))
    return np.stack((np.roll(left, max(delay, 0)), np.roll(right, max(-delay, 0))))


def audio(signal: np.ndarray) -> media.Audio:
    return media.Audio(signal, 16_000, 16_000, signal.shape[1])


def mixed(signal: np.ndarray) -> stereo_analysis.Mixed:
    found = stereo_analysis.mix(signal)
    assert found is not None
    return found


@MODERATE
@given(st.lists(CUES, min_size=1, max_size=5), st.integers(0, STEP - 1))
def test_cues_come_back(cues: list[Cues], missing: int) -> None:
    samples = STEP * sum(cue.steps for cue in cues) - missing
    assert stereo.unpack(stereo.pack(cues), samples) == cues


@pytest.mark.parametrize(
    "box",
    [
        b"",
        b"\x03\x40\x01",
        b"\x03\x40\x02\x40\x40",
        b"\x03\x40\x00",
        b"\x02\x40\x01\x40",
        b"\x04\x40\x01\x40",
        b"\x00\x40\x01\x40\x03\x40\x01\x40",
        b"\x03\x40\x01\x40\x01",
        b"\x03\x81\x01\x40",
        b"\x03\x40\x01\x03",
        b"\x03\x40\x01\x7d",
        b"\x83\x00\x40\x01\x40",
        b"\xff\xff\xff\xff\x0f\x40\x01\x40",
        b"\x03\x40\x08" + b"\x40" * 7,
    ],
)
def test_cues_that_no_encoder_writes(box: bytes) -> None:
    assert stereo.unpack(b"\x03\x40\x01\x40", 3 * STEP)
    with pytest.raises(DamagedError):
        stereo.unpack(box, 3 * STEP)


@pytest.mark.parametrize(("level", "delay"), [(0, 0), (6, 0), (-20, 5), (3, -64)])
def test_level_and_delay_are_exact(level: int, delay: int) -> None:
    one = np.random.default_rng(0).normal(0, 0.1, 3 * STEP + 77).astype(np.float32)
    left, right = stereo.upmix(one, [Cues(4, delay, (level,))])
    ratio = 10 ** (level / 20)
    expected_right = one * np.sqrt(2 / (1 + ratio**2))
    late, early = (left, right) if delay > 0 else (right, left)
    gains = (ratio, 1) if delay > 0 else (1, ratio)
    assert np.abs(early - expected_right * gains[1]).max() < 1e-6
    shift = abs(delay)
    assert np.abs(late[shift:] - (expected_right * gains[0])[: len(one) - shift]).max() < 1e-6
    assert np.abs(late[:shift]).max(initial=0) < 1e-6


def test_bands_have_their_own_levels() -> None:
    time = np.arange(16_000)
    for band, level in enumerate(levels := (0, 6, -6, 12, -12, 3, -3, 9)):
        centre = (stereo.EDGES[band] + stereo.EDGES[band + 1] - 1) / 2
        tone = np.sin(2 * np.pi * centre * time / 512).astype(np.float32)
        left, right = (np.square(x[600:-600]).sum() for x in stereo.upmix(tone, [Cues(8, 0, levels)]))
        # Levels of bins around the tone are averaged by the window.
        assert 10 * np.log10(left / right) == pytest.approx(level, abs=0.7)


def test_samples_do_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    one = np.random.default_rng(0).normal(0, 0.1, 9 * STEP).astype(np.float32)
    cues = [Cues(2, 3, (4,)), Cues(3, -7, (1, 2, 3, 4, 5, 6, 7, 8)), Cues(4, 0, (-9,))]
    whole = stereo.upmix(one, cues)
    monkeypatch.setattr(stereo, "FRAMES_PER_BLOCK", 5)
    assert np.abs(stereo.upmix(one, cues) - whole).max() < 1e-6


@pytest.mark.parametrize(("level", "delay"), [(6, 0), (0, -5), (-12, 30), (20, 1)])
def test_one_talker_has_one_place(level: int, delay: int) -> None:
    signal = placed(voice(3), level, delay)
    found = mixed(signal)
    assert found.cues == [Cues(stereo.steps_of(48_000), delay, (level,))]
    assert found.is_near and found.error_db < 0.1
    inner = slice(600, -600)
    error = np.square((stereo.upmix(found.channel, found.cues) - signal)[:, inner]).sum(1)
    assert (error < 1e-2 * np.square(signal[:, inner]).sum(1)).all(), "levels are whole decibels"


def test_talkers_in_turn_have_a_place_each() -> None:
    turns = [(2.048, 6, 0), (1.536, -6, 10), (2.048, 6, 0)]
    parts = [placed(voice(s, n), level, delay) for n, (s, level, delay) in enumerate(turns)]
    found = mixed(np.concatenate(parts, 1))
    assert found.cues == [Cues(16, 0, (6,)), Cues(12, 10, (-6,)), Cues(16, 0, (6,))]
    assert found.is_near and len(stereo.pack(found.cues)) == 12


def test_what_differs_by_frequency_has_bands() -> None:
    """A head shadows high frequencies."""
    one = np.random.default_rng(0).normal(0, 0.1, 48_000).astype(np.float32)
    spectrum = np.fft.rfft(one)
    spectrum[len(spectrum) // 4 :] *= 0.25
    (cue,) = mixed(np.stack((one, np.fft.irfft(spectrum).astype(np.float32)))).cues
    assert cue.level_differences[:4] == (0,) * 4 and cue.level_differences[-2:] == (12, 12)


def test_true_stereo_is_not_predicted() -> None:
    a, b = voice(3, 1), voice(3, 2)
    for signal in ((a, b), (a, -a), (a + 0.5 * b, 0.5 * a + b), (a, 0.8 * a + 0.1 * b)):
        assert not mixed(np.stack(signal).astype(np.float32)).is_near
    # A guest at one side for a second, in a long talk.
    talk = placed(voice(20, 1), 6, 0)
    assert mixed(talk).is_near
    talk[1, -16_000:] += 0.5 * b[:16_000]
    assert not mixed(talk).is_near


def test_soft_stereo_after_a_loud_talker_is_not_predicted() -> None:
    """Soft segments are coded at a loudness of their own: what is in them is heard."""
    for decibels in (-20, -32, -40):
        soft = np.stack((voice(9, 2), voice(9, 3))) * np.float32(10 ** (decibels / 20))
        assert not mixed(np.concatenate((placed(voice(9, 1), 6, 0), soft), 1)).is_near


def test_what_has_nothing_in_common_is_not_predicted() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 48_000)).astype(np.float32)
    found = mixed(noise)
    assert found.diffuse > 0.45 and not found.is_near


def test_opposite_polarity_is_not_turned_over() -> None:
    one = voice(2)
    assert mixed(np.stack((one, one / 2))).is_near
    assert not mixed(np.stack((one, -one / 2))).is_near


def test_channels_shorter_than_a_step_are_not_mixed() -> None:
    one = placed(voice(1), 6, 3)
    assert stereo_analysis.mix(one[:, : STEP - 1]) is None and mixed(one[:, 2000 : 2000 + STEP])


def test_channels_that_are_not_mixed() -> None:
    one = voice(1)
    assert stereo_analysis.mix(np.stack((one, 0 * one))) is None
    assert stereo_analysis.mix(np.stack((one, 1e-6 * one))) is None, "silent"
    assert stereo_analysis.mix(np.stack((one, one * np.float32(1e30)))) is None


def test_mixing_and_prediction_take_little_memory() -> None:
    peaks = []
    for seconds in (20, 80):
        signal = np.tile(placed(voice(4), 6, 3), seconds // 4)
        tracemalloc.start()
        found = mixed(signal)
        stereo.upmix(found.channel, found.cues)
        peaks.append(tracemalloc.get_traced_memory()[1] - signal.nbytes * 3 // 2)
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 2**20, "but for the channel and the prediction themselves"


@pytest.fixture(scope="module")
def near_mono(small_sound: str) -> pipeline.Encoded:
    """A talker of 19 seconds, 6 dB louder at the left and 5 samples earlier."""
    return pipeline.encode_file(
        audio(placed(voice(19), 6, -5)), pipeline.EncodeOptions(model=small_sound, fast=True)
    )


def test_near_mono_costs_little_more_than_mono(small_sound: str, near_mono: pipeline.Encoded) -> None:
    assert isinstance(near_mono.geometry, AudioGeometry)
    assert near_mono.geometry.mid_side and near_mono.geometry.gains[1] == 0
    one = audio(voice(19)[None])
    alone = pipeline.encode_file(one, pipeline.EncodeOptions(model=small_sound, fast=True))
    assert len(near_mono.data) < 1.03 * len(alone.data)
    assert container.parse(near_mono.data).boxes["stereo"] == b"\x95\x01\x3b\x01\x46"
    left, right = decode_audio(near_mono.data, small_sound).signal
    level = 10 * np.log10(np.square(left).sum() / np.square(right).sum())
    assert level == pytest.approx(6, abs=0.01)
    assert np.abs(left[600:-605] / 10 ** (6 / 20) - right[605:-600]).max() < 1e-6, "5 samples"
    heard = pipeline.decode(near_mono.data, model=small_sound)
    assert isinstance(heard, media.Audio) and heard.samples.shape == (19 * 16_000, 2)


def test_damage(small_sound: str, near_mono: pipeline.Encoded) -> None:
    """Without cues both channels are the mid; a lost chunk is silent in both."""
    whole = decode_audio(near_mono.data, small_sound).signal
    stream = container.parse(near_mono.data)
    cut = replace(stream, boxes={"stereo": stream.boxes["stereo"][:-1]})
    with pytest.raises(DamagedError, match="damaged in box stereo"):
        pipeline.decode(container.pack(cut), model=small_sound)
    both, messages = salvaged(container.pack(cut), small_sound)
    assert messages == ["damaged in box stereo"]
    assert np.array_equal(*both.signal) and both.signal.any()
    lost, messages = salvaged(broken_in(near_mono.data, 1), small_sound)
    assert messages == ["damaged in chunk 2 of 3"]
    assert not lost.signal[:, BLOCK + 600 : 2 * BLOCK - 600].any()
    kept = slice(0, BLOCK - 6000)
    assert np.abs(lost.signal[:, kept] - whole[:, kept]).max() < 1e-5


def test_cues_of_channels_that_are_coded(small_sound: str, near_mono: pipeline.Encoded) -> None:
    stream = container.parse(near_mono.data)
    assert isinstance(stream.geometry, AudioGeometry)
    gains = stream.geometry.gains
    twice = [chunk for chunk in stream.chunks for _ in range(2)]
    for geometry, chunks in (
        (replace(stream.geometry, mid_side=False), stream.chunks),
        (replace(stream.geometry, gains=gains[:1], mid_side=False), stream.chunks),
        (replace(stream.geometry, gains=gains[:1] * 2), twice),
    ):
        data = container.pack(replace(stream, geometry=geometry, chunks=chunks))
        with pytest.raises(DamagedError, match="damaged in box stereo"):
            pipeline.decode(data, model=small_sound)
        assert salvaged(data, small_sound)[1] == ["damaged in box stereo"]


def test_sampling_keeps_places_and_loudness() -> None:
    """All of a file continued by nothing is the file as decoded."""
    data = pipeline.encode(audio(placed(voice(1), 6, 3)), model="vqvae-audio")
    assert "stereo" in container.parse(data).boxes
    (found,) = sampling.sample(continued=data, fraction=1.0)
    assert isinstance(found, media.Audio)
    assert np.array_equal(found.signal, pipeline.decode_audio(data).signal)


def test_tokens_are_those_of_both_channels(small_sound: str) -> None:
    both = tokens.tokenize(audio(placed(voice(2), 6, 3)), model=small_sound)
    alone = [tokens.tokenize(audio(one[None]), model=small_sound) for one in placed(voice(2), 6, 3)]
    assert np.array_equal(both.numpy(), np.concatenate([one.numpy() for one in alone]))


def test_info_tells(tmp_path: Path, near_mono: pipeline.Encoded) -> None:
    (tmp_path / "a.vqc").write_bytes(near_mono.data)
    lines = invoke("info", tmp_path / "a.vqc").stdout.splitlines()
    assert "stereo, both predicted from one coded channel 0:19.0" in lines[1]
    assert "stereo 5 B" in lines[2]
