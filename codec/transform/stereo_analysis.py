"""Mix two channels to the one that parametric stereo predicts them from, where it predicts them well."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .loudness import GATE, gain_of
from .stereo import (
    CENTRES,
    EDGES,
    FRAMES_PER_BLOCK,
    HOP,
    MAX_DELAY,
    MAX_LEVEL,
    STEP,
    Cues,
    analyse,
    blocks,
    cut,
    gains_of,
    overlap_add,
    steps_of,
)

EMPHASIS = 0.9
"""Of high frequencies, before channels are correlated: y[n] = x[n] - EMPHASIS x[n - 1]."""

CHANGE = 0.5
"""New cues begin where common ones would raise the error of the prediction by the energy of so many steps."""

FLAT_DB = 3
"""Bands that all differ by less from the level of the whole have no levels of their own."""

MOST_GAIN = 2.0
"""Largest gain that makes up for what cancels in the mix."""

LOUDEST = 2.0**20
"""Largest sample that is mixed, so that energies stay finite."""

ERROR_DB, ERROR_DB_OF_DIFFUSE, MOST_ERROR_DB = 0.4, 8.0, 1.7
"""Largest error of levels in the worst second: without reverberation, added by the share of energy that the
channels do not have in common, and whatever that share is. Reverberation differs between two ears in phase
more than in level, a second source in level. Coded one by one, each channel errs by 3 to 4 dB."""

MOST_DIFFUSE = 0.4
"""Largest share of energy that is not in common: rooms have up to a third, independent noise a half."""

MOST_OPPOSITE = 0.1
"""Largest share of energy of opposite signs: delays and levels would turn them over."""

SECOND = 16_000 // HOP
STEPS_PER_BLOCK = 64
"""Frames in which the error is averaged; steps that are correlated together."""

TILES = np.array([0, 3, 6, 10, 14, 20, 26, 34, 43, 54, 68, 85, 106, 132, 164, 205])
"""First bins of the bands in which the prediction is compared: two for each band of cues."""

_STARTS = np.array(EDGES[:-1])


@dataclass(frozen=True)
class Mixed:
    """Two channels as one.

    Attributes:
        channel: float32 [N].
        cues: by which `stereo.upmix` predicts both.
        error_db: mean difference of tiles of the prediction and the originals, in the worst second.
        diffuse: share of energy that the channels do not have in common, 0 to 0.5.
        opposite: share of energy in runs whose channels are alike with opposite signs.
    """

    channel: NDArray[np.float32]
    cues: list[Cues]
    error_db: float
    diffuse: float
    opposite: float

    @property
    def is_near(self) -> bool:
        """Whether the prediction is good enough to be coded instead of the channels."""
        if self.diffuse > MOST_DIFFUSE or self.opposite > MOST_OPPOSITE:
            return False
        return self.error_db < min(ERROR_DB + ERROR_DB_OF_DIFFUSE * self.diffuse, MOST_ERROR_DB)


def mix(signal: NDArray[np.float32]) -> Mixed | None:
    """Mix two channels, float32 [2, N]; None where one is silent, or louder than LOUDEST, or N below STEP.

    Cues take more bytes than the codes of a channel that short.
    """
    if signal.shape[1] < STEP:
        return None
    if not all(gain_of(channel) for channel in signal) or max(signal.max(), -signal.min()) > LOUDEST:
        return None
    runs = _segment(*_correlate(signal))
    delays = [int(np.argmax(run.correlation)) - MAX_DELAY for run in runs]
    cues = [Cues(run.steps, delay, (0,)) for run, delay in zip(runs, delays, strict=True)]
    tiles = _energies(signal, cues)
    bands = tiles.reshape(len(cues), 3, len(_STARTS), 2).sum(-1)
    cues = [Cues(cue.steps, cue.delay, _levels(*bands[n, :2] + 1e-20)) for n, cue in enumerate(cues)]
    whole = sum(float(run.powers.sum()) for run in runs)
    diffuse = sum(run.error for run in runs) / whole
    opposite = sum(float(run.powers.sum()) for run in runs if run.is_opposite) / whole
    channel, error_db = _mix(signal, cues, bands)
    return Mixed(channel, cues, error_db, diffuse, opposite)


def _correlate(signal: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return for each step the energies of both channels, [S, 2], and their correlation by delay, [S, D]."""
    count, size = steps_of(signal.shape[1]), 2 * STEP
    powers = np.empty((count, 2), np.float32)
    correlations = np.empty((count, 2 * MAX_DELAY + 1), np.float32)
    for first in range(0, count, STEPS_PER_BLOCK):
        some = min(STEPS_PER_BLOCK, count - first)
        # Right is taken with what is around each step: left may be earlier or later.
        start = first * STEP - MAX_DELAY - 1
        piece = cut(signal, start, start + some * STEP + 2 * MAX_DELAY + 1)
        left, right = piece[:, 1:] - np.float32(EMPHASIS) * piece[:, :-1]
        own = left[MAX_DELAY : MAX_DELAY + some * STEP].reshape(some, STEP)
        around = np.lib.stride_tricks.sliding_window_view(right, STEP + 2 * MAX_DELAY)[::STEP]
        lags = np.fft.irfft(np.conj(np.fft.rfft(own, size)) * np.fft.rfft(around, size))
        # Lag 0 compares left with right MAX_DELAY earlier, which is the largest delay.
        correlations[first : first + some] = lags[:, 2 * MAX_DELAY :: -1]
        powers[first : first + some, 0] = np.square(own).sum(1)
        powers[first : first + some, 1] = np.square(around[:, MAX_DELAY:-MAX_DELAY]).sum(1)
    return powers, correlations


