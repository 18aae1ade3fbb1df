"""Hold what a file states besides its pixels, as the parser of its format reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO

from .color import Colorimetry
from .opening import Spliced


@dataclass
class FileMetadata:
    """What an image file states besides its pixels, as far as Pillow does not read it.

    Attributes:
        pixels: the stream that Pillow reads.
        exif: EXIF block, or None: what Pillow finds.
        xmp: XMP packet, likewise.
        icc: profile, likewise.
        colorimetry: colours, as stated otherwise than by ICC.
        orientation: of the stored pixels, 1 to 8; None: as EXIF says.
        inverted: whether the samples are negatives.
        visible: left, top, right and bottom of the part that is not transparent; None: all.
        several: whether there are more pictures, pages or frames; None: as Pillow says.
        notes: what was left out or converted, a line each.
        check: looks for damage; returns a line, or nothing. Called once the size is known to be allowed.
    """

    pixels: BinaryIO | Spliced
    exif: bytes | None = None
    xmp: bytes | None = None
    icc: bytes | None = None
    colorimetry: Colorimetry = field(default_factory=Colorimetry)
    orientation: int | None = None
    inverted: bool = False
    visible: tuple[int, int, int, int] | None = None
    several: bool | None = None
    notes: list[str] = field(default_factory=list)
    check: Callable[[], str] = str

    def note(self, text: str) -> None:
        """Add a line once."""
        if text not in self.notes:
            self.notes.append(text)
