"""Compare the bytes of gray images with those of the same images in colour, at equal PSNR of luma.

python benchmarks/gray.py KODAK_FOLDER [--model vae-image] [--quality 1 2 3 4]

Luma is that of BT.601, as in Pillow. Bytes of the colour file are interpolated, in log bytes, between its
qualities around.
"""

import argparse
from pathlib import Path

import numpy as np
import PIL.Image
from vqcodec import media, pipeline
from vqcodec.metrics.image import psnr

STEPS = (-0.4, -0.2, 0.0, 0.2, 0.4)
"""Qualities of colour files, relative to that of the gray one."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="+", help="folders of images, or images")
    parser.add_argument("--model", default="vae-image", help="name or file")
    parser.add_argument("--quality", type=float, nargs="+", default=(2, 3, 4))
    options = parser.parse_args()
    files = [f for path in options.folder for f in (sorted(path.glob("*.png")) if path.is_dir() else [path])]
    print("| -q | gray bytes | PSNR of luma, dB | colour bytes there | gray / colour |")
    print("|---:|---:|---:|---:|---:|")
    for quality in options.quality:
        rows = []
        for file in files:
            with PIL.Image.open(file) as image:
                colour = np.asarray(image.convert("RGB"))
            gray, reached, samples = coded(luma(colour), colour, options.model, quality)
            if samples.shape[2] != 1:
                raise SystemExit(f"{file} did not come out gray")
            pairs = [coded(colour, colour, options.model, min(max(quality + s, 1), 5))[:2] for s in STEPS]
            sizes, levels = zip(*sorted(pairs), strict=True)
            rows.append((gray, reached, np.exp(np.interp(reached, levels, np.log(sizes)))))
        mean = np.mean(rows, 0)
        ratio = np.exp(np.mean([np.log(a / c) for a, _, c in rows]))
        print(f"| {quality:g} | {mean[0]:,.0f} | {mean[1]:.2f} | {mean[2]:,.0f} | {ratio:.3f} |", flush=True)


def luma(pixels: np.ndarray) -> np.ndarray:
    """Return the luma of pixels, [H, W, 1 or 3] -> [H, W, 1]."""
    if pixels.shape[2] == 1:
        return pixels
    return np.asarray(PIL.Image.fromarray(pixels).convert("L"))[:, :, None]


def coded(
    pixels: np.ndarray, original: np.ndarray, model: str, quality: float
) -> tuple[int, float, np.ndarray]:
    """Return bytes, PSNR of luma, and the decoded pixels."""
    data = pipeline.encode(media.Image(pixels), model=model, quality=quality)
    decoded = pipeline.decode_image(data).samples
    return len(data), psnr(luma(original), luma(decoded)), decoded


if __name__ == "__main__":
    main()
