"""`vqcodec models`: list the shipped models, or print one model's card."""

from pathlib import Path
from typing import Annotated

import typer

from .batch import Fields
from .command import command
from .console import Console, size_text

EXAMPLES = """\b
Examples:
  vqcodec models
  vqcodec models -m runs/vqvae-image-1/best.safetensors
"""
COLUMNS = {
    "name": "name",
    "medium": "medium",
    "method": "method",
    "quality": "q",
    "bpp": "bpp",
    "psnr_db": "PSNR dB",
    "kbps": "kbit/s",
    "log_mel": "log-mel",
    "parameters": "parameters",
    "size": "file",
    "fingerprint": "weights",
}

MEASURED = ("bpp", "psnr_db", "kbps", "log_mel")
"""Columns of one medium each; omitted if no model has the figure."""


@command()
def models(
    console: Console,
    model: Annotated[
        str | None,
        typer.Option("-m", "--model", metavar="NAME|FILE", help="Print the whole card of one model."),
    ] = None,
) -> None:
    """List the shipped models with their measured rate and quality, or print one model's card."""
    from vqcodec import weights

    if model is not None:
        path = weights.locate(model)
        card = weights.read_json(path)
        console.record(type="model", file=str(path), bytes=path.stat().st_size, **card)
        lines = [*flat(card), ("file", f"{path} ({size_text(path.stat().st_size)})")]
        width = max(len(key) for key, _ in lines)
        for key, text in lines:
            console.out(f"{key.ljust(width)}  {text}".rstrip())
        return
    rows: list[Fields] = []
    for card in weights.shipped():
        size = _file_size(weights.folder() / f"{card['name']}.safetensors")
        console.record(type="model", bytes=size, **card)
        rows += table_rows(card, size)
    if rows:
        absent = {name for name in MEASURED if all(row[name] is None for row in rows)}
        console.table(rows, {name: title for name, title in COLUMNS.items() if name not in absent})
        defaults = (f"{name} ({medium})" for medium, name in weights.DEFAULTS.items())
        console.note(f"default: {', '.join(defaults)}")
    else:
        console.note("no models are shipped with this installation")


def table_rows(card: Fields, size: int | None) -> list[Fields]:
    """Return a row for each operating point of a model, with the figures of its validation files."""
    from vqcodec import weights

    once = {
        **card,
        "size": None if size is None else size_text(size),
        "fingerprint": str(card.get("fingerprint", ""))[:8],
    }
    rows = []
    for point in weights.operating_points(card) or [{}]:
        quality = point.get("quality")
        figures = {name: point.get(name) for name in MEASURED}
        rows.append({**once, "quality": None if quality is None else f"{quality:g}", **figures})
        once = dict.fromkeys(once, "")
    return rows


def flat(value: object, prefix: str = "") -> list[tuple[str, str]]:
    """Flatten nested settings to (dotted name, text), in order."""
    if isinstance(value, dict):
        return [
            pair for key, inner in value.items() for pair in flat(inner, f"{prefix}.{key}" if prefix else key)
        ]
    if isinstance(value, list) and any(isinstance(inner, dict | list) for inner in value):
        return [pair for number, inner in enumerate(value) for pair in flat(inner, f"{prefix}[{number}]")]
    if isinstance(value, list):
        return [(prefix, "; ".join(str(inner) for inner in value))]
    return [(prefix, f"{value:.6g}" if isinstance(value, float) else str(value))]


def _file_size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
