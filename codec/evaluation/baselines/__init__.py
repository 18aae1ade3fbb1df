"""Baselines: codecs of Pillow and its plugins, and of libsndfile."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import UsageError
from . import audio, image

__all__ = ["audio", "check", "image", "known", "medium"]


def check(names: Sequence[str]) -> None:
    """Refuse codecs that are not available.

    Args:
        names: keys of `image.BASELINES`, or names as in `audio.parse`.

    Raises:
        UsageError: an unknown name, a rate outside of the codec's range, or a codec missing in this build.
    """
    for name in names:
        if name in image.BASELINES:
            image.check(name)
        elif audio.codec(name) in audio.BASELINES:
            audio.check(name)
        else:
            names = ", ".join([*image.BASELINES, *audio.BASELINES])
            raise UsageError(f"unknown codec '{name}'", f"choose one of {names}")


def known(codec: str) -> bool:
    """Tell whether the codec of a row is one of these."""
    return codec in image.BASELINES or codec in audio.BASELINES


def medium(name: str) -> str:
    """Return the medium of a name that passed `check`: "image" or "audio"."""
    return "image" if name in image.BASELINES else "audio"
