"""Our SSIMULACRA2 and that of the package `ssimulacra2`, vs. libjxl's program `ssimulacra2`.

python benchmarks/perceptual.py IMAGES... [--program ssimulacra2]

Each image is coded by JPEG, WebP, AVIF and JPEG XL at several qualities, whole and as its corner of 333 x 217
pixels. On Debian 13 the program is in the package libjxl-devtools.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import PIL.Image
from ssimulacra2 import compute_ssimulacra2
from vqcodec import evaluation, media
from vqcodec.evaluation.baselines.image import QualitySweep, available
from vqcodec.metrics.ssimulacra2 import ssimulacra2

QUALITIES = (5, 20, 40, 60, 80, 95)
CORNER = (217, 333)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("images", type=Path, nargs="+", help="folder of images, or images")
    parser.add_argument("--program", default="ssimulacra2", help="of libjxl")
    options = parser.parse_args()
    paths = evaluation.files(options.images)
    print("| | pairs | ours: mean difference | largest | package: mean difference | largest |")
    print("|---|---:|---:|---:|---:|---:|")
    for title, (height, width) in (("whole", (None, None)), ("corner of 333 x 217", CORNER)):
        found = []
        for path in paths:
            original = media.Image(media.read_image(path).samples[:height, :width])
            for name in available():
                sweep = QualitySweep(original, name)
                for quality in QUALITIES:
                    found.append(errors(original.samples, sweep.decoded(quality).samples, options.program))
                    print(f"\r{path.name} {name} {quality}   ", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        differences = np.abs(found)
        cells = (f"{differences[:, n].mean():.3f} | {differences[:, n].max():.3f}" for n in range(2))
        print(f"| {title} | {len(found)} | " + " | ".join(cells) + " |", flush=True)


def errors(original: np.ndarray, decoded: np.ndarray, program: str) -> tuple[float, float]:
    """Differences of ours and of the package's from the program's."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("original.png", "decoded.png")]
        for file, samples in zip(files, (original, decoded), strict=True):
            PIL.Image.fromarray(samples.squeeze(2) if samples.shape[2] == 1 else samples).save(file)
        output = subprocess.run([program, *files], capture_output=True, text=True, check=True).stdout
        return ssimulacra2(original, decoded) - float(output), compute_ssimulacra2(*files) - float(output)


if __name__ == "__main__":
    main()
