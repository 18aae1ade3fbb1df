"""Demonstration of `make demo`: a photograph and a sentence, coded by our models and other codecs.

python docs/demo.py [PHOTO] [SPEECH] [FOLDER]
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read by torch; waiting threads would take the cores

import numpy as np
import PIL.Image
from vqcodec import evaluation, media, pipeline
from vqcodec.evaluation import baselines
from vqcodec.evaluation.baselines.image import QualitySweep, available
from vqcodec.metrics import audio as audio_metrics
from vqcodec.metrics.image import psnr
from vqcodec.training import validation


def main() -> None:
    """Encode, decode, print tables, and write the reconstructions and a report."""
    here = Path(__file__).parent
    photo = Path(sys.argv[1]) if len(sys.argv) > 1 else here / "parrots.jpg"
    speech = Path(sys.argv[2]) if len(sys.argv) > 2 else here / "speech.flac"
    folder = Path(sys.argv[3]) if len(sys.argv) > 3 else Path("demo")
    folder.mkdir(parents=True, exist_ok=True)
    show_image(photo, folder)
    show_audio(speech, folder)
    report(photo, speech, folder)


def show_image(photo: Path, folder: Path) -> None:
    """Compare with other codecs at the same bytes on a photograph."""
    original = media.read_image(photo)
    encoded = pipeline.encode_file(photo)
    bitstream = folder / f"{photo.stem}.vqc"
    bitstream.write_bytes(encoded.data)
    decoded = pipeline.decode(bitstream)
    decoded.save(folder / f"{photo.stem}.decoded.png")

    rows = [("raw RGB", original.samples.nbytes, None), (photo.name, photo.stat().st_size, None)]
    rows.append((encoded.model, len(encoded.data), psnr(original.samples, decoded.samples)))
    for name in available():
        other = QualitySweep(original, name).matched_to(len(encoded.data))
        rows.append((f"{name} at the same bytes", other["bytes"], other["psnr_db"]))

    pixels = original.width * original.height
    print(f"\n{photo.name}: {original.width} x {original.height} pixels\n")
    print(f"{'':28}{'bytes':>10}{'ratio':>9}{'bpp':>8}{'PSNR, dB':>10}")
    for name, size, quality in rows:
        ratio, rate = original.samples.nbytes / size, 8 * size / pixels
        figure = "" if quality is None else f"{quality:.2f}"
        print(f"{name:28}{size:>10,.0f}{ratio:>8.1f}x{rate:>8.3f}{figure:>10}")

    pair = np.concatenate((original.samples, decoded.samples), axis=1)
    PIL.Image.fromarray(pair).save(folder / "side-by-side.png")
    print(f"\n{bitstream}\n{folder}/{photo.stem}.decoded.png")
    print(f"{folder}/side-by-side.png   original left, reconstruction right")


def show_audio(speech: Path, folder: Path) -> None:
    """Compare with Opus at its lowest rate on a sentence."""
    original = media.read_audio(speech)
    encoded = pipeline.encode_file(speech)
    bitstream = folder / f"{speech.stem}.vqc"
    bitstream.write_bytes(encoded.data)
    decoded = pipeline.decode(bitstream)
    decoded.save(folder / f"{speech.stem}.decoded.wav")
    opus = baselines.audio.run(original, "opus:6")

    rows = [("16 bits a sample", 2 * original.frames * original.channels, None)]
    rows.append((speech.name, speech.stat().st_size, None))
    rows.append((encoded.model, len(encoded.data), decoded.signal))
    rows.append(("opus, its lowest rate", len(opus.data), opus.signal))
    print(f"\n{speech.name}: {original.seconds:.1f} seconds at {original.rate / 1000:g} kHz\n")
    print(f"{'':28}{'bytes':>10}{'ratio':>9}{'kbit/s':>8}{'log-mel distance':>18}")
    for name, size, signal in rows:
        figure = ""
        if signal is not None:
            distance = audio_metrics.log_mel_distance(signal[0], original.signal[0], original.signal_rate)
            figure = f"{distance:.3f}"
        ratio, rate = rows[0][1] / size, size / 125 / original.seconds
        print(f"{name:28}{size:>10,.0f}{ratio:>8.1f}x{rate:>8.2f}{figure:>18}")

    pairs = [(original.signal[0], decoded.signal[0])]
    validation.audio.spectrograms(pairs, original.signal_rate, original.seconds).save(
        folder / "spectrograms.png"
    )
    print(f"\n{bitstream}\n{folder}/{speech.stem}.decoded.wav")
    print(f"{folder}/spectrograms.png   original above, reconstruction below\n")


def report(photo: Path, speech: Path, folder: Path) -> None:
    """Write the report of `vqcodec evaluate PHOTO SPEECH --report REPORT`, against all codecs here."""
    against, gallery, page = [*available(), "opus"], evaluation.Gallery(), folder / "report.html"
    rows = evaluation.evaluate([photo, speech], against=against, gallery=gallery)
    evaluation.write_report(rows, page, gallery=gallery, command="make demo")
    print(f"{page}   both at all qualities, and other codecs: curves, a slider, players\n")


if __name__ == "__main__":
    main()
