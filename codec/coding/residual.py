"""Code what the model leaves out of an image, to a step: the residual of each region as DCT coefficients.

The payload of a region has the levels of mean magnitude, a byte for each diagonal of frequencies and channel,
and then the range-coded coefficients.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..bitstream.container import Part
from ..errors import DamagedError
from ..priors.base import EntropyModel, Step
from ..priors.gaussian_tables import LATENT_UNIT, Gaussian
from ..priors.laplace import LEVELS, MAGNITUDE_BITS, levels_of
from ..priors.residual import DIAGONALS, ORDER, PLANE, SIDE, ResidualPrior
from ..transform import dct
from . import driver

STEPS_PER_OCTAVE = 32

TRADEOFF = np.float32(26 / 3)
"""Bits equivalent to a squared error of one step: the slope of the rate-distortion curve at high rates."""

_DIAGONAL = np.array([n // SIDE + n % SIDE for n in ORDER])


def step_size(step: int) -> float:
    """Return the step of coefficients in 8-bit units: 1 to 251 for 0 to 255."""
    return float(2 ** (step / STEPS_PER_OCTAVE))


def encode(residual: NDArray[np.float32], step: int) -> Part:
    """Code the residual of a region, [H, W, C]; empty where it vanishes at this step."""
    channels = residual.shape[2]
    targets = dct.forward(residual) / np.float32(step_size(step))
    magnitudes = np.abs(np.rint(targets)).mean((0, 1)).reshape(-1, channels)
    means = np.stack([magnitudes[diagonal == _DIAGONAL].mean(0) for diagonal in range(DIAGONALS)])
    levels = levels_of(np.rint(means * 2**MAGNITUDE_BITS).astype(np.int64))
    (coded,) = driver.encode(ResidualPrior(levels), [{PLANE: targets}], 0, _quantise)
    if not coded.symbols[PLANE].any():
        return Part(b"")
    return Part(levels.tobytes() + coded.payload)


def decode(payload: bytes, shape: tuple[int, int, int], step: int) -> NDArray[np.float32]:
    """Decode the residual of a region, [H, W, C].

    Raises:
        DamagedError: bytes that no encoder writes.
    """
    height, width, channels = shape
    size = DIAGONALS * channels
    levels = np.frombuffer(payload[:size], np.uint8)
    if len(levels) < size or levels.max() >= LEVELS:
        raise DamagedError("a residual without levels")
    grid = -(-height // SIDE), -(-width // SIDE)
    known = {PLANE: np.zeros((*grid, SIDE * SIDE * channels), np.int16)}
    prior = ResidualPrior(levels.reshape(DIAGONALS, channels))
    if driver.decode(prior, [payload[size:]], [known], 0) != [True]:
        raise DamagedError("a residual that no encoder writes")
    coefficients = known[PLANE] * np.float32(step_size(step) / LATENT_UNIT)
    return dct.inverse(coefficients, height, width)


def _quantise(step: Step, targets: NDArray[np.float32], model: EntropyModel) -> NDArray[np.int32]:
    del step
    if not isinstance(model, Gaussian):
        raise TypeError("coefficients have signed tables")
    return model.quantise(targets, np.full(targets.shape[1], TRADEOFF))
