"""What is measured: models at their operating points, and rows of figures."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from .. import weights
from ..errors import UsageError
from ..pipeline import MEDIA

Row = dict[str, Any]
Source = str | os.PathLike[str]


class Point(NamedTuple):
    """A model at an operating point.

    Attributes:
        model: as it was given; None: the default of the medium.
        label: what it is called in tables.
        quality: the operating point; None: of a model that has one.
    """

    model: Source | None
    label: str
    quality: float | None


def choose(
    model: Source | Sequence[Source] | None,
    quality: float | Sequence[float] | None,
    device: str,
    media: Iterable[str],
) -> dict[str, list[Point]]:
    """Medium -> what to measure on its files; loads the models, so that no clock does.

    Raises:
        UsageError: no such model, or none for one of the media.
    """
    specs = many(model)
    found: dict[str, list[Point]] = {medium: [] for medium in media}
    pairs: list[tuple[Source | None, Any]] = [(spec, weights.load(spec, device)) for spec in specs]
    if not specs:
        pairs = [(None, weights.load(weights.DEFAULTS[medium], device)) for medium in found]
    names = [codec.card["name"] for _, codec in pairs]
    for spec, codec in pairs:
        label = str(spec) if names.count(codec.card["name"]) > 1 else codec.card["name"]
        wanted = many(quality) or [point["quality"] for point in weights.points(codec.card)] or [None]
        if codec.medium not in found:
            raise UsageError(f"{label} is for {MEDIA[codec.medium]}, and there are none", "leave it out")
        found[codec.medium] += [Point(spec, label, value) for value in wanted]
    for medium, chosen in found.items():
        if not chosen:
            raise UsageError(f"no model for the {MEDIA[medium]} among the files", "one more -m, or none")
    return found


def point_text(row: Row) -> str:
    """The operating point of a row in names: "q3"."""
    return "q-" if row["q"] is None else f"q{row['q']:g}"


CODE_FIGURES = ("bits_per_code", "saving", "gap")
"""Keys of `code_figures`."""


def code_figures(encoded: Any) -> Row:
    """What the entropy coding of a bitstream reached.

    Returns:
        "bits_per_code" of all chunks; "saving", the share of the bits of packed codes that it spared; "gap",
        by how much the chunks are larger than the cross-entropy of their codes, as a share. None without
        codes.
    """
    bits, estimate = getattr(encoded, "bits_per_code", None), encoded.estimate_bits
    if bits is None or not estimate:
        return dict.fromkeys(CODE_FIGURES)
    gap = bits * encoded.count / estimate - 1
    if not encoded.codec.codes:
        return {"bits_per_code": None, "saving": None, "gap": gap}
    raw = max(1, (encoded.codec.codes - 1).bit_length())
    return {"bits_per_code": bits, "saving": 1 - bits / raw, "gap": gap}


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the figures that there are."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def many(value: Any) -> list[Any]:
    """One or several things as a list; None is none."""
    if value is None:
        return []
    return [value] if isinstance(value, str | os.PathLike | int | float) else list(value)
