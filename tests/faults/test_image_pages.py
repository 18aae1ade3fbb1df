"""The image of a TIFF: not its thumbnail, not a camera's raw samples."""

from __future__ import annotations

import numpy as np
import pytest
from media_files import photo
from tiffs import page, tiff
from vqcodec import media
from vqcodec.errors import MediaError, MediaWarning

SMALL, LARGE = photo(4, 6), photo(16, 24)


@pytest.mark.parametrize("flag", [{"t254": (4, [1])}, {"t255": (3, [2])}, {"t254": (3, [1])}])
def test_a_thumbnail_as_the_first_page_is_passed_over(flag: dict) -> None:
    image = media.read_image(tiff(page(SMALL, **flag), page(LARGE)))
    assert np.array_equal(image.samples, LARGE)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("flag", [{}, {"t254": (4, [1])}])
def test_the_full_size_in_an_inner_directory_is_read(flag: dict, order: str) -> None:
    outer = page(SMALL, t274=(3, [6]), t271=(2, b"Acme\0"), **flag)
    image = media.read_image(tiff(outer, inner=page(LARGE, t254=(4, [0])), order=order))
    assert np.array_equal(image.samples, np.rot90(LARGE, -1))


def test_a_reduced_copy_in_an_inner_directory_changes_nothing() -> None:
    image = media.read_image(tiff(page(SMALL), inner=page(LARGE, t254=(4, [1]))))
    assert np.array_equal(image.samples, SMALL)


def test_pages_are_still_told() -> None:
    with pytest.warns(MediaWarning, match="several pages, only the first"):
        image = media.read_image(tiff(page(SMALL), page(LARGE)))
    assert np.array_equal(image.samples, SMALL)
    with pytest.warns(MediaWarning, match="transparency mask"):
        media.read_image(tiff(page(SMALL), page(SMALL[:, :, :1], t254=(4, [4]))))


RAW = page(LARGE[:, :, :1], photometric=32803)


@pytest.mark.parametrize(
    "data",
    [
        tiff(page(SMALL, t254=(4, [1]), t50706=(1, [1, 4, 0, 0])), inner=RAW),
        tiff(page(SMALL, t254=(4, [1])), inner=RAW),
        tiff(page(SMALL), RAW),
        tiff(page(SMALL), inner=page(LARGE, photometric=34892)),
        tiff(page(SMALL), inner=page(LARGE[:, :, :1], t259=(3, [34713]))),
        b"II*\0\x10\0\0\0CR\2\0" + bytes(40),
        b"IIRO\x08\0\0\0" + bytes(40),
        b"IIU\0\x08\0\0\0" + bytes(40),
        b"FUJIFILMCCD-RAW 0201" + bytes(40),
        b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(40),
    ],
)
def test_raw_files_of_cameras_are_refused_by_name(data: bytes) -> None:
    with pytest.raises(MediaError, match="camera's raw file") as caught:
        media.read_image(data)
    assert "raw converter" in caught.value.hint
