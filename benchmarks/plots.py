"""Plot rate and quality from the rows of `rates.py --json` and `sounds.py --json`.

python benchmarks/plots.py rates.json docs/rates-image.svg
python benchmarks/plots.py sounds.json docs/rates-audio.svg

`rates.py --plot FILE` and `sounds.py --plot FILE` measure and plot at once. Needs the extra `plots`.
"""

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]

COLOURS = {
    "vae-image": "#0b5cad",
    "ppca-image": "#6aaee6",
    "vqvae-image": "#7b3fa0",
    "avif": "#d1495b",
    "webp": "#e8902e",
    "jpeg": "#8c8c8c",
    "jxl": "#2a8f5b",
    "vqvae-audio": "#0b5cad",
    "opus": "#d1495b",
    "codec2": "#e8902e",
    "speex": "#8c8c8c",
}
"""Codec -> colour of its curve; other codecs have matplotlib's colours."""


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        key: of the rows.
        label: of the vertical axis.
        decibels: draw -10 log10(1 - x) of a similarity x; the axis is labelled with x.
        ticks: labelled values of x then.
    """

    key: str
    label: str
    decibels: bool = False
    ticks: tuple[float, ...] = ()

    def height(self, value: float) -> float:
        """Return the height of a value on the axis."""
        return -10 * math.log10(1 - value) if self.decibels else value


IMAGE = (
    Panel("psnr_db", "PSNR, dB"),
    Panel("ms_ssim", "MS-SSIM", True, (0.8, 0.9, 0.95, 0.98, 0.99, 0.995)),
    Panel("ssimulacra2", "SSIMULACRA2"),
)
AUDIO = (
    Panel("pesq_wb", "PESQ-WB"),
    Panel("estoi", "ESTOI"),
    Panel("visqol", "ViSQOL"),
    Panel("log_mel", "log-mel distance (less is better)"),
)
NAMES = {
    "jpeg": "JPEG",
    "jxl": "JPEG XL",
    "webp": "WebP",
    "avif": "AVIF",
    "opus": "Opus",
    "codec2": "Codec2",
    "speex": "Speex",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("rows", type=Path, help="file written by --json")
    parser.add_argument("target", type=Path, help=".svg or .png")
    options = parser.parse_args()
    draw(json.loads(options.rows.read_text()), options.target)


def draw(rows: Sequence[Row], target: Path) -> None:
    """Plot the means of every codec at every setting: images over bits per pixel, audio over kbit/s."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "vqcodec", "font.size": 10})
    rate, unit, panels = ("bpp", "bits per pixel", IMAGE)
    if "kbps" in rows[0]:
        rate, unit, panels = ("kbps", "kbit/s", AUDIO)
    # Skip figures whose package was not installed.
    panels = tuple(panel for panel in panels if any(row.get(panel.key) is not None for row in rows))
    curves = means(rows, rate, [panel.key for panel in panels])
    figure, grid = plt.subplots(1, len(panels), figsize=(10.5, 4.2), layout="constrained", squeeze=False)
    axes = grid[0]
    for panel, ax in zip(panels, axes, strict=True):
        for name, points in curves.items():
            xy = [(p[rate], panel.height(p[panel.key])) for p in points if p[panel.key] is not None]
            rates = [x for x, _ in xy]
            # Efforts have nearly the same rate: markers without a line.
            style = "D" if len(xy) == 1 else "o-" if max(rates) > 1.1 * min(rates) else "o"
            ours = name.endswith(("-image", "-audio"))
            ax.plot(
                *zip(*xy, strict=True),
                style,
                color=COLOURS.get(name),
                label=NAMES.get(name, name),
                linewidth=2 if ours else 1.3,
                markersize=4 if len(xy) > 1 else 6,
            )
        ax.set_xscale("log")
        ax.set_xlabel(unit)
        ax.set_ylabel(panel.label)
        low, high = (0.06, 2.2) if rate == "bpp" else (1.2, 28)
        ticks = (0.0625, 0.125, 0.25, 0.5, 1, 2) if rate == "bpp" else (1.5, 3, 6, 12, 24)
        ax.set_xlim(low, high)
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
        ax.set_xticks([], minor=True)
        if panel.decibels:
            ax.set_yticks([panel.height(t) for t in panel.ticks], [f"{t:g}" for t in panel.ticks])
        shown = [y for line in ax.lines for x, y in zip(*line.get_data(), strict=True) if low <= x <= high]
        margin = 0.04 * (max(shown) - min(shown))
        ax.set_ylim(min(shown) - margin, max(shown) + margin)
        ax.grid(True, linewidth=0.5, alpha=0.5)
    axes[0].legend(frameon=False)
    figure.savefig(target, metadata={"Date": None} if target.suffix == ".svg" else None, dpi=150)
    plt.close(figure)


def means(rows: Iterable[Row], rate: str, keys: Sequence[str]) -> dict[str, list[dict[str, float | None]]]:
    """Return the means over files at each setting of each codec, by ascending rate."""
    groups: dict[str, dict[Any, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        # "vqvae-audio, effort 2" and "codec2 2400" are settings; opusenc is Opus, which is included already.
        name = str(row["codec"]).split(",")[0].split(" ")[0]
        if name != "opusenc":
            groups[name][row["codec"], row.get("q")].append(row)
    curves = {}
    for name, settings in groups.items():
        points = [
            {k: mean(row.get(k) for row in group) for k in (rate, *keys)} for group in settings.values()
        ]
        curves[name] = sorted(points, key=lambda point: point[rate] or 0)
    return curves


def mean(values: Iterable[float | None]) -> float | None:
    finite = [value for value in values if value is not None and math.isfinite(value)]
    return sum(finite) / len(finite) if finite else None


if __name__ == "__main__":
    main()
