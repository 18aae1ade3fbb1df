"""Run the codecs of Pillow, and JPEG XL, at the byte counts of ours and over their own range."""

from __future__ import annotations

import importlib
import io
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import features

from ... import media
from ...errors import MediaError, UsageError
from ...transform import hidden
from ..figures import of_image

Figures = dict[str, Any]
"""Figures of a file by name."""


@dataclass(frozen=True)
class Baseline:
    """A codec of Pillow, or of a plugin for it.

    Attributes:
        format: its name in Pillow.
        qualities: lowest and highest integer quality.
        sweep: qualities for a curve of rate and distortion, about evenly spaced in the logarithm of the rate.
        color, gray: fixed options of images with three channels, and with one.
    """

    format: str
    qualities: tuple[int, int]
    sweep: tuple[int, ...]
    color: Mapping[str, str | int | bool]
    gray: Mapping[str, str | int | bool]


BASELINES: dict[str, Baseline] = {
    "jpeg": Baseline(
        "JPEG",
        (1, 100),
        (3, 6, 10, 15, 22, 32, 45, 60, 75, 85, 92, 96),
        {"subsampling": "4:2:0", "optimize": True},
        {"optimize": True},
    ),
    "webp": Baseline(
        "WEBP", (0, 100), (0, 3, 8, 16, 28, 42, 58, 72, 82, 90, 95, 98), {"method": 4}, {"method": 4}
    ),
    "avif": Baseline(
        "AVIF",
        (0, 100),
        (10, 20, 28, 36, 44, 52, 60, 68, 76, 84, 90, 94),
        {"speed": 6, "subsampling": "4:2:0"},
        {"speed": 6, "subsampling": "4:0:0"},
    ),
    "jxl": Baseline(
        "JXL", (0, 99), (0, 4, 10, 20, 32, 45, 58, 70, 80, 86, 91, 94), {"effort": 7}, {"effort": 7}
    ),
}


def check(name: str) -> None:
    """Raise UsageError for a key of `BASELINES` that this build of Pillow cannot write."""
    if name in ("webp", "avif") and not features.check(name):
        raise UsageError(f"this Pillow has no {name}", "upgrade it with pip install --upgrade pillow")
    if name == "jxl":
        _register_jxl()


def available() -> tuple[str, ...]:
    """Return the keys of `BASELINES` that can be run here."""
    found = []
    for name in BASELINES:
        with suppress(UsageError):
            check(name)
            found.append(name)
    return tuple(found)


def _register_jxl() -> None:
    """Import Pillow's plugin for JPEG XL, which registers its writer.

    Raises:
        UsageError: it is not installed.
    """
    try:
        importlib.import_module("pillow_jxl")
    except ImportError as error:
        hint = "install it with pip install 'vqcodec[formats]'"
        raise UsageError("JPEG XL needs an extra package", hint) from error


@dataclass
class QualitySweep:
    """Encodings of one image by one codec at integer qualities, each computed at most once.

    Attributes:
        original: the image; only its samples count, those that alpha hides filled as ours are.
        codec: a key of `BASELINES`.
    """

    original: media.Image
    codec: str
    _shown: NDArray[np.uint8] = field(init=False, repr=False)
    _files: dict[int, tuple[bytes, float]] = field(init=False, repr=False, default_factory=dict)
    _figures: dict[int, Figures] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._shown = hidden.fill(self.original.samples, self.original.alpha)

    def matched_to(self, size: int) -> Figures:
        """Interpolate the figures of this codec at `size` bytes from the two real files around that size.

        The files are those of two neighbouring qualities, the first of at most `size` bytes, the second of
        more, found by bisection. Figures of quality and seconds are interpolated linearly in log(bytes).
        Where the smallest file is larger than `size`, or the largest one smaller, the figures are those of
        that file, with `matched` False.

        Returns:
            The keys of `figures`, and matched, q_low, q_high, bytes_low, bytes_high. `q` is None between two
            files.

        Raises:
            MediaError: the codec refuses the image, e.g. for its width.
        """
        first, last = BASELINES[self.codec].qualities
        # Start beyond both ends: the ends, of which the upper is slow, are encoded only when needed.
        low, high = first - 1, last + 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.size(middle) <= size else (low, middle)
        if low < first or high > last:
            edge = first if low < first else last
            return self.figures(edge) | self._bracket(edge, edge, matched=self.size(edge) == size)
        below, above = self.figures(low), self.figures(high)
        share = math.log(size / below["bytes"]) / math.log(above["bytes"] / below["bytes"])
        between = {name: _between(below[name], above[name], share) for name in below}
        return between | {"bytes": size, "q": None} | self._bracket(low, high, matched=True)

    def figures(self, quality: int) -> Figures:
        """Return figures of the real file: q, bytes, those of `of_image`, encode_seconds, decode_seconds."""
        if quality not in self._figures:
            data, encode_seconds = self.file(quality)
            started = time.perf_counter()
            decoded = media.read_image(data)
            decode_seconds = time.perf_counter() - started
            samples = self._in_our_channels(decoded)
            self._figures[quality] = {
                "q": quality,
                "bytes": len(data),
                **of_image(self._shown, samples, self.original.alpha),
                "encode_seconds": encode_seconds,
                "decode_seconds": decode_seconds,
            }
        return self._figures[quality]

    def decoded(self, quality: int) -> media.Image:
        """Return the reconstruction from the file at this quality, with the channels of the original."""
        return media.Image(self._in_our_channels(media.read_image(self.file(quality)[0])))

    def _in_our_channels(self, decoded: media.Image) -> NDArray[np.uint8]:
        if decoded.channels == self.original.channels:
            return decoded.samples
        return np.asarray(PillowImage.fromarray(decoded.samples).convert("L"))[:, :, None]

    def size(self, quality: int) -> int:
        """Return the bytes of the file at this quality."""
        return len(self.file(quality)[0])

    def file(self, quality: int) -> tuple[bytes, float]:
        """Return the file at this quality, and the seconds of its encoding."""
        if quality not in self._files:
            check(self.codec)
            baseline, image = BASELINES[self.codec], _as_pillow(self._shown)
            options = baseline.gray if self.original.channels == 1 else baseline.color
            target = io.BytesIO()
            started = time.perf_counter()
            try:
                image.save(target, format=baseline.format, quality=quality, **options)
            except (OSError, ValueError, RuntimeError) as error:
                size = f"{self.original.width} x {self.original.height}"
                raise MediaError(
                    f"{self.codec} cannot hold {size} pixels", "measure without this codec"
                ) from error
            self._files[quality] = target.getvalue(), time.perf_counter() - started
        return self._files[quality]

    def _bracket(self, low: int, high: int, *, matched: bool) -> Figures:
        sizes = {"bytes_low": self.size(low), "bytes_high": self.size(high)}
        return {"matched": matched, "q_low": low, "q_high": high} | sizes


def _as_pillow(samples: NDArray[np.uint8]) -> PillowImage.Image:
    """Convert the pixels alone to an image of Pillow, without metadata and alpha."""
    return PillowImage.fromarray(samples.squeeze(2) if samples.shape[2] == 1 else samples)


def _between(low: float | None, high: float | None, share: float) -> float | None:
    if low is None or high is None:
        return None
    # Not low + share * (high - low): both may be infinite, and the lower file may have exactly our size.
    return low if share == 0 else (1 - share) * low + share * high
