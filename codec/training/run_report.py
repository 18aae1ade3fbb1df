"""A page of a run, readable while it trains: curves, validation, samples over time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..evaluation.report.page import Cell, data_uri, document, escape, made_by, paragraph, table
from ..evaluation.report.plots import legend, plot
from ..files import atomically
from ..models.base import Figures
from .validation import events

FILE = "report.html"
SHEETS = 12
"""Sheets of samples in a page: the first, the last, and those evenly between them."""

MAX_POINTS = 1000
"""Points of a curve."""

NO_FIGURES = {"event", "step", "progress", "seconds", "best", "stage"}
CURVES = {"step": "training", "validation": "validation"}
"""Event -> name of its curve."""

COLORS = {name: number for number, name in enumerate(CURVES.values())}


def write_report(folder: Path, chain: Sequence[str], device: str) -> None:
    """Write report.html into the folder of a run, from its metrics.jsonl, config.json and samples.

    Args:
        folder: of the run.
        chain: commands that trained the model so far.
        device: of the networks.
    """
    found = list(events(folder / "metrics.jsonl"))
    # A run that was killed and resumed has some steps twice; the last one counts.
    by_step = {kind: {e["step"]: e for e in found if e["event"] == kind} for kind in CURVES}
    validations = list(by_step["validation"].values())
    parts = ["<h2>Result</h2>", *_result(found, validations), "<h2>Curves</h2>"]
    parts += [legend(COLORS), '<div class="plots">']
    keys = dict.fromkeys(
        key for each in by_step.values() for event in each.values() for key in _figures(event)
    )
    for key in sorted(keys, key=lambda key: key != "loss"):
        curves = {CURVES[kind]: _points(each, key) for kind, each in by_step.items()}
        parts.append(plot(curves, x_label="step", y_label=key.replace("_", " "), colors=COLORS))
    columns = dict.fromkeys(key for event in validations for key in _figures(event))
    shown: list[dict[str, Cell]] = [
        {"step": e["step"], **_figures(e), "kept": "best so far" if e.get("best") else None}
        for e in validations
    ]
    titles = {"step": "step", **{key: key.replace("_", " ") for key in columns}, "kept": ""}
    parts += ["</div>", "<h2>Validation</h2>", f'<div class="scroll">{table(titles, shown, sort=True)}</div>']
    parts += [*_sheets(folder / "samples"), "<h2>Settings</h2>", _settings(folder / "config.json")]
    parts += ["<h2>Made by</h2>", made_by("; ".join(chain), device)]
    with atomically(folder / FILE) as file:
        file.write(document(f"vqcodec train: {folder.name}", parts))


def _result(found: Sequence[Figures], validations: Sequence[Figures]) -> list[str]:
    """Return the figures of a finished run, also those by unit or point, or how far it has come."""
    end = next((event for event in reversed(found) if event["event"] == "end"), None)
    if end is None:
        step = max((event["step"] for event in found if "step" in event), default=0)
        best = max((event["step"] for event in validations if event.get("best")), default=0)
        return [paragraph(f"Step {step:,} so far; the best weights are those of step {best:,}.")]
    parts = [_table([_figures(end)])]
    for key, value in end.items():
        if not isinstance(value, list) or not value:
            continue
        if all(isinstance(each, dict) for each in value):
            parts.append(_table([_figures(each) for each in value]))
        elif all(isinstance(each, int | float) for each in value):
            curve = {"validation": [(float(n), float(each)) for n, each in enumerate(value, 1)]}
            drawn = plot(curve, x_label="unit", y_label=key.replace("_", " "), colors=COLORS)
            parts.append(f'<div class="plots">{drawn}</div>')
    return parts


def _table(rows: Sequence[dict[str, float]]) -> str:
    columns = dict.fromkeys(key for row in rows for key in row)
    return table({key: key.replace("_", " ") for key in columns}, rows)


def _figures(event: Figures) -> dict[str, float]:
    """Return the figures of an event that are numbers."""
    found = {key: value for key, value in event.items() if key not in NO_FIGURES}
    return {key: value for key, value in found.items() if isinstance(value, int | float)}


def _points(each: Mapping[int, Figures], key: str) -> list[tuple[float, float]]:
    """Return the points of a curve, without what is missing or no number, and at most MAX_POINTS of them."""
    found = ((float(step), _figures(event).get(key, math.nan)) for step, event in each.items())
    points = [point for point in found if math.isfinite(point[1])]
    return points[:: -(-len(points) // MAX_POINTS) or 1]


def _sheets(folder: Path) -> list[str]:
    """Return samples over time."""
    files = sorted(folder.glob("*.png"))
    count = min(SHEETS, len(files))
    chosen = [files[round(n * (len(files) - 1) / max(count - 1, 1))] for n in range(count)]
    note = f"{count} of {len(files)} sheets of samples: originals above their reconstructions, newest first."
    parts = ["<h2>Samples over time</h2>", paragraph(note, "note"), '<div class="sheets">']
    for file in reversed(chosen):
        image = (
            f'<img src="{data_uri("image/png", file.read_bytes())}" loading="lazy" alt="{escape(file.stem)}">'
        )
        parts.append(f"<figure>{image}<figcaption>{escape(file.stem)}</figcaption></figure>")
    return [*parts, "</div>"]


def _settings(path: Path) -> str:
    lines = "\n".join(escape(line) for line in path.read_text().splitlines())
    return f'<details><summary>config.json</summary><pre class="wide">{lines}</pre></details>'
