"""Everything that can go wrong, as one tree.

VqcodecError                    exit code 1, `message` + `hint`
├── MediaError                  a picture or sound that cannot be read, or written
├── BitstreamError              a .vqc that cannot be decoded
│   ├── NotABitstreamError      other magic bytes
│   ├── VersionError            made by a newer program
│   ├── DamagedError            truncated, checksum wrong, or lying about itself
│   └── LimitError              asks for more than the limits allow
├── ModelError                  weights that are absent, or are not the ones a bitstream needs
├── TargetError                 a size, rate or quality that no operating point reaches
├── TrainingError               too little data, NaN, out of memory
└── UsageError                  exit code 2: options that contradict each other or name nothing

And of warnings:

VqcodecWarning
├── MediaWarning                something of the input was reduced, converted or left out
└── DamageWarning               salvage: something of the bitstream was filled in
"""

from __future__ import annotations

import sys
import warnings


class VqcodecError(Exception):
    """Root of the tree.

    Attributes:
        message: what is wrong, in one line, without the file's name.
        hint: what to do about it, in one line; may be empty.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message if not hint else f"{message} ({hint})")
        self.message = message
        self.hint = hint


class MediaError(VqcodecError):
    """A picture or sound that cannot be read, or written."""


class BitstreamError(VqcodecError):
    """A bitstream that cannot be decoded."""


class NotABitstreamError(BitstreamError):
    """The first bytes are not those of a .vqc file."""


class VersionError(BitstreamError):
    """The bitstream was made by a newer program."""


class DamagedError(BitstreamError):
    """Truncated, a checksum is wrong, or a field contradicts another."""


class LimitError(BitstreamError):
    """The header asks for more than the limits allow."""


class ModelError(VqcodecError):
    """Weights that are absent, unreadable, or not the ones a bitstream needs."""


class TargetError(VqcodecError):
    """A size, rate or quality that no operating point reaches."""


class TrainingError(VqcodecError):
    """Too little data, a loss that is not a number, or not enough memory."""


class UsageError(VqcodecError):
    """Options that contradict each other, or name something that does not exist."""

    exit_code = 2


class VqcodecWarning(UserWarning):
    """Root of the warnings."""


class MediaWarning(VqcodecWarning):
    """Something of the input was reduced, converted or left out."""


class DamageWarning(VqcodecWarning):
    """Salvage: something of the bitstream was damaged and has been filled in."""


def warn(message: str, category: type[VqcodecWarning]) -> None:
    """Warn from the line outside this package that called into it, however deep the call came from."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "vqcodec":
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
