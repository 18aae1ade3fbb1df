"""Encoder-side search for better codes than the nearest ones; a decoder needs to know nothing of it."""

from . import search_audio as sounds
from . import search_image as pictures

__all__ = ["EFFORTS", "pictures", "sounds"]

EFFORTS = range(4)
"""How long an encoder searches: 0, not at all, to 3."""
