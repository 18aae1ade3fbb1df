"""Residual levels of audio: level 1 is a VQ-VAE of its own, each further level adds waveform."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.fft
import torch
import vqcodec
from cli_fakes import invoke
from conftest import sing
from vqcodec import media, pipeline, training, weights
from vqcodec.bitstream import container
from vqcodec.bitstream.container import LEARNED
from vqcodec.bitstream.quality import index_of
from vqcodec.cli.info import describe
from vqcodec.coding import chunks
from vqcodec.errors import DamagedError, ModelError, TargetError, UsageError, VqcodecWarning
from vqcodec.metrics.audio import si_sdr
from vqcodec.models.vqvae import AudioVQVAE, ResidualAudioVQVAE
from vqcodec.models.vqvae.lapped import NAMES, PARTS, LappedTransform
from vqcodec.pipeline import sampling
from vqcodec.priors.chain import ChainPrior
from vqcodec.priors.ngram import NGramPrior
from vqcodec.priors.static import StaticPrior
from vqcodec.training.inspection import Inspection
from vqcodec.transform import audio as transform

LEVELS = 4
TINY = {"width": "8", "hidden": "8", "embedding": "4", "known_embedding": "4", "known_width": "8"}
"""Settings of small priors of the levels after the first."""


@pytest.fixture(scope="module")
def ladder(talks: Path, sound_prior: training.Run, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The weights file of four levels, the first one that of `sound_prior`, trained for 2 steps."""
    run = training.train(
        [talks],
        model="rvqvae-audio",
        stage="codec",
        start=sound_prior.best,
        output=tmp_path_factory.mktemp("runs") / "ladder",
        steps=2,
        batch=3,
        crop=0.5,
    )
    return str(run.best)


@pytest.fixture(scope="module")
def model(ladder: str) -> ResidualAudioVQVAE:
    found = weights.load(ladder, "cpu")
    assert isinstance(found, ResidualAudioVQVAE)
    return found


@pytest.fixture(scope="module")
def learned(ladder: str, talks: Path, tmp_path_factory: pytest.TempPathFactory) -> training.Run:
    """`ladder` with a learned prior of level 3, trained for 4 steps, of which the last 2 are resumed."""
    folder = tmp_path_factory.mktemp("runs") / "ladder"
    chosen = {"batch": 2, "crop": 0.5, "steps": 2, "checkpoint_every": 2, "overrides": TINY}
    training.train(talks, stage="prior", plane=NAMES[2], start=ladder, output=folder, **chosen)
    return training.train(resume=folder, steps=4)


@pytest.fixture(scope="module")
def first(sound_prior: training.Run) -> AudioVQVAE:
    found = weights.load(str(sound_prior.best), "cpu")
    assert isinstance(found, AudioVQVAE)
    return found


@pytest.fixture(scope="module")
def song() -> media.Audio:
    signal = np.ascontiguousarray(sing(2.5, seed=9).T)
    return media.Audio(signal, 16_000, 16_000, signal.shape[1])


# parts


def test_the_transform_is_an_orthonormal_mdct() -> None:
    """Its inverse gives the samples back, and a block's coefficients are the DCT-IV of the folded window."""
    lapped = LappedTransform(32, 32)
    samples = torch.randn(1, 1, 320, generator=torch.Generator().manual_seed(1))
    coefficients = lapped(samples)
    assert coefficients.shape == (1, 32, 10)
    inside = slice(32, -32)
    assert torch.allclose(lapped.inverse(coefficients)[..., inside], samples[..., inside], atol=1e-5)
    block = samples[0, 0, 16:80].numpy() * np.sin(np.pi * (np.arange(64) + 0.5) / 64)
    a, b, c, d = block.reshape(4, 16)
    folded = np.concatenate((-c[::-1] - d, a - b[::-1]))
    wanted = scipy.fft.dct(folded, type=4, norm="ortho")
    assert np.allclose(coefficients[0, :, 1], wanted, atol=1e-5)


def test_an_envelope_halves_distances_in_decibels() -> None:
    lapped = LappedTransform(64, 16)
    samples = torch.randn(1, 1, 640)
    assert torch.allclose(lapped.envelope(100 * samples), 10 * lapped.envelope(samples), rtol=1e-3)
    assert float(lapped.envelope(0 * samples).min()) > 0


# the model


