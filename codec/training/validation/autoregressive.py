"""What the training of an autoregressive decoder shows on the way and adds at its end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
import torch

from ... import pipeline
from ...metrics.audio import log_mel_distance
from ...metrics.image import code_use
from ...models.vqvae import WaveNetVQVAE, generation
from . import audio as sounds

SHOWN = ("bits", "bits per sample")
"""The figure that the loss curve is drawn of, and its label."""

SECONDS = 2
"""Sounds are looked at from their beginning, for this long."""

DRAWN = 16
"""Held-out sounds that are drawn at the end: the seconds of a batch, drawn side by side."""


def step_figures(mean: Mapping[str, float]) -> dict[str, float]:
    """What is worth telling of the mean terms of some steps."""
    return {"bits": mean["nll"] / math.log(2)}


@torch.inference_mode()
def validate(model: WaveNetVQVAE, held_out: Sequence[np.ndarray]) -> tuple[float, dict[str, Any]]:
    """Likelihood of sounds, and the use of the codes over all of them.

    Args:
        model: in evaluation mode.
        held_out: float32 [N] each, at the model's rate.

    Returns:
        The bits per sample, negative; and "bits", "codes_used", "perplexity".
    """
    histogram, bits = np.zeros(model.config.codes, np.int64), []
    for sound in held_out:
        piece = _beginning(sound, model)
        samples = torch.from_numpy(piece)[None, None].to(model.device)
        codes = model.analyse(samples)
        nll, _ = model.distortion(model.quantizer.decode(codes), samples)
        bits.append(float(nll) / math.log(2))
        histogram += np.bincount(codes[0].cpu().numpy(), minlength=len(histogram))
    use = code_use(histogram)
    mean = float(np.mean(bits))
    return -mean, {"bits": mean, "codes_used": use.used, "perplexity": use.perplexity}


def show(model: WaveNetVQVAE, held_out: Sequence[np.ndarray]) -> PIL.Image.Image:
    """Log-mel spectrograms: originals above what is drawn from their codes."""
    pieces = [_beginning(sound, model) for sound in held_out]
    return sounds.spectrograms(list(zip(pieces, _drawn(model, pieces), strict=True)), model.rate)


def complete(
    model: WaveNetVQVAE, training: Sequence[np.ndarray], held_out: Sequence[np.ndarray], seed: int
) -> dict[str, Any]:
    """Fit the static tables, then draw some of the held-out sounds.

    Args:
        model: trained; its prior is set here.
        training: sounds whose codes are counted, float32 [N] each.
        held_out: sounds of which DRAWN, evenly chosen, are drawn from their codes.
        seed: of the classes of codes.

    Returns:
        "quality" (the operating point), "bits" (per sample, of all), "log_mel" (of those drawn),
        "codes_used", "perplexity", "sounds".
    """
    sounds.fit_tables(model, training, seed)
    _, figures = validate(model, held_out)
    pieces = [_beginning(sound, model) for sound in held_out[:: -(-len(held_out) // DRAWN)]]
    pairs = zip(_drawn(model, pieces), pieces, strict=True)
    distances = [log_mel_distance(drawn, piece, model.rate) for drawn, piece in pairs]
    return {
        "quality": pipeline.QUALITY,
        **figures,
        "log_mel": float(np.mean(distances)),
        "sounds": len(held_out),
    }


def _drawn(model: WaveNetVQVAE, pieces: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What is drawn from the codes of pieces of SECONDS each, laid end to end, so that a batch is full."""
    with torch.inference_mode():
        samples = torch.from_numpy(np.stack(pieces))[:, None].to(model.device)
        codes = model.analyse(samples).flatten().cpu().numpy().astype(np.int32)
    return list(generation.generate(codes, model, samples.numel()).reshape(len(pieces), -1))


def _beginning(sound: np.ndarray, model: WaveNetVQVAE) -> np.ndarray:
    """The first SECONDS of a sound, followed by silence where it is shorter."""
    length = SECONDS * model.rate
    piece = sound[:length]
    return np.pad(piece, (0, length - len(piece)))
