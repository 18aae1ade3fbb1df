"""The CRC of decoded pixels: of models in integers, from the command to the decoder that checks it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import vqcodec
from cli_fakes import done, invoke
from numpy.typing import NDArray
from torch.nn import functional
from variable_rate_models import trained
from vqcodec import media, pipeline, training, weights
from vqcodec.bitstream import container
from vqcodec.errors import DamagedError, DamageWarning, UsageError
from vqcodec.models.vae import VAE
from vqcodec.priors.exact_convolutions import best_carrier


@pytest.fixture(scope="module")
def integers(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Weights of a small VAE whose synthesis alone was trained on, for integers."""
    start = trained("vae-image", photos, tmp_path_factory)
    settings = {"integer_synthesis": "true", "synthesis_only": "true"}
    folder = tmp_path_factory.mktemp("integers") / "run"
    run = training.train(
        photos,
        model="vae-image",
        start=start.best,
        output=folder,
        steps=3,
        batch=2,
        crop=64,
        checkpoint_every=3,
        overrides=settings,
    )
    return str(run.best)


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    """A picture of noise on a slope."""
    generator = np.random.default_rng(0)
    slope = np.linspace(30, 220, 80)[:, None, None] + np.zeros((1, 100, 3))
    return (slope + generator.normal(size=(80, 100, 3)) * 12).clip(0, 255).astype(np.uint8)


