"""Lift Pillow's pixel limit and catch its warnings."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import PIL.Image
from PIL import PngImagePlugin

_lock = threading.Lock()
_inside = 0
_limit: int | None = None
_text_limit = 0

MAX_METADATA = 4 << 20
"""Largest inflated size of a profile or text in a PNG, in bytes; Pillow's own limit is one MiB."""


@contextmanager
def pillow_unlimited(notes: list[str]) -> Iterator[None]:
    """Lift Pillow's pixel limit for a block; `notes` gets each of its warnings once, in one line.

    Our own limit (`max_pixels`) is checked right after a file is opened. Pillow's is a global of the host
    program, so it is restored when the last thread leaves the block.
    """
    global _inside, _limit, _text_limit
    with _lock:
        if _inside == 0:
            _limit, PIL.Image.MAX_IMAGE_PIXELS = PIL.Image.MAX_IMAGE_PIXELS, None
            _text_limit, PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_CHUNK, MAX_METADATA
        _inside += 1
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                PIL.Image.MAX_IMAGE_PIXELS = _limit
                PngImagePlugin.MAX_TEXT_CHUNK = _text_limit
    for warning in caught:
        # Deprecations concern this program, not the user's image.
        if not issubclass(warning.category, DeprecationWarning | PendingDeprecationWarning):
            note = " ".join(str(warning.message).split())
            if note not in notes:
                notes.append(note)
