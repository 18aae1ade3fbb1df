"""Rate and quality of our models vs. JPEG, WebP, AVIF and JPEG XL: tables at fixed rates, and BD-rates.

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
from vqcodec import evaluation, media, pipeline
from vqcodec.bitstream import container
from vqcodec.evaluation.baselines.image import BASELINES, QualitySweep, available
from vqcodec.evaluation.figures import IMAGE
from vqcodec.evaluation.image import measure

QUALITIES = (1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5)
RATES = (0.25, 0.5, 1.0)
DIGITS = {"psnr_db": 2, "ms_ssim": 4, "ssimulacra2": 1}

Curves = dict[str, np.ndarray]
"""Codec -> float64 [images, qualities, 1 + figures]: bpp and the figures of IMAGE of every file."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="+", help="folder of images, or images")
    parser.add_argument("--model", nargs="+", default=["vae-image"], help="names or files")
    parser.add_argument("--single", nargs="*", default=[], help="models of one rate, for the plot alone")
    parser.add_argument("--quality", type=float, nargs="+", default=QUALITIES)
    parser.add_argument("--against", nargs="*", default=available(), help="over their own range of qualities")
    parser.add_argument(
        "--target-size", type=float, nargs="+", metavar="KB", help="measure only this, with the first model"
    )
    parser.add_argument("--json", type=Path, help="write all rows, image by image")
    parser.add_argument("--plot", type=Path, help="rate against each figure, .svg or .png")
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
                ours.append(point(row, row["bpp"]))
                rows.append(row | {"file": str(path), "codec": Path(name).stem})
                if encoded.estimate_bits:
                    payload[name] += 8 * container.read_info(encoded.data).code_bytes
                    ideal[name] += encoded.estimate_bits
            figures_of[Path(name).stem].append(ours)
        rows += [measure(original, model=name)[0] | {"file": str(path)} for name in options.single]
        for name in options.against:
            sweep, pixels = QualitySweep(original, name), original.width * original.height
            theirs = [sweep.figures(quality) for quality in BASELINES[name].sweep]
            figures_of[name].append([point(f, f["bytes"] * 8 / pixels) for f in theirs])
            rows += [{"file": str(path), "codec": name, "bpp": f["bytes"] * 8 / pixels, **f} for f in theirs]
    whole: Curves = {name: np.array(figures, float) for name, figures in figures_of.items()}
    print(f"{len(files)} whole images, through real files.")
    at_rates("One setting of a codec for all images", whole, mean_first=True)
    at_rates("Every image at this rate", whole, mean_first=False)
    ours = [Path(name).stem for name in options.model]
    bd_rates(rows)
    if ours[0] in whole:
        points(whole[ours[0]], ours[0], options.quality)
    for name in options.model:
        print(f"\n{Path(name).stem}: payload / ideal {payload[name] / ideal[name]:.5f}.", end="")
    print()
    if options.json:
        evaluation.write_json(rows, options.json)
    if options.plot:
        plots.draw(rows, options.plot)


def point(figures: dict, bpp: float) -> list[float]:
    """The figures of one file in the order of `Curves`; NaN for one that was not measured."""
    values = [figures[figure.key] for figure in IMAGE]
    return [bpp, *(np.nan if value is None else value for value in values)]


def at_rates(title: str, whole: Curves, *, mean_first: bool) -> None:
    heads = [f"{figure.title} at {rate:g}" for figure in IMAGE for rate in RATES]
    print(f"\n{title}; means over images, interpolated in log(bpp):\n")
    print("| codec | " + " | ".join(heads) + " |")
    print("|---|" + "---:|" * len(heads))
    for name, curve in whole.items():
        cells = [
            cell(at_rate(curve[:, :, 0], curve[:, :, column], rate, mean_first=mean_first), digits)
            for column, digits in enumerate(DIGITS.values(), 1)
            for rate in RATES
        ]
        print(f"| {name} | " + " | ".join(cells) + " |")


def at_rate(bpp: np.ndarray, figure: np.ndarray, rate: float, *, mean_first: bool) -> np.ndarray:
    """Interpolate a figure at a rate, from [images, qualities] of both.

    Returns:
        A value for each image; with `mean_first` one for the mean of the images, and for each of those that
        are left out of it because they are exact. NaN beyond the rates, infinite for exact images.
    """
    if not mean_first:
        return np.array([between(*pair, rate) for pair in zip(bpp, figure, strict=True)])
    exact = np.isinf(figure[:, around(bpp.mean(0), rate)]).any(1)
    if exact.all():
        return figure[:, -1]
    middle = between(bpp[~exact].mean(0), figure[~exact].mean(0), rate)
    return np.array([middle, *[np.inf] * exact.sum()])


def around(bpp: np.ndarray, rate: float) -> slice:
    """Return where the files on either side of a rate are; beyond them, where nothing is."""
    after = int(np.searchsorted(bpp, rate))
    return slice(max(after - 1, 0), after + 1) if bpp[0] <= rate <= bpp[-1] else slice(0)


def between(bpp: np.ndarray, figure: np.ndarray, rate: float) -> float:
    """Interpolate a figure at a rate from the files on either side; NaN beyond them, infinite if one is."""
    sides = figure[around(bpp, rate)]
    if np.isinf(sides).any():
        return np.inf
    return float(np.interp(np.log(rate), np.log(bpp), figure)) if len(sides) else np.nan


def cell(values: np.ndarray, digits: int) -> str:
    """Format the mean of the images that are neither exact nor out of range, and count the others."""
    exact, out = int(np.isinf(values).sum()), int(np.isnan(values).sum())
    if out == len(values):
        return ""
    counts = ", ".join(
        f"{count} {what}" for count, what in ((exact, "exact"), (out, "out of range")) if count
    )
    there = values[np.isfinite(values)]
    mean = f"{there.mean():.{digits}f}" if len(there) else "-"
    return f"{mean} ({counts})" if counts else mean


def bd_rates(rows: Sequence[dict]) -> None:
    print("\nBD-rate, mean over the images (less is better):\n")
    print("| | vs. | " + " | ".join(f"by {figure.title}" for figure in IMAGE) + " |")
    print("|---|---|" + "---:|" * len(IMAGE))
    for row in evaluation.bd_rates(rows):
        percent = (row[figure.key] for figure in IMAGE)
        cells = ("" if value is None else f"{value:+.1f} %" for value in percent)
        print(f"| {row['codec']} | {row['against']} | {' | '.join(cells)} |")


def points(curve: np.ndarray, name: str, qualities: Sequence[float]) -> None:
    heads = " | ".join(figure.title for figure in IMAGE)
    print(f"\n| {name} -q | bpp | {heads} |\n|---|---:|" + "---:|" * len(IMAGE))
    for quality, files in zip(qualities, curve.swapaxes(0, 1), strict=True):
        cells = (cell(column, digits) for column, digits in zip(files.T[1:], DIGITS.values(), strict=True))
        print(f"| {quality:g} | {files[:, 0].mean():.4f} | {' | '.join(cells)} |")


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
