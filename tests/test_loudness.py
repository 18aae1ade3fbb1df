from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vqcodec.transform import loudness
from vqcodec.transform.loudness import (
    INSIDE_DB,
    NEUTRAL,
    RAMP,
    WINDOW,
    Loudness,
    factor_of,
    gain_of,
    is_mono,
    loudness_of,
    to_left_right,
)

MODERATE = settings(derandomize=True, deadline=None, database=None)


def noise(rms: float, count: int = 5 * WINDOW, seed: int = 0) -> np.ndarray:
    """White noise of exactly this RMS, float32 [count]."""
    samples = np.random.default_rng(seed).normal(0, 1, count)
    return (samples * rms / np.sqrt(np.square(samples).mean())).astype(np.float32)


@MODERATE
@given(st.floats(-95, 30), st.integers(0, 9))
def test_a_channel_comes_to_the_inside_loudness(level_db: float, seed: int) -> None:
    """To half a step of half a decibel; windows of noise differ by a little more."""
    channel = noise(10 ** (level_db / 20), WINDOW, seed)
    gain = gain_of(channel)
    assert 1 <= gain <= 255
    inside = channel / factor_of(gain)
    if gain < 255:
        assert 20 * np.log10(np.sqrt(np.square(inside).mean())) == pytest.approx(INSIDE_DB, abs=0.2501)


def test_gain_is_a_half_decibel_scale() -> None:
    assert factor_of(NEUTRAL) == 1
    assert factor_of(NEUTRAL + 40) == pytest.approx(10)
    assert factor_of(NEUTRAL - 40) == pytest.approx(0.1)
    assert factor_of(NEUTRAL + 1) == pytest.approx(10 ** (0.5 / 20))
    assert factor_of(0) == 0
    assert gain_of(noise(10 ** (INSIDE_DB / 20))) == NEUTRAL
    for step in range(-100, 60):
        assert gain_of(noise(10 ** ((INSIDE_DB + step / 2) / 20))) == NEUTRAL + step


def test_silence() -> None:
    assert gain_of(np.zeros(100_000, np.float32)) == 0
    assert gain_of(np.zeros(1, np.float32)) == 0
    assert gain_of(noise(0.9e-5)) == 0
    assert gain_of(noise(1.2e-5)) > 0
    # One bit of 16 in dithered silence can be heard still.
    assert gain_of(np.tile(np.float32([0, 1 / 32768]), 50_000)) > 0
    assert gain_of(np.full(1000, 1e-30, np.float32)) == 0


def test_very_loud_and_constant_channels() -> None:
    assert gain_of(np.full(10_000, 1, np.float32)) == NEUTRAL - round(2 * INSIDE_DB)
    assert gain_of(np.full(10_000, 1e4, np.float32)) == 255
    assert gain_of(np.full(10_000, 1e30, np.float32)) == 255, "no overflow"
    assert gain_of(np.full(1, 1, np.float32)) == NEUTRAL - round(2 * INSIDE_DB)


def test_pauses_do_not_count() -> None:
    speech = noise(0.05)
    alone = gain_of(speech)
    for pause in (np.zeros(40 * WINDOW, np.float32), noise(0.0005, 40 * WINDOW)):
        assert abs(gain_of(np.concatenate((pause, speech))) - alone) <= 1
    assert gain_of(np.concatenate((noise(0.025), speech))) < alone, "softer speech is no pause"


def test_a_click_in_silence() -> None:
    channel = np.zeros(100_000, np.float32)
    channel[50_000] = 1
    gain = gain_of(channel)
    assert gain > 0
    window = 100_000 / np.ceil(100_000 / WINDOW)
    assert 10 * np.log10(1 / window) - INSIDE_DB == pytest.approx((gain - NEUTRAL) / 2, abs=0.3)


@pytest.mark.parametrize("extra", [1, 2, 100, WINDOW - 1])
def test_the_last_samples_count_no_more_than_others(extra: int) -> None:
    """A peak in a last window of one sample would make everything else a pause."""
    channel = noise(0.01, 10 * WINDOW + extra)
    channel[-1] = 0.9
    assert abs(gain_of(channel) - gain_of(noise(0.01))) <= 10
    assert gain_of(channel) < gain_of(noise(0.1))


def test_softer_and_louder_is_the_same_inside() -> None:
    channel = noise(0.1)
    assert gain_of(channel) - gain_of(channel * np.float32(0.1)) == 40
    assert gain_of(-channel) == gain_of(channel)


