"""One self-contained page: text, tables and pictures in HTML, with its style and script inside.

Everything that is not written here passes `escape`. The page forbids itself every request and every script
but its own (Content-Security-Policy), so that a name that slipped through could do nothing.
"""

from __future__ import annotations

import base64
import hashlib
import html
import math
import os
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy
import PIL
import torch
import vqcodec

_HERE = Path(__file__).parent

Cell = str | float | None
"""Text, a number, or nothing."""


def escape(text: object) -> str:
    """Make text fit for HTML, in elements and in attributes; what cannot be printed is shown as an escape."""
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
    return html.escape("".join(shown))


def document(title: str, parts: Iterable[str]) -> bytes:
    """Return a whole page, of a title in plain text and of parts in HTML."""
    style, script = ((_HERE / name).read_text() for name in ("page.css", "page.js"))
    policy = "default-src 'none'; img-src data:; media-src data:; base-uri 'none'; form-action 'none'"
    policy += f"; style-src {_hash(style)}; script-src {_hash(script)}"
    body = "\n".join(parts)
    page = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
{body}
</main>
<script>{script}</script>
</body>
</html>
"""
    return page.encode()


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph of plain text; `kind` is a class of page.css."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def table(titles: Mapping[str, str], rows: Sequence[Mapping[str, Cell]], *, sort: bool = False) -> str:
    """Return a table.

    Args:
        titles: key of a column -> its title; columns without any value are left out.
        rows: key -> text, number or None.
        sort: whether a click on a title sorts the rows.
    """
    there = [key for key in titles if any(row.get(key) is not None for row in rows)]
    numeric = {key for key in there if not any(isinstance(row.get(key), str) for row in rows)}
    classes = {key: ' class="number"' if key in numeric else "" for key in there}
    head = "".join(f"<th{classes[key]}>{escape(titles[key])}</th>" for key in there)
    lines = (
        "<tr>"
        + "".join(f"<td{classes[key]}{_sorted_by(row.get(key))}>{cell(row.get(key))}</td>" for key in there)
        for row in rows
    )
    body = "\n".join(line + "</tr>" for line in lines)
    kind = ' class="sortable"' if sort else ""
    head = f"<thead><tr>{head}</tr></thead>"
    return f'<div class="wide"><table{kind}>\n{head}\n<tbody>\n{body}\n</tbody></table></div>'


def cell(value: Cell) -> str:
    """Return the HTML of one value."""
    if value is None:
        return ""
    if isinstance(value, str):
        return escape(value)
    if math.isinf(value):
        return "no error" if value > 0 else "-inf"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4f}" if abs(value) < 1 else f"{value:.3f}" if abs(value) < 10 else f"{value:.2f}"


def data_uri(kind: str, data: bytes) -> str:
    """Return the address of data inside the page; `kind` is its media type."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def made_by(command: str, device: str = "") -> str:
    """Return a list of what made a page: command, program, machine, time."""
    versions = {
        "vqcodec": vqcodec.__version__,
        "Python": platform.python_version(),
        "torch": torch.__version__,
    }
    versions |= {"NumPy": numpy.__version__, "Pillow": PIL.__version__}
    cores = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    facts = {
        "command": command,
        "program": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "machine": f"{processor()}, {cores}; {platform.platform()}",
        "device": device,
        "written": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
    }
    items = (f"<dt>{name}</dt><dd>{escape(fact)}</dd>" for name, fact in facts.items() if fact)
    return f"<dl>{''.join(items)}</dl>"


def processor() -> str:
    """Return the name of the processor, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.lower().startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def _sorted_by(value: Cell) -> str:
    """Return the attribute that a cell is sorted by; text is sorted as it is shown."""
    return f' data-value="{value!r}"' if isinstance(value, int | float) else ""


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
