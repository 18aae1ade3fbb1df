"""Collect the worst files while they are measured: pictures and sounds that a report shows.

A million files may pass: no more than `files` of each medium are kept, as they stand in the page.
"""

from __future__ import annotations

import heapq
import io
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import PIL.Image
import soundfile
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray

from ... import media
from ...metrics import spectra
from ...transform import hidden
from ..candidates import Candidate, Measured, Row, point_text
from ..figures import finite, of_medium

WINDOW = 768, 512
"""Longer and shorter side of the part of a large image that is shown, in pixels."""

SECONDS = 10
"""Length of the part of audio that is shown."""

RANKING = ("ssimulacra2", "psnr_db", "log_mel")
"""Figures that files are ordered by: the first one that a file has."""

BLOCK = 16
"""Side of the squares whose error decides which part of an image is shown, in pixels."""


_Shown = tuple[bytes, tuple[int, int], bytes | None]
"""An image, its width and height, and a sound, as in a `View`."""


@dataclass(frozen=True)
class View:
    """An original or a reconstruction.

    Attributes:
        label: which it is.
        caption: size and figures.
        image: WebP, the picture; or PNG, the spectrogram of a sound.
        size: of the image, width and height in pixels.
        sound: FLAC, or None.
    """

    label: str
    caption: str
    image: bytes
    size: tuple[int, int]
    sound: bytes | None = None


@dataclass(frozen=True)
class Exhibit:
    """A file, and what became of it.

    Attributes:
        file: its name.
        row: ours, which it is judged by.
        part: which part of it is shown.
        views: the original, ours, other codecs.
    """

    file: str
    row: Row
    part: str
    views: tuple[View, ...]

    @property
    def size(self) -> int:
        """Return the bytes of all views."""
        return sum(len(view.image) + len(view.sound or b"") for view in self.views)


@dataclass
class Gallery:
    """The files of each medium that our first model did worst on.

    Attributes:
        files: how many are kept of each medium.
    """

    files: int = 12
    _heaps: dict[str, list[tuple[float, int, Exhibit]]] = field(default_factory=dict)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def worst(self, medium: str) -> list[Exhibit]:
        """Return the files of "image" or "audio" that were kept, worst first."""
        return [
            exhibit
            for _, _, exhibit in sorted(self._heaps.get(medium, []), key=lambda entry: entry[:2])[::-1]
        ]

    def add(self, file: str, original: media.Image | media.Audio, views: Sequence[Measured]) -> None:
        """Keep a file if it is among the worst.

        Args:
            file: its name.
            original: as it was read.
            views: what was measured of it, as `Selection` chose it; the first one is ours.
        """
        kind, show = _SHOWN_BY[type(original)]
        heap, bad = self._heaps.setdefault(kind, []), badness(views[0].row)
        if len(heap) == self.files and bad <= heap[0][0]:
            return
        part, shown = show(original, [view.reconstruction() for view in views])
        texts = [("original", part.partition(";")[0])]
        texts += [(_label(view.row), _caption(view.row)) for view in views]
        made = [
            View(*text, image, size, sound) for text, (image, size, sound) in zip(texts, shown, strict=True)
        ]
        entry = (bad, next(self._numbers), Exhibit(file, views[0].row, part, tuple(made)))
        (heapq.heappush if len(heap) < self.files else heapq.heappushpop)(heap, entry)


