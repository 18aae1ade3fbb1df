"""Measure rate, log-mel distance, SI-SDR, perceptual metrics and speed of audio, vs. Opus."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from .. import media, pipeline
from ..metrics import audio as audio_metrics
from ..metrics.audio import PERCEPTUAL
from .baselines import audio as opus
from .candidates import CODE_FIGURES, Candidate, Measured, Row, Source, code_figures
from .disk import through_file
from .figures import AUDIO, finite, identical, mean

COLUMNS = (
    "file",
    "codec",
    "q",
    "bytes",
    "kbps",
    *(figure.key for figure in AUDIO),
    "encode_seconds",
    "decode_seconds",
    *CODE_FIGURES,
    "estimate_kbps",
    "seconds",
    "rate",
    "channels",
)
"""Keys of a row."""

FIGURES = ("kbps", *(figure.key for figure in AUDIO), *CODE_FIGURES, "estimate_kbps")
"""Keys of the figures that have a mean."""

MEANS = ("codec", "q", "files", "bytes", "seconds", *FIGURES, "identical", "encode_x", "decode_x")
"""Keys of a row of the summary."""

SUFFIX = ".wav"
"""Suffix of saved reconstructions."""

WORST_DB = -60.0
"""Lower bound of SI-SDR, in dB, so that one failed file cannot make the mean infinite."""


def count(candidates: Sequence[Candidate], against: Sequence[str], *, sweep: bool) -> int:
    """Return the number of rows of one file."""
    return len(candidates) + len(_others(against, sweep))


def rows(
    original: media.Audio,
    candidates: Sequence[Candidate],
    against: Sequence[str],
    *,
    effort: int,
    device: str,
    sweep: bool,
) -> Iterator[Measured]:
    """Yield what was measured of one file: ours, then other codecs."""
    for candidate in candidates:
        row, _, decoded = measure(
            original, model=candidate.model, quality=candidate.quality, effort=effort, device=device
        )
        row["codec"] = candidate.label
        yield Measured(row, decoded, ours=True)
    for name in _others(against, sweep):
        row, signal = _compare(original, name)
        yield Measured(row, replace(original, signal=signal))


def measure(
    original: media.Audio,
    *,
    model: Source | None = None,
    quality: float | None = None,
    effort: int = 1,
    device: str = "auto",
) -> tuple[Row, pipeline.Encoded, media.Audio]:
    """Measure audio at one operating point: encode, write, read, decode, compare.

    Returns:
        The row (its "file" is None), the encoding, and the decoded audio.
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
    """Return the row of another codec ("file" is None): "q" is the target, "kbps" the actual bitrate."""
    return _compare(original, name)[0]


def figures(reconstruction: np.ndarray, original: np.ndarray, rate: int) -> dict[str, float | None]:
    """Return figures of quality, as means over the channels.

    Args:
        reconstruction: float32 [C, N].
        original: the same shape.
        rate: sample rate in hertz; perceptual metrics are for 16 kHz.

    Returns:
        "log_mel", "si_sdr_db" (at least WORST_DB; channels without error, such as silent ones, are left out;
        infinite if there are no others) and `PERCEPTUAL`, None without its package or without speech.
    """
    pairs = list(zip(reconstruction, original, strict=True))
    ratios = [max(audio_metrics.si_sdr(ours, theirs), WORST_DB) for ours, theirs in pairs]
    measured: dict[str, float | None] = dict.fromkeys(PERCEPTUAL)
    measured["log_mel"] = mean(audio_metrics.log_mel_distance(ours, theirs, rate) for ours, theirs in pairs)
    measured["si_sdr_db"] = mean(ratios) if finite(ratios) else math.inf
    names = audio_metrics.installed()
    perceptual = [audio_metrics.perceptual(ours, theirs, names) for ours, theirs in pairs] if names else []
    return measured | {name: mean(channel[name] for channel in perceptual) for name in names}


def group(row: Row) -> tuple[object, ...]:
    """Return the key of the group of rows that share a mean: codec and operating point."""
    return row["codec"], row["q"]


def mean_row(rows: Sequence[Row]) -> Row:
    """Return the mean of rows of one codec at one operating point.

    Figures are means over files, whatever their length, without missing or infinite values: files without
    error, such as silence, are counted in `identical`. `encode_x`, `decode_x` are seconds of audio per second
    of computation.
    """
    length = sum(row["seconds"] for row in rows)
    return dict.fromkeys(MEANS) | {
        "codec": rows[0]["codec"],
        "q": rows[0]["q"],
        "files": len(rows),
        "bytes": sum(row["bytes"] for row in rows),
        "seconds": length,
        **{name: mean(row[name] for row in rows) for name in FIGURES},
        "identical": identical(rows, "si_sdr_db"),
        "encode_x": length / max(sum(row["encode_seconds"] for row in rows), 1e-9),
        "decode_x": length / max(sum(row["decode_seconds"] for row in rows), 1e-9),
    }


def _row(original: media.Audio, signal: np.ndarray, size: int) -> Row:
    rates = {"bytes": size, "kbps": size / 125 / original.seconds}
    sizes = {"seconds": original.seconds, "rate": original.rate, "channels": original.channels}
    measured = figures(signal, original.signal, original.signal_rate)
    return dict.fromkeys(COLUMNS) | rates | sizes | measured


def _compare(original: media.Audio, name: str) -> tuple[Row, np.ndarray]:
    codec, kbps = opus.parse(name)
    coded = opus.run(original, name)
    row = _row(original, coded.signal, len(coded.data)) | {
        "codec": codec,
        "q": kbps,
        "encode_seconds": coded.encode_seconds,
        "decode_seconds": coded.decode_seconds,
    }
    return row, coded.signal


def _others(against: Sequence[str], sweep: bool) -> list[str]:
    """Return other codecs with their rates: those given, and with `sweep` those of their own range."""
    parsed = [opus.parse(name) for name in against]
    if sweep:
        parsed += [(codec, kbps) for codec, _ in parsed for kbps in opus.BASELINES[codec].sweep]
        parsed.sort()
    return [f"{codec}:{kbps:g}" for codec, kbps in dict.fromkeys(parsed)]
