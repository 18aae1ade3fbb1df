"""Degrade images: smaller ones have no traces of an earlier compression, and get noise as from a camera."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import PIL.Image
from PIL.Image import Resampling

NOISY = 0.75
"""Share of images that noise is added to; in half of these it is smooth."""


@dataclass(frozen=True)
class Degradation:
    """What is done to images, at random: by default nothing, for which no random number is drawn.

    Attributes:
        downscale: largest factor that they are downscaled by; the smallest is its square root.
        noise: largest standard deviation of the noise, in levels.
        coarse_chroma: share of images whose chroma is brought to half the resolution and back.
    """

    downscale: float = 1.0
    noise: float = 0.0
    coarse_chroma: float = 0.0

    def factor(self, rng: np.random.Generator) -> float:
        """Draw the factor of an image."""
        most = self.downscale
        return float(rng.uniform(math.sqrt(most), most)) if most > 1 else 1.0

    def apply(self, pixels: np.ndarray, factor: float, rng: np.random.Generator) -> np.ndarray:
        """Downscale an image, uint8 [H, W, 3], by a factor; add noise; make its chroma coarse."""
        if factor > 1:
            how = Resampling.LANCZOS if rng.random() < 0.5 else Resampling.BOX
            pixels = _resized(pixels, 1 / factor, how)
        if self.noise > 0 and rng.random() < NOISY:
            pixels = _with_noise(pixels, self.noise * rng.random() ** 2, rng)
        if self.coarse_chroma > 0 and rng.random() < self.coarse_chroma:
            pixels = _with_coarse_chroma(pixels)
        return pixels


def _resized(pixels: np.ndarray, scale: float, how: Resampling) -> np.ndarray:
    width, height = (max(round(side * scale), 1) for side in (pixels.shape[1], pixels.shape[0]))
    return np.asarray(PIL.Image.fromarray(np.ascontiguousarray(pixels)).resize((width, height), how))


def _with_noise(pixels: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """Add Gaussian noise like that of sensors and film: its smoothness and its colour are random."""
    shared = rng.random()
    noise = rng.standard_normal((*pixels.shape[:2], 4), np.float32)
    if rng.random() < 0.5:
        # Weights (1, 2, 1) along each axis leave 6 / 16 of the deviation.
        for axis in (0, 1):
            noise = (np.roll(noise, 1, axis) + 2 * noise + np.roll(noise, -1, axis)) * np.float32(0.25)
        noise *= np.float32(16 / 6)
    mixed = math.sqrt(1 - shared) * noise[:, :, :3] + math.sqrt(shared) * noise[:, :, 3:]
    return np.rint(pixels + deviation * mixed).clip(0, 255).astype(np.uint8)


def _with_coarse_chroma(pixels: np.ndarray) -> np.ndarray:
    """Bring chroma to half the resolution and back, as JPEG 4:2:0 does."""
    size = pixels.shape[1], pixels.shape[0]
    luma, *chroma = PIL.Image.fromarray(np.ascontiguousarray(pixels)).convert("YCbCr").split()
    half = tuple(-(-side // 2) for side in size)
    coarse = [one.resize(half, Resampling.BOX).resize(size, Resampling.BILINEAR) for one in chroma]
    return np.asarray(PIL.Image.merge("YCbCr", (luma, *coarse)).convert("RGB"))