@dataclass(eq=False)
class _Run:
    """Steps that have cues in common, their sums, and the error of the prediction."""

    steps: int
    powers: NDArray[np.float32]
    correlation: NDArray[np.float32]

    def __post_init__(self) -> None:
        left, right = (float(power) for power in self.powers)
        shared = max(float(self.correlation.max()), 0.0)
        # The smaller eigenvalue of the covariance: what is left by the best common signal.
        self.error = (left + right - float(np.hypot(left - right, 2 * shared))) / 2
        self.is_opposite = -float(self.correlation.min()) > shared


def _joined(a: _Run, b: _Run) -> _Run:
    return _Run(a.steps + b.steps, a.powers + b.powers, a.correlation + b.correlation)


def _segment(powers: NDArray[np.float32], correlations: NDArray[np.float32]) -> list[_Run]:
    """Join neighbouring steps, those first whose common cues cost least, while they cost less than CHANGE."""
    total = powers.sum(1)
    scale = 1 / np.maximum(total, _pauses(total, STEPS_PER_BLOCK))[:, None]
    runs: list[_Run | None] = [
        _Run(1, p, c) for p, c in zip(powers * scale, correlations * scale, strict=True)
    ]
    # A doubly linked list of runs, and a heap of what joining each with the next costs.
    after, before = [*range(1, len(runs)), -1], [*range(-1, len(runs) - 1)]
    heap: list[tuple[float, int, int, _Run, _Run]] = []
    ticket = itertools.count()

    def offer(first: int) -> None:
        second = after[first] if first >= 0 else -1
        if second >= 0:
            a, b = runs[first], runs[second]
            assert a is not None and b is not None
            cost = _joined(a, b).error - a.error - b.error
            heapq.heappush(heap, (cost, next(ticket), first, a, b))

    for number in range(len(runs)):
        offer(number)
    while heap:
        cost, _, first, a, b = heapq.heappop(heap)
        second = after[first]
        if cost > CHANGE:
            break
        if runs[first] is not a or second < 0 or runs[second] is not b:
            continue
        runs[first], runs[second] = _joined(a, b), None
        after[first] = after[second]
        if after[first] >= 0:
            before[after[first]] = first
        offer(before[first])
        offer(first)
    return [run for run in runs if run is not None]


def _energies(signal: NDArray[np.float32], cues: Sequence[Cues]) -> NDArray[np.float64]:
    """Return energies of left and right, and the real part of their product, by tiles: [cues, 3, TILES]."""
    energies = np.zeros((len(cues), 3, len(TILES)))
    for _, owners, (left, right) in _aligned(signal, cues):
        found = _energy(left), _energy(right), (left * right.conj()).real
        for kind, values in enumerate(found):
            np.add.at(energies[:, kind], owners, np.add.reduceat(values, TILES, axis=1))
    return energies


