"""What lies below speech is filtered out before a model sees it."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import vqcodec
from conftest import sing
from vqcodec import media, pipeline
from vqcodec.errors import FidelityWarning
from vqcodec.transform.highpass import BLOCK, CUTOFF, HALF, high_pass


def tone(hertz: float, count: int = 32_000, loudness: float = 0.1) -> np.ndarray:
    return (loudness * np.sin(2 * np.pi * hertz * np.arange(count) / 16_000)).astype(np.float32)


@pytest.mark.parametrize(
    ("hertz", "decibels"), [(32, -16.8), (CUTOFF, -6.0), (48, -1.8), (64, -0.2), (1000, 0)]
)
def test_tones_are_softer_by_the_formula(hertz: float, decibels: float) -> None:
    """1 / (1 + (40 / f)^8), which are known values; without a delay."""
    found = high_pass(tone(hertz)[None])[0, 8000:-8000]
    original = tone(hertz)[8000:-8000]
    factor = float(found @ original / (original @ original))
    assert factor > 0 and 20 * np.log10(factor) == pytest.approx(decibels, abs=0.25)
    assert np.abs(found - factor * original).max() < 1e-4, "no phase is changed"


def test_blocks_do_not_show() -> None:
    """What a block becomes does not depend on where it begins."""
    noise = np.random.default_rng(0).standard_normal((2, BLOCK + 20_000)).astype(np.float32)
    start = 5000
    whole, later = high_pass(noise), high_pass(noise[:, start:])
    inner = slice(start + 2 * HALF, None)
    assert np.abs(whole[:, inner] - later[:, 2 * HALF :]).max() < 1e-5


def test_rumble_goes() -> None:
    for hertz in (10, 20):
        assert np.abs(high_pass(tone(hertz)[None])[0, 8000:-8000]).max() < 0.1 * 10 ** (-40 / 20)


@pytest.mark.parametrize("count", [1, 5, 3000, BLOCK])
def test_an_offset_is_taken_away(count: int) -> None:
    assert np.abs(high_pass(np.full((2, count), 0.7, np.float32))).max() < 1e-6
    assert high_pass(np.zeros((2, 0), np.float32)).shape == (2, 0)


def test_ends_have_no_clicks() -> None:
    """Rumble at its peak where a file begins and ends does not pass, and a click there makes no thump."""
    for hertz in (3, 10, 20):
        cosine = 0.5 * np.cos(2 * np.pi * hertz * np.arange(32_000) / 16_000).astype(np.float32)
        assert np.abs(high_pass(cosine[None])).max() < 0.01, hertz
    click = np.zeros((1, 32_000), np.float32)
    click[:, 0] = click[:, -1] = 0.5
    found = high_pass(click)
    assert np.abs(found[:, 1:-1]).max() < 0.01 and found[0, 0] > 0.48


def test_rumble_takes_nothing_from_speech() -> None:
    """A file with rumble as loud as speech decodes to the same as one without."""
    speech = sing(2, seed=3)[:, 0]
    rumbling = speech + tone(22, len(speech), float(np.sqrt(2 * np.square(speech).mean())))
    decoded = []
    for signal in (speech, rumbling):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FidelityWarning)
            data = pipeline.encode(media.Audio.of(signal, 16_000), model="vqvae-audio")
        decoded.append(pipeline.decode_audio(data).signal[0])
    energy = np.square(decoded[0]).sum()
    assert np.square(decoded[1] - decoded[0]).sum() < 0.05 * energy


def told_of(signal: np.ndarray) -> list[str]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        vqcodec.encode(media.Audio.of(signal, 16_000))
    return [str(warning.message) for warning in found if warning.category is FidelityWarning]


def test_sounds_that_are_lost_are_told_of() -> None:
    """A tone of 20 Hz leaves nothing, in one of several channels too, and is told of once."""
    lost = "100% of the energy of a channel is below 40 Hz and is not kept"
    assert told_of(tone(20)) == [lost]
    assert told_of(np.stack([sing(2, seed=3)[:, 0], tone(20)], 1)) == [lost]


def test_silence_and_offsets_lose_nothing() -> None:
    hiss = 1.002e-5 * np.random.default_rng(0).standard_normal(16_000)
    one_of_two = np.stack([np.zeros(5000), sing(1)[:5000, 0]], 1)
    for silent in (np.zeros(5000), np.full(5000, 0.3), hiss, one_of_two):
        assert not [line for line in told_of(silent.astype(np.float32)) if "is not kept" in line]


def test_an_enormous_sound_is_filtered_in_range() -> None:
    huge = (1e36 * sing(0.5, seed=1).T).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = high_pass(huge)
    assert np.isfinite(found).all() and np.abs(found).max() > 1e34
