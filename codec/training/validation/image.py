"""What the training of a picture codec shows on the way and adds at its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
import torch

from ... import media, pipeline
from ...metrics.image import code_use, psnr, psnr_db
from ...models.vqvae import ImageVQVAE
from ...transform import image as transform
from ...transform.pixels import to_pixels, to_samples
from ...transform.tiling import extend, pad_to_multiple
from . import tables

VALIDATION_SIDE = 512
"""Pictures are looked at in their central window of at most this side, in pixels."""

LOSSLESS_DB = psnr_db(1e-3, peak=255)
"""What a picture without any error counts as; infinite, it would make every mean infinite."""

SHOWN = ("psnr_db", "PSNR, dB")
"""The figure that the loss curve is drawn of, and its label."""


def step_figures(mean: Mapping[str, float]) -> dict[str, float]:
    """What is worth telling of the mean terms of some steps."""
    return {"psnr_db": psnr_db(mean["distortion"], peak=2)}


@torch.inference_mode()
def validate(model: ImageVQVAE, pictures: Sequence[np.ndarray]) -> tuple[float, dict[str, Any]]:
    """Mean of the pictures' PSNR after rounding to 8 bits, and the use of the codes over all of them.

    Args:
        model: in evaluation mode.
        pictures: uint8 [H, W, 3] each.

    Returns:
        The PSNR in dB; and "psnr_db", "codes_used", "perplexity".
    """
    levels = model.config.codes
    histogram, figures = torch.zeros(levels, dtype=torch.int64), []
    for picture in pictures:
        window = central(picture, model.stride)
        codes = model.analyse(to_samples(window[None]).to(model.device))
        decoded = to_pixels(model.synthesise(codes))[0]
        figures.append(min(psnr(window, decoded), LOSSLESS_DB))
        histogram += torch.bincount(codes.flatten().cpu(), minlength=levels)
    use = code_use(histogram.numpy())
    mean = float(np.mean(figures))
    return mean, {"psnr_db": mean, "codes_used": use.used, "perplexity": use.perplexity}


@torch.inference_mode()
def show(model: ImageVQVAE, pictures: Sequence[np.ndarray]) -> PIL.Image.Image:
    """Originals above their reconstructions, 128 pixels square each."""
    return above(pictures, 128, lambda samples: model.synthesise(model.analyse(samples.to(model.device))))


def above(
    pictures: Sequence[np.ndarray], side: int, reconstruct: Callable[[torch.Tensor], torch.Tensor]
) -> PIL.Image.Image:
    """Corners of originals, so many pixels square, above what `reconstruct` makes of their samples."""
    grid = PIL.Image.new("RGB", (side * len(pictures), 2 * side))
    for column, picture in enumerate(pictures):
        window = extend(picture[:side, :side], side, side)
        decoded = to_pixels(reconstruct(to_samples(window[None])))[0]
        for row, pixels in enumerate((window, decoded)):
            grid.paste(PIL.Image.fromarray(pixels), (column * side, row * side))
    return grid


def complete(
    model: ImageVQVAE, training: Sequence[np.ndarray], held_out: Sequence[np.ndarray], seed: int
) -> dict[str, Any]:
    """Fit the static tables, then measure real bitstreams of the held-out pictures.

    Args:
        model: trained; its prior is set here.
        training: pictures whose codes are counted, uint8 [H, W, 3] each.
        held_out: pictures that are encoded and decoded.
        seed: of the classes of codes.

    Returns:
        "quality" (the operating point), "bpp" and "psnr_db" (means over the pictures), "codes_used",
        "perplexity", "pictures".
    """
    tables.attach(model, (transform.analyse(picture, model, effort=0) for picture in training), seed)
    rates, figures = [], []
    histogram = np.zeros(model.config.codes, np.int64)
    for picture in held_out:
        image = media.Image(samples=picture)
        encoded = pipeline.encode_image(image, model)
        rates.append(encoded.bpp or 0.0)
        figures.append(min(pipeline.verify(encoded), LOSSLESS_DB))
        histogram += np.bincount(encoded.codes.ravel(), minlength=len(histogram))
    use = code_use(histogram)
    return {
        "quality": pipeline.QUALITY,
        "bpp": float(np.mean(rates)),
        "psnr_db": float(np.mean(figures)),
        "codes_used": use.used,
        "perplexity": use.perplexity,
        "pictures": len(held_out),
    }


def central(picture: np.ndarray, stride: int) -> np.ndarray:
    """The central window, its sides cut to multiples of the stride (or extended, where shorter)."""
    height, width = picture.shape[:2]
    top, left = max(height - VALIDATION_SIDE, 0) // 2, max(width - VALIDATION_SIDE, 0) // 2
    window = picture[top : top + VALIDATION_SIDE, left : left + VALIDATION_SIDE]
    return pad_to_multiple(window, stride)
