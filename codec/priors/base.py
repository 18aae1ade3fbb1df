"""What a prior is, and the one driver that carries codes through any of them.

A prior says which codes can be coded together (a step) and with which integer frequencies, given the codes of
earlier steps. Both directions walk through the same steps and see the same codes, so the frequencies agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import DamagedError
from ..rangecoder import TOTAL, Decoder, Encoder

Codes = NDArray[np.int32]
Frequencies = NDArray[np.uint32]
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


def compress(prior: Prior, regions: Sequence[Codes]) -> list[bytes]:
    """Code regions, each into bytes of its own.

    Args:
        prior: gives the frequencies.
        regions: int32 each, [h, w] of a picture, values in 0..K-1.

    Raises:
        ValueError: a code out of range.
    """
    for region in regions:
        if region.size and not 0 <= region.min() <= region.max() < prior.levels:
            raise ValueError(f"codes must be in 0..{prior.levels - 1}")
    # The scan sees a copy that grows as the decoder's will, so that it cannot use what a decoder lacks.
    known = [np.zeros(region.shape, np.int32) for region in regions]
    scan = prior.start(known)
    encoders = [Encoder() for _ in regions]
    for step in range(scan.steps):
        work = zip(encoders, regions, known, scan.positions(step), scan.frequencies(step), strict=True)
        for encoder, region, copy, where, frequencies in work:
            symbols = region[where]
            encoder.encode(symbols, frequencies)
            copy[where] = symbols
    return [encoder.finish() for encoder in encoders]


def decompress(prior: Prior, payloads: Sequence[bytes], shapes: Sequence[tuple[int, ...]]) -> list[Codes]:
    """Undo `compress`.

    Args:
        prior: the one that `compress` had.
        payloads: bytes of each region.
        shapes: of each region.

    Returns:
        int32 per region, values in 0..K-1 whatever the payload.

    Raises:
        DamagedError: no encoder writes these bytes.
    """
    if len(payloads) != len(shapes):
        raise DamagedError(f"{len(payloads)} chunks for {len(shapes)} regions")
    codes = [np.zeros(shape, np.int32) for shape in shapes]
    scan = prior.start(codes)
    decoders = [Decoder(payload) for payload in payloads]
    for step in range(scan.steps):
        work = zip(decoders, codes, scan.positions(step), scan.frequencies(step), strict=True)
        for decoder, region, where, frequencies in work:
            region[where] = decoder.decode(frequencies)
    for decoder in decoders:
        decoder.finish()
    return codes


def cost_bits(prior: Prior, regions: Sequence[Codes]) -> float:
    """Bits that regions ought to take: the sum of -log2 of the probabilities of their codes.

    Args:
        prior: gives the frequencies.
        regions: int32 each, values in 0..K-1.
    """
    scan = prior.start(regions)
    bits = 0.0
    for step in range(scan.steps):
        for region, where, frequencies in zip(
            regions, scan.positions(step), scan.frequencies(step), strict=True
        ):
            chosen = np.take_along_axis(frequencies, region[where][:, None], axis=1)
            bits -= float(np.log2(chosen / TOTAL).sum())
    return bits
