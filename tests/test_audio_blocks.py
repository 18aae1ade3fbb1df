"""Long audio in blocks: no seam is left, and memory is bounded."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from conftest import sing
from vqcodec import weights
from vqcodec.bitstream.container import SEGMENT, AudioGeometry
from vqcodec.models import build
from vqcodec.models.vqvae import AudioVQVAE, audio
from vqcodec.transform import audio as audio_transform
from vqcodec.transform import loudness


@pytest.fixture(scope="module")
def codec(small_sound: str) -> AudioVQVAE:
    """The model of `small_sound`, which nobody may change."""
    return weights.load(small_sound, "cpu")


@pytest.fixture(scope="session")
def deep() -> AudioVQVAE:
    """A model as deep as the shipped one, and as untidy as chance makes it."""
    torch.manual_seed(3)
    settings_ = audio.Config(
        encoder_width=16, encoder_blocks=4, decoder_width=16, decoder_hidden=32, codes=64
    )
    model = build(settings_).eval().requires_grad_(False)
    with torch.no_grad():
        for name, tensor in model.decoder.named_parameters():
            if name.endswith("scale"):
                tensor.fill_(1)  # as far as the blocks reach at all, they shall be heard
        for name, tensor in model.encoder.named_parameters():
            if name.endswith("bias"):
                tensor.zero_()  # they would drown what the fresh weights hear
        heard = model.latents(torch.from_numpy(sing(1, seed=8)).t()[None, :, :15_936])
        model.quantizer.set_codebook(heard[0].t()[:: heard.shape[2] // 64][:64].contiguous())
    return model


def test_blocks_do_not_show_in_the_codes(codec: AudioVQVAE, deep: AudioVQVAE) -> None:
    """Where rounding decides between two codes, they are equally near."""
    signal = sing(6.01, seed=5)[:, 0]
    for model, least in ((codec, 0.8), (deep, 0.99)):
        whole = audio_transform.analyse_signal(signal, model.at(0, 0), longest=10**9)["codes"]
        latents = model.latents(torch.from_numpy(np.pad(signal, (0, -len(signal) % 64)))[None, None])[0].t()
        distances = torch.cdist(latents.double(), model.quantizer.codebook.double()).square()
        assert len(np.unique(whole)) > 3
        for longest in (50, 333, SEGMENT):
            codes = audio_transform.analyse_signal(signal, model.at(0, 0), longest=longest)["codes"]
            for at in np.flatnonzero(codes != whole):
                assert abs(distances[at, codes[at]] - distances[at, whole[at]]) < 2e-6
            assert (codes == whole).mean() > least, "the codes of the tiny model lie close together"


def test_blocks_do_not_show_in_the_audio(codec: AudioVQVAE, deep: AudioVQVAE) -> None:
    """Segments join without a click: what is decoded in pieces is what is decoded at once."""
    for model in (codec, deep):
        codes = np.random.default_rng(1).integers(0, model.config.codes, 1510, dtype=np.int32)
        count = 64 * 1510 - 13
        whole = audio_transform.synthesise_signal({"codes": codes}, model.at(0), count, longest=10**9)
        assert np.abs(whole).max() > 1e-3
        for longest in (50, 700, SEGMENT):
            pieces = audio_transform.synthesise_signal({"codes": codes}, model.at(0), count, longest=longest)
            assert np.abs(pieces - whole).max() <= 1e-4 * max(np.abs(whole).max(), 1)
            assert np.abs(np.diff(pieces) - np.diff(whole)).max() <= 1e-4 * max(np.abs(whole).max(), 1)


def test_a_halo_that_is_too_small_would_be_noticed(deep: AudioVQVAE, monkeypatch: pytest.MonkeyPatch) -> None:
    symbols = {"codes": np.random.default_rng(1).integers(0, 64, 400, dtype=np.int32)}
    whole = audio_transform.synthesise_signal(symbols, deep.at(0), 64 * 400, longest=10**9)
    monkeypatch.setattr(type(deep), "halo", property(lambda self: 4))
    pieces = audio_transform.synthesise_signal(symbols, deep.at(0), 64 * 400, longest=50)
    assert np.abs(pieces - whole).max() > 1e-3


def test_memory_does_not_grow_with_the_audio(codec: AudioVQVAE) -> None:
    """But for the signal and the codes themselves."""
    peaks = []
    for seconds in (20, 80):
        signal = np.tile(sing(4)[:, 0], seconds // 4)
        tracemalloc.start()
        symbols = audio_transform.analyse_signal(signal, codec.at(0, 0))
        audio_transform.synthesise_signal(symbols, codec.at(0, 0), len(signal))
        peaks.append(tracemalloc.get_traced_memory()[1] - signal.nbytes)
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 2**20


def test_loudness_is_measured_in_little_memory() -> None:
    signal = np.zeros((2, 16_000 * 120), np.float32)
    signal[:, ::7] = 0.1
    tracemalloc.start()
    loudness.gain_of(signal[0])
    loudness.is_mono(signal)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_every_sample_of_a_long_channel_has_its_loudness(monkeypatch: pytest.MonkeyPatch) -> None:
    block = SEGMENT * 64
    count = 2 * block + 5
    geometry = AudioGeometry(count, 16_000, bytes((172,)))
    monkeypatch.setattr(audio_transform, "synthesise_signal", lambda *_, **__: np.ones(count, np.float32))
    levels = [loudness.Loudness(172, b"", block)]
    signal = audio_transform.synthesise({"codes": np.zeros((1, 1))}, None, geometry, levels)  # type: ignore[arg-type]
    assert np.allclose(signal, loudness.factor_of(172))


def test_symbols_go_on_by_blocks() -> None:
    codes = np.arange(10)
    assert audio_transform.extended(codes, 16, 4, None).tolist() == [*range(10), 6, 7, 8, 9, 6, 7]
    assert audio_transform.extended(codes, 12, 1, None).tolist() == [*range(10), 9, 9]
    assert audio_transform.extended(codes[:2], 4, 4, -1).tolist() == [0, 1, -1, -1]
    assert audio_transform.extended(codes[:2], 4, 4, None).tolist() == [0, 1, 1, 1]
    assert audio_transform.extended(codes[:, None], 11, 1, None).tolist()[-2:] == [[9], [9]]
