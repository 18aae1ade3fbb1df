"""Images with damage: every other region is as it was."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from coded import SRGB, broken_in, codes_in, large_image, salvaged
from conftest import draw
from vqcodec import media, pipeline, weights
from vqcodec.bitstream import container, header
from vqcodec.bitstream.container import STATIC, Chunk
from vqcodec.coding import chunks
from vqcodec.errors import DamagedError, DamageWarning, MediaWarning, warn
from vqcodec.models.vqvae import VQVAE


@pytest.fixture(scope="module")
def codec(small: str) -> VQVAE:
    """The model of `small`, which nobody may change."""
    return weights.load(small)


@pytest.fixture(scope="module")
def large(small: str) -> pipeline.Encoded:
    """An image of four chunks."""
    return large_image(small)


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


@pytest.mark.parametrize("broken", range(4))
def test_salvage_restores_every_other_region(
    small: str, codec: VQVAE, large: pipeline.Encoded, broken: int
) -> None:
    damaged = broken_in(large.data, broken)
    message = f"damaged in chunk {broken + 1} of 4"
    with pytest.raises(DamagedError, match=message) as caught:
        pipeline.decode(damaged, model=small)
    assert caught.value.hint == "decode the undamaged part with --salvage"
    stream = container.parse(damaged, salvage=True)
    assert stream.damage == [message]
    found = chunks.decode(stream, codec.at(0))
    assert found.damage == [], "it is listed once"
    region = list(large.geometry.regions)[broken]
    assert found.lost == [region]
    codes = found.symbols["codes"]
    intact = np.ones(codes.shape, bool)
    part = region.part(4)
    intact[part] = False
    assert np.array_equal(codes[intact], codes_in(large)[intact])
    assert len(np.unique(codes[part])) == 1
    image, messages = salvaged(damaged, small)
    assert messages == [message]
    whole = pipeline.decode(large.data, model=small).samples
    far = intact.copy()
    rows, columns = part
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


def test_warnings_come_from_the_line_that_called(small: str, large: pipeline.Encoded, tmp_path: Path) -> None:
    """However deep in the package the damage is found."""
    damaged = broken_in(large.data, 1)
    stream = container.parse(large.data)
    deeper = list(stream.chunks)
    deeper[2] = Chunk(STATIC, bytes(3))
    for data in (damaged, container.pack(replace(stream, chunks=deeper, boxes={"alpha": b"no PNG"}))):
        with pytest.warns(DamageWarning) as caught:
            pipeline.decode(data, model=small, salvage=True)
        assert caught and {warning.filename for warning in caught} == {__file__}
        lines = Path(__file__).read_text().splitlines()
        assert all("pipeline.decode(data" in lines[warning.lineno - 1] for warning in caught)
    with pytest.warns(MediaWarning, match="metadata takes") as caught:
        pipeline.encode(media.Image(draw(16, 16), exif=np.random.default_rng(0).bytes(3000)), model=small)
    assert [warning.filename for warning in caught] == [__file__]


def test_warn_from_outside_names_its_caller() -> None:
    """The function is no part of a stack: whoever calls it from outside the package has warned."""
    with pytest.warns(DamageWarning, match="^so$") as caught:
        warn("so", DamageWarning)
    assert caught[0].filename == __file__


def test_parsing_warns_of_nothing(large: pipeline.Encoded) -> None:
    """Damage is in what it returns; without salvage it is an error."""
    damaged = broken_in(broken_in(large.data, 0), 3) + b"more"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stream = container.parse(damaged, salvage=True)
    assert stream.damage == ["4 bytes after the end", "damaged in chunk 1 of 4", "damaged in chunk 4 of 4"]
    assert [chunk.intact for chunk in stream.chunks] == [False, True, True, False]
    with pytest.raises(DamagedError, match="4 bytes after the end"):
        container.parse(damaged)
    assert container.parse(large.data).damage == container.parse(large.data, salvage=True).damage == []


def test_a_lost_region_is_what_grey_has(codec: VQVAE, large: pipeline.Encoded) -> None:
    """The code of the middle of mid-grey, found with the nearest codes whatever the effort."""
    (value,) = codec.at(0).neutral().values()
    with torch.inference_mode():
        grey = codec.analyse(torch.zeros(1, 3, 256, 256))
    assert value.shape == () and value == grey[0, 32, 32]
    assert codec.at(0, effort=3).neutral()["codes"] == value
    stream = container.parse(broken_in(large.data, 1), salvage=True)
    found = chunks.decode(stream, codec.at(0))
    assert (found.symbols["codes"][found.lost[0].part(4)] == value).all()
