"""Summarise rows, and write them as CSV, JSON or a plot."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import UsageError
from ..files import atomically
from . import audio, image
from .candidates import Measures, Row, Source

COLUMNS = tuple(dict.fromkeys(image.COLUMNS + audio.COLUMNS))
"""Keys of the rows of both media, in the order of tables of both."""

MEANS = tuple(dict.fromkeys(image.MEANS + audio.MEANS))
"""Keys of the rows of `summary` of both media."""

PANELS = (
    ("bpp", "bits per pixel", "psnr_db", "PSNR, dB"),
    ("bpp", "bits per pixel", "ms_ssim", "MS-SSIM"),
    ("kbps", "kbit/s", "log_mel", "log-mel distance, decades (less is better)"),
)
"""Plots: key of the rate, its label, key of the figure, its label."""


def summary(rows: Iterable[Row]) -> list[Row]:
    """Average rows by codec and operating point, images and audio apart.

    See `image.mean_row` and `audio.mean_row` for the means.
    """
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((_module(row), *_module(row).group(row)), []).append(row)
    return [_module(group[0]).mean_row(group) for group in groups.values()]


def write_csv(rows: Sequence[Row], path: Source) -> None:
    """Write rows of `evaluate` or `summary` as CSV with a header; None is an empty field, infinity `inf`."""
    there = dict.fromkeys(name for row in rows for name in row) or dict.fromkeys(COLUMNS)
    orders = (image.COLUMNS, audio.COLUMNS, COLUMNS, image.MEANS, audio.MEANS, MEANS)
    order = next((order for order in orders if there.keys() <= set(order)), tuple(there))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [name for name in order if name in there], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with atomically(Path(path)) as file:
        file.write(text.getvalue().encode())


def write_json(rows: Sequence[Row], path: Source) -> None:
    """Write rows of `evaluate` or `summary` as a JSON list; infinite values, which JSON lacks, are null."""
    finite = [{key: _finite(value) for key, value in row.items()} for row in rows]
    with atomically(Path(path)) as file:
        file.write((json.dumps(finite, indent=1, allow_nan=False) + "\n").encode())


def plot(rows: Sequence[Row], path: Source) -> None:
    """Plot rate and quality: a small dot per file, a large one per mean, lines between those of a codec.

    The quality is PSNR and MS-SSIM for images, log-mel distance for audio.

    Args:
        rows: of `evaluate`.
        path: PNG, SVG or PDF, by its suffix.

    Raises:
        UsageError: matplotlib is not installed, or does not write this kind of file.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("plots need matplotlib", "install it with pip install 'vqcodec[plots]'") from error
    panels = [panel for panel in PANELS if _dots(rows, None, panel[0], panel[2])] or PANELS[:1]
    figure = Figure(figsize=(5.6 * len(panels), 4.6), layout="constrained")
    kind = Path(path).suffix.lstrip(".").lower()
    if kind not in figure.canvas.get_supported_filetypes():
        raise UsageError(f"plots cannot be written as {kind or 'a file without suffix'}", "use .png or .svg")
    means = summary(rows)
    for number, (rate, rate_label, name, label) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), number + 1)
        for color, codec in enumerate(dict.fromkeys(row["codec"] for row in rows)):
            if dots := _dots(rows, codec, rate, name):
                axes.plot(*dots, ".", markersize=5, alpha=0.35, color=f"C{color}")
                axes.plot(*_dots(means, codec, rate, name), "o-", color=f"C{color}", label=codec)
        axes.set(xlabel=rate_label, ylabel=label)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    with atomically(Path(path)) as file:
        figure.savefig(file, format=kind, dpi=150)


def _module(row: Row) -> Measures:
    return image if row.get("kbps") is None else audio


def _dots(rows: Sequence[Row], codec: str | None, rate: str, name: str) -> list[tuple[float, ...]]:
    """Return rates and values of a codec (None: of all) by increasing rate, [] where there are none."""
    chosen = [row for row in rows if codec in (None, row["codec"]) and row.get(name) is not None]
    return list(
        zip(*sorted((row[rate], row[name]) for row in chosen if math.isfinite(row[name])), strict=True)
    )


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value
