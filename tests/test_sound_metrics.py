from __future__ import annotations

import builtins
import math
from typing import Any

import numpy as np
import pytest
from conftest import sing
from vqcodec.errors import UsageError
from vqcodec.metrics import audio as sound_metrics
from vqcodec.metrics.audio import log_mel_distance, si_sdr


def reference_distance(ours: np.ndarray, theirs: np.ndarray, rate: int) -> float:
    """Frame by frame and band by band, from the definition."""
    window, hop, bands = 1024, 256, 80
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)

    def hertz(mel: float) -> float:
        return 700 * (10 ** (mel / 2595) - 1)

    highest = 2595 * math.log10(1 + rate / 2 / 700)
    edges = [hertz(highest * n / (bands + 1)) for n in range(bands + 2)]

    def levels(samples: np.ndarray) -> np.ndarray:
        padded = np.pad(samples.astype(np.float64), window // 2, mode="reflect")
        rows = []
        for start in range(0, len(samples) + 1, hop):
            magnitude = np.abs(np.fft.rfft(padded[start : start + window] * hann))
            if len(magnitude) < window // 2 + 1 or start + window > len(padded):
                break
            row = []
            for low, middle, high in zip(edges, edges[1:], edges[2:], strict=False):
                frequency = np.arange(window // 2 + 1) * rate / window
                rising, falling = (frequency - low) / (middle - low), (high - frequency) / (high - middle)
                weight = np.maximum(0, np.minimum(rising, falling))
                row.append(math.log10(max(float(weight @ magnitude), 1e-5)))
            rows.append(row)
        return np.array(rows)

    return float(np.abs(levels(ours) - levels(theirs)).mean())


@pytest.mark.parametrize(("rate", "seconds"), [(16_000, 0.5), (16_000, 0.2113), (44_100, 0.2)])
def test_log_mel_distance_from_the_definition(rate: int, seconds: float) -> None:
    original, other = (sing(seconds, rate, seed=n)[:, 0] for n in (0, 1))
    expected = reference_distance(other, original, rate)
    assert log_mel_distance(other, original, rate) == pytest.approx(expected, abs=2e-4)
    assert log_mel_distance(original, other, rate) == pytest.approx(expected, abs=2e-4)
    assert expected > 0.1


def test_log_mel_distance_of_a_known_change() -> None:
    sound = sing(1)[:, 0] + np.random.default_rng(0).normal(0, 0.05, 16_000).astype(np.float32)
    assert log_mel_distance(sound, sound, 16_000) == 0
    assert log_mel_distance(sound * np.float32(10), sound, 16_000) == pytest.approx(1, abs=1e-5)
    assert log_mel_distance(-sound, sound, 16_000) == 0, "the sign is not heard"
    nothing = np.zeros_like(sound)
    assert log_mel_distance(nothing, nothing, 16_000) == 0
    assert 3 < log_mel_distance(nothing, sound, 16_000) < 6, "down to the floor of five decades"


@pytest.mark.parametrize("count", [1, 2, 100, 512, 513, 1024])
def test_short_sounds_have_a_distance(count: int) -> None:
    sound = sing(0.1)[:count, 0]
    assert log_mel_distance(sound, sound, 16_000) == 0
    assert math.isfinite(log_mel_distance(sound * 0, sound, 16_000))


def test_long_sounds_are_measured_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    original, other = (sing(5.3, seed=n)[:, 0] for n in (0, 1))
    whole = log_mel_distance(other, original, 16_000)
    monkeypatch.setattr(sound_metrics, "BLOCK_SECONDS", 1)
    assert log_mel_distance(other, original, 16_000) == pytest.approx(whole, rel=0.02)


@pytest.mark.parametrize("ratio_db", [-30, -3, 0, 10, 60])
def test_si_sdr_in_closed_form(ratio_db: float) -> None:
    """Noise that is orthogonal to the sound, at a known ratio."""
    rng = np.random.default_rng(0)
    sound, noise = rng.normal(0, 0.1, (2, 20_000))
    noise -= sound * (sound @ noise) / (sound @ sound)
    noise *= np.sqrt((sound @ sound) / (noise @ noise)) * 10 ** (-ratio_db / 20)
    for scale in (1, 0.01, -5):
        ours = (scale * (sound + noise)).astype(np.float32)
        assert si_sdr(ours, sound.astype(np.float32)) == pytest.approx(ratio_db, abs=1e-3)


def test_si_sdr_of_extremes() -> None:
    sound = sing(0.2)[:, 0]
    nothing = np.zeros_like(sound)
    assert si_sdr(sound, sound) == math.inf
    assert si_sdr(sound * np.float32(0.5), sound) == math.inf
    assert si_sdr(nothing, sound) == -math.inf
    assert si_sdr(sound, nothing) == -math.inf
    assert si_sdr(nothing, nothing) == math.inf
    apart = np.zeros_like(sound)
    sound = sound.copy()
    sound[:100], apart[:100] = 0, 1
    assert si_sdr(apart, sound) == -math.inf
    one = np.ones(1, np.float32)
    assert si_sdr(one, one) == math.inf


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [((100,), (101,)), ((100, 1), (100, 1)), ((0,), (0,)), ((100,), (100, 1))],
)
def test_shapes_must_agree(ours: tuple[int, ...], theirs: tuple[int, ...]) -> None:
    arrays = np.zeros(ours, np.float32), np.zeros(theirs, np.float32)
    for measure in (
        lambda a, b: log_mel_distance(a, b, 16_000),
        si_sdr,
        lambda a, b: sound_metrics.perceptual(a, b, ()),
    ):
        with pytest.raises(ValueError, match="need two"):
            measure(*arrays)


# figures that stand for listeners


def test_packages_that_are_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sound_metrics, "_PACKAGES", dict.fromkeys(sound_metrics.PERCEPTUAL, "no_such_package")
    )
    assert sound_metrics.installed() == ()
    sound = sing(0.5)[:, 0]
    assert sound_metrics.perceptual(sound, sound, ()) == {}
    with pytest.raises(UsageError, match="pesq_wb cannot be measured") as caught:
        sound_metrics.perceptual(sound, sound, ("pesq_wb", "stoi"))
    assert "vqcodec[metrics]" in caught.value.hint


@pytest.mark.parametrize("name", [n for n in sound_metrics.installed() if n != "visqol"])
def test_perceptual_figures_fall_with_noise(name: str) -> None:
    sound = sing(3)[:, 0]
    noise = np.random.default_rng(0).normal(0, 1, len(sound)).astype(np.float32)
    figures = [
        sound_metrics.perceptual(sound + np.float32(level) * noise, sound, (name,))[name]
        for level in (0, 0.02, 0.3)
    ]
    assert figures[0] > figures[1] > figures[2]
    assert figures[0] > (4 if name == "pesq_wb" else 0.99)


def test_sounds_without_speech_have_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    imports = builtins.__import__

    def failing(name: str, *rest: Any) -> Any:
        if name in ("pesq", "pystoi", "visqol"):
            raise RuntimeError("no utterances")
        return imports(name, *rest)

    monkeypatch.setattr(builtins, "__import__", failing)
    monkeypatch.setattr(sound_metrics, "installed", lambda: sound_metrics.PERCEPTUAL)
    nothing = np.zeros(16_000, np.float32)
    figures = sound_metrics.perceptual(nothing, nothing, sound_metrics.PERCEPTUAL)
    assert set(figures) == set(sound_metrics.PERCEPTUAL)
    assert all(math.isnan(figure) for figure in figures.values())
