"""Check that decoded pixels do not depend on what computes them, and compare with the float decoder.

python benchmarks/synthesis.py KODAK_FOLDER --model M --exact [--quality 1 3 5]
python benchmarks/synthesis.py KODAK_FOLDER --model M [--float F] --figures [--bpp .25 .5 1]
python benchmarks/synthesis.py KODAK_FOLDER --model M [--float F] --speed [--threads 2]

M has its synthesis in integers. F decodes the same latents in floating point: the weights that M was trained
from, with the encoder and the prior of M; without it, the weights of M, whose inputs are not rounded.
ONEDNN_MAX_CPU_ISA=AVX2 in the environment, or AVX512_CORE, shows what machines without VNNI do.
"""

import argparse
import itertools
import platform
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from priors import threads
from speed import photo, rates
from vqcodec import evaluation, media, pipeline, weights
from vqcodec.bitstream import container
from vqcodec.coding import chunks
from vqcodec.metrics.image import psnr
from vqcodec.metrics.ssimulacra2 import installed, ssimulacra2
from vqcodec.models.base import Model
from vqcodec.models.vae import VAE
from vqcodec.priors.exact_convolutions import CARRIERS, best_carrier
from vqcodec.transform import image as image_transform

STRIP = 150
"""Positions of latents in a block of the smallest strips."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="+", help="folders of images, or images")
    parser.add_argument("--model", default="vae-image", help="name or file")
    parser.add_argument("--float", dest="other", help="name or file of the float decoder")
    parser.add_argument("--exact", action="store_true", help="decode every file in every way")
    parser.add_argument("--figures", action="store_true", help="PSNR and SSIMULACRA2 of both decoders")
    parser.add_argument("--speed", action="store_true", help="time an image of 6 megapixels")
    parser.add_argument("--quality", type=float, nargs="+", default=(1, 3, 5))
    parser.add_argument("--bpp", type=float, nargs="+", default=(0.25, 0.5, 1))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3, help="number of runs, whose median is printed")
    options = parser.parse_args()
    model = weights.load(options.model)
    if not isinstance(model, VAE) or model.integers is None:
        raise SystemExit(f"{options.model} decodes in floating point")
    print(f"{model.card.name}, {platform.machine()}, torch {torch.__version__}, {best_carrier('cpu')}.\n")
    if options.exact:
        exact(model, options)
    if options.figures:
        figures(model, in_float(model, options.other), options)
    if options.speed:
        speed(model, in_float(model, options.other), options)


def by_carrier(model: VAE, carrier: str) -> VAE:
    """Return the model with its sums computed in another way."""
    other = model.equipped()
    other.integers = model.integers.with_carrier(carrier)
    return other


def in_float(model: VAE, name: str | None) -> VAE:
    """Return a model with the card of M that decodes in floating point."""
    other = model.equipped()
    other.integers = None
    if name is None:
        return other
    loaded = weights.load(name)
    if loaded.integers is not None:
        raise SystemExit(f"{name} decodes in integers")
    same = all(np.array_equal(array, model.prior.arrays[part]) for part, array in loaded.prior.arrays.items())
    if not same:
        raise SystemExit(f"{name} has another prior than {model.card.name}: its latents are others")
    return loaded.equipped(card=model.card)


def exact(model: VAE, options: argparse.Namespace) -> None:
    """Print the number of pixels that differ from those of the best carrier on one thread."""
    carriers = [carrier for carrier in CARRIERS if carrier != "onednn" or best_carrier("cpu") == "onednn"]
    ways = [*itertools.product(carriers, (1, options.threads), (None, STRIP))]
    differing: Counter[tuple[str, int, int | None]] = Counter()
    wrong = files = pixels = 0
    for path in evaluation.files(options.folder):
        for quality in options.quality:
            settings = pipeline.EncodeOptions(model=options.model, quality=quality, pixel_crc=True)
            encoded = pipeline.encode_file(path, settings)
            stream = container.parse(encoded.data)
            symbols = chunks.decode(stream, encoded.point).symbols
            files, pixels = files + 1, pixels + encoded.geometry.width * encoded.geometry.height
            expected = None
            for carrier, count, area in ways:
                point = by_carrier(model, carrier).at(encoded.point.index)
                with threads(count):
                    found = image_transform.synthesise(symbols, point, encoded.geometry, area=area)
                expected = found if expected is None else expected
                differing[carrier, count, area] += int((found != expected).any(2).sum())
            for carrier in carriers:  # residuals too
                decoded = pipeline.decode(encoded.data, model=by_carrier(model, carrier))
                wrong += not np.array_equal(decoded.samples, pipeline.reconstruct(encoded).samples)
    print(f"{files} files, {pixels:,} pixels.\n")
    print("| computed by | threads | blocks | differing pixels |\n|---|---:|---|---:|")
    for carrier, count, area in ways:
        size = "of 1 megapixel" if area is None else f"of {area} positions"
        print(f"| {carrier} | {count} | {size} | {differing[carrier, count, area]} |")
    print(f"\nFiles decoded by {', '.join(carriers)} to other pixels than their CRC says: {wrong}.")


def figures(model: VAE, other: VAE, options: argparse.Namespace) -> None:
    """Print PSNR and SSIMULACRA2 of both decoders of the same files."""
    print("| bpp | PSNR in integers | in floats | difference, dB | SSIMULACRA2 | in floats | difference |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for bpp in options.bpp:
        rows = []
        for path in evaluation.files(options.folder):
            original = media.read_image(path)
            settings = pipeline.EncodeOptions(model=options.model, bpp=bpp)
            encoded = pipeline.encode_file(original, settings)
            row = [encoded.bpp]
            for one in (model, other):
                decoded = pipeline.decode(encoded.data, model=one).samples
                similar = ssimulacra2(original.samples, decoded) if installed() else None
                row += [psnr(decoded, original.samples), np.nan if similar is None else similar]
            rows.append(row)
        rate, ours, ours_similar, theirs, theirs_similar = np.mean(rows, 0)
        cells = (
            f"{ours:.3f} | {theirs:.3f} | {ours - theirs:+.3f} | {ours_similar:.2f} | {theirs_similar:.2f}"
        )
        print(f"| {rate:.3f} | {cells} | {ours_similar - theirs_similar:+.2f} |", flush=True)


def speed(model: VAE, other: VAE, options: argparse.Namespace) -> None:
    """Time decoding, whole and without entropy coding, in one run."""
    torch.set_num_threads(options.threads)
    image = np.asarray(photo(options.folder[0], 3000, 2000).convert("RGB"))
    encoded = pipeline.encode_file(image, pipeline.EncodeOptions(model=options.model))
    megapixels = image.shape[0] * image.shape[1] / 1e6
    kinds: dict[str, Model] = {
        "floats": other,
        "integers": model,
        "integers, float32": by_carrier(model, "float32"),
    }
    work = {
        f"{name}, whole": (lambda m=one: pipeline.decode(encoded.data, model=m))
        for name, one in kinds.items()
    }
    work |= {
        f"{name}, synthesis": lambda m=one: image_transform.synthesise(
            encoded.symbols, m.at(encoded.point.index), encoded.geometry
        )
        for name, one in kinds.items()
    }
    found = rates(work, options.runs, megapixels)
    print(
        f"{image.shape[1]} x {image.shape[0]} ({megapixels:.1f} MP), quality 3, {encoded.bpp:.3f} bpp,",
        end=" ",
    )
    print(f"{options.threads} threads, median of {options.runs} runs.\n")
    print("| decode | MP/s | over floats |\n|---|---:|---:|")
    for name, rate in found.items():
        base = found[f"floats, {name.rpartition(', ')[2]}"]
        print(f"| {name} | {rate:.3f} | {rate / base:.2f} |")


if __name__ == "__main__":
    main()
