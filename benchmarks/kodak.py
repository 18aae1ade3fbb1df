"""A model with a codebook on a folder of images, vs. other codecs at the same bytes.

python benchmarks/kodak.py KODAK_FOLDER [--model M] [--effort N ...] [--json OUT]
"""

import argparse
import math
import sys
from pathlib import Path

import numpy as np
from vqcodec import evaluation, media, weights
from vqcodec.bitstream import container
from vqcodec.evaluation.baselines.image import QualitySweep, available
from vqcodec.metrics.image import code_use

COLUMNS = (
    "codec",
    "bpp",
    "PSNR, dB",
    "MS-SSIM",
    "codes used",
    "perplexity",
    "bits per code",
    "payload / ideal",
    "encode, MP/s",
    "decode, MP/s",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="+", help="folder of images, or images")
    parser.add_argument("--model", default="vqvae-image", help="name or file, with a codebook")
    parser.add_argument("--quality", type=float, help="operating point; the model's default if absent")
    parser.add_argument("--effort", type=int, nargs="+", default=[1], help="one row for each")
    parser.add_argument("--against", nargs="*", default=available(), help="at the bytes of the first effort")
    parser.add_argument("--json", type=Path, help="write all rows, image by image")
    options = parser.parse_args()

    size = weights.load(options.model).config.codes
    # Per effort: histogram of the codes of each plane, bits of chunk payloads, their cross-entropy.
    counts: dict[int, dict[str, np.ndarray]] = {effort: {} for effort in options.effort}
    payload = dict.fromkeys(options.effort, 0)
    ideal = dict.fromkeys(options.effort, 0.0)
    rows = []
    files = evaluation.files(options.folder)
    for index, path in enumerate(files, 1):
        print(f"\r{index}/{len(files)} {path.name}", end="", file=sys.stderr, flush=True)
        original = media.read_image(path)
        for effort in options.effort:
            row, encoded, _ = evaluation.measure(
                original, model=options.model, quality=options.quality, effort=effort
            )
            row |= {"file": str(path), "codec": f"{row['codec']}, effort {effort}"}
            rows.append(row)
            for plane, codes in encoded.symbols.items():
                before = counts[effort].get(plane, 0)
                counts[effort][plane] = before + np.bincount(codes.ravel(), minlength=size)
            payload[effort] += 8 * container.read_info(encoded.data).code_bytes
            ideal[effort] += encoded.estimate_bits
            if effort == options.effort[0]:
                rows += [evaluation.compare(QualitySweep(original, name), row) for name in options.against]
    print(file=sys.stderr)

    use = {effort: [code_use(one) for one in counts[effort].values()] for effort in options.effort}
    planes = [*counts[options.effort[0]]]
    print(f"{len(files)} whole images, through real files; means over images.")
    if len(planes) > 1:
        print(f"Codes used and perplexity: {', '.join(planes)}.")
    if options.against:
        print(f"Other codecs at the bytes of effort {options.effort[0]}, image by image.")
    print("\n| " + " | ".join(COLUMNS) + " |\n|---|" + "---:|" * (len(COLUMNS) - 1))
    efforts = iter(options.effort)
    for mean in evaluation.summary(rows):
        cells = [mean["codec"], f"{mean['bpp']:.4f}", f"{mean['psnr_db']:.2f}", _number(mean["ms_ssim"], 4)]
        if mean["same_bytes_as"]:
            cells += ["", "", "", ""]
            cells[0] += f" ({mean['unmatched']} images out of its range)" if mean["unmatched"] else ""
        else:
            effort = next(efforts)
            cells.append(f"{', '.join(str(one.used) for one in use[effort])} of {size}")
            cells.append(", ".join(f"{one.perplexity:.0f}" for one in use[effort]))
            cells += [
                f"{payload[effort] / sum(one.total for one in use[effort]):.3f}",
                f"{payload[effort] / ideal[effort]:.4f}",
            ]
        cells += [f"{mean['encode_mps']:.2f}", f"{mean['decode_mps']:.2f}"]
        print("| " + " | ".join(cells) + " |")
    total = sum(row["bytes"] * 8 for row in rows if row["codec"].endswith(f", effort {options.effort[0]}"))
    pixels = sum(row["width"] * row["height"] for row in rows if not row["same_bytes_as"]) / len(
        options.effort
    )
    print(f"\nAll bits over all pixels: {total / pixels:.4f} bpp.", end=" ")
    entropies = (f"{one.entropy_bits:.3f}" for planes_of in use.values() for one in planes_of)
    print(f"Entropy of the histogram of codes: {', '.join(entropies)} bits.")
    if options.json:
        evaluation.write_json(rows, options.json)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


if __name__ == "__main__":
    main()
