"""What the training of a picture codec with a dial shows on the way and adds at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
import torch

from ... import media, pipeline
from ...bitstream import container
from ...bitstream.quality import place_of
from ...metrics.image import psnr, psnr_db
from ...models.points import Point
from ...models.variable_rate import ScalarCodec, lagrangian, weight
from ...transform.pixels import to_pixels, to_samples
from .image import LOSSLESS_DB, SHOWN, above, central

PLACES = (51, 86, 121, 155, 180, 230)
"""On the dial, that are looked at during the training: lambda .0018, .0044, .011, .026, .05, .18."""

RATES = {"quarter": 0.25, "half": 0.5, "one": 1.0}
"""Bits per pixel at which the PSNR is told, interpolated between the places."""

PICTURES = 16
"""Pictures looked at."""

SHOWN_PLACE = 121

QUALITIES = (1, 2, 3, 4, 5)
"""Operating points that cards tell."""

MEASURED = 24
"""Pictures that they are measured over."""

__all__ = ["SHOWN", "complete", "show", "step_figures", "validate"]


def step_figures(mean: Mapping[str, float]) -> dict[str, float]:
    """What is worth telling of the mean terms of some steps."""
    return {"psnr_db": psnr_db(mean["distortion"], peak=255)}


@torch.inference_mode()
def validate(model: ScalarCodec, pictures: Sequence[np.ndarray]) -> tuple[float, dict[str, Any]]:
    """Rate of rounded latents, and PSNR after rounding to 8 bits, at some places on the dial.

    Args:
        model: in evaluation mode.
        pictures: uint8 [H, W, 3] each.

    Returns:
        What the loss is the negative of; and "psnr_db" (mean over the places), "psnr_quarter", "psnr_half",
        "psnr_one" (dB at so many bits per pixel), "loss".
    """
    chosen = pictures[:: -(-len(pictures) // PICTURES)]
    rates, figures, losses = np.zeros((3, len(PLACES), len(chosen)))
    for column, picture in enumerate(chosen):
        window = central(picture, model.stride)
        samples = to_samples(window[None]).to(model.device)
        for row, number in enumerate(PLACES):
            place = torch.full((1,), float(number), device=model.device)
            rounded, bits = model.coded(model.latents(samples, place), place, noisy=False)
            decoded = to_pixels(model.reconstruct(rounded, place))[0]
            rates[row, column] = float(bits) / (window.shape[0] * window.shape[1])
            figures[row, column] = min(psnr(window, decoded), LOSSLESS_DB)
            error = float(np.square(np.subtract(window, decoded, dtype=np.float32)).mean())
            cost = rates[row, column] + lagrangian(place) * error
            losses[row, column] = float(cost * weight(lagrangian(place)))
    curve = np.log(rates.mean(1)), figures.mean(1)
    told = {f"psnr_{name}": float(np.interp(np.log(rate), *curve)) for name, rate in RATES.items()}
    loss = float(losses.mean())
    return -loss, {"psnr_db": float(figures.mean()), **told, "loss": loss, "bpp": rates.mean(1).tolist()}


@torch.inference_mode()
def show(model: ScalarCodec, pictures: Sequence[np.ndarray]) -> PIL.Image.Image:
    """Originals above their reconstructions, 192 pixels square each, one place on the dial."""
    place = torch.full((1,), float(SHOWN_PLACE), device=model.device)

    def reconstruct(samples: torch.Tensor) -> torch.Tensor:
        latents = model.latents(samples.to(model.device), place)
        return model.reconstruct(model.coded(latents, place, noisy=False)[0], place)

    return above(pictures, 192, reconstruct)


def complete(
    model: ScalarCodec, training: Sequence[np.ndarray], held_out: Sequence[np.ndarray], seed: int
) -> dict[str, Any]:
    """Measure real bitstreams of some held-out pictures, at qualities from the worst to the best.

    Args:
        model: with its prior.
        training: not needed.
        held_out: pictures that are encoded and decoded, uint8 [H, W, 3] each.
        seed: not needed.

    Returns:
        "points", a list of "quality", "bpp" and "psnr_db" (means over the pictures); "payload_over_ideal"
        over all of them, "pictures".
    """
    del training, seed
    chosen = held_out[:: -(-len(held_out) // MEASURED)]
    points, paid, ideal = [], 0, 0.0
    for quality in QUALITIES:
        found = []
        for picture in chosen:
            encoded = pipeline.encode_at(media.Image(picture), Point(model, place_of(quality)))
            found.append((encoded.bpp or 0.0, min(pipeline.verify(encoded), LOSSLESS_DB)))
            paid += container.read_info(encoded.data).code_bytes if encoded.estimate_bits else 0
            ideal += encoded.estimate_bits
        bpp, psnr_db = (float(figure) for figure in np.mean(found, 0))
        points.append({"quality": quality, "bpp": bpp, "psnr_db": psnr_db})
    return {"points": points, "payload_over_ideal": 8 * paid / ideal, "pictures": len(chosen)}
