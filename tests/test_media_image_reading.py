"""Reading images: formats, sources, frames, what is refused."""

from __future__ import annotations

import io
import struct
import threading

import numpy as np
import PIL.Image
import pytest
from media_files import (
    encoded,
    photo,
    pil,
    png,
    png_chunk,
)
from vqcodec import media
from vqcodec.errors import MediaError, MediaWarning
from vqcodec.media.guard import pillow_unlimited


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
        (b"hello, this is a text", "not an image or audio file that this build can read"),
        (b"P", "not an image or audio file that this build can read"),
        (b"8BPS\0\1" + bytes(40), "a Photoshop document, which cannot be read"),
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
            "a PostScript document, which cannot be read",
        ),
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


def test_the_limit_comes_back_when_the_outermost_block_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 10)
    with pillow_unlimited([]):
        with pillow_unlimited([]):
            assert PIL.Image.MAX_IMAGE_PIXELS is None
        assert PIL.Image.MAX_IMAGE_PIXELS is None
    assert PIL.Image.MAX_IMAGE_PIXELS == 10


def test_pillows_warnings_become_ours() -> None:
    data = encoded(pil(photo()), "PNG")
    broken_animation = png_chunk(b"acTL", struct.pack(">II", 0, 0))
    with pytest.warns(MediaWarning, match="Invalid APNG") as caught:
        media.read_image(data[:33] + broken_animation + data[33:])
    assert all(issubclass(warning.category, MediaWarning) for warning in caught)
