"""Rate control: find the quality index that meets a target size, rate or PSNR."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from .. import media
from ..bitstream.quality import DEFAULT_QUALITY, LAST_INDEX, index_of
from ..errors import TargetError, UsageError
from ..models.base import Model, Progress
from . import ladder
from .decoding import verify
from .encoding import Encoded, encode_at, store, store_within

BYTES_TOLERANCE, DB_TOLERANCE = 0.005, 0.02
"""Stop searching within 0.5 % below the byte target, or 0.02 dB above the PSNR target."""

INDICES_PER_RATE_DOUBLING, INDICES_PER_DB = 49, 16
"""Expected number of indexes that double the bytes, or raise the PSNR by 1 dB; only speed depends on them."""

TRIALS = 6
"""Number of trials after which the search becomes a bisection."""

MAX_BYTES = 1 << 62
"""Upper bound of a size in bytes computed from a rate."""

Unit = Literal["quality", "bitrate", "bpp", "psnr", "target size", "lossless"]

UNITS: dict[str, tuple[Unit, ...]] = {
    "image": ("target size", "bpp", "psnr", "lossless"),
    "audio": ("target size", "bitrate"),
}
"""Medium -> units of targets, besides the quality."""

FILES = {"image": "images", "audio": "audio"}
"""Medium -> its files in messages."""


@dataclass(frozen=True)
class Target:
    """The target of an encoding: a quality, a maximum rate or size, a minimum PSNR, or no loss.

    Attributes:
        unit: "quality" 1..5, "bitrate" in kbit/s and "bpp" in bits per pixel of the whole file, "psnr" in dB,
            "target size" in bytes; "lossless", of any value.
        value: in this unit; None: the default quality.
        reserved: bytes that a file gets afterwards.
    """

    unit: Unit = "quality"
    value: float | None = None
    reserved: int = 0

    @classmethod
    def of(
        cls,
        *,
        quality: float | None = None,
        bitrate: float | None = None,
        bpp: float | None = None,
        psnr: float | None = None,
        target_size: int | None = None,
        lossless: bool = False,
    ) -> Target:
        """Return the target among these, of which at most one is given.

        Raises:
            UsageError: more than one is given, or one that is not above zero.
        """
        values: dict[Unit, float | None] = {
            "quality": quality,
            "bitrate": bitrate,
            "bpp": bpp,
            "psnr": psnr,
            "target size": target_size,
            "lossless": 1.0 if lossless else None,
        }
        given = {unit: value for unit, value in values.items() if value is not None}
        if len(given) > 1:
            raise UsageError(
                "quality, bitrate, bpp, psnr, target size and lossless exclude each other", "give one of them"
            )
        for unit, value in given.items():
            if unit != "quality" and not 0 < value < math.inf:
                raise UsageError(
                    "targets must be positive", "give for example bpp 0.4, psnr 30, target size 40000"
                )
            return cls(unit, value)
        return cls()

    @property
    def index(self) -> int | None:
        """Quality index of a quality, which takes one trial; None for the other targets."""
        if self.unit != "quality":
            return None
        return index_of(DEFAULT_QUALITY if self.value is None else self.value)

    def check(self, model: Model) -> None:
        """Refuse targets that do not apply to a model.

        Raises:
            UsageError: another medium, or no quality at all.

        Warns:
            VqcodecWarning: the model does not have this quality, as in `ladder.offered`.
        """
        units = UNITS[model.medium]
        if self.unit != "quality" and self.unit not in units:
            others = f"{', '.join(units[:-1])} or {units[-1]}"
            raise UsageError(f"{self.unit} does not apply to {FILES[model.medium]}", f"give {others}")
        if self.unit == "quality" and self.value is not None:
            ladder.offered(model, self.value)

    def limit(self, original: media.Image | media.Audio) -> int | None:
        """Return the maximum size of the file in bytes; None where there is none."""
        if self.value is None or self.unit in ("quality", "psnr", "lossless"):
            return None
        if self.unit == "target size":
            return int(self.value) - self.reserved
        if isinstance(original, media.Image):
            bytes_per_unit = original.width * original.height / 8
        else:
            bytes_per_unit = 125 * original.seconds
        # A file of exactly this rate must not be refused because of rounding.
        return int(min(self.value * bytes_per_unit * (1 + 1e-12), MAX_BYTES)) - self.reserved

    def describe(self, encoded: Encoded) -> str:
        """Format the rate or size of a file in the unit of the target."""
        if self.unit == "bpp":
            return f"{encoded.bpp:.3f} bpp"
        if self.unit == "bitrate":
            return f"{encoded.kbps:.2f} kbit/s"
        return f"{len(encoded.data):,} bytes"


def encode(
    original: media.Image | media.Audio,
    model: Model,
    target: Target,
    *,
    effort: int,
    fast: bool = False,
    progress: Progress | None = None,
) -> Encoded:
    """Compress an image or audio so that a target is met.

    Args:
        original: with the metadata that goes into the bitstream.
        model: with its operating points.
        target: a quality; or a rate or size, for the highest quality within it; or a PSNR, for the smallest
            file that reaches it; or no loss. Rates, sizes and PSNR are met within the tolerances.
        effort: 0..3, how long the encoder searches for better symbols.
        fast: skip learned priors, where there is another way.
        progress: called with the number of blocks done and of all blocks, over all trials.

    Raises:
        TargetError: no operating point meets the target.
    """
    trials = _Trials(original, model, effort, fast, progress)
    limit = target.limit(original)
    if limit is not None:
        return _to_size(limit, target, trials)
    if target.unit == "psnr" and target.value is not None:
        return _to_psnr(target.value, trials)
    if target.unit == "lossless" and isinstance(original, media.Image):
        return store(original, model.at(LAST_INDEX), fast=fast)
    return trials.at(ladder.position_of(model, target.index or 0), expected=1)


class _Trials:
    """Encodings at positions of the ladder; only the best so far is cached, since they are large."""

    def __init__(
        self,
        original: media.Image | media.Audio,
        model: Model,
        effort: int,
        fast: bool,
        progress: Progress | None,
    ) -> None:
        self.original, self.model, self.effort, self.fast = original, model, effort, fast
        self.best, self.last = ladder.best_of(model), ladder.last_of(model)
        self._progress, self._count = progress, 0
        self._best: tuple[int, Encoded] | None = None

    def at(self, position: int, expected: int = TRIALS) -> Encoded:
        """Return the encoding at a position.

        Args:
            position: on the ladder.
            expected: usual number of trials, for the progress.
        """
        if self._best is not None and self._best[0] == position:
            return self._best[1]
        rung = ladder.Rung.of(self.model, position)
        point = self.model.at(rung.base, self.effort)
        progress = self._part(expected if self.last else 1)
        encoded = encode_at(self.original, point, rung=rung, fast=self.fast, progress=progress)
        self._count += 1
        return encoded

    def keep(self, encoded: Encoded) -> None:
        """Cache an encoding that meets the target better than the one before."""
        self._best = encoded.rung.position, encoded

    def _part(self, expected: int) -> Progress | None:
        """Return the progress of one trial out of their expected number."""
        progress, trial = self._progress, self._count
        if progress is None:
            return None
        count = max(expected, trial + 1)
        return lambda done, whole: progress(trial * whole + done, count * whole)


def _to_size(limit: int, target: Target, trials: _Trials) -> Encoded:
    smallest, sizes = "", dict[tuple[int, int | None], float]()

    def log_size(index: int) -> float:
        nonlocal smallest
        # Of models with a few operating points many positions are the same.
        rung = ladder.Rung.of(trials.model, index)
        key = rung.base, rung.step
        if key in sizes and index:
            return sizes[key]
        encoded = trials.at(index)
        if len(encoded.data) <= limit:
            trials.keep(encoded)  # the search goes up from here
        elif index == 0:
            smallest = target.describe(encoded)
        sizes[key] = math.log2(len(encoded.data))
        return sizes[key]

    slope, tolerance = 1 / INDICES_PER_RATE_DOUBLING, BYTES_TOLERANCE / math.log(2)
    found = find_index(log_size, math.log2(max(limit, 1)), slope, tolerance, at_least=False, last=trials.last)
    if found is None:
        effortless = ", or --effort 1" if trials.effort > 1 and not trials.last else ""
        asked = f"{target.value:,}" if target.unit == "target size" else f"{target.value:g}"
        raise TargetError(f"smallest is {smallest}, target {asked}", f"give a larger target{effortless}")
    if found >= trials.best and isinstance(trials.original, media.Image):
        # The best quality leaves room, perhaps enough to store the pixels losslessly.
        stored = store_within(trials.original, trials.model.at(LAST_INDEX), limit, fast=trials.fast)
        if stored is not None:
            return stored
    return trials.at(found)


def _to_psnr(psnr: float, trials: _Trials) -> Encoded:
    def measure(index: int) -> float:
        encoded = trials.at(index)
        reached = verify(encoded)
        if reached >= psnr:
            trials.keep(encoded)  # the search goes down from here
        return reached

    found = find_index(measure, psnr, 1 / INDICES_PER_DB, DB_TOLERANCE, at_least=True, last=trials.last)
    reached = None if found is None else trials.at(found)
    if isinstance(trials.original, media.Image):  # no coding may come so near, or none for so little
        stored = store(trials.original, trials.model.at(LAST_INDEX), fast=trials.fast)
        return min((stored, reached), key=lambda one: len(one.data)) if reached else stored
    return reached or trials.at(trials.last)


def find_index(
    measure: Callable[[int], float],
    target: float,
    slope: float,
    tolerance: float,
    *,
    at_least: bool,
    last: int = LAST_INDEX,
) -> int | None:
    """Find the quality index at which an increasing measure meets a target.

    Args:
        measure: returns the measure at an index, 0..last.
        target: value to meet.
        slope: expected increase per index.
        tolerance: stop at a measure on the right side of the target within this distance.
        at_least: find the first index with a measure of at least the target; else the last index with a
            measure of at most the target.
        last: the highest index.

    Returns:
        The index; None if no index meets the target.
    """
    known: dict[int, float] = {}
    low, high, index = -1, last + 1, last // 2
    while high - low > 1:
        value = known[index] = measure(index)
        small = value < target if at_least else value <= target
        low, high = (index, high) if small else (low, index)
        if small != at_least and abs(value - target) < tolerance:
            return index
        if len(known) >= TRIALS:
            index = (low + high) // 2
        elif low in known and high in known and known[high] > known[low]:
            index = low + int((high - low) * (target - known[low]) / (known[high] - known[low]))
        else:
            index += math.floor(min(max((target - value) / slope, -last), last))
        index = min(max(index, low + 1), high - 1)
    found = high if at_least else low
    return found if 0 <= found <= last else None
