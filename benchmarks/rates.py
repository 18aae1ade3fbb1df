"""Rate and quality of our models vs. JPEG, WebP and AVIF: tables at fixed rates, and BD-rates.

python benchmarks/rates.py KODAK_FOLDER [--model vae-image ppca-image] [--json OUT] [--plot OUT.svg]
python benchmarks/rates.py KODAK_FOLDER --target-size 10 20 40
"""

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import plots
from scipy.interpolate import PchipInterpolator
from vqcodec import evaluation, media, pipeline
from vqcodec.bitstream import container
from vqcodec.evaluation.baselines.image import QualitySweep
from vqcodec.evaluation.image import measure

QUALITIES = (1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5)
SWEEPS = {
    "jpeg": (3, 6, 10, 15, 22, 32, 45, 60, 75, 85, 92, 96),
    "webp": (0, 3, 8, 16, 28, 42, 58, 72, 82, 90, 95, 98),
    "avif": (10, 20, 28, 36, 44, 52, 60, 68, 76, 84, 90, 94),
}
RATES = (0.25, 0.5, 1.0)
FIGURES = ("bpp", "psnr_db", "ms_ssim")

Curves = dict[str, np.ndarray]
"""Codec -> float64 [images, qualities, 3]: the figures of FIGURES of every file."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="+", help="folder of images, or images")
    parser.add_argument("--model", nargs="+", default=["vae-image"], help="names or files")
    parser.add_argument("--single", nargs="*", default=[], help="models of one rate, for the plot alone")
    parser.add_argument("--quality", type=float, nargs="+", default=QUALITIES)
    parser.add_argument("--against", nargs="*", default=list(SWEEPS))
    parser.add_argument(
        "--target-size", type=float, nargs="+", metavar="KB", help="measure only this, with the first model"
    )
    parser.add_argument("--json", type=Path, help="write all rows, image by image")
    parser.add_argument("--plot", type=Path, help="rate against PSNR and MS-SSIM, .svg or .png")
    options = parser.parse_args()
    if options.target_size:
        targets(options)
    else:
        curves(options)


def curves(options: argparse.Namespace) -> None:
    files = evaluation.files(options.folder)
    rows, figures_of = [], defaultdict(list)
    payload, ideal = defaultdict(int), defaultdict(float)
    for path in with_progress(files):
        original = media.read_image(path)
        for name in options.model:
            ours = []
            for quality in options.quality:
                row, encoded, _ = measure(original, model=name, quality=quality)
                ours.append([row[key] for key in FIGURES])
                rows.append(row | {"file": str(path)})
                if encoded.estimate_bits:
                    payload[name] += 8 * container.read_info(encoded.data).code_bytes
                    ideal[name] += encoded.estimate_bits
            figures_of[Path(name).stem].append(ours)
        rows += [measure(original, model=name)[0] | {"file": str(path)} for name in options.single]
        for name in options.against:
            sweep, pixels = QualitySweep(original, name), original.width * original.height
            theirs = [sweep.figures(quality) for quality in SWEEPS[name]]
            figures_of[name].append([[f["bytes"] * 8 / pixels, f["psnr_db"], f["ms_ssim"]] for f in theirs])
            rows += [{"file": str(path), "codec": name, "bpp": f["bytes"] * 8 / pixels, **f} for f in theirs]
    whole: Curves = {name: np.array(figures, float) for name, figures in figures_of.items()}
    print(f"{len(files)} whole images, through real files.")
    at_rates("One setting of a codec for all images", whole, mean_first=True)
    at_rates("Every image at this rate", whole, mean_first=False)
    ours = [Path(name).stem for name in options.model]
    bd_rates(whole, ours)
    if ours[0] in whole:
        points(whole[ours[0]], ours[0], options.quality)
    for name in options.model:
        print(f"\n{Path(name).stem}: payload / ideal {payload[name] / ideal[name]:.5f}.", end="")
    print()
    if options.json:
        evaluation.write_json(rows, options.json)
    if options.plot:
        plots.draw(rows, options.plot)


def at_rates(title: str, whole: Curves, *, mean_first: bool) -> None:
    heads = [f"{figure} at {rate:g}" for figure in ("PSNR, dB", "MS-SSIM") for rate in RATES]
    print(f"\n{title}; means over images, interpolated in log(bpp):\n")
    print("| codec | " + " | ".join(heads) + " |")
    print("|---|" + "---:|" * len(heads))
    for name, curve in whole.items():
        several = curve.mean(0, keepdims=True) if mean_first else curve
        cells = []
        for column, digits in ((1, 2), (2, 4)):
            for rate in RATES:
                at = [between(c[:, 0], c[:, column], rate) for c in several]
                out = sum(np.isnan(at))
                cell = "" if out == len(at) else f"{np.nanmean(at):.{digits}f}"
                cells.append(cell + (f" ({out} out of range)" if 0 < out < len(at) else ""))
        print(f"| {name} | " + " | ".join(cells) + " |")


def between(bpp: np.ndarray, figure: np.ndarray, rate: float) -> float:
    """Interpolate a figure at a rate from the files on either side; NaN beyond them."""
    return float(np.interp(np.log(rate), np.log(bpp), figure, left=np.nan, right=np.nan))


def bd_rates(whole: Curves, ours: Sequence[str]) -> None:
    print("\nBD-rate, mean over the images (less is better):\n")
    print("| | " + " | ".join(f"vs. {name}" for name in whole) + " |\n|---|" + "---:|" * len(whole))
    for name in ours:
        cells = []
        for other in whole:
            each = [bd_rate(a, b) for a, b in zip(whole[name], whole[other], strict=True)]
            cells.append("" if name == other else f"{statistics.mean(each):+.1f} %")
        print(f"| {name} | " + " | ".join(cells) + " |")


def bd_rate(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the mean difference of rate at equal PSNR in percent, over the common range (Bjontegaard 2001).

    Logarithms of rates are interpolated by monotone piecewise cubics.
    """
    low = max(ours[0, 1], theirs[0, 1])
    high = min(ours[-1, 1], theirs[-1, 1])
    areas = [PchipInterpolator(c[:, 1], np.log(c[:, 0])).integrate(low, high) for c in (ours, theirs)]
    return float(100 * np.expm1((areas[0] - areas[1]) / (high - low)))


