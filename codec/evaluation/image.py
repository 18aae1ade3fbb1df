"""Measure rate, quality and speed of images, vs. other codecs at the same bytes or over their own range."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial

from .. import media, pipeline
from ..transform import hidden
from .baselines.image import BASELINES, QualitySweep
from .candidates import CODE_FIGURES, Candidate, Measured, Row, Source, code_figures, point_text
from .disk import through_file
from .figures import IMAGE, identical, mean, of_image

COLUMNS = (
    "file",
    "codec",
    "q",
    "bytes",
    "bpp",
    *(figure.key for figure in IMAGE),
    "encode_seconds",
    "decode_seconds",
    *CODE_FIGURES,
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
"""Keys of a row."""

MEANS = (
    "codec",
    "q",
    "same_bytes_as",
    "files",
    "bytes",
    "bpp",
    *(figure.key for figure in IMAGE),
    *CODE_FIGURES,
    "estimate_bpp",
    "identical",
    "encode_mps",
    "decode_mps",
    "unmatched",
)
"""Keys of a row of the summary."""

SUFFIX = ".png"
"""Suffix of saved reconstructions."""


def count(candidates: Sequence[Candidate], against: Sequence[str], *, sweep: bool) -> int:
    """Return the number of rows of one file."""
    own = sum(len(BASELINES[name].sweep) for name in against) if sweep else 0
    return len(candidates) * (1 + len(against)) + own


def rows(
    original: media.Image,
    candidates: Sequence[Candidate],
    against: Sequence[str],
    *,
    effort: int,
    device: str,
    sweep: bool,
) -> Iterator[Measured]:
    """Yield what was measured of one file: ours, each followed by others at its bytes; others alone."""
    sweeps = [QualitySweep(original, name) for name in against]
    for candidate in candidates:
        row, _, decoded = measure(
            original, model=candidate.model, quality=candidate.quality, effort=effort, device=device
        )
        row["codec"] = candidate.label
        yield Measured(row, decoded, ours=True)
        for other in sweeps:
            matched = compare(other, row)
            yield Measured(matched, partial(other.decoded, matched["q_low"]))
    for other in sweeps if sweep else []:
        for quality in BASELINES[other.codec].sweep:
            yield Measured(_row(original, other, other.figures(quality)), partial(other.decoded, quality))


def measure(
    original: media.Image,
    *,
    model: Source | None = None,
    quality: float | None = None,
    effort: int = 1,
    device: str = "auto",
) -> tuple[Row, pipeline.Encoded, media.Image]:
    """Measure an image at one operating point: encode, write, read, decode, compare.

    Returns:
        The row (its "file" is None), the encoding, and the decoded image.
    """
    # The bitstream includes the source: the size is that of `vqcodec encode` without metadata.
    shown = hidden.fill(original.samples, original.alpha)
    bare = media.Image(shown, source=original.source)
    started = time.perf_counter()
    encoded = pipeline.encode_file(
        bare, pipeline.EncodeOptions(model=model, quality=quality, effort=effort, device=device)
    )
    encode_seconds = time.perf_counter() - started
    data = through_file(encoded.data)
    started = time.perf_counter()
    decoded = pipeline.decode(data, model=model, device=device)
    decode_seconds = time.perf_counter() - started
    assert isinstance(decoded, media.Image)
    pixels = original.width * original.height
    row = dict.fromkeys(COLUMNS) | {
        "codec": encoded.model,
        "q": encoded.quality,
        "bytes": len(data),
        "bpp": len(data) * 8 / pixels,
        **of_image(shown, decoded.samples, original.alpha),
        "encode_seconds": encode_seconds,
        "decode_seconds": decode_seconds,
        **code_figures(encoded),
        "estimate_bpp": encoded.estimate_bits / pixels,
        "width": original.width,
        "height": original.height,
    }
    return row, encoded, decoded


def compare(sweep: QualitySweep, row: Row) -> Row:
    """Return the row of another codec for the same image at the bytes of one of our rows."""
    found = _row(sweep.original, sweep, sweep.matched_to(row["bytes"]))
    return found | {"file": row["file"], "same_bytes_as": f"{row['codec']} {point_text(row)}"}


def group(row: Row) -> tuple[object, ...]:
    """Return the key of the group of rows that share a mean: codec, operating point, matched row."""
    same = row["same_bytes_as"]
    return row["codec"], None if same else row["q"], same


def mean_row(rows: Sequence[Row]) -> Row:
    """Return the mean of rows of one codec at one operating point.

    `bpp` and the figures of quality are means over images, whatever their size, over those that have one:
    images without error, whose PSNR is infinite, are counted in `identical`.
    `encode_mps`, `decode_mps` are total megapixels over total seconds. `unmatched` counts images for which a
    codec has no files around our size.
    """
    megapixels = sum(row["width"] * row["height"] for row in rows) / 1e6
    first, same = rows[0], rows[0]["same_bytes_as"]
    return dict.fromkeys(MEANS) | {
        "codec": first["codec"],
        "q": None if same else first["q"],
        "same_bytes_as": same,
        "files": len(rows),
        "bytes": sum(row["bytes"] for row in rows),
        **{
            name: mean(row[name] for row in rows)
            for name in ("bpp", *(figure.key for figure in IMAGE), *CODE_FIGURES, "estimate_bpp")
        },
        "identical": identical(rows, "psnr_db"),
        "encode_mps": megapixels / max(sum(row["encode_seconds"] for row in rows), 1e-9),
        "decode_mps": megapixels / max(sum(row["decode_seconds"] for row in rows), 1e-9),
        "unmatched": sum(row["matched"] is False for row in rows),
    }


def _row(original: media.Image, sweep: QualitySweep, figures: Row) -> Row:
    """Return the row of another codec, from the figures of a sweep."""
    width, height = original.width, original.height
    rate = {"codec": sweep.codec, "bpp": figures["bytes"] * 8 / (width * height)}
    return dict.fromkeys(COLUMNS) | figures | rate | {"width": width, "height": height}
