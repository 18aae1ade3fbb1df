"""The shipped models: complete, described, and true to the bitstreams they once wrote."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from make_golden import GOLDEN, LOSSLESS, SIZE, golden_bytes, grainy
from vqcodec import media, pipeline, weights
from vqcodec.bitstream import container
from vqcodec.bitstream.quality import index_of
from vqcodec.cli import info
from vqcodec.coding import chunks
from vqcodec.errors import MediaWarning, UsageError
from vqcodec.evaluation.baselines.image import QualitySweep
from vqcodec.metrics.audio import log_mel_distance, si_sdr
from vqcodec.metrics.image import psnr
from vqcodec.models.base import Model, Symbols
from vqcodec.pipeline import pixel_crc

SHIPPED = [card["name"] for card in weights.shipped()]
GOLDEN_CODES = {
    "rvqvae-audio": 2860218228,
    "vqvae2-image": 1563514644,
    "vqvae-image": 2434657505,
    "vqvae-audio": 2919091261,
    "vae-image": 359552748,
    "vae-image-psnr": 269802294,
    "ppca-image": 4090661311,
    "ppca-thumbnail": 1793796685,
    "lossless-image": 132387793,
}
"""CRC32 of the codes, or latents, little endian int32, that each golden file holds."""

MODELS = list(GOLDEN_CODES)
SHAPES = {
    "vqvae-image": [(33, 38)],
    "vqvae2-image": [(17, 19), (33, 38)],
    "vqvae-audio": [(1, 2125)],
    "rvqvae-audio": [(1, 2125)] * 3,
    "vae-image": [(9, 10, 256)],
    "vae-image-psnr": [(9, 10, 256)],
    "ppca-image": [(9, 10, 320)],
    "ppca-thumbnail": [(5, 5, 192)],
    "lossless-image": [(130, 150, 3)],
}

IN_MEMORY = {"vqvae-audio-wavenet", "vae-bits"}
"""Shipped models without a golden file: a second decoder, and a model of sets, whose file has other tests."""


def held_by(stream: container.Bitstream, codec: Model) -> Symbols:
    """The codes, or latents, of a bitstream."""
    return chunks.decode(stream, codec.at(stream.quality_index or 0)).symbols


def crc_of(symbols: Symbols) -> int:
    """CRC32 of all planes, one after the other."""
    return zlib.crc32(b"".join(plane.astype("<i4").tobytes() for plane in symbols.values()))


def test_default_models_are_shipped() -> None:
    assert set(weights.DEFAULTS.values()) <= set(SHIPPED)
    assert set(SHIPPED) == {*MODELS, *IN_MEMORY}


@pytest.mark.parametrize("name", SHIPPED)
def test_card_lies_beside_the_weights_and_inside_them(name: str) -> None:
    inside = weights.read_json(weights.folder() / f"{name}.safetensors")
    assert json.loads((weights.folder() / f"{name}.json").read_text()) == inside
    assert inside["name"] == name and len(inside["fingerprint"]) == 16
    assert inside["training"]["chain"][0].startswith("vqcodec train $DATA/")
    assert all(len(source["sha256"]) == 64 for source in inside["training"]["data"])
    measured = inside["measured"]["validation"]
    if inside.get("points"):
        qualities = {"VQ-VAE-2": [1, 3], "RVQ-VAE": [1, 2, 3, 4]}.get(inside["method"], [1, 2, 3, 4, 5])
        assert [point["quality"] for point in inside["points"]] == qualities
        for figure in {"image": ("bpp", "psnr_db"), "audio": ("kbps", "si_sdr_db")}[inside["medium"]]:
            measures = [point[figure] for point in inside["points"]]
            assert measures == sorted(measures)
        assert 1 < measured["payload_over_ideal"] <= 1.005
    elif name == "lossless-image":
        assert 3 < measured["bpp"] < 12 and "codes_used" not in measured
    elif name == "vae-bits":
        assert measured["rate"] > 5 and inside["measured"]["validation"]["elbo"] < 0
    else:
        assert measured.get("bpp", 0) < 0.5625 and measured.get("kbps", 0) < 2.4
        assert measured["codes_used"] == 512
    assert (weights.folder() / f"{name}.safetensors").stat().st_size < 10 << 20


@pytest.mark.parametrize("name", MODELS)
def test_golden_file_decodes_to_its_codes(name: str) -> None:
    stream = container.parse((GOLDEN / f"{name}.vqc").read_bytes())
    held = held_by(stream, weights.load(name, "cpu"))
    assert [plane.shape for plane in held.values()] == SHAPES[name]
    assert crc_of(held) == GOLDEN_CODES[name]


@pytest.mark.parametrize("name", MODELS)
def test_golden_file_decodes_to_its_pixels(name: str) -> None:
    """Where the synthesis is in integers, the file has the CRC of its pixels, which `decode` checks."""
    data = (GOLDEN / f"{name}.vqc").read_bytes()
    config = weights.load(name, "cpu").card.config
    assert (pixel_crc.BOX in container.parse(data).boxes) == config.get("integer_synthesis", False)
    pipeline.decode(data, device="cpu")


@pytest.mark.parametrize("name", MODELS)
def test_golden_file_is_written_again(name: str) -> None:
    """The same codes give the same bytes; a code may differ where two are about equally near."""
    encoded = golden_bytes(name)
    golden = container.parse((GOLDEN / f"{name}.vqc").read_bytes())
    model = encoded.point.model
    held, point = held_by(golden, model), model.at(golden.quality_index or 0, effort=0)
    targets = {}
    for plane in point.planes:
        symbols, before = encoded.symbols[plane.name], held[plane.name]
        if plane.alphabet:
            assert (symbols != before).mean() < 0.01
            targets[plane.name] = before
        else:
            # Another latent moves what is expected of those after it by a few sixteenths.
            assert np.abs(symbols.astype(int) - before).mean() < 0.5
            targets[plane.name] = np.float32(before / 16)
    written = chunks.encode(targets, point, encoded.geometry).chunks
    assert [(c.prior, c.payload) for c in written] == [(c.prior, c.payload) for c in golden.chunks]


def test_golden_stored_pixels_decode_to_themselves_and_are_written_again() -> None:
    """A photograph without loss, in the learned form of stored pixels."""
    data, pixels = (GOLDEN / f"{LOSSLESS}.vqc").read_bytes(), grainy(*SIZE)
    assert pipeline.info(data).tiles == {container.LEARNED_PIXELS: 1}
    assert np.array_equal(pipeline.decode(data).samples, pixels)
    assert container.parse(golden_bytes(LOSSLESS).data).tiles == container.parse(data).tiles


@pytest.mark.parametrize("threads", [1, 2])
def test_codes_do_not_depend_on_threads(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for name in MODELS:
            stream = container.parse((GOLDEN / f"{name}.vqc").read_bytes())
            assert crc_of(held_by(stream, weights.load(name, "cpu"))) == GOLDEN_CODES[name]
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("shape", [(130, 2), (2, 130), (300, 1), (9, 3), (1, 1), (516, 5)])
def test_images_of_a_few_pixels_to_a_side(shape: tuple[int, int]) -> None:
    """Codes of a column, or of a row, leave steps of a prior without a position."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    image = media.Image(np.stack([rows % 256, columns % 256, (rows + columns) % 256], 2).astype(np.uint8))
    names = [n for n in MODELS if weights.load(n, "cpu").medium == "image"]
    for name in names:
        encoded = pipeline.encode_file(image, pipeline.EncodeOptions(model=name))
        assert pipeline.verify(encoded) > 15
        coded = pipeline.encode_at(image, weights.load(name, "cpu").at(90))
        decoded = pipeline.decode(coded.data)
        assert isinstance(decoded, media.Image) and decoded.samples.shape == (*shape, 3), name


