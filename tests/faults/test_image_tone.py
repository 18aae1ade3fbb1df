"""Tone and alpha of TIFF files: negatives, channels beside the colours, what cannot be read."""

from __future__ import annotations

import contextlib
import io
import warnings

import numpy as np
import PIL.Image
import pytest
from media_files import RNG, encoded, photo, pil
from tiffs import page, tiff
from vqcodec import media
from vqcodec.errors import MediaError, MediaWarning

RAMP = np.arange(48, dtype=np.uint16).reshape(4, 12, 1)


@pytest.mark.filterwarnings("ignore::vqcodec.errors.MediaWarning")
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("bits", "highest"), [(16, 65535), (12, 4095), (8, 255), (4, 15)])
def test_min_is_white_is_no_negative(bits: int, highest: int, order: str) -> None:
    """ImageMagick gives 255 for the sample 0 and 0 for the highest one."""
    if bits == 12 and order == ">":
        pytest.skip("Pillow reads 12 bits in one order")
    stored = (RAMP * (highest // 47)).astype(np.uint16) if bits > 4 else RAMP % 16
    stored = stored.astype(np.uint8) if bits == 8 else stored
    image = media.read_image(tiff(page(stored, bits=bits, photometric=0, order=order), order=order))
    expected = 255 - np.floor(stored * 255.0 / highest + 0.5)
    assert image.samples[0, 0, 0] == 255
    assert np.abs(image.samples.astype(int) - expected).max() <= 1
    upright = media.read_image(tiff(page(stored, bits=bits, photometric=1, order=order), order=order))
    assert np.array_equal(255 - upright.samples, image.samples)


@pytest.mark.parametrize("compression", ["group4", "tiff_lzw"])
def test_min_is_white_of_one_bit_stays_right_when_compressed(compression: str) -> None:
    """Pillow's own reading is right here: the patch must not turn it again."""
    picture = pil(photo(16, 16, 1)).convert("1")
    data = encoded(picture, "TIFF", compression=compression, tiffinfo={262: 0})
    expected = np.asarray(PIL.Image.open(io.BytesIO(data)).convert("L"))
    assert np.array_equal(media.read_image(data).samples[:, :, 0], expected)


@pytest.mark.filterwarnings("ignore:16-bit")
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [2, 4])
def test_one_channel_of_no_stated_meaning_is_kept_as_alpha(channels: int, bits: int) -> None:
    if (channels, bits) == (2, 16):
        pytest.skip("Pillow reads no two channels of 16 bits")
    samples = photo(5, 7, channels)
    stored = samples if bits == 8 else samples.astype(np.uint16) * 257
    photometric = 1 if channels == 2 else 2
    with pytest.warns(MediaWarning, match="a channel of no stated meaning, kept as alpha"):
        image = media.read_image(tiff(page(stored, bits=bits, photometric=photometric, t338=(3, [0]))))
    assert np.array_equal(image.alpha, samples[:, :, -1])
    assert np.array_equal(image.samples, samples[:, :, :-1])


@pytest.mark.parametrize(
    ("kinds", "words"), [([0, 0], "2 channels"), ([2, 0], "a channel"), ([1, 0], "a channel")]
)
def test_more_channels_are_left_out_with_a_word(kinds: list[int], words: str) -> None:
    samples = photo(5, 7, 5)
    samples[:, :, 3] = 255
    with pytest.warns(MediaWarning, match=f"{words} beside the colours, left out"):
        image = media.read_image(tiff(page(samples, photometric=2, t338=(3, kinds))))
    assert np.array_equal(image.samples, samples[:, :, :3])


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"t339": (3, [3]), "t258": (3, [32])}, "32-bit float samples"),
        ({"t339": (3, [3]), "t258": (3, [16])}, "16-bit float samples"),
        ({"t339": (3, [2])}, "8-bit signed integer samples"),
        ({"t258": (3, [32])}, "32-bit integer samples"),
        ({"t259": (3, [34887])}, "TIFF compressed by LERC"),
        ({"t259": (3, [34712])}, "TIFF compressed by JPEG 2000"),
        ({"t262": (3, [32845])}, "LogLuv"),
    ],
)
def test_what_cannot_be_read_is_named(tags: dict, words: str) -> None:
    data = tiff(page(np.zeros((4, 4, 1), np.uint8), **tags))
    with pytest.raises(MediaError, match=words) as caught:
        media.read_image(data)
    assert caught.value.hint


def test_hostile_directories_end() -> None:
    """Loops, offsets beyond the end, counts of 4 billion."""
    base = page(photo(3, 3, 3))
    for tags in (
        {330: (4, [8] * 5000)},
        {330: (4, [0xFFFFFFF0])},
        {301: (3, [0] * 3)},
        {318: (5, [1, 0, 1, 0]), 319: (5, [0] * 12)},
        {338: (4, [0xFFFFFFFF])},
    ):
        with warnings.catch_warnings(), contextlib.suppress(MediaError):
            warnings.simplefilter("ignore", MediaWarning)
            assert media.read_image(tiff(base | tags)).samples.shape == (3, 3, 3)
    data = bytearray(tiff(base, base))
    for at in RNG.integers(8, len(data), 300):
        broken = bytearray(data)
        broken[at] ^= 0xFF
        with warnings.catch_warnings(), contextlib.suppress(MediaError):
            warnings.simplefilter("ignore", MediaWarning)
            media.read_image(bytes(broken))
