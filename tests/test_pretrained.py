"""The shipped models: complete, described, and true to the bitstreams they once wrote."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from make_golden import GOLDEN, golden_bytes
from vqcodec import chunks, container, media, pipeline, weights
from vqcodec.metrics import psnr
from vqcodec.sound_metrics import log_mel_distance, si_sdr

SHIPPED = [card["name"] for card in weights.shipped()]
GOLDEN_CODES = {"vqvae-image": 1795966421, "vqvae-audio": 1490331684}
"""CRC32 of the codes, little endian int32, that each golden file holds."""

MODELS = list(GOLDEN_CODES)


def test_default_models_are_shipped() -> None:
    assert set(weights.DEFAULTS.values()) <= set(SHIPPED)
    assert set(SHIPPED) == {*MODELS, "vqvae-audio-wavenet"}, "each has a golden file, but a second decoder"


@pytest.mark.parametrize("name", SHIPPED)
def test_card_lies_beside_the_weights_and_inside_them(name: str) -> None:
    inside = weights.read_card(weights.folder() / f"{name}.safetensors")
    assert json.loads((weights.folder() / f"{name}.json").read_text()) == inside
    assert inside["name"] == name and len(inside["fingerprint"]) == 16
    assert inside["training"]["chain"][0].startswith("vqcodec train $DATA/")
    assert all(len(source["sha256"]) == 64 for source in inside["training"]["data"])
    measured = inside["measured"]["validation"]
    assert measured.get("bpp", 0) < 0.5625 and measured.get("kbps", 0) < 2.4
    assert measured["codes_used"] == 512
    assert (weights.folder() / f"{name}.safetensors").stat().st_size < 8 << 20


@pytest.mark.parametrize("name", MODELS)
def test_golden_file_decodes_to_its_codes(name: str) -> None:
    data = (GOLDEN / f"{name}.vqc").read_bytes()
    stream = container.parse(data)
    codes = chunks.read(stream, weights.load(name, "cpu"))
    assert codes.shape == {"vqvae-image": (33, 38), "vqvae-audio": (1, 2125)}[name]
    assert zlib.crc32(codes.astype("<i4").tobytes()) == GOLDEN_CODES[name]


@pytest.mark.parametrize("name", MODELS)
def test_golden_file_is_written_again(name: str) -> None:
    """The same codes give the same bytes; a code may differ where two are about equally near."""
    encoded = golden_bytes(name)
    golden = (GOLDEN / f"{name}.vqc").read_bytes()
    held = chunks.read(container.parse(golden), encoded.codec)
    assert (encoded.codes != held).mean() < 0.01
    rewritten = container.parse(golden)
    written = chunks.write(held, encoded.codec, encoded.geometry).chunks
    assert [(c.prior, c.payload) for c in written] == [(c.prior, c.payload) for c in rewritten.chunks]


@pytest.mark.parametrize("threads", [1, 2])
def test_codes_do_not_depend_on_threads(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for name in MODELS:
            stream = container.parse((GOLDEN / f"{name}.vqc").read_bytes())
            codes = chunks.read(stream, weights.load(name, "cpu"))
            assert zlib.crc32(codes.astype("<i4").tobytes()) == GOLDEN_CODES[name]
    finally:
        torch.set_num_threads(before)


def test_the_sample_photograph_survives() -> None:
    """A real photograph at under half a bit per pixel; far below that quality something is broken."""
    photo = media.read_image(Path(__file__).parent.parent / "docs" / "parrots.jpg")
    encoded = pipeline.encode_image(photo, weights.load(None, "cpu"))
    decoded = pipeline.decode(encoded.data)
    assert encoded.bpp < 0.5
    assert psnr(photo.samples, decoded.samples) > 30
    assert len(np.unique(encoded.codes)) > 200


def test_the_sample_sentence_survives() -> None:
    """Real speech at under 2.4 kbit/s; far from these distances something is broken."""
    speech = media.read_audio(Path(__file__).parent.parent / "docs" / "speech.flac")
    encoded = pipeline.encode_audio(speech, weights.load("vqvae-audio", "cpu"))
    decoded = pipeline.decode(encoded.data)
    assert isinstance(decoded, media.Audio)
    assert encoded.kbps is not None and encoded.kbps < 2.4
    assert container.read_info(encoded.data).header_bytes <= 40
    assert log_mel_distance(decoded.signal[0], speech.signal[0], 16_000) < 0.35
    assert si_sdr(decoded.signal[0], speech.signal[0]) > -3
    assert len(np.unique(encoded.codes)) > 150


def test_the_second_decoder_reads_the_same_bitstream() -> None:
    """A second and a half; the other 30 segments of the batch are filling."""
    speech = media.read_audio(Path(__file__).parent.parent / "docs" / "speech.flac")
    piece = media.Audio(speech.signal[:, 8000:32_000], 16_000, 16_000, 24_000)
    data = pipeline.encode_audio(piece, weights.load("vqvae-audio", "cpu")).data
    first = pipeline.decode(data)
    drawn = pipeline.decode(data, decoder="wavenet")
    assert isinstance(first, media.Audio) and isinstance(drawn, media.Audio)
    assert drawn.signal.shape == first.signal.shape
    distance = log_mel_distance(drawn.signal[0], piece.signal[0], 16_000)
    noise = np.random.default_rng(0).standard_normal(24_000).astype(np.float32)
    noise *= np.float32(piece.signal.std())
    assert distance < 0.6 * log_mel_distance(noise, piece.signal[0], 16_000)


def test_header_of_a_small_picture() -> None:
    """The overhead that the format promises: at most 48 bytes for 128 x 128 pixels."""
    encoded = pipeline.encode_image(media.Image(np.zeros((128, 128, 3), np.uint8)), weights.load(None, "cpu"))
    assert container.read_info(encoded.data).header_bytes <= 48
