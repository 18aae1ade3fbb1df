"""Prior of the residual of an image: DCT coefficients, each given the magnitudes around it.

Coefficients of all 8x8 blocks of a region are coded frequency by frequency, low ones first. The mean
magnitude of each diagonal of frequencies and each channel is known (it is in the payload). A block whose
lower frequencies, and those of its neighbours, were larger than that is expected to be larger by the same
ratio: so the prior adapts to texture, edges and grain of any image, without training. All of it is integers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .base import Array, Prior, Step, Symbols
from .gaussian_tables import LATENT_UNIT
from .laplace import LEVELS, MAGNITUDE_BITS, Laplace, levels_of, magnitude

PLANE = "residual"
SIDE = 8
"""Pixels of a block along each axis."""

DIAGONALS = 2 * SIDE - 1

ORDER = tuple(sorted(range(SIDE * SIDE), key=lambda n: (n // SIDE + n % SIDE, n // SIDE)))
"""Frequencies in coding order, as row * SIDE + column: by diagonals, each from its upper right."""

OWN_CHANNEL, OWN_BLOCK, NEIGHBOURS = 4, 8, 3
"""Weights: of the channel itself against all channels, of the block, and of the mean of its neighbours."""

FADING = 3
"""Magnitudes of earlier frequencies fade by 2**-FADING with every frequency."""


@dataclass(frozen=True, eq=False)
class ResidualPrior(Prior):
    """p(coefficients of a region).

    Attributes:
        levels: of the mean magnitude, uint8 [DIAGONALS, C] below `laplace.LEVELS`.
    """

    levels: NDArray[np.uint8]

    @property
    def magnitudes(self) -> NDArray[np.int64]:
        """Mean magnitudes of the levels, in 2**-MAGNITUDE_BITS steps."""
        known = [round(magnitude(level) * 2**MAGNITUDE_BITS) for level in range(LEVELS)]
        return np.array(known, np.int64)[self.levels]

    def scan(self, known: Sequence[Symbols], index: int) -> _Scan:
        """Begin a scan of a region, as in `Prior.scan`."""
        del index
        return _Scan(self.magnitudes, known[0][PLANE])

    def to_tensors(self) -> dict[str, Array]:
        """Return nothing: it is no part of the weights."""
        return {}


class _Scan:
    """Scan of one region, int16 [h, w, 64 C] in sixteenths of a step; channels go together."""

    def __init__(self, magnitudes: NDArray[np.int64], known: Array) -> None:
        self._known, self._magnitudes = known, magnitudes
        self._channels = magnitudes.shape[1]
        self._seen = np.zeros((*known.shape[:2], self._channels), np.int64)
        self._expected = np.zeros(self._channels, np.int64)
        self._neighbours = _sums_around(np.ones((*known.shape[:2], 1), np.int64))

    @property
    def steps(self) -> Iterator[Step]:
        rows, columns = np.indices(self._known.shape[:2]).reshape(2, -1)
        for number in range(SIDE * SIDE):
            part = slice(number * self._channels, (number + 1) * self._channels)
            yield Step(number, PLANE, [(rows, columns, part)])

    def models(self, step: Step) -> Iterator[Laplace]:
        if step.number:
            self._update(step.number - 1)
        around = _sums_around(self._seen) // np.maximum(self._neighbours, 1)
        seen = _mixed(OWN_BLOCK * self._seen + NEIGHBOURS * around)
        expected = _mixed((OWN_BLOCK + NEIGHBOURS) * self._expected)
        base, one = self._base(step.number), OWN_BLOCK << MAGNITUDE_BITS - 1
        # Sums stay below 2**39 and base below 2**22.
        levels = levels_of(base * (seen + one >> 4) // (expected + one >> 4)).reshape(-1, self._channels)
        yield Laplace(np.zeros(levels.shape, np.int32), levels)

    def _base(self, number: int) -> NDArray[np.int64]:
        row, column = divmod(ORDER[number], SIDE)
        found: NDArray[np.int64] = self._magnitudes[row + column]
        return found

    def _update(self, number: int) -> None:
        """Add the magnitudes of a frequency to those that were seen and expected."""
        part = self._known[:, :, number * self._channels : (number + 1) * self._channels]
        magnitudes = np.abs(part.astype(np.int64)) << MAGNITUDE_BITS - (LATENT_UNIT.bit_length() - 1)
        self._seen += magnitudes - (self._seen >> FADING)
        self._expected += self._base(number) - (self._expected >> FADING)


def _mixed(sums: NDArray[np.int64]) -> NDArray[np.int64]:
    """Weigh each channel against all, the last axis."""
    mixed: NDArray[np.int64] = OWN_CHANNEL * sums + sums.sum(-1, keepdims=True)
    return mixed


def _sums_around(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sum over the up to eight neighbours of each position: [h, w, C]."""
    height, width, _ = values.shape
    rows = np.pad(values, ((1, 1), (0, 0), (0, 0)))
    rows = rows[:height] + rows[1 : height + 1] + rows[2:]
    wide = np.pad(rows, ((0, 0), (1, 1), (0, 0)))
    around: NDArray[np.int64] = wide[:, :width] + wide[:, 1 : width + 1] + wide[:, 2:] - values
    return around
