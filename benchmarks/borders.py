"""Errors next to the borders of regions, where context ends, vs. elsewhere, in smooth blocks.

python benchmarks/borders.py KODAK_FOLDER/kodim20.png ... --enlarge 2 [--model vae-image] [--quality 1 2 3]
"""

import argparse
import functools
from pathlib import Path

import numpy as np
import PIL.Image
from vqcodec import evaluation, media, pipeline

REGION, BLOCK = 512, 16
"""Sides of a region, and of the block of a latent position, in pixels."""

LINE = 2
"""Pixels on each side of a border, the width of a visible line."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="*", help="folders of images, or images")
    parser.add_argument("--enlarge", type=int, default=2, help="factor of the sides, bicubic")
    parser.add_argument("--model", nargs="+", default=["vae-image"], help="names or files")
    parser.add_argument("--quality", type=float, nargs="+", default=(1, 2, 3))
    parser.add_argument(
        "--deviation", type=float, default=4, help="largest deviation of the luma of a smooth block"
    )
    options = parser.parse_args()
    images = {"slope": slope()} | {path.stem: enlarge(path, options.enlarge) for path in files(options)}
    print("| model | image | -q | smooth blocks | MSE | at borders, 16 px | 2 px | ratios | ", end="")
    print("at ends | largest error | at borders |\n|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for model in options.model:
        for name, pixels in images.items():
            for quality in options.quality:
                print(f"| {Path(model).stem} | {name} | {quality:g} |", end=" ")
                print(row(pixels, model, quality, options.deviation), flush=True)


def files(options: argparse.Namespace) -> list[Path]:
    """List the given images."""
    return evaluation.files(options.folder) if options.folder else []


def slope(side: int = 600) -> np.ndarray:
    """Draw slowly rising values, uint8 [side, side, 3]."""
    y, x = np.mgrid[:side, :side]
    return np.stack([120 + x / 20 + y / 30, 150 + x / 25, 200 + y / 40], 2).astype(np.uint8)


def enlarge(path: Path, factor: int) -> np.ndarray:
    """Read an image and enlarge it, uint8 [factor * H, factor * W, 3]."""
    image = PIL.Image.fromarray(media.read_image(path).samples)
    return np.asarray(image.resize((image.width * factor, image.height * factor), PIL.Image.BICUBIC))


def row(pixels: np.ndarray, model: str, quality: float, deviation: float) -> str:
    """Measure one image at one quality: the cells of its row."""
    data = pipeline.encode(media.Image(pixels), model=model, quality=quality)
    error = np.abs(pipeline.decode(data, model=model).samples.astype(np.int32) - pixels)
    square, largest = np.square(error).mean(2), error.max(2)
    to_border, to_end = (distances(pixels.shape[:2], at) for at in (borders, lambda side: [0, side]))
    smooth = smooth_blocks(pixels, deviation)
    near, line, end = smooth & (to_border < BLOCK), smooth & (to_border < LINE), smooth & (to_end < BLOCK)
    rest = smooth & (to_border >= BLOCK) & (to_end >= BLOCK)
    if not near.any() or not rest.any():
        return f"{smooth.sum() // BLOCK**2} | | | | | | | |"
    usual, at_border, at_line = (square[where].mean() for where in (rest, near, line))
    at_end = f"{square[end].mean():.2f}" if end.any() else ""
    cells = f"{smooth.sum() // BLOCK**2} | {usual:.2f} | {at_border:.2f} | {at_line:.2f} | "
    ratios = f"{at_border / usual:.2f}, {at_line / usual:.2f}" if usual else "no error elsewhere"
    cells += f"{ratios} | {at_end} | "
    return cells + f"{largest[rest].max()} | {largest[near].max()} |"


def borders(side: int) -> list[int]:
    """List the borders between regions along a side, in pixels."""
    return [*range(REGION, side, REGION)]


def distances(shape: tuple[int, int], lines) -> np.ndarray:  # noqa: ANN001
    """Compute the distance of each pixel to the nearest line along either axis, in pixels: [H, W]."""
    along = []
    for side in shape:
        centres = np.arange(side) + 0.5
        away = [np.abs(centres - line) for line in lines(side)]
        along.append(functools.reduce(np.minimum, away, np.full(side, np.inf)))
    return np.minimum(along[0][:, None], along[1][None])


def smooth_blocks(pixels: np.ndarray, deviation: float) -> np.ndarray:
    """Find the pixels of whole blocks whose luma deviates by at most `deviation`: bool [H, W]."""
    luma = pixels.mean(2)
    height, width = (side // BLOCK for side in luma.shape)
    blocks = luma[: height * BLOCK, : width * BLOCK].reshape(height, BLOCK, width, BLOCK)
    found = np.zeros(luma.shape, bool)
    chosen = blocks.std((1, 3)) <= deviation
    found[: height * BLOCK, : width * BLOCK] = chosen.repeat(BLOCK, 0).repeat(BLOCK, 1)
    return found


if __name__ == "__main__":
    main()
