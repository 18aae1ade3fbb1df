"""Bits back: sets of small pictures without loss, by a VAE whose networks are integers."""

from __future__ import annotations

import io
import json
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import vqcodec.models.latent.vae as latent_vae
from cli_fakes import invoke
from vqcodec import media, pipeline, weights
from vqcodec.bitstream import container
from vqcodec.bitstream.geometry import PICTURES, SetGeometry
from vqcodec.coding import bits_back
from vqcodec.errors import DamagedError, DamageWarning, LimitError, MediaError, UsageError, VqcodecWarning
from vqcodec.models import latent
from vqcodec.models.latent.integers import FixedPointLinear, IntegerVAE
from vqcodec.priors import latent_tables
from vqcodec.priors.base import TOTAL
from vqcodec.priors.gaussian_tables import SCALE_MIN, masses

SIDE = 12


def vae(units: int = 6) -> latent.VAE:
    """A VAE with weights large enough that latents matter."""
    torch.manual_seed(3)
    model = latent.VAE(latent_vae.Config(side=SIDE, units=units, hidden=32))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
        model.encoder[-1].bias[units:] -= 3
        model.decoder[4].bias -= 4
    return model


def pictures(count: int, seed: int = 0) -> np.ndarray:
    """Draw pictures from the model's own prior."""
    drawn = vae().generate(count, seed)[:, 0]
    return (np.random.default_rng(seed).random(drawn.shape) < (drawn.numpy() + 1) / 2).astype(np.uint8)


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bits") / "small-bits.safetensors"
    model = vae()
    weights.save(model, model.make_card("small-bits", {"chain": []}, {}), path)
    return path


def test_every_picture_comes_back_from_either_arithmetic_and_in_order() -> None:
    model, found = vae(), pictures(60).reshape(60, -1)
    exact = model.in_integers()
    data = bits_back.encode(found, exact)
    assert np.array_equal(bits_back.decode(data, 60, exact), found)
    whole = IntegerVAE(model.encoder, model.decoder, np.int64)
    assert bits_back.encode(found, whole) == data
    assert np.array_equal(bits_back.decode(data, 60, whole), found)


def test_the_rate_is_the_negative_elbo_of_the_float_networks() -> None:
    model, found = vae(), pictures(1000)
    x = torch.from_numpy(found).float()[:, None]
    with torch.no_grad():
        torch.manual_seed(0)
        q = model.posterior(x)
        draws = [(model.kl(q).sum(1) - model.log_likelihood(x, q.sample())).mean() for _ in range(20)]
    expected = float(torch.stack(draws).mean()) / math.log(2)
    data = bits_back.encode(found.reshape(1000, -1), model.in_integers())
    spent = 8 * (len(data) - 4 * len(bits_back.SEED)) / 1000
    assert spent == pytest.approx(expected, rel=0.01)
    # Without its bits back, a picture would cost its latents too.
    rate = float(model.kl(q).sum(1).mean()) / math.log(2)
    assert rate > 3


def test_integers_are_the_networks_rounded() -> None:
    model, found = vae(), pictures(50)
    exact = model.in_integers()
    means, scales = exact.posterior(found.reshape(50, -1))
    with torch.no_grad():
        q = model.posterior(torch.from_numpy(found).float()[:, None])
    assert np.abs(means / latent_tables.SIGMA - q.mean.numpy()).max() < 0.02
    sigma = 2.0 ** ((3 * scales.astype(float) + SCALE_MIN) / 16) / latent_tables.SIGMA
    inside = scales < latent_tables.PRIOR
    ratio = sigma / (q.log_variance / 2).exp().numpy()
    assert np.abs(np.log2(ratio[inside])).max() < 2 / 16
    latents = means[0]
    with torch.no_grad():
        z = torch.from_numpy(latents / latent_tables.SIGMA).float()[None]
        ones = model.decode(z).flatten().numpy()
    frequencies = exact.likelihood(latents)
    assert (frequencies.sum(1) == TOTAL).all() and (frequencies > 0).all()
    assert np.abs(frequencies[:, 1] / TOTAL - ones).max() < 0.01


