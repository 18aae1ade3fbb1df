"""Run Opus of libsndfile at its own bitrates: its lowest is above ours, so bytes are not matched."""

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
        format, subtype: its names in libsndfile.
        kbps: default bitrate, kilobits per second.
        lowest, highest: range of bitrates of a channel, kilobits per second.
        sweep: bitrates for a curve of rate and distortion, kilobits per second.
    """

    format: str
    subtype: str
    kbps: float
    lowest: float
    highest: float
    sweep: tuple[float, ...]


BASELINES = {"opus": Baseline("OGG", "OPUS", 6.0, 6.0, 256.0, (6, 9, 12, 16, 24, 32, 48))}


@dataclass(frozen=True)
class Coded:
    """Audio coded by another codec.

    Attributes:
        data: the file.
        signal: its reconstruction, float32 [C, N], at the rate and length of the original.
        encode_seconds, decode_seconds: times of one run, from samples in memory to bytes in memory and back.
    """

    data: bytes
    signal: np.ndarray
    encode_seconds: float
    decode_seconds: float


def codec(name: str) -> str:
    """Return the key of `BASELINES` in a name as `parse` takes it."""
    return name.partition(":")[0]


def parse(name: str) -> tuple[str, float]:
    """Parse "opus" or "opus:12": a key of `BASELINES`, and kilobits per second of all channels.

    Raises:
        UsageError: no bitrate of the codec follows the colon.
    """
    codec, colon, text = name.partition(":")
    baseline = BASELINES[codec]
    try:
        kbps = float(text) if colon else baseline.kbps
    except ValueError:
        kbps = 0.0
    if not baseline.lowest <= kbps <= baseline.highest:
        span = f"{baseline.lowest:g} to {baseline.highest:g} kbit/s"
        raise UsageError(f"{name}: not a bitrate of {codec}", f"give {span}, for example {codec}:12")
    return codec, kbps


def check(name: str) -> None:
    """Raise UsageError for a rate outside of the codec's range, or a codec missing in this libsndfile."""
    codec, _ = parse(name)
    if not soundfile.check_format(BASELINES[codec].format, BASELINES[codec].subtype):
        raise UsageError(f"this libsndfile has no {codec}", "upgrade it with pip install --upgrade soundfile")


def run(original: media.Audio, name: str) -> Coded:
    """Encode and decode a signal at the sample rate of our codec, so that all codecs code the same band.

    Bytes include the pages of the Ogg file, as ours include the header. The rate is an average that Opus
    targets, at least the lowest rate of libsndfile for each channel.

    Args:
        original: audio, of which only the signal is coded.
        name: as in `parse`.
    """
    codec, kbps = parse(name)
    rate, count = original.signal_rate, original.signal.shape[1]
    frames = np.ascontiguousarray(original.signal.T)
    started = time.perf_counter()
    data = _encoded(frames, rate, BASELINES[codec], kbps)
    encode_seconds = time.perf_counter() - started
    started = time.perf_counter()
    samples, decoded_rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    decode_seconds = time.perf_counter() - started
    if decoded_rate != rate:  # Opus codes at 48 kHz; libsndfile resamples to the original rate, or not
        samples = soxr.resample(samples, decoded_rate, rate)
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
