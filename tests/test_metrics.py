"""Metrics against closed forms and an independent implementation."""

import math

import numpy as np
import pytest
import pytorch_msssim
import torch
from conftest import draw
from vqcodec.metrics import image as metrics
from vqcodec.metrics.image import code_use, ms_ssim, psnr, psnr_db


def photo(height, width, channels=3):
    return draw(width, height)[:, :, :channels]


def noisy(picture, sigma, seed=1):
    noise = np.random.default_rng(seed).normal(0, sigma, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def reference_ms_ssim(a, b):
    x, y = (torch.from_numpy(p.transpose(2, 0, 1).astype(np.float64))[None] for p in (a, b))
    return float(pytorch_msssim.ms_ssim(x, y, data_range=255))


def test_psnr_is_the_closed_form():
    a = np.full((5, 7, 3), 100, np.uint8)
    b = a.copy()
    b[0, 0, 0] = 103
    assert psnr(a, b) == pytest.approx(10 * math.log10(255**2 / (9 / 105)))
    assert psnr(a, a) == math.inf
    assert psnr(np.zeros_like(a), np.full_like(a, 255)) == 0


def test_psnr_does_not_depend_on_the_strips(monkeypatch):
    a = photo(301, 200)
    b = noisy(a, 9)
    whole = psnr(a, b)
    monkeypatch.setattr(metrics, "STRIP_PIXELS", 1)
    assert psnr(a, b) == whole
    assert whole == pytest.approx(10 * math.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


@pytest.mark.parametrize("shape", [(161, 161, 3), (200, 176, 3), (203, 333, 1), (162, 171, 3)])
def test_ms_ssim_equals_the_reference(shape, monkeypatch):
    a = photo(*shape)
    for b in (noisy(a, 6), noisy(a, 40), 255 - a):
        expected = reference_ms_ssim(a, b)
        assert ms_ssim(a, b) == pytest.approx(expected, abs=1e-4)
        with monkeypatch.context() as context:
            context.setattr(metrics, "STRIP_PIXELS", 1)
            assert ms_ssim(a, b) == pytest.approx(expected, abs=1e-4)


def test_ms_ssim_needs_room_for_five_scales():
    small = photo(160, 400)
    assert ms_ssim(small, small) is None
    large = photo(161, 161)
    assert ms_ssim(large, large) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("metric", [psnr, ms_ssim])
def test_metrics_refuse_what_cannot_be_compared(metric):
    a = photo(20, 20)
    with pytest.raises(ValueError, match="uint8"):
        metric(a, a[:10])
    with pytest.raises(ValueError, match="uint8"):
        metric(a.astype(np.float32), a.astype(np.float32))


def test_psnr_of_a_known_error():
    assert psnr_db(0.04, peak=2) == pytest.approx(20)
    assert psnr_db(255**2 / 1000, peak=255) == pytest.approx(30)
    assert psnr_db(0, peak=2) == math.inf


def test_code_use_sums_up_a_histogram():
    uniform = code_use(np.array([1] * 8 + [0] * 8))
    assert (uniform.total, uniform.used) == (8, 8)
    assert (uniform.entropy_bits, uniform.perplexity) == (pytest.approx(3), pytest.approx(8))
    skewed = code_use(np.array([3, 1, 0], np.int64))
    entropy = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    assert (skewed.total, skewed.used) == (4, 2)
    assert skewed.perplexity == pytest.approx(2**entropy)
    nothing = code_use(np.zeros(4, np.int64))
    assert (nothing.total, nothing.used, nothing.entropy_bits, nothing.perplexity) == (0, 0, 0, 1)
