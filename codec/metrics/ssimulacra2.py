"""SSIMULACRA 2.1 (Sneyers 2022-2023, libjxl's `ssimulacra2`): how visible the errors of compression are.

The weights and the final curve are those of the package `ssimulacra2` (extra `metrics`). All before them is
computed here: the package differs from libjxl's program in its blur and its choice of scales, on small images
by tens of points. `python benchmarks/perceptual.py` compares all three.

As in `metrics.image`, an image is read in strips of rows.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from .image import check_pair, planes, strips, weighted_sum

SCALES = 6
MIN_SIDE = 8
"""Below this, in pixels, there is no scale to compare."""

SIGMA, RADIUS = 1.5, 5
C2 = 0.0009


def installed() -> bool:
    """Tell whether the package with the weights is installed."""
    return importlib.util.find_spec("ssimulacra2") is not None


def ssimulacra2(original: npt.NDArray[np.uint8], decoded: npt.NDArray[np.uint8]) -> float | None:
    """Return SSIMULACRA 2.1 of an image in sRGB.

    Args:
        original: uint8 [H, W, C], gray or RGB.
        decoded: the same shape.

    Returns:
        100 for equal images; 90 is visually lossless, 70 high, 50 medium, 30 low quality; below 0 for strong
        distortions. None without the package, or where a side is under 8 pixels.

    Raises:
        ValueError: shapes or types do not agree.
    """
    check_pair(original, decoded)
    if not installed() or min(original.shape[:2]) < MIN_SIDE:
        return None
    from ssimulacra2.ssimulacra2 import Msssim, MsssimScale

    score = Msssim()
    x, y = planes(original), planes(decoded)
    for scale in range(SCALES):
        if min(x.shape[1:]) < MIN_SIDE:  # of the scale before: the last one may be smaller
            break
        if scale:
            x, y = _halve(x), _halve(y)
        means = MsssimScale()
        means.avg_ssim, means.avg_edgediff = _norms(x, y)
        score.scales.append(means)
    return float(score.score())


def _norms(x: Tensor, y: Tensor) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return 1-norms and 4-norms of the error maps of one scale, as the package takes them.

    Returns:
        [6] of the structural dissimilarity and [12] of edges that are new or lost; of each of X, Y, B the
        norms of one map, then those of the next.
    """
    kernel = _kernel()
    pad = len(kernel) // 2
    height, width = x.shape[1:]
    sums = torch.zeros(3, 3, 2, dtype=torch.float64)  # map, channel, norm
    for top, bottom in strips(height, 3 * width):
        first, last = max(top - pad, 0), min(bottom + pad, height)
        a, b = (_positive_xyb(_linear(image[:, first:last])) for image in (x, y))
        border = (pad, pad, pad + first - top, pad + bottom - last)
        products = F.pad(torch.stack([a, b, a * a, b * b, a * b]), border)
        mean_a, mean_b, aa, bb, ab = weighted_sum(weighted_sum(products, kernel, 2), kernel, 3)
        a, b = a[:, top - first : bottom - first], b[:, top - first : bottom - first]
        contrast = 2 * (ab - mean_a * mean_b) + C2
        contrast /= (aa - mean_a.square()) + (bb - mean_b.square()) + C2
        dissimilar = (1 - (1 - (mean_a - mean_b).square()) * contrast).clamp_min(0)
        edges = (1 + (b - mean_b).abs()) / (1 + (a - mean_a).abs()) - 1
        for sum_, error in zip(sums, (dissimilar, edges.clamp_min(0), (-edges).clamp_min(0)), strict=True):
            sum_[:, 0] += error.sum((1, 2), dtype=torch.float64)
            sum_[:, 1] += error.square().square().sum((1, 2), dtype=torch.float64)
    norms = (sums / (height * width)).numpy()
    norms[..., 1] **= 0.25
    return norms[0].ravel(), norms[1:].transpose(1, 0, 2).ravel()


def _linear(image: Tensor) -> Tensor:
    """Linear light 0..1, float32 [3, h, w]: of sRGB uint8 [1 or 3, h, w]; of a coarser scale, itself."""
    light = _light()[image.int()] if image.dtype == torch.uint8 else image
    return light.expand(3, -1, -1)


def _positive_xyb(light: Tensor) -> Tensor:
    """XYB of JPEG XL, scaled and moved to about 0..1: float32 [3, h, w] -> the same shape."""
    matrix, bias = _absorbance()
    cones = torch.einsum("ij,jhw->ihw", matrix, light) + bias[:, None, None]
    long, medium, short = cones.clamp_min(0).pow(1 / 3) - bias.pow(1 / 3)[:, None, None]
    luma = (long + medium) / 2
    return torch.stack([14 * (long - medium) / 2 + 0.42, luma + 0.01, short - luma + 0.55])


def _halve(image: Tensor) -> Tensor:
    """Means of 2 x 2 in linear light, float32; an odd side has its last row or column twice."""
    channels, height, width = image.shape
    half = torch.empty(channels, -(-height // 2), -(-width // 2))
    for top, bottom in strips(half.shape[1], 2 * width * channels):
        strip = image[:, 2 * top : 2 * bottom]
        light = _light()[strip.int()] if image.dtype == torch.uint8 else strip
        odd = (0, width % 2, 0, light.shape[1] % 2)
        half[:, top:bottom] = F.avg_pool2d(F.pad(light[None], odd, mode="replicate"), 2)[0]
    return half


@functools.cache
def _light() -> Tensor:
    """Linear light of the 256 values of sRGB (IEC 61966-2-1)."""
    values = torch.arange(256, dtype=torch.float64) / 255
    light = torch.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return light.float()


@functools.cache
def _absorbance() -> tuple[Tensor, Tensor]:
    """Linear light to cones: the matrix [3, 3] and the bias [3] of JPEG XL."""
    from ssimulacra2 import ssimulacra2 as package

    constants: Any = package.kOpsinAbsorbanceMatrix.reshape(3, 3), package.kOpsinAbsorbanceBias
    matrix, bias = (torch.from_numpy(constant).float() for constant in constants)
    return matrix, bias


@functools.cache
def _kernel() -> list[float]:
    """A Gaussian of three cosines, cut where all are zero (Charalampidis 2016).

    The coefficients are those nearest to the cosine series of a Gaussian that give a sum of 1 and a variance
    of SIGMA squared.
    """
    n = np.arange(1 - RADIUS, RADIUS)
    frequencies = np.array([1, 3, 5]) * math.pi / (2 * RADIUS)
    cosines = np.cos(np.outer(n, frequencies))
    ideal = np.exp(-((SIGMA * frequencies) ** 2) / 2) / RADIUS
    moments = np.stack([cosines.sum(0), (n[:, None] ** 2 * cosines).sum(0)])
    missing = np.array([1, SIGMA**2]) - moments @ ideal
    coefficients = ideal + np.linalg.lstsq(moments, missing, rcond=None)[0]
    kernel: list[float] = (cosines @ coefficients).tolist()
    return kernel
