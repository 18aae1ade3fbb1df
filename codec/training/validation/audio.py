"""What the training of a sound codec shows on the way and adds at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
import torch

from ... import media, pipeline
from ...bitstream.container import SEGMENT
from ...metrics import spectra
from ...metrics.audio import log_mel_distance, si_sdr
from ...metrics.image import code_use
from ...models.vqvae import AudioVQVAE
from ...transform.image import analyse_signal
from . import tables

VALIDATION_SECONDS = 8
"""Sounds are looked at from their beginning, for at most this long."""

SHOWN = ("log_mel", "log-mel distance, decades")
"""The figure that the loss curve is drawn of, and its label."""

SILENT_DB = -60.0
"""What a sound that came out as another one counts as; infinite, it would make the mean infinite."""


def step_figures(mean: Mapping[str, float]) -> dict[str, float]:
    """What is worth telling of the mean terms of some steps."""
    return {"log_mel": mean["mel"]}


@torch.inference_mode()
def validate(model: AudioVQVAE, sounds: Sequence[np.ndarray]) -> tuple[float, dict[str, Any]]:
    """Means over sounds, and the use of the codes over all of them.

    Args:
        model: in evaluation mode.
        sounds: float32 [N] each, at the model's rate.

    Returns:
        The log-mel distance, negative, since the largest is the best; and "log_mel" in decades, "si_sdr_db",
        "codes_used", "perplexity".
    """
    levels, rate = model.config.codes, model.rate
    histogram, figures = np.zeros(levels, np.int64), []
    for sound in sounds:
        piece = beginning(sound, model.rate, model.stride)
        codes, decoded = _round_trip(model, piece)
        figures.append((log_mel_distance(decoded, piece, rate), max(si_sdr(decoded, piece), SILENT_DB)))
        histogram += np.bincount(codes, minlength=levels)
    use = code_use(histogram)
    log_mel, distortion = np.mean(figures, axis=0).tolist()
    told = {"log_mel": log_mel, "si_sdr_db": distortion}
    return -log_mel, told | {"codes_used": use.used, "perplexity": use.perplexity}


@torch.inference_mode()
def show(model: AudioVQVAE, sounds: Sequence[np.ndarray]) -> PIL.Image.Image:
    """Log-mel spectrograms: originals above their reconstructions, two seconds of each."""
    pieces = [beginning(sound, model.rate, model.stride)[: 2 * model.rate] for sound in sounds]
    return spectrograms([(piece, _round_trip(model, piece)[1]) for piece in pieces], model.rate)


def spectrograms(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], rate: int, seconds: float = 2
) -> PIL.Image.Image:
    """Log-mel spectrograms of pairs of sounds, float32 [N] each, the first of a pair above the second.

    Low frequencies are at the bottom; black is a magnitude of 0.001, white one of 100.
    """
    columns, bands = int(seconds * rate / 256), 80
    picture = PIL.Image.new("L", ((columns + 2) * len(pairs), 2 * (bands + 2)))
    for number, pair in enumerate(pairs):
        for row, shown in enumerate(pair):
            magnitude = spectra.stft(torch.from_numpy(shown)[None], 1024, 256).abs()
            levels = spectra.log_mel(magnitude, 1024, bands, rate)[0, :, :columns]
            pixels = ((levels.flip(0) + 3) / 5 * 255).clamp(0, 255).to(torch.uint8).numpy()
            picture.paste(PIL.Image.fromarray(pixels), (number * (columns + 2), row * (bands + 2)))
    return picture.resize((picture.width * 2, picture.height * 2))


def fit_tables(model: AudioVQVAE, training: Sequence[np.ndarray], seed: int) -> None:
    """Count static tables over the codes of these sounds and attach them to the model."""
    coded = (analyse_signal(sound, model) for sound in training)
    regions = (codes[at : at + SEGMENT] for codes in coded for at in range(0, len(codes), SEGMENT))
    tables.attach(model, regions, seed)


def complete(
    model: AudioVQVAE, training: Sequence[np.ndarray], held_out: Sequence[np.ndarray], seed: int
) -> dict[str, Any]:
    """Fit the static tables, then measure real bitstreams of the held-out sounds.

    Args:
        model: trained; its prior is set here.
        training: sounds whose codes are counted, float32 [N] each.
        held_out: sounds that are encoded and decoded.
        seed: of the classes of codes.

    Returns:
        "quality" (the operating point), "kbps", "log_mel", "si_sdr_db" (means over the sounds), "codes_used",
        "perplexity", "sounds".
    """
    fit_tables(model, training, seed)
    rate = model.rate
    rates, figures = [], []
    histogram = np.zeros(model.config.codes, np.int64)
    for sound in held_out:
        encoded = pipeline.encode_audio(media.Audio(sound[None], rate, rate, len(sound)), model)
        restored = pipeline.reconstruct(encoded)
        assert isinstance(restored, media.Audio)
        decoded = restored.signal[0]
        rates.append(encoded.kbps or 0.0)
        figures.append((log_mel_distance(decoded, sound, rate), max(si_sdr(decoded, sound), SILENT_DB)))
        histogram += np.bincount(encoded.codes.ravel(), minlength=len(histogram))
    use = code_use(histogram)
    log_mel, distortion = np.mean(figures, axis=0).tolist()
    return {
        "quality": pipeline.QUALITY,
        "kbps": float(np.mean(rates)),
        "log_mel": log_mel,
        "si_sdr_db": distortion,
        "codes_used": use.used,
        "perplexity": use.perplexity,
        "sounds": len(held_out),
    }


def beginning(sound: np.ndarray, rate: int, stride: int) -> np.ndarray:
    """The first seconds, followed by silence up to a multiple of the stride."""
    piece = sound[: VALIDATION_SECONDS * rate]
    return np.pad(piece, (0, -len(piece) % stride))


def _round_trip(model: AudioVQVAE, piece: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes [T] and reconstruction [N]."""
    codes = model.analyse(torch.from_numpy(piece)[None, None].to(model.device))
    return codes[0].cpu().numpy(), model.synthesise(codes)[0, 0].cpu().numpy()
