"""Folders and tar files -> random crops and segments for training, whole files for validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from torch import Tensor

from ...errors import TrainingError
from . import arrays, audio, image
from .arrays import Pictures, binarised
from .audio import Clips
from .augmentation import Augmentation
from .degradation import Degradation
from .files import MEMORY, SPLIT, START, WINDOWS, Entry, describe, entries, split
from .image import Images
from .prefetch import Prefetcher

__all__ = [
    "SPLIT",
    "START",
    "WINDOWS",
    "Augmentation",
    "Clips",
    "Degradation",
    "Dataset",
    "Entry",
    "Images",
    "Pictures",
    "Prefetcher",
    "augmented",
    "binarised",
    "describe",
    "entries",
    "load",
    "load_split",
    "split",
]


class Dataset(Protocol):
    """Decoded files of one medium, held in memory.

    Attributes:
        arrays: images uint8 [H, W, 3], or audio float32 [N].
        names: of the file that each came from.
        skipped: "name: why" of every file that could not be read.
    """

    @property
    def arrays(self) -> list[np.ndarray]: ...  # noqa: D102
    @property
    def names(self) -> list[str]: ...  # noqa: D102
    @property
    def skipped(self) -> list[str]: ...  # noqa: D102

    def __len__(self) -> int: ...

    def batch(self, step: int, *, seed: int, size: int, crop: float) -> Tensor:
        """Draw random crops, a function of the arguments alone."""


class _Loader(Protocol):
    def __call__(
        self,
        files: Sequence[Entry],
        *,
        seed: int,
        memory: int,
        whole: bool,
        skipped: list[str] | None,
        rate: int,
        multiple: int,
    ) -> Dataset: ...


LOADERS: dict[str, _Loader] = {"image": image.load, "audio": audio.load}
"""Medium -> what decodes its files."""


def load(
    files: Sequence[Entry],
    medium: str = "image",
    *,
    seed: int = 0,
    memory: int = MEMORY,
    whole: bool = False,
    skipped: list[str] | None = None,
    rate: int = 16_000,
    multiple: int = 64,
) -> Dataset:
    """Decode the files of one medium.

    Args:
        files: what to read; files of another kind, and broken ones, are listed in `skipped`.
        medium: "image" gives `Images`, or `Pictures` of files that hold sets of them, "audio" `Clips`.
        seed: chooses the windows of large files.
        memory: bytes of decoded samples that may be held.
        whole: keep files in one piece (validation), larger ones their middle as far as memory allows.
        skipped: the list to add unreadable files to, where there is one already.
        rate: samples a second that audio is brought to.
        multiple: what the length of segments of audio is a multiple of.

    Raises:
        TrainingError: no file could be read.
    """
    if medium == "image" and any(arrays.is_set(file) for file in files):
        return arrays.load(files)
    return LOADERS[medium](
        files, seed=seed, memory=memory, whole=whole, skipped=skipped, rate=rate, multiple=multiple
    )


def load_split(
    files: Sequence[Entry],
    fraction: float,
    seed: int,
    medium: str = "image",
    *,
    rate: int = 16_000,
    multiple: int = 64,
) -> tuple[Dataset, Dataset]:
    """Decode files as (training, validation); where no file held out can be read, others are.

    Of sets of pictures, pictures are held out instead of files.

    Args:
        files: two at least, or a set of pictures.
        fraction: share of them that is held out.
        seed: chooses which.
        medium: as in `load`.
        rate: as in `load`.
        multiple: as in `load`.

    Raises:
        TrainingError: there is not one readable file for each.
    """
    if medium == "image" and any(arrays.is_set(file) for file in files):
        pictures = arrays.load(files)
        if len(pictures) < 2:
            raise TrainingError("1 picture is too few to train on", "give at least two")
        return pictures.split(fraction, seed)
    if len(files) < 2:
        raise TrainingError(f"{len(files)} files are too few to train on", "give at least two")
    unreadable: list[str] = []
    while True:
        files, chosen = split(files, fraction, seed)
        try:
            held_out = load(chosen, medium, whole=True, skipped=unreadable, rate=rate, multiple=multiple)
        except TrainingError:
            if len(files) < 2:
                raise
            continue
        return load(files, medium, seed=seed, rate=rate, multiple=multiple), held_out


def augmented(
    data: Dataset, held_out: Dataset, degradation: Degradation, augmentation: Augmentation
) -> tuple[Dataset, Dataset]:
    """Return (training, validation): images will be degraded, those of validation too, audio be augmented."""
    if isinstance(data, Images) and isinstance(held_out, Images):
        return data.degraded(degradation), held_out.degraded_once(degradation)
    if isinstance(data, Clips):
        return data.augmented(augmentation), held_out
    return data, held_out
