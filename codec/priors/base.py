"""What a prior is, and the one driver that carries codes through any of them.

A prior says which codes can be coded together (a step) and with which integer frequencies, given the codes of
earlier steps. Both directions walk through the same steps and see the same codes, so the frequencies agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..coding.rangecoder import TOTAL, Decoder, Encoder
from ..errors import DamagedError

Codes = NDArray[np.int32]
Frequencies = NDArray[np.uint32]
TOGETHER = 32
"""Codes of a region that are written together, at least."""

Positions = tuple[NDArray[np.intp], ...]
"""An array of indices for each axis of the codes, as numpy takes them: rows and columns of a picture's."""


class Scan(Protocol):
    """One walk through the regions of a picture."""

    @property
    def steps(self) -> int:
        """How many steps visit every code once."""

    def positions(self, step: int) -> Sequence[Positions]:
        """Where the codes of this step are in each region; empty arrays where it has none."""

    def frequencies(self, step: int) -> Iterable[Frequencies]:
        """Frequencies of the codes at `positions(step)`: uint32 [n, K] per region, in the order of positions.

        Asked once per step, in order, after the codes of all earlier steps are in place. They may come one by
        one: what they depend on is read before the first is given out.
        """


class Prior(Protocol):
    """p(codes) as integer frequencies, the same on every machine."""

    @property
    def levels(self) -> int:
        """K, the number of different codes."""

    def start(self, codes: Sequence[Codes]) -> Scan:
        """Begin a walk.

        Args:
            codes: int32 per region, [h, w] of a picture, which the driver fills step by step; the scan reads
                there what the steps before have coded, and never changes them.
        """


@dataclass(frozen=True)
class Coded:
    """A region in bytes.

    Attributes:
        payload: of the range coder.
        bits: that it ought to take: the sum of -log2 of the probabilities of its codes.
    """

    payload: bytes
    bits: float


def coded(prior: Prior, regions: Sequence[Codes]) -> list[Coded]:
    """Code regions, each into bytes of its own.

    Args:
        prior: gives the frequencies.
        regions: int32 each, [h, w] of a picture or [T] of a sound, values in 0..K-1.

    Raises:
        ValueError: a code out of range.
    """
    for region in regions:
        if region.size and not 0 <= region.min() <= region.max() < prior.levels:
            raise ValueError(f"codes must be in 0..{prior.levels - 1}")
    # The scan sees a copy that grows as the decoder's will, so that it cannot use what a decoder lacks.
    known = [np.zeros(region.shape, np.int32) for region in regions]
    scan = prior.start(known)
    writers = [_Writer() for _ in regions]
    for step in range(scan.steps):
        work = zip(writers, regions, known, scan.positions(step), scan.frequencies(step), strict=True)
        for writer, region, copy, where, frequencies in work:
            symbols = region[where]
            writer.put(symbols, frequencies)
            copy[where] = symbols
    return [writer.finish() for writer in writers]


class _Writer:
    """Codes a region; of steps with few codes some together, since a call costs more than a code."""

    def __init__(self) -> None:
        self.encoder, self.bits = Encoder(), 0.0
        self.symbols: list[Codes] = []
        self.frequencies: list[Frequencies] = []
        self.waiting = 0

    def put(self, symbols: Codes, frequencies: Frequencies) -> None:
        self.symbols.append(symbols)
        self.frequencies.append(frequencies)
        self.waiting += len(symbols)
        if self.waiting >= TOGETHER:
            self.flush()

    def flush(self) -> None:
        if not self.waiting:
            return
        symbols, frequencies = self.symbols[0], self.frequencies[0]
        if len(self.symbols) > 1:
            symbols, frequencies = np.concatenate(self.symbols), np.concatenate(self.frequencies)
        self.encoder.encode(symbols, frequencies)
        self.bits -= float(np.log2(frequencies[np.arange(len(symbols)), symbols] / TOTAL).sum())
        self.symbols, self.frequencies, self.waiting = [], [], 0

    def finish(self) -> Coded:
        self.flush()
        return Coded(self.encoder.finish(), self.bits)


