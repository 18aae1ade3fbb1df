"""Parametric stereo: two channels from one, by their differences of level and of time.

Faller and Baumgarte, "Binaural Cue Coding", 2003; Breebaart et al., "Parametric Coding of Stereo Audio",
2005. Here without coherence and with few bands, since reverberation took no benefit from more of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..bitstream.binary import Cursor, varint
from ..errors import DamagedError

HOP = 256
"""Samples from one frame to the next; a frame has two hops, and a sine window before and after filtering."""

STEP = 2048
"""Samples to which cues hold: 0.128 seconds at 16 kHz."""

MAX_DELAY = 64
"""Largest delay of one channel behind the other, in samples: 4 ms, the sound's way along 1.4 metres."""

MAX_LEVEL = 60
"""Largest difference of level, in dB."""

EDGES = (0, 6, 14, 26, 43, 68, 106, 164, 257)
"""Edges of the bands in bins of 31.25 Hz, about equal on the ERB scale (Glasberg and Moore 1990)."""

FRAMES_PER_BLOCK = 512
"""Frames that are filtered together: 8.2 seconds."""

_WINDOW = np.sin(np.pi * (np.arange(2 * HOP) + 0.5) / (2 * HOP)).astype(np.float32)
CENTRES = (np.array(EDGES[:-1]) + np.array(EDGES[1:]) - 1) / 2
_BIAS = 64
_BANDS = len(EDGES) - 1


@dataclass(frozen=True)
class Cues:
    """How left and right differ for a while.

    Attributes:
        steps: how long, in steps, at least 1.
        delay: of left behind right, in samples; negative: of right behind left.
        level_differences: of left above right in dB, of all frequencies, or of each band.
    """

    steps: int
    delay: int
    level_differences: tuple[int, ...]

    @property
    def delays(self) -> tuple[int, int]:
        """Delays of left and right behind the one channel, in samples; at least one is 0."""
        return max(self.delay, 0), max(-self.delay, 0)

    @property
    def gains(self) -> NDArray[np.float64]:
        """Gains of left and right in each bin, [2, HOP + 1]; the sum of their squares is 2."""
        level = np.asarray(self.level_differences[0], np.float64)
        if len(self.level_differences) > 1:
            level = np.interp(np.arange(HOP + 1), CENTRES, self.level_differences)
        ratio = np.broadcast_to(10 ** (level / 10), HOP + 1)
        return np.sqrt(2 / (1 + np.stack((1 / ratio, ratio))))


def steps_of(samples: int) -> int:
    """Return the number of steps in a channel."""
    return -(-samples // STEP)


def pack(cues: Sequence[Cues]) -> bytes:
    """Write the box of cues."""
    box = bytearray()
    for cue in cues:
        box += varint(cue.steps) + bytes((cue.delay + _BIAS, len(cue.level_differences)))
        box += bytes(level + _BIAS for level in cue.level_differences)
    return bytes(box)


def unpack(box: bytes, samples: int) -> list[Cues]:
    """Read the box of cues of a channel of so many samples.

    Raises:
        DamagedError: not what an encoder writes.
    """
    cursor, cues, left = Cursor(box), list[Cues](), steps_of(samples)
    while cursor.at < len(box):
        steps, delay, bands = cursor.varint(), cursor.byte() - _BIAS, cursor.byte()
        levels = tuple(byte - _BIAS for byte in cursor.take(bands))
        left -= steps
        loudest = max(map(abs, levels), default=0)
        if steps < 1 or left < 0 or bands not in (1, _BANDS) or abs(delay) > MAX_DELAY or loudest > MAX_LEVEL:
            raise DamagedError("damaged cues of stereo")
        cues.append(Cues(steps, delay, levels))
    if left:
        raise DamagedError(f"cues of stereo end {left} steps too early")
    return cues


def upmix(channel: NDArray[np.float32], cues: Sequence[Cues]) -> NDArray[np.float32]:
    """Make left and right of one channel, [N]: float32 [2, N]."""
    signal = np.zeros((2, len(channel)), np.float32)
    delays = np.array([cue.delays for cue in cues]).T
    for frames, owners in blocks(len(channel), cues):
        for target, delay, gain in zip(signal, delays, gains_of(cues, owners), strict=True):
            overlap_add(analyse(channel, frames, -delay[owners]) * gain, frames, target)
    return signal


def gains_of(cues: Sequence[Cues], owners: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the gains of left and right in frames, given the cues of each: [2, frames, HOP + 1]."""
    some = [cue.gains for cue in cues[owners[0] : owners[-1] + 1]]
    return np.stack(some, 1).astype(np.float32)[:, owners - owners[0]]


def blocks(samples: int, cues: Sequence[Cues]) -> Iterator[tuple[range, NDArray[np.int64]]]:
    """Yield runs of frames, and the index of the cues of each frame.

    Frame k begins at sample (k - 1) HOP and has the cues of its centre.
    """
    ends = np.cumsum([cue.steps for cue in cues])
    count = -(-samples // HOP) + 1
    for first in range(0, count, FRAMES_PER_BLOCK):
        frames = range(first, min(first + FRAMES_PER_BLOCK, count))
        steps = np.minimum(np.arange(frames.start, frames.stop) * HOP // STEP, ends[-1] - 1)
        yield frames, np.searchsorted(ends, steps, side="right")


def cut(signal: NDArray[np.float32], start: int, stop: int) -> NDArray[np.float32]:
    """Return samples from start to stop of [..., N], zeros where there are none."""
    inner = signal[..., max(start, 0) : max(stop, 0)]
    before = max(-start, 0)
    widths = [(0, 0)] * (signal.ndim - 1) + [(before, stop - start - before - inner.shape[-1])]
    return np.pad(inner, widths)


def analyse(channel: NDArray[np.float32], frames: range, shifts: NDArray[np.int64]) -> NDArray[np.complex64]:
    """Return the spectra of frames that begin so many samples later: [frames, HOP + 1]."""
    start, stop = (frames.start - 1) * HOP - MAX_DELAY, (frames.stop + 1) * HOP + MAX_DELAY
    windows = np.lib.stride_tricks.sliding_window_view(cut(channel, start, stop), 2 * HOP)
    firsts = HOP * np.arange(len(frames)) + MAX_DELAY + shifts
    return np.fft.rfft(windows[firsts] * _WINDOW).astype(np.complex64, copy=False)


def overlap_add(spectra: NDArray[np.complex64], frames: range, target: NDArray[np.float32]) -> None:
    """Add frames to a channel, [N]."""
    pieces = (np.fft.irfft(spectra, 2 * HOP) * _WINDOW).astype(np.float32)
    start = (frames.start - 1) * HOP
    added = np.zeros((len(frames) + 1) * HOP, np.float32)
    added[:-HOP] += pieces[:, :HOP].ravel()
    added[HOP:] += pieces[:, HOP:].ravel()
    inner = target[max(start, 0) : start + len(added)]
    inner += added[max(-start, 0) :][: len(inner)]
