"""Rate, log-mel distance, SI-SDR, figures that stand for listeners, and speed of sounds; Opus beside."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from .. import media, pipeline
from ..metrics import audio as sound_metrics
from ..metrics.audio import PERCEPTUAL
from .baselines import audio as opus
from .candidates import CODE_FIGURES, Candidate, Row, Source, code_figures, mean
from .disk import through_file

COLUMNS = (
    "file",
    "codec",
    "q",
    "bytes",
    "kbps",
    "log_mel",
    "si_sdr_db",
    *PERCEPTUAL,
    "encode_seconds",
    "decode_seconds",
    *CODE_FIGURES,
    "estimate_kbps",
    "seconds",
    "rate",
    "channels",
)
"""Keys of a row."""

FIGURES = ("kbps", "log_mel", "si_sdr_db", *PERCEPTUAL, *CODE_FIGURES, "estimate_kbps")
"""Those that have a mean."""

MEANS = ("codec", "q", "sounds", "bytes", "seconds", *FIGURES, "encode_x", "decode_x")
"""Keys of a row of the summary."""

SUFFIX = ".wav"
"""Of reconstructions that are kept."""

WORST_DB = -60.0
"""The least that an SI-SDR counts as; infinite, it would make every mean infinite."""


def count(candidates: Sequence[Candidate], against: Sequence[str]) -> int:
    """How many rows `rows` gives."""
    return len(candidates) + len(against)


def rows(
    original: media.Audio,
    candidates: Sequence[Candidate],
    against: Sequence[str],
    *,
    effort: int,
    device: str,
) -> Iterator[tuple[Row, media.Audio | None]]:
    """Rows of one sound ("file" is None): ours, with their reconstructions, and the others at their rates."""
    for candidate in candidates:
        row, _, decoded = measure(
            original, model=candidate.model, quality=candidate.quality, effort=effort, device=device
        )
        row["codec"] = candidate.label
        yield row, decoded
    for name in against:
        yield compare(original, name), None


def measure(
    original: media.Audio,
    *,
    model: Source | None = None,
    quality: float | None = None,
    effort: int = 1,
    device: str = "auto",
) -> tuple[Row, pipeline.Encoded, media.Audio]:
    """One sound at one point: encode, write, take the size of the file, read, decode, compare.

    Returns:
        The row (its "file" is None), what the encoder gave, and the decoded sound.
    """
    started = time.perf_counter()
    encoded = pipeline.encode_file(
        replace(original, tags={}),
        pipeline.EncodeOptions(model=model, quality=quality, effort=effort, device=device),
    )
    encode_seconds = time.perf_counter() - started
    data = through_file(encoded.data)
    started = time.perf_counter()
    decoded = pipeline.decode(data, model=model, max_seconds=math.inf, device=device)
    decode_seconds = time.perf_counter() - started
    assert isinstance(decoded, media.Audio)
    row = _row(original, decoded.signal, len(data)) | {
        "codec": encoded.model,
        "q": encoded.quality,
        "encode_seconds": encode_seconds,
        "decode_seconds": decode_seconds,
        **code_figures(encoded),
        "estimate_kbps": encoded.estimate_bits / 1000 / original.seconds,
    }
    return row, encoded, decoded


def compare(original: media.Audio, name: str) -> Row:
    """The row of another codec ("file" is None): "q" is the bitrate asked for, "kbps" that of the file."""
    codec, kbps = opus.parse(name)
    coded = opus.run(original, name)
    return _row(original, coded.signal, len(coded.data)) | {
        "codec": codec,
        "q": kbps,
        "encode_seconds": coded.encode_seconds,
        "decode_seconds": coded.decode_seconds,
    }


def figures(reconstruction: np.ndarray, original: np.ndarray, rate: int) -> dict[str, float | None]:
    """Means over the channels of a sound.

    Args:
        reconstruction: float32 [C, N].
        original: the same shape.
        rate: samples a second; figures that stand for listeners are for 16 kHz.

    Returns:
        "log_mel", "si_sdr_db" (no less than WORST_DB; channels without error, such as silent ones, are left
        out, and where there are no others it is infinite) and `PERCEPTUAL`, None where its package is not
        installed or it finds nothing to measure.
    """
    pairs = list(zip(reconstruction, original, strict=True))
    ratios = [max(sound_metrics.si_sdr(ours, theirs), WORST_DB) for ours, theirs in pairs]
    found: dict[str, float | None] = dict.fromkeys(PERCEPTUAL)
    found["log_mel"] = mean(sound_metrics.log_mel_distance(ours, theirs, rate) for ours, theirs in pairs)
    found["si_sdr_db"] = mean(_finite(ratios)) if any(map(math.isfinite, ratios)) else math.inf
    names = sound_metrics.installed()
    heard = [sound_metrics.perceptual(ours, theirs, names) for ours, theirs in pairs] if names else []
    return found | {name: mean(_finite(channel[name] for channel in heard)) for name in names}


def group(row: Row) -> tuple[object, ...]:
    """What the rows have in common that are put into one mean."""
    return row["codec"], row["q"]


def mean_row(rows: Sequence[Row]) -> Row:
    """The mean of rows of one codec at one point.

    Figures are means of the sounds' own: every sound counts the same whatever its length. What is not there
    or not finite, such as the SI-SDR of a silent sound, is left out. `encode_x`, `decode_x` are seconds of
    sound over seconds of work.
    """
    length = sum(row["seconds"] for row in rows)
    return dict.fromkeys(MEANS) | {
        "codec": rows[0]["codec"],
        "q": rows[0]["q"],
        "sounds": len(rows),
        "bytes": sum(row["bytes"] for row in rows),
        "seconds": length,
        **{name: mean(_finite(row[name] for row in rows)) for name in FIGURES},
        "encode_x": length / max(sum(row["encode_seconds"] for row in rows), 1e-9),
        "decode_x": length / max(sum(row["decode_seconds"] for row in rows), 1e-9),
    }


def _row(original: media.Audio, signal: np.ndarray, size: int) -> Row:
    rates = {"bytes": size, "kbps": size / 125 / original.seconds}
    sizes = {"seconds": original.seconds, "rate": original.rate, "channels": original.channels}
    measured = figures(signal, original.signal, original.signal_rate)
    return dict.fromkeys(COLUMNS) | rates | sizes | measured


def _finite(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]
