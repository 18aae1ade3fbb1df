"""Choose names of outputs, and find similar ones of inputs.

A known suffix is replaced, and kept where two inputs would share a name.
"""

import os
from collections import defaultdict
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from pathlib import Path, PurePath
from typing import TypeVar

from .remote import RemotePath

P = TypeVar("P", bound=PurePath)

CHECK = "check the name"
"""What to do about a missing file that no other resembles."""


def stem_of(path: P, known: Collection[str]) -> P:
    """Remove the suffix if it is known: "Shot 12.30.45" keeps its ".45", "Shot 12.30.45.png" as well."""
    return path.with_suffix("") if path.suffix.lower() in known else path


def choose(
    places: Sequence[Path], suffixes: Sequence[str], owners: Sequence[str], known: Collection[str]
) -> list[Path]:
    """Choose a name for each output.

    photo.jpg becomes photo.vqc; photo.jpg and photo.png, encoded together, become photo.jpg.vqc and
    photo.png.vqc. Where that is of no help either, the short names are returned.

    Args:
        places: folder of each output and name of its input.
        suffixes: of the outputs.
        owners: who writes each; one owner may have the same name twice.
        known: suffixes of inputs that are replaced.
    """
    pairs = [*zip(places, suffixes, strict=True)]
    short = [append(stem_of(place, known), suffix) for place, suffix in pairs]
    long = [append(place, suffix) for place, suffix in pairs]
    real = {path: real_name(path) for path in {*short, *long}}
    chosen = [*short]
    while True:
        users: defaultdict[str, set[str]] = defaultdict(set)
        for path, owner in zip(chosen, owners, strict=True):
            users[real[path]].add(owner)
        clashes = [number for number, path in enumerate(chosen) if len(users[real[path]]) > 1]
        movable = [number for number in clashes if chosen[number] != long[number]]
        if not movable:
            return short if clashes else chosen
        for number in movable:
            chosen[number] = long[number]


def real_name(path: Path | None) -> str:
    """Return a name that two paths share if they lead to one file; empty for None."""
    if path is None or isinstance(path, RemotePath):
        return "" if path is None else str(path)
    return os.path.normcase(os.path.realpath(path))


def nearest(path: Path) -> str:
    """Return a hint that names the file most similar to a missing one, where there is one."""
    if isinstance(path, RemotePath):  # its folder may hold millions
        return CHECK
    try:
        names = os.listdir(path.parent)
    except OSError:
        return CHECK if path.parent.exists() else f"there is no folder {path.parent}"
    lower = {name.lower(): name for name in names}
    close = get_close_matches(path.name.lower(), lower, n=1, cutoff=0.7)
    return f"is it {path.parent / lower[close[0]]}?" if close else CHECK


def append(path: P, suffix: str) -> P:
    """Add a suffix to a name, behind the one that it has."""
    return path.with_name(path.name + suffix)
