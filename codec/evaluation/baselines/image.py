"""Run the codecs of Pillow at the byte counts of ours."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import features

from ... import media
from ...errors import MediaError, UsageError
from ...metrics.image import ms_ssim, psnr, visible
from ...transform import hidden

Figures = dict[str, Any]
"""Figures of a file by name."""


@dataclass(frozen=True)
class Baseline:
    """A codec of Pillow.

    Attributes:
        format: its name in Pillow.
        qualities: lowest and highest integer quality.
        color, gray: fixed options of images with three channels, and with one.
    """

    format: str
    qualities: tuple[int, int]
    color: Mapping[str, str | int | bool]
    gray: Mapping[str, str | int | bool]


BASELINES: dict[str, Baseline] = {
    "jpeg": Baseline("JPEG", (1, 100), {"subsampling": "4:2:0", "optimize": True}, {"optimize": True}),
    "webp": Baseline("WEBP", (0, 100), {"method": 4}, {"method": 4}),
    "avif": Baseline(
        "AVIF", (0, 100), {"speed": 6, "subsampling": "4:2:0"}, {"speed": 6, "subsampling": "4:0:0"}
    ),
}


def check(name: str) -> None:
    """Raise UsageError for a key of `BASELINES` that this build of Pillow cannot write."""
    if name in ("webp", "avif") and not features.check(name):
        raise UsageError(f"this Pillow has no {name}", "upgrade it with pip install --upgrade pillow")


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
        more, found by bisection. PSNR, MS-SSIM and seconds are interpolated linearly in log(bytes). Where the
        smallest file is larger than `size`, or the largest one smaller, the figures are those of that file,
        with `matched` False.

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
        """Return figures of the real file: q, bytes, psnr_db, ms_ssim, encode_seconds, decode_seconds."""
        if quality not in self._figures:
            data, encode_seconds = self.file(quality)
            started = time.perf_counter()
            decoded = media.read_image(data)
            decode_seconds = time.perf_counter() - started
            samples, alpha = decoded.samples, self.original.alpha
            if decoded.channels != self.original.channels:
                samples = np.asarray(PillowImage.fromarray(samples).convert("L"))[:, :, None]
            self._figures[quality] = {
                "q": quality,
                "bytes": len(data),
                "psnr_db": psnr(self._shown, samples, alpha),
                "ms_ssim": ms_ssim(self._shown, visible(self._shown, samples, alpha)),
                "encode_seconds": encode_seconds,
                "decode_seconds": decode_seconds,
            }
        return self._figures[quality]

    def size(self, quality: int) -> int:
        """Return the bytes of the file at this quality."""
        return len(self.file(quality)[0])

    def file(self, quality: int) -> tuple[bytes, float]:
        """Return the file at this quality, and the seconds of its encoding."""
        if quality not in self._files:
            baseline, image = BASELINES[self.codec], _as_pillow(self._shown)
            options = baseline.gray if self.original.channels == 1 else baseline.color
            target = io.BytesIO()
            started = time.perf_counter()
            try:
                image.save(target, format=baseline.format, quality=quality, **options)
            except (OSError, ValueError) as error:
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
