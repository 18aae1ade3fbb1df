"""What a training shows on the way and adds at its end: validation, pictures, tables, measured rates."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch

from . import media, pipeline, transform
from .datasets import to_pixels, to_samples
from .metrics import code_use, psnr, psnr_db
from .models.vqvae import VQVAE
from .priors import static
from .quantizers import kmeans
from .tiling import extend, pad_to_multiple
from .weights import exported, fingerprint

VALIDATION_SIDE = 512
"""Pictures are looked at in their central window of at most this side, in pixels."""

LOSSLESS_DB = psnr_db(1e-3, peak=255)
"""What a picture without any error counts as; infinite, it would make every mean infinite."""

CLASSES = 32
"""Classes of codes that make the context of the static tables."""


@torch.inference_mode()
def validate(model: VQVAE, pictures: Sequence[np.ndarray]) -> dict[str, Any]:
    """Mean of the pictures' PSNR after rounding to 8 bits, and the use of the codes over all of them.

    Args:
        model: in evaluation mode.
        pictures: uint8 [H, W, 3] each.

    Returns:
        "psnr_db", "codes_used", "perplexity".
    """
    levels = model.config.codes
    histogram, figures = torch.zeros(levels, dtype=torch.int64), []
    for picture in pictures:
        window = _central(picture, model.stride)
        codes = model.analyse(to_samples(window[None]).to(model.device))
        decoded = to_pixels(model.synthesise(codes))[0]
        figures.append(min(psnr(window, decoded), LOSSLESS_DB))
        histogram += torch.bincount(codes.flatten().cpu(), minlength=levels)
    use = code_use(histogram.numpy())
    return {"psnr_db": float(np.mean(figures)), "codes_used": use.used, "perplexity": use.perplexity}


@torch.inference_mode()
def sample_grid(model: VQVAE, pictures: Sequence[np.ndarray]) -> PIL.Image.Image:
    """Originals above their reconstructions, 128 pixels square each."""
    side = 128
    grid = PIL.Image.new("RGB", (side * len(pictures), 2 * side))
    for column, picture in enumerate(pictures):
        window = extend(picture[:side, :side], side, side)
        codes = model.analyse(to_samples(window[None]).to(model.device))
        decoded = to_pixels(model.synthesise(codes))[0]
        for row, pixels in enumerate((window, decoded)):
            grid.paste(PIL.Image.fromarray(pixels), (column * side, row * side))
    return grid


@torch.inference_mode()
def fit_static_prior(model: VQVAE, pictures: Sequence[np.ndarray], seed: int) -> None:
    """Count static tables over the codes of these pictures and attach them to the model."""
    codebook = model.quantizer.codebook.detach().cpu().float()
    count = min(CLASSES, model.config.codes)
    generator = torch.Generator().manual_seed(seed)
    centres = kmeans(codebook, count, generator, rounds=50)
    classes = torch.cdist(codebook, centres).argmin(1).numpy().astype(np.uint8)
    regions = (transform.analyse(picture, model, effort=0) for picture in pictures)
    model.prior = static.StaticPrior(static.fit(static.counts(regions, classes, count)), classes)


def complete(
    model: VQVAE, training: Sequence[np.ndarray], held_out: Sequence[np.ndarray], seed: int
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
    fit_static_prior(model, training, seed)
    model.card["fingerprint"] = fingerprint(exported(model), model.decoding, model.card["config"])
    rates, figures = [], []
    histogram = np.zeros(model.config.codes, np.int64)
    for picture in held_out:
        image = media.Image(samples=picture)
        encoded = pipeline.encode_image(image, model)
        rates.append(encoded.bpp)
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


def plot_losses(folder: Path) -> None:
    """Draw metrics.jsonl as loss-curve.png, where matplotlib (the extra `plots`) is installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    figure = Figure(figsize=(8, 6), layout="constrained")
    quality, use = figure.subplots(2, 1, sharex=True)
    for event, label in (("step", "training crops"), ("validation", "validation, averaged weights")):
        points = [e for e in events if e["event"] == event]
        quality.plot([e["step"] for e in points], [e["psnr_db"] for e in points], label=label)
        use.plot([e["step"] for e in points], [e["perplexity"] for e in points], label=f"perplexity, {label}")
    quality.set_ylabel("PSNR, dB")
    use.set_ylabel("codes")
    use.set_xlabel("step")
    quality.legend()
    use.legend()
    figure.savefig(folder / "loss-curve.png", dpi=100)


def _central(picture: np.ndarray, stride: int) -> np.ndarray:
    """The central window, its sides cut to multiples of the stride (or extended, where shorter)."""
    height, width = picture.shape[:2]
    top, left = max(height - VALIDATION_SIDE, 0) // 2, max(width - VALIDATION_SIDE, 0) // 2
    window = picture[top : top + VALIDATION_SIDE, left : left + VALIDATION_SIDE]
    return pad_to_multiple(window, stride)
