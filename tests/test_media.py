from __future__ import annotations

import io
import struct
import subprocess
import sys
import threading
import tracemalloc
import warnings
import zlib

import numpy as np
import PIL.Image
import pytest
from PIL import ExifTags, ImageCms, ImageOps, PngImagePlugin
from vqcodec import media
from vqcodec.errors import DamagedError, MediaError, MediaWarning, UsageError

RNG = np.random.default_rng(3)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = (
    b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    b'xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:dji="http://www.dji.com/1.0/" '
    b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" '
    b'exif:GPSLatitude="48,51.5N" dji:GpsLongitude=\'2.29\' tiff:Orientation="6" xmp:Rating="4" '
    b'exif:PixelXDimension="5" exif:PixelYDimension="7">'
    b"<exif:GPSAltitude>1111/1</exif:GPSAltitude><exif:GPSMapDatum/>"
    b'<xmp:Thumbnails note="a &gt; b"><rdf:Alt><rdf:li>THUMBNAIL</rdf:li></rdf:Alt></xmp:Thumbnails>'
    b'</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)


def photo(height: int = 11, width: int = 7, channels: int = 3) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, channels), dtype=np.uint8)


def pil(samples: np.ndarray) -> PIL.Image.Image:
    return PIL.Image.fromarray(samples[:, :, 0] if samples.shape[2] == 1 else samples)


