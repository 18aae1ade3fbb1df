"""Code the pixels of a tile without loss by the pyramid of `lossless-image`, for photographs.

The payload is LEARNED_PIXELS, the fingerprint of the weights, and the range-coded pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .. import weights
from ..bitstream.container import LEARNED, LEARNED_PIXELS
from ..errors import DamagedError, ModelError, UsageError
from ..models.base import Model
from ..priors.gaussian_tables import LATENT_UNIT
from ..priors.pyramid import PLANE
from . import driver

NAME = "lossless-image"
"""The shipped weights that it is coded by."""

FINGERPRINT_BYTES = 8


def pack(pixels: NDArray[np.uint8]) -> bytes | None:
    """Code the pixels of a tile, uint8 [H, W, C]; None without the weights."""
    try:
        model = weights.load(NAME, "cpu")
    except UsageError:
        return None
    targets = {PLANE: pixels.astype(np.float32)}
    (coded,) = driver.encode(model.priors[LEARNED], [targets], 0)
    return bytes([LEARNED_PIXELS]) + bytes.fromhex(model.card.fingerprint) + coded.payload


def unpack(data: bytes, size: tuple[int, ...], channels: int) -> NDArray[np.uint8]:
    """Decode the pixels of `pack`: uint8 [H, W, C].

    Args:
        data: the payload of a tile, from its signature on.
        size: height and width, from the checked header.
        channels: 1 or 3.

    Raises:
        ModelError: it was coded by other weights than those here.
        DamagedError: bytes that no encoder writes.
    """
    if len(data) <= 1 + FINGERPRINT_BYTES:
        raise DamagedError("stored pixels without a fingerprint")
    prior = _model(data[1 : 1 + FINGERPRINT_BYTES].hex()).priors[LEARNED]
    known = {PLANE: np.zeros((*size, channels), np.int16)}
    if driver.decode(prior, [data[1 + FINGERPRINT_BYTES :]], [known], 0) != [True]:
        raise DamagedError("stored pixels that no encoder writes")
    return (known[PLANE] // LATENT_UNIT).astype(np.uint8)


def _model(fingerprint: str) -> Model:
    """Return the model with these weights.

    Raises:
        ModelError: they are not here.
    """
    needs = f"stored pixels need {NAME} ({fingerprint})"
    try:
        model = weights.load(NAME, "cpu")
    except UsageError as error:
        raise ModelError(f"{needs}, which is not installed", "install vqcodec with its weights") from error
    if model.card.fingerprint != fingerprint:
        raise ModelError(
            f"{needs}, not {model.card.fingerprint}", "decode with the version that wrote the file"
        )
    return model