@pytest.mark.parametrize("index", [1, 20, latent_tables.PRIOR])
def test_tables_sum_to_the_total_and_are_decided_far_from_a_half(index: int) -> None:
    table = latent_tables.posterior(index)
    largest = latent_tables.largest_symbol(index)
    assert table.sum() == TOTAL and (table > 0).all() and (table == table[::-1]).all()
    assert latent_tables.MEAN_LIMIT + largest <= latent_tables.LIMIT


def test_no_mass_is_so_near_to_a_half_that_another_erfc_could_round_it_elsewhere() -> None:
    cases = [(2.0 ** ((3 * i + SCALE_MIN) / 16), latent_tables.largest_symbol(i)) for i in range(1, 51)]
    for sigma, largest in [*cases, (latent_tables.SIGMA, latent_tables.LIMIT)]:
        scaled = masses(sigma, largest) * (TOTAL - 2 * largest - 1)
        assert np.abs(scaled - np.floor(scaled) - 0.5).min() > 1e-6


def test_a_layer_beyond_what_is_exact_is_refused() -> None:
    with pytest.raises(Exception, match="exact"):
        FixedPointLinear(np.full((1000, 1), 2.0**40), np.zeros(1), 20, 2.0**10)


def test_damaged_pictures_are_noticed_or_refused() -> None:
    exact, found = vae().in_integers(), pictures(8).reshape(8, -1)
    data = bits_back.encode(found, exact)
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 0x10
        with pytest.raises(DamagedError):
            bits_back.decode(bytes(changed), 8, exact)
    for count in (7, 9):
        with pytest.raises(DamagedError):
            bits_back.decode(data, count, exact)
    with pytest.raises(DamagedError):
        bits_back.decode(data[:-2], 8, exact)


