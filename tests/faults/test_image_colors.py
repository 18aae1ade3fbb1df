"""Colours told otherwise than by ICC become a profile; HDR is always told; broken profiles are dropped."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import PIL.Image
import pytest
from media_files import SRGB, encoded, photo, pil, png, png_chunk
from PIL import ImageCms
from tiffs import page, tiff
from vqcodec import media
from vqcodec.errors import MediaWarning
from vqcodec.media import color

SRGB_CHRM = struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
P3 = struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)


def shown(icc: bytes, *pixel: int) -> list[int]:
    """What a pixel becomes in sRGB by LittleCMS."""
    picture = PIL.Image.new("RGB" if len(pixel) == 3 else "L", (1, 1), pixel if len(pixel) == 3 else pixel[0])
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    turned = ImageCms.profileToProfile(
        picture, profile, ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC, "RGB"
    )
    return list(turned.getpixel((0, 0)))


def chunked(*chunks: bytes, colour: int = 2) -> bytes:
    return png(2, 2, 8, colour, bytes(range(2 * 2 * (3 if colour == 2 else 1))), *chunks)


def test_gamma_becomes_a_profile() -> None:
    """Linear light 128 / 255 is 188 in sRGB: ImageMagick and browsers say the same of gAMA 1.0."""
    image = media.read_image(chunked(png_chunk(b"gAMA", struct.pack(">I", 100_000))))
    assert shown(image.icc, 128, 128, 128) == pytest.approx([188] * 3, abs=1)
    gray = media.read_image(chunked(png_chunk(b"gAMA", struct.pack(">I", 100_000)), colour=0))
    assert gray.channels == 1
    assert shown(gray.icc, 128)[0] == pytest.approx(188, abs=1)


def test_chromaticities_become_a_profile() -> None:
    """Display P3 (200, 100, 50) is (215, 93, 31) in sRGB (CSS Color 4)."""
    image = media.read_image(chunked(png_chunk(b"gAMA", struct.pack(">I", 45455)), png_chunk(b"cHRM", P3)))
    assert shown(image.icc, 200, 100, 50) == pytest.approx([215, 93, 31], abs=2)


@pytest.mark.parametrize("transfer", [13, 1, 4, 8])
def test_code_points_become_a_profile_and_go_before_others(transfer: int) -> None:
    cicp = png_chunk(b"cICP", bytes([12, transfer, 0, 1]))
    image = media.read_image(chunked(cicp, png_chunk(b"sRGB", b"\0")))
    white = shown(image.icc, 255, 255, 255)
    assert min(white) >= 254
    if transfer == 13:
        assert shown(image.icc, 200, 100, 50) == pytest.approx([215, 93, 31], abs=2)
    if transfer == 8:
        assert shown(image.icc, 128, 128, 128) == pytest.approx([188] * 3, abs=1)


@pytest.mark.parametrize(
    "chunks",
    [
        [(b"sRGB", b"\0"), (b"gAMA", struct.pack(">I", 100_000))],
        [(b"gAMA", struct.pack(">I", 45455))],
        [(b"gAMA", struct.pack(">I", 45455)), (b"cHRM", SRGB_CHRM)],
        [(b"cICP", bytes([1, 13, 0, 1]))],
        [],
    ],
)  # fmt: skip
def test_srgb_needs_no_profile(chunks: list) -> None:
    assert media.read_image(chunked(*(png_chunk(*chunk) for chunk in chunks))).icc is None


@pytest.mark.parametrize(
    ("chunk", "words"),
    [
        ((b"gAMA", bytes(4)), "gAMA could not be read"),
        ((b"cHRM", bytes(32)), "chromaticities that no colours have"),
        ((b"cHRM", P3[:16]), "cHRM could not be read"),
        ((b"cICP", bytes([99, 13, 0, 1])), "no known meaning"),
    ],
)
def test_colours_that_make_no_sense_are_said(chunk: tuple[bytes, bytes], words: str) -> None:
    with pytest.warns(MediaWarning, match=words):
        assert media.read_image(chunked(png_chunk(*chunk))).icc is None


@pytest.mark.parametrize(("code", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_told_and_kept_in_the_profile(code: int, name: str) -> None:
    """BT.2408: diffuse white, 203 nits, is 58 % of PQ and 75 % of HLG."""
    data = chunked(png_chunk(b"cICP", bytes([9, code, 0, 1])))
    with pytest.warns(MediaWarning, match=rf"HDR image \({name}\)"):
        image = media.read_image(data)
    white = round(255 * (0.58 if name == "PQ" else 0.75))
    assert min(shown(image.icc, white, white, white)) >= 250
    assert max(shown(image.icc, white // 2, white // 2, white // 2)) < 130
    # Written and read again, it is still told.
    file = io.BytesIO()
    media.write_image(image, file, "png")
    with pytest.warns(MediaWarning, match=rf"HDR image \({name}\)"):
        assert media.read_image(file.getvalue()).icc == image.icc


def nclx(data: bytes, primaries: int, transfer: int) -> bytes:
    """An AVIF of Pillow's with other code points."""
    at = data.index(b"colrnclx") + 8
    return data[:at] + struct.pack(">HH", primaries, transfer) + data[at + 4 :]