def test_the_synthesis_alone_is_trained(
    integers: str, photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The encoder and the prior stay, to the bit; the file holds the synthesis in integers alone."""
    start = weights.read_tensors(str(trained("vae-image", photos, tmp_path_factory).best))
    found = weights.read_tensors(integers)
    kept = [
        name for name in start if name.startswith(("forward_", "encoder.", "learned.", "offset", "slope"))
    ]
    assert len(kept) > 20
    for name in kept:
        assert np.array_equal(start[name], found[name]), name
    assert not any(name.startswith(("backward_", "decoder.")) for name in found)
    assert found["synthesis.linear.wide"].dtype == np.int16
    assert {array.dtype.name for name, array in found.items() if name.endswith("spatial.weight")} >= {"int8"}
    assert weights.load(integers).card.config["integer_synthesis"] is True


def test_weights_in_integers_are_loaded_as_they_were_saved(integers: str, tmp_path: Path) -> None:
    """A model that is loaded, trained on from, and saved again has the same fingerprint."""
    loaded = weights.load(integers)
    assert isinstance(loaded, VAE)
    again = VAE(loaded.config)
    again.load_from(loaded, 1.0)
    card = weights.save(again.export().equipped(loaded.card), loaded.card, tmp_path / "again.safetensors")
    assert card.fingerprint == loaded.card.fingerprint


@pytest.mark.parametrize("quality", [1, 3, 5])
def test_a_file_has_the_crc_of_its_pixels(integers: str, picture: NDArray[np.uint8], quality: float) -> None:
    """Decoding checks it, --verify too; gray images and residuals as well."""
    for samples in (picture, picture[:, :, :1]):
        data = vqcodec.encode(samples, model=integers, quality=quality, pixel_crc=True)
        plain = vqcodec.encode(samples, model=integers, quality=quality)
        assert len(data) - len(plain) in (11, 12)
        decoded = vqcodec.decode_image(data, model=integers).samples
        assert np.array_equal(decoded, vqcodec.decode_image(plain, model=integers).samples)


def wrong(data: bytes) -> bytes:
    """The same file, with the CRC of other pixels."""
    stream = container.parse(data)
    stream.boxes["pixel-crc"] = bytes(4)
    return container.pack(stream)


def test_other_pixels_are_an_error(integers: str, picture: NDArray[np.uint8]) -> None:
    """With salvage they are a warning."""
    data = wrong(vqcodec.encode(picture, model=integers, pixel_crc=True))
    with pytest.raises(DamagedError, match="not those of the encoder"):
        vqcodec.decode(data, model=integers)
    with pytest.warns(DamageWarning, match="not those of the encoder"):
        decoded = vqcodec.decode_image(data, model=integers, salvage=True)
    assert decoded.samples.shape == picture.shape


def test_damage_is_told_once(integers: str, picture: NDArray[np.uint8]) -> None:
    """Where a chunk is lost, its pixels are others: that says nothing about the machine."""
    data = bytearray(vqcodec.encode(picture, model=integers, pixel_crc=True))
    data[-3] ^= 255
    with pytest.warns(DamageWarning, match="chunk 1") as warned:
        vqcodec.decode(bytes(data), model=integers, salvage=True)
    assert not any("not those" in str(warning.message) for warning in warned)


def test_the_box_counts_in_sizes(integers: str, picture: NDArray[np.uint8]) -> None:
    """A target holds with it."""
    size = len(vqcodec.encode(picture, model=integers, quality=3))
    data = vqcodec.encode(picture, model=integers, target_size=size, pixel_crc=True)
    assert len(data) <= size
    assert "pixel-crc" in container.parse(data).boxes


def test_files_without_use_of_it_are_refused(integers: str, picture: NDArray[np.uint8]) -> None:
    """Pixels of floating point differ between machines; audio has none; stored ones are exact."""
    sound = media.Audio.of(np.zeros(1600, np.float32), 16_000)
    for source, options, message, hint in (
        (picture, {"model": "vqvae-image"}, "floating point", "integer_synthesis=true"),
        (sound, {}, "for images, not for audio", "leave out --pixel-crc"),
        (picture, {"lossless": True}, "stored pixels are exact", "leave out --pixel-crc"),
        (picture, {"model": integers, "lossless": True}, "stored pixels are exact", "leave out --pixel-crc"),
    ):
        with pytest.raises(UsageError, match=message) as refused:
            pipeline.encode_file(source, pipeline.EncodeOptions(**options, pixel_crc=True))  # type: ignore[arg-type]
        assert hint in refused.value.hint


def test_commands(
    integers: str, picture: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--pixel-crc with --verify; info names the box; decode tells what computed, and refuses other pixels."""
    monkeypatch.chdir(tmp_path)
    with Path("a.png").open("wb") as file:
        media.write(media.Image(picture), file, "png")
    done("encode", "a.png", "-m", integers, "--pixel-crc", "--verify")
    assert "pixel-crc" in done("info", "a.vqc").stdout
    told = done("decode", "a.vqc", "-m", integers, "-o", "b.png", "-vv").stderr
    assert f"synthesis in integers by {best_carrier('cpu')}" in told
    Path("a.vqc").write_bytes(wrong(Path("a.vqc").read_bytes()))
    refused = invoke("decode", "a.vqc", "-m", integers, "-o", "c.png")
    assert refused.exit_code != 0
    assert "decoded pixels are not those of the encoder" in refused.stderr
    assert not Path("c.png").exists()
    assert "floating point" in invoke("encode", "b.png", "-m", "vqvae-image", "--pixel-crc").stderr


def test_stored_pixels_are_analysed_alike_in_any_order(integers: str) -> None:
    """A decoder analyses stored pixels next to coded ones: of stored weights, float64 holds the sums."""
    model = weights.load(integers)
    assert isinstance(model, VAE)
    samples = torch.randint(0, 256, (1, 3, 64, 96)) * (2 / 255) - 1
    found = model.at(100).analyse_known(samples)["y"]
    other = model.equipped()
    other.linear_analysis = backwards(model)  # type: ignore[method-assign]
    assert torch.equal(other.at(100).analyse_known(samples)["y"], found)
    assert not torch.equal(model.at(100).analyse(samples)["y"], found)


def backwards(model: VAE) -> Callable[[torch.Tensor], torch.Tensor]:
    """The linear analysis, whose sums run over all inputs in the other direction."""

    def analysis(pixels: torch.Tensor) -> torch.Tensor:
        columns = functional.unfold(functional.pixel_unshuffle(pixels, 8), 4, padding=1, stride=2)[0]
        basis = model.forward_basis.double().flatten(1)
        total = torch.zeros(len(basis), columns.shape[1], dtype=torch.float64)
        for n in reversed(range(len(columns))):
            total += basis[:, n : n + 1] * columns[n]
        height, width = (side // 16 for side in pixels.shape[2:])
        return total.view(1, -1, height, width)

    return analysis
