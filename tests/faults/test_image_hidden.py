"""Pixels under alpha 0 cost no bits, and count in no figure."""

from __future__ import annotations

import math

import numpy as np
import pytest
from conftest import draw
from vqcodec import media, pipeline
from vqcodec.evaluation import image as evaluation
from vqcodec.metrics.image import psnr, visible
from vqcodec.transform import hidden

RNG = np.random.default_rng(5)


def cut_out(height: int = 96, width: int = 112) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A photograph, the same with noise under alpha 0, and the alpha: a disc."""
    y, x = np.mgrid[0:height, 0:width]
    alpha = np.where((y - 50) ** 2 + (x - 60) ** 2 < 30**2, 255, 0).astype(np.uint8)
    pixels = draw(width, height)
    noisy = np.where(alpha[:, :, None] > 0, pixels, RNG.integers(0, 256, pixels.shape)).astype(np.uint8)
    return pixels, noisy, alpha


def test_hidden_pixels_cost_no_bits() -> None:
    pixels, noisy, alpha = cut_out()
    whole = len(pipeline.encode_file(media.Image(noisy)).data)
    encoded = pipeline.encode_file(media.Image(noisy, alpha))
    assert len(encoded.data) < whole / 4
    assert encoded.data == pipeline.encode_file(media.Image(pixels, alpha)).data
    assert pipeline.verify(encoded) > 30
    options = pipeline.EncodeOptions(psnr=35)
    assert pipeline.verify(pipeline.encode_file(media.Image(noisy, alpha), options)) >= 35


def test_figures_count_what_is_visible() -> None:
    _, noisy, alpha = cut_out()
    row, _, _ = evaluation.measure(media.Image(noisy, alpha))
    assert row["psnr_db"] > 30
    decoded = noisy.copy()
    decoded[alpha == 0] ^= 0xFF
    assert psnr(noisy, decoded, alpha) == math.inf
    assert np.array_equal(visible(noisy, decoded, alpha), noisy)
    decoded[50, 60] ^= 4
    half = np.where(alpha > 0, 128, 0).astype(np.uint8)
    # 16 over all visible pixels; the same weight on all changes nothing.
    count = int((alpha > 0).sum())
    assert psnr(noisy, decoded, alpha) == pytest.approx(10 * math.log10(255**2 / (16 / count)))
    assert psnr(noisy, decoded, half) == pytest.approx(psnr(noisy, decoded, alpha))
    with pytest.raises(ValueError):
        psnr(noisy, decoded, alpha[1:])


@pytest.mark.parametrize("shape", [(1, 1, 3), (7, 9, 1), (65, 33, 3), (8, 200, 1)])
def test_filling_keeps_what_is_visible_and_is_smooth(shape: tuple[int, ...]) -> None:
    samples = RNG.integers(0, 256, shape, dtype=np.uint8)
    alpha = RNG.integers(0, 2, shape[:2]).astype(np.uint8)
    filled = hidden.fill(samples, alpha)
    assert np.array_equal(filled[alpha > 0], samples[alpha > 0])
    assert np.unique(hidden.fill(samples, np.zeros_like(alpha))).tolist() == [128]
    assert hidden.fill(samples, np.ones_like(alpha)) is samples
    assert hidden.fill(samples, None) is samples
    if shape[0] > 60:
        alpha[:] = 0
        alpha[:8] = 255
        samples[:8] = 77
        assert np.unique(hidden.fill(samples, alpha)).tolist() == [77]


def test_everything_hidden_is_small_and_exact_in_what_counts() -> None:
    noisy = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    encoded = pipeline.encode_file(media.Image(noisy, np.zeros((64, 64), np.uint8)))
    assert len(encoded.data) < 400
    assert pipeline.verify(encoded) == math.inf
