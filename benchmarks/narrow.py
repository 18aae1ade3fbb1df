"""Train a model on images of one kind, and compare it with other codecs on held-out photos of that kind.

python benchmarks/narrow.py IMAGE_DATA --model vae-image --from vae-image --kind cooking --minutes 20 [-o RUN]

IMAGE_DATA has train-*.tar and val.tar, whose members are named KIND-PHOTO-CROP.jpg; no photo is in both.
"""

import argparse
import statistics
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rates import bd_rate
from vqcodec import evaluation, training

AGAINST = ("jpeg", "webp", "avif")
QUALITIES = (2.0, 3.0, 4.0)
"""Qualities of variable-rate models."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="vae-image", help="model to train")
    parser.add_argument("--kind", default="cooking", help="first part of the file names")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--from", dest="start", help="weights to start from; else the linear start")
    parser.add_argument("--lr", type=float, help="peak of the learning rate")
    parser.add_argument("--effort", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, help="keep the run folder here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        ours, held_out = Path(scratch) / "train", Path(scratch) / "held-out"
        for tar in sorted(options.data.glob("train-*.tar")):
            _extract(tar, options.kind, ours)
        _extract(options.data / "val.tar", options.kind, held_out)
        run = training.train(
            [ours],
            model=options.model,
            start=options.start,
            time_budget=60 * options.minutes,
            learning_rate=options.lr,
            output=options.output or Path(scratch) / "run",
        )
        files = evaluation.files([held_out])
        photos = {path.name.split("-")[1] for path in files}
        trained = run.card["training"]
        print(f"{options.kind}: {len(list(ours.iterdir()))} crops to train on, {trained['steps']} steps,")
        print(f"{len(files)} held-out crops of {len(photos)} other photos;")
        print("JPEG, WebP and AVIF at the bytes of the rows above them.")
        compare(files, run, options.start, options.effort)


def compare(files: Sequence[Path], run: training.Run, start: str | None, effort: int) -> None:
    """Print tables of the trained model, other codecs at its bytes, and the weights that it started from."""
    qualities = QUALITIES if run.card.get("points") else (None,)
    rows = []
    for quality in qualities:
        for model, against in ((str(run.best), AGAINST), (start, ())):
            if model is not None:
                rows += [
                    row | {"model": model, "quality": quality}
                    for row in evaluation.evaluate(
                        files, model=[model], quality=quality, effort=effort, against=against
                    )
                ]
    print("\n| codec | bpp | PSNR, dB | MS-SSIM |\n|---|---:|---:|---:|")
    for quality in qualities:
        for mean in evaluation.summary([row for row in rows if row["quality"] == quality]):
            name = mean["codec"]
            name += f" ({mean['unmatched']} images out of its range)" if mean["unmatched"] else ""
            print(f"| {name} | {mean['bpp']:.3f} | {mean['psnr_db']:.2f} | {mean['ms_ssim']:.4f} |")
    curves: dict[Any, list[list[float]]] = defaultdict(list)
    for row in rows:
        codec = row["codec"] if row["same_bytes_as"] else row["model"]
        curves[codec, row["file"]].append([row["bpp"], row["psnr_db"]])
    if len(qualities) > 1:
        for other in (*AGAINST, *([start] if start else [])):
            pairs = [(curves[str(run.best), str(f)], curves[other, str(f)]) for f in files]
            rate = statistics.mean(bd_rate(np.array(a), np.array(b)) for a, b in pairs)
            print(f"\nBD-rate of the trained model vs. {other}: {rate:+.1f} %", end="")
        print()


def _extract(tar: Path, kind: str, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    with tarfile.open(tar) as archive:
        for member in archive:
            name = Path(member.name).name
            if member.isfile() and name.startswith(f"{kind}-"):
                (folder / name).write_bytes(archive.extractfile(member).read())


if __name__ == "__main__":
    main()
