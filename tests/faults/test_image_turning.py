"""Orientation: of any type of integers in EXIF; by its own boxes in AVIF; by XMP alone never."""

from __future__ import annotations

import io
import struct

import numpy as np
import PIL.Image
import pytest
from media_files import encoded, photo, pil
from tiffs import page, tiff
from vqcodec import media
from vqcodec.errors import MediaWarning
from vqcodec.media.metadata import clean_exif

TYPES = {
    "BYTE": (1, b"\6\0\0\0"),
    "ASCII": (2, b"6\0\0\0"),
    "SHORT": (3, struct.pack("<HH", 6, 0)),
    "LONG": (4, struct.pack("<I", 6)),
    "SBYTE": (6, b"\6\0\0\0"),
    "UNDEFINED": (7, b"\6\0\0\0"),
    "SSHORT": (8, struct.pack("<hh", 6, 0)),
    "SLONG": (9, struct.pack("<i", 6)),
}


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_any_type_of_integer_turns_the_image(format: str, name: str) -> None:
    """ExifTool calls each of them "Rotate 90 CW"."""
    kind, value = TYPES[name]
    entry = struct.pack("<HHI", 274, kind, 2 if kind == 2 else 1) + value
    exif = b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + entry + bytes(4)
    samples = photo(5, 7)
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(pil(samples), format, exif=b"Exif\0\0" + exif, **options)
    stored = np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGB"))
    image = media.read_image(data)
    assert np.array_equal(image.samples, np.rot90(stored, -1))
    kept = PIL.Image.Exif()
    kept.load(image.exif)
    assert kept[274] == 1


@pytest.mark.parametrize("kind", [1, 3, 4, 8, 9])
@pytest.mark.parametrize("bits", [8, 16])
def test_any_type_turns_a_tiff(bits: int, kind: int) -> None:
    samples = photo(5, 7)
    stored = samples if bits == 8 else samples.astype(np.uint16) * 257
    data = tiff(page(stored, bits=bits, t274=(kind, [6])))
    if bits == 16:
        with pytest.warns(MediaWarning, match="16-bit"):
            image = media.read_image(data)
    else:
        image = media.read_image(data)
    assert np.array_equal(image.samples, np.rot90(samples, -1))


@pytest.mark.parametrize("orientation", [3, 6])
def test_avif_is_turned_by_its_boxes_once(orientation: int) -> None:
    """Pillow writes irot and imir for it; XMP may say anything."""
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" xmlns:tiff="t" tiff:Orientation="8"/>'
    exif = PIL.Image.Exif()
    exif[274] = orientation
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:8, :16] = 255
    image = media.read_image(encoded(pil(stored), "AVIF", exif=exif, xmp=xmp, quality=95))
    expected = np.rot90(stored, -1 if orientation == 6 else 2)
    assert image.samples.shape == expected.shape
    assert np.abs(image.samples.astype(int) - expected).mean() < 9


def test_exif_that_overlaps_or_nests_ends_soon() -> None:
    """Copying takes no more than linear time, and the stack stays small."""
    count = 4000
    entries = b"".join(struct.pack("<HHII", 40000 + i, 7, 40_000, 8) for i in range(count))
    overlapping = b"II*\0\x08\0\0\0" + struct.pack("<H", count) + entries + bytes(4)
    with pytest.raises(ValueError):
        clean_exif(overlapping, 5, 7)
    chain = b"II*\0\x08\0\0\0"
    for number in range(3000):
        chain += struct.pack("<HHHII", 1, 34665, 4, 1, 8 + 14 * (number + 1))
    clean_exif(chain + bytes(40), 5, 7)
