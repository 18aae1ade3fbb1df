"""Validation of images: windows, PSNR, contact sheets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import PIL.Image
import torch

from ... import media
from ...metrics.image import psnr, psnr_db
from ...models.base import Model, OperatingPoint
from ...pipeline.sampling import image_grid, sample
from ...priors.base import Symbols
from ...transform import image as transform
from ...transform.pixels import to_pixels, to_samples
from ...transform.tiling import extend, pad_to_multiple

VALIDATION_SIDE = 512
"""Images are looked at in their central window of at most this side, in pixels."""

RATES = {"quarter": 0.25, "half": 0.5, "one": 1.0}
"""Bits per pixel at which figures of variable-rate models are interpolated."""

FIGURES = {"psnr": "psnr_db", "ms_ssim": "ms_ssim"}
"""First part of the name of an interpolated figure -> the figure."""

SHEET_SIDE = 128
"""Side of the corners on a contact sheet, in pixels."""

LOSSLESS_DB = psnr_db(1e-3, peak=255)
"""Upper bound of the PSNR (dB), so that one image without error cannot make the mean infinite."""


class ImageMedium:
    """As in `media.Medium`: images uint8 [H, W, 3]."""

    headline = ("psnr_db", "PSNR, dB")
    sign = 1
    rate = "bpp"
    rates: Mapping[str, float] = RATES
    interpolated: Mapping[str, str] = FIGURES

    def window(self, original: np.ndarray, point: OperatingPoint, *, short: bool = False) -> np.ndarray:
        """The central window, its sides cut to multiples of the stride (or extended, where shorter)."""
        if short:
            return extend(original[:SHEET_SIDE, :SHEET_SIDE], SHEET_SIDE, SHEET_SIDE)
        height, width = original.shape[:2]
        top, left = max(height - VALIDATION_SIDE, 0) // 2, max(width - VALIDATION_SIDE, 0) // 2
        window = original[top : top + VALIDATION_SIDE, left : left + VALIDATION_SIDE]
        return pad_to_multiple(window, point.stride)

    def to_tensor(self, window: np.ndarray) -> torch.Tensor:
        """As in `media.Medium`."""
        return to_samples(window[None])

    def to_array(self, samples: torch.Tensor) -> np.ndarray:
        """As in `media.Medium`."""
        pixels: np.ndarray = to_pixels(samples)[0]
        return pixels

    def figures(self, decoded: np.ndarray, original: np.ndarray, point: OperatingPoint) -> dict[str, float]:
        """The PSNR after rounding to 8 bits."""
        del point
        return {"psnr_db": min(psnr(original, decoded), LOSSLESS_DB)}

    def wrap(self, original: np.ndarray, point: OperatingPoint) -> media.Image:
        """As in `media.Medium`."""
        del point
        return media.Image(original)

    def unwrap(self, decoded: media.Image | media.Audio) -> np.ndarray:
        """As in `media.Medium`."""
        if not isinstance(decoded, media.Image):
            raise TypeError("audio among images")
        return decoded.samples

    def analyse(self, original: np.ndarray, point: OperatingPoint) -> list[Symbols]:
        """The symbols of the whole image, as one region."""
        return [transform.analyse(original, point)]

    def sheet(self, pairs: Sequence[tuple[np.ndarray, np.ndarray]], point: OperatingPoint) -> PIL.Image.Image:
        """Pairs of windows, an original above its reconstruction."""
        del point
        side = SHEET_SIDE
        grid = PIL.Image.new("RGB", (side * len(pairs), 2 * side))
        for column, pair in enumerate(pairs):
            for row, pixels in enumerate(pair):
                grid.paste(PIL.Image.fromarray(pixels), (column * side, row * side))
        return grid

    def sampled(self, model: Model, count: int) -> PIL.Image.Image:
        """Images of 128 x 128 pixels."""
        side = SHEET_SIDE
        images = sample(model, count=count, size=(side, side))
        grid = image_grid([media.Image(self.unwrap(image)) for image in images])
        return PIL.Image.fromarray(grid.samples)
