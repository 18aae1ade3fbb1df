"""The figures of quality of each medium: names, meaning, direction, and how they are averaged."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..metrics.image import ms_ssim, psnr, visible
from ..metrics.ssimulacra2 import ssimulacra2
from .candidates import Row


@dataclass(frozen=True)
class Figure:
    """A figure of quality.

    Attributes:
        key: of rows.
        title: short name, with its unit.
        meaning: one line for those who do not know it.
        better: 1 where more is better, -1 where less is.
        similarity: whether it is at most 1 and near it, so that plots show 1 - x as decibels.
        package: that must be installed to measure it, of the extra `metrics`; None: measured always.
    """

    key: str
    title: str
    meaning: str
    better: int = 1
    similarity: bool = False
    package: str | None = None


IMAGE = (
    Figure("psnr_db", "PSNR dB", "10 log10(255^2 / mean squared error); more is better"),
    Figure(
        "ms_ssim", "MS-SSIM", "multi-scale structural similarity, up to 1; more is better", similarity=True
    ),
    Figure(
        "ssimulacra2",
        "SSIMULACRA2",
        "visibility of errors: 90 visually lossless, 70 high, 50 medium, 30 low quality; more is better",
        package="ssimulacra2",
    ),
)
AUDIO = (
    Figure("log_mel", "log-mel", "mean distance of log10 mel spectra; less is better", better=-1),
    Figure("si_sdr_db", "SI-SDR dB", "scale-invariant signal-to-distortion ratio; more is better"),
    Figure("pesq_wb", "PESQ", "quality of wideband speech, 1 to 4.64; more is better", package="pesq"),
    Figure("stoi", "STOI", "intelligibility of speech, up to 1; more is better", package="pystoi"),
    Figure("estoi", "ESTOI", "extended STOI, up to 1; more is better", package="pystoi"),
    Figure("visqol", "ViSQOL", "quality of speech, 1 to 5; more is better", package="visqol"),
)
RATES = {"bpp": "bpp", "kbps": "kbit/s"}
"""Rates of both media, and their titles."""

SPEEDS = {
    "encode_mps": "encode MP/s",
    "decode_mps": "decode MP/s",
    "encode_x": "encode x",
    "decode_x": "decode x",
}
"""Speeds of both media, and their titles."""

COUNTS = {"identical": "identical", "unmatched": "unmatched"}
"""Columns of means that are omitted if no row counts any file."""

OTHERS = {
    "bpp": "bits per pixel",
    "kbps": "kilobits per second",
    "encode_mps": "megapixels per second of encoding; decode MP/s likewise",
    "encode_x": "seconds of audio per second of encoding; decode x likewise",
    "bits_per_code": "mean bits of a code after entropy coding",
    "saving": "of entropy coding, as a share of the bits of packed codes",
    "gap": "excess over the cross-entropy of the codes, as a share of it",
    "identical": "files without any error, left out of the means of PSNR and SI-SDR",
    "unmatched": "files for which the codec has none around our size; its nearest one is taken",
}
"""Key of a column of means that is no figure of quality -> its meaning."""


def of_medium(row: Row) -> tuple[Figure, ...]:
    """Return the figures of the medium of a row."""
    return IMAGE if row.get("kbps") is None else AUDIO


def absent(rows: Iterable[Row]) -> list[Figure]:
    """List the figures of the media of some rows that are not measured for want of a package."""
    figures = dict.fromkeys(figure for row in rows for figure in of_medium(row))
    return [f for f in figures if f.package is not None and importlib.util.find_spec(f.package) is None]


def of_image(
    original: NDArray[np.uint8], decoded: NDArray[np.uint8], alpha: NDArray[np.uint8] | None
) -> dict[str, float | None]:
    """Measure an image: the figures of `IMAGE`.

    Args:
        original: uint8 [H, W, C], filled where alpha hides it.
        decoded: the same shape.
        alpha: uint8 [H, W], or None. Hidden pixels do not count.

    Returns:
        PSNR in dB, infinite without error; MS-SSIM, None under 161 pixels; SSIMULACRA2, None without its
        package or under 8 pixels.
    """
    shown = visible(original, decoded, alpha)
    return {
        "psnr_db": psnr(original, decoded, alpha),
        "ms_ssim": ms_ssim(original, shown),
        "ssimulacra2": ssimulacra2(original, shown),
    }


def finite(values: Iterable[float | None]) -> list[float]:
    """List the values that are numbers: without None, infinity and NaN."""
    return [value for value in values if value is not None and math.isfinite(value)]


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the finite values; None without any."""
    there = finite(values)
    return sum(there) / len(there) if there else None


def identical(rows: Sequence[Row], key: str) -> int:
    """Count the files without any error: their `key`, in dB, is infinite."""
    return sum(row[key] == math.inf for row in rows)