def test_level_1_stays_as_it_is(model: ResidualAudioVQVAE, first: AudioVQVAE, song: media.Audio) -> None:
    """Weights, codes, learned prior, and the searches of more effort."""
    samples = torch.from_numpy(song.signal[None, :, :16384])
    for name, tensor in first.state_dict().items():
        if "ema_" not in name:
            assert torch.equal(model.first.state_dict()[name], tensor), name
    for effort in (1, 2):
        codes = model.at(0, effort).analyse(samples)["level1"]
        assert torch.equal(codes, first.at(0, effort).analyse(samples)["codes"])
    chain, prior = model.priors[LEARNED], first.priors[LEARNED]
    assert isinstance(chain, ChainPrior)
    mine = chain.by_plane["level1"].to_tensors()
    assert {n: a.tobytes() for n, a in mine.items()} == {
        n: a.tobytes() for n, a in prior.to_tensors().items()
    }


def test_training_and_k_means_began_with_all_codes(model: ResidualAudioVQVAE) -> None:
    assert [tuple(model.codebook(f"level{n}").shape) for n in range(1, 5)] == [
        (16, 8),
        (16, 44),
        (16, 64),
        (16, 80),
    ]
    assert all(model.codebook(f"level{n}").std(0).min() > 0 for n in range(2, 5))
    lengths = model.quantizers[0].codebook.norm(dim=1)
    assert float(lengths[8:].mean()) > float(lengths[:8].mean()), "loud codes have high numbers"
    assert [point["quality"] for point in model.card.points] == [1, 2, 3, 4]


@pytest.mark.parametrize(("quality", "levels"), [(1, 1), (1.9, 1), (2, 2), (3, 3), (3.9, 3), (4, 4), (5, 4)])
def test_quality_is_the_number_of_levels(model: ResidualAudioVQVAE, quality: float, levels: int) -> None:
    assert [p.name for p in model.at(index_of(quality)).planes] == [f"level{n + 1}" for n in range(levels)]


def test_it_does_not_begin_without_level_1(talks: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="begin from weights of level 1") as refused:
        training.train([talks], model="rvqvae-audio", output=tmp_path / "run", steps=1)
    assert "--from" in str(refused.value.hint)


def test_long_audio_is_coded_in_blocks_without_seams(model: ResidualAudioVQVAE) -> None:
    signal = sing(9, seed=4)[:, 0]
    for quality in (1, 4):
        point = model.at(index_of(quality))
        whole = transform.analyse_signal(signal, point, longest=10_000)
        blocks = transform.analyse_signal(signal, point, longest=40)
        for name, codes in whole.items():  # vectors, since so small a codebook may have one of them twice
            book = model.codebook(name).numpy()
            assert np.abs(book[blocks[name]] - book[codes]).max() < 1e-3, (quality, name)
        sounds = [transform.synthesise_signal(whole, point, len(signal), longest=n) for n in (10_000, 40)]
        assert np.abs(sounds[0] - sounds[1]).max() < 1e-3 * np.abs(sounds[0]).max()


# files


def test_each_level_comes_nearer_to_the_waveform(ladder: str, song: media.Audio) -> None:
    sizes, distances = [], []
    for quality in range(1, LEVELS + 1):
        data = pipeline.encode(song, model=ladder, quality=quality)
        sizes.append(len(data))
        distances.append(si_sdr(pipeline.decode_audio(data, model=ladder).signal[0], song.signal[0]))
    assert sizes == sorted(sizes) and distances == sorted(distances)
    assert distances[-1] > distances[0] + 3


def test_a_prefix_of_a_file_is_the_file_of_fewer_levels(ladder: str, song: media.Audio) -> None:
    every = pipeline.encode(song, model=ladder, quality=4)
    for levels in range(1, LEVELS + 1):
        data = pipeline.encode(song, model=ladder, quality=levels)
        expected = pipeline.decode_audio(data, model=ladder).signal
        found = pipeline.decode_audio(every, model=ladder, levels=levels).signal
        assert np.abs(found - expected).max() < 1e-4, levels
    with pytest.raises(ModelError, match="levels is 5, and the file of ladder has levels 1 to 4"):
        pipeline.decode_audio(every, model=ladder, levels=5)


def test_a_bitrate_chooses_the_levels(ladder: str, song: media.Audio) -> None:
    sizes = [len(pipeline.encode(song, model=ladder, quality=n)) for n in range(1, LEVELS + 1)]
    for levels in (2, 4):
        bitrate = (sizes[levels - 1] + 3) * 8 / song.seconds / 1000
        assert len(pipeline.encode(song, model=ladder, bitrate=bitrate)) == sizes[levels - 1]
    with pytest.raises(TargetError):
        pipeline.encode(song, model=ladder, bitrate=0.3)


