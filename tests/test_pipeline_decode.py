"""What decodes an image's bitstream, and what is refused."""

from __future__ import annotations

import copy
import io
import tracemalloc
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from coded import XMP, assert_every_bit_counts, saved
from conftest import SMALL, draw, sing
from make_hostile import FOLDER, hostile
from vqcodec import media, pipeline, weights
from vqcodec.bitstream import container
from vqcodec.bitstream.container import PIXELS, RAW, STATIC, Bitstream, Chunk, ImageGeometry
from vqcodec.coding import chunks
from vqcodec.errors import (
    BitstreamError,
    DamagedError,
    DamageWarning,
    LimitError,
    MediaError,
    ModelError,
    NotABitstreamError,
    VersionError,
)
from vqcodec.models import build
from vqcodec.models.vqvae import VQVAE
from vqcodec.models.vqvae.image import Config


@pytest.fixture(scope="module")
def codec(small: str) -> VQVAE:
    """The model of `small`, which nobody may change."""
    return weights.load(small)


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


def test_the_right_model_is_needed(
    small: str, codec: VQVAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pipeline.encode(draw(20, 10), model=small)
    fingerprint = codec.card.fingerprint
    monkeypatch.setattr(weights, "folder", lambda: tmp_path)
    with pytest.raises(ModelError) as caught:
        pipeline.decode(data)
    assert caught.value.message == f"needs model small ({fingerprint})"
    assert caught.value.hint == "name its weights with -m FILE"
    other = copy.deepcopy(codec)
    with torch.no_grad():
        other.quantizer.codebook.add_(1)
    card = weights.save(other, replace(codec.card, name="other"), tmp_path / "other.safetensors")
    for model in ("other", tmp_path / "other.safetensors"):
        with pytest.raises(ModelError) as caught:
            pipeline.decode(data, model=model)
        assert caught.value.message == (f"needs model small ({fingerprint}), not other ({card.fingerprint})")
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
    assert caught.value.hint == "upgrade vqcodec, or name the weights that wrote it with -m FILE"


def test_another_stride(small: str) -> None:
    stream = container.parse(pipeline.encode(draw(20, 10), model=small))
    with pytest.raises(DamagedError, match="header claims stride 8, small has 4"):
        pipeline.decode(container.pack(replace(stream, geometry=ImageGeometry(20, 10, 3, 8))), model=small)


def test_packed_codes_beyond_the_codebook() -> None:
    model = build(Config(**{**{key: int(value) for key, value in SMALL.items()}, "codes": 40}))
    stream = Bitstream("m", bytes(8), ImageGeometry(4, 4), [Chunk(RAW, bytes([39 << 2]))])
    assert chunks.decode(stream, model.at(0)).symbols["codes"] == 39
    with pytest.raises(DamagedError, match="damaged in chunk 1 of 1"):
        chunks.decode(replace(stream, chunks=[Chunk(RAW, bytes([40 << 2]))]), model.at(0))


def test_settings_of_a_later_model(small: str) -> None:
    stream = container.parse(pipeline.encode(draw(8, 8), model=small))
    with pytest.raises(VersionError, match="settings"):
        pipeline.decode(container.pack(replace(stream, settings=b"\1")), model=small)


def test_every_flipped_bit_is_noticed(small: str) -> None:
    plane = np.full((10, 20), 255, np.uint8)
    plane[3, 4] = 0
    data = pipeline.encode(media.Image(draw(20, 10), plane, xmp=XMP, source="PNG"), model=small)
    assert len(data) < 400
    assert_every_bit_counts(data, small)


@pytest.mark.parametrize("name", hostile())
def test_hostile_files(small: str, name: str) -> None:
    _, error, message = hostile()[name]
    with pytest.raises(error) as caught:
        pipeline.decode(FOLDER / f"{name}.vqc", model=small)
    assert type(caught.value) is error
    assert message in caught.value.message
    # Salvage may get past what is named, but the model that these files name is another one.
    with warnings.catch_warnings(), pytest.raises((BitstreamError, ModelError)):
        warnings.simplefilter("ignore", DamageWarning)
        pipeline.decode(FOLDER / f"{name}.vqc", model=small, salvage=True)


@pytest.mark.parametrize("held", ["empty", "raw", "pixels"])
def test_sizes_are_limited_before_memory_is_asked_for(small: str, codec: VQVAE, held: str) -> None:
    fingerprint = bytes.fromhex(codec.card.fingerprint)
    chunk = {"empty": Chunk(STATIC, b""), "raw": Chunk(RAW, bytes(100)), "pixels": Chunk(PIXELS, bytes(100))}[
        held
    ]
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
    assert caught.value.hint == "raise --max-pixels to decode it"
    assert peak < 20 * len(data) + 2**20
    with pytest.raises(LimitError):
        pipeline.decode(pipeline.encode(draw(20, 10), model=small), model=small, max_pixels=199)


def test_audio_has_no_pixels(small_sound: str) -> None:
    stream = container.parse(pipeline.encode(media.Audio.of(sing(0.1), 16_000), model=small_sound))
    lying = container.pack(replace(stream, chunks=[Chunk(PIXELS, b"\0" * 40)]))
    with pytest.raises(ModelError, match="chunk 1 is coded by a prior that small-sound does not have"):
        pipeline.decode(lying, model=small_sound)
