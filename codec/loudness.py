"""A channel of a sound <-> the loudness that models are trained at, and stereo <-> what its channels share."""

from __future__ import annotations

import numpy as np

WINDOW = 6400
"""Samples of a loudness measurement: 0.4 seconds at 16 kHz."""

GATE = 1e-3
"""Windows of less than this share of the loudest one's energy are pauses: 30 dB."""

INSIDE_DB = -26.0
"""RMS of a channel inside the codec, relative to full scale."""

NEUTRAL = 192
"""The gain byte of a channel that is as loud as that; one step is half a decibel."""

SILENT = 1e-5
"""RMS below which a channel is silent, a third of the smallest step of 16 bits."""

SHARED = 0.1
"""Energy of the difference of two channels over that of their mean, below which these are coded instead."""


def gain_of(channel: np.ndarray) -> int:
    """The gain byte of a channel, float32 [N]: 0 if it is silent, else 1 to 255.

    The loudness is the RMS over the windows that are no pauses (as in ITU-R BS.1770, without its weighting).
    """
    count = -(-len(channel) // WINDOW)
    energies = [np.square(channel[n * WINDOW : (n + 1) * WINDOW], dtype=np.float64) for n in range(count)]
    powers = np.array([float(energy.mean()) for energy in energies])
    loudest = powers.max(initial=0.0)
    if loudest < SILENT**2:
        return 0
    rms_db = 10 * np.log10(powers[powers >= GATE * loudest].mean())
    return int(np.clip(round(NEUTRAL + 2 * (rms_db - INSIDE_DB)), 1, 255))


def factor_of(gain: int) -> float:
    """What a signal inside the codec is multiplied by to be as loud as it was."""
    return float(10 ** ((gain - NEUTRAL) / 40)) if gain else 0.0


def is_shared(signal: np.ndarray) -> bool:
    """Whether two channels, float32 [2, N], are better coded as their mean and their difference.

    Where they are much alike, the difference is faint, and so are its errors; where they are not, both mixtures
    would be harder to code than the channels themselves.
    """
    left, right = signal
    energies = {sign: float(np.square(left + sign * right, dtype=np.float64).sum()) for sign in (1, -1)}
    return energies[-1] < SHARED * energies[1]


def mixed(signal: np.ndarray) -> np.ndarray:
    """Left and right -> their mean and half their difference, float32 [2, N]."""
    return np.stack(((signal[0] + signal[1]) / 2, (signal[0] - signal[1]) / 2))


def unmixed(signal: np.ndarray) -> np.ndarray:
    """Undo `mixed`."""
    return np.stack((signal[0] + signal[1], signal[0] - signal[1]))
