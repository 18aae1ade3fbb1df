"""Which files are measured, of which medium they are, and the way of a bitstream over the disk."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from .. import media
from ..errors import MediaError, UsageError
from ..files import is_special
from .candidates import Source, many

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".gif"}
SOUNDS = {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64"}


def files(sources: Source | Sequence[Source]) -> list[Path]:
    """The files to measure: files as named, folders by the pictures and sounds directly in them, sorted.

    Raises:
        UsageError: a folder without pictures and sounds, or nothing given.
        MediaError: no such file, or a pipe.
    """
    found: list[Path] = []
    for source in many(sources):
        path = Path(source)
        if path.is_dir():
            known = PICTURES | SOUNDS
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in known and p.is_file())
            if not inside:
                raise UsageError(f"no images or sounds in {path}")
            found += inside
        elif is_special(path):
            raise MediaError(f"{path}: a pipe or device can be read only once", "measure a file")
        elif path.exists():
            found.append(path)
        else:
            raise MediaError(f"{path}: no such file")
    if not found:
        raise UsageError("nothing to evaluate", "name a folder or files")
    return found


def medium_of(path: Path) -> str:
    """The medium that the first bytes announce; "image" of a file that cannot be read, as is told later."""
    try:
        with path.open("rb") as file:
            return "audio" if media.sound_format(file.read(16)) else "image"
    except OSError:
        return "image"


def through_file(data: bytes) -> bytes:
    """Bytes as they come back from a real file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "measured.vqc")
        file.write_bytes(data)
        return file.read_bytes()
