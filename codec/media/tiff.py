"""Write TIFF files: deflated strips after an unchanged EXIF block.

Pillow cannot write EXIF and compression together. An EXIF block is a TIFF file without pixels, so it becomes
the start of the file: all offsets in it stay valid, and only a new first directory is appended, with its
entries and those of the pixels. Nothing larger than a strip is held in memory.
"""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

import numpy as np

from ..errors import MediaError
from .metadata import CARRIED_ELSEWHERE, EXIF_PREFIX, STRUCTURAL, byte_order, entry_offsets

_STRIP_BYTES = 1 << 18
_SHORT, _LONG, _UNDEFINED, _BYTE = 3, 4, 7, 1
_LEVEL = 6


def write_tiff(
    target: BinaryIO,
    samples: np.ndarray,
    alpha: np.ndarray | None,
    icc: bytes | None,
    exif: bytes | None,
    xmp: bytes | None,
) -> None:
    """Write a classic TIFF with deflated, horizontally differenced strips.

    Args:
        target: seekable; written from front to back, except the four bytes that point to the directory.
        samples: uint8 [H, W, 1 or 3].
        alpha: uint8 [H, W], stored as unassociated alpha.
        icc: profile.
        exif: TIFF structure, whose byte order the file takes.
        xmp: packet.

    Raises:
        MediaError: the file would exceed 4 GiB.
        ValueError: `exif` is not a TIFF structure.
    """
    height, width, colours = samples.shape
    channels = colours + (alpha is not None)
    head = (exif or b"II*\0\x08\0\0\0").removeprefix(EXIF_PREFIX)
    order = byte_order(head)
    exif_entries = _first_directory(head, order)
    start = target.tell()
    target.write(head + bytes(len(head) % 2))

    rows = max(1, _STRIP_BYTES // (width * channels))
    offsets, sizes = [], []
    for top in range(0, height, rows):
        strip = samples[top : top + rows]
        if alpha is not None:
            strip = np.concatenate([strip, alpha[top : top + rows, :, None]], axis=2)
        difference = np.array(strip, order="C")
        difference[:, 1:] -= strip[:, :-1]
        packed = zlib.compress(difference.data, _LEVEL)
        offsets.append(target.tell() - start)
        sizes.append(len(packed))
        target.write(packed)

    fields: dict[int, tuple[int, list[int] | bytes]] = {
        256: (_LONG, [width]),
        257: (_LONG, [height]),
        258: (_SHORT, [8] * channels),
        259: (_SHORT, [8]),  # deflate
        262: (_SHORT, [1 if colours == 1 else 2]),
        273: (_LONG, offsets),
        277: (_SHORT, [channels]),
        278: (_LONG, [rows]),
        279: (_LONG, sizes),
        284: (_SHORT, [1]),
        317: (_SHORT, [2]),
    }
    if alpha is not None:
        fields[338] = (_SHORT, [2])
    if xmp:
        fields[700] = (_BYTE, xmp)
    if icc:
        fields[34675] = (_UNDEFINED, icc)
    entries = dict(exif_entries)
    for tag, (kind, values) in fields.items():
        count = len(values)
        value = values if isinstance(values, bytes) else _numbers(order, kind, values)
        if len(value) > 4:
            offset = target.tell() - start
            target.write(value + bytes(len(value) % 2))
            value = _numbers(order, _LONG, [offset])
        entries[tag] = struct.pack(order + "HHI", tag, kind, count) + value.ljust(4, b"\0")

    # A directory must begin at an even offset.
    target.write(bytes((target.tell() - start) % 2))
    directory = target.tell() - start
    body = b"".join(entries[tag] for tag in sorted(entries))
    target.write(struct.pack(order + "H", len(entries)) + body + bytes(4))
    end = target.tell()
    target.seek(start + 4)
    target.write(_numbers(order, _LONG, [directory]))
    target.seek(end)


def _numbers(order: str, kind: int, values: list[int]) -> bytes:
    if max(values) >= 1 << 32:
        raise MediaError("TIFF holds 4 GiB at most", "write a PNG")
    return struct.pack(f"{order}{len(values)}{'H' if kind == _SHORT else 'I'}", *values)


def _first_directory(head: bytes, order: str) -> dict[int, bytes]:
    """Read the entries of the first directory, tag -> 12 bytes, without those of pixels, ICC and XMP."""
    (start,) = struct.unpack_from(order + "I", head, 4)
    entries = [head[offset : offset + 12] for offset in entry_offsets(head, order, start)]
    tagged = {struct.unpack_from(order + "H", entry)[0]: entry for entry in entries}
    return {tag: entry for tag, entry in tagged.items() if tag not in STRUCTURAL | CARRIED_ELSEWHERE}
