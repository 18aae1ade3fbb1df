from __future__ import annotations

import copy
import io
import math
import tracemalloc
import warnings
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from conftest import SMALL, draw
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from make_hostile import FOLDER, hostile
from PIL import ImageCms, ImageOps
from vqcodec import media, pipeline, weights
from vqcodec.bitstream import container, header
from vqcodec.bitstream.container import RAW, STATIC, Bitstream, Chunk, ImageGeometry
from vqcodec.coding import chunks
from vqcodec.errors import (
    BitstreamError,
    DamagedError,
    DamageWarning,
    LimitError,
    MediaError,
    MediaWarning,
    ModelError,
    NotABitstreamError,
    TargetError,
    UsageError,
    VersionError,
)
from vqcodec.models import build
from vqcodec.models.vqvae import VQVAE
from vqcodec.models.vqvae.image import Config
from vqcodec.models.vqvae.search_image import RATE_WEIGHT
from vqcodec.pipeline import encoding as streams
from vqcodec.priors import base
from vqcodec.transform import image as transform

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><note/></x:xmpmeta>'
BITS = 6


@pytest.fixture(scope="session")
def codec(small: str) -> VQVAE:
    """The model of `small`, which nobody may change."""
    return weights.load(small)


@pytest.fixture(scope="session")
def large(small: str) -> pipeline.Encoded:
    """A picture of four chunks."""
    return pipeline.encode_file(draw(600, 520, 5), pipeline.EncodeOptions(model=small))


def codes_of(data: bytes, codec: VQVAE) -> np.ndarray:
    return chunks.read(container.parse(data), codec)


