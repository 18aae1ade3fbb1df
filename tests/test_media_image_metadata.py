"""Orientation and metadata of images: EXIF, XMP, ICC profiles."""

from __future__ import annotations

import io
import struct
import warnings

import numpy as np
import PIL.Image
import pytest
from media_files import (
    SRGB,
    XMP,
    encoded,
    exif_with_everything,
    photo,
    pil,
    smooth,
)
from PIL import ExifTags, ImageCms, ImageOps, PngImagePlugin
from vqcodec import media
from vqcodec.errors import MediaWarning


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_orientation_is_applied_to_the_pixels(format: str, orientation: int) -> None:
    samples = photo(11, 7)
    exif = PIL.Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Make] = "Leica"
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(pil(samples), format, exif=exif, **options)
    expected = np.asarray(ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(data))).convert("RGB"))
    image = media.read_image(data)
    assert np.array_equal(image.samples, expected)
    kept = PIL.Image.Exif()
    kept.load(image.exif)
    assert kept.get(ExifTags.Base.Orientation, 1) == 1
    assert kept[ExifTags.Base.Make] == "Leica"


def test_alpha_turns_with_the_picture() -> None:
    samples = photo(11, 7, 4)
    exif = PIL.Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image = media.read_image(encoded(pil(samples), "PNG", exif=exif))
    assert np.array_equal(image.alpha, np.rot90(samples[:, :, 3], -1))


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_is_kept_byte_for_byte_but_for_position_and_thumbnail(order: str) -> None:
    original = exif_with_everything(6, order, broken=True)
    image = media.read_image(encoded(pil(photo(5, 7)), "PNG", exif=original))
    assert image.samples.shape == (7, 5, 3)
    assert image.exif is not None
    assert b"THUMBNAIL" not in image.exif
    assert struct.pack(order + "I", 7777) not in image.exif
    note = original.index(b"MAKERNOTE")
    assert image.exif[note : note + 20] == b"MAKERNOTE-OF-20-BYTE"
    assert len(image.exif) < len(original) - 100
    kept = PIL.Image.Exif()
    kept.load(image.exif)
    assert dict(kept)[ExifTags.Base.Make] == "Leica Oy"
    assert kept[ExifTags.Base.Orientation] == 1
    assert ExifTags.IFD.GPSInfo not in kept
    assert 282 not in kept
    assert kept.get_ifd(ExifTags.IFD.IFD1) == {}
    inner = kept.get_ifd(ExifTags.IFD.Exif)
    assert (inner[0xA002], inner[0xA003]) == (5, 7)
    assert inner[37500] == b"MAKERNOTE-OF-20-BYTE"


def test_positions_are_kept_when_asked_for() -> None:
    data = encoded(pil(photo(5, 7)), "PNG", exif=exif_with_everything(), pnginfo=itxt(XMP))
    image = media.read_image(data, keep_gps=True)
    kept = PIL.Image.Exif()
    kept.load(image.exif)
    assert float(kept.get_ifd(ExifTags.IFD.GPSInfo)[2][0]) == 48
    assert b"THUMBNAIL" not in image.exif
    assert b"GPSLatitude" in image.xmp


def itxt(xmp: bytes) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", xmp)
    return info


@pytest.mark.parametrize("data", [XMP, b"\xff\xfe" + XMP.decode().encode("utf-16-le"), XMP + bytes(3)])
def test_xmp_loses_position_and_thumbnail_and_follows_the_orientation(data: bytes) -> None:
    exif = PIL.Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image = media.read_image(encoded(pil(photo(5, 7)), "WEBP", xmp=data, exif=exif))
    assert image.xmp is not None
    for gone in (b"GPS", b"Gps", b"THUMBNAIL", b"1111/1", b"2.29", b'Orientation="6"'):
        assert gone not in image.xmp
    for kept in (b'xmp:Rating="4"', b'tiff:Orientation="1"', b'PixelXDimension="5"', b'PixelYDimension="7"'):
        assert kept in image.xmp


@pytest.mark.parametrize("format", ["PNG", "WEBP", "JPEG", "TIFF", "AVIF"])
def test_orientation_of_xmp_alone_turns_nothing_and_is_said(format: str) -> None:
    samples = photo(5, 7)
    options = {"pnginfo": itxt(XMP)} if format == "PNG" else {"xmp": XMP}
    if format == "TIFF":
        options = {"tiffinfo": {700: XMP}}
    with pytest.warns(MediaWarning, match="orientation 6 in XMP alone"):
        image = media.read_image(encoded(pil(samples), format, **options))
    assert image.samples.shape == (5, 7, 3)
    assert b'tiff:Orientation="1"' in image.xmp


