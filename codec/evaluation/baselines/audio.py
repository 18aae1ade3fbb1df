"""Opus of libsndfile, at a bitrate of its own: it cannot go as low as ours, so bytes are not matched."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass

import numpy as np
import soundfile
import soxr

from ... import media
from ...errors import UsageError


@dataclass(frozen=True)
class Baseline:
    """A codec of libsndfile.

    Attributes:
        format, subtype: its names there.
        kbps: the rate it runs at unless told otherwise, kilobits a second.
        lowest, highest: what libsndfile takes for each channel, kilobits a second.
    """

    format: str
    subtype: str
    kbps: float
    lowest: float
    highest: float


BASELINES = {"opus": Baseline("OGG", "OPUS", 6.0, 6.0, 256.0)}


@dataclass(frozen=True)
class Coded:
    """A sound that went through another codec.

    Attributes:
        data: the file.
        signal: float32 [C, N], what it decodes to, at the rate and length of the signal that went in.
        encode_seconds, decode_seconds: of one run, from samples in memory to bytes in memory and back.
    """

    data: bytes
    signal: np.ndarray
    encode_seconds: float
    decode_seconds: float


def parse(name: str) -> tuple[str, float]:
    """A key of `BASELINES` and a rate, kilobits a second of all channels, out of "opus" or "opus:12".

    Raises:
        UsageError: what follows the colon is no rate that the codec has.
    """
    codec, colon, text = name.partition(":")
    baseline = BASELINES[codec]
    try:
        kbps = float(text) if colon else baseline.kbps
    except ValueError:
        kbps = 0.0
    if not baseline.lowest <= kbps <= baseline.highest:
        span = f"{baseline.lowest:g} to {baseline.highest:g} kbit/s"
        raise UsageError(f"{name}: not a bitrate of {codec}", f"{span}, for example {codec}:12")
    return codec, kbps


def check(name: str) -> None:
    """Raise UsageError for a rate that a codec has not, or a codec that this libsndfile cannot write."""
    codec, _ = parse(name)
    if not soundfile.check_format(BASELINES[codec].format, BASELINES[codec].subtype):
        raise UsageError(f"this libsndfile has no {codec}", "pip install --upgrade soundfile")


def run(original: media.Audio, name: str) -> Coded:
    """Encode and decode the signal of a sound at the rate of our codec: nobody is judged by what is above.

    The pages of the Ogg file count, as our own header does. The rate is an average that Opus aims at; no
    channel is given less than the lowest rate that libsndfile takes.

    Args:
        original: the sound; only its signal counts.
        name: as in `parse`.
    """
    codec, kbps = parse(name)
    rate, count = original.signal_rate, original.signal.shape[1]
    frames = np.ascontiguousarray(original.signal.T)
    started = time.perf_counter()
    data = _encoded(frames, rate, BASELINES[codec], kbps)
    encode_seconds = time.perf_counter() - started
    started = time.perf_counter()
    samples, found = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    decode_seconds = time.perf_counter() - started
    if found != rate:  # Opus itself knows 48 kHz alone; libsndfile gives the rate it was made from
        samples = soxr.resample(samples, found, rate)
    samples = np.pad(samples[:count], ((0, max(count - len(samples), 0)), (0, 0)))
    return Coded(data, np.ascontiguousarray(samples.T), encode_seconds, decode_seconds)


def _encoded(frames: np.ndarray, rate: int, baseline: Baseline, kbps: float) -> bytes:
    channels, target = frames.shape[1], io.BytesIO()
    # libsndfile spreads its "compression level" of 1 to 0 evenly over its rates for one channel.
    share = (kbps / channels - baseline.lowest) / (baseline.highest - baseline.lowest)
    with soundfile.SoundFile(
        target,
        "w",
        samplerate=rate,
        channels=channels,
        format=baseline.format,
        subtype=baseline.subtype,
        compression_level=1 - min(max(share, 0.0), 1.0),
    ) as file:
        file.write(frames)
    return target.getvalue()