def test_nclx_of_avif_becomes_a_profile() -> None:
    data = encoded(pil(photo(16, 16)), "AVIF")
    assert media.read_image(data).icc is None
    image = media.read_image(nclx(data, 12, 13))
    assert shown(image.icc, 200, 100, 50) == pytest.approx([215, 93, 31], abs=2)
    for code, name in ((16, "PQ"), (18, "HLG")):
        with pytest.warns(MediaWarning, match=rf"HDR image \({name}\)"):
            assert media.read_image(nclx(data, 9, code)).icc is not None


def test_every_code_point_makes_a_profile_that_works() -> None:
    for primaries in color.PRIMARIES:
        for transfer in (1, 4, 5, 7, 8, 9, 10, 13, 16, 17, 18):
            coded = color.Colorimetry.coded(primaries, transfer)
            for channels in (1, 3):
                icc = coded.profile(channels)
                assert icc is None or color.is_sound(icc), (primaries, transfer)


@pytest.mark.parametrize("uncalibrated", [False, True])
def test_adobe_rgb_by_exif_alone_gets_its_profile(uncalibrated: bool) -> None:
    """Adobe RGB (200, 100, 50) is (227, 100, 42) in sRGB by published matrices."""
    exif = PIL.Image.Exif()
    inner = exif.get_ifd(0x8769)
    inner[0xA001] = 0xFFFF if uncalibrated else 2
    if uncalibrated:
        inner[0xA005] = {1: "R03"}
    with pytest.warns(MediaWarning, match="Adobe RGB by EXIF alone"):
        image = media.read_image(encoded(pil(photo()), "JPEG", exif=exif))
    assert shown(image.icc, 200, 100, 50) == pytest.approx([227, 100, 42], abs=3)


def test_colours_of_a_tiff() -> None:
    chromaticities = [68000, 32000, 26500, 69000, 15000, 6000]
    tags = {
        "t318": (5, [31270, 100_000, 32900, 100_000]),
        "t319": (5, [n for value in chromaticities for n in (value, 100_000)]),
    }
    image = media.read_image(tiff(page(photo(4, 4), **tags)))
    assert shown(image.icc, 200, 100, 50) == pytest.approx([215, 93, 31], abs=2)
    linear = [257 * i for i in range(256)]
    image = media.read_image(tiff(page(photo(4, 4), t301=(3, linear * 3))))
    assert shown(image.icc, 128, 128, 128) == pytest.approx([188] * 3, abs=1)


def test_colours_of_a_bmp() -> None:
    samples = photo(2, 4)
    base = encoded(pil(samples), "BMP")
    pixels = base[54:]
    ends = [
        round(v * 2**30) for v in (0.4124, 0.2126, 0.0193, 0.3576, 0.7152, 0.1192, 0.1805, 0.0722, 0.9505)
    ]
    head = struct.pack("<IiiHHIIiiII", 108, 4, 2, 1, 24, 0, len(pixels), 0, 0, 0, 0) + bytes(16) + bytes(4)
    head += struct.pack("<9I", *ends) + struct.pack("<3I", *[65536] * 3)
    data = b"BM" + struct.pack("<IHHI", 14 + len(head) + len(pixels), 0, 0, 14 + len(head)) + head + pixels
    image = media.read_image(data)
    assert np.array_equal(image.samples, samples)
    assert shown(image.icc, 128, 128, 128) == pytest.approx([188] * 3, abs=1)


BROKEN = SRGB[:128] + struct.pack(">I", 0x7FFFFFFF) + SRGB[132:]


@pytest.mark.parametrize("icc", [BROKEN, SRGB[:200], b"not a profile" * 20])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_a_broken_profile_is_dropped_with_a_word(format: str, icc: bytes) -> None:
    with pytest.warns(MediaWarning, match="ICC profile"):
        image = media.read_image(encoded(pil(photo(16, 16)), format, icc_profile=icc))
    assert image.icc is None


def test_a_profile_whose_deflated_data_are_broken_is_dropped() -> None:
    packed = bytearray(zlib.compress(SRGB))
    packed[40] ^= 0xFF
    with pytest.warns(MediaWarning, match="ICC profile"):
        assert media.read_image(chunked(png_chunk(b"iCCP", b"icc\0\0" + bytes(packed)))).icc is None
