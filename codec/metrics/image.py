"""Quality of an image against its original, and use of a codebook, from arrays alone.

Metrics are computed in strips of rows: an image of 100 megapixels needs little more memory than itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

# Wang, Simoncelli, Bovik 2003, "Multiscale structural similarity for image quality assessment", section 3.3.
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW = 11
SIGMA = 1.5
C1 = (0.01 * 255) ** 2
C2 = (0.03 * 255) ** 2
# Below this the window does not fit into the coarsest of the five scales.
MS_SSIM_MIN_SIDE = (WINDOW - 1) * 2 ** (len(SCALE_WEIGHTS) - 1) + 1
STRIP_PIXELS = 2**19


def psnr_db(squared_error: float, peak: float) -> float:
    """Return the peak signal-to-noise ratio: 10 log10(peak^2 / MSE).

    Args:
        squared_error: mean over all samples.
        peak: range of the samples: 255 for 8 bits, 2 for -1..1.

    Returns:
        dB; infinity without error.
    """
    return math.inf if squared_error <= 0 else 10 * math.log10(peak * peak / squared_error)


def psnr(
    a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8], weights: npt.NDArray[np.uint8] | None = None
) -> float:
    """Return the peak signal-to-noise ratio over all samples of all channels, see `psnr_db`.

    Args:
        a: uint8 [H, W, C].
        b: uint8 [H, W, C], the same shape.
        weights: uint8 [H, W], how much each pixel counts: its alpha, so that what is hidden does not.

    Returns:
        dB; infinity for equal images. The squared error is summed in integers, hence exact.

    Raises:
        ValueError: shapes or types do not agree.
    """
    check_pair(a, b)
    if weights is not None and weights.shape != a.shape[:2]:
        raise ValueError(f"need weights {a.shape[:2]}, got {weights.shape}")
    error = total = 0
    for top, bottom in strips(a.shape[0], a.shape[1] * a.shape[2]):
        squares = np.square(a[top:bottom].astype(np.int32) - b[top:bottom])
        if weights is not None:
            squares = squares.sum(2) * weights[top:bottom].astype(np.int64)
            total += int(weights[top:bottom].sum(dtype=np.int64)) * a.shape[2]
        error += int(np.sum(squares, dtype=np.int64))
    return psnr_db(error / max(total, 1) if weights is not None else error / a.size, 255)


def visible(
    original: npt.NDArray[np.uint8], decoded: npt.NDArray[np.uint8], alpha: npt.NDArray[np.uint8] | None
) -> npt.NDArray[np.uint8]:
    """The decoded samples, and those of the original where alpha hides them, so that no figure sees them."""
    if alpha is None or alpha.min() > 0:
        return decoded
    return np.where(alpha[:, :, None] > 0, decoded, original)


def ms_ssim(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> float | None:
    """Return the multi-scale structural similarity (Wang et al. 2003): the mean of equation 7 over channels.

    Five scales, an 11x11 Gaussian window of sigma 1.5, only windows inside the image. Odd sides are halved as
    in common implementations, with a row or column of zeros in front.

    Args:
        a: uint8 [H, W, C].
        b: uint8 [H, W, C], the same shape.

    Returns:
        0 to 1; None where a side is under 161 pixels and the fifth scale has no room for the window.

    Raises:
        ValueError: shapes or types do not agree.
    """
    check_pair(a, b)
    if min(a.shape[:2]) < MS_SSIM_MIN_SIDE:
        return None
    x, y = planes(a), planes(b)
    product = torch.ones(a.shape[2], dtype=torch.float64)
    for scale, weight in enumerate(SCALE_WEIGHTS):
        luminance_and_structure, structure = _similarity(x, y)
        coarsest = scale == len(SCALE_WEIGHTS) - 1
        product *= (luminance_and_structure if coarsest else structure).clamp_min(0) ** weight
        if not coarsest:
            x, y = _halve(x), _halve(y)
    return float(product.mean())


@dataclass(frozen=True)
class CodeUse:
    """Statistics of the use of a codebook.

    Attributes:
        total: number of codes.
        used: number of different codes.
        entropy_bits: entropy of their histogram, in bits per code.
    """

    total: int
    used: int
    entropy_bits: float

    @property
    def perplexity(self) -> float:
        """Perplexity: 2 to the entropy, the number of equally frequent codes of the same entropy."""
        return float(2**self.entropy_bits)


def code_use(counts: npt.NDArray[np.int64]) -> CodeUse:
    """Summarise a histogram of codes, integers [K]."""
    total = int(counts.sum())
    shares = counts[counts > 0] / max(total, 1)
    entropy_bits = float(-np.sum(shares * np.log2(shares))) + 0.0  # no -0.0
    return CodeUse(total, len(shares), entropy_bits)


def _similarity(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the means of l*c*s and of c*s over all windows, float64 [C]; x, y: [C, H, W] in 0..255."""
    channels, height, width = x.shape
    rows, columns = height - WINDOW + 1, width - WINDOW + 1
    offsets = torch.arange(WINDOW, dtype=torch.float32) - WINDOW // 2
    window = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    weights = (window / window.sum()).tolist()
    full = torch.zeros(channels, dtype=torch.float64)
    structure = torch.zeros(channels, dtype=torch.float64)
    for top, bottom in strips(rows, width * channels):
        a = x[:, top : bottom + WINDOW - 1].float()
        b = y[:, top : bottom + WINDOW - 1].float()
        blurred = weighted_sum(weighted_sum(torch.stack([a, b, a * a, b * b, a * b]), weights, 2), weights, 3)
        mean_a, mean_b, aa, bb, ab = blurred
        cs = (2 * (ab - mean_a * mean_b) + C2) / (aa - mean_a**2 + bb - mean_b**2 + C2)
        luminance = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
        structure += cs.sum((1, 2), dtype=torch.float64)
        full += (luminance * cs).sum((1, 2), dtype=torch.float64)
    return full / (rows * columns), structure / (rows * columns)


