"""Encoding warns of audio that decodes far too loud or too soft."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import vqcodec
from cli_fakes import invoke
from conftest import sing
from vqcodec import media, pipeline
from vqcodec.errors import FidelityWarning
from vqcodec.pipeline import fidelity

TIMES = np.arange(32_000) / 16_000


def tone(hertz: float, seconds: float = 2.0, loudness: float = 0.1) -> np.ndarray:
    return (loudness * np.sin(2 * np.pi * hertz * np.arange(int(16_000 * seconds)) / 16_000)).astype(
        np.float32
    )


def audio(signal: np.ndarray) -> media.Audio:
    return media.Audio.of(signal, 16_000)


def test_octaves_of_tones() -> None:
    """A tone is in its octave alone; twice as loud is four times the energy."""
    for place, hertz in enumerate((90, 180, 350, 700, 1400, 2800, 5600)):
        energy = fidelity.octaves(tone(hertz))
        assert energy.argmax() == place and energy[place] > 0.99 * energy.sum()
        assert fidelity.octaves(2 * tone(hertz))[place] == pytest.approx(4 * energy[place], rel=1e-4)
    assert fidelity.octaves(np.zeros(10, np.float32)).tolist() == [0.0] * 7


def test_deviations_are_of_octaves_that_count() -> None:
    original = np.array([1.0, 100.0, 0.005, 10.0, 0.0, 1.0, 1.0])
    decoded = np.array([10.0, 10.0, 5.0, 10.0, 1.0, 1.0, 0.0])
    found = fidelity.deviation_db(original, decoded)
    assert found[:6] == pytest.approx([10, -10, 0, 0, 0, 0], abs=1e-6) and found[6] < -100
    assert fidelity.deviation_db(np.zeros(7), np.ones(7)).tolist() == [0.0] * 7


def test_a_tone_that_speech_models_lose_is_told_of() -> None:
    """By the shipped model: 1 kHz comes out softer by over 10 dB, in the octave to 1,000 or from it on."""
    with pytest.warns(FidelityWarning, match="Hz decode .* dB too soft: vqvae-audio was not made") as told:
        data = pipeline.encode(audio(tone(990)))
    assert len(told) == 1 and "500 to 1,000 Hz" in str(told[0].message)
    decoded = pipeline.decode_audio(data).signal[0]
    energies = [fidelity.octaves(found)[3] for found in (tone(990), decoded)]
    assert 10 * np.log10(energies[1] / energies[0]) < -6, "it is true"


def test_speech_is_not_told_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for quality in (2, 4):
            pipeline.encode(
                media.read(Path(__file__).parents[1] / "docs" / "speech.flac"),
                model="rvqvae-audio",
                quality=quality,
            )


def test_two_regions_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of long audio at a quarter and at three quarters; of channels that are not silent."""
    lengths: list[int] = []
    synthesise = fidelity.audio_transform.synthesise_signal

    def counted(symbols: object, point: object, count: int) -> np.ndarray:
        lengths.append(count)
        return synthesise(symbols, point, count)  # type: ignore[arg-type]

    monkeypatch.setattr(fidelity.audio_transform, "synthesise_signal", counted)
    for seconds, wanted in ((3, [48_000]), (9, [128_000, 16_000]), (40, [128_000, 128_000])):
        lengths.clear()
        pipeline.encode(audio(sing(seconds, seed=3)[:, 0]), fast=True, effort=0)
        assert lengths == wanted
    lengths.clear()
    pipeline.encode(audio(np.zeros(16_000, np.float32)))
    assert lengths == []


@pytest.mark.parametrize("kind", ["equal", "panned", "different"])
def test_stereo_is_compared_as_it_is_coded(kind: str) -> None:
    """A tone in both channels, as one channel, predicted, or one by one."""
    left = tone(990)
    right = {"equal": left, "panned": 0.5 * left, "different": tone(2000)}[kind]
    with pytest.warns(FidelityWarning, match="dB too (soft|loud)"):
        pipeline.encode(audio(np.stack([left, right], 1)))


def test_a_batch_and_the_command_tell_of_it_too(tmp_path: Path) -> None:
    with pytest.warns(FidelityWarning, match="too soft"):
        assert vqcodec.encode_batch([audio(tone(990))]) == [pipeline.encode(audio(tone(990)))]
    audio(tone(990)).save(tmp_path / "tone.wav")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        told = invoke("encode", str(tmp_path / "tone.wav"), "-o", str(tmp_path / "tone.vqc"))
    assert told.exit_code == 0 and "dB too soft" in told.stderr


def test_a_decoder_that_takes_time_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = pipeline.encode_at(audio(tone(990)), vqcodec.weights.load("vqvae-audio", "cpu").at(0))
    slow = type("Slow", (), {"whole": True})()
    assert fidelity.checked(replace(encoded, point=slow)) is not None
