"""Sets of small pictures of 0 and 1, without loss: bits back vs. the negative ELBO and general codecs.

python benchmarks/bits_back.py SET --model WEIGHTS [--count 10000] [--binarise threshold | draw | none]
"""

import argparse
import bz2
import io
import lzma
import math
import time
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from vqcodec import media, pipeline, weights
from vqcodec.coding import bits_back
from vqcodec.models.latent.integers import IntegerVAE

DRAWS = 10
"""Samples of the latents of each picture in the estimate of the ELBO."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("set", type=Path, help="pictures, .npy, .npz or idx(.gz)")
    parser.add_argument("--model", default="vae-bits", help="name or file")
    parser.add_argument("--count", type=int, default=10_000, help="first pictures that are taken")
    parser.add_argument(
        "--binarise",
        choices=("draw", "threshold", "none"),
        default="draw",
        help="draw: 1 with probability v / 255, once, by numpy's generator of seed 0",
    )
    options = parser.parse_args()

    pixels = binarised(media.read_set(options.set).pixels[: options.count], options.binarise)
    model = weights.load(options.model, "cpu")
    started = time.perf_counter()
    encoded = pipeline.encode_set(media.PictureSet(pixels), model=options.model)
    encoding = time.perf_counter() - started
    started = time.perf_counter()
    decoded = pipeline.decode_set(encoded.data, model=options.model)
    decoding = time.perf_counter() - started
    wrong = int((decoded.pixels != pixels).sum()) + other_arithmetic(model, pixels)
    elbo = negative_elbo(model, pixels) / math.log(2)
    spent = 8 * len(encoded.data) / len(pixels)

    print(f"{len(pixels):,} pictures of {pixels.shape[2]} x {pixels.shape[1]}, {options.binarise}\n")
    print("| codec | bytes | bits per pixel |\n|---|---:|---:|")
    for name, size in {"bits back": len(encoded.data), **others(pixels)}.items():
        print(f"| {name} | {size:,} | {8 * size / pixels.size:.4f} |")
    print(f"\nnegative ELBO {elbo:.3f} bits, {elbo * math.log(2):.2f} nats; bytes / ELBO {spent / elbo:.4f}")
    print(f"pixels that differ, float64 and int64: {wrong}")
    print(f"encoding {len(pixels) / encoding:.0f}, decoding {len(pixels) / decoding:.0f} pictures a second")


def binarised(pixels: np.ndarray, how: str) -> np.ndarray:
    """Make pixels 0 or 1: uint8 [N, H, W]."""
    if how == "draw":
        drawn = np.random.default_rng(0).integers(255, size=pixels.shape, dtype=np.uint8)
        return (drawn < pixels).astype(np.uint8)
    return (pixels >= 128).astype(np.uint8) if how == "threshold" else pixels


def other_arithmetic(model: object, pixels: np.ndarray) -> int:
    """Encode and decode the first thousand in int64 and float64 crosswise; count the pixels that differ."""
    some = (pixels[:1000] != 0).astype(np.uint8).reshape(len(pixels[:1000]), -1)
    coders = [IntegerVAE(model.encoder, model.decoder, dtype) for dtype in (np.float64, np.int64)]
    data = [bits_back.encode(some, coder) for coder in coders]
    found = [
        bits_back.decode(bytes_, len(some), coder) for bytes_, coder in zip(data, coders[::-1], strict=True)
    ]
    return sum(int((pictures != some).sum()) for pictures in found)


@torch.no_grad()
def negative_elbo(model: object, pixels: np.ndarray) -> float:
    """Estimate the negative ELBO of the float networks, in nats per picture."""
    torch.manual_seed(0)
    total = 0.0
    for part in np.array_split((pixels != 0).astype(np.float32), -(-len(pixels) // 1000)):
        x = torch.from_numpy(part)[:, None]
        posterior = model.posterior(x)
        kl = model.kl(posterior).sum()
        distortions = [-model.log_likelihood(x, posterior.sample()).sum() for _ in range(DRAWS)]
        total += float(kl + torch.stack(distortions).mean())
    return total / len(pixels)


def others(pixels: np.ndarray) -> dict[str, int]:
    """Sizes by general codecs: all pictures in one file, one above the other."""
    packed = np.packbits(pixels != 0).tobytes()
    image = PIL.Image.fromarray((pixels != 0).reshape(-1, pixels.shape[2]))
    sizes = {
        "a bit for each pixel": len(packed),
        "zlib": len(zlib.compress(packed, 9)),
        "bzip2": len(bz2.compress(packed)),
        "LZMA": len(lzma.compress(packed, preset=9)),
    }
    png, tiff = io.BytesIO(), io.BytesIO()
    image.save(png, "PNG", optimize=True)
    image.save(tiff, "TIFF", compression="group4")
    return sizes | {"PNG": len(png.getvalue()), "fax group 4": len(tiff.getvalue())}


if __name__ == "__main__":
    main()
