"""Prepare channels of audio for their model; what boxes say of them: levels, and how two were predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..bitstream.geometry import SEGMENT, AudioGeometry, Region
from ..errors import DamagedError, confined
from ..transform import loudness, stereo, stereo_analysis
from ..transform.highpass import BLOCK, high_pass
from ..transform.loudness import PARTS, Loudness
from ..transform.stereo import Cues

REGIONS = 2
"""Regions of 8 seconds that excerpts are taken of, so that long audio takes hardly longer."""


@dataclass(frozen=True, eq=False)
class Excerpts:
    """What the decoded audio of a file is compared with.

    Attributes:
        regions: some of those that are coded, and their samples, float32 [n], at the loudness that they have
            in the codec.
        kept: share of the energy that the filter left, of the channel that lost most.
    """

    regions: list[tuple[Region, NDArray[np.float32]]]
    kept: float


@dataclass(frozen=True, eq=False)
class Prepared:
    """Channels as they are coded.

    Attributes:
        signal: float32 [C, N], without what lies below `highpass.CUTOFF`; two channels that one is enough for
            are the mid and a silent side.
        levels: the loudness of each.
        cues: the box by which two channels are predicted from the mid; None: they are equal, or coded.
        mid_side: whether one channel is enough for both.
        kept: as of `Excerpts`.
    """

    signal: NDArray[np.float32]
    levels: list[Loudness]
    cues: bytes | None
    mid_side: bool
    kept: float

    def excerpts(self, geometry: AudioGeometry) -> Excerpts:
        """Return some regions of the audio."""
        audible = [region for region in geometry.regions if region.channel in geometry.audible]
        places = (np.arange(REGIONS) + 0.5) / REGIONS * len(audible)
        chosen = {int(place): audible[int(place)] for place in places if audible}
        return Excerpts([(region, self._normalised(region)) for region in chosen.values()], self.kept)

    def _normalised(self, region: Region) -> NDArray[np.float32]:
        channel, (where,) = region.channel or 0, region.samples
        part: NDArray[np.float32] = self.signal[channel, where]
        return part / np.float32(self.levels[channel].factors(where.start, where.start + len(part)))


def prepare(signal: NDArray[np.float32], rate: int, segment: int, *, joint: bool = True) -> Prepared:
    """Filter channels, float32 [C, N], and measure the loudness of their segments of so many samples.

    With `joint`, two channels become one where one is enough for both.
    """
    filtered, cues = high_pass(signal, rate), None
    kept = _kept([_energy(channel) for channel in signal], [_energy(channel) for channel in filtered])
    coded = filtered
    if joint and len(signal) == 2:
        coded, cues = _shared(filtered)
    levels = [loudness.loudness_of(channel, segment) for channel in coded]
    return Prepared(coded, levels, cues, coded is not filtered, kept)


def _kept(before: list[float], after: list[float]) -> float:
    """Return the smallest share of energy that is left, of channels less than 30 dB below the loudest."""
    least = max(loudness.GATE * max(before, default=0.0), loudness.SILENT**2)
    return min((b / a for a, b in zip(before, after, strict=True) if a > least), default=1.0)


def _energy(channel: NDArray[np.float32]) -> float:
    """Return the variance of a channel: nobody hears its mean."""
    blocks = (channel[at : at + BLOCK].astype(np.float64) for at in range(0, len(channel), BLOCK))
    sums = [(block.sum(), np.square(block).sum()) for block in blocks]
    mean, square = np.sum(sums, 0) / len(channel) if sums else (0.0, 0.0)
    return float(square - mean**2)


def _shared(signal: NDArray[np.float32]) -> tuple[NDArray[np.float32], bytes | None]:
    """Return two channels, float32 [2, N], as mid and a silent side, where one is enough for both.

    Returns:
        The channels to code: the given ones where they are too different. And the box of cues, where they are
        not alike but predicted from the mid.
    """
    if loudness.is_mono(signal):
        middle, cues = signal.mean(0), None
    elif (mixed := stereo_analysis.mix(signal)) is not None and mixed.is_near:
        middle, cues = mixed.channel, stereo.pack(mixed.cues)
    else:
        return signal, None
    both = np.zeros(signal.shape, np.float32)  # of a side that is never written, nothing is in memory
    both[0] = middle
    return both, cues


def unpack_cues(
    box: bytes | None, geometry: AudioGeometry, damage: list[str], *, salvage: bool
) -> list[Cues]:
    """Return the cues of two channels, none where they are not predicted; append to `damage` when salvaging.

    Raises:
        DamagedError: a box that no encoder writes, without `salvage`.
    """
    if box is None:
        return []
    with confined("box stereo", damage, salvage=salvage):
        if not geometry.mid_side or geometry.gains[1]:
            raise DamagedError("cues of stereo, and two coded channels")
        return stereo.unpack(box, geometry.samples)
    return []


def pack_levels(levels: Sequence[Loudness], geometry: AudioGeometry) -> bytes | None:
    """Return the levels of all chunks, in their order, of one or PARTS each; None where all are zero."""
    if not any(any(channel.levels) for channel in levels):
        return None
    length = SEGMENT * geometry.stride
    parts = max(length // channel.segment for channel in levels if channel.levels)
    box = bytearray()
    for region in geometry.regions:
        channel = levels[region.channel or 0]
        own = length // channel.segment if channel.levels else 1
        first = region.samples[0].start // length * own
        steps = channel.levels[first : first + own].ljust(own, b"\0")
        box += steps if own == parts else steps * parts
    return bytes(box)


def unpack_levels(
    levels: bytes, geometry: AudioGeometry, damage: list[str], *, salvage: bool
) -> list[Loudness]:
    """Return the loudness of each channel, by the gains of the header and the box of levels.

    Raises:
        DamagedError: levels of other chunks, without `salvage`.
    """
    parts = PARTS if len(levels) == PARTS * geometry.chunk_count else 1
    if levels and len(levels) != parts * geometry.chunk_count:
        if not salvage:
            raise DamagedError(f"{len(levels)} levels for {geometry.chunk_count} chunks")
        damage.append("damaged in box levels")
        levels = b""
    rows = [bytearray() for _ in geometry.gains]
    for number, region in enumerate(geometry.regions if levels else ()):
        rows[region.channel or 0] += levels[parts * number : parts * (number + 1)]
    segment = SEGMENT * geometry.stride // parts
    return [Loudness(gain, bytes(row), segment) for gain, row in zip(geometry.gains, rows, strict=True)]
