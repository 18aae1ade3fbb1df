"""TIFF files by hand: any tags, types and directories, for the tests of faults."""

from __future__ import annotations

import struct

import numpy as np

FORMS = {1: "B", 2: "B", 3: "H", 4: "I", 5: "I", 6: "b", 7: "B", 8: "h", 9: "i", 11: "f"}


def tiff(*pages: dict, order: str = "<", inner: dict | None = None) -> bytes:
    """A file of pages: tag -> (type, values); "pixels" are bytes of one strip; `inner` is in a SubIFD."""
    out = bytearray({"<": b"II*\0", ">": b"MM\0*"}[order] + bytes(4))
    inner_at = _page(out, inner, order)[0] if inner is not None else 0
    link = 4
    for number, page in enumerate(pages):
        if inner is not None and number == 0:
            page = page | {330: (4, [inner_at])}
        start, following = _page(out, page, order)
        struct.pack_into(order + "I", out, link, start)
        link = following
    return bytes(out)


def _page(out: bytearray, page: dict, order: str) -> tuple[int, int]:
    page = dict(page)
    pixels = page.pop("pixels", b"")
    if pixels:
        page |= {273: (4, [len(out)]), 279: (4, [len(pixels)])}
        out += pixels + bytes(len(pixels) % 2)
    entries = b""
    for tag in sorted(page):
        kind, values = page[tag]
        packed = (
            bytes(values) if kind in (2, 7) else struct.pack(f"{order}{len(values)}{FORMS[kind]}", *values)
        )
        count = len(values) // 2 if kind == 5 else len(values)
        if len(packed) > 4:
            place = len(out)
            out += packed + bytes(len(packed) % 2)
            packed = struct.pack(order + "I", place)
        entries += struct.pack(order + "HHI", tag, kind, count) + packed.ljust(4, b"\0")
    start = len(out)
    out += struct.pack(order + "H", len(page)) + entries + bytes(4)
    return start, len(out) - 4


def page(
    samples: np.ndarray, *, bits: int = 8, photometric: int | None = None, order: str = "<", **more
) -> dict:
    """Tags of uncompressed samples [H, W, C]; `more` is tN=(type, values)."""
    height, width, channels = samples.shape
    if bits == 16:
        pixels = samples.astype(order + "u2").tobytes()
    elif bits == 12:
        flat = samples.reshape(height, -1, 2).astype(np.uint16)
        a, b = flat[..., 0], flat[..., 1]
        pixels = np.stack([a >> 4, (a & 15) << 4 | b >> 8, b & 255], 2).astype(np.uint8).tobytes()
    elif bits == 4:
        flat = samples.reshape(height, -1, 2).astype(np.uint8)
        pixels = (flat[..., 0] << 4 | flat[..., 1]).tobytes()
    else:
        pixels = samples.tobytes()
    if photometric is None:
        photometric = 1 if channels == 1 else 2
    tags = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [bits] * channels),
        259: (3, [1]),
        262: (3, [photometric]),
        277: (3, [channels]),
        278: (4, [height]),
        "pixels": pixels,
    }
    return tags | {int(name[1:]): value for name, value in more.items()}