def test_which_channels_are_one() -> None:
    left, other = noise(0.1), noise(0.1, seed=1)
    assert is_mono(np.stack((left, left)))
    assert is_mono(np.stack((left, left + other * np.float32(0.01))))
    assert not is_mono(np.stack((left, left + other * np.float32(0.1))))
    assert not is_mono(np.stack((left, other)))
    assert not is_mono(np.stack((left, -left)))
    assert not is_mono(np.stack((left, np.zeros_like(left))))
    assert not is_mono(np.zeros((2, 1000), np.float32))
    for share, mono in ((0.98, True), (1.02, False)):
        side = left * np.float32((loudness.SHARED * share) ** 0.5)
        assert is_mono(np.stack((left + side, left - side))) is mono


def test_mean_and_half_the_difference_are_left_and_right_again() -> None:
    signal = np.stack((noise(0.3), noise(0.2, seed=1)))
    middle, side = signal.mean(0), (signal[0] - signal[1]) / 2
    again = to_left_right(np.stack((middle, side)))
    assert again.dtype == np.float32
    assert np.abs(again - signal).max() < 1e-7
    one = to_left_right(np.stack((middle, 0 * middle)))
    assert np.array_equal(one, np.stack((middle, middle)))


def test_a_click_is_not_the_loudness_of_a_talk() -> None:
    talk = noise(0.001, 40 * WINDOW)
    clicked = talk.copy()
    clicked[100:103] = 0.9
    assert abs(gain_of(clicked) - gain_of(talk)) <= 1


def test_a_guest_in_one_channel_is_not_lost() -> None:
    long = noise(0.05, 200 * WINDOW)
    stereo = np.stack((long, long))
    assert is_mono(stereo)
    stereo[0, -2 * WINDOW :] += np.resize(noise(0.003, seed=1), 2 * WINDOW)
    assert not is_mono(stereo), "24 dB softer, for a moment"


def test_segments_that_are_softer() -> None:
    loud = noise(0.1)
    segment = len(loud)
    softer = [
        loud,
        loud * np.float32(10 ** (-20 / 20)),
        loud * np.float32(10 ** (-45 / 20)),
        np.zeros_like(loud),
        loud,
    ]
    heard = loudness_of(np.concatenate(softer), segment)
    assert heard.gain == gain_of(np.concatenate(softer))
    step = heard.gain - gain_of(softer[1])
    assert step == pytest.approx(40 - 3, abs=1)
    assert heard.levels == bytes((0, step, 60, 0, 0)), "at most 30 dB; what is silent stays"
    assert loudness_of(np.concatenate((loud, loud * np.float32(0.6))), segment).levels == b""
    assert loudness_of(loud[:1000], segment).levels == loudness_of(np.zeros(3, np.float32), 2).levels == b""


def test_factors_along_a_channel() -> None:
    """Half decibels; straight lines between segments."""
    even = Loudness(NEUTRAL - 40)
    assert even.factors(5, 9) == pytest.approx(0.1)
    heard = Loudness(NEUTRAL, bytes((0, 40, 20)), 4000)
    factors = heard.factors(0, 12_000)
    assert factors.shape == (12_000,)
    decibels = 20 * np.log10(factors)
    half = RAMP // 2
    assert np.abs(decibels[: 4000 - half]).max() < 1e-9
    assert np.abs(decibels[4000 + half : 8000 - half] + 20).max() < 1e-9
    assert np.abs(decibels[8000 + half :] + 10).max() < 1e-9
    assert decibels[4000] == pytest.approx(-10) and decibels[8000] == pytest.approx(-15)
    assert np.abs(np.diff(decibels)).max() < 20 / RAMP + 1e-9
    assert np.array_equal(heard.factors(3900, 8100), factors[3900:8100]), "whatever is asked for"
    assert np.array_equal(Loudness(NEUTRAL, bytes((40,)), 4000).factors(0, 2), [0.1, 0.1])


@pytest.mark.parametrize("steps", [11, 12, 13, 60, 61])
def test_levels_begin_where_a_segment_is_softer_by_six_decibels(
    monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    gains = iter((200, 200, 200 - steps))
    monkeypatch.setattr(loudness, "gain_of", lambda _: next(gains))
    levels = loudness.loudness_of(np.zeros(20, np.float32), 10).levels
    assert levels == (b"" if steps < 12 else bytes((0, min(steps, 60))))