def planes(image: npt.NDArray[np.uint8]) -> Tensor:
    """Copy uint8 [H, W, C] to [C, H, W], so that what is computed on it reads contiguous rows."""
    return torch.from_numpy(np.array(image.transpose(2, 0, 1), order="C"))


def weighted_sum(x: Tensor, weights: list[float], dim: int) -> Tensor:
    """Correlate with a kernel along a dimension, by shifted copies: torch's convolution is far slower."""
    size = x.shape[dim] - len(weights) + 1
    total = x.narrow(dim, 0, size) * weights[0]
    for shift, weight in enumerate(weights[1:], 1):
        total.add_(x.narrow(dim, shift, size), alpha=weight)
    return total


def _halve(x: Tensor) -> Tensor:
    """[C, H, W] -> float32 [C, ceil(H/2), ceil(W/2)]: means of 2x2; an odd side gets a zero in front."""
    channels, height, width = x.shape
    odd, odd_column = height % 2, width % 2
    half = torch.empty(channels, (height + odd) // 2, (width + odd_column) // 2)
    for top, bottom in strips(half.shape[1], 2 * width * channels):
        strip = x[:, max(2 * top - odd, 0) : 2 * bottom - odd].float()
        strip = F.pad(strip, (odd_column, 0, odd if top == 0 else 0, 0))
        half[:, top:bottom] = F.avg_pool2d(strip, 2)
    return half


def strips(rows: int, row_samples: int) -> Iterator[tuple[int, int]]:
    """Yield the first and last + 1 of strips of rows, of about STRIP_PIXELS samples."""
    step = max(2 * WINDOW, STRIP_PIXELS // max(row_samples, 1))
    for top in range(0, rows, step):
        yield top, min(top + step, rows)


def check_pair(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> None:
    """Raise ValueError unless both are uint8 [H, W, C] of one shape."""
    if a.dtype != np.uint8 or b.dtype != np.uint8 or a.ndim != 3 or a.shape != b.shape or not a.size:
        raise ValueError(f"need two uint8 [H, W, C], got {a.dtype} {a.shape} and {b.dtype} {b.shape}")
