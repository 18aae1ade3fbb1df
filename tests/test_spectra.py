from __future__ import annotations

import importlib
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import sing
from vqcodec.metrics import spectra


def reference_bank(window: int, bands: int, rate: int) -> np.ndarray:
    """Triangles between points that are evenly spaced in mel, 2595 log10(1 + f / 700)."""
    highest = 2595 * math.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, highest, bands + 2) / 2595) - 1)
    bank = np.zeros((bands, window // 2 + 1))
    for band in range(bands):
        low, middle, high = edges[band : band + 3]
        for place in range(window // 2 + 1):
            frequency = place * rate / window
            if low < frequency <= middle:
                bank[band, place] = (frequency - low) / (middle - low)
            elif middle < frequency < high:
                bank[band, place] = (high - frequency) / (high - middle)
    return bank


def test_bark_bank() -> None:
    """Triangles that are evenly spaced in 6 asinh(f / 600); at each frequency they sum to 1."""
    bank = spectra.bark_bank(512, 36, 16_000)
    assert bank.shape == (36, 257) and torch.allclose(bank.sum(0), torch.ones(257), atol=1e-5)
    assert spectra.bark_bank(512, 36, 16_000) is bank, "made once"
    centres = spectra.bark_centres(36, 16_000)
    assert (centres[0], centres[-1]) == (pytest.approx(50), pytest.approx(8000))
    assert np.allclose(np.diff(6 * np.arcsinh(centres / 600)), np.diff(6 * np.arcsinh(centres / 600))[0])
    place = 100  # 3,125 Hz
    lower = int(np.searchsorted(centres, 3125)) - 1
    share = (np.arcsinh(3125 / 600) - np.arcsinh(centres[lower] / 600)) / (
        np.arcsinh(centres[lower + 1] / 600) - np.arcsinh(centres[lower] / 600)
    )
    assert bank[lower + 1, place] == pytest.approx(share, abs=1e-5) and bank[:, place].count_nonzero() == 2


@pytest.mark.filterwarnings("ignore:At least one mel filterbank")
@pytest.mark.parametrize(
    ("window", "bands", "rate"), [(1024, 80, 16_000), (2048, 80, 44_100), (128, 10, 16_000)]
)
def test_mel_bank(window: int, bands: int, rate: int) -> None:
    bank = spectra.mel_bank(window, bands, rate)
    assert bank.shape == (bands, window // 2 + 1) and bank.is_contiguous()
    assert np.abs(bank.numpy() - reference_bank(window, bands, rate)).max() < 1e-4
    assert spectra.mel_bank(window, bands, rate) is bank, "made once"


@pytest.mark.parametrize(("window", "hop"), [(1024, 256), (256, None), (512, 512)])
def test_stft(window: int, hop: int | None) -> None:
    samples = sing(0.3)[:, 0]
    spectrum = spectra.stft(torch.from_numpy(samples)[None], window, hop)[0].numpy()
    step = hop or window // 4
    assert spectrum.shape == (window // 2 + 1, len(samples) // step + 1)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    padded = np.pad(samples, window // 2, mode="reflect")
    for frame in (0, 3, spectrum.shape[1] - 1):
        piece = padded[frame * step : frame * step + window]
        assert np.abs(spectrum[:, frame] - np.fft.rfft(piece * hann)).max() < 1e-4


def test_log_mel() -> None:
    magnitude = torch.rand(2, 513, 7)
    levels = spectra.log_mel(magnitude, 1024, 80, 16_000)
    expected = np.log10(np.maximum(reference_bank(1024, 80, 16_000) @ magnitude.numpy(), 1e-5))
    assert np.abs(levels.numpy() - expected).max() < 1e-3
    assert (spectra.log_mel(magnitude * 0, 1024, 80, 16_000) == math.log10(spectra.LOG_FLOOR)).all()


# torchaudio beside a torch without CUDA


BROKEN = """
import importlib, sys
original = importlib.import_module
tried = []
def load(name, *rest):
    if name == "torchaudio" and not tried:
        tried.append(name)
        sys.modules["torchaudio"] = sys.modules["torchaudio.half"] = object()  # what is left of the attempt
        raise OSError("libcudart.so.13: cannot open shared object file")
    return original(name, *rest)
importlib.import_module = load
from vqcodec.metrics import spectra
module = spectra.torchaudio()
assert tried and "torchaudio.half" not in sys.modules
assert not sys.modules["torchaudio._extension"]._IS_TORCHAUDIO_EXT_AVAILABLE
import torch
assert spectra.mel_bank(1024, 80, 16000).shape == (80, 513)
assert module.functional.resample(torch.zeros(1, 480), 48000, 16000).shape == (1, 160)
assert spectra.torchaudio() is module
print("fine")
"""


def test_an_extension_that_does_not_load() -> None:
    result = subprocess.run([sys.executable, "-c", BROKEN], capture_output=True, text=True, timeout=120)
    assert (result.stdout, result.returncode) == ("fine\n", 0), result.stderr


def test_torchaudio_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    with pytest.raises(ImportError):
        spectra.torchaudio()
    monkeypatch.undo()
    assert spectra.torchaudio() is importlib.import_module("torchaudio")


def test_a_measurement_may_come_before_a_loss() -> None:
    """What is kept between calls is not marked as unfit for gradients by whoever asks first."""
    spectra._window.cache_clear()
    spectra.mel_bank.cache_clear()
    sound = torch.randn(1, 4096)
    with torch.inference_mode():
        spectra.log_mel(spectra.stft(sound, 1024).abs(), 1024, 80, 16_000)
    sound.requires_grad_()
    spectra.log_mel(spectra.stft(sound, 1024).abs(), 1024, 80, 16_000).sum().backward()
    assert sound.grad is not None and sound.grad.abs().sum() > 0
