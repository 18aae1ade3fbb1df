"""BD-rates with answers that are known, and against scipy's interpolator."""

from __future__ import annotations

import math

import numpy as np
import pytest
from vqcodec import evaluation
from vqcodec.evaluation.bd_rate import bd_rate, integral
from vqcodec.evaluation.figures import AUDIO, IMAGE

RATES = np.array([0.1, 0.2, 0.45, 0.8, 1.7])
CURVE = np.stack([RATES, [25.0, 28.0, 30.0, 33.5, 36.0]], 1)


def scaled(factor: float) -> np.ndarray:
    return CURVE * [factor, 1]


@pytest.mark.parametrize(("factor", "percent"), [(0.8, -20), (1.25, 25), (1, 0), (3, 200)])
def test_a_codec_that_needs_a_constant_share_of_the_bits(factor, percent):
    assert bd_rate(scaled(factor), CURVE) == pytest.approx(percent)


def test_two_points_are_a_line_in_the_logarithm_of_the_rate():
    ours, theirs = np.array([[1.0, 30], [4, 40]]), np.array([[1.0, 30], [2, 40]])
    # The ratio rises from 1 to 2: its mean logarithm over the range is that of the square root of 2.
    assert bd_rate(ours, theirs) == pytest.approx(100 * (math.sqrt(2) - 1))


def test_only_the_common_range_of_quality_counts():
    longer = np.concatenate([scaled(0.5), [[50.0, 60.0]]])
    assert bd_rate(longer[:-1], CURVE) == pytest.approx(-50)
    ours, theirs = np.array([[1.0, 30], [2, 35]]), np.array([[1.0, 36], [2, 40]])
    assert bd_rate(ours, theirs) is None
    assert bd_rate(CURVE[:1], CURVE) is None


def test_order_and_points_that_others_beat_do_not_matter():
    worse = [[0.3, 27.9], [1.7, 35.0], [0.45, 30.0]]
    assert bd_rate(np.concatenate([worse, scaled(1)[::-1]]), CURVE) == pytest.approx(0)


@pytest.mark.parametrize("count", [2, 3, 4, 9])
def test_integrals_are_those_of_scipy(count):
    interpolate = pytest.importorskip("scipy.interpolate")
    rng = np.random.default_rng(count)
    for _ in range(50):
        x = np.cumsum(rng.uniform(0.1, 3, count))
        y = rng.normal(size=count).round(1)  # flat pieces and extremes too
        low, high = np.sort(rng.uniform(x[0], x[-1], 2))
        expected = interpolate.PchipInterpolator(x, y).integrate(low, high)
        assert integral(x, y, low, high) == pytest.approx(expected, abs=1e-9)


def image_row(codec, rate, quality, file="a.png", **more):
    row = {
        "codec": codec,
        "file": file,
        "bpp": rate,
        "psnr_db": quality,
        "ms_ssim": None,
        "ssimulacra2": None,
    }
    return row | more


def rows_of(codec, curve, file="a.png", **more):
    return [image_row(codec, rate, quality, file, **more) for rate, quality in curve]


def test_files_are_averaged_and_figures_apart():
    rows = rows_of("ours", scaled(0.5)) + rows_of("ours", scaled(0.9), "b.png")
    rows += rows_of("jpeg", CURVE) + rows_of("jpeg", CURVE, "b.png") + rows_of("jpeg", CURVE, "c.png")
    (found,) = evaluation.bd_rates(rows)
    assert (found["codec"], found["against"], found["files"]) == ("ours", "jpeg", 2)
    assert found["psnr_db"] == pytest.approx((-50 - 10) / 2)
    assert found["ms_ssim"] is None and set(found) >= {figure.key for figure in IMAGE}


def test_the_own_range_of_a_codec_goes_before_points_at_our_bytes():
    ours, matched = rows_of("ours", scaled(0.5)), {"same_bytes_as": "ours q1", "matched": True}
    near = rows_of("webp", scaled(2), **matched)
    (found,) = evaluation.bd_rates(ours + near)
    assert found["psnr_db"] == pytest.approx(-75)
    (found,) = evaluation.bd_rates(ours + near + rows_of("webp", CURVE))
    assert found["psnr_db"] == pytest.approx(-50)
    out_of_range = rows_of("webp", scaled(2), same_bytes_as="ours q1", matched=False)
    assert evaluation.bd_rates(ours + out_of_range) == []


def test_files_without_error_are_no_points():
    endless = image_row("ours", 9.0, math.inf)
    (found,) = evaluation.bd_rates([*rows_of("ours", scaled(0.8)), endless, *rows_of("avif", CURVE)])
    assert found["psnr_db"] == pytest.approx(-20)
    assert evaluation.bd_rates([endless, image_row("ours", 8.0, math.inf), *rows_of("avif", CURVE)]) == []


def test_two_models_are_compared_both_ways():
    found = evaluation.bd_rates(rows_of("a", scaled(0.5)) + rows_of("b", CURVE))
    assert [(row["codec"], row["against"]) for row in found] == [("a", "b"), ("b", "a")]
    assert [row["psnr_db"] for row in found] == pytest.approx([-50, 100])


def test_less_distance_is_more_quality():
    def rows(codec, factor):
        pairs = ((6, 0.5), (12, 0.3), (24, 0.2))
        base = dict.fromkeys(figure.key for figure in AUDIO)
        return [
            base | {"codec": codec, "file": "a.wav", "kbps": factor * kbps, "log_mel": d} for kbps, d in pairs
        ]

    (found,) = evaluation.bd_rates(rows("ours", 0.5) + rows("opus", 1) + rows_of("jpeg", CURVE))
    assert found["log_mel"] == pytest.approx(-50)
    assert found["against"] == "opus", "an image codec is not compared with audio"