def points(curve: np.ndarray, name: str, qualities: Sequence[float]) -> None:
    print(f"\n| {name} -q | bpp | PSNR, dB | MS-SSIM |\n|---|---:|---:|---:|")
    for quality, (bpp, psnr, ms_ssim) in zip(qualities, curve.mean(0), strict=True):
        print(f"| {quality:g} | {bpp:.4f} | {psnr:.2f} | {ms_ssim:.4f} |")


def targets(options: argparse.Namespace) -> None:
    files = evaluation.files(options.folder)
    print("| target, kB | above | mean shortfall | largest |\n|---|---:|---:|---:|")
    for kilobytes in options.target_size:
        limit, short = round(1000 * kilobytes), []
        for path in with_progress(files):
            image = media.Image(media.read_image(path).samples)
            coded = pipeline.encode(image, model=options.model[0], target_size=limit)
            short.append(1 - len(coded) / limit)
        above = sum(share < 0 for share in short)
        shares = f"{statistics.mean(short):.2%} | {max(short):.2%}"
        print(f"| {kilobytes:g} | {above} | {shares} |", flush=True)


def with_progress(files: Sequence[Path]):  # noqa: ANN201
    """Yield files, and print their numbers."""
    for index, path in enumerate(files, 1):
        print(f"\r{index}/{len(files)} {path.name}", end="", file=sys.stderr, flush=True)
        yield path
    print(file=sys.stderr)


if __name__ == "__main__":
    main()
