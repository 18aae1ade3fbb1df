"""A codec for a narrow folder: train it on one kind of picture, compare on held-out photos of that kind.

python benchmarks/narrow.py IMAGE_DATA --kind cooking --minutes 20 [--from NAME] [-o RUN]

IMAGE_DATA has train-*.tar and val.tar, whose members are named KIND-PHOTO-CROP.jpg; no photo is in both.
"""

import argparse
import tarfile
import tempfile
from pathlib import Path

from vqcodec import evaluation, training


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--kind", default="cooking", help="first part of the pictures' names")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--from", dest="start", help="weights to begin with; else the linear start")
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
            model="vqvae-image",
            start=options.start,
            time_budget=60 * options.minutes,
            output=options.output or Path(scratch) / "run",
        )
        files = evaluation.files([held_out])
        photos = {path.name.split("-")[1] for path in files}
        rows = []
        for model in (str(run.best), *([options.start] if options.start else [])):
            rows += evaluation.evaluate(
                files,
                model=[model],
                effort=options.effort,
                against=["jpeg", "webp", "avif"] if model == str(run.best) else [],
            )
        trained = run.card["training"]
        print(f"{options.kind}: {len(list(ours.iterdir()))} crops to train on, {trained['steps']} steps,")
        print(f"{len(files)} held-out crops of {len(photos)} other photos;")
        print("JPEG, WebP and AVIF at the bytes of the first row.")
        print("\n| codec | bpp | PSNR, dB | MS-SSIM |\n|---|---:|---:|---:|")
        for mean in evaluation.summary(rows):
            name = "trained on this folder" if mean["codec"] == run.card["name"] else mean["codec"]
            if mean["unmatched"]:
                name += f" ({mean['unmatched']} pictures out of its range)"
            print(f"| {name} | {mean['bpp']:.3f} | {mean['psnr_db']:.2f} | {mean['ms_ssim']:.4f} |")


def _extract(tar: Path, kind: str, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    with tarfile.open(tar) as archive:
        for member in archive:
            name = Path(member.name).name
            if member.isfile() and name.startswith(f"{kind}-"):
                (folder / name).write_bytes(archive.extractfile(member).read())


if __name__ == "__main__":
    main()
