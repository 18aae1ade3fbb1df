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
    assert 20 * np.log10(abs(factor)) == pytest.approx(decibels, abs=0.25)
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


@pytest.mark.parametrize("count", [0, 1, 5, 3000, BLOCK])
def test_an_offset_is_taken_away_without_a_click(count: int) -> None:
    assert np.abs(high_pass(np.full((2, count), 0.7, np.float32))).max(initial=0) < 1e-6
    click = np.zeros((1, count), np.float32)
    click[:, :1] = 0.5
    assert np.abs(high_pass(click)[:, 1:]).max(initial=0) < 0.06 or count in (1, 5)


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


def test_sounds_that_are_lost_are_told_of() -> None:
    """A tone of 25 Hz leaves nothing; silence and an offset lose nothing that is heard."""
    with pytest.warns(FidelityWarning, match=r"100% of the sound is below 40 Hz and is not kept"):
        vqcodec.encode(media.Audio.of(tone(25), 16_000))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for silent in (np.zeros(5000, np.float32), np.full(5000, 0.3, np.float32)):
            data = vqcodec.encode(media.Audio.of(silent, 16_000))
            assert not pipeline.decode_audio(data).signal.any()
