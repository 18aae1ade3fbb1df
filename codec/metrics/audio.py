"""Quality of audio against its original, from arrays alone."""

from __future__ import annotations

import functools
import importlib.util
import math
import warnings
from typing import Any

import numpy as np
import torch

from ..errors import UsageError
from . import spectra

MEL_WINDOW, MEL_HOP, MEL_BANDS = 1024, 256, 80
PERCEPTUAL = ("pesq_wb", "stoi", "estoi", "visqol")
"""Perceptual metrics of the extra `metrics`, all for speech at 16 kHz."""

_PACKAGES = {"pesq_wb": "pesq", "stoi": "pystoi", "estoi": "pystoi", "visqol": "visqol"}
BLOCK_SECONDS = 60
"""Length of the pieces in which long audio is measured, in seconds."""


def log_mel_distance(reconstruction: np.ndarray, original: np.ndarray, rate: int) -> float:
    """Return the mean |difference of log10| over 80 HTK mel bands of the magnitude.

    Hann windows of 1,024 samples, hop 256, magnitudes clipped below at 1e-5.

    Args:
        reconstruction: float32 [N], full scale 1.
        original: the same shape.
        rate: sample rate in hertz.

    Returns:
        Decades; 0 for equal spectra.

    Raises:
        ValueError: shapes do not agree.
    """
    _check(reconstruction, original)
    total, count = 0.0, 0
    for start in range(0, len(original), BLOCK_SECONDS * rate):
        pieces = (_whole(x[start : start + BLOCK_SECONDS * rate]) for x in (reconstruction, original))
        spectrograms = [spectra.stft(piece[None], MEL_WINDOW, MEL_HOP).abs() for piece in pieces]
        ours, theirs = (spectra.log_mel(s, MEL_WINDOW, MEL_BANDS, rate) for s in spectrograms)
        total += float((ours - theirs).abs().sum(dtype=torch.float64))
        count += ours.numel()
    return total / count


def si_sdr(reconstruction: np.ndarray, original: np.ndarray) -> float:
    """Return the scale-invariant signal-to-distortion ratio (Le Roux et al. 2019, "SDR - half-baked...").

    Args:
        reconstruction: float32 [N].
        original: the same shape.

    Returns:
        dB; infinity where one is a multiple of the other, minus infinity for orthogonal signals.

    Raises:
        ValueError: shapes do not agree.
    """
    _check(reconstruction, original)
    x, y = original.astype(np.float64), reconstruction.astype(np.float64)
    energy = float(x @ x)
    if energy == 0:
        return math.inf if not y.any() else -math.inf
    target = x * (float(x @ y) / energy)
    error = float(np.square(y - target).sum())
    signal = float(target @ target)
    if error <= 1e-20 * signal:
        return math.inf if signal else -math.inf
    return 10 * math.log10(signal / error) if signal else -math.inf


def installed() -> tuple[str, ...]:
    """Return those of `PERCEPTUAL` whose packages are installed."""
    return tuple(name for name in PERCEPTUAL if importlib.util.find_spec(_PACKAGES[name]) is not None)


def perceptual(reconstruction: np.ndarray, original: np.ndarray, names: tuple[str, ...]) -> dict[str, float]:
    """Return perceptual metrics of speech at 16 kHz.

    "pesq_wb": ITU-T P.862.2, 1 to 4.64; "stoi": Taal et al. 2011, 0 to 1; "estoi": Jensen and Taal 2016, 0 to
    1; "visqol": Chinen et al. 2020, speech mode, 1 to 5.

    Args:
        reconstruction: float32 [N] at 16 kHz.
        original: the same shape.
        names: of `PERCEPTUAL`.

    Returns:
        name -> value; NaN where the metric finds no speech.

    Raises:
        UsageError: a package that is not installed.
        ValueError: shapes do not agree.
    """
    _check(reconstruction, original)
    if missing := [name for name in names if name not in installed()]:
        raise UsageError(f"{missing[0]} cannot be measured", "install it with pip install 'vqcodec[metrics]'")
    return {name: _measured(name, reconstruction, original) for name in names}


def _measured(name: str, reconstruction: np.ndarray, original: np.ndarray) -> float:
    rate = 16_000
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of silence: the value is NaN anyway
        try:
            if name == "pesq_wb":
                from pesq import pesq

                return float(pesq(rate, original, reconstruction, "wb"))
            if name in ("stoi", "estoi"):
                from pystoi import stoi

                return float(stoi(original, reconstruction, rate, extended=name == "estoi"))
            arrays = (samples.astype(np.float64) for samples in (original, reconstruction))
            return float(_visqol().measure_from_arrays(*arrays, rate).moslqo)
        except Exception:  # each package has its own errors for audio without speech
            return math.nan


@functools.cache
def _visqol() -> Any:
    from visqol import VisqolApi

    api = VisqolApi()
    api.create(mode="speech")
    return api


def _whole(samples: np.ndarray) -> torch.Tensor:
    """Pad samples to half a window, which the STFT mirrors at the ends."""
    short = max(MEL_WINDOW // 2 + 1 - len(samples), 0)
    return torch.from_numpy(np.pad(samples.astype(np.float32), (0, short)))


def _check(reconstruction: np.ndarray, original: np.ndarray) -> None:
    if reconstruction.ndim != 1 or reconstruction.shape != original.shape or not len(original):
        raise ValueError(f"need two [N], got {reconstruction.shape} and {original.shape}")
