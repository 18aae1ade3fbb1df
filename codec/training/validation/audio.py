"""Validation of audio: beginnings, distances of spectra, spectrograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import PIL.Image
import torch

from ... import media
from ...bitstream.geometry import SEGMENT
from ...metrics import spectra
from ...metrics.audio import log_mel_distance, si_sdr
from ...models.base import Model, OperatingPoint
from ...pipeline.sampling import sample
from ...priors.base import Symbols
from ...transform.audio import analyse_signal

VALIDATION_SECONDS = 8
"""Audio is looked at from its beginning, for at most this long."""

SHORT_SECONDS = 2
"""The same of contact sheets, and of decoders that draw."""

SILENT_DB = -60.0
"""Lower bound of SI-SDR (dB), so that one failed file cannot make the mean infinite."""


class AudioMedium:
    """As in `media.Medium`: audio float32 [N], at the rate of the model."""

    headline = ("log_mel", "log-mel distance, decades")
    sign = -1
    rate = "kbps"
    rates: Mapping[str, float] = MappingProxyType({})
    interpolated: Mapping[str, str] = MappingProxyType({})

    def window(self, original: np.ndarray, point: OperatingPoint, *, short: bool = False) -> np.ndarray:
        """The first seconds, followed by silence up to a multiple of the stride."""
        piece = original[: (SHORT_SECONDS if short else VALIDATION_SECONDS) * point.model.rate]
        return np.pad(piece, (0, -len(piece) % point.stride))

    def to_tensor(self, window: np.ndarray) -> torch.Tensor:
        """As in `media.Medium`."""
        return torch.from_numpy(window)[None, None]

    def to_array(self, samples: torch.Tensor) -> np.ndarray:
        """As in `media.Medium`."""
        signal: np.ndarray = samples[0, 0].cpu().numpy()
        return signal

    def figures(self, decoded: np.ndarray, original: np.ndarray, point: OperatingPoint) -> dict[str, float]:
        """The log-mel distance in decades, and the SI-SDR."""
        return {
            "log_mel": log_mel_distance(decoded, original, point.model.rate),
            "si_sdr_db": max(si_sdr(decoded, original), SILENT_DB),
        }

    def wrap(self, original: np.ndarray, point: OperatingPoint) -> media.Audio:
        """As in `media.Medium`."""
        rate = point.model.rate
        return media.Audio(original[None], rate, rate, len(original))

    def unwrap(self, decoded: media.Image | media.Audio) -> np.ndarray:
        """As in `media.Medium`."""
        if not isinstance(decoded, media.Audio):
            raise TypeError("an image among audio")
        signal: np.ndarray = decoded.signal[0]
        return signal

    def analyse(self, original: np.ndarray, point: OperatingPoint) -> list[Symbols]:
        """Symbols by segments."""
        found = analyse_signal(original, point)
        segments: list[Symbols] = []
        for at in range(0, -(-len(original) // point.stride), SEGMENT):
            segments.append({})
            for plane in point.planes:
                scale = point.stride // plane.stride
                segments[-1][plane.name] = found[plane.name][scale * at : scale * (at + SEGMENT)]
        return segments

    def sheet(self, pairs: Sequence[tuple[np.ndarray, np.ndarray]], point: OperatingPoint) -> PIL.Image.Image:
        """Draw log-mel spectrograms of two seconds, an original above its reconstruction."""
        return spectrograms(pairs, point.model.rate, SHORT_SECONDS)

    def sampled(self, model: Model, count: int) -> PIL.Image.Image:
        """Spectrograms of two seconds each, two in a column."""
        signals = [self.unwrap(one) for one in sample(model, count=count, seconds=SHORT_SECONDS)]
        return self.sheet(list(zip(signals[::2], signals[1::2], strict=True)), model.at(0))


def spectrograms(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], rate: int, seconds: float
) -> PIL.Image.Image:
    """Draw log-mel spectrograms of pairs of signals, float32 [N] each, the first above the second.

    Low frequencies are at the bottom; black is a magnitude of 0.001, white one of 100.
    """
    columns, bands = int(seconds * rate / 256), 80
    sheet = PIL.Image.new("L", ((columns + 2) * len(pairs), 2 * (bands + 2)))
    for number, pair in enumerate(pairs):
        for row, signal in enumerate(pair):
            pixels = spectra.picture(signal, rate)[:, :columns]
            sheet.paste(PIL.Image.fromarray(pixels), (number * (columns + 2), row * (bands + 2)))
    return sheet.resize((sheet.width * 2, sheet.height * 2))
