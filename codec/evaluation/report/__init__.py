"""A report of an evaluation: one HTML page that needs nothing else.

Summary, BD-rates, curves of rate and distortion, the worst files to look at and to listen to, all files.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

from ...files import atomically
from .. import baselines
from ..bd_rate import bd_rates
from ..candidates import Row, Source
from ..figures import AUDIO, COUNTS, IMAGE, OTHERS, RATES, SPEEDS, Figure, of_medium
from ..tables import panels_of, summary
from .gallery import Exhibit, Gallery, Selection, badness
from .page import data_uri, document, escape, made_by, paragraph, table
from .plots import legend, plot

__all__ = ["Gallery", "Selection", "write_report"]

MAX_BYTES = 16_000_000
"""Bytes of pictures and sounds in a page, before they become text, which is a third more."""

MAX_ROWS = 1000
"""Rows of the table of all files."""

BD_RATE = """Mean difference of rate at equal quality over the common range (Bjontegaard 2001, through
monotone piecewise cubics), mean of the files; less is better."""

MEDIA = {"image": IMAGE, "audio": AUDIO}


def write_report(
    rows: Sequence[Row], path: Source, *, gallery: Gallery | None = None, command: str = ""
) -> None:
    """Write the report of an evaluation as one HTML page.

    Pictures and sounds are limited to MAX_BYTES, worst files first, and rows to MAX_ROWS; the page says so.

    Args:
        rows: of `evaluate`.
        path: of the page; a file of this name is replaced.
        gallery: what `evaluate` collected; None: a page without pictures and sounds.
        command: what made it, to be shown.
    """
    media = [(kind, [row for row in rows if of_medium(row) is figures]) for kind, figures in MEDIA.items()]
    parts = [part for kind, ours in media if ours for part in _medium(kind, ours, gallery)]
    if not parts:
        parts = [paragraph("Nothing was measured.")]
    page = document("vqcodec evaluate", [*parts, "<h2>Made by</h2>", made_by(command)])
    with atomically(Path(path)) as file:
        file.write(page)


def _medium(kind: str, rows: list[Row], gallery: Gallery | None) -> Iterator[str]:
    """Yield the parts of the page on one medium."""
    figures, rate = MEDIA[kind], "bpp" if kind == "image" else "kbps"
    titles = {figure.key: figure.title for figure in figures}
    files = len(dict.fromkeys(row["file"] for row in rows))
    means, differences = summary(rows), bd_rates(rows)
    count = "1 file" if files == 1 else f"{files:,} files"
    yield f"<h2>{kind.capitalize()}: quality over rate, means of {count}</h2>"
    colors = {name: number for number, name in enumerate(dict.fromkeys(row["codec"] for row in rows))}
    yield legend(colors) + '<div class="plots">'
    for panel in panels_of(rows):
        yield plot(
            {name: panel.dots(means, name) for name in colors},
            x_label=panel.rate_label,
            y_label=panel.label,
            colors=colors,
            log_x=True,
            similarity=panel.figure.similarity,
        )
    yield "</div>"
    if differences:
        yield "<h3>BD-rate, %</h3>"
        columns = {"codec": "codec", "against": "against", "files": "files"}
        yield table(columns | {f.key: f"by {f.title}" for f in figures}, differences)
        yield paragraph(BD_RATE, "note")
    yield "<h3>Means</h3>"
    size = {
        "same_bytes_as": "at the bytes of",
        "files": "files",
        "q": "q",
        "bytes": "bytes",
        rate: RATES[rate],
    }
    columns = {"codec": "codec"} | size | titles | SPEEDS | COUNTS
    yield f'<div class="scroll">{table(columns, [_plain(mean) for mean in means])}</div>'
    yield _explanations(figures, means)
    if gallery is not None:
        yield from _exhibits(kind, gallery, files)
    yield from _files(rows, rate, titles)


def _plain(row: Row) -> Row:
    """Write the operating point as text, and leave out counts of no files."""
    shown = {name: None if name in COUNTS and not value else value for name, value in row.items()}
    return shown | {"q": None if row["q"] is None else f"{row['q']:g}"}


def _explanations(figures: Sequence[Figure], means: Sequence[Row]) -> str:
    there = {name for mean in means for name, value in mean.items() if value}
    lines = [(f.title, f.meaning) for f in figures if f.key in there]
    titles = RATES | SPEEDS | COUNTS
    lines += [(titles[name], meaning) for name, meaning in OTHERS.items() if name in there and name in titles]
    items = "".join(f"<dt>{escape(title)}</dt><dd>{escape(meaning)}</dd>" for title, meaning in lines)
    return f"<details><summary>What the columns say</summary><dl>{items}</dl></details>"


def _exhibits(kind: str, gallery: Gallery, files: int) -> Iterator[str]:
    """Yield the worst files, as many as MAX_BYTES allows."""
    worst = gallery.worst(kind)
    ends = accumulate(exhibit.size for exhibit in worst)
    shown = [exhibit for exhibit, end in zip(worst, ends, strict=True) if end <= MAX_BYTES]
    yield f"<h2>Worst {kind} files first</h2>"
    some = f"{len(shown)} of {files} files are shown, to keep the page small; all are in the table below."
    note = "All files are shown." if len(shown) == files else some
    yield paragraph(note, "note")
    for exhibit in shown:
        yield _exhibit(kind, exhibit)


def _exhibit(kind: str, exhibit: Exhibit) -> str:
    """Return a file with its pictures, or with its spectrograms and players."""
    figures = []
    for view in exhibit.views:
        label, caption = escape(view.label), escape(view.caption)
        source = data_uri("image/png" if view.sound else "image/webp", view.image)
        width, height = view.size
        shown = f'<img src="{source}" width="{width}" height="{height}" loading="lazy" alt="{label}">'
        if view.sound:
            source = data_uri("audio/flac", view.sound)
            shown += f'<audio controls preload="metadata" src="{source}"></audio>'
        figures.append(f"<figure>{shown}<figcaption><b>{label}</b> {caption}</figcaption></figure>")
    views = "\n".join(figures)
    if kind == "image":
        views = f'<div class="views pictures">{views}</div>'
        views = f"<details open><summary>side by side</summary>{views}</details>"
    else:
        views = f'<div class="views sounds">{views}</div>'
    head = f"<h3>{escape(exhibit.file)}</h3>{paragraph(exhibit.part, 'note')}"
    return f'<section class="file">{head}{views}</section>'


def _files(rows: Sequence[Row], rate: str, titles: dict[str, str]) -> Iterator[str]:
    """Yield the table of all files: those that ours did worst on first, the rows of a file together."""
    worst: dict[str, float] = {}
    for row in rows:
        if not baselines.known(row["codec"]):
            worst[row["file"]] = max(badness(row), worst.get(row["file"], -math.inf))
    ordered = sorted(rows, key=lambda row: worst.get(row["file"], -math.inf), reverse=True)
    yield "<h2>All files, worst first</h2>"
    if len(ordered) > MAX_ROWS:
        yield paragraph(f"The first {MAX_ROWS:,} of {len(ordered):,} rows; -o FILE.csv writes all.", "note")
    seconds = {"encode_seconds": "encode s", "decode_seconds": "decode s"}
    first = {"file": "file", "codec": "codec", "q": "q", "same_bytes_as": "at the bytes of", "bytes": "bytes"}
    columns = first | {rate: RATES[rate]} | titles | seconds
    shown = table(columns, [_plain(row) for row in ordered[:MAX_ROWS]], sort=True)
    yield f'<div class="scroll">{shown}</div>'
