"""Convert pixels to the samples of networks, and back."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def to_samples(pixels: np.ndarray) -> Tensor:
    """Convert uint8 [B, H, W, 3] to float32 [B, 3, H, W] in -1..1, channels last in memory."""
    # A copy: images may be read-only, or views with negative strides (turned upright).
    return torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2).to(torch.float32).div_(127.5).sub_(1)


def to_pixels(samples: Tensor) -> np.ndarray:
    """Convert float32 [B, 3, H, W] in -1..1 to uint8 [B, H, W, 3], rounded and clipped."""
    scaled = samples.detach().permute(0, 2, 3, 1).add(1).mul(127.5)
    return scaled.round_().clamp_(0, 255).to(torch.uint8).cpu().numpy()
