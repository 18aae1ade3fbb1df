"""Bits per pixel of images that are coded without loss, beside PNG, lossless WebP and JPEG XL.

python benchmarks/lossless.py FOLDER [--threads 2]

Pillow writes the others: PNG with optimize, WebP with method 6, JPEG XL with effort 7 (extra `formats`).
Ours are whole files of `vqcodec encode --lossless`. All are decoded again and compared. Speeds are megapixels
per second, and per second that the process has a core, which other programs beside it do not change.
"""

import argparse
import importlib
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from priors import threads
from vqcodec import media, pipeline
from vqcodec.training import datasets

OTHERS = {
    "PNG": ("PNG", {"optimize": True}),
    "WebP": ("WEBP", {"lossless": True, "method": 6, "quality": 100}),
    "JPEG XL": ("JXL", {"lossless": True, "effort": 7}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="+", help="folders of images, tar files, or images")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    try:
        importlib.import_module("pillow_jxl")
    except ImportError:
        del OTHERS["JPEG XL"]
    coders: dict[str, tuple[Callable[[np.ndarray], bytes], Callable[[bytes], np.ndarray]]] = {
        "ours": (lambda pixels: pipeline.encode(pixels, lossless=True), lambda d: pipeline.decode(d).samples)
    }
    coders |= {name: (writer(*settings), read) for name, settings in OTHERS.items()}
    print("| | " + " | ".join(coders) + " |\n|---|" + "---:|" * len(coders))
    bits: dict[str, list[float]] = {name: [] for name in coders}
    seconds = {name: np.zeros((2, 2)) for name in coders}
    area = 0
    with threads(options.threads):
        for name, pixels in images(options.folder):
            area += pixels.shape[0] * pixels.shape[1]
            for coder, (write, read_back) in coders.items():
                started = clocks()
                data = write(pixels)
                written = clocks()
                found = read_back(data)
                seconds[coder] += written - started, clocks() - written
                if not np.array_equal(found, pixels):
                    raise SystemExit(f"{name} is not the same after {coder}")
                bits[coder].append(8 * len(data) / (pixels.shape[0] * pixels.shape[1]))
            print(row(name, [f"{bits[coder][-1]:.3f}" for coder in coders]), flush=True)
    print(row("mean", [f"{np.mean(one):.3f}" for one in bits.values()]))
    for at, what in enumerate(("encode", "decode")):
        for clock, unit in enumerate(("second", "second of a core")):
            rates = [f"{area / 1e6 / one[at, clock]:.2f}" for one in seconds.values()]
            print(row(f"{what}, megapixels per {unit}", rates))
    print(f"\n{len(bits['ours'])} images, all exact; torch {torch.__version__}, {options.threads} threads.")


def clocks() -> np.ndarray:
    """Return the time, and the time of all cores that this process had, in seconds."""
    return np.array((time.perf_counter(), time.process_time()))


def images(paths: list[Path]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield names and pixels."""
    for entry in datasets.entries(paths):
        yield Path(entry.name).stem, media.read_image(entry.read()).samples


def writer(form: str, settings: dict[str, object]) -> Callable[[np.ndarray], bytes]:
    """Return a function from pixels to the bytes of a file."""

    def write(pixels: np.ndarray) -> bytes:
        file = io.BytesIO()
        PIL.Image.fromarray(pixels.squeeze()).save(file, form, **settings)
        return file.getvalue()

    return write


def read(data: bytes) -> np.ndarray:
    """Read the pixels of a file."""
    pixels = np.asarray(PIL.Image.open(io.BytesIO(data)))
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def row(name: str, cells: list[str]) -> str:
    """Format a row of the table."""
    return f"| {name} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
