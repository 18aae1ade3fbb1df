"""Writing images, and their alpha planes."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import tracemalloc
import zlib

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
    png,
    png_chunk,
    smooth,
)
from PIL import ExifTags
from vqcodec import media
from vqcodec.errors import DamagedError, MediaError, MediaWarning, UsageError


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("format", ["png", "webp", "tiff", "PNG", ".png"])
@pytest.mark.parametrize("turned", [False, True])
def test_lossless_round_trip_with_everything(format: str, channels: int, turned: bool) -> None:
    samples, alpha = photo(channels=channels), photo(channels=1)[:, :, 0]
    if turned:
        samples, alpha = samples[::-1].swapaxes(0, 1), alpha[::-1].swapaxes(0, 1)
    upright = media.read_image(encoded(pil(photo(7, 5)), "PNG", exif=exif_with_everything(1)))
    icc = SRGB if channels == 3 else None
    xmp = XMP.replace(b'Orientation="6"', b'Orientation="1"')
    image = media.Image(samples, alpha, icc=icc, exif=upright.exif, xmp=xmp)
    stream = io.BytesIO()
    media.write_image(image, stream, format)
    back = media.read_image(stream.getvalue(), keep_gps=True)
    assert np.array_equal(
        back.samples, np.repeat(samples, 3, 2) if format == "webp" and channels == 1 else samples
    )
    assert np.array_equal(back.alpha, alpha)
    assert back.icc == icc
    assert b'xmp:Rating="4"' in back.xmp
    kept = PIL.Image.Exif()
    kept.load(back.exif)
    assert kept[ExifTags.Base.Make] == "Leica Oy"
    assert kept.get_ifd(ExifTags.IFD.Exif)[37500] == b"MAKERNOTE-OF-20-BYTE"
    assert kept.get_ifd(ExifTags.IFD.Exif)[0xA002] == back.width


@pytest.mark.parametrize("format", ["jpg", "avif"])
def test_lossy_formats_stay_close_and_carry_metadata(format: str) -> None:
    image = media.Image(smooth(), icc=SRGB, exif=exif_with_everything(1), xmp=XMP)
    stream = io.BytesIO()
    media.write_image(image, stream, format)
    with PIL.Image.open(stream) as back:
        assert np.abs(np.asarray(back).astype(int) - smooth()).max() <= 12
        assert back.info["icc_profile"] == SRGB
        assert back.getexif()[ExifTags.Base.Make] == "Leica Oy"
        assert b"xmp:Rating" in back.info["xmp"]


def test_jpeg_is_not_subsampled() -> None:
    stream = io.BytesIO()
    media.write_image(media.Image(smooth()), stream, "jpg")
    assert [layer[1:3] for layer in PIL.Image.open(stream).layer] == [(1, 1)] * 3


@pytest.mark.parametrize(
    ("format", "options", "words"),
    [
        ("jpg", {"alpha": True}, "JPEG cannot hold alpha"),
        ("bmp", {"alpha": True, "icc": SRGB, "xmp": XMP}, "BMP cannot hold alpha, ICC, XMP"),
        ("jpg", {"xmp": XMP + b" " * 66000}, "JPEG cannot hold XMP"),
        ("jpg", {"exif": exif_with_everything(1) + bytes(66000)}, "JPEG cannot hold EXIF"),
    ],
)
def test_what_a_format_cannot_hold_is_said(format: str, options: dict, words: str) -> None:
    if options.get("alpha"):
        options = options | {"alpha": np.full((40, 48), 7, np.uint8)}
    stream = io.BytesIO()
    with pytest.warns(MediaWarning, match=words):
        media.write_image(media.Image(smooth(), **options), stream, format)
    assert PIL.Image.open(stream).mode == "RGB"


def test_an_opaque_alpha_plane_is_no_loss() -> None:
    media.write_image(media.Image(smooth(), np.full((40, 48), 255, np.uint8)), io.BytesIO(), "jpg")


@pytest.mark.parametrize(("format", "side"), [("webp", 16384), ("jpg", 65501), ("avif", 65536)])
def test_sizes_that_a_format_cannot_hold(format: str, side: int, tmp_path) -> None:
    image = media.Image(np.zeros((1, side, 1), np.uint8))
    with pytest.raises(MediaError, match=f"{side} x 1 pixels") as caught:
        media.write_image(image, tmp_path / "out", format)
    assert caught.value.hint
    assert not (tmp_path / "out").exists()


def test_save_goes_by_suffix_and_disk_errors_stay_what_they_are(tmp_path) -> None:
    image = media.Image(smooth())
    for suffix, format in media.IMAGE_FORMATS.items():
        image.save(tmp_path / f"out{suffix}")
        assert media.read_image(tmp_path / f"out{suffix}").source == format
    image.save(tmp_path / "odd.name", "webp")
    assert media.read_image(tmp_path / "odd.name").source == "WEBP"
    with pytest.raises(MediaError, match="cannot write"):
        image.save(tmp_path / "out.xyz")
    with pytest.raises(FileNotFoundError):
        image.save(tmp_path / "absent" / "out.png")


def test_image_checks_its_arrays() -> None:
    for samples in (np.zeros((2, 2, 3)), np.zeros((2, 2), np.uint8), np.zeros((2, 2, 2), np.uint8)):
        with pytest.raises(MediaError):
            media.Image(samples)
    with pytest.raises(MediaError):
        media.Image(np.zeros((2, 2, 3), np.uint8), alpha=np.zeros((2, 3), np.uint8))


def test_without() -> None:
    image = media.Image(smooth(), icc=SRGB, exif=exif_with_everything(1), xmp=XMP)
    stripped = image.without(["exif", "tags"])
    assert (stripped.exif, stripped.icc, stripped.xmp) == (None, SRGB, XMP)
    stripped = image.without(["all"])
    assert (stripped.exif, stripped.icc, stripped.xmp) == (None, None, None)
    assert image.without([]).xmp == XMP
    with pytest.raises(UsageError):
        image.without(["pixels"])


def test_alpha_plane_round_trip() -> None:
    assert media.pack_alpha(np.full((5, 4), 255, np.uint8)) == b""
    assert (media.unpack_alpha(b"", 4, 5) == np.full((5, 4), 255)).all()
    alpha = photo(50, 40, 1)[:, :, 0]
    data = media.pack_alpha(alpha.T)
    assert data[:4] == b"\x89PNG"
    assert np.array_equal(media.unpack_alpha(data, 50, 40), alpha.T)


def test_alpha_planes_that_lie() -> None:
    alpha = photo(50, 40, 1)[:, :, 0]
    data = media.pack_alpha(alpha)
    second_head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0))
    lies = [
        (data, 41, 50),
        (data[:-400], 40, 50),
        (data[:20], 40, 50),
        (encoded(pil(photo(50, 40)), "PNG"), 40, 50),
        (encoded(pil(photo(50, 40, 1)), "WEBP"), 40, 50),
        (png(40, 50, 16, 0, bytes(4000)), 40, 50),
        (png(40, 50, 8, 0, bytes(40 * 50), second_head), 40, 50),
        (data[:60] + bytes(500) + data[560:], 40, 50),
    ]
    for lie, width, height in lies:
        with pytest.raises(DamagedError):
            media.unpack_alpha(lie, width, height)


def test_an_alpha_plane_cannot_be_a_bomb() -> None:
    bomb = png(30_000, 30_000, 8, 0, bytes(30_000))
    endless = png(40, 50, 8, 0, bytes(40 * 50))[:-12] + png_chunk(
        b"zTXt", b"a\0\0" + zlib.compress(bytes(50_000_000))
    )
    tracemalloc.start()
    try:
        with pytest.raises(DamagedError):
            media.unpack_alpha(bomb, 40, 50)
        with pytest.raises(DamagedError):
            media.unpack_alpha(endless, 40, 50)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_media_imports_no_torch() -> None:
    code = "import sys, vqcodec.media; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