@pytest.mark.parametrize("data", [b"<x:a", b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', b"\0\1\2\3" * 9])
def test_broken_xmp_is_left_out_and_said(data: bytes) -> None:
    with pytest.warns(MediaWarning, match="XMP could not be read, left out"):
        image = media.read_image(encoded(pil(photo()), "WEBP", xmp=data))
    assert image.xmp is None


@pytest.mark.parametrize("cut", [4, 9, 30, 70, 100])
def test_cut_and_looping_exif_never_hurts(cut: int) -> None:
    whole = bytearray(exif_with_everything(1))
    whole[8 + 2 + 36 + 8 : 8 + 2 + 36 + 12] = struct.pack("<I", 8)  # the Exif directory is IFD0 again
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MediaWarning)
        image = media.read_image(encoded(pil(photo()), "PNG", exif=bytes(whole[:cut])))
        again = media.read_image(encoded(pil(photo()), "PNG", exif=bytes(whole)))
    assert image.exif is None or b"THUMB" not in image.exif
    assert again.exif is not None


@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_exif_says_nothing_of_how_the_pixels_were_stored(order: str) -> None:
    exif = exif_with_everything(1, order)
    data = encoded(pil(photo(5, 7)), "TIFF", exif=exif, icc_profile=SRGB)
    image = media.read_image(data)
    kept = PIL.Image.Exif()
    kept.load(image.exif)
    assert set(kept) - {ExifTags.Base.Orientation} == {ExifTags.Base.Make, ExifTags.IFD.Exif}
    assert kept.get_ifd(ExifTags.IFD.Exif)[37500] == b"MAKERNOTE-OF-20-BYTE"
    assert image.icc == SRGB


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_goes_into_tiff_byte_for_byte(order: str) -> None:
    exif = exif_with_everything(1, order)
    stream = io.BytesIO()
    media.write_image(media.Image(smooth(), exif=exif), stream, "tiff")
    assert stream.getvalue()[8 : len(exif)] == exif[8:]
    back = PIL.Image.open(stream)
    assert back.getexif().get_ifd(ExifTags.IFD.GPSInfo)[2][2] == pytest.approx(30 / 7777)
    assert np.array_equal(np.asarray(back), smooth())


def test_tiff_into_a_pipe() -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: int) -> int:
            raise io.UnsupportedOperation

    pipe = Pipe()
    media.write_image(media.Image(smooth()), pipe, "tiff")
    assert np.array_equal(media.read_image(pipe.getvalue()).samples, smooth())


def test_a_profile_larger_than_pillow_likes() -> None:
    """Pillow alone calls a PNG with more than one MiB of inflated profile damaged."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    file = io.BytesIO()
    PIL.Image.new("RGB", (4, 4)).save(file, "PNG", icc_profile=profile + bytes(2 << 20))
    assert media.read_image(file.getvalue()).icc is not None


@pytest.mark.parametrize(
    "content",
    [
        b'<r:D xmlns:r="u" xmlns:geo="g" geo:lat="48.8"/>',
        b'<r:D xmlns:r="u" xmlns:x="g" x:FlightGpsLat="48.8"/>',
        b'<r:D xmlns:r="u" xmlns:x="g"><x:latitude>48.8</x:latitude></r:D>',
        b'<r:D xmlns:r="u" xmlns:e="g">'
        b"<e:GPSLatitude><![CDATA[</e:GPSLatitude>]]>48,51.5N</e:GPSLatitude></r:D>",
    ],
)
def test_positions_in_strange_forms_take_the_packet_with_them(content: bytes) -> None:
    file = io.BytesIO()
    PIL.Image.new("RGB", (4, 4)).save(file, "WEBP", xmp=content)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        xmp = media.read_image(file.getvalue()).xmp
    assert xmp is None or not any(part in xmp.lower() for part in (b"48.8", b"48,51"))
    assert xmp is not None or "XMP could not be read, left out" in [str(w.message) for w in caught]
    assert media.read_image(file.getvalue(), keep_gps=True).xmp is not None