def raw_bytes(grid: tuple[int, int]) -> int:
    """What packing at a fixed width takes."""
    return sum(
        -(-BITS * (rows.stop - rows.start) * (columns.stop - columns.start) // 8)
        for rows, columns in ImageGeometry(grid[1], grid[0], stride=1).places
    )


def saved(picture: PIL.Image.Image, format: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, format, **options)
    return stream.getvalue()


def resign(data: bytes, size: int) -> bytes:
    """A header of `size` bytes with a valid checksum, whatever it says."""
    return data[: size - 4] + zlib.crc32(data[: size - 4]).to_bytes(4, "little") + data[size:]


# both ways

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
    assert np.array_equal(codes_of(encoded.data, codec), encoded.codes)
    assert encoded.codes.shape == (-(-height // 4), -(-width // 4))
    image = pipeline.decode(encoded.data, model=small)
    assert image.samples.shape == (height, width, channels)
    assert image.samples.dtype == np.uint8
    assert (image.alpha is None) is (alpha is None)
    if plane is not None:
        assert np.array_equal(image.alpha, plane), "alpha is kept without loss"
    error = np.square(image.samples.astype(float) - samples).mean()
    assert pipeline.verify(encoded) == pytest.approx(10 * np.log10(255**2 / error))
    assert error < np.square(samples.astype(float) - 128).mean() / 2, "it is that picture"
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
    assert np.array_equal(coloured.codes, encoded.codes)
    colours = pipeline.decode(coloured.data, model=small).samples
    assert colours.shape == (30, 40, 3), "gray pixels in three channels stay three channels"
    # Clipping comes after the mean.
    inside = ((colours > 0) & (colours < 255)).all(2)
    assert np.abs(colours.mean(2) - decoded.samples[:, :, 0])[inside].max() <= 1


def test_all_kinds_of_sources(small: str, tmp_path: Path) -> None:
    samples = draw(40, 30)
    picture = PIL.Image.fromarray(samples)
    png = saved(picture)
    path = tmp_path / "a.png"
    path.write_bytes(png)
    from_files = [
        pipeline.encode(source, model=small)
        for source in (str(path), path, png, io.BytesIO(png), PIL.Image.open(path), media.read_image(path))
    ]
    assert len(set(from_files)) == 1
    assert pipeline.info(from_files[0]).source == "PNG"
    from_memory = [
        pipeline.encode(source, model=small) for source in (samples, picture, media.Image(samples))
    ]
    assert len(set(from_memory)) == 1
    assert pipeline.info(from_memory[0]).source == ""
    images = [pipeline.decode(data, model=small) for data in (from_files[0], from_memory[0])]
    assert np.array_equal(images[0].samples, images[1].samples)
    with pytest.raises(MediaError, match="no such file"):
        pipeline.encode(tmp_path / "gone.png", model=small)
    with pytest.raises(MediaError, match="array is float64"):
        pipeline.encode(samples / 255, model=small)


def test_all_kinds_of_bitstream_sources(small: str, tmp_path: Path) -> None:
    data = pipeline.encode(draw(20, 10), model=small)
    path = tmp_path / "a.vqc"
    path.write_bytes(data)
    wanted = pipeline.decode(data, model=small).samples
    for source in (bytearray(data), memoryview(data), path, str(path), io.BytesIO(data)):
        assert np.array_equal(pipeline.decode(source, model=small).samples, wanted)
    for source in (data, path, io.BytesIO(data)):
        assert pipeline.info(source).geometry.width == 20
    with pytest.raises(MediaError, match="no such file"):
        pipeline.decode(tmp_path / "gone.vqc", model=small)
    with pytest.raises(NotABitstreamError, match="a PNG"):
        pipeline.decode(saved(PIL.Image.new("L", (3, 3))), model=small)


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


# size


def test_payload_is_what_the_tables_promise(large: pipeline.Encoded, codec: VQVAE) -> None:
    info = pipeline.info(large.data)
    assert info.priors == {STATIC: 4}
    promised = large.estimate_bits / 8
    assert promised < info.code_bytes <= promised * 1.005 + 4 * 8
    assert large.estimate_bits == pytest.approx(
        sum(
            base.cost_bits(codec.prior, [np.ascontiguousarray(large.codes[place])])
            for place in large.geometry.places
        )
    )


@pytest.mark.parametrize(("width", "height"), [(1, 1), (30, 20), (128, 128), (600, 520)])
@pytest.mark.parametrize("what", ["random", "rare", "noise"])
def test_never_larger_than_packing(
    small: str, codec: VQVAE, monkeypatch: pytest.MonkeyPatch, width: int, height: int, what: str
) -> None:
    rng = np.random.default_rng(0)
    grid = (-(-height // 4), -(-width // 4))
    pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
    if what != "noise":
        counts = codec.prior.tables.sum((0, 1), dtype=np.int64)
        rare = np.argsort(counts)[: 64 if what == "random" else 20]
        chosen = rng.choice(rare, grid).astype(np.int32)
        monkeypatch.setattr(streams, "analyse", lambda *_, **__: chosen)
    encoded = pipeline.encode_file(pixels, pipeline.EncodeOptions(model=small))
    info = pipeline.info(encoded.data)
    assert len(encoded.data) <= info.header_bytes + raw_bytes(grid)
    assert np.array_equal(codes_of(encoded.data, codec), encoded.codes)
    if what == "rare" and width > 1:
        assert set(info.priors) == {RAW}
        assert info.code_bytes == raw_bytes(grid)


def test_each_chunk_by_what_is_smaller(
    small: str, codec: VQVAE, large: pipeline.Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = large.codes.copy()
    rare = np.argsort(codec.prior.tables.sum((0, 1), dtype=np.int64))[:20]
    codes[:128, :128] = np.random.default_rng(0).choice(rare, (128, 128))
    monkeypatch.setattr(streams, "analyse", lambda *_, **__: codes)
    data = pipeline.encode(draw(600, 520), model=small)
    stream = container.parse(data)
    assert [chunk.prior for chunk in stream.chunks if chunk] == [RAW, STATIC, STATIC, STATIC]
    assert stream.chunks[1:] == container.parse(large.data).chunks[1:], "chunks know nothing of each other"
    assert np.array_equal(codes_of(data, codec), codes)


def test_a_model_without_tables(codec: VQVAE, tmp_path: Path) -> None:
    """As the best weights are while a training still runs."""
    bare = copy.deepcopy(codec)
    bare.prior = None
    path = tmp_path / "bare.safetensors"
    weights.save(bare, codec.card, path)
    encoded = pipeline.encode_file(draw(40, 30), pipeline.EncodeOptions(model=path))
    assert 0 <= 8 * raw_bytes((8, 10)) - encoded.estimate_bits < 8
    info = pipeline.info(encoded.data)
    assert info.priors == {RAW: 1} and info.code_bytes == raw_bytes((8, 10))
    assert np.array_equal(codes_of(encoded.data, bare), encoded.codes)
    assert pipeline.decode(encoded.data, model=path).width == 40
    lying = container.parse(encoded.data)
    lying = replace(lying, chunks=[Chunk(STATIC, b"1234")])
    with pytest.raises(ModelError, match="chunk 1 is coded by a prior that small does not have"):
        pipeline.decode(container.pack(lying), model=path)


def test_effort_buys_cost_and_decoders_do_not_care(small: str, codec: VQVAE) -> None:
    """Effort 2 and 3 look at the decoded picture: less error, and less error + weighted bits."""
    pixels = draw(200, 160, 3)
    errors, costs = [], []
    for effort in range(4):
        encoded = pipeline.encode_file(pixels, pipeline.EncodeOptions(model=small, effort=effort))
        assert np.array_equal(codes_of(encoded.data, codec), encoded.codes)
        decoded = pipeline.decode(encoded.data, model=small).samples
        error = np.square((decoded.astype(float) - pixels) / 127.5).sum()
        errors.append(error)
        costs.append(error + RATE_WEIGHT * encoded.estimate_bits)
        nearest = transform.analyse(pixels, codec)
        assert np.array_equal(encoded.codes, nearest) is (effort == 0)
    assert costs[3] < costs[2] < min(costs[:2])
    assert errors[3] < errors[1] and errors[2] < errors[1]
    with pytest.raises(UsageError, match="no effort 4"):
        pipeline.encode(pixels, model=small, effort=4)


# codes depend on integers alone


def test_codes_do_not_depend_on_threads_or_precision(
    small: str, codec: VQVAE, large: pipeline.Encoded
) -> None:
    threads = torch.get_num_threads()
    pictures = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            assert np.array_equal(codes_of(large.data, codec), large.codes)
            pictures.append(pipeline.decode(large.data, model=small).samples.astype(int))
    finally:
        torch.set_num_threads(threads)
    double = copy.deepcopy(codec).double()
    assert np.array_equal(codes_of(large.data, double), large.codes)
    pictures.append(transform.synthesise(large.codes, double, ImageGeometry(600, 520)).astype(int))
    for picture in pictures[1:]:
        assert np.abs(picture - pictures[0]).max() <= 1


def test_codes_do_not_depend_on_any_float(codec: VQVAE, large: pipeline.Encoded) -> None:
    spoilt = copy.deepcopy(codec)
    with torch.no_grad():
        for tensor in (*spoilt.parameters(), *spoilt.buffers()):
            tensor.fill_(torch.nan)
    assert np.array_equal(codes_of(large.data, spoilt), large.codes)


def test_fast_is_the_same_while_static_tables_are_all_there_is(small: str) -> None:
    pixels = draw(40, 30)
    assert pipeline.encode(pixels, model=small, fast=True) == pipeline.encode(pixels, model=small)


# what is asked for


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"bpp": 0.01}, TargetError, r"smallest is \d\.\d{3} bpp, target 0\.01"),
        ({"target_size": 40}, TargetError, r"smallest is \d+ bytes, target 40"),
        ({"psnr": 70}, TargetError, r"best is \d\d\.\d\d dB, target 70"),
        ({"quality": 4}, UsageError, "small has no quality 4"),
        ({"quality": 2.5}, UsageError, r"small has no quality 2\.5"),
        ({"quality": 3, "bpp": 1}, UsageError, "exclude each other"),
        ({"psnr": 20, "target_size": 9}, UsageError, "exclude each other"),
        ({"device": "tpu"}, UsageError, "unknown device"),
        ({"model": "gone"}, UsageError, "no model 'gone'"),
        ({"max_pixels": 1199}, MediaError, "megapixels, limit"),
    ],
)
def test_what_cannot_be_had(
    small: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        pipeline.encode(draw(40, 30), **({"model": small} | options))
    if "no quality" in message:
        assert caught.value.hint == "its operating points: 3"


def test_what_can_be_had(small: str) -> None:
    pixels = draw(40, 30)
    plain = pipeline.encode_file(pixels, pipeline.EncodeOptions(model=small))
    reached = pipeline.verify(plain)
    for options in (
        {"quality": 3},
        {"bpp": plain.bpp},
        {"target_size": len(plain.data)},
        {"psnr": reached - 1e-6},
        {"max_pixels": 1200},
    ):
        assert pipeline.encode(pixels, model=small, **options) == plain.data
    with pytest.raises(TargetError):
        pipeline.encode(pixels, model=small, target_size=len(plain.data) - 1)
    with pytest.raises(TargetError):
        pipeline.encode(pixels, model=small, psnr=reached + 1e-6)


def test_verify_notices_a_code_that_differs(large: pipeline.Encoded) -> None:
    assert 15 < pipeline.verify(large) < 50
    for place in ((0, 0), (-1, -1)):
        codes = large.codes.copy()
        codes[place] ^= 1
        with pytest.raises(DamagedError, match="does not decode to the codes"):
            pipeline.verify(replace(large, codes=codes))
    other = container.parse(large.data)
    swapped = replace(other, chunks=[*other.chunks[:2], other.chunks[3], other.chunks[2]])
    with pytest.raises(DamagedError):
        pipeline.verify(replace(large, data=container.pack(swapped)))


def test_progress(small: str, codec: VQVAE, large: pipeline.Encoded) -> None:
    told: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        told.append((done, total))

    pipeline.encode(draw(20, 10), model=small, progress=progress)
    pipeline.decode(large.data, model=small, progress=progress)
    assert told == [(1, 1), (1, 1)]
    for work in (
        lambda: transform.analyse(draw(200, 160), codec, area=500, progress=progress),
        lambda: transform.synthesise(
            large.codes, codec, ImageGeometry(600, 520), area=5000, progress=progress
        ),
    ):
        told.clear()
        work()
        assert len(told) > 3
        assert told == [(n, len(told)) for n in range(1, len(told) + 1)]


# models


def test_the_right_model_is_needed(
    small: str, codec: VQVAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pipeline.encode(draw(20, 10), model=small)
    fingerprint = codec.card["fingerprint"]
    monkeypatch.setattr(weights, "folder", lambda: tmp_path)
    with pytest.raises(ModelError) as caught:
        pipeline.decode(data)
    assert caught.value.message == f"needs model small ({fingerprint})"
    assert caught.value.hint == "-m FILE"
    other = copy.deepcopy(codec)
    with torch.no_grad():
        other.quantizer.codebook.add_(1)
    card = weights.save(other, {**codec.card, "name": "other"}, tmp_path / "other.safetensors")
    for model in ("other", tmp_path / "other.safetensors"):
        with pytest.raises(ModelError) as caught:
            pipeline.decode(data, model=model)
        assert caught.value.message == (
            f"needs model small ({fingerprint}), not other ({card['fingerprint']})"
        )
    # A shipped model of the same name with other weights is no better.
    (tmp_path / "other.safetensors").rename(tmp_path / "small.safetensors")
    with pytest.raises(ModelError, match=f"needs model small .{fingerprint}., not other"):
        pipeline.decode(data)
    (tmp_path / "small.safetensors").write_bytes(Path(small).read_bytes())
    assert pipeline.decode(data).width == 20


def test_chunks_of_priors_to_come(small: str) -> None:
    stream = container.parse(pipeline.encode(draw(20, 10), model=small))
    later = container.pack(replace(stream, chunks=[Chunk(7, b"learned")]))
    with pytest.raises(ModelError, match="chunk 1 is coded by a prior that small does not have") as caught:
        pipeline.decode(later, model=small)
    assert caught.value.hint == "upgrade"


def test_another_stride(small: str) -> None:
    stream = container.parse(pipeline.encode(draw(20, 10), model=small))
    with pytest.raises(DamagedError, match="header claims stride 8, small has 4"):
        pipeline.decode(container.pack(replace(stream, geometry=ImageGeometry(20, 10, 3, 8))), model=small)


def test_packed_codes_beyond_the_codebook() -> None:
    model = build(Config(**{**{key: int(value) for key, value in SMALL.items()}, "codes": 40}))
    stream = Bitstream("m", bytes(8), ImageGeometry(4, 4), [Chunk(RAW, bytes([39 << 2]))])
    assert chunks.read(stream, model) == 39
    with pytest.raises(DamagedError, match="damaged in chunk 1 of 1"):
        chunks.read(replace(stream, chunks=[Chunk(RAW, bytes([40 << 2]))]), model)


def test_salvage_of_content_that_no_encoder_writes(small: str, large: pipeline.Encoded) -> None:
    """Checksums that are right do not help a decoder; salvage gives up that chunk, and alpha, alone."""
    stream = container.parse(large.data)
    broken = list(stream.chunks)
    broken[1] = Chunk(STATIC, broken[1].payload + bytes(400))
    lying = container.pack(replace(stream, chunks=broken, boxes={"alpha": b"no PNG"}))
    with pytest.raises(DamagedError, match="damaged in chunk 2 of 4"):
        pipeline.decode(lying, model=small)
    image, messages = salvaged(lying, small)
    assert messages == ["damaged in chunk 2 of 4", "damaged in box alpha"]
    whole = pipeline.decode(large.data, model=small)
    assert image.alpha is None
    assert np.array_equal(image.samples[:400, :400], whole.samples[:400, :400])


# damage


def salvaged(data: bytes, small: str) -> tuple[media.Image, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        image = pipeline.decode(data, model=small, salvage=True)
    assert all(warning.category is DamageWarning for warning in caught)
    return image, [str(warning.message) for warning in caught]


@pytest.mark.parametrize("broken", range(4))
def test_salvage_restores_every_other_region(
    small: str, codec: VQVAE, large: pipeline.Encoded, broken: int
) -> None:
    head, at = header.read_header(large.data)
    at += sum(chunk.size for chunk in head.chunks[:broken]) + head.chunks[broken].size // 2
    damaged = bytearray(large.data)
    damaged[at] ^= 16
    message = f"damaged in chunk {broken + 1} of 4"
    with pytest.raises(DamagedError, match=message) as caught:
        pipeline.decode(bytes(damaged), model=small)
    assert caught.value.hint == "--salvage"
    with pytest.warns(DamageWarning, match=message):
        stream = container.parse(bytes(damaged), salvage=True)
    codes = chunks.read(stream, codec)
    intact = np.ones(codes.shape, bool)
    place = list(large.geometry.places)[broken]
    intact[place] = False
    assert np.array_equal(codes[intact], large.codes[intact])
    assert len(np.unique(codes[place])) == 1
    image, messages = salvaged(bytes(damaged), small)
    assert messages == [message]
    whole = pipeline.decode(large.data, model=small).samples
    far = intact.copy()
    rows, columns = place
    far[max(rows.start - codec.halo, 0) : rows.stop + codec.halo, :][
        :, max(columns.start - codec.halo, 0) : columns.stop + codec.halo
    ] = False
    pixels = np.kron(far, np.ones((4, 4), bool))[:520, :600]
    assert np.array_equal(image.samples[pixels], whole[pixels])
    if broken == 0:
        inside = image.samples[100:400, 100:400].astype(int)
        assert np.ptp(inside, (0, 1)).max() <= 80 and abs(inside.mean() - 128) < 40, "a grey"


def test_salvage_of_a_cut_file_and_of_lost_metadata(small: str, large: pipeline.Encoded) -> None:
    head, size = header.read_header(large.data)
    cut = large.data[: size + head.chunks[0].size + 3]
    image, messages = salvaged(cut, small)
    assert image.samples.shape == (520, 600, 3)
    assert messages == [
        f"truncated: {len(cut)} of {len(large.data)} bytes",
        *(f"damaged in chunk {n} of 4" for n in (2, 3, 4)),
    ]
    with pytest.raises(DamagedError, match=f"truncated: {len(cut)} of"):
        pipeline.decode(cut, model=small)
    plane = np.arange(200, dtype=np.uint8).reshape(10, 20)
    data = bytearray(pipeline.encode(media.Image(draw(20, 10), plane, icc=SRGB), model=small))
    data[header.read_header(bytes(data))[1] + 20] ^= 1
    image, messages = salvaged(bytes(data), small)
    assert messages == ["damaged in box icc"]
    assert image.icc is None
    assert np.array_equal(image.alpha, plane)
    good = pipeline.encode(draw(20, 10), model=small)
    assert salvaged(good, small)[1] == []


def test_every_flipped_bit_is_noticed(small: str) -> None:
    plane = np.full((10, 20), 255, np.uint8)
    plane[3, 4] = 0
    data = pipeline.encode(media.Image(draw(20, 10), plane, xmp=XMP, source="PNG"), model=small)
    assert len(data) < 400
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BitstreamError):
            pipeline.decode(bytes(flipped), model=small)
    for size in range(len(data)):
        with pytest.raises(BitstreamError):
            pipeline.decode(data[:size], model=small)


@pytest.mark.parametrize("name", hostile())
def test_hostile_files(small: str, name: str) -> None:
    _, error, message = hostile()[name]
    with pytest.raises(error) as caught:
        pipeline.decode(FOLDER / f"{name}.vqc", model=small)
    assert type(caught.value) is error
    assert message in caught.value.message
    # Salvage may get past what is told, but the model that these files name is another one.
    with warnings.catch_warnings(), pytest.raises((BitstreamError, ModelError)):
        warnings.simplefilter("ignore", DamageWarning)
        pipeline.decode(FOLDER / f"{name}.vqc", model=small, salvage=True)


@pytest.mark.parametrize("chunks", ["empty", "raw"])
def test_sizes_are_limited_before_memory_is_asked_for(small: str, codec: VQVAE, chunks: str) -> None:
    fingerprint = bytes.fromhex(codec.card["fingerprint"])
    chunk = Chunk(STATIC, b"") if chunks == "empty" else Chunk(RAW, b"\0" * 100)
    side = 16_000
    stream = Bitstream("small", fingerprint, ImageGeometry(side, side), [chunk] * (-(-side // 512)) ** 2)
    data = container.pack(stream)
    tracemalloc.start()
    try:
        with pytest.raises(LimitError, match="header claims 16,000 x 16,000 pixels") as caught:
            pipeline.decode(data, model=small)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.hint == "--max-pixels"
    assert peak < 20 * len(data) + 2**20
    with pytest.raises(LimitError):
        pipeline.decode(pipeline.encode(draw(20, 10), model=small), model=small, max_pixels=199)


# fuzz

FUZZ = settings(derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
PIXELS = 20_000


@pytest.fixture(scope="session")
def corpus(small: str) -> list[bytes]:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    plane = np.arange(63, dtype=np.uint8).reshape(7, 9)
    sources = [
        draw(24, 20),
        media.Image(draw(9, 7)[:, :, :1], plane, icc=SRGB[:60], exif=b"MM\0*" * 20, xmp=XMP, source="PNG"),
        noise,
        draw(520, 8),
        draw(100, 90, 2),
    ]
    return [pipeline.encode(source, model=small) for source in sources]


def mutate(data: bytes, draw_: st.DrawFn, others: list[bytes]) -> bytes:
    out = bytearray(data)
    for _ in range(draw_(st.integers(1, 4))):
        kind = draw_(st.sampled_from(["flip", "flip", "set", "cut", "insert", "delete", "splice"]))
        at = min(draw_(st.integers(0, max(len(out) - 1, 0)) | st.integers(0, 60)), len(out))
        if kind == "flip" and at < len(out):
            out[at] ^= 1 << draw_(st.integers(0, 7))
        elif kind == "set" and at < len(out):
            out[at] = draw_(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
        elif kind == "cut":
            del out[at:]
        elif kind == "insert":
            out[at:at] = draw_(st.binary(min_size=1, max_size=8))
        elif kind == "delete":
            del out[at : at + draw_(st.integers(1, 8))]
        elif kind == "splice":
            other = draw_(st.sampled_from(others))
            out[at:] = other[draw_(st.integers(0, len(other))) :]
    return bytes(out)


def end_well(data: bytes, small: str, salvage: bool) -> media.Image | None:
    """The picture, or None after an error of ours; everything else, warnings included, comes through."""
    with warnings.catch_warnings():
        if salvage:
            warnings.simplefilter("ignore", DamageWarning)
        try:
            image = pipeline.decode(data, model=small, salvage=salvage, max_pixels=PIXELS)
        except (BitstreamError, ModelError) as error:
            assert error.message
            return None
    info = container.read_info(data)
    assert image.samples.shape == (info.geometry.height, info.geometry.width, info.geometry.channels)
    assert image.samples.dtype == np.uint8
    assert image.alpha is None or image.alpha.shape == image.samples.shape[:2]
    return image


@settings(FUZZ, max_examples=2000)
@given(st.data())
def test_mutated_files_end_well(small: str, corpus: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(corpus) - 1))
    mutated = mutate(corpus[index], data.draw, corpus)
    image = end_well(mutated, small, data.draw(st.booleans()))
    if mutated not in corpus and image is not None:
        # Only salvage takes a changed file.
        with pytest.raises(BitstreamError):
            pipeline.decode(mutated, model=small)


@settings(FUZZ, max_examples=600)
@given(st.data())
def test_headers_that_lie_with_valid_checksums_end_well(
    small: str, corpus: list[bytes], data: st.DataObject
) -> None:
    original = data.draw(st.sampled_from(corpus))
    size = container.read_info(original).header_bytes
    start = data.draw(st.sampled_from([0, 21, size - 20]))
    part = mutate(original[start : size - 4], data.draw, [original[:size]])
    lying = original[:start] + part + bytes(4)
    end_well(resign(lying, len(lying)) + original[size:], small, data.draw(st.booleans()))


def test_content_that_lies_with_valid_checksums_ends_well(small: str, corpus: list[bytes]) -> None:
    """Payloads, priors, metadata and sizes that no encoder writes, in a container that is sound."""
    streams = [container.parse(original) for original in corpus]
    payloads = [chunk.payload for other in streams for chunk in other.chunks if chunk]
    believed: list[bool] = []

    @settings(FUZZ, max_examples=800)
    @given(st.data())
    def lie(data: st.DataObject) -> None:
        stream = data.draw(st.sampled_from(streams))
        geometry = stream.geometry
        if data.draw(st.booleans()):
            sides = st.integers(1, 140) | st.sampled_from([512, 513, 1024, 1025, 5000])
            geometry = ImageGeometry(
                data.draw(sides), data.draw(sides), data.draw(st.sampled_from([1, 3])), 4
            )
        chunks: list[Chunk | None] = []
        for number in range(geometry.chunk_count):
            chunk = stream.chunks[number % len(stream.chunks)]
            assert chunk is not None
            payload, prior = chunk.payload, chunk.prior
            if data.draw(st.booleans()):
                payload = mutate(payload, data.draw, payloads)
            if data.draw(st.integers(0, 5)) == 0:
                prior = data.draw(st.sampled_from([RAW, STATIC, 2, 255]))
            chunks.append(Chunk(prior, payload))
        boxes = dict(stream.boxes)
        for name in list(boxes):
            if data.draw(st.booleans()):
                boxes[name] = mutate(boxes[name], data.draw, list(boxes.values()))
        lying = container.pack(replace(stream, geometry=geometry, chunks=chunks, boxes=boxes))
        believed.append(end_well(lying, small, data.draw(st.booleans())) is not None)

    lie()
    assert len(believed) >= 800
    assert 0.1 < np.mean(believed) < 0.9, "both of what stands behind the checksums was seen"


# what a careless or hostile world brings


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


def test_metadata_that_outweighs_the_picture_is_told(small: str) -> None:
    noise = np.random.default_rng(0).bytes(3000)
    with pytest.warns(MediaWarning, match=r"metadata takes 3,\d+ bytes, the codes .* --strip exif"):
        pipeline.encode(media.Image(draw(16, 16), exif=noise), model=small)


@pytest.mark.parametrize("goal", [{"bpp": math.nan}, {"psnr": math.nan}, {"bpp": 0.0}, {"target_size": -1}])
def test_goals_that_are_none(small: str, goal: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="above zero"):
        pipeline.encode(draw(8, 8), model=small, **goal)


def test_settings_of_a_later_model(small: str) -> None:
    stream = container.parse(pipeline.encode(draw(8, 8), model=small))
    with pytest.raises(VersionError, match="settings"):
        pipeline.decode(container.pack(replace(stream, settings=b"\1")), model=small)


@pytest.mark.parametrize("source", [None, 5, io.StringIO("text")])
def test_what_is_no_source(small: str, source: object) -> None:
    with pytest.raises(MediaError):
        pipeline.encode(source, model=small)
    with pytest.raises(MediaError):
        pipeline.decode(source, model=small)  # type: ignore[arg-type]