def encoded(picture: PIL.Image.Image, format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, format=format, **options)
    return stream.getvalue()


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    """A PNG by hand: `rows` without filter bytes, `extra` chunks before the pixels."""
    stride = len(rows) // height
    lines = b"".join(b"\0" + rows[i * stride : (i + 1) * stride] for i in range(height))
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = png_chunk(b"IDAT", zlib.compress(lines)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + body


def rounded(wide: np.ndarray, highest: int = 65535) -> np.ndarray:
    return np.floor(wide.astype(np.float64) * 255 / highest + 0.5).astype(np.uint8)


def exif_with_everything(orientation: int = 6, byte_order: str = "<", *, broken: bool = False) -> bytes:
    """IFD0 (make, orientation, Exif, GPS), Exif (dimensions, maker note), GPS, IFD1 with a thumbnail."""

    def entry(tag: int, kind: int, count: int, value: bytes | int) -> bytes:
        packed = struct.pack(byte_order + "I", value) if isinstance(value, int) else value.ljust(4, b"\0")
        return struct.pack(byte_order + "HHI", tag, kind, count) + packed

    def directory(entries: list[bytes], following: int) -> bytes:
        return (
            struct.pack(byte_order + "H", len(entries))
            + b"".join(entries)
            + struct.pack(byte_order + "I", following)
        )

    short = struct.pack(byte_order + "H", orientation)
    ifd0 = 8
    exif = ifd0 + 2 + 12 * 5 + 4
    gps = exif + 2 + 12 * 3 + 4
    ifd1 = gps + 2 + 12 + 4
    make, note, latitude, thumbnail = ifd1 + 2 + 24 + 4, ifd1 + 60, ifd1 + 100, ifd1 + 140
    blocks = {
        0: {"<": b"II*\0", ">": b"MM\0*"}[byte_order] + struct.pack(byte_order + "I", ifd0),
        ifd0: directory(
            [
                entry(271, 2, 9, make),
                entry(274, 3, 1, short),
                entry(282, 5, 1, 10**9) if broken else entry(284, 3, 1, b"\1"),
                entry(34665, 4, 1, exif),
                entry(34853, 4, 1, gps),
            ],
            ifd1,
        ),
        exif: directory(
            [entry(37500, 7, 20, note), entry(0xA002, 4, 1, 5), entry(0xA003, 4, 1, 7)],
            0,
        ),
        gps: directory([entry(2, 5, 3, latitude)], 0),
        ifd1: directory([entry(513, 4, 1, thumbnail), entry(514, 4, 1, 9)], 0),
        make: b"Leica Oy\0",
        note: b"MAKERNOTE-OF-20-BYTE",
        latitude: struct.pack(byte_order + "6I", 48, 1, 51, 1, 30, 7777),
        thumbnail: b"THUMBNAIL" + bytes(100),
    }
    out = bytearray(thumbnail + 109)
    for offset, block in blocks.items():
        out[offset : offset + len(block)] = block
    return bytes(out)


# formats in


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("PPM", {}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_lossless_files_are_read_exactly(format: str, options: dict[str, object], channels: int) -> None:
    samples = photo(channels=channels)
    image = media.read_image(encoded(pil(samples), format, **options))
    expected = np.repeat(samples, 3, 2) if format == "WEBP" and channels == 1 else samples
    assert np.array_equal(image.samples, expected)
    assert image.source == format
    assert image.alpha is None
    assert (image.width, image.height, image.channels) == (7, 11, expected.shape[2])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("format", ["JPEG", "AVIF", "WEBP"])
def test_lossy_files_are_read_as_pillow_decodes_them(format: str, channels: int) -> None:
    data = encoded(pil(photo(24, 40, channels)), format)
    reference = PIL.Image.open(io.BytesIO(data))
    image = media.read_image(data)
    assert np.array_equal(image.samples, np.asarray(reference).reshape(24, 40, -1))
    assert image.channels == (3 if format == "WEBP" else channels)


def test_one_pixel() -> None:
    image = media.read_image(encoded(pil(photo(1, 1)), "PNG"))
    assert image.samples.shape == (1, 1, 3)


def test_several_strips_join_without_seams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media.conversion, "STRIP_PIXELS", 20)
    samples = photo(23, 7, 4)
    image = media.read_image(encoded(pil(samples), "PNG"))
    assert np.array_equal(np.dstack([image.samples, image.alpha]), samples)
    stream = io.BytesIO()
    media.write_image(image, stream, "png")
    assert np.array_equal(np.asarray(PIL.Image.open(stream)), samples)


# sources


def test_every_kind_of_source_gives_the_same_picture(tmp_path) -> None:
    samples = photo()
    data = encoded(pil(samples), "PNG")
    path = tmp_path / "a[b].png"
    path.write_bytes(data)
    after_junk = io.BytesIO(b"junk" + data)
    after_junk.seek(4)

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    for source in (str(path), path, data, io.BytesIO(data), after_junk, Pipe(data), pil(samples), samples):
        assert np.array_equal(media.read_image(source).samples, samples)


def test_the_callers_stream_and_picture_stay_usable() -> None:
    stream = io.BytesIO(encoded(pil(photo()), "GIF", save_all=True, append_images=[pil(photo())]))
    with pytest.warns(MediaWarning, match="several frames, only the first"):
        media.read_image(stream)
    assert stream.seek(0) == 0
    picture = PIL.Image.open(io.BytesIO(encoded(pil(photo()), "PNG")))
    media.read_image(picture)
    assert picture.getpixel((0, 0)) is not None


def test_arrays_with_alpha_and_without() -> None:
    gray = photo(channels=2)
    image = media.read_image(gray)
    assert np.array_equal(image.samples, gray[:, :, :1])
    assert np.array_equal(image.alpha, gray[:, :, 1])
    colour = photo(channels=4)
    image = media.read_image(colour)
    assert np.array_equal(image.samples, colour[:, :, :3])
    assert np.array_equal(image.alpha, colour[:, :, 3])
    assert media.read_image(photo(channels=1)[:, :, 0]).samples.shape == (11, 7, 1)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint16),
        np.zeros(4, np.uint8),
        np.zeros((4, 4, 5), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_other_arrays_are_refused(array: np.ndarray) -> None:
    with pytest.raises(MediaError):
        media.read_image(array)


# modes


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


# 16 bits and more


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


# colour


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


# frames


@pytest.mark.parametrize(
    ("format", "word"),
    [("GIF", "frames"), ("PNG", "frames"), ("WEBP", "frames"), ("TIFF", "pages"), ("MPO", "pages")],
)
def test_only_the_first_of_several_pictures_is_read(format: str, word: str) -> None:
    first, second = PIL.Image.new("RGB", (16, 16), (255, 0, 0)), PIL.Image.new("RGB", (16, 16), (0, 0, 255))
    data = encoded(first, format, save_all=True, append_images=[second])
    with pytest.warns(MediaWarning, match=f"several {word}, only the first is read") as caught:
        image = media.read_image(data)
    assert len(caught) == 1
    assert np.abs(image.samples.astype(int) - [255, 0, 0]).max() < 8


# orientation and metadata


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


def test_orientation_of_xmp_counts_where_exif_has_none() -> None:
    samples = photo(5, 7)
    image = media.read_image(encoded(pil(samples), "PNG", pnginfo=itxt(XMP)))
    assert np.array_equal(image.samples, np.rot90(samples, -1))


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


# refusals


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF"])
@pytest.mark.parametrize("fraction", [0.5, 0.9])
def test_truncated_files(format: str, fraction: float) -> None:
    data = encoded(pil(photo(64, 64)), format)
    with pytest.raises(MediaError, match="^truncated") as caught:
        media.read_image(data[: int(len(data) * fraction)])
    assert caught.value.hint == "copy the file again"


def test_headers_alone_are_truncated() -> None:
    for format in ("PNG", "JPEG", "WEBP"):
        with pytest.raises(MediaError, match=f"truncated {format}"):
            media.read_image(encoded(pil(photo(64, 64)), format)[:20])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty file"),
        (b"hello, this is a text", "not an image or sound this build reads"),
        (b"P", "not an image or sound this build reads"),
        (b"8BPS\0\1" + bytes(40), "not an image or sound this build reads"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image or sound this build reads"),
    ],
)
def test_what_is_no_picture(data: bytes, message: str) -> None:
    with pytest.raises(MediaError) as caught:
        media.read_image(data)
    assert caught.value.message == message


