"""Bjontegaard's mean difference of rate at equal quality (BD-rate), over whole curves of rate and distortion.

Bjontegaard 2001, "Calculation of average PSNR differences between RD-curves" (VCEG-M33), with monotone
piecewise cubics (PCHIP: Fritsch and Butland 1984) through the points instead of one cubic, as in the
common test conditions of JVET.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from . import baselines
from .candidates import Row
from .figures import Figure, mean, of_medium

Curve = NDArray[np.float64]
"""Points of a codec, float64 [N, 2]: rate, quality."""


def bd_rate(ours: Curve, theirs: Curve) -> float | None:
    """Return the mean difference of rate at equal quality, over the range of quality that both curves have.

    The logarithm of the rate is a function of the quality: a point that has more rate than another one, and
    no more quality, is left out.

    Args:
        ours: float64 [N, 2], rate and quality, of which more is better; in any order.
        theirs: float64 [M, 2].

    Returns:
        Percent: -20 where ours needs 20 % fewer bits. None where a curve has fewer than two points, or where
        they have no quality in common.
    """
    ours, theirs = _increasing(ours), _increasing(theirs)
    if min(len(ours), len(theirs)) < 2:
        return None
    low, high = max(ours[0, 1], theirs[0, 1]), min(ours[-1, 1], theirs[-1, 1])
    if low >= high:
        return None
    areas = [integral(curve[:, 1], np.log(curve[:, 0]), low, high) for curve in (ours, theirs)]
    return 100 * math.expm1((areas[0] - areas[1]) / (high - low))


def bd_rates(rows: Iterable[Row]) -> list[Row]:
    """Compare each model of ours with every other codec that was measured on the same files.

    A curve of another codec is that of its own range of qualities where it was measured (`sweep`); otherwise
    its points are those at the bytes of ours.

    Args:
        rows: of `evaluate`.

    Returns:
        A row for each pair with "codec", "against", "files" of which both have a curve, and for each figure
        of quality the mean of the files' BD-rates in percent, None where no file has one.
    """
    kept = [row for row in rows if row.get("matched") is not False]
    files: dict[tuple[str, str], list[Row]] = {}
    for row in kept:
        files.setdefault((row["codec"], row["file"]), []).append(row)
    codecs = {row["codec"]: of_medium(row) for row in kept}
    found = []
    for ours, figures in codecs.items():
        for other, others in codecs.items():
            pairs = [(files[ours, f], files[other, f]) for c, f in files if c == ours and (other, f) in files]
            if ours == other or figures is not others or baselines.known(ours) or not pairs:
                continue
            rates = {f.key: [bd_rate(curve(a, f), curve(b, f)) for a, b in pairs] for f in figures}
            count = sum(any(each[n] is not None for each in rates.values()) for n in range(len(pairs)))
            if count:
                means = {key: mean(each) for key, each in rates.items()}
                found.append({"codec": ours, "against": other, "files": count, **means})
    return found


def curve(rows: Sequence[Row], figure: Figure) -> Curve:
    """Return the curve of one codec on one file; points without error, of infinite quality, are left out."""
    real = [row for row in rows if not row.get("same_bytes_as")]
    rate = "bpp" if rows[0].get("kbps") is None else "kbps"
    points = [
        (row[rate], figure.better * row[figure.key])
        for row in real or rows
        if row.get(figure.key) is not None
    ]
    finite = [point for point in points if math.isfinite(point[1])]
    return np.array(finite, float).reshape(-1, 2)


def integral(x: NDArray[np.float64], y: NDArray[np.float64], low: float, high: float) -> float:
    """Integrate a monotone piecewise cubic through points (PCHIP, as scipy's `PchipInterpolator`).

    Args:
        x: float64 [N], increasing, N >= 2.
        y: float64 [N].
        low: where to begin, within x[0] to x[-1].
        high: where to end, the same.
    """
    step, slope = np.diff(x), np.diff(y) / np.diff(x)
    tangent = _tangents(step, slope)
    # On each piece: y + tangent t + b t^2 + a t^3, t from its left end.
    b = (3 * slope - 2 * tangent[:-1] - tangent[1:]) / step
    a = (tangent[:-1] + tangent[1:] - 2 * slope) / step**2
    start, end = (np.clip(bound - x[:-1], 0, step) for bound in (low, high))
    area = np.zeros_like(step)
    for power, coefficient in enumerate((y[:-1], tangent[:-1], b, a), 1):
        area += coefficient * (end**power - start**power) / power
    return float(area.sum())


def _tangents(step: Curve, slope: Curve) -> Curve:
    """Return the slopes at the points: weighted harmonic means, 0 at extremes."""
    if len(step) == 1:
        return np.repeat(slope, 2)
    tangent = np.zeros(len(step) + 1)
    left, right = 2 * step[1:] + step[:-1], step[1:] + 2 * step[:-1]
    same = slope[:-1] * slope[1:] > 0
    before, after = slope[:-1][same], slope[1:][same]
    tangent[1:-1][same] = (left + right)[same] / (left[same] / before + right[same] / after)
    tangent[0] = _end(step[0], step[1], slope[0], slope[1])
    tangent[-1] = _end(step[-1], step[-2], slope[-1], slope[-2])
    return tangent


def _end(step: float, next_step: float, slope: float, next_slope: float) -> float:
    """Return the slope at an end, of the parabola through three points, limited to a monotone curve."""
    found = ((2 * step + next_step) * slope - step * next_slope) / (step + next_step)
    if found * slope <= 0:
        return 0.0
    return 3 * slope if slope * next_slope < 0 and abs(found) > abs(3 * slope) else found


def _increasing(curve: Curve) -> Curve:
    """Sort by rate, and keep the points that have more quality than all before."""
    curve = curve[np.lexsort((-curve[:, 1], curve[:, 0]))]
    best = np.maximum.accumulate(np.append(-np.inf, curve[:, 1]))[:-1]
    return curve[curve[:, 1] > best]
