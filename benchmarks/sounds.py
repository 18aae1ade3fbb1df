"""Tables of audio in the README: our codec vs. others on speech and music.

python benchmarks/sounds.py TAR [--part speech/ --part music/] [--model M] [--effort N ...] [--json OUT]
python benchmarks/sounds.py TAR --model rvqvae-audio --quality 1 2 3 4 [--files 10]
python benchmarks/sounds.py TAR --drawn 10

Opus is always included (libsndfile); Codec2, Speex and Opus at exact rates where
`c2enc`, `c2dec`, `speexenc`, `speexdec`, `opusenc`, `opusdec` are installed.
"""

import argparse
import itertools
import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import plots
import soundfile
import soxr
import torch
from vqcodec import evaluation, media, pipeline, weights
from vqcodec.bitstream import container
from vqcodec.evaluation import audio
from vqcodec.metrics.image import code_use
from vqcodec.training import datasets

COLUMNS = {
    "codec": "codec",
    "kbps": "kbit/s",
    "pesq_wb": "PESQ-WB",
    "stoi": "STOI",
    "estoi": "ESTOI",
    "visqol": "ViSQOL",
    "log_mel": "log-mel",
    "si_sdr_db": "SI-SDR, dB",
}


@dataclass
class Counts:
    """Sums over our bitstreams.

    Attributes:
        codes: histogram of each plane, int64 [K].
        payload: bits of chunks.
        ideal: cross-entropy of the codes in bits.
        head: largest header in bytes.
    """

    codes: dict[str, np.ndarray]
    payload: int = 0
    ideal: float = 0.0
    head: int = 0

    def add(self, encoded: pipeline.Encoded, size: int) -> None:
        """Add a bitstream of a model with codebooks of `size`."""
        info = container.read_info(encoded.data)
        for name, codes in encoded.symbols.items():
            counted = np.bincount(codes.ravel(), minlength=size)
            self.codes[name] = self.codes.get(name, np.zeros(size, np.int64)) + counted
        self.payload += 8 * info.code_bytes
        self.ideal += encoded.estimate_bits
        self.head = max(self.head, info.header_bytes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sources", type=Path, nargs="+", help="folders, tar files, audio files")
    parser.add_argument("--part", action="append", help="print a table of files whose names start with this")
    parser.add_argument("--model", help="name or file; the default model if absent")
    parser.add_argument("--effort", type=int, nargs="+", default=[1], help="one row for each")
    parser.add_argument("--quality", type=float, nargs="+", help="one row for each; the default if absent")
    parser.add_argument("--files", type=int, help="measure this many files of each part, evenly spread")
    parser.add_argument("--drawn", type=int, help="compare both our decoders on this many files of each part")
    parser.add_argument("--decoder", default="wavenet", help="name or file of the autoregressive decoder")
    parser.add_argument("--against", nargs="*", default=["opus:6"], help="opus:KBPS")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write all rows, file by file")
    parser.add_argument("--plot", type=Path, help="rate against PESQ-WB, ViSQOL and ESTOI, .svg or .png")
    options = parser.parse_args()
    if options.drawn and (len(options.effort) > 1 or options.quality):
        parser.error("--drawn goes with one --effort, and without --quality")
    torch.set_num_threads(options.threads)
    codec = weights.load(options.model or weights.DEFAULTS["audio"], "cpu")
    entries = datasets.entries(options.sources)
    everything = []
    for part in options.part or [""]:
        chosen = [entry for entry in entries if entry.path.startswith(part)]
        if count := options.drawn or options.files:
            chosen = chosen[:: max(len(chosen) // count, 1)][:count]
        rows, counts = measured(chosen, codec, options)
        everything += rows
        show(part, rows, counts, len(chosen))
    if options.json:
        options.json.write_text(json.dumps(everything, indent=1) + "\n")
    if options.plot:
        plots.draw(everything, options.plot)


def measured(
    entries: list[datasets.Entry], codec: Any, options: argparse.Namespace
) -> tuple[list[dict[str, Any]], dict[str, Counts]]:
    """Return rows of all codecs, and sums over our bitstreams by effort."""
    rows: list[dict[str, Any]] = []
    counts: dict[str, Counts] = {}
    programs = [name for name in EXTERNAL if shutil.which(EXTERNAL[name][0][0])]
    others = [] if options.drawn else [*options.against, *programs]
    for index, entry in enumerate(entries, 1):
        print(f"\r{index}/{len(entries)} {entry.name[-60:]:60}", end="", file=sys.stderr, flush=True)
        original = media.read_audio(entry.read(), codec.rate)
        for quality, effort in itertools.product(options.quality or [None], options.effort):
            row, encoded, _ = evaluation.measure(
                original, model=options.model, quality=quality, effort=effort
            )
            name = f"{row['codec']}, {'' if quality is None else f'-q {quality:g}, '}effort {effort}"
            rows.append(row | {"file": entry.name, "codec": name})
            counts.setdefault(name, Counts({})).add(encoded, codec.config.codes)
        if options.drawn:
            rows.append(drawn(original, encoded, options) | {"file": entry.name})
        for name in others:
            row = external(original, name) if name in EXTERNAL else audio.compare(original, name)
            rows.append(row | {"file": entry.name})
    print("\r" + " " * 80 + "\r", end="", file=sys.stderr)
    return rows, counts


def drawn(original: media.Audio, encoded: pipeline.Encoded, options: argparse.Namespace) -> dict[str, Any]:
    """Return the row of the autoregressive decoder for one of our bitstreams."""
    started = time.perf_counter()
    decoded = pipeline.decode(encoded.data, model=options.model, decoder=options.decoder, device="cpu")
    seconds = time.perf_counter() - started
    return audio._row(original, decoded.signal, len(encoded.data)) | {
        "codec": f"{encoded.model}, WaveNet decoder",
        "encode_seconds": math.nan,
        "decode_seconds": seconds,
    }


# Name -> commands of the encoder and the decoder ({0}: input, {1}: output), file type, sample rate in hertz.
EXTERNAL: dict[str, tuple[list[str], list[str], str, int]] = {
    "codec2 3200": (["c2enc", "3200", "{0}", "{1}"], ["c2dec", "3200", "{0}", "{1}"], "raw", 8000),
    "codec2 2400": (["c2enc", "2400", "{0}", "{1}"], ["c2dec", "2400", "{0}", "{1}"], "raw", 8000),
    "speex 2.15": (
        ["speexenc", "-n", "--bitrate", "2150", "{0}", "{1}"],
        ["speexdec", "{0}", "{1}"],
        "wav",
        8000,
    ),
    "opusenc 6": (
        ["opusenc", "--bitrate", "6", "{0}", "{1}"],
        ["opusdec", "--rate", "16000", "{0}", "{1}"],
        "wav",
        16000,
    ),
}


def external(original: media.Audio, name: str) -> dict[str, Any]:
    """Return the row of a codec that is an external program."""
    encoder, decoder, kind, rate = EXTERNAL[name]
    ours = original.signal_rate
    with tempfile.TemporaryDirectory() as folder:
        names = [str(Path(folder, file)) for file in (f"in.{kind}", "coded", f"out.{kind}")]
        header = {"format": "RAW", "subtype": "PCM_16", "endian": "LITTLE"} if kind == "raw" else {}
        soundfile.write(names[0], soxr.resample(original.signal[0], ours, rate), rate, **header)
        times = [time.perf_counter()]
        for command, (source, target) in ((encoder, names[:2]), (decoder, names[1:])):
            words = [word.format(source, target) for word in command]
            subprocess.run(words, check=True, capture_output=True)
            times.append(time.perf_counter())
        size = Path(names[1]).stat().st_size
        reading = header | {"samplerate": rate, "channels": 1} if header else {}
        decoded = soxr.resample(soundfile.read(names[2], dtype="float32", **reading)[0], rate, ours)
    count = original.signal.shape[1]
    signal = aligned(np.pad(decoded, (0, max(count - len(decoded), 0))), original.signal[0])
    row = audio._row(original, signal[None, :count], size)
    return row | {"codec": name, "encode_seconds": times[1] - times[0], "decode_seconds": times[2] - times[1]}


def aligned(decoded: np.ndarray, original: np.ndarray) -> np.ndarray:
    """Remove the delay of a codec, up to 60 ms, found by the peak of the correlation of envelopes."""
    envelopes = [np.abs(x[: len(original)]).astype(np.float64) for x in (decoded, original)]
    spectra = [np.fft.rfft(e - e.mean(), 2 * len(original)) for e in envelopes]
    correlation = np.fft.irfft(spectra[0] * spectra[1].conj())
    delay = int(correlation[:960].argmax())
    return np.pad(decoded[delay:], (0, delay))


def show(part: str, rows: list[dict[str, Any]], counts: dict[str, Counts], files: int) -> None:
    """Print the table of a part."""
    length = sum(row["seconds"] for row in rows if row["codec"] == rows[0]["codec"])
    print(f"\n{part or 'all'}: {files} files, {length:.0f} seconds\n")
    print("| " + " | ".join(COLUMNS.values()) + " |")
    print("|---|" + "---:|" * (len(COLUMNS) - 1))
    for row in evaluation.summary(rows):
        cells = [f"{row['codec']} {row['q']:g}" if row["codec"] == "opus" else str(row["codec"])]
        for key in list(COLUMNS)[1:]:
            value = row.get(key)
            missing = value is None or not math.isfinite(value)
            cells.append("" if missing else f"{value:.3f}")
        print("| " + " | ".join(cells) + " |")
    print()
    for name, sums in counts.items():
        uses = [code_use(codes) for codes in sums.codes.values()]
        used = ", ".join(
            f"{use.used} of {len(sums.codes[plane])}" for plane, use in zip(sums.codes, uses, strict=True)
        )
        print(
            f"{name}: codes used {used}, perplexity {', '.join(f'{use.perplexity:.0f}' for use in uses)}, "
            f"{sums.payload / sum(use.total for use in uses):.3f} bits per code, payload / ideal "
            f"{sums.payload / sums.ideal:.4f}, header and index {sums.head} bytes at most"
        )


if __name__ == "__main__":
    main()
