"""The codecs that Pillow and libsndfile offer, made to stand in one table with ours."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import UsageError
from . import audio, image

__all__ = ["audio", "check", "image", "medium"]


def check(names: Sequence[str]) -> None:
    """Refuse what cannot be run here.

    Args:
        names: keys of `image.BASELINES`, or what `audio.parse` reads.

    Raises:
        UsageError: an unknown name, a rate that a codec has not, or a codec that this build has not.
    """
    for name in names:
        if name in image.BASELINES:
            image.check(name)
        elif name.partition(":")[0] in audio.BASELINES:
            audio.check(name)
        else:
            known = ", ".join([*image.BASELINES, *audio.BASELINES])
            raise UsageError(f"unknown codec '{name}'", f"one of {known}")


def medium(name: str) -> str:
    """Of a name that passed `check`: "image" or "audio"."""
    return "image" if name in image.BASELINES else "audio"