def test_a_file_has_the_quality_that_was_coded(ladder: str, song: media.Audio, tmp_path: Path) -> None:
    for asked, used in ((5, 4), (2.5, 2)):
        with pytest.warns(VqcodecWarning, match=f"ladder has no quality {asked}; {used} is used"):
            data = pipeline.encode(song, model=ladder, quality=asked)
        assert data == pipeline.encode(song, model=ladder, quality=used)
    found = pipeline.encode_file(song, pipeline.EncodeOptions(ladder, bitrate=100))
    assert (found.quality, found.point.index) == (4, index_of(4))
    song.save(tmp_path / "song.wav")
    with pytest.warns(VqcodecWarning, match="no quality 5; 4 is used"):
        rows = vqcodec.evaluate(tmp_path / "song.wav", model=ladder, quality=[5, 4, 1])
    assert [row["q"] for row in rows] == [4, 1]


def test_inspection_looks_at_all_levels(ladder: str, talks: Path) -> None:
    planes = Inspection(ladder, [talks], count=2).figures()["planes"]
    assert [plane["plane"] for plane in planes] == [f"level{n}" for n in range(1, LEVELS + 1)]


def test_quality_chooses_the_levels_of_a_sample(ladder: str, tmp_path: Path) -> None:
    drawn = [sampling.sample(ladder, seconds=0.3, quality=q)[0].samples for q in (None, 3, 4)]
    assert np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[1], drawn[2])
    arguments = "sample", "-m", ladder, "--seconds", "0.3", "-o", str(tmp_path / "s.wav"), "--force"
    assert invoke(*arguments, "-q", "4").stderr.splitlines()[0].endswith("s.wav: 1 audio sample")
    told = invoke(*arguments, "--quality", "5").stderr
    assert told.splitlines()[0] == "warning: ladder has no quality 5; 4 is used"
    assert invoke(*arguments, "-q", "6").exit_code == 2
    (tmp_path / "s.vqc").write_bytes(pipeline.encode(media.read(tmp_path / "s.wav"), model=ladder))
    with pytest.raises(UsageError, match="has a quality already"):
        sampling.sample(ladder, continued=tmp_path / "s.vqc", quality=4)


def test_info_tells_the_levels(ladder: str, song: media.Audio) -> None:
    header = container.read_info(pipeline.encode(song, model=ladder, quality=2))
    assert describe(header)["quality"] == 2


# a learned prior of a later level


def test_a_level_has_a_learned_prior_given_those_before(learned: training.Run, ladder: str) -> None:
    found = weights.load(str(learned.best), "cpu")
    chain = found.priors[LEARNED]
    assert isinstance(chain, ChainPrior)
    prior = chain.by_plane[NAMES[2]]
    assert isinstance(prior, NGramPrior) and (prior.known_count, prior.period) == (2, PARTS)
    assert isinstance(chain.by_plane[NAMES[1]], StaticPrior), "not trained: tables"
    entry = found.card.learned["planes"][NAMES[2]]
    assert entry["method"] == "conditional-ngram" and entry["training"]["steps"] == 4
    assert f"--stage prior --plane {NAMES[2]}" in " ".join(entry["training"]["chain"])
    assert found.card.fingerprint == weights.load(ladder, "cpu").card.fingerprint, "the same codec"


def test_files_with_a_learned_level(
    learned: training.Run, ladder: str, song: media.Audio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read again, and damage is noticed; `fast` does without the prior."""
    best = str(learned.best)
    plain, quick = (pipeline.encode(song, model=m, quality=4, fast=True) for m in (ladder, best))
    assert [c.payload for c in container.parse(plain).chunks] == [
        c.payload for c in container.parse(quick).chunks
    ]
    monkeypatch.setattr(chunks, "_size", lambda candidate: -candidate.chunk.prior)  # the learned one wins
    encoded = pipeline.encode_file(song, pipeline.EncodeOptions(best, quality=4))
    assert pipeline.info(encoded.data).priors == {LEARNED: 1}
    pipeline.verify(encoded)
    for at in range(len(encoded.data) - 400, len(encoded.data), 23):
        damaged = bytearray(encoded.data)
        damaged[at] ^= 32
        with pytest.raises(DamagedError):
            pipeline.decode(bytes(damaged), model=best)
    with pytest.raises(ModelError, match="prior"):
        pipeline.decode(encoded.data, model=ladder)
    drawn = [sampling.sample(best, seconds=0.3, quality=4, seed=seed)[0].samples for seed in (1, 1, 2)]
    assert np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[1], drawn[2])
