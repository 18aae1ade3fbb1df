"""HEIC and JPEG XL in, first frames on their canvas, and files that are named as what they are."""

from __future__ import annotations

import io
import sys

import numpy as np
import PIL.Image
import pytest
from media_files import SRGB, encoded, photo, pil, smooth
from vqcodec import media
from vqcodec.errors import MediaError, MediaWarning
from vqcodec.media.boxes import read_boxes


def heic(picture: PIL.Image.Image, **options: object) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif")
    stream = io.BytesIO()
    pillow_heif.from_pillow(picture).save(stream, quality=90, chroma=444, **options)
    return stream.getvalue()


def jxl(picture: PIL.Image.Image, **options: object) -> bytes:
    plugin = pytest.importorskip("pillow_jxl.JpegXLImagePlugin")
    stream = io.BytesIO()
    picture.encoderinfo = {"lossless": True, **options}
    picture.encoderconfig = ()
    plugin._save(picture, stream, "")
    return stream.getvalue()


def test_heic_is_read() -> None:
    exif = PIL.Image.Exif()
    exif[271] = "Acme"
    exif[274] = 6
    image = media.read_image(heic(pil(smooth()), exif=exif.tobytes()))
    assert image.source == "HEIF"
    assert image.samples.shape in ((40, 48, 3), (48, 40, 3))
    turned = smooth() if image.samples.shape[0] == 40 else np.rot90(smooth(), -1)
    assert np.abs(image.samples.astype(int) - turned).mean() < 3
    kept = PIL.Image.Exif()
    kept.load(image.exif)
    assert (kept[271], kept[274]) == ("Acme", 1)


def test_heic_has_alpha_and_colours() -> None:
    samples = np.dstack([smooth(), np.full((40, 48), 255, np.uint8)])
    samples[:20, :, 3] = 0
    image = media.read_image(heic(pil(samples)))
    assert image.alpha is not None and image.alpha[0, 0] == 0 and image.alpha[-1, -1] == 255
    assert media.read_image(heic(pil(smooth()), icc_profile=SRGB)).icc == SRGB


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_jpeg_xl_is_read_exactly(channels: int) -> None:
    samples = photo(24, 32, channels)
    image = media.read_image(jxl(pil(samples)))
    assert image.source == "JXL"
    found = image.samples if image.alpha is None else np.dstack([image.samples, image.alpha])
    assert np.array_equal(found, samples)


@pytest.mark.parametrize(
    ("module", "name", "data"),
    [
        ("pillow_heif", "HEIC", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)),
        ("pillow_heif", "HEIC", b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(40)),
        ("pillow_jxl.JpegXLImagePlugin", "JPEG XL", b"\xff\x0a" + bytes(40)),
        ("pillow_jxl.JpegXLImagePlugin", "JPEG XL", b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40)),
    ],
)
def test_without_the_extra_it_is_named(
    module: str, name: str, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MediaError, match=f"{name} images need an extra") as caught:
        media.read_image(data)
    assert caught.value.hint == "pip install 'vqcodec[formats]'"


def test_nothing_is_registered_with_pillow() -> None:
    media.read_image(heic(pil(smooth())))
    assert "HEIF" not in PIL.Image.OPEN


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "a JPEG 2000 image"),
        (b"\xff\x4f\xff\x51" + bytes(40), "a JPEG 2000 image"),
        (b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + bytes(40), "a video"),
        (b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b"%PDF-1.7" + bytes(40), "a PDF document"),
        (b"v/1\x01" + bytes(40), "an OpenEXR image"),
    ],
)
def test_what_cannot_be_read_is_named(data: bytes, words: str) -> None:
    with pytest.raises(MediaError, match=words) as caught:
        media.read_image(data)
    assert caught.value.hint


def frames(format: str, left: int, top: int) -> bytes:
    """An animation whose first frame lies at left, top on a canvas of 20 x 16."""
    first = encoded(pil(photo(6, 8)), format, **({"lossless": True} if format == "WEBP" else {}))
    if format == "GIF":
        at = 13 + 3 * 2 ** (1 + (first[10] & 7))
        data = bytearray(first)
        data[6:10] = bytes([20, 0, 16, 0])
        at = data.index(b",", at)
        data[at + 1 : at + 5] = bytes([left, 0, top, 0])
        return bytes(data)
    bits = first[12:]  # one chunk: VP8L
    head = [b"".join(n.to_bytes(3, "little") for n in (left // 2, top // 2, 7, 5, 100)) + b"\2"]
    frame = head[0] + bits
    chunks = (
        b"VP8X"
        + (10).to_bytes(4, "little")
        + b"\2\0\0\0"
        + (19).to_bytes(3, "little")
        + (15).to_bytes(3, "little")
    )
    chunks += b"ANIM" + (6).to_bytes(4, "little") + bytes(6)
    chunks += b"ANMF" + len(frame).to_bytes(4, "little") + frame
    return b"RIFF" + (4 + len(chunks)).to_bytes(4, "little") + b"WEBP" + chunks


@pytest.mark.parametrize("format", ["WEBP", "GIF"])
def test_a_first_frame_is_put_on_its_canvas(format: str) -> None:
    """What it does not cover is transparent, as in browsers."""
    data = frames(format, 4, 2)
    image = media.read_image(data)
    assert image.samples.shape[:2] == (16, 20)
    expected = np.zeros((16, 20), np.uint8)
    expected[2:8, 4:12] = 255
    assert np.array_equal(image.alpha, expected)
    picture = PIL.Image.open(io.BytesIO(data)).convert("RGB")
    assert np.array_equal(image.samples[2:8, 4:12], np.asarray(picture)[2:8, 4:12])


def test_a_comment_of_a_gif_is_said() -> None:
    with pytest.warns(MediaWarning, match="a comment: left out"):
        media.read_image(encoded(pil(photo(6, 8)), "GIF", comment=b"by me"))


def test_deep_samples_of_avif_are_said() -> None:
    data = encoded(pil(photo(16, 16)), "AVIF")
    at = data.index(b"av1C") + 6
    deep = data[:at] + bytes([data[at] | 0x40]) + data[at + 1 :]
    assert read_boxes(io.BytesIO(deep)).notes == ["10-bit samples, reduced to 8 bit"]
    assert read_boxes(io.BytesIO(data)).notes == []
