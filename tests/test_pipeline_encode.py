"""Images -> symbols -> bytes and back."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from coded import SRGB, XMP, codes_in, codes_of, large_image, saved
from conftest import draw
from PIL import ImageOps
from vqcodec import media, pipeline, weights
from vqcodec.bitstream import container
from vqcodec.bitstream.container import PIXELS, ImageGeometry
from vqcodec.errors import DamagedError, MediaError, MediaWarning, UsageError
from vqcodec.models.vqvae import VQVAE
from vqcodec.transform import image as image_transform


@pytest.fixture(scope="module")
def codec(small: str) -> VQVAE:
    """The model of `small`, which nobody may change."""
    return weights.load(small)


@pytest.fixture(scope="module")
def large(small: str) -> pipeline.Encoded:
    """An image of four chunks."""
    return large_image(small)


SIZES = [(1, 1), (1, 9), (23, 1), (3, 5), (4, 4), (5, 4), (117, 150), (513, 3), (600, 520)]


@pytest.mark.parametrize("alpha", [None, "opaque", "holes"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_round_trip(
    small: str, codec: VQVAE, width: int, height: int, channels: int, alpha: str | None
) -> None:
    samples = draw(width, height, 1)[:, :, :channels]
    plane = None
    if alpha is not None:
        plane = np.full((height, width), 255, np.uint8)
        if alpha == "holes":
            plane[0, 0], plane[-1, : width // 2] = 0, 77
    encoded = pipeline.encode_file(media.Image(samples, plane), pipeline.EncodeOptions(model=small))
    assert np.array_equal(codes_of(encoded.data, codec), codes_in(encoded))
    assert codes_in(encoded).shape == (-(-height // 4), -(-width // 4))
    assert PIXELS not in pipeline.info(encoded.data).priors or width * height < 20
    image = pipeline.decode(encoded.data, model=small)
    assert image.samples.shape == (height, width, channels)
    assert image.samples.dtype == np.uint8
    assert (image.alpha is None) is (alpha is None)
    if plane is not None:
        assert np.array_equal(image.alpha, plane), "alpha is kept without loss"
    # What alpha hides does not count, and what it dims counts less.
    weights = np.broadcast_to(255 if plane is None else plane[:, :, None], samples.shape)
    squares = np.square(image.samples.astype(float) - samples)
    if not (weights * squares).any():
        assert pipeline.verify(encoded) == np.inf
        return
    error = np.average(squares, weights=weights)
    assert pipeline.verify(encoded) == pytest.approx(10 * np.log10(255**2 / error))
    assert error < np.square(samples.astype(float) - 128).mean() / 2, "it is that image"
    info = pipeline.info(encoded.data)
    assert info.geometry == ImageGeometry(width, height, channels)
    assert info.chunks == -(-width // 512) * -(-height // 512)
    assert ("alpha" in info.box_bytes) is (alpha is not None)
    if alpha == "opaque":
        assert info.box_bytes["alpha"] == 0


def test_what_is_encoded_is_what_is_reported(large: pipeline.Encoded) -> None:
    info = pipeline.info(large.data)
    assert (large.geometry, large.quality) == (ImageGeometry(600, 520, 3), 3)
    assert (large.model, large.bpp) == (info.model, info.bpp)
    assert large.bpp == 8 * len(large.data) / (600 * 520)
    assert info.total_bytes == len(large.data)


def test_gray_stays_gray_and_is_the_mean_of_the_colours(small: str, codec: VQVAE) -> None:
    gray = draw(40, 30)[:, :, :1]
    encoded = pipeline.encode_file(gray, pipeline.EncodeOptions(model=small))
    decoded = pipeline.decode(encoded.data, model=small)
    assert decoded.channels == 1
    coloured = pipeline.encode_file(np.repeat(gray, 3, 2), pipeline.EncodeOptions(model=small))
    assert np.array_equal(codes_in(coloured), codes_in(encoded))
    colours = pipeline.decode(coloured.data, model=small).samples
    assert colours.shape == (30, 40, 3), "gray pixels in three channels stay three channels"
    # Clipping comes after the mean.
    inside = ((colours > 0) & (colours < 255)).all(2)
    assert np.abs(colours.mean(2) - decoded.samples[:, :, 0])[inside].max() <= 1


def test_all_kinds_of_sources(small: str, tmp_path: Path) -> None:
    samples = draw(40, 30)
    opened = PIL.Image.fromarray(samples)
    png = saved(opened)
    path = tmp_path / "a.png"
    path.write_bytes(png)
    from_files = [
        pipeline.encode(source, model=small)
        for source in (str(path), path, png, io.BytesIO(png), PIL.Image.open(path), media.read_image(path))
    ]
    assert len(set(from_files)) == 1
    assert pipeline.info(from_files[0]).source == "PNG"
    from_memory = [pipeline.encode(source, model=small) for source in (samples, opened, media.Image(samples))]
    assert len(set(from_memory)) == 1
    assert pipeline.info(from_memory[0]).source == ""
    images = [pipeline.decode(data, model=small) for data in (from_files[0], from_memory[0])]
    assert np.array_equal(images[0].samples, images[1].samples)
    with pytest.raises(MediaError, match="no such file"):
        pipeline.encode(tmp_path / "gone.png", model=small)
    with pytest.raises(MediaError, match="array is float64"):
        pipeline.encode(samples / 255, model=small)


@pytest.mark.parametrize("strip", [(), ("exif",), ("icc", "xmp"), ("all",)])
def test_metadata(small: str, strip: tuple[str, ...]) -> None:
    exif = PIL.Image.Exif()
    exif[271] = "Leica"
    source = saved(PIL.Image.fromarray(draw(20, 10)), "JPEG", icc_profile=SRGB, exif=exif.tobytes(), xmp=XMP)
    read = media.read_image(source)
    assert read.icc == SRGB and read.xmp == XMP and b"Leica" in (read.exif or b"")
    data = pipeline.encode(source, model=small, strip=strip)
    gone = {"icc", "exif", "xmp"} if strip == ("all",) else set(strip)
    assert set(pipeline.info(data).box_bytes) == {"icc", "exif", "xmp"} - gone
    for image in (
        pipeline.decode(data, model=small),
        pipeline.decode(pipeline.encode(source, model=small), model=small, strip=strip),
        pipeline.decode(pipeline.encode(read, model=small, strip=strip), model=small),
    ):
        for name in ("icc", "exif", "xmp"):
            assert getattr(image, name) == (None if name in gone else getattr(read, name))
        assert image.source == "JPEG"
    with pytest.raises(UsageError, match="cannot strip gps"):
        pipeline.encode(read, model=small, strip=["gps"])


def test_positions_are_dropped_unless_asked_for(small: str) -> None:
    exif = PIL.Image.Exif()
    exif[271] = "Leica"
    exif.get_ifd(34853)[2] = (48.0, 51.0, 7777.0)
    source = saved(PIL.Image.fromarray(draw(20, 10)), exif=exif.tobytes())
    kept = pipeline.decode(pipeline.encode(source, model=small, keep_gps=True), model=small).exif
    dropped = pipeline.decode(pipeline.encode(source, model=small), model=small).exif
    assert kept is not None and dropped is not None
    found, lost = PIL.Image.Exif(), PIL.Image.Exif()
    found.load(kept)
    lost.load(dropped)
    assert dict(found.get_ifd(34853)) == {2: (48.0, 51.0, 7777.0)}
    assert dict(lost.get_ifd(34853)) == {}
    assert lost[271] == "Leica"


def test_verify_notices_a_code_that_differs(large: pipeline.Encoded) -> None:
    assert 15 < pipeline.verify(large) < 50
    for position in ((0, 0), (-1, -1)):
        codes = codes_in(large).copy()
        codes[position] ^= 1
        with pytest.raises(DamagedError, match="does not decode to the encoded symbols"):
            pipeline.verify(replace(large, symbols={"codes": codes}))
    other = container.parse(large.data)
    swapped = replace(other, chunks=[*other.chunks[:2], other.chunks[3], other.chunks[2]])
    with pytest.raises(DamagedError):
        pipeline.verify(replace(large, data=container.pack(swapped)))


def test_progress(small: str, codec: VQVAE, large: pipeline.Encoded) -> None:
    calls: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        calls.append((done, total))

    pipeline.encode(draw(20, 10), model=small, progress=progress)
    pipeline.decode(large.data, model=small, progress=progress)
    assert calls == [(1, 1), (1, 1)]
    for work in (
        lambda: image_transform.analyse(draw(200, 160), codec.at(0), area=500, progress=progress),
        lambda: image_transform.synthesise(
            large.symbols, codec.at(0), ImageGeometry(600, 520), area=5000, progress=progress
        ),
    ):
        calls.clear()
        work()
        assert len(calls) > 3
        assert calls == [(n, len(calls)) for n in range(1, len(calls) + 1)]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photograph(small: str, orientation: int) -> None:
    """Sides that are multiples of four need no padding, which would copy the turned view."""
    file = io.BytesIO()
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    PIL.Image.fromarray(draw(160, 120)).save(file, "PNG", exif=exif)
    image = pipeline.decode(pipeline.encode(file.getvalue(), model=small, effort=2), model=small)
    assert (image.width, image.height) == ((160, 120) if orientation < 5 else (120, 160))
    upright = ImageOps.exif_transpose(PIL.Image.open(file))
    error = np.asarray(upright).astype(float) - image.samples
    assert np.square(error).mean() < 600


def test_views_of_arrays(small: str) -> None:
    samples = draw(16, 16)
    turned = pipeline.encode(samples[::-1, ::-1], model=small)
    assert turned == pipeline.encode(samples[::-1, ::-1].copy(), model=small)


def test_metadata_that_outweighs_the_image(small: str) -> None:
    noise = np.random.default_rng(0).bytes(3000)
    with pytest.warns(MediaWarning, match=r"metadata takes 3,\d+ bytes, the codes .* --strip exif"):
        pipeline.encode(media.Image(draw(16, 16), exif=noise), model=small)


@pytest.mark.parametrize("source", [None, 5, io.StringIO("text")])
def test_what_is_no_source(small: str, source: object) -> None:
    with pytest.raises(MediaError):
        pipeline.encode(source, model=small)
    with pytest.raises(MediaError):
        pipeline.decode(source, model=small)  # type: ignore[arg-type]
