"""What is beside the pixels: profiles in PNG texts, long texts, IPTC, comments, gain maps, videos."""

from __future__ import annotations

import struct
import time
import warnings
import zlib

import numpy as np
import PIL.Image
import pytest
from media_files import SRGB, XMP, encoded, photo, pil, png, png_chunk
from vqcodec import media
from vqcodec.errors import MediaWarning

EXIF = PIL.Image.Exif()
EXIF[274] = 6
EXIF[271] = "Acme"
EXIF = EXIF.tobytes()
PIXELS = bytes(range(3 * 5 * 7))


def raw(kind: str, data: bytes, *, deflated: bool = True) -> bytes:
    """A profile in hexadecimal digits, as ImageMagick writes it."""
    digits = data.hex()
    lines = "\n".join(digits[i : i + 72] for i in range(0, len(digits), 72))
    text = f"\n{kind}\n{len(data):8d}\n{lines}\n".encode()
    keyword = f"Raw profile type {kind}".encode() + b"\0"
    return (
        png_chunk(b"zTXt", keyword + b"\0" + zlib.compress(text))
        if deflated
        else png_chunk(b"tEXt", keyword + text)
    )


@pytest.mark.parametrize("deflated", [False, True])
@pytest.mark.parametrize("kind", ["exif", "APP1", "app1"])
def test_exif_in_a_text_is_kept_and_turns_the_image(kind: str, deflated: bool) -> None:
    data = png(5, 7, 8, 2, PIXELS, raw(kind, b"Exif\0\0" + EXIF.removeprefix(b"Exif\0\0"), deflated=deflated))
    image = media.read_image(data)
    stored = np.frombuffer(PIXELS, np.uint8).reshape(7, 5, 3)
    assert np.array_equal(image.samples, np.rot90(stored, -1))
    kept = PIL.Image.Exif()
    kept.load(image.exif)
    assert kept[271] == "Acme"


@pytest.mark.parametrize("kind", ["xmp", "APP1", "app1"])
def test_xmp_in_a_text_is_kept(kind: str) -> None:
    xmp = XMP.replace(b'Orientation="6"', b'Orientation="1"')
    body = xmp if kind == "xmp" else b"http://ns.adobe.com/xap/1.0/\0" + xmp
    image = media.read_image(png(5, 7, 8, 2, PIXELS, raw(kind, body)))
    assert b'xmp:Rating="4"' in image.xmp
    assert b"GPS" not in image.xmp


def test_a_profile_in_a_text_is_kept_and_iptc_is_said() -> None:
    assert media.read_image(png(5, 7, 8, 2, PIXELS, raw("icc", SRGB))).icc == SRGB
    with pytest.warns(MediaWarning, match="IPTC, left out"):
        media.read_image(png(5, 7, 8, 2, PIXELS, raw("iptc", b"8BIM\x04\x04\0\0\0\0\0\x04abcd")))
    with pytest.warns(MediaWarning, match="could not be read, left out"):
        media.read_image(
            png(5, 7, 8, 2, PIXELS, png_chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 9\nxyz"))
        )


def long_chunk(name: bytes, size: int) -> bytes:
    text = zlib.compress(b"<a>" + b" " * size + b"</a>", 9)
    if name == b"iTXt":
        return png_chunk(name, b"XML:com.adobe.xmp\0\1\0\0\0" + text)
    return png_chunk(name, b"Title\0\0" + text)


@pytest.mark.parametrize("name", [b"zTXt", b"iTXt", b"iCCP"])
@pytest.mark.parametrize("size", [5 << 20, 100 << 20])
def test_long_texts_are_left_out_and_refuse_nothing(name: bytes, size: int) -> None:
    data = png(5, 7, 8, 2, PIXELS, long_chunk(name, size))
    started = time.perf_counter()
    with pytest.warns(MediaWarning, match="of more than 4 MiB when inflated, left out"):
        image = media.read_image(data)
    assert image.samples.tobytes() == PIXELS
    assert image.xmp is None and image.icc is None
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize("name", [b"zTXt", b"iTXt", b"iCCP", b"tEXt"])
def test_texts_that_are_broken_refuse_nothing(name: bytes) -> None:
    for body in (b"", b"no end", b"Title\0\0not deflated", b"Title\0\1\1\0\0x", b"\0\0\0\0"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MediaWarning)
            assert (
                media.read_image(png(5, 7, 8, 2, PIXELS, png_chunk(name, body))).samples.tobytes() == PIXELS
            )


def test_texts_are_named_when_they_are_left_out() -> None:
    texts = [png_chunk(b"tEXt", f"Title{i}\0words".encode()) for i in range(9)]
    with pytest.warns(MediaWarning) as caught:
        media.read_image(png(5, 7, 8, 2, PIXELS, *texts))
    assert [str(w.message) for w in caught] == ["PNG text (Title0, Title1, Title2, ...), left out"]


def segment(marker: int, body: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (segment(0xED, b"Photoshop 3.0\0008BIM\x04\x04\0\0\0\0\0\x04abcd"), "IPTC"),
        (segment(0xED, b"Photoshop 3.0\0008BIM\x03\xed\0\0\0\0\0\x04abcd"), "Photoshop data"),
        (segment(0xFE, b"a comment"), "a comment"),
        (segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + b"A" * 40 + b"<x/>"), "extended XMP"),
        (segment(0xE2, b"urn:iso:std:iso:ts:21496:-1\0"), "an HDR gain map"),
        (
            segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x hdrgm:Version='1.0' xmlns:hdrgm='h'/>"),
            "an HDR gain map",
        ),
    ],
)
def test_what_a_jpeg_has_beside_is_said(extra: bytes, words: str) -> None:
    data = encoded(pil(photo(16, 16)), "JPEG")
    with pytest.warns(MediaWarning, match=f"{words}: left out"):
        media.read_image(data[:2] + extra + data[2:])


@pytest.mark.parametrize(
    ("tail", "words"),
    [
        (b"\0\0\0\x18ftypmp42" + bytes(99), "a video after the image"),
        (b"\0\0\0\x18ftypqt  " + bytes(99), "a video after the image"),
        (encoded(pil(photo()), "JPEG"), "a second image after the first"),
        (b"something else", "14 bytes after the image"),
    ],
)
def test_what_a_jpeg_has_after_is_said(tail: bytes, words: str) -> None:
    data = encoded(pil(photo(16, 16)), "JPEG")
    with pytest.warns(MediaWarning, match=words):
        media.read_image(data + tail)
    media.read_image(data + bytes(100))
