"""PSNR and SSIM of placeholders, vs. BlurHash and ThumbHash where installed, and placeholders per second.

python benchmarks/placeholders.py FOLDER [--size 5 8 12 15 20 24 32 48 64]

Every image is squeezed to 32x32 pixels; all codecs get these pixels, and are compared with them. Bytes are
what is coded: those of ThumbHash, and log2(83) bits for each character of BlurHash.
"""

import argparse
import io
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import torch
import vqcodec
from pytorch_msssim import ssim
from vqcodec import media, thumbnails
from vqcodec.metrics.image import psnr
from vqcodec.placeholders.decoding import decode, render
from vqcodec.placeholders.encoding import TRADEOFFS, aspect_index

COMPONENTS = [(3, 3), (4, 3), (4, 4), (5, 5)]
"""Numbers of components of BlurHash."""

Code = Callable[[np.ndarray], tuple[float, np.ndarray]]
"""Pixels uint8 [32, 32, 3] -> bytes, and the pixels after decoding."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, nargs="+", default=[5, 8, 12, 15, 20, 24, 32, 48, 64])
    options = parser.parse_args()
    files = sorted(p for p in options.folder.iterdir() if p.suffix.lower() in (".png", ".jpg", ".webp"))
    images = [media.read_image(path) for path in files]
    small = [thumbnails.thumbnail(image) for image in images]
    aspects = [aspect_index(image.width, image.height) for image in images]

    print(
        f"{len(files)} images\n\n| codec | bytes | characters | PSNR, dB | SSIM |\n|---|---:|---:|---:|---:|"
    )
    for size in options.size:
        line(f"vqcodec, --size {size}", *ours(small, aspects, size))
    for size in options.size:
        line(f"nearest symbols, {size} bytes", *ours(small, aspects, size, [0.0]))
    print("\n| peer | bytes | PSNR, dB | SSIM | vqcodec at so many: bytes | PSNR, dB | SSIM |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, code in peers().items():
        found = [code(pixels) for pixels in small]
        mean = float(np.mean([size for size, _ in found]))
        size, _, *equal = ours(small, aspects, int(mean))
        figures = quality(small, [pixels for _, pixels in found])
        print(f"| {name} | {mean:.1f} | {figures[0]:.2f} | {figures[1]:.3f} | {size:.1f} ", end="")
        print(f"| {equal[0]:.2f} | {equal[1]:.3f} |", flush=True)

    jpegs = []
    for image in images:
        file = io.BytesIO()
        PIL.Image.fromarray(image.samples).save(file, "JPEG", quality=90)
        jpegs.append(file.getvalue())
    started = time.perf_counter()
    for data in jpegs * 4:
        vqcodec.placeholder(data)
    rate = 4 * len(jpegs) / (time.perf_counter() - started)
    print(f"\n{rate:.0f} placeholders per second, from JPEG files in memory, one thread")


def line(name: str, size: float, characters: float, *figures: float) -> None:
    print(f"| {name} | {size:.1f} | {characters:.1f} | {figures[0]:.2f} | {figures[1]:.3f} |", flush=True)


def ours(
    small: list[np.ndarray], aspects: list[int], size: int, tradeoffs: Sequence[float] = TRADEOFFS
) -> tuple[float, float, float, float]:
    """Mean bytes, characters, PSNR and SSIM of placeholders."""
    searcher = thumbnails.searcher()
    texts = [searcher.encode(p, aspect, size, tradeoffs) for p, aspect in zip(small, aspects, strict=True)]
    decoded = [render(decode(text, searcher.tables), searcher.tables, 32, 32) for text in texts]
    characters = float(np.mean([len(text) for text in texts]))
    return float(np.mean([len(text) * 6 // 8 for text in texts])), characters, *quality(small, decoded)


def quality(small: list[np.ndarray], decoded: list[np.ndarray]) -> tuple[float, float]:
    """Mean PSNR and mean SSIM (Wang et al. 2004; windows of 11 pixels)."""

    def tensor(pixels: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None]

    pairs = list(zip(small, decoded, strict=True))
    similar = [float(ssim(tensor(a), tensor(b), data_range=255)) for a, b in pairs]
    return float(np.mean([psnr(a, b) for a, b in pairs])), float(np.mean(similar))


def peers() -> dict[str, Code]:
    """Codecs that are installed, by name."""
    found: dict[str, Code] = {}
    try:
        import blurhash
    except ImportError:
        print("| BlurHash is not installed |||||||")
    else:
        for across, down in COMPONENTS:

            def blur(pixels: np.ndarray, across: int = across, down: int = down) -> tuple[float, np.ndarray]:
                text = blurhash.encode(pixels.tolist(), across, down)
                return len(text) * math.log2(83) / 8, np.array(blurhash.decode(text, 32, 32), np.uint8)

            found[f"BlurHash {across}x{down}"] = blur
    try:
        import thumbhash
    except ImportError:
        print("| ThumbHash is not installed |||||||")
    else:

        def thumb(pixels: np.ndarray) -> tuple[float, np.ndarray]:
            opaque = np.dstack((pixels, np.full((32, 32), 255, np.uint8)))
            data = thumbhash.rgba_to_thumb_hash(32, 32, opaque.ravel().tolist())
            return len(data), thumbhash_pixels(data)

        found["ThumbHash"] = thumb
    return found


def thumbhash_pixels(data: list[int]) -> np.ndarray:
    """Decode the ThumbHash of an opaque square image: uint8 [32, 32, 3].

    The decoder of the package thumbhash 0.1.2 is not used: it draws all pixels with the cosines of the first.
    """
    first, second = data[0] | data[1] << 8 | data[2] << 16, data[3] | data[4] << 8
    nibbles = iter([half for byte in data[5:] for half in (byte & 15, byte >> 4)])
    places = (np.arange(32) + 0.5) / 32

    def channel(mean: float, count: int, scale: float) -> np.ndarray:
        total = np.full((32, 32), mean)
        for down in range(count):
            for across in range(0 if down else 1, count - down):
                wave = np.outer(np.cos(np.pi * down * places), np.cos(np.pi * across * places))
                total += (next(nibbles) / 7.5 - 1) * scale * 2 * wave
        return total

    luma = channel((first & 63) / 63, max(3, second & 7), (first >> 18 & 31) / 31)
    yellow = channel((first >> 6 & 63) / 31.5 - 1, 3, (second >> 3 & 63) / 63 * 1.25)
    red = channel((first >> 12 & 63) / 31.5 - 1, 3, (second >> 9 & 63) / 63 * 1.25)
    blue = luma - 2 / 3 * yellow
    rgb = np.dstack(((3 * luma - blue + red) / 2, (3 * luma - blue - red) / 2, blue))
    return np.clip(np.rint(255 * rgb), 0, 255).astype(np.uint8)


if __name__ == "__main__":
    main()