def test_paths_that_cannot_be_read(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MediaError, match="no such file"):
        media.read_image(tmp_path / "absent.png")
    with pytest.raises(MediaError, match="is a folder"):
        media.read_image(tmp_path)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(MediaError, match="permission denied"):
        media.read_image("secret.png")


def test_damage_inside_a_png_is_told_from_truncation() -> None:
    data = bytearray(encoded(pil(photo(64, 64)), "PNG"))
    data[60:4000] = bytes(3940)
    with pytest.raises(MediaError, match="^damaged PNG"):
        media.read_image(bytes(data))


def test_pixel_limit_decides_before_pixels_exist() -> None:
    data = encoded(pil(photo(20, 30)), "PNG")
    assert media.read_image(data, max_pixels=600).width == 30
    for source in (data, photo(20, 30), pil(photo(20, 30))):
        with pytest.raises(MediaError, match="0.0006 megapixels, limit 0.000599"):
            media.read_image(source, max_pixels=599)
    bomb = png(20_000, 20_000, 8, 2, b"\0" * 20_000)
    with pytest.raises(MediaError, match="400 megapixels, limit 179") as caught:
        media.read_image(bomb)
    assert "--max-pixels" in caught.value.hint


def test_pillows_own_limit_is_neither_asked_nor_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 10)
    data = [encoded(pil(photo(20, 30)), format) for format in ("PNG", "TIFF", "WEBP", "GIF")]
    assert all(media.read_image(each).width == 30 for each in data)
    assert PIL.Image.MAX_IMAGE_PIXELS == 10
    threads = [threading.Thread(target=media.read_image, args=(data[0],)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert PIL.Image.MAX_IMAGE_PIXELS == 10


def test_pillows_warnings_become_ours() -> None:
    data = encoded(pil(photo()), "PNG")
    broken_animation = png_chunk(b"acTL", struct.pack(">II", 0, 0))
    with pytest.warns(MediaWarning, match="Invalid APNG") as caught:
        media.read_image(data[:33] + broken_animation + data[33:])
    assert all(issubclass(warning.category, MediaWarning) for warning in caught)


# writing


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


def smooth() -> np.ndarray:
    y, x = np.mgrid[0:40, 0:48]
    return np.stack([3 * x + y, 2 * x + 2 * y, x + 3 * y], 2).astype(np.uint8)


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


# alpha plane


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


# weight


def test_media_imports_no_torch() -> None:
    code = "import sys, vqcodec.media; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


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