class Selection:
    """Choose what is shown of a file: the middle point of each model, others at the nearest bytes.

    Args:
        candidates: of the medium, in the order in which they are measured.
    """

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self._coming = iter(candidates)
        by_model: dict[str, list[Candidate]] = {}
        for candidate in candidates:
            by_model.setdefault(candidate.label, []).append(candidate)
        self._middle = {points[len(points) // 2] for points in by_model.values()}
        self._ours: list[Measured] = []
        self._others: dict[str, list[Measured]] = {}

    def add(self, measured: Measured) -> None:
        """Take what was measured next."""
        if not measured.ours:
            self._others.setdefault(measured.row["codec"], []).append(measured)
        elif next(self._coming) in self._middle:
            self._ours.append(measured)

    def chosen(self) -> list[Measured]:
        """Return what to show, ours first."""
        size = self._ours[0].row["bytes"]
        near = [min(found, key=lambda m: abs(m.row["bytes"] - size)) for found in self._others.values()]
        return [*self._ours, *near]


def badness(row: Row) -> float:
    """Return how bad a row is by the first of `RANKING` that it has; minus infinity without error."""
    by_key = {figure.key: figure for figure in of_medium(row)}
    ranked = (by_key[key] for key in RANKING if key in by_key and finite([row[key]]))
    return next((-figure.better * float(row[figure.key]) for figure in ranked), -math.inf)


def _label(row: Row) -> str:
    """Return the name of a codec; of one at our bytes, its operating point has no meaning."""
    return str(row["codec"]) if row.get("same_bytes_as") else f"{row['codec']} {point_text(row)}"


def _caption(row: Row) -> str:
    """Return the size and the figures of a row; of another codec at our bytes, of the file that is shown."""
    figures = [
        f"{figure.title} {row[figure.key]:.4g}" for figure in of_medium(row) if row[figure.key] is not None
    ]
    if row.get("same_bytes_as"):
        shown = f"file of {row['bytes_low']:,} bytes (q {row['q_low']})"
        figures.insert(0, "at our bytes" if row["matched"] else "its nearest size")
        return f"{shown}; {', '.join(figures)}"
    return f"{row['bytes']:,} bytes; {', '.join(figures)}"


def _pictures(original: media.Image, decoded: Sequence[media.Image]) -> tuple[str, list[_Shown]]:
    """Return which part of an image is shown, and that part of the original and of each reconstruction."""
    shown = hidden.fill(original.samples, original.alpha)
    top, left, height, width = _window(shown, decoded[0].samples)
    part = f"{original.width} x {original.height} pixels"
    if (height, width) != shown.shape[:2]:
        part += f"; shown are {width} x {height} of them at {left}, {top}, where our error is largest"
    found: list[_Shown] = []
    for samples in (shown, *(image.samples for image in decoded)):
        target = io.BytesIO()
        piece = samples[top : top + height, left : left + width]
        PIL.Image.fromarray(piece.squeeze(2) if piece.shape[2] == 1 else piece).save(
            target, "WEBP", lossless=True, quality=50, method=3
        )
        found.append((target.getvalue(), (width, height), None))
    return part, found


def _window(original: NDArray[np.uint8], decoded: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Return top, left, height and width of the part of at most WINDOW with the largest squared error."""
    height, width = original.shape[:2]
    sides = WINDOW[::-1] if width >= height else WINDOW
    tall, wide = min(height, sides[0]), min(width, sides[1])
    if (tall, wide) == (height, width):
        return 0, 0, tall, wide
    rows, columns = -(-height // BLOCK), -(-width // BLOCK)
    sums = np.zeros((rows, columns))
    for row in range(rows):
        strip = slice(row * BLOCK, (row + 1) * BLOCK)
        error = np.square(original[strip].astype(np.float32) - decoded[strip]).sum((0, 2))
        sums[row] = np.add.reduceat(error, np.arange(0, width, BLOCK))
    kernel = (min(-(-tall // BLOCK), rows), min(-(-wide // BLOCK), columns))
    totals = F.avg_pool2d(torch.from_numpy(sums)[None, None], kernel, stride=1)[0, 0]
    row, column = divmod(int(totals.argmax()), totals.shape[1])
    return min(row * BLOCK, height - tall), min(column * BLOCK, width - wide), tall, wide


def _sounds(original: media.Audio, decoded: Sequence[media.Audio]) -> tuple[str, list[_Shown]]:
    """Return which part of audio is shown, and its spectrogram and sound, original and reconstructions."""
    rate, count = original.signal_rate, SECONDS * original.signal_rate
    part = f"{original.seconds:.1f} seconds, at {rate / 1000:g} kHz"
    if original.signal.shape[1] > count:
        part += f"; shown are the first {SECONDS}"
    found: list[_Shown] = []
    for signal in (original.signal[:, :count], *(audio.signal[:, :count] for audio in decoded)):
        sound, image = io.BytesIO(), io.BytesIO()
        # FLAC has at most eight channels.
        soundfile.write(sound, np.clip(signal[:2].T, -1, 1), rate, format="FLAC", subtype="PCM_16")
        pixels = spectra.picture(signal[0], rate)
        PIL.Image.fromarray(pixels).save(image, "PNG", optimize=True)
        found.append((image.getvalue(), (pixels.shape[1], pixels.shape[0]), sound.getvalue()))
    return part, found


_SHOWN_BY: dict[type, tuple[str, Callable[[Any, Sequence[Any]], tuple[str, list[_Shown]]]]] = {
    media.Image: ("image", _pictures),
    media.Audio: ("audio", _sounds),
}
