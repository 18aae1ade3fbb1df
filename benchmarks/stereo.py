"""Compare coding of two channels separately and as their mean and half their difference.

python benchmarks/stereo.py TAR [--part speech/] [--model M] [--pairs N]

Stereo is mixed from pairs of files a and b: left is a, right is 0.8 a + s b. Both take the same bits.
"""

import argparse
from pathlib import Path

import numpy as np
from vqcodec import media, pipeline, weights
from vqcodec.evaluation import audio
from vqcodec.training import datasets
from vqcodec.transform import loudness

SECOND = (0.0, 0.05, 0.1, 0.2, 0.4, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--part", default="speech/")
    parser.add_argument("--model")
    parser.add_argument("--pairs", type=int, default=10)
    options = parser.parse_args()
    codec = weights.load(options.model or weights.DEFAULTS["audio"], "cpu")
    entries = [e for e in datasets.entries([options.source]) if e.path.startswith(options.part)]
    signals = [media.read_audio(entry.read()).signal[0] for entry in entries[: 2 * options.pairs]]

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


if __name__ == "__main__":
    main()
