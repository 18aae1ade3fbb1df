"""A picture on a dial to a goal: as good as its bytes allow, or as small as its quality allows."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

from .. import media
from ..bitstream.container import Geometry
from ..bitstream.quality import DIAL, place_of
from ..coding import dial
from ..errors import TargetError
from ..models.points import Point
from ..models.variable_rate import ScalarCodec
from ..transform.image import Progress
from .encoding import QUALITY, Encoded, encode_at, packed_at, verify

NEAR_BYTES, NEAR_DB = 0.005, 0.02
"""What is this near to its goal, on the right side of it, is good enough (bytes as a share)."""

OCTAVE, DECIBEL = 49, 16
"""Places over which bytes about double, and PSNR rises by 1 dB; only the number of trials depends on them."""

TRIALS = 6
"""After so many, the search halves what is left."""


def encode(
    image: media.Image,
    codec: ScalarCodec,
    *,
    quality: float | None = None,
    limit: int | None = None,
    psnr: float | None = None,
    effort: int,
    progress: Progress | None = None,
) -> Encoded:
    """Compress a picture by a model that has a dial.

    Args:
        image: with the metadata that goes into the bitstream.
        codec: the model.
        quality: 1..5, the place on the dial; or else
        limit: bytes, which the best file that is not larger comes near to; or else
        psnr: dB, which the smallest file that is not worse comes near to.
        effort: see `dial.write`.
        progress: called with blocks done and blocks in all, of each trial.

    Raises:
        TargetError: no place meets the goal.
    """
    at = cache(lambda place: encode_at(image, Point(codec, place), effort=effort, progress=progress))
    if limit is not None:
        return _within(limit, at, image, codec)
    if psnr is not None:
        return _above(psnr, at)
    encoded: Encoded = at(place_of(QUALITY if quality is None else quality))
    return encoded


def _within(limit: int, at: Callable[[int], Encoded], image: media.Image, codec: ScalarCodec) -> Encoded:
    def size(place: int) -> float:
        return math.log2(len(at(place).data))

    place = search(size, math.log2(max(limit, 1)), 1 / OCTAVE, NEAR_BYTES / math.log(2), upwards=False)
    if place is None:
        raise TargetError(f"smallest is {len(at(0).data):,} bytes, target {limit:,}", "a larger target")
    best = at(place)
    if place == DIAL:
        # There is room: perhaps enough for the pixels themselves.
        geometry = Geometry(image.width, image.height, image.channels, codec.stride)
        stored = dial.store(image.samples, Point(codec, place), geometry, below=limit)
        lossless = None if stored is None else packed_at(image, Point(codec, place), stored)
        if lossless is not None and len(lossless.data) <= limit:
            return lossless
    return best


def _above(psnr: float, at: Callable[[int], Encoded]) -> Encoded:
    measured = cache(lambda place: verify(at(place)))
    place = search(measured, psnr, 1 / DECIBEL, NEAR_DB, upwards=True)
    if place is None:
        raise TargetError(f"best is {measured(DIAL):.2f} dB, target {psnr:g}", "a smaller target")
    return at(place)


def search(
    measure: Callable[[int], float], goal: float, rise: float, near: float, *, upwards: bool
) -> int | None:
    """The place on the dial where a figure that rises along it meets a goal.

    Args:
        measure: the figure at a place, 0..DIAL.
        goal: what it is compared with.
        rise: about how much it rises from place to place.
        near: a figure on the right side of the goal, and this near to it, ends the search.
        upwards: the goal is a least figure, and the first place that reaches it is wanted; else it is a
            greatest one, and the last place that keeps it.

    Returns:
        None if no place meets the goal.
    """
    known: dict[int, float] = {}
    low, high, place = -1, DIAL + 1, DIAL // 2
    while high - low > 1:
        value = known[place] = measure(place)
        small = value < goal if upwards else value <= goal
        low, high = (place, high) if small else (low, place)
        if small != upwards and abs(value - goal) < near:
            return place
        if len(known) >= TRIALS:
            place = (low + high) // 2
        elif low in known and high in known and known[high] > known[low]:
            place = low + int((high - low) * (goal - known[low]) / (known[high] - known[low]))
        else:
            place += math.floor(min(max((goal - value) / rise, -DIAL), DIAL))
        place = min(max(place, low + 1), high - 1)
    found = high if upwards else low
    return found if 0 <= found <= DIAL else None
