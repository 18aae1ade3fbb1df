"""A channel of a sound <-> the loudness that models know, and stereo <-> what its channels share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

WINDOW = 6400
"""Samples of a loudness measurement: 0.4 seconds at 16 kHz."""

GATE = 1e-3
"""Windows of less than this share of a loud one's energy are pauses: 30 dB."""

INSIDE_DB = -26.0
"""RMS of a channel inside the codec, relative to full scale."""

NEUTRAL = 192
"""The gain byte of a channel that is as loud as that; one step is half a decibel."""

SILENT = 1e-5
"""RMS below which a channel is silent, a third of the smallest step of 16 bits."""

SHARED = 1e-4
"""Energy of the difference of two channels over that of their sum, below which nobody misses it: 40 dB."""

SOFTER = range(12, 61)
"""By how many half decibels a segment may be told to be softer than its channel: less is what models know,
and what is softer by more than 30 dB is nearly a pause."""

RAMP = 512
"""Samples around the border of two segments, over which the loudness of one becomes that of the other."""


@dataclass(frozen=True)
class Loudness:
    """How loud a channel is, as a factor for each of its samples.

    Attributes:
        gain: the gain byte of the channel.
        levels: by how many half decibels each segment of it is softer; empty: by none.
        segment: samples in a segment.
    """

    gain: int = NEUTRAL
    levels: bytes = b""
    segment: int = 1

    def factors(self, start: int, stop: int) -> np.ndarray:
        """What samples inside the codec are multiplied by to be as loud as they were.

        Args:
            start: the first of them in the channel.
            stop: the first behind them.

        Returns:
            float64 [stop - start], or [] where all have the same.
        """
        if not any(self.levels):
            return np.array(factor_of(self.gain))
        borders = self.segment * np.arange(1, len(self.levels))
        knots = np.concatenate(([0], np.stack((borders - RAMP / 2, borders + RAMP / 2), 1).ravel()))
        softer = np.interp(
            np.arange(start, stop), knots, np.repeat(np.frombuffer(self.levels, np.uint8), 2)[:-1]
        )
        return np.asarray(factor_of(self.gain) * 10 ** (-softer / 40))


def loudness_of(channel: np.ndarray, segment: int) -> Loudness:
    """The loudness of a channel, float32 [N], and of its segments of so many samples."""
    gain = gain_of(channel)
    pieces = (channel[at : at + segment] for at in range(0, len(channel), segment))
    softer = [gain - (gain_of(piece) or gain) for piece in pieces]
    levels = bytes(min(steps, SOFTER[-1]) if steps >= SOFTER[0] else 0 for steps in softer)
    return Loudness(gain, levels if any(levels) else b"", segment)


def gain_of(channel: np.ndarray) -> int:
    """The gain byte of a channel, float32 [N]: 0 if it is silent, else 1 to 255.

    The loudness is the RMS over the windows that are no pauses (as in ITU-R BS.1770, without its weighting).
    The loudest twentieth of the windows count as loud as the next: a click in a talk is not its loudness.
    """
    # Windows of about equal length: a short last one would count too much.
    count = -(-len(channel) // WINDOW)
    ends = [len(channel) * n // count for n in range(count + 1)]
    powers = np.array([_energy(channel[a:b]) / (b - a) for a, b in zip(ends, ends[1:], strict=False)])
    audible = powers[powers >= SILENT**2]
    if not len(audible):
        return 0
    loud = np.quantile(audible, 0.95, method="lower")
    audible = np.minimum(audible, loud)
    rms_db = 10 * np.log10(audible[audible >= GATE * loud].mean())
    return int(np.clip(round(NEUTRAL + 2 * (rms_db - INSIDE_DB)), 1, 255))


def factor_of(gain: int) -> float:
    """What a signal inside the codec is multiplied by to be as loud as it was."""
    return float(10 ** ((gain - NEUTRAL) / 40)) if gain else 0.0


def is_mono(signal: np.ndarray) -> bool:
    """Whether two channels, float32 [2, N], are one: their mean is coded, for half the bits.

    Where the difference can be heard, channels coded by themselves come out better than mean and difference
    at the same bits, even where they are much alike (`benchmarks/stereo.py`).
    """
    blocks = [signal[:, at : at + WINDOW] for at in range(0, signal.shape[1], WINDOW)]
    sums = np.array([_energy(left + right) for left, right in blocks])
    differences = np.array([_energy(left - right) for left, right in blocks])
    # Everywhere, or a guest in one channel would be lost in a long talk; pauses may differ as they like.
    return bool(sums.any() and (differences < SHARED * np.maximum(sums, GATE * sums.max())).all())


def _energy(samples: np.ndarray) -> float:
    return float(np.square(samples, dtype=np.float64).sum())


def to_left_right(signal: np.ndarray) -> np.ndarray:
    """The mean of left and right, and half their difference -> left and right, float32 [2, N]."""
    return np.stack((signal[0] + signal[1], signal[0] - signal[1]))
