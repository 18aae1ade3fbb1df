"""Folders and tar files -> random crops and segments for training, whole files for validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...errors import TrainingError
from . import audio as sounds
from . import image as pictures
from .audio import Sounds
from .files import MEMORY, SPLIT, START, WINDOWS, Entry, describe, entries, split
from .image import Pictures
from .prefetch import Ahead

__all__ = [
    "SPLIT",
    "START",
    "WINDOWS",
    "Ahead",
    "Entry",
    "Pictures",
    "Sounds",
    "describe",
    "entries",
    "load",
    "load_split",
    "split",
]

Dataset = Pictures | Sounds


def load(
    files: Sequence[Entry],
    medium: str = "image",
    *,
    seed: int = 0,
    memory: int = MEMORY,
    whole: bool = False,
    skipped: list[str] | None = None,
    **settings: Any,
) -> Any:
    """Decode the files of one medium.

    Args:
        files: what to read; files of another kind, and broken ones, are listed in `skipped`.
        medium: "image" gives `Pictures`, "audio" `Sounds`.
        seed: chooses the windows of large files.
        memory: bytes of decoded samples that may be held.
        whole: keep files in one piece (validation), larger ones their middle as far as memory allows.
        skipped: the list to add unreadable files to, where there is one already.
        settings: of the medium: "rate" of sounds.

    Raises:
        TrainingError: no file could be read.
    """
    loader: Any = {"image": pictures.load, "audio": sounds.load}[medium]
    return loader(files, seed=seed, memory=memory, whole=whole, skipped=skipped, **settings)


def load_split(
    files: Sequence[Entry], fraction: float, seed: int, medium: str = "image", **settings: Any
) -> tuple[Any, Any]:
    """Decode files as (training, validation); where no file held out can be read, others are.

    Args:
        files: two at least.
        fraction: share of them that is held out.
        seed: chooses which.
        medium: as in `load`.
        settings: as in `load`.

    Raises:
        TrainingError: there is not one readable file for each.
    """
    unreadable: list[str] = []
    while True:
        files, chosen = split(files, fraction, seed)
        try:
            held_out = load(chosen, medium, whole=True, skipped=unreadable, **settings)
        except TrainingError:
            if len(files) < 2:
                raise
            continue
        return load(files, medium, seed=seed, **settings), held_out
