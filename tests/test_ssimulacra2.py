"""SSIMULACRA2 against the scores of libjxl 0.11.2's program `ssimulacra2` for the same images."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from vqcodec.evaluation import figures
from vqcodec.metrics import image, ssimulacra2

pytestmark = pytest.mark.skipif(not ssimulacra2.installed(), reason="no weights: the extra 'metrics'")


def pattern(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Slopes, arcs and stripes in integers alone: the same everywhere."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [(x * x // 97 + y * 3) % 256, (x * 2 + y * y // 53) % 256, (x // 8 + y // 8) % 2 * 90 + x % 128]
    return np.stack(planes[:channels], 2).astype(np.uint8)


def coarse(samples: np.ndarray) -> np.ndarray:
    """Fewer levels."""
    return samples & 0xF0


def shifted(samples: np.ndarray) -> np.ndarray:
    """The upper part moved by one pixel, and all a little brighter."""
    moved = samples.copy()
    moved[: len(samples) // 2, 1:] = samples[: len(samples) // 2, :-1]
    return np.minimum(moved.astype(int) + 5, 255).astype(np.uint8)


LIBJXL = [
    ((64, 100, 3), coarse, 69.219),
    ((64, 100, 3), shifted, 28.377),
    ((217, 333, 3), coarse, 75.041),
    ((217, 333, 3), shifted, 41.753),
    ((30, 41, 3), coarse, 66.640),
    ((8, 9, 3), coarse, 90.216),
    ((217, 333, 1), coarse, 73.849),
]


@pytest.mark.parametrize(("shape", "distort", "expected"), LIBJXL)
def test_scores_are_those_of_libjxl(shape, distort, expected):
    original = pattern(*shape)
    assert ssimulacra2.ssimulacra2(original, distort(original)) == pytest.approx(expected, abs=0.05)


def test_equal_images_have_100():
    assert ssimulacra2.ssimulacra2(pattern(40, 50), pattern(40, 50)) == 100


def test_strips_do_not_change_the_score(monkeypatch):
    original = pattern(217, 133)
    whole = ssimulacra2.ssimulacra2(original, shifted(original))
    monkeypatch.setattr(image, "STRIP_PIXELS", 1)
    assert ssimulacra2.ssimulacra2(original, shifted(original)) == pytest.approx(whole, abs=1e-4)


def test_what_cannot_be_scored(monkeypatch):
    small = pattern(7, 100)
    assert ssimulacra2.ssimulacra2(small, small) is None
    with pytest.raises(ValueError, match="need two"):
        ssimulacra2.ssimulacra2(small, pattern(8, 100))
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "ssimulacra2" else there(n))
    assert ssimulacra2.ssimulacra2(pattern(40, 50), pattern(40, 50)) is None
    (missing,) = figures.absent([{"codec": "x", "bpp": 1.0}])
    assert missing.title == "SSIMULACRA2"
    assert figures.of_image(small, small, None) == {"psnr_db": np.inf, "ms_ssim": None, "ssimulacra2": None}
