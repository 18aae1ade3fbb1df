"""Samples of images: palettes, key colours, 16 bits, colour spaces."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import PIL.Image
import pytest
from media_files import (
    RNG,
    SRGB,
    encoded,
    photo,
    pil,
    png,
    png_chunk,
    rounded,
)
from PIL import ImageCms
from vqcodec import media
from vqcodec.errors import MediaError, MediaWarning


def test_palette_gives_rgb_and_a_gray_palette_gives_gray() -> None:
    indices = RNG.integers(0, 4, (5, 6), dtype=np.uint8)
    colours = np.array([[1, 2, 3], [250, 0, 9], [7, 7, 7], [0, 255, 0]], np.uint8)
    for table in (colours, np.repeat(colours[:, :1], 3, 1)):
        picture = PIL.Image.fromarray(indices)
        picture.putpalette(table.tobytes())
        for format in ("PNG", "TIFF", "GIF"):
            image = media.read_image(encoded(picture, format))
            assert image.channels == (3 if table is colours else 1)
            assert np.array_equal(image.samples, table[indices][:, :, : image.channels])


@pytest.mark.parametrize("transparency", [2, bytes([255, 7, 0])])
def test_palette_transparency_becomes_alpha(transparency: int | bytes) -> None:
    indices = RNG.integers(0, 4, (5, 6), dtype=np.uint8)
    colours = np.array([[1, 2, 3], [250, 0, 9], [7, 7, 7], [0, 255, 0]], np.uint8)
    picture = PIL.Image.fromarray(indices)
    picture.putpalette(colours.tobytes())
    image = media.read_image(encoded(picture, "PNG", transparency=transparency))
    alphas = np.array([255, 255, 0, 255] if transparency == 2 else [255, 7, 0, 255], np.uint8)
    assert np.array_equal(image.samples, colours[indices])
    assert np.array_equal(image.alpha, alphas[indices])


def test_palette_with_alpha_plane() -> None:
    picture = PIL.Image.fromarray(photo(channels=1)[:, :, 0])
    picture.putpalette(RNG.integers(0, 256, 768, dtype=np.uint8).tobytes())
    picture = picture.convert("PA")
    picture.putalpha(PIL.Image.fromarray(photo(channels=1)[:, :, 0]))
    expected = np.asarray(picture.convert("RGBA"))
    image = media.read_image(picture)
    assert np.array_equal(np.dstack([image.samples, image.alpha]), expected)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_kept_exactly(format: str, channels: int) -> None:
    samples = photo(channels=channels)
    options = {"lossless": True, "exact": True} if format == "WEBP" else {}
    image = media.read_image(encoded(pil(samples), format, **options))
    assert np.array_equal(image.alpha, samples[:, :, -1])
    expected = samples[:, :, :-1]
    assert np.array_equal(
        image.samples, np.repeat(expected, 3, 2) if format == "WEBP" and channels == 2 else expected
    )


@pytest.mark.parametrize(("depth", "scale"), [(1, 255), (2, 85), (4, 17), (8, 1)])
def test_gray_key_colour_at_every_depth(depth: int, scale: int) -> None:
    rows = RNG.integers(0, 256, 3 * depth, dtype=np.uint8).tobytes()
    image = media.read_image(png(8, 3, depth, 0, rows, png_chunk(b"tRNS", struct.pack(">H", 1))))
    bits = np.unpackbits(np.frombuffer(rows, np.uint8)).reshape(3, 8, depth)
    values = bits.dot(1 << np.arange(depth)[::-1])
    assert np.array_equal(image.samples[:, :, 0], values * scale)
    assert np.array_equal(image.alpha, np.where(values == 1, 0, 255))


def test_rgb_key_colour() -> None:
    samples = photo()
    samples[3:5] = [9, 8, 7]
    key = png_chunk(b"tRNS", struct.pack(">HHH", 9, 8, 7))
    image = media.read_image(png(7, 11, 8, 2, samples.tobytes(), key))
    assert np.array_equal(image.alpha, np.where((samples == [9, 8, 7]).all(2), 0, 255))


def test_bilevel() -> None:
    bits = RNG.integers(0, 2, (5, 9)).astype(bool)
    for format in ("PNG", "TIFF", "PPM", "BMP"):
        image = media.read_image(encoded(PIL.Image.fromarray(bits), format))
        assert np.array_equal(image.samples[:, :, 0], bits * 255)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_16_bit_gray_is_rounded(format: str) -> None:
    wide = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    data = encoded(PIL.Image.fromarray(wide), format)
    with pytest.warns(MediaWarning, match="16-bit samples, reduced to 8 bit"):
        image = media.read_image(data)
    assert np.array_equal(image.samples[:, :, 0], rounded(wide))


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (6, 4)])
def test_16_bit_rgb_png_is_rounded_though_pillow_drops_the_low_byte(colour: int, channels: int) -> None:
    wide = RNG.permutation(np.arange(65536, dtype=np.uint16))[: 64 * 64 * channels].reshape(64, 64, channels)
    wide[0, 0] = 65535
    wide[0, 1] = 0x00FF
    data = png(64, 64, 16, colour, wide.astype(">u2").tobytes())
    with pytest.warns(MediaWarning, match="16-bit samples") as caught:
        image = media.read_image(data)
    assert len(caught) == 1
    assert np.array_equal(image.samples, rounded(wide[:, :, :3]))
    assert (image.alpha is None) == (channels == 3)
    if image.alpha is not None:
        assert np.array_equal(image.alpha, rounded(wide[:, :, 3]))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [1, 8])
def test_16_bit_rgb_tiff_is_rounded(order: str, compression: int) -> None:
    wide = RNG.integers(0, 65536, (4, 5, 3), dtype=np.uint16)
    pixels = wide.astype(order + "u2").tobytes()
    with pytest.warns(MediaWarning, match="16-bit samples"):
        image = media.read_image(tiff(5, 4, pixels, order=order, compression=compression))
    assert np.array_equal(image.samples, rounded(wide))


def test_16_bit_planar_tiff_is_refused_not_misread() -> None:
    with pytest.raises(MediaError, match="separate planes"):
        media.read_image(tiff(5, 4, bytes(120), planar=2))


def tiff(
    width: int, height: int, pixels: bytes, *, order: str = "<", compression: int = 1, planar: int = 1
) -> bytes:
    stored = zlib.compress(pixels) if compression == 8 else pixels
    offset = 8 + 2 + 12 * 10 + 4
    depths = offset
    data = offset + 8
    plane = len(stored) // 3
    strips = [data] if planar == 1 else [data, data + plane, data + 2 * plane]
    sizes = [len(stored)] if planar == 1 else [plane] * 3
    tables = data + len(stored)
    fields = [
        (256, 4, [width]),
        (257, 4, [height]),
        (258, 3, [16, 16, 16]),
        (259, 3, [compression]),
        (262, 3, [2]),
        (273, 4, strips),
        (277, 3, [3]),
        (278, 4, [height]),
        (279, 4, sizes),
        (284, 3, [planar]),
    ]
    entries, outside = b"", b""
    for tag, kind, values in fields:
        packed = struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(packed) > 4 and tag == 258:
            value = struct.pack(order + "I", depths)
        elif len(packed) > 4:
            value = struct.pack(order + "I", tables + len(outside))
            outside += packed
        else:
            value = packed.ljust(4, b"\0")
        entries += struct.pack(order + "HHI", tag, kind, len(values)) + value
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(fields))
    bits = struct.pack(order + "4H", 16, 16, 16, 0)
    return head + entries + bytes(4) + bits + stored + outside


def test_16_bit_rgb_key_colour_compares_all_bits() -> None:
    wide = np.full((2, 2, 3), 0x1234, np.uint16)
    wide[0, 1] = 0x1235
    wide[1, 0] = 0x1334
    key = png_chunk(b"tRNS", struct.pack(">HHH", *[0x1234] * 3))
    with pytest.warns(MediaWarning, match="16-bit"):
        image = media.read_image(png(2, 2, 16, 2, wide.astype(">u2").tobytes(), key))
    assert np.array_equal(image.alpha, [[0, 255], [255, 0]])


def test_16_bit_gray_with_alpha_stays_gray() -> None:
    wide = RNG.integers(0, 65536, (4, 5, 2), dtype=np.uint16)
    with pytest.warns(MediaWarning, match="16-bit"):
        image = media.read_image(png(5, 4, 16, 4, wide.astype(">u2").tobytes()))
    assert image.channels == 1
    assert np.abs(image.samples[:, :, 0] - wide[:, :, 0] / 257).max() < 1
    assert np.abs(image.alpha - wide[:, :, 1] / 257).max() < 1


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bit_samples_are_refused(dtype: type) -> None:
    data = encoded(PIL.Image.fromarray(np.zeros((4, 5), dtype)), "TIFF")
    with pytest.raises(MediaError, match="32-bit") as caught:
        media.read_image(data)
    assert caught.value.hint


def test_16_bit_colour_ppm_is_said() -> None:
    data = b"P6 2 1 65535\n" + struct.pack(">6H", 0, 257, 65535, 514, 0, 771)
    with pytest.warns(MediaWarning, match="16-bit"):
        image = media.read_image(data)
    assert image.samples.tolist() == [[[0, 1, 255], [2, 0, 3]]]


def test_cmyk_without_profile_is_converted_and_said() -> None:
    samples = photo(channels=4)
    picture = pil(samples[:, :, :3]).convert("CMYK")
    with pytest.warns(MediaWarning, match="CMYK samples without a usable profile"):
        image = media.read_image(encoded(picture, "TIFF"))
    assert np.array_equal(image.samples, np.asarray(picture.convert("RGB")))
    assert image.icc is None


def cmyk_profile_of_gray(lightness: int) -> bytes:
    """An ICC profile where any mixture of C, M and Y is one gray, L* = lightness / 255 * 100; K is black."""
    identity = bytes(range(256))
    table = bytes([lightness, 128, 128, 0, 128, 128]) * 2**3
    matrix = struct.pack(">9i", *[65536 if i % 4 == 0 else 0 for i in range(9)])
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + identity * 4 + table + identity * 3
    tags = struct.pack(">I4sII", 1, b"A2B0", 144, len(lut))
    head = struct.pack(">I4sI4s4s4s", 144 + len(lut), bytes(4), 0x02400000, b"prtr", b"CMYK", b"Lab ")
    head = head.ljust(36, b"\0") + b"acsp"
    white = struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(68, b"\0") + white + bytes(48) + tags + lut


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_goes_through_its_profile(format: str) -> None:
    picture = pil(photo(16, 16)).convert("CMYK")
    options = {"quality": 100} if format == "JPEG" else {}
    data = encoded(picture, format, icc_profile=cmyk_profile_of_gray(128), **options)
    with pytest.warns(MediaWarning, match="CMYK samples, converted to sRGB by their profile"):
        image = media.read_image(data)
    assert np.abs(image.samples.astype(int) - 119).max() <= 3
    assert image.icc is None


def test_cmyk_with_a_profile_of_another_space_falls_back() -> None:
    picture = pil(photo(16, 16)).convert("CMYK")
    with pytest.warns(MediaWarning) as caught:
        image = media.read_image(encoded(picture, "JPEG", icc_profile=SRGB))
    assert [str(w.message) for w in caught][0].startswith("ICC profile is broken")
    assert image.icc is None


def test_lab_goes_through_the_colour_management() -> None:
    lab = ImageCms.profileToProfile(
        PIL.Image.new("RGB", (4, 4), (200, 60, 30)),
        ImageCms.createProfile("sRGB"),
        ImageCms.createProfile("LAB"),
        outputMode="LAB",
    )
    with pytest.warns(MediaWarning, match="LAB samples, converted to sRGB"):
        image = media.read_image(encoded(lab, "TIFF"))
    assert np.abs(image.samples.astype(int) - [200, 60, 30]).max() <= 3


def test_ycbcr_tiff_gives_rgb() -> None:
    picture = pil(photo()).convert("YCbCr")
    image = media.read_image(encoded(picture, "TIFF"))
    assert np.array_equal(image.samples, np.asarray(picture.convert("RGB")))


def test_a_profile_that_does_not_fit_is_left_out() -> None:
    with pytest.warns(MediaWarning, match="ICC profile"):
        image = media.read_image(encoded(pil(photo(channels=1)), "PNG", icc_profile=SRGB))
    assert image.icc is None
    assert image.channels == 1
