"""Crops side by side at the same bytes: the original, models, and another codec.

python benchmarks/crops.py KODAK/kodim05.png KODAK/kodim15.png KODAK/kodim24.png --bpp 0.25 -o crops.png

A row for each image: original, then each model with its file at this rate, then the other codec at the bytes
of the last model, from its largest file that is not larger. The crop is the square in the middle unless --at
says where, as X,Y for each image.
"""

import argparse
from pathlib import Path

import numpy as np
import PIL.Image
from vqcodec import media, pipeline
from vqcodec.evaluation.baselines.image import QualitySweep
from vqcodec.evaluation.figures import of_image

GAP = 4
"""White pixels between crops."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("image", type=Path, nargs="+")
    parser.add_argument("--model", nargs="+", default=["vae-image"], help="names or files")
    parser.add_argument("--against", default="avif")
    parser.add_argument("--bpp", type=float, default=0.25)
    parser.add_argument("--side", type=int, default=224, help="of the crops")
    parser.add_argument("--enlarge", type=int, default=2, help="factor of the sides")
    parser.add_argument("--at", nargs="+", metavar="X,Y", help="upper left corners, one for each image")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    if options.at and len(options.at) != len(options.image):
        parser.error("--at wants a corner for each image")
    rows = []
    print("| image | codec | bytes | PSNR | MS-SSIM | SSIMULACRA2 |\n|---|---|---:|---:|---:|---:|")
    for number, path in enumerate(options.image):
        original = media.read_image(path)
        left, top = (max(side - options.side, 0) // 2 for side in (original.width, original.height))
        if options.at:
            left, top = map(int, options.at[number].split(","))
        crops = [original.samples]
        for model in options.model:
            data = pipeline.encode(original, model=model, bpp=options.bpp)
            crops.append(pipeline.decode(data, model=model).samples)
            print_row(path.stem, Path(model).stem, len(data), original, crops[-1])
        other = QualitySweep(original, options.against)
        quality = other.matched_to(len(data))["q_low"]
        crops.append(other.decoded(quality).samples)
        print_row(path.stem, options.against, other.size(quality), original, crops[-1])
        row = [
            np.pad(crop(pixels, left, top, options.side), ((0, GAP), (0, GAP), (0, 0)), constant_values=255)
            for pixels in crops
        ]
        rows.append(np.concatenate(row, 1))
    sheet = PIL.Image.fromarray(np.concatenate(rows)[:-GAP, :-GAP])
    size = (sheet.width * options.enlarge, sheet.height * options.enlarge)
    sheet.resize(size, PIL.Image.NEAREST).save(options.output, quality=92)


def crop(pixels: np.ndarray, left: int, top: int, side: int) -> np.ndarray:
    """Cut a square out of uint8 [H, W, C], as colour."""
    return np.broadcast_to(pixels[top : top + side, left : left + side], (side, side, 3))


def print_row(image: str, codec: str, size: int, original: media.Image, decoded: np.ndarray) -> None:
    found = of_image(original.samples, decoded, original.alpha)
    figures = f"{found['psnr_db']:.2f} | {found['ms_ssim']:.4f} | {found['ssimulacra2']:.1f}"
    print(f"| {image} | {codec} | {size:,} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