@pytest.mark.parametrize("quality", [1, 3, 5])
def test_the_sample_photograph_at_every_quality(quality: float) -> None:
    """At its own bytes it is better than JPEG by a margin that only something broken would miss."""
    photo = media.read_image(Path(__file__).parent.parent / "docs" / "parrots.jpg")
    encoded = pipeline.encode_file(photo, pipeline.EncodeOptions(quality=quality))
    assert encoded.model == "vae-image"
    decoded = pipeline.decode(encoded.data)
    assert isinstance(decoded, media.Image)
    jpeg = QualitySweep(photo, "jpeg").matched_to(len(encoded.data))
    assert psnr(photo.samples, decoded.samples) > jpeg["psnr_db"] + 1
    assert container.read_info(encoded.data).header_bytes <= 64


@pytest.mark.parametrize("name", SHIPPED)
def test_info_counts_the_levels_that_a_file_has(name: str) -> None:
    """By the card alone, as the model has them."""
    model, card = weights.load(name), weights.read_json(weights.locate(name))
    several = len(model.at(255).planes) > 1 if model.validation_points else False
    for quality in range(1, 6):
        expected = len(model.at(index_of(quality)).planes) if several else None
        assert info.levels(card, quality) == expected


def test_tune_chooses_the_weights_and_its_purpose_is_met() -> None:
    """At the same rate, those for PSNR have more of it than those for the eye."""
    photo = media.read_image(Path(__file__).parent.parent / "docs" / "parrots.jpg")
    found = {tune: pipeline.encode(photo, bpp=0.5, tune=tune) for tune in ("visual", "psnr")}
    assert [container.parse(f).model for f in found.values()] == ["vae-image", "vae-image-psnr"]
    eye, error = (psnr(photo.samples, pipeline.decode_image(f).samples) for f in found.values())
    assert error > eye
    alone = ({"model": "vae-image"}, {"lossless": True})
    for wrong in ({"tune": "ssim"}, *({"tune": "visual"} | other for other in alone)):
        with pytest.raises(UsageError):
            pipeline.encode(photo, **wrong)
    with pytest.raises(UsageError, match="for images, not for audio"):
        pipeline.encode(media.Audio.of(np.zeros(1600, np.float32), 16_000), tune="psnr")


