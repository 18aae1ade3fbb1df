"""Images for training: random crops; for validation: whole ones."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from ... import media
from ...errors import MediaError, MediaWarning, TrainingError
from ...transform.pixels import to_samples
from ...transform.tiling import extend
from .degradation import Degradation
from .files import MEMORY, WINDOWS, Entry, random_stream

WINDOW = 512
"""Side of the windows, in pixels, that images larger than this are cut into."""

SMALLEST_WINDOW = 64
"""Side that windows keep, however many images share the memory."""


@dataclass(frozen=True)
class Images:
    """Decoded images, or windows of them, held in memory.

    Attributes:
        arrays: uint8 [H, W, 3] each.
        names: of the file that each came from.
        skipped: "name: why" of every file that could not be read.
        degradation: what is done to each crop.
    """

    arrays: list[np.ndarray]
    names: list[str]
    skipped: list[str]
    degradation: Degradation = Degradation()

    def __len__(self) -> int:
        return len(self.arrays)

    def batch(self, step: int, *, seed: int, size: int, crop: float) -> Tensor:
        """Random crops, flipped left to right in half of the cases.

        The result depends on the arguments alone, so that a resumed training sees the same data.

        Args:
            step: number of the batch, or START and more.
            seed: of the training.
            size: crops in the batch.
            crop: side of a crop in pixels; smaller images are extended by their edge.

        Returns:
            float32 [size, 3, crop, crop] in -1..1.
        """
        rng, crop = random_stream(seed, step), int(crop)
        out = np.empty((size, crop, crop, 3), np.uint8)
        for n in range(size):
            image = self.arrays[rng.integers(len(self.arrays))]
            factor = self.degradation.factor(rng)
            height, width = image.shape[:2]
            side = round(crop * factor)
            top = rng.integers(max(height - side, 0) + 1)
            left = rng.integers(max(width - side, 0) + 1)
            piece = self.degradation.apply(image[top : top + side, left : left + side], factor, rng)
            piece = extend(piece[:crop, :crop], crop, crop)
            out[n] = piece[:, ::-1] if rng.random() < 0.5 else piece
        return to_samples(out)

    def degraded(self, degradation: Degradation) -> Images:
        """Return the images, whose crops will be degraded."""
        return replace(self, degradation=degradation)

    def degraded_once(self, degradation: Degradation) -> Images:
        """Return the images degraded, always alike."""
        found = []
        for number, image in enumerate(self.arrays):
            rng = random_stream(0, number)
            found.append(degradation.apply(image, degradation.factor(rng), rng))
        return replace(self, arrays=found)


def load(
    files: Sequence[Entry],
    *,
    seed: int = 0,
    memory: int = MEMORY,
    whole: bool = False,
    skipped: list[str] | None = None,
    rate: int = 0,
    multiple: int = 1,
) -> Images:
    """Decode the images among the files.

    Args:
        files: what to read; files that are no images, and broken ones, are listed in `skipped`.
        seed: chooses the windows of large images.
        memory: bytes of pixels that may be held.
        whole: keep images in one piece (validation), larger ones their middle as far as memory allows.
        skipped: the list to add unreadable files to, where there is one already.
        rate: has no effect.
        multiple: has no effect: the side of a crop is checked before.

    Raises:
        TrainingError: no image could be read.
    """
    del rate, multiple
    images: list[np.ndarray] = []
    names: list[str] = []
    skipped = [] if skipped is None else skipped
    allowance = memory // max(len(files), 1)
    for number, (name, pixels) in enumerate(_decoded(files, skipped)):
        pieces = [_middle(pixels, allowance)] if whole else _windows(pixels, allowance, seed, number)
        images += pieces
        names += [name] * len(pieces)
    if not images:
        why = f": {skipped[0]}" if skipped else ""
        raise TrainingError(
            f"no readable images{why}", "give a folder or tar file with PNG, JPEG, WebP or TIFF files"
        )
    return Images(images, names, skipped)


def _decoded(files: Sequence[Entry], skipped: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    for entry in files:
        try:
            with warnings.catch_warnings():
                # Reduced bit depths and left-out frames do not matter to training.
                warnings.simplefilter("ignore", MediaWarning)
                samples = media.read_image(entry.read()).samples
        except (MediaError, OSError) as error:
            skipped.append(f"{entry.name}: {getattr(error, 'message', error)}")
            continue
        yield entry.name, np.repeat(samples, 3, axis=2) if samples.shape[2] == 1 else samples


def _middle(pixels: np.ndarray, allowance: int) -> np.ndarray:
    """The image itself, or as much of its middle, in its own proportions, as the bytes allow."""
    if pixels.nbytes <= allowance:
        return pixels
    shrink = math.sqrt(allowance / pixels.nbytes)
    height, width = (max(int(side * shrink), min(side, SMALLEST_WINDOW)) for side in pixels.shape[:2])
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width].copy()


def _windows(pixels: np.ndarray, allowance: int, seed: int, number: int) -> list[np.ndarray]:
    """The image itself when it is small, else random windows of it, no more bytes than allowed."""
    height, width = pixels.shape[:2]
    if pixels.nbytes <= min(allowance, 3 * WINDOW * WINDOW):
        return [pixels]
    side = min(max(math.isqrt(allowance // 3), SMALLEST_WINDOW), WINDOW)
    side_y, side_x = min(height, side), min(width, side)
    wanted = -(-height // WINDOW) * -(-width // WINDOW)
    count = max(1, min(wanted, allowance // (3 * side_y * side_x)))
    rng = random_stream(seed, WINDOWS + number)
    windows = []
    for _ in range(count):
        top, left = rng.integers(height - side_y + 1), rng.integers(width - side_x + 1)
        windows.append(pixels[top : top + side_y, left : left + side_x].copy())
    return windows
