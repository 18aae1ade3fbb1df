"""Augment audio: rooms, equalisers and noise made at random, so that a training hears more than its files."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...transform.highpass import CUTOFF

SOUND = 343.0
"""Metres a second."""

VOLUME, DISTANCE, REVERBERATION = (20.0, 300.0), (0.4, 2.5), (0.15, 0.8)
"""Of rooms in cubic metres, from the talker to the microphone in metres, for a decay by 60 dB in seconds."""

TREBLE = 2000.0, (0.4, 1.0)
"""Frequency in hertz above which sound decays faster, and the share of the time that it takes."""

LOWEST = 62.5
"""Frequency in hertz of the first band of an equaliser; the others follow by octaves."""

STEEPEST = 1.0
"""Noise has spectra from white to one that falls with this power of the frequency in amplitude."""


@dataclass(frozen=True)
class Augmentation:
    """What is done to segments, at random: by default nothing, for which no random number is drawn.

    Attributes:
        reverberation: share of segments that are heard in a room.
        equaliser: largest gain of an octave, in decibels, up and down; half the segments have none.
        noise: largest RMS of the noise, relative to that of the samples; half the segments have none.
    """

    reverberation: float = 0.0
    equaliser: float = 0.0
    noise: float = 0.0

    @property
    def context(self) -> float:
        """Seconds before a segment that are heard in it."""
        return REVERBERATION[1] if self.reverberation else 0.0

    def apply(self, samples: np.ndarray, start: int, rate: int, rng: np.random.Generator) -> np.ndarray:
        """Augment what follows `start` in samples [N]: float32 [N - start]; all N are as loud as before."""
        if self == Augmentation():
            return samples[start:]
        response = np.ones(1)
        if self.reverberation and rng.random() < self.reverberation:
            response = impulse_response(rate, rng)
        size = 2 ** math.ceil(math.log2(len(samples) + len(response)))
        gains = np.fft.rfft(response, size)
        if self.equaliser and rng.random() < 0.5:
            gains = gains * _equaliser(len(gains), rate, self.equaliser, rng)
        found = np.fft.irfft(np.fft.rfft(samples, size) * gains, size)[: len(samples)]
        loudness = math.sqrt(float(np.square(samples).mean()))
        found *= loudness / max(math.sqrt(float(np.square(found).mean())), 1e-9)
        found = found[start:]
        if self.noise and rng.random() < 0.5:
            found += loudness * self.noise * rng.random() ** 2 * _noise(len(found), rate, rng)
        return found.astype(np.float32)


def impulse_response(rate: int, rng: np.random.Generator) -> np.ndarray:
    """Return what a microphone in a random room hears of a click, float64 [N], from the direct sound on.

    Reflections come at random, 4 pi c^3 t^2 / V of them a second, and fall with the distance ct and losses
    at walls (Kuttruff 2000, "Room Acoustics", chapter 4), faster at high frequencies.
    """
    volume, distance = (math.exp(rng.uniform(*np.log(span))) for span in (VOLUME, DISTANCE))
    decay = rng.uniform(*REVERBERATION)
    first = distance / SOUND
    times = first + np.arange(round(decay * rate)) / rate
    expected = 4 * math.pi * SOUND**3 * np.square(times) / volume / rate
    # Many reflections of either sign have a Gaussian sum.
    many = rng.standard_normal(len(times)) * np.sqrt(expected)
    few = rng.poisson(np.minimum(expected, 1)) * rng.choice((-1, 1), len(times))
    reflections = np.where(expected > 1, many, few) * distance / (SOUND * times)
    frequencies = np.fft.rfftfreq(2 * len(times), 1 / rate)
    low = 1 / (1 + np.square(frequencies / TREBLE[0]))
    shorter = decay * rng.uniform(*TREBLE[1])
    bands = [
        np.fft.irfft(np.fft.rfft(reflections * 10 ** (-3 * times / time), 2 * len(times)) * share)
        for time, share in ((decay, low), (shorter, 1 - low))
    ]
    response: np.ndarray = np.sum(bands, 0)[: len(times)]
    response[0] += 1
    return response


def _equaliser(size: int, rate: int, most: float, rng: np.random.Generator) -> np.ndarray:
    """Return gains of frequencies up to half the rate, [size], smooth between octaves of random gain."""
    octaves = np.log2(np.maximum(np.linspace(0, rate / 2, size), LOWEST) / LOWEST)
    decibels = rng.uniform(-most, most, math.ceil(octaves[-1]) + 1)
    return np.asarray(10 ** (np.interp(octaves, np.arange(len(decibels)), decibels) / 20))


def _noise(length: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Return noise of RMS 1, float64 [N], with a spectrum of random slope, from CUTOFF on."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    frequencies = np.fft.rfftfreq(length, 1 / rate)
    slope = -rng.uniform(0, STEEPEST)
    spectrum *= np.where(frequencies < CUTOFF, 0, np.maximum(frequencies, CUTOFF) ** slope)
    found = np.fft.irfft(spectrum, length)
    return np.asarray(found / max(math.sqrt(float(np.square(found).mean())), 1e-9))
