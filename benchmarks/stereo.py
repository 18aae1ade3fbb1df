"""Coding of two channels: as their mean and difference, or predicted from one, against one by one.

python benchmarks/stereo.py TAR [--part speech/] [--model M] [--pairs N]
python benchmarks/stereo.py TAR --predicted [--part speech/] [--model M] [--quality Q] [--pairs N]

The first mixes stereo from pairs of files a and b: left is a, right is 0.8 a + s b. Both take the same bits.
The second makes stereo of one file, or of two in turn, by panning, a delay and rooms, and compares with the
mono file: bytes, and PESQ of each channel against its original.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
from vqcodec import media, pipeline, weights
from vqcodec.evaluation import audio
from vqcodec.metrics.audio import perceptual
from vqcodec.models.base import Model
from vqcodec.training import datasets
from vqcodec.transform import loudness, stereo_analysis

SECOND = (0.0, 0.05, 0.1, 0.2, 0.4, 1.0)

RATE, SOUND = 16_000, 343.0
ROOM, REVERBERATION = (6.0, 4.5, 2.8), 0.3
"""Sides in metres, and the time in which sound decays by 60 dB, in seconds."""
EARS = ((2.4, 2.2, 1.5), (2.4, 2.38, 1.5))
NEAR, OTHER, FAR = (3.2, 2.7, 1.6), (3.1, 1.7, 1.6), (3.9, 2.6, 1.6)
"""Places of talkers, 0.9, 0.9 and 1.5 metres away."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--part", default="speech/")
    parser.add_argument("--model")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--predicted", action="store_true", help="stereo made from mono")
    parser.add_argument("--quality", type=float)
    options = parser.parse_args()
    model = options.model or weights.DEFAULTS["audio"]
    entries = [e for e in datasets.entries([options.source]) if e.path.startswith(options.part)]
    signals = [media.read_audio(entry.read()).signal[0] for entry in entries[: 2 * options.pairs]]
    if options.predicted:
        compare_predicted(signals, pipeline.EncodeOptions(model, options.quality, device="cpu"))
    else:
        compare_mid_side(signals, weights.load(model, "cpu"))


def compare_mid_side(signals: list[np.ndarray], codec: Model) -> None:
    """Print channels one by one against mean and half the difference."""

    def decoded(channels: np.ndarray) -> np.ndarray:
        coded = [
            pipeline.encode_at(media.Audio(channel[None], codec.rate, codec.rate, len(channel)), codec.at(0))
            for channel in channels
        ]
        return np.concatenate([pipeline.reconstruct(one).signal for one in coded])

    print("| s | energy of difference / sum | separately: log-mel, SI-SDR | mean and difference |")
    print("|---:|---:|---:|---:|")
    for share in SECOND:
        rows = []
        for a, b in zip(signals[::2], signals[1::2], strict=False):
            length = min(len(a), len(b))
            stereo = np.stack((a[:length], a[:length] * 0.8 + share * b[:length])).astype(np.float32)
            middle, side = stereo.mean(0), (stereo[0] - stereo[1]) / 2
            rows.append([float(np.square(side).sum() / np.square(middle).sum())])
            both = decoded(stereo), loudness.to_left_right(decoded(np.stack((middle, side))))
            for ours in both:
                found = audio.figures(ours, stereo, codec.rate)
                rows[-1] += [found["log_mel"], found["si_sdr_db"]]
        ratio, *figures = np.mean(rows, axis=0)
        cells = [f"{figures[n]:.3f}, {figures[n + 1]:.2f} dB" for n in (0, 2)]
        print(f"| {share:g} | {ratio:.4f} | {cells[0]} | {cells[1]} |", flush=True)


