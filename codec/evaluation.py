"""Rate and quality over real files: every figure comes from bytes that were written and decoded again.

What is measured is the pixels: metadata and alpha are left out on every side, and the clock of every codec
runs from samples in memory to bytes in memory and back.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from . import competitors, media, pipeline, weights
from .competitors import Ladder
from .errors import MediaError, UsageError
from .files import atomically
from .metrics import ms_ssim, psnr

Row = dict[str, Any]
Source = str | os.PathLike[str]

COLUMNS = (
    "file",
    "codec",
    "q",
    "bytes",
    "bpp",
    "psnr_db",
    "ms_ssim",
    "encode_seconds",
    "decode_seconds",
    "estimate_bpp",
    "width",
    "height",
    "same_bytes_as",
    "matched",
    "q_low",
    "q_high",
    "bytes_low",
    "bytes_high",
)
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".gif"}


def evaluate(
    sources: Source | Sequence[Source],
    *,
    model: Source | Sequence[Source] | None = None,
    quality: float | Sequence[float] | None = None,
    against: Sequence[str] = (),
    effort: int = 1,
    save_decoded: Source | None = None,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
    on_error: Callable[[Path, Exception], None] | None = None,
) -> list[Row]:
    """Encode pictures to real files, decode those, and measure; other codecs beside, at the same bytes.

    Args:
        sources: files, or folders, of which all pictures directly inside are taken.
        model: names or files of models; None: the default model.
        quality: operating points; None: all points of each model.
        against: codecs of Pillow: "jpeg" (4:2:0, optimised Huffman tables), "webp" (method 4), "avif" (speed
            6, 4:2:0). `competitors.Ladder.at` says what "at the same bytes" is.
        effort: of our encoder, 0 to 3.
        save_decoded: folder for our reconstructions, as STEM.MODEL.qN.png; files of these names are replaced.
        device: where networks run.
        progress: called with (rows done, rows in all).
        on_error: called with a picture that cannot be measured, which is then passed over; None: raise.

    Returns:
        One dict per picture, codec and point, with the keys `COLUMNS`: PSNR in dB, MS-SSIM None for pictures
        under 161 pixels, seconds of one run; q_low to bytes_high are the files that another codec's row
        stands between, and `same_bytes_as` says beside which of ours.

    Raises:
        UsageError: no picture in a folder, an unknown codec in `against`, an unknown model.
        MediaError: a picture that is missing or cannot be read.
    """
    against = _many(against)
    competitors.check(against)
    files = pictures(sources)
    stems = [path.stem for path in files]
    points = _points(model, quality, device)
    per_file, done = len(points) * (1 + len(against)), 0
    rows: list[Row] = []

    def add(row: Row) -> None:
        nonlocal done
        rows.append(row)
        done += 1
        if progress:
            progress(done, len(files) * per_file)

    for index, path in enumerate(files):
        try:
            original = media.read_image(path)
            ladders = [Ladder(original, name) for name in against]
            for spec, label, point in points:
                row, _, decoded = measure(original, model=spec, quality=point, effort=effort, device=device)
                row |= {"file": str(path), "codec": label}
                add(row)
                if save_decoded is not None:
                    stem = path.stem if stems.count(path.stem) == 1 else f"{index:03d}-{path.name}"
                    _save(decoded, Path(save_decoded), f"{stem}.{Path(label).stem}.{_point(row)}.png")
                for ladder in ladders:
                    add(compare(ladder, row))
        except Exception as error:
            if on_error is None:
                raise
            on_error(path, error)
            done = (index + 1) * per_file
    return rows


def measure(
    original: media.Image,
    *,
    model: Source | None = None,
    quality: float | None = None,
    effort: int = 1,
    device: str = "auto",
) -> tuple[Row, pipeline.Encoded, media.Image]:
    """One picture at one point: encode, write, take the size of the file, read, decode, compare.

    Returns:
        The row (its "file" is None), what the encoder gave, and the decoded picture.
    """
    # With its source, which is in the bitstream: the size is that of `vqcodec encode` without metadata.
    picture = media.Image(original.samples, source=original.source)
    started = time.perf_counter()
    encoded = pipeline.encode_file(picture, model=model, quality=quality, effort=effort, device=device)
    encode_seconds = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "picture.vqc")
        file.write_bytes(encoded.data)
        size, data = file.stat().st_size, file.read_bytes()
    started = time.perf_counter()
    decoded = pipeline.decode(data, model=model, device=device)
    decode_seconds = time.perf_counter() - started
    pixels = original.width * original.height
    estimate = getattr(encoded, "estimate_bits", None)
    row = dict.fromkeys(COLUMNS) | {
        "codec": encoded.model,
        "q": encoded.quality,
        "bytes": size,
        "bpp": size * 8 / pixels,
        "psnr_db": psnr(original.samples, decoded.samples),
        "ms_ssim": ms_ssim(original.samples, decoded.samples),
        "encode_seconds": encode_seconds,
        "decode_seconds": decode_seconds,
        "estimate_bpp": None if estimate is None else estimate / pixels,
        "width": original.width,
        "height": original.height,
    }
    return row, encoded, decoded


def compare(ladder: Ladder, row: Row) -> Row:
    """The row of another codec for the same picture at the bytes of one of our rows."""
    found = ladder.at(row["bytes"])
    ours = {name: row[name] for name in ("file", "width", "height")}
    rate = {"codec": ladder.codec, "bpp": found["bytes"] * 8 / (row["width"] * row["height"])}
    return dict.fromkeys(COLUMNS) | ours | found | rate | {"same_bytes_as": f"{row['codec']} {_point(row)}"}


def pictures(sources: Source | Sequence[Source]) -> list[Path]:
    """The files to measure: files as named, folders by the pictures directly in them, sorted.

    Raises:
        UsageError: a folder without pictures, or nothing given.
        MediaError: no such file.
    """
    files: list[Path] = []
    for source in _many(sources):
        path = Path(source)
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
            if not inside:
                raise UsageError(f"no images in {path}")
            files += inside
        elif path.exists():
            files.append(path)
        else:
            raise MediaError(f"{path}: no such file")
    if not files:
        raise UsageError("nothing to evaluate", "name a folder or files")
    return files


def summary(rows: Iterable[Row]) -> list[Row]:
    """One row per codec and point, over the pictures.

    `bpp`, `psnr_db`, `ms_ssim` are means of the pictures' own figures: every picture counts the same whatever
    its size (MS-SSIM over the pictures that have one). `encode_mps`, `decode_mps` are total megapixels over
    total seconds. `unmatched` counts pictures for which a codec had no files around our size.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        same = row["same_bytes_as"]
        groups.setdefault((row["codec"], None if same else row["q"], same), []).append(row)
    result: list[Row] = []
    for (codec, q, same), group in groups.items():
        megapixels = sum(row["width"] * row["height"] for row in group) / 1e6
        means = {name: _mean(group, name) for name in ("bpp", "psnr_db", "ms_ssim", "estimate_bpp")}
        speeds = {
            "encode_mps": megapixels / max(sum(row["encode_seconds"] for row in group), 1e-9),
            "decode_mps": megapixels / max(sum(row["decode_seconds"] for row in group), 1e-9),
        }
        whose = {"codec": codec, "q": q, "same_bytes_as": same, "pictures": len(group)}
        total = {"bytes": sum(row["bytes"] for row in group)}
        unmatched = {"unmatched": sum(row["matched"] is False for row in group)}
        result.append(whose | total | means | speeds | unmatched)
    return result


