"""Megapixels per second vs. AVIF in the same process, and the peak memory of both commands.

python benchmarks/speed.py FOLDER_OR_IMAGE [--model M] [--runs 5] [--threads 2]
python benchmarks/speed.py FOLDER_OR_IMAGE --memory 100 [--lossless]
"""

import argparse
import io
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from PIL import AvifImagePlugin, Image, ImageOps

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff", ".bmp"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "source", type=Path, help="an image, or a folder whose images are joined to a large one"
    )
    parser.add_argument("--model", help="name or file; the default model if absent")
    parser.add_argument("--effort", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5, help="number of runs, whose median is printed")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--memory", type=float, metavar="MP", help="measure peak memory with a PNG of this size instead"
    )
    parser.add_argument("--lossless", action="store_true", help="measure memory without loss")
    options = parser.parse_args()
    if options.lossless and (not options.memory or options.model):
        parser.error("--lossless is for --memory, and takes no --model")
    if options.memory:
        memory(options)
    else:
        speed(options)


def speed(options: argparse.Namespace) -> None:
    # Imported only here: `peak` would count the memory of this process for its children.
    import numpy as np
    import torch
    from vqcodec import media, pipeline, weights
    from vqcodec.evaluation.baselines.image import QualitySweep

    torch.set_num_threads(options.threads)
    AvifImagePlugin.DEFAULT_MAX_THREADS = options.threads
    image = photo(options.source, 3000, 2000) if options.source.is_dir() else Image.open(options.source)
    image = image.convert("RGB")
    original = media.read_image(np.asarray(image))
    megapixels = original.width * original.height / 1e6
    weights.load(options.model or weights.DEFAULTS["image"])

    settings = {"model": options.model, "effort": options.effort}
    data = pipeline.encode_file(original.samples, pipeline.EncodeOptions(**settings)).data
    pipeline.decode(data, model=options.model)
    bracket = QualitySweep(original, "avif").matched_to(len(data))
    avif = {"format": "AVIF", "quality": bracket["q_low"], "speed": 6, "subsampling": "4:2:0"}
    packed = io.BytesIO()
    image.save(packed, **avif)

    work: dict[str, Callable[[], object]] = {
        "encode": lambda: pipeline.encode_file(original.samples, pipeline.EncodeOptions(**settings)),
        "avif encode": lambda: image.save(io.BytesIO(), **avif),
        "decode": lambda: pipeline.decode(data, model=options.model),
        "avif decode": lambda: Image.open(io.BytesIO(packed.getvalue())).load(),
    }
    rate = rates(work, options.runs, megapixels)
    print(f"{original.width} x {original.height} ({megapixels:.1f} MP), {options.threads} threads,", end=" ")
    print(f"median of {options.runs} runs, {platform.machine()}, torch {torch.__version__}.")
    print(f"AVIF: speed 6, 4:2:0, quality {bracket['q_low']}, {len(packed.getvalue()):,} bytes", end=" ")
    print(f"vs. our {len(data):,} ({len(data) * 8e-6 / megapixels:.3f} bpp).\n")
    print("| | ours, MP/s | AVIF, MP/s | ours / AVIF |\n|---|---:|---:|---:|")
    for name in ("encode", "decode"):
        other = rate[f"avif {name}"]
        print(f"| {name} | {rate[name]:.2f} | {other:.2f} | {rate[name] / other:.2f} |")


def rates(work: dict[str, Callable[[], object]], runs: int, amount: float) -> dict[str, float]:
    """Return the amount per second of each work, by the median of its runs."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    # Alternating, so that a slow minute of the machine is a slow minute for all.
    for _ in range(runs):
        for name, call in work.items():
            started = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started)
    return {name: amount / statistics.median(times) for name, times in seconds.items()}


def memory(options: argparse.Namespace) -> None:
    width = round((options.memory * 1e6 * 1.5) ** 0.5)
    height = round(options.memory * 1e6 / width)
    with tempfile.TemporaryDirectory() as folder:
        png, vqc, decoded = (Path(folder, name) for name in ("photo.png", "photo.vqc", "decoded.png"))
        # In its own process, see `peak`.
        maker = multiprocessing.get_context("spawn").Process(
            target=make, args=(options.source, width, height, png)
        )
        maker.start()
        maker.join()
        if maker.exitcode:
            raise SystemExit(maker.exitcode)
        print(f"{width} x {height} PNG of {png.stat().st_size / 1e6:.0f} MB, {options.threads} threads\n")
        print("| command | peak resident memory, MiB | seconds |\n|---|---:|---:|")
        half = str(round(options.memory * 1e6 / 16))  # half a bit per pixel
        encode, decode = ["encode", png, "-o", vqc, "--force"], ["decode", vqc, "-o", decoded, "--force"]
        chosen = ["--effort", str(options.effort), *(["-m", options.model] if options.model else [])]
        commands = [(encode, chosen), (decode, []), (encode, [*chosen, "--target-size", half])]
        if options.lossless:
            commands = [(encode, ["--lossless"]), (decode, [])]
        for command, settings in commands:
            name = " ".join(["vqcodec", str(command[0]), *[s for s in settings if s.startswith("--")]])
            shared = ["--quiet", "-j", str(options.threads)]
            line = [sys.executable, "-m", "vqcodec", *command, *settings, *shared]
            mebibytes, seconds = peak([str(part) for part in line])
            print(f"| `{name.replace(' --effort', '')}` | {mebibytes:,.0f} | {seconds:.0f} |", flush=True)


def peak(command: list[str]) -> tuple[float, float]:
    """Return the peak resident memory in MiB and the seconds of one process.

    Linux counts the memory of the parent at the start as the child's peak: the parent has to be small, so
    neither torch nor a large image may be loaded here.
    """
    started = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"exit code {process.returncode}: {' '.join(command)}")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return usage.ru_maxrss / unit, time.perf_counter() - started


def make(source: Path, width: int, height: int, path: Path) -> None:
    photo(source, width, height).save(path, compress_level=1)


def photo(source: Path, width: int, height: int) -> Image.Image:
    """Return a large image joined from small ones, row by row, with every other row and round mirrored."""
    files = (
        sorted(p for p in source.iterdir() if p.suffix.lower() in SUFFIXES) if source.is_dir() else [source]
    )
    if not files:
        raise SystemExit(f"no images in {source}")
    tiles = []
    for path in files:
        with Image.open(path) as opened:
            tiles.append(ImageOps.exif_transpose(opened).convert("RGB"))
    canvas = Image.new("RGB", (width, height))
    side = min(tile.height for tile in tiles)
    count, top = 0, 0
    while top < height:
        left = 0
        while left < width:
            tile = tiles[count % len(tiles)]
            if count // len(tiles) % 2:
                tile = ImageOps.mirror(tile)
            canvas.paste(ImageOps.flip(tile) if top // side % 2 else tile, (left, top))
            left += tile.width
            count += 1
        top += side
    return canvas


if __name__ == "__main__":
    main()