def compare_predicted(signals: list[np.ndarray], options: pipeline.EncodeOptions) -> None:
    """Print what the encoder does with stereo made from mono, against channels one by one and mono."""

    def coded(signal: np.ndarray) -> tuple[int, float, bool]:
        original = media.Audio(signal.astype(np.float32), RATE, RATE, signal.shape[1])
        encoded = pipeline.encode_file(original, options)
        ours = pipeline.reconstruct(encoded).signal
        found = [
            perceptual(*pair, ("pesq_wb",))["pesq_wb"] for pair in zip(ours, original.signal, strict=True)
        ]
        return len(encoded.data), float(np.mean(found)), encoded.geometry.mid_side

    rows: dict[str, list[list[float]]] = {}
    for a, b in zip(signals[::2], signals[1::2], strict=False):
        alone: dict[int, tuple[int, float, bool]] = {}
        for name, mono, both in mixes(a, b):
            if len(mono) not in alone:
                alone[len(mono)] = coded(mono[None])
            with mock.patch.object(stereo_analysis, "mix", return_value=None):
                before = coded(both)
            after, mono_bytes = coded(both), alone[len(mono)][0]
            figures = [
                alone[len(mono)][1],
                before[0] / mono_bytes,
                before[1],
                after[0] / mono_bytes,
                *after[1:],
            ]
            rows.setdefault(name, []).append(figures)
        print(f"{len(rows[name])} of {len(signals) // 2}", file=sys.stderr, flush=True)
    print("| stereo | mono: PESQ | one by one: bytes / mono, PESQ | now: bytes / mono, PESQ | predicted |")
    print("|---|---:|---:|---:|---:|")
    for name, found in rows.items():
        mono, size, pesq, size_now, pesq_now, _ = np.mean(found, axis=0)
        count = sum(bool(row[-1]) for row in found)
        cells = f"{size:.2f}, {pesq:.2f} | {size_now:.2f}, {pesq_now:.2f} | {count} of {len(found)}"
        print(f"| {name} | {mono:.2f} | {cells} |")


def mixes(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield names, mono and stereo made from it, [N] and [2, N]."""
    yield "panned by 6 dB", a, np.stack((a, 0.5 * a))
    yield "delayed by 0.3 ms", a, np.stack((a, delayed(a, 0.3e-3 * RATE)))
    yield "room, 0.9 m away", a, heard(a, NEAR)
    yield "room, 1.5 m away", a, heard(a, FAR)
    turns = np.concatenate((a, b))
    yield "two talkers in turn, panned", turns, np.concatenate(([a, 0.5 * a], [0.5 * b, b]), axis=1)
    yield "two talkers in turn, room", turns, np.concatenate((heard(a, NEAR), heard(b, OTHER)), axis=1)
    length = min(len(a), len(b))
    yield (
        "two talkers at once",
        a[:length],
        np.stack((a[:length] + 0.5 * b[:length], 0.5 * a[:length] + b[:length])),
    )


def delayed(signal: np.ndarray, samples: float) -> np.ndarray:
    """Delay by a fraction of samples, by the phase of the spectrum."""
    size = 2 * len(signal)
    ramp = np.exp(-2j * np.pi * np.arange(size // 2 + 1) / size * samples)
    return np.fft.irfft(np.fft.rfft(signal, size) * ramp, size)[: len(signal)]


def heard(signal: np.ndarray, talker: tuple[float, ...]) -> np.ndarray:
    """Return what two ears hear of a talker in the room, [2, N], as loud as the signal."""
    both = np.stack([np.convolve(signal, response(talker, ear))[: len(signal)] for ear in EARS])
    return both * np.sqrt(np.square(signal).mean() / np.square(both).mean())


def response(talker: tuple[float, ...], ear: tuple[float, ...]) -> np.ndarray:
    """Impulse response of the room by its image sources (Allen and Berkley 1979), reflections by Eyring."""
    count = round(REVERBERATION * RATE)
    length, width, height = ROOM
    surface = 2 * (length * width + length * height + width * height)
    reflected = np.exp(-0.161 * length * width * height / (surface * REVERBERATION)) ** 0.5
    reach = int(REVERBERATION * SOUND / min(ROOM) / 2) + 1
    rooms = np.arange(-reach, reach + 1)
    offsets, bounces = [], []
    for axis, side in enumerate(ROOM):
        ends = [sign * talker[axis] + 2 * rooms * side - ear[axis] for sign in (1, -1)]
        offsets.append(np.concatenate(ends))
        bounces.append(np.concatenate((2 * np.abs(rooms), np.abs(rooms - 1) + np.abs(rooms))))
    distances = np.sqrt(sum(np.square(axis) for axis in np.ix_(*offsets))).ravel()
    loudness = reflected ** sum(np.ix_(*bounces)).ravel() / distances
    times = distances / SOUND * RATE
    found = np.zeros(count + 32)
    for shift in range(-15, 17):  # a sinc with a Hann window around each arrival
        positions = np.floor(times).astype(int) + shift
        inside = (positions >= 0) & (positions < len(found))
        from_arrival = (positions - times)[inside]
        pulses = np.sinc(from_arrival) * (0.5 + 0.5 * np.cos(np.pi * from_arrival / 16.5))
        np.add.at(found, positions[inside], loudness[inside] * pulses)
    return found[:count]


if __name__ == "__main__":
    main()