def write_csv(rows: Sequence[Row], path: Source) -> None:
    """Rows of `evaluate` or `summary` as CSV with a header; None is an empty field, no error is `inf` dB."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, tuple(rows[0]) if rows else COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with atomically(Path(path)) as file:
        file.write(text.getvalue().encode())


def write_json(rows: Sequence[Row], path: Source) -> None:
    """Rows of `evaluate` or `summary` as a JSON list; PSNR without error is null, as JSON has no infinity."""
    finite = [{key: None if value == math.inf else value for key, value in row.items()} for row in rows]
    with atomically(Path(path)) as file:
        file.write((json.dumps(finite, indent=1, allow_nan=False) + "\n").encode())


def plot(rows: Sequence[Row], path: Source) -> None:
    """Rate against PSNR and MS-SSIM: a small dot per picture, a large one per mean, those of a codec joined.

    Args:
        rows: of `evaluate`.
        path: PNG, SVG or PDF, by its suffix.

    Raises:
        UsageError: matplotlib is not installed, or does not write this kind of file.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("plots need matplotlib", "pip install 'vqcodec[plots]'") from error
    panels = [("psnr_db", "PSNR, dB"), ("ms_ssim", "MS-SSIM")]
    panels = [(name, label) for name, label in panels if _dots(rows, None, name)] or panels[:1]
    figure = Figure(figsize=(5.6 * len(panels), 4.6), layout="constrained")
    kind = Path(path).suffix.lstrip(".").lower()
    if kind not in figure.canvas.get_supported_filetypes():
        raise UsageError(f"plots cannot be written as {kind or 'a file without suffix'}", "use .png or .svg")
    means = summary(rows)
    for number, (name, label) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), number + 1)
        for color, codec in enumerate(dict.fromkeys(row["codec"] for row in rows)):
            if dots := _dots(rows, codec, name):
                axes.plot(*dots, ".", markersize=5, alpha=0.35, color=f"C{color}")
                axes.plot(*_dots(means, codec, name), "o-", color=f"C{color}", label=codec)
        axes.set(xlabel="bits per pixel", ylabel=label)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    with atomically(Path(path)) as file:
        figure.savefig(file, format=kind, dpi=150)


def _points(
    model: Source | Sequence[Source] | None, quality: float | Sequence[float] | None, device: str
) -> list[tuple[Source | None, str, float | None]]:
    """(model as given, its name in the table, quality) to measure; loads models, so that no clock does."""
    specs: list[Source | None] = _many(model) or [None]
    cards = [weights.load(spec, device).card for spec in specs]
    names = [card["name"] for card in cards]
    result: list[tuple[Source | None, str, float | None]] = []
    for spec, card in zip(specs, cards, strict=True):
        label = str(spec) if names.count(card["name"]) > 1 else card["name"]
        wanted = _many(quality) or [point["quality"] for point in card.get("points", ())] or [None]
        result += [(spec, label, point) for point in wanted]
    return result


def _point(row: Row) -> str:
    return "q-" if row["q"] is None else f"q{row['q']:g}"


def _mean(rows: Sequence[Row], name: str) -> float | None:
    values = [row[name] for row in rows if row[name] is not None]
    return sum(values) / len(values) if values else None


def _dots(rows: Sequence[Row], codec: str | None, name: str) -> list[tuple[float, ...]]:
    """Rates and values of a codec (None: of all) by rising rate, [] where there are none."""
    chosen = [row for row in rows if codec in (None, row["codec"]) and row[name] is not None]
    return list(
        zip(*sorted((row["bpp"], row[name]) for row in chosen if math.isfinite(row[name])), strict=True)
    )


def _save(image: media.Image, folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    media.write_image(image, folder / name, "png")


def _many(value: Any) -> list[Any]:
    if value is None:
        return []
    return [value] if isinstance(value, str | os.PathLike | int | float) else list(value)
