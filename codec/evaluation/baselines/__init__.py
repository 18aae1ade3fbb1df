"""The codecs that Pillow and libsndfile offer, made to stand in one table with ours."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import UsageError
from . import audio as sounds
from . import image as pictures

__all__ = ["check", "medium", "pictures", "sounds"]


def check(names: Sequence[str]) -> None:
    """Refuse what cannot be run here.

    Args:
        names: keys of `pictures.COMPETITORS`, or what `sounds.parse` reads.

    Raises:
        UsageError: an unknown name, a rate that a codec has not, or a codec that this build has not.
    """
    for name in names:
        if name in pictures.COMPETITORS:
            pictures.check(name)
        elif name.partition(":")[0] in sounds.COMPETITORS:
            sounds.check(name)
        else:
            known = ", ".join([*pictures.COMPETITORS, *sounds.COMPETITORS])
            raise UsageError(f"unknown codec '{name}'", f"one of {known}")


def medium(name: str) -> str:
    """Of a name that passed `check`: "image" or "audio"."""
    return "image" if name in pictures.COMPETITORS else "audio"