def compress(prior: Prior, regions: Sequence[Codes]) -> list[bytes]:
    """The payloads of `coded`."""
    return [region.payload for region in coded(prior, regions)]


def decompress(prior: Prior, payloads: Sequence[bytes], shapes: Sequence[tuple[int, ...]]) -> list[Codes]:
    """Undo `compress`; arguments as in `salvaged`.

    Returns:
        int32 per region, values in 0..K-1 whatever the payload.

    Raises:
        DamagedError: no encoder writes these bytes.
    """
    if len(payloads) != len(shapes):
        raise DamagedError(f"{len(payloads)} chunks for {len(shapes)} regions")
    found = salvaged(prior, payloads, shapes)
    codes = [region for region in found if region is not None]
    if len(codes) < len(found):
        raise DamagedError("codes that no encoder writes")
    return codes


def salvaged(
    prior: Prior, payloads: Sequence[bytes], shapes: Sequence[tuple[int, ...]]
) -> list[Codes | None]:
    """Undo `compress` where that can be done, all in one walk.

    Args:
        prior: the one that `compress` had.
        payloads: bytes of each region.
        shapes: of each region.

    Returns:
        int32 per region, values in 0..K-1; None for a region whose bytes no encoder writes.
    """
    codes = [np.zeros(shape, np.int32) for shape in shapes]
    scan = prior.start(codes)
    decoders = [opened(payload) for payload in payloads]
    for step in range(scan.steps):
        work = zip(codes, scan.positions(step), scan.frequencies(step), strict=True)
        for number, (region, where, frequencies) in enumerate(work):
            decoder = decoders[number]
            if decoder is None:
                continue
            try:
                region[where] = decoder.decode(frequencies)
            except DamagedError:
                decoders[number] = None
    return [region if ended(decoder) else None for region, decoder in zip(codes, decoders, strict=True)]


def opened(payload: bytes) -> Decoder | None:
    """A decoder at the first word of a payload; None where that is no whole number of words."""
    try:
        return Decoder(payload)
    except DamagedError:
        return None


def ended(decoder: Decoder | None) -> bool:
    """Whether a decoder is still there, and has read all."""
    try:
        if decoder is not None:
            decoder.finish()
    except DamagedError:
        return False
    return decoder is not None


def draw(prior: Prior, known: Sequence[Codes], kept: int, seeds: Sequence[tuple[int, int]]) -> list[Codes]:
    """Draw codes from a prior, region by region side by side.

    The least frequency of 1 that every code has for the coder's sake is left out: what a prior excludes is
    not drawn.

    Args:
        prior: gives the frequencies.
        known: int32 per region, [h, w] or [T]; their shapes, and the codes that are kept.
        kept: rows of a picture's region, or codes of a sound's, that stay as they are, from the first on.
        seeds: two numbers below 2**64 per region: the same give the same codes on every machine.
    """
    codes = [np.where(np.arange(len(r)).reshape(-1, *[1] * (r.ndim - 1)) < kept, r, 0) for r in known]
    scan = prior.start(codes)
    # Raw numbers of a counter-based generator: what numpy makes of them may change, they do not.
    sources = [np.random.Philox(key=np.array(seed, np.uint64)) for seed in seeds]
    for step in range(scan.steps):
        work = zip(sources, codes, scan.positions(step), scan.frequencies(step), strict=True)
        for source, region, where, frequencies in work:
            if not len(frequencies):
                continue
            rising = np.cumsum(frequencies.astype(np.int64) - 1, axis=1)
            uniform = (source.random_raw(len(frequencies)) >> np.uint64(40)).astype(np.int64)
            chosen = (rising <= (uniform * rising[:, -1] >> 24)[:, None]).sum(1)
            region[where] = np.where(where[0] < kept, region[where], chosen)
    return codes


def cost_bits(prior: Prior, regions: Sequence[Codes]) -> float:
    """Bits that regions ought to take, all together."""
    return sum(region.bits for region in coded(prior, regions))
