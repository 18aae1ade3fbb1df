"""What the training of a learned prior shows on the way and adds at its end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
import torch

from ... import media, pipeline
from ...bitstream import container
from ...metrics.image import code_use
from ...models import PriorFit
from ...models.vqvae import VQVAE
from ...pipeline.sampling import sample, sheet
from ...transform.pixels import to_samples
from . import audio as sounds
from . import image as pictures

SHOWN = ("bits", "bits per code")
"""The figure that the loss curve is drawn of, and its label."""

DRAWN = 4
"""Pictures or sounds that are drawn."""


def step_figures(mean: Mapping[str, float]) -> dict[str, float]:
    """What is worth telling of the mean terms of some steps."""
    return {"bits": mean["loss"] / math.log(2)}


@torch.inference_mode()
def validate(model: PriorFit, held_out: Sequence[np.ndarray]) -> tuple[float, dict[str, Any]]:
    """Cross-entropy of the codes of held-out files, by the network in training.

    Args:
        model: in evaluation mode.
        held_out: pictures uint8 [H, W, 3] or sounds float32 [N].

    Returns:
        The bits per code over all, negative; and "bits", "codes_used", "perplexity".
    """
    histogram = np.zeros(model.codes, np.int64)
    nats = 0.0
    for original in held_out:
        codes = model.codec.analyse(_window(original, model).to(model.codec.device))
        nats += float(model.cost(codes)) * codes.numel()
        histogram += np.bincount(codes.flatten().cpu().numpy(), minlength=len(histogram))
    use = code_use(histogram)
    bits = nats / math.log(2) / max(int(histogram.sum()), 1)
    return -bits, {"bits": bits, "codes_used": use.used, "perplexity": use.perplexity}


def show(model: PriorFit, held_out: Sequence[np.ndarray]) -> PIL.Image.Image:
    """Pictures, or spectrograms of sounds, drawn from the prior."""
    del held_out
    codec = model.finished()
    extent: dict[str, Any] = {"size": (128, 128)} if model.medium == "image" else {"seconds": 2.0}
    drawn = sample(codec, count=DRAWN, **extent)
    if model.medium == "image":
        return PIL.Image.fromarray(sheet(drawn).samples)
    signals = [one.signal[0] for one in drawn]
    return sounds.spectrograms(list(zip(signals[::2], signals[1::2], strict=True)), model.rate)


def complete(
    model: VQVAE, training: Sequence[np.ndarray], held_out: Sequence[np.ndarray], seed: int
) -> dict[str, Any]:
    """Measure real bitstreams of the held-out files.

    Args:
        model: with its prior.
        training: not needed.
        held_out: files that are encoded and decoded, as in `validate`.
        seed: not needed.

    Returns:
        "bpp" or "kbps" (mean of the files), "bits" (per code, of all chunks' payloads), "static_bits" (the
        same with static tables alone), "payload_over_ideal", "codes_used", "perplexity", "files".
    """
    del training, seed
    histogram = np.zeros(model.codes, np.int64)
    rate, rates = ("bpp" if model.medium == "image" else "kbps"), []
    paid = static = 0
    ideal = 0.0
    for original in held_out:
        quick, encoded = (_encoded(original, model, fast=fast) for fast in (True, False))
        pipeline.reconstruct(encoded)
        rates.append(getattr(encoded, rate))
        paid += container.read_info(encoded.data).code_bytes
        static += container.read_info(quick.data).code_bytes
        ideal += encoded.estimate_bits
        histogram += np.bincount(encoded.codes.ravel(), minlength=len(histogram))
    use, count = code_use(histogram), max(int(histogram.sum()), 1)
    return {
        rate: float(np.mean(rates)),
        "bits": 8 * paid / count,
        "static_bits": 8 * static / count,
        "payload_over_ideal": 8 * paid / ideal,
        "codes_used": use.used,
        "perplexity": use.perplexity,
        "files": len(held_out),
    }


def _window(original: np.ndarray, model: PriorFit) -> torch.Tensor:
    """The samples of a file that are looked at, [1, C, ...]."""
    if model.medium == "image":
        return to_samples(pictures.central(original, model.stride)[None])
    return torch.from_numpy(sounds.beginning(original, model.rate, model.stride))[None, None]


def _encoded(original: np.ndarray, model: Any, *, fast: bool) -> pipeline.Encoded:
    if model.medium == "image":
        return pipeline.encode_image(media.Image(samples=original), model, fast=fast)
    sound = media.Audio(original[None], model.rate, model.rate, len(original))
    return pipeline.encode_audio(sound, model, fast=fast)