def _aligned(
    signal: NDArray[np.float32], cues: Sequence[Cues]
) -> Iterator[tuple[range, NDArray[np.int64], tuple[NDArray[np.complex64], NDArray[np.complex64]]]]:
    """Yield frames, the cues of each, and the spectra of both channels without their delays."""
    left, right = np.array([cue.delays for cue in cues]).T
    for frames, owners in blocks(signal.shape[1], cues):
        spectra = analyse(signal[0], frames, left[owners]), analyse(signal[1], frames, right[owners])
        yield frames, owners, spectra


def _energy(spectra: NDArray[np.complex64]) -> NDArray[np.float32]:
    return np.square(spectra.real) + np.square(spectra.imag)


def _levels(left: NDArray[np.float64], right: NDArray[np.float64]) -> tuple[int, ...]:
    """Return the differences of level in dB from the energies of bands: one, or one for each band."""
    whole = _decibels(left.sum() / right.sum())
    # What is nearly silent has the level of the whole.
    floor = 1e-4 * (left + right).max() / (left + right).sum()
    bands = _decibels((left + floor * left.sum()) / (right + floor * right.sum()))
    if (np.abs(bands - whole) < FLAT_DB).all():
        bands = whole[None]
    return tuple(int(level) for level in np.rint(bands).clip(-MAX_LEVEL, MAX_LEVEL))


def _decibels(ratio: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(10 * np.log10(np.maximum(ratio, 1e-30)))


def _mix(
    signal: NDArray[np.float32],
    cues: list[Cues],
    bands: NDArray[np.float64],
) -> tuple[NDArray[np.float32], float]:
    """Mix the channels, each weighed by its gains, and measure the prediction from the mix.

    Args:
        signal: both channels.
        cues: their cues.
        bands: energies of left and right, and their product, [cues, 3, bands].

    Returns:
        The mix, and the error of the worst second in dB.
    """
    equaliser = np.stack([_equaliser(*one) for one in zip(bands, cues, strict=True)])
    channel = np.zeros(signal.shape[1], np.float32)
    errors, loudness = [], []
    for frames, owners, spectra in _aligned(signal, cues):
        gains = gains_of(cues, owners)
        one = (gains[0] * spectra[0] + gains[1] * spectra[1]) * equaliser[owners]
        overlap_add(one, frames, channel)
        error = np.zeros(len(frames))
        for spectrum, gain in zip(spectra, gains, strict=True):
            pair = (_energy(spectrum), _energy(one * gain))
            original, predicted = (np.add.reduceat(energy, TILES, axis=1) for energy in pair)
            floor = GATE * original.mean(0) + 1e-20  # of this block: soft ones come out as clear as loud ones
            error += np.abs(_decibels((predicted + floor) / (original + floor))).mean(1) / 2
        errors.append(error)
        loudness.append(sum(_energy(spectrum).sum(1) for spectrum in spectra))
    return channel, _worst_second(np.concatenate(errors), np.concatenate(loudness))


def _equaliser(bands: NDArray[np.float64], cues: Cues) -> NDArray[np.float32]:
    """Return what the weighed sum is multiplied by in each bin to have the mean energy of both channels."""
    left, right, product = bands
    own_left, own_right = cues.gains[:, np.rint(CENTRES).astype(int)]
    mixed = (own_left**2 * left + own_right**2 * right + 2 * own_left * own_right * product) / 4
    missing = np.sqrt((left + right) / 2 / np.maximum(mixed, 1e-30)).clip(1, MOST_GAIN)
    return np.asarray(np.interp(np.arange(HOP + 1), CENTRES, missing / 2), np.float32)


def _worst_second(errors: NDArray[np.float64], loudness: NDArray[np.float64]) -> float:
    """Return the largest mean error of frames that are no pauses, of SECOND frames with a quarter of such."""
    loud = loudness > _pauses(loudness, FRAMES_PER_BLOCK)
    window = np.ones(SECOND)
    counts = np.convolve(loud, window)
    sums = np.convolve(np.where(loud, errors, 0), window)
    enough = counts >= min(SECOND // 4, counts.max())
    return float((sums[enough] / counts[enough]).max())


def _pauses(energies: NDArray[Any], block: int) -> NDArray[Any]:
    """Return for each energy what it exceeds if it is no pause among the `block` around it, about 8 seconds.

    Soft parts of a recording are coded at a loudness of their own (`loudness.loudness_of`).
    """
    parts = np.split(energies, range(block, len(energies), block))
    return np.concatenate([np.full(len(part), max(GATE * np.quantile(part, 0.95), 1e-30)) for part in parts])