def test_words_are_those_of_the_arithmetic_in_the_format() -> None:
    """An ANS coder of Python's integers, as in FORMAT-priors.md, decodes the payload."""
    exact, found = vae().in_integers(), pictures(5).reshape(5, -1)
    words = np.frombuffer(bits_back.encode(found, exact), "<u4").tolist()
    state = 0

    def refill() -> None:
        nonlocal state
        while state < 2**32 and words:
            state = state << 32 | words.pop()

    def pop(frequencies: list[int]) -> int:
        nonlocal state
        quantile, symbol, below = state % TOTAL, 0, 0
        while below + frequencies[symbol] <= quantile:
            below += frequencies[symbol]
            symbol += 1
        state = (state >> 24) * frequencies[symbol] + quantile - below
        refill()
        return symbol

    def push(symbol: int, frequencies: list[int]) -> None:
        nonlocal state
        if state >= frequencies[symbol] << 40:
            words.append(state % 2**32)
            state >>= 32
        high, low = divmod(state, frequencies[symbol])
        state = (high << 24) + low + sum(frequencies[:symbol])

    refill()
    prior = latent_tables.prior().tolist()
    for expected in found[::-1]:
        latents = np.array([pop(prior) - latent_tables.LIMIT for _ in range(6)], np.int32)
        pixels = [pop(pair) for pair in exact.likelihood(latents).tolist()]
        assert pixels == expected.tolist()
        means, scales = exact.posterior(expected[None])
        order = sorted(range(6), key=lambda unit: (scales[0, unit], unit))
        for unit in order[::-1]:
            table = latent_tables.posterior(int(scales[0, unit])).tolist()
            push(int(latents[unit] - means[0, unit]) + len(table) // 2, table)
    assert words + [state % 2**32, state >> 32] == bits_back.SEED.tolist()


@pytest.mark.parametrize("white", [1, 255])
@pytest.mark.parametrize("format", media.SET_FORMATS)
def test_a_set_comes_back_from_a_file(weights_file: Path, white: int, format: str) -> None:
    original = media.PictureSet(pictures(40) * np.uint8(white))
    file = io.BytesIO()
    media.write_set(original, file, format)
    data = pipeline.encode_set(file.getvalue(), model=weights_file).data
    header = pipeline.info(data)
    assert header.kind == "set" and header.source == format.upper()
    assert header.geometry == SetGeometry(40, SIDE, SIDE, white)
    decoded = pipeline.decode_set(data, model=weights_file)
    assert np.array_equal(decoded.pixels, original.pixels)
    again = io.BytesIO()
    media.write_set(decoded, again, format)
    assert np.array_equal(media.read_set(again.getvalue()).pixels, original.pixels)


def test_one_picture_alone_is_told_and_is_a_bit_a_pixel(weights_file: Path) -> None:
    with pytest.warns(VqcodecWarning, match="one picture alone"):
        data = pipeline.encode_set(media.PictureSet(pictures(1)), model=weights_file).data
    assert pipeline.info(data).code_bytes == SIDE * SIDE // 8
    assert np.array_equal(pipeline.decode_set(data, model=weights_file).pixels, pictures(1))


def test_damage_stays_in_its_chunk(weights_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vqcodec.bitstream.geometry.PICTURES", 16)
    original = pictures(40)
    data = bytearray(pipeline.encode_set(media.PictureSet(original), model=weights_file).data)
    info = pipeline.info(bytes(data))
    assert info.chunks == 3
    data[info.header_bytes + 5] ^= 1
    with pytest.raises(DamagedError):
        pipeline.decode_set(bytes(data), model=weights_file)
    with pytest.warns(DamageWarning):
        decoded = pipeline.decode_set(bytes(data), model=weights_file, salvage=True)
    assert np.array_equal(decoded.pixels[16:], original[16:]) and not decoded.pixels[:16].any()


def test_what_is_no_set_of_0_and_1_is_refused(weights_file: Path, tmp_path: Path) -> None:
    gray = media.PictureSet(np.full((3, SIDE, SIDE), 7, np.uint8))
    with pytest.raises(MediaError, match="other than 0 and 1"):
        pipeline.encode_set(gray, model=weights_file)
    with pytest.raises(UsageError, match="12x12"):
        pipeline.encode_set(media.PictureSet(np.zeros((3, 8, 8), np.uint8)), model=weights_file)
    # Integer networks know nothing of the bounds of the posteriors of a delta-VAE.
    config = latent.delta_vae.Config(form="independent", decoder="factorised", side=8, units=4)
    bounded, file = latent.DeltaVAE(config), tmp_path / "bounded.safetensors"
    weights.save(bounded, bounded.make_card("bounded", {"chain": []}, {}), file)
    for model in ("vqvae-image", file):
        with pytest.raises(UsageError, match="codes no sets"):
            pipeline.encode_set(media.PictureSet(np.zeros((3, 8, 8), np.uint8)), model=model)
    data = pipeline.encode_set(media.PictureSet(pictures(20)), model=weights_file).data
    with pytest.raises(UsageError, match="20 pictures"):
        pipeline.decode(data)
    with pytest.raises(LimitError):
        pipeline.decode_set(data, model=weights_file, max_pixels=100)


def test_a_header_that_lies_about_its_size_is_refused() -> None:
    def npy(shape: tuple[int, ...], kind: str = "|u1", payload: bytes = b"") -> bytes:
        file = io.BytesIO()
        np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
        return file.getvalue() + payload

    for data in (
        npy((2**31, 2**20, 2**20)),
        npy((10, 4, 4), payload=bytes(159)),
        npy((10, 4, 4), "<f8", bytes(1280)),
        npy((4, 4), payload=bytes(16)),
        npy((0, 4, 4)),
        npy((1, 4, 4), "|O", bytes(16)),
        b"\0\0\x08\x03" + np.array([2, 4, 4], ">u4").tobytes() + bytes(31),
        b"\0\0\x08\xff",
        b"PK\3\4garbage",
        b"\x1f\x8bgarbage",
        b"hello",
    ):
        with pytest.raises(MediaError):
            media.read_set(data)
    with zipfile.ZipFile(several := io.BytesIO(), "w") as archive:
        for number in range(100):
            archive.writestr(f"{number}.npy", npy((4, 4), payload=bytes(16)))
    with pytest.raises(MediaError, match="an archive of 100 files"):
        media.read_set(several.getvalue())
    with pytest.raises(MediaError, match="limit"):
        media.read_set(npy((100, 100, 100), payload=bytes(10**6)), memory=10**5)


def test_labels_beside_the_pictures_of_an_archive_are_left_out() -> None:
    file = io.BytesIO()
    np.savez(file, images=pictures(3), labels=np.arange(3))
    assert np.array_equal(media.read_set(file.getvalue()).pixels, pictures(3))
    both = io.BytesIO()
    np.savez(both, train=pictures(3), test=pictures(3))
    with pytest.raises(MediaError, match="several sets, train, test"):
        media.read_set(both.getvalue())
    with zipfile.ZipFile(empty := io.BytesIO(), "w"):
        pass
    with pytest.raises(MediaError):
        media.read_set(empty.getvalue())


def test_a_set_of_many_chunks_has_the_regions_of_its_pictures() -> None:
    size = SetGeometry(2 * PICTURES + 1, 5, 7)
    parts = [region.part(1) for region in size.regions]
    covered = np.zeros(size.grid(1), np.int8)
    for part in parts:
        covered[part] += 1
    assert (covered == 1).all() and len(parts) == size.chunk_count == 3
    with pytest.raises(DamagedError):
        SetGeometry(0, 5, 7).check()
    with pytest.raises(LimitError):
        SetGeometry(2**25, 1, 1).check()
    with pytest.raises(LimitError):
        SetGeometry(2**20, 2**10, 2**10).check()
    assert container.BITS_BACK == 4


def test_the_commands_take_sets(weights_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("digits.npy", pictures(40))
    encoded = invoke("encode", "digits.npy", "-m", weights_file, "--verify", "--json")
    assert encoded.exit_code == 0, encoded.stderr
    record = json.loads(encoded.stdout.splitlines()[0])
    assert record["output"] == "digits.vqc" and record["pictures"] == 40 and record["psnr_db"] is None
    told = invoke("info", "digits.vqc").stdout
    assert f"40 pictures of {SIDE} x {SIDE}, 0 and 1" in told and "bits back" in told
    decoded = invoke("decode", "digits.vqc", "-m", weights_file)
    assert decoded.exit_code == 0, decoded.stderr
    assert np.array_equal(np.load("digits.decoded.npy"), pictures(40))
    for format in ("npz", "idx"):
        assert invoke("decode", "digits.vqc", "-m", weights_file, "--format", format).exit_code == 0
        assert np.array_equal(media.read_set(f"digits.decoded.{format}").pixels, pictures(40))
    wrong = invoke("decode", "digits.vqc", "-m", weights_file, "-o", "digits.png")
    assert wrong.exit_code != 0 and "png is an image format, the content is a set of pictures" in wrong.stderr
    for options, message in (
        (["-q", 2], "coded without loss"),
        (["--fast"], "no faster prior"),
        (["--tune", "psnr"], "tune=psnr is for images, not for set"),
        (["--max-pixels", 100], "5,760 pixels, limit 100"),
    ):
        named = [] if "--tune" in options else ["-m", weights_file]
        wrong = invoke("encode", "digits.npy", *named, "-f", *options)
        assert wrong.exit_code != 0 and message in wrong.stderr, wrong.stderr
    wrong = invoke("decode", "digits.vqc", "-m", weights_file, "--preview", "-f")
    assert wrong.exit_code == 1 and "no preview" in wrong.stderr
    Path("set-images-idx3-ubyte").write_bytes(Path("digits.decoded.idx").read_bytes())
    assert invoke("encode", "set-images-idx3-ubyte", "-m", weights_file).exit_code == 0
    piped = invoke(
        "encode", "-", "-o", "piped.vqc", "-m", weights_file, input=Path("digits.npy").read_bytes()
    )
    assert piped.exit_code == 0, piped.stderr
    assert Path("piped.vqc").read_bytes() == Path("digits.vqc").read_bytes()


def test_arrays_are_sets(weights_file: Path) -> None:
    for array in (pictures(30), pictures(30).astype(bool)):
        encoded = pipeline.encode_set(array, model=weights_file)
        assert np.array_equal(pipeline.decode_set(encoded.data, model=weights_file).pixels, pictures(30))
    for wrong in (pictures(30).astype(float), pictures(3)[:0], pictures(3)[..., None]):
        with pytest.raises(MediaError):
            pipeline.encode_set(wrong, model=weights_file)
