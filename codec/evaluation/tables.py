"""Summarise rows, and write them as CSV, JSON or a plot."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from ..files import atomically
from . import audio, figures, image
from .candidates import Measures, Row, Source

COLUMNS = tuple(dict.fromkeys(image.COLUMNS + audio.COLUMNS))
"""Keys of the rows of both media, in the order of tables of both."""

MEANS = tuple(dict.fromkeys(image.MEANS + audio.MEANS))
"""Keys of the rows of `summary` of both media."""


@dataclass(frozen=True)
class Panel:
    """A plot of one figure of quality over the rate.

    Attributes:
        figure: what is plotted.
        rate: key of the rate, "bpp" or "kbps".
    """

    figure: figures.Figure
    rate: str

    @property
    def rate_label(self) -> str:
        """Return the label of the rate."""
        return {"bpp": "bits per pixel", "kbps": "kbit/s"}[self.rate]

    @property
    def label(self) -> str:
        """Return the label of the figure."""
        return self.figure.title + (" (less is better)" if self.figure.better < 0 else "")

    def dots(self, rows: Iterable[Row], codec: str | None = None) -> list[tuple[float, float]]:
        """Return rate and figure of the rows of a codec (None: of all) that have it, by increasing rate."""
        key = self.figure.key
        chosen = [row for row in rows if codec in (None, row["codec"]) and row.get(self.rate) is not None]
        return sorted((row[self.rate], row[key]) for row in chosen if figures.finite([row.get(key)]))


def panels_of(rows: Sequence[Row]) -> list[Panel]:
    """List the plots of all figures that were measured; the first of images if there are none."""
    panels = [Panel(figure, "bpp") for figure in figures.IMAGE] + [Panel(f, "kbps") for f in figures.AUDIO]
    return [panel for panel in panels if panel.dots(rows)] or panels[:1]


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

    There are axes for each figure of quality that was measured.

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
    panels = panels_of(rows)
    figure = Figure(figsize=(5.6 * len(panels), 4.6), layout="constrained")
    kind = Path(path).suffix.lstrip(".").lower()
    if kind not in figure.canvas.get_supported_filetypes():
        raise UsageError(f"plots cannot be written as {kind or 'a file without suffix'}", "use .png or .svg")
    means = summary(rows)
    for number, panel in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), number + 1)
        for color, codec in enumerate(dict.fromkeys(row["codec"] for row in rows)):
            if dots := panel.dots(rows, codec):
                axes.plot(*zip(*dots, strict=True), ".", markersize=5, alpha=0.35, color=f"C{color}")
                mean_dots = panel.dots(means, codec)
                axes.plot(*zip(*mean_dots, strict=True), "o-", color=f"C{color}", label=codec)
        axes.set(xlabel=panel.rate_label, ylabel=panel.label)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    with atomically(Path(path)) as file:
        figure.savefig(file, format=kind, dpi=150)


def _module(row: Row) -> Measures:
    return image if row.get("kbps") is None else audio


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value
