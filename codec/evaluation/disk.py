"""Find the files to measure and their media, and pass bitstreams through the disk."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from .. import media
from ..errors import MediaError, UsageError
from ..files import is_special
from .candidates import Source, many

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".gif"}
AUDIO_SUFFIXES = {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64"}


def files(sources: Source | Sequence[Source]) -> list[Path]:
    """List the files to measure: named files, and the images and audio directly inside folders, sorted.

    Raises:
        UsageError: a folder without images and audio, or nothing given.
        MediaError: no such file, or a pipe.
    """
    found: list[Path] = []
    for source in many(sources):
        path = Path(source)
        if path.is_dir():
            known = IMAGE_SUFFIXES | AUDIO_SUFFIXES
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in known and p.is_file())
            if not inside:
                raise UsageError(f"no images or audio in {path}", "name the folder that holds them, or files")
            found += inside
        elif is_special(path):
            raise MediaError(f"{path}: a pipe or device can be read only once", "measure a file")
        elif path.exists():
            found.append(path)
        else:
            raise MediaError(f"{path}: no such file", "check the name")
    if not found:
        raise UsageError("nothing to evaluate", "name a folder or files")
    return found


def medium_of(path: Path) -> str:
    """Return the medium by the first bytes; "image" for an unreadable file, whose error is reported later."""
    try:
        with path.open("rb") as file:
            return "audio" if media.sound_format(file.read(16)) else "image"
    except OSError:
        return "image"


def through_file(data: bytes) -> bytes:
    """Write bytes to a real file, and read them back."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "measured.vqc")
        file.write_bytes(data)
        return file.read_bytes()
