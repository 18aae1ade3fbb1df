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
"""By how many half decibels a segment may be stated to be softer than its channel: less is what models know,
and what is softer by more than 30 dB is nearly a pause."""

RAMP = 512
"""Samples around the border of two segments, over which the loudness of one becomes that of the other."""

PARTS = 50
"""Parts of a segment that may have a loudness of their own: 0.16 seconds each."""

HOP = 160
"""Samples of the shortest measurement: 10 milliseconds."""

LOUDEST_DB = ((1, 19.0), (4, 15.0), (32, 9.0))
"""Hops, and by how much their RMS may exceed the RMS of the channel: louder sounds come out softer than they
were. Of speech, one file in fifty exceeds one of these."""

PEAK_DB = 26.0
"""Likewise of a single sample: that is full scale inside the codec."""

COMFORT_DB = 5.0
"""How far below these limits a loud sound is brought, once it exceeds them: as speech usually is."""

REACH = 3
"""Parts on either side of a loud one that take its level, if they are too loud themselves."""


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
        half = min(RAMP, self.segment) / 2
        knots = np.concatenate(([0], np.stack((borders - half, borders + half), 1).ravel()))
        softer = np.interp(
            np.arange(start, stop), knots, np.repeat(np.frombuffer(self.levels, np.uint8), 2)[:-1]
        )
        return np.asarray(factor_of(self.gain) * 10 ** (-softer / 40))


def loudness_of(channel: np.ndarray, segment: int) -> Loudness:
    """Measure the loudness of a channel, float32 [N], and of its segments of so many samples.

    The segments are cut into PARTS where a sound is too loud for the loudness around it, however short it is.
    """
    gain = gain_of(channel)
    pieces = (channel[at : at + segment] for at in range(0, len(channel), segment))
    softer = [gain - (gain_of(piece) or gain) for piece in pieces]
    levels = bytes(min(steps, SOFTER[-1]) if steps >= SOFTER[0] else 0 for steps in softer)
    whole = Loudness(gain, levels if any(levels) else b"", segment)
    part = segment // PARTS
    if not gain or part * PARTS != segment or part <= RAMP:
        return whole
    gains = gain - np.frombuffer(levels, np.uint8).astype(int)
    louder = _louder_parts(channel, gains, segment)
    if not louder.any():
        return whole
    parts = np.where(louder > 0, louder, np.repeat(gains, PARTS)[: len(louder)])
    highest = int(parts.max())
    return Loudness(highest, bytes(np.minimum(highest - parts, 255).astype(np.uint8)), part)


def _louder_parts(channel: np.ndarray, gains: np.ndarray, segment: int) -> np.ndarray:
    """Return the gain of each part of a channel that is too loud for that of its segment, of others 0."""
    part, count = segment // PARTS, -(-len(channel) // HOP)
    # Each segment by itself: a loud one is no event in the soft one beside it.
    needed = np.concatenate([_needed(channel[at : at + segment]) for at in range(0, len(channel), segment)])
    # Where the loudness of one segment becomes that of the next, the louder is meant.
    near = RAMP // 2 + 2 * HOP
    starts = HOP * np.arange(count)
    around = [np.clip((starts + shift) // segment, 0, len(gains) - 1) for shift in (-near, near)]
    too_loud = needed > np.maximum(gains[around[0]], gains[around[1]])
    needed = np.where(too_loud, needed + 2 * COMFORT_DB, 0)
    # A part covers the ramps at its ends, so that no ramp begins within a loud sound.
    firsts = part * np.arange(-(-len(channel) // part))
    begins = np.maximum(firsts - RAMP // 2, 0) // HOP
    ends = -(-(firsts + part + RAMP // 2) // HOP)
    loud = np.array([needed[first:last].max() for first, last in zip(begins, ends, strict=True)])
    held = loud.copy()
    for shift in range(1, min(REACH + 1, len(loud))):
        for ours, theirs in ((slice(shift, None), slice(-shift)), (slice(-shift), slice(shift, None))):
            held[ours] = np.maximum(held[ours], loud[theirs])
    return np.where(loud > 0, np.clip(np.ceil(held), 1, 255), 0).astype(int)


def _needed(channel: np.ndarray) -> np.ndarray:
    """Return the least gain, in half decibels, at which each hop of a channel is not too loud."""
    count = -(-len(channel) // HOP)
    powers, peaks = np.empty(count), np.empty(count)
    for at in range(0, count, 1000):
        block = channel[HOP * at : HOP * (at + 1000)].astype(np.float64)
        block = np.pad(block, (0, -len(block) % HOP)).reshape(-1, HOP)
        powers[at : at + 1000] = np.square(block).mean(1)
        peaks[at : at + 1000] = np.square(block).max(1)
    least = _decibels(peaks) - PEAK_DB
    for hops, limit in LOUDEST_DB:
        # Each window of so many hops, then for each hop the loudest window that it lies in.
        sums = np.concatenate(([0], np.cumsum(np.pad(powers, hops - 1))))
        means = _decibels((sums[hops:] - sums[:-hops]) / hops)
        loudest = np.lib.stride_tricks.sliding_window_view(means, hops).max(1)
        least = np.maximum(least, loudest - limit)
    return np.asarray(NEUTRAL + 2 * (least - INSIDE_DB))


def _decibels(powers: np.ndarray) -> np.ndarray:
    return np.asarray(10 * np.log10(np.maximum(powers, 1e-30)))


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
