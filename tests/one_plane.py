"""Coding and sampling by a prior over one plane, with bare arrays in the place of planes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from vqcodec.coding import driver
from vqcodec.errors import DamagedError
from vqcodec.priors.base import Prior


def coded(prior: Prior, regions: Sequence[np.ndarray], index: int = 0) -> list[driver.CodedRegion]:
    return driver.encode(prior, [{prior.plane: region} for region in regions], index)


def compress(prior: Prior, regions: Sequence[np.ndarray]) -> list[bytes]:
    return [region.payload for region in coded(prior, regions)]


def cost_bits(prior: Prior, regions: Sequence[np.ndarray]) -> float:
    return sum(region.bits for region in coded(prior, regions))


def salvage(
    prior: Prior, payloads: Sequence[bytes], shapes: Sequence[tuple[int, ...]], kind: type = np.int32
) -> list[np.ndarray | None]:
    """The regions; None for each whose bytes no encoder writes."""
    known = [{prior.plane: np.zeros(shape, kind)} for shape in shapes]
    sound = driver.decode(prior, payloads, known, 0)
    return [one[prior.plane] if fine else None for one, fine in zip(known, sound, strict=True)]


def decompress(
    prior: Prior, payloads: Sequence[bytes], shapes: Sequence[tuple[int, ...]]
) -> list[np.ndarray]:
    found = salvage(prior, payloads, shapes)
    if any(region is None for region in found):
        raise DamagedError("codes that no encoder writes")
    return found


def draw(
    prior: Prior, known: Sequence[np.ndarray], kept: int, seeds: Sequence[tuple[int, int]]
) -> list[np.ndarray]:
    drawn = driver.sample(prior, [{prior.plane: one} for one in known], {prior.plane: kept}, seeds, 0)
    return [one[prior.plane] for one in drawn]
