"""Damage is said: corrupt scans of JPEGs, wrong checksums of PNGs."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from media_files import encoded, photo, pil, png, png_chunk, smooth
from vqcodec import media
from vqcodec.errors import MediaError, MediaWarning

OPTIONS = [
    {},
    {"progressive": True},
    {"subsampling": "4:2:0"},
    {"restart_marker_rows": 1},
    {"optimize": True, "quality": 95},
]


def scan(data: bytes) -> range:
    start = data.index(b"\xff\xda")
    return range(start + 14, len(data) - 2)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_corrupt_scan_is_said(options: dict, channels: int) -> None:
    """djpeg says "Corrupt JPEG data" of each of these."""
    pytest.importorskip("simplejpeg")
    data = encoded(pil(photo(64, 64, channels)), "JPEG", **options)
    place = scan(data)
    middle = place.start + len(place) // 2
    for broken in (
        data[:middle] + b"\xff\xd3" + data[middle + 2 :],  # a restart that is none
        data[:middle] + data[middle + len(place) // 4 :],  # a hole
        data[:middle] + b"\0" * (len(place) // 4) + data[middle + len(place) // 4 :],
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                media.read_image(broken)
            except MediaError:
                continue
        assert any("damaged JPEG" in str(w.message) for w in caught)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.filterwarnings("ignore:CMYK")
def test_a_sound_file_is_not_called_damaged(options: dict, mode: str) -> None:
    for samples in (photo(33, 41), smooth(), np.full((9, 9, 3), 128, np.uint8)):
        media.read_image(encoded(pil(samples).convert(mode), "JPEG", **options))


def test_a_wrong_checksum_of_the_pixels_is_said() -> None:
    data = encoded(pil(photo(8, 8)), "PNG")
    at = data.index(b"IDAT")
    size = int.from_bytes(data[at - 4 : at], "big")
    broken = bytearray(data)
    broken[at + 4 + size] ^= 1
    with pytest.warns(MediaWarning, match="damaged PNG: the checksum"):
        media.read_image(bytes(broken))


@pytest.mark.parametrize("name", [b"tEXt", b"iTXt", b"zTXt", b"gAMA", b"eXIf", b"iCCP", b"tIME", b"vpAg"])
def test_a_wrong_checksum_beside_the_pixels_refuses_nothing(name: bytes) -> None:
    chunk = bytearray(png_chunk(name, b"Title\0some text"))
    chunk[-1] ^= 1
    data = png(2, 2, 8, 2, bytes(range(12)), bytes(chunk))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        image = media.read_image(data)
    assert image.samples.ravel().tolist() == list(range(12))
    known = name not in (b"tIME", b"vpAg")
    assert any("wrong checksum, left out" in str(w.message) for w in caught) == known


def test_damage_that_hides_pixels_is_refused() -> None:
    data = bytearray(png(2, 2, 8, 3, bytes(4), png_chunk(b"PLTE", bytes(6))))
    data[data.index(b"PLTE") + 11] ^= 1
    with pytest.raises(MediaError, match="PNG"):
        media.read_image(bytes(data))