def test_the_sample_photograph_survives() -> None:
    """A real photograph at under half a bit per pixel; far below that quality something is broken."""
    photo = media.read_image(Path(__file__).parent.parent / "docs" / "parrots.jpg")
    encoded = pipeline.encode_at(photo, weights.load("vqvae-image", "cpu").at(0))
    decoded = pipeline.decode(encoded.data)
    assert encoded.bpp < 0.5
    assert psnr(photo.samples, decoded.samples) > 30
    assert len(np.unique(encoded.symbols["codes"])) > 200


def test_a_linear_codec_gains_by_the_search() -> None:
    """Fewer bits for the same error than the nearest codes, by a twenty-fifth at least."""
    photo = media.read_image(Path(__file__).parent.parent / "docs" / "parrots.jpg")
    found = []
    for effort, quality in ((0, 2.5), (1, 2.7)):
        encoded = pipeline.encode_file(
            photo, pipeline.EncodeOptions(model="ppca-image", quality=quality, effort=effort)
        )
        found.append((len(encoded.data), pipeline.verify(encoded)))
    assert found[1][0] < 0.96 * found[0][0] and found[1][1] > found[0][1], found


def test_speech_gains_by_the_search() -> None:
    """It sounds nearer by a twentieth at least, for no more bits than a fiftieth."""
    speech = media.read_audio(Path(__file__).parent.parent / "docs" / "speech.flac")
    found = []
    for effort in (1, 2):
        encoded = pipeline.encode_file(speech, pipeline.EncodeOptions(effort=effort))
        decoded = pipeline.reconstruct(encoded)
        assert isinstance(decoded, media.Audio)
        distance = log_mel_distance(decoded.signal[0], speech.signal[0], 16_000)
        found.append((len(encoded.data), distance))
    assert found[1][0] < 1.02 * found[0][0] and found[1][1] < 0.95 * found[0][1], found


def test_the_sample_sentence_survives() -> None:
    """Real speech at under 2.4 kbit/s; far from these distances something is broken."""
    speech = media.read_audio(Path(__file__).parent.parent / "docs" / "speech.flac")
    encoded = pipeline.encode_at(speech, weights.load("vqvae-audio", "cpu").at(0))
    decoded = pipeline.decode(encoded.data)
    assert isinstance(decoded, media.Audio)
    assert encoded.kbps is not None and encoded.kbps < 2.4
    assert container.read_info(encoded.data).header_bytes <= 40
    assert log_mel_distance(decoded.signal[0], speech.signal[0], 16_000) < 0.35
    assert si_sdr(decoded.signal[0], speech.signal[0]) > -3
    assert len(np.unique(encoded.symbols["codes"])) > 150


def test_the_second_decoder_reads_the_same_bitstream() -> None:
    """A second and a half; the other 30 segments of the batch are filling."""
    speech = media.read_audio(Path(__file__).parent.parent / "docs" / "speech.flac")
    piece = media.Audio(speech.signal[:, 8000:32_000], 16_000, 16_000, 24_000)
    data = pipeline.encode_at(piece, weights.load("vqvae-audio", "cpu").at(0)).data
    first = pipeline.decode(data)
    drawn = pipeline.decode(data, decoder="wavenet")
    assert isinstance(first, media.Audio) and isinstance(drawn, media.Audio)
    assert drawn.signal.shape == first.signal.shape
    distance = log_mel_distance(drawn.signal[0], piece.signal[0], 16_000)
    noise = np.random.default_rng(0).standard_normal(24_000).astype(np.float32)
    noise *= np.float32(piece.signal.std())
    assert distance < 0.6 * log_mel_distance(noise, piece.signal[0], 16_000)


def test_the_second_decoder_reads_the_first_level_of_others() -> None:
    """As it reads the same codes in a file of `vqvae-audio`; it says that more levels are left out."""
    speech = media.read_audio(Path(__file__).parent.parent / "docs" / "speech.flac")
    piece = media.Audio(speech.signal[:, 8000:9536], 16_000, 16_000, 1536)
    alone, four = (
        pipeline.encode_at(piece, weights.load(name, "cpu").at(index, 0)).data
        for name, index in (("vqvae-audio", 0), ("rvqvae-audio", 255))
    )
    expected = pipeline.decode_audio(alone, decoder="wavenet")
    with pytest.warns(MediaWarning, match="vqvae-audio-wavenet decodes 1 of 4 levels"):
        drawn = pipeline.decode_audio(four, decoder="wavenet")
    assert np.array_equal(drawn.signal, expected.signal)
    assert np.array_equal(pipeline.decode_audio(four, decoder="wavenet", levels=1).signal, drawn.signal)
    with pytest.raises(UsageError, match="levels is 2, and vqvae-audio-wavenet decodes 1"):
        pipeline.decode(four, decoder="wavenet", levels=2)


def test_header_of_a_small_image() -> None:
    """The overhead that the format promises: at most 48 bytes for 128 x 128 pixels."""
    flat = media.Image(np.zeros((128, 128, 3), np.uint8))
    encoded = pipeline.encode_at(flat, weights.load("vqvae-image", "cpu").at(0))
    assert container.read_info(encoded.data).header_bytes <= 64
