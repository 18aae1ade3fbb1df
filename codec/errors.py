"""Define the exceptions and warnings, as one tree.

VqcodecError                    exit code 1, `message` + `hint`
├── MediaError                  an image or audio file that cannot be read or written
├── BitstreamError              a .vqc that cannot be decoded
│   ├── NotABitstreamError      other magic bytes
│   ├── VersionError            made by a newer program
│   ├── DamagedError            truncated, a wrong checksum, or contradictory fields
│   └── LimitError              asks for more than the limits allow
├── ModelError                  weights that are missing, unreadable, or not those that a bitstream needs
├── TargetError                 a size, rate or quality that no operating point reaches
├── TrainingError               too little data, NaN, out of memory
└── UsageError                  exit code 2: options that contradict each other or name nothing

The warnings:

VqcodecWarning
├── MediaWarning                a part of the input was reduced, converted or left out
├── DamageWarning               salvage: a damaged part of the bitstream was filled in
└── CollapseWarning             training: nearly all latents of a model carry nothing
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar


class VqcodecError(Exception):
    """Root of the tree.

    Attributes:
        message: what is wrong, in one line, without the file's name.
        hint: what to do about it, as a short sentence in lower case.
    """

    exit_code = 1

    remedy: ClassVar[str] = ""
    """Hint of errors of a class that are raised without one."""

    def __init__(self, message: str, hint: str = "") -> None:
        hint = hint or self.remedy
        super().__init__(message if not hint else f"{message} ({hint})")
        self.message = message
        self.hint = hint


class MediaError(VqcodecError):
    """An image or audio file cannot be read or written."""


class BitstreamError(VqcodecError):
    """A bitstream cannot be decoded."""


class NotABitstreamError(BitstreamError):
    """The first bytes are not those of a .vqc file."""


class VersionError(BitstreamError):
    """The bitstream was made by a newer program."""


class DamagedError(BitstreamError):
    """A bitstream is truncated, has a wrong checksum, or contradicts itself."""

    remedy = "copy the file again, or encode the original again"


class LimitError(BitstreamError):
    """The header asks for more than the limits allow."""

    remedy = "the format has no larger ones: encode it in parts, or copy the file again"


class ModelError(VqcodecError):
    """Weights are missing, unreadable, or not those that a bitstream needs."""

    remedy = "copy the weights file again"


class TargetError(VqcodecError):
    """No operating point reaches the size, rate or quality."""


class TrainingError(VqcodecError):
    """Training failed: too little data, a loss that is not a number, or not enough memory."""


class UsageError(VqcodecError):
    """Options contradict each other, or name something that does not exist."""

    exit_code = 2


class VqcodecWarning(UserWarning):
    """Root of the warnings."""


class MediaWarning(VqcodecWarning):
    """A part of the input was reduced, converted or left out."""


class DamageWarning(VqcodecWarning):
    """Salvage: a damaged part of the bitstream was filled in."""


class FidelityWarning(VqcodecWarning):
    """Audio decodes far too loud or too soft."""


class CollapseWarning(VqcodecWarning):
    """Training: nearly all latents of a model carry nothing."""


@contextmanager
def confined(part: str, damage: list[str], *, salvage: bool) -> Iterator[None]:
    """Raise DamagedError for a part of a bitstream, or when salvaging list the damage and go on behind.

    A part that needs other weights is an error too, and in salvaging likewise listed.

    Args:
        part: that is decoded inside, as "tile 1 of 2".
        damage: a phrase is appended to it.
        salvage: whether to go on.
    """
    try:
        yield
    except DamagedError as error:
        if not salvage:
            raise DamagedError(f"damaged in {part}", "decode the undamaged part with --salvage") from error
        damage.append(f"damaged in {part}")
    except ModelError as error:
        if not salvage:
            raise
        damage.append(f"{part}: {error.message}")


def warn(message: str, category: type[VqcodecWarning]) -> None:
    """Warn from the line outside this package that called into it, however deep the call came from."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "vqcodec":
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
