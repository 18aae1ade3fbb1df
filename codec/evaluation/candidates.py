"""Choose the models and operating points to measure, and compute figures of their coding."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from .. import media, weights
from ..errors import UsageError
from ..models.base import Model
from ..pipeline import Encoded, ladder

Row = dict[str, Any]
Source = str | os.PathLike[str]


class Measures(Protocol):
    """Interface of the modules that measure the files of one medium: `image`, `audio`."""

    @property
    def COLUMNS(self) -> tuple[str, ...]:  # noqa: N802
        """Keys of a row."""

    @property
    def MEANS(self) -> tuple[str, ...]:  # noqa: N802
        """Keys of a row of the summary."""

    @property
    def SUFFIX(self) -> str:  # noqa: N802
        """Suffix of saved reconstructions."""

    def count(self, candidates: Sequence[Candidate], against: Sequence[str], *, sweep: bool) -> int:
        """Return the number of rows of one file."""

    def rows(
        self,
        original: Any,  # an Image or an Audio, by the medium
        candidates: Sequence[Candidate],
        against: Sequence[str],
        *,
        effort: int,
        device: str,
        sweep: bool,
    ) -> Iterator[Measured]:
        """Yield what was measured of one file ("file" of the rows is None)."""

    def group(self, row: Row) -> tuple[object, ...]:
        """Return the key of the group of rows that share a mean."""

    def mean_row(self, rows: Sequence[Row]) -> Row:
        """Return the mean of rows of one codec at one operating point."""


class Measured(NamedTuple):
    """A row, and what it was measured on.

    Attributes:
        row: its figures.
        decoded: the reconstruction, or a function that makes it: of another codec at our bytes, that of its
            largest file within them.
        ours: whether it is of a model of ours.
    """

    row: Row
    decoded: media.Image | media.Audio | Callable[[], media.Image]
    ours: bool = False

    def reconstruction(self) -> media.Image | media.Audio:
        """Return the reconstruction."""
        return self.decoded() if callable(self.decoded) else self.decoded


class Candidate(NamedTuple):
    """A model at an operating point.

    Attributes:
        model: as given; None: the default of the medium.
        label: its name in tables.
        quality: of the operating point; None: the only one.
    """

    model: Source | None
    label: str
    quality: float | None


def choose(
    model: Source | Sequence[Source] | None,
    quality: float | Sequence[float] | None,
    device: str,
    mediums: Iterable[str],
) -> dict[str, list[Candidate]]:
    """Choose the models and operating points of each medium; models are loaded here, outside of timings.

    Raises:
        UsageError: no such model or quality, or no model for one of the media.

    Warns:
        VqcodecWarning: a model does not have a quality, as in `ladder.offered`; each of its own is measured
            once.
    """
    specs = many(model)
    found: dict[str, list[Candidate]] = {medium: [] for medium in mediums}
    pairs: list[tuple[Source | None, Model]] = [(spec, weights.load(spec, device)) for spec in specs]
    if not specs:
        pairs = [(None, weights.load(weights.DEFAULTS[medium], device)) for medium in found]
    names = [loaded.card.name for _, loaded in pairs]
    for spec, loaded in pairs:
        label = str(spec) if names.count(loaded.card.name) > 1 else loaded.card.name
        points = weights.operating_points(loaded.card.to_json())
        asked = dict.fromkeys(ladder.offered(loaded, value) for value in many(quality))
        wanted: list[float | None] = [*asked] or [point["quality"] for point in points] or [None]
        if loaded.medium not in found:
            raise UsageError(f"{label} is for {loaded.medium}, and there are no such files", "leave it out")
        found[loaded.medium] += [Candidate(spec, label, value) for value in wanted]
    for medium, chosen in found.items():
        if not chosen:
            raise UsageError(
                f"no model for the {medium} among the files", "name one with another -m, or leave out -m"
            )
    return found


def point_text(row: Row) -> str:
    """Format the operating point of a row for names: "q3"."""
    return "q-" if row["q"] is None else f"q{row['q']:g}"


CODE_FIGURES = ("bits_per_code", "saving", "gap")
"""Keys of `code_figures`."""


def code_figures(encoded: Encoded) -> Row:
    """Measure the entropy coding of a bitstream.

    Returns:
        "bits_per_code" of all chunks; "saving", as a share of the bits of packed codes; "gap", the excess
        over the cross-entropy of the codes, as a share of it. None without codes.
    """
    bits, estimate = encoded.bits_per_code, encoded.estimate_bits
    if bits is None or not estimate:
        return dict.fromkeys(CODE_FIGURES)
    gap = bits * encoded.count / estimate - 1
    if not (raw := encoded.raw_bits):
        return {"bits_per_code": None, "saving": None, "gap": gap}
    return {"bits_per_code": bits, "saving": 1 - bits * encoded.count / raw, "gap": gap}


def many(value: Any) -> list[Any]:  # a thing of any type
    """List one or several things; None is none."""
    if value is None:
        return []
    return [value] if isinstance(value, str | os.PathLike | int | float) else list(value)
