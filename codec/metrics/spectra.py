"""Short-time spectra and mel bands; the only import of torchaudio.

The torchaudio wheels of the package index link CUDA; with a CPU-only torch their compiled extension fails to
load. Only pure Python is used here, so the extension is then registered as absent, a state that torchaudio
itself supports.
"""

from __future__ import annotations

import functools
import importlib
import sys
import types
from typing import Any

import numpy as np
import torch
from torch import Tensor

LOG_FLOOR = 1e-5
"""Lower bound of the magnitude of a mel band."""

LOWEST = 50.0
"""Centre of the lowest band of the Bark scale, in hertz."""


def stft(samples: Tensor, window: int, hop: int | None = None) -> Tensor:
    """Compute complex spectra of Hann windows: float32 [B, N] -> complex64 [B, window / 2 + 1, N / hop + 1].

    Args:
        samples: full scale 1; mirrored by half a window at both ends.
        window: samples.
        hop: samples between windows; None: a quarter of the window.
    """
    shape = _window(window, samples.device)
    return torch.stft(samples, window, hop or window // 4, window=shape, return_complex=True)


def log_mel(magnitude: Tensor, window: int, bands: int, rate: int) -> Tensor:
    """Compute log10 of mel bands, at least LOG_FLOOR: magnitudes [B, window / 2 + 1, T] -> [B, bands, T]."""
    return (mel_bank(window, bands, rate, magnitude.device) @ magnitude).clamp(min=LOG_FLOOR).log10()


def picture(signal: np.ndarray, rate: int) -> np.ndarray:
    """Draw a log-mel spectrogram: float32 [N] -> uint8 [80, N / 256 + 1], low frequencies at the bottom.

    Black is a magnitude of 0.001, white one of 100.
    """
    window, hop, bands = 1024, 256, 80
    samples = np.pad(signal, (0, max(window // 2 + 1 - len(signal), 0)))  # the ends are mirrored
    levels = log_mel(stft(torch.from_numpy(samples)[None], window, hop).abs(), window, bands, rate)[0]
    pixels: np.ndarray = ((levels.flip(0) + 3) / 5 * 255).clamp(0, 255).to(torch.uint8).numpy()
    return pixels


@functools.cache
def mel_bank(window: int, bands: int, rate: int, device: torch.device | str = "cpu") -> Tensor:
    """Return triangles on the HTK mel scale from 0 to half the rate, float32 [bands, window / 2 + 1]."""
    functional = torchaudio().functional
    with torch.inference_mode(False):  # a measurement may fill the cache, and a loss then needs gradients
        bank: Tensor = functional.melscale_fbanks(window // 2 + 1, 0.0, rate / 2, bands, rate)
        return bank.t().contiguous().to(device)


def bark(frequency: np.ndarray) -> np.ndarray:
    """Return the Bark scale of frequencies in hertz (Wang, Sekey, Gersho 1992, eq. 3: 6 asinh(f / 600))."""
    barks: np.ndarray = 6 * np.arcsinh(frequency / 600)
    return barks


def bark_centres(bands: int, rate: int) -> np.ndarray:
    """Return frequencies in hertz, equally spaced on the Bark scale from LOWEST to half the rate: [bands]."""
    ends = bark(np.array([LOWEST, rate / 2]))
    centres: np.ndarray = 600 * np.sinh(np.linspace(ends[0], ends[1], bands) / 6)
    return centres


@functools.cache
def bark_bank(window: int, bands: int, rate: int, device: torch.device | str = "cpu") -> Tensor:
    """Return triangles between `bark_centres`, float32 [bands, window / 2 + 1].

    Those of each frequency sum to 1: energies of bands sum to that of the spectrum, and the transpose
    interpolates between bands.
    """
    centres = bark(bark_centres(bands, rate))
    bins = bark(np.arange(window // 2 + 1) * rate / window).clip(centres[0], centres[-1])
    triangles = (1 - np.abs(bins - centres[:, None]) / (centres[1] - centres[0])).clip(0)
    with torch.inference_mode(False):
        return torch.from_numpy(triangles).float().to(device)


def torchaudio() -> Any:
    """Import torchaudio.

    Raises:
        ImportError: it is not installed.
    """
    try:
        return importlib.import_module("torchaudio")
    except OSError:
        for name in [n for n in sys.modules if n.partition(".")[0] == "torchaudio"]:
            del sys.modules[name]
        absent: Any = types.ModuleType("torchaudio._extension")
        absent._IS_TORCHAUDIO_EXT_AVAILABLE = absent._IS_ALIGN_AVAILABLE = False
        absent.fail_if_no_align = lambda function: function
        sys.modules[absent.__name__] = absent
        return importlib.import_module("torchaudio")


@functools.cache
def _window(size: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.hann_window(size, device=device)
