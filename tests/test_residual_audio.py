"""Residual levels of audio: level 1 is a VQ-VAE of its own; levels of envelopes and of latents follow."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
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
from vqcodec.models import losses
from vqcodec.models.vqvae import AudioVQVAE, ResidualAudioVQVAE, search_audio
from vqcodec.models.vqvae.residual_point import NAMES, PARTS
from vqcodec.pipeline import sampling
from vqcodec.priors.chain import ChainPrior
from vqcodec.priors.ngram import NGramPrior
from vqcodec.priors.static import StaticPrior
from vqcodec.training.inspection import Inspection
from vqcodec.transform import audio as transform

LEVELS = 4
TINY = {"width": "8", "hidden": "8", "embedding": "4", "known_embedding": "4", "known_width": "8"}
"""Settings of small priors of the levels after the first."""


def trained(talks: Path, start: str | Path, folder: Path, **options: object) -> training.Run:
    """A training of the codec from some weights."""
    chosen = {"model": "rvqvae-audio", "stage": "codec", "batch": 3, "crop": 0.5}
    return training.train([talks], start=start, output=folder, **chosen, **options)


@pytest.fixture(scope="module")
def ladder(talks: Path, sound_prior: training.Run, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The weights file of four levels, the first one that of `sound_prior`, trained for 2 steps."""
    folder = tmp_path_factory.mktemp("runs") / "ladder"
    run = trained(talks, sound_prior.best, folder, steps=2, overrides={"keep": "last"})
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


# the model


def test_codes_of_level_1_stay_as_they_are(
    model: ResidualAudioVQVAE, first: AudioVQVAE, song: media.Audio
) -> None:
    """Encoder, codebook, codes and learned prior; the decoder learns."""
    samples = torch.from_numpy(song.signal[None, :, :16384])
    moved = []
    for name, tensor in first.state_dict().items():
        if "ema_" not in name and not torch.equal(model.first.state_dict()[name], tensor):
            moved.append(name)
    assert moved and all(name.startswith("decoder.") for name in moved)
    codes = model.at(0, 1).analyse(samples)["level1"]
    assert torch.equal(codes, first.at(0, 1).analyse(samples)["codes"])
    chain, prior = model.priors[LEARNED], first.priors[LEARNED]
    assert isinstance(chain, ChainPrior)
    mine = chain.by_plane["level1"].to_tensors()
    assert {n: a.tobytes() for n, a in mine.items()} == {
        n: a.tobytes() for n, a in prior.to_tensors().items()
    }


def test_codebooks_were_fitted(model: ResidualAudioVQVAE) -> None:
    sizes = [tuple(model.codebook(f"level{n}").shape) for n in range(1, 5)]
    assert sizes == [(16, 8), (16, 36), (16, 8), (16, 36)]
    assert all(model.codebook(f"level{n}").std(0).min() > 0 for n in range(2, 5))
    means = model.codebook("level2").mean(1)
    assert float(means[8:].mean()) > float(means[:8].mean()), "loud codes have high numbers"
    for level in (1, 2, 3):
        for quantizer in model.quantizers_of(level):
            assert float(quantizer.distance_per_bit) > 0 and float(quantizer.bits.std()) > 0.1
    assert [point["quality"] for point in model.card.points] == [1, 2, 3, 4]


def test_a_training_goes_on_from_its_codes(
    ladder: str, model: ResidualAudioVQVAE, talks: Path, tmp_path: Path
) -> None:
    """Codebooks are fitted again, from those that there are: each code stays near its place."""
    run = trained(talks, ladder, tmp_path / "run", steps=1)
    again = weights.load(str(run.best), "cpu")
    for name in NAMES[1:]:
        before, after = model.codebook(name), again.codebook(name)
        assert not torch.equal(before, after)
        assert float((before - after).square().mean()) < 0.5 * float((before - after.flip(0)).square().mean())


def test_critics_judge_any_number_of_levels(ladder: str, talks: Path, tmp_path: Path) -> None:
    run = trained(talks, ladder, tmp_path / "run", steps=2, overrides={"adversarial": "1"})
    events = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert any("discriminator" in event for event in events)
    assert isinstance(weights.load(str(run.best), "cpu"), ResidualAudioVQVAE)


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


@pytest.mark.parametrize("count", [16_129, 16_192, 16_256, 16_320, 300, 100])
def test_the_end_of_audio_is_that_of_whole_blocks(model: ResidualAudioVQVAE, count: int) -> None:
    """Files have codes for the samples alone; what is missing of a last block is that of the one before."""
    signal, point = sing(1.1, seed=4)[:count, 0], model.at(index_of(LEVELS))
    codes = transform.analyse_signal(signal, point)
    assert {len(plane) for plane in codes.values()} == {-(-count // 64)}
    found = transform.synthesise_signal(codes, point, count)
    padded = torch.from_numpy(np.pad(signal, (0, -count % point.stride)))[None, None]
    with torch.no_grad():
        every = point.analyse(padded)
        whole = point.synthesise(every)[0, 0, :count].numpy()
        envelopes = [model.vectors(level, every[NAMES[level]]) for level in (1, 3)]
    for level, name in ((1, "level2"), (3, "level4")):
        held = transform.extended(codes[name], every[name].shape[1], PARTS, -1)
        wrong = model.vectors(level, torch.from_numpy(held)[None]) - envelopes[(level - 1) // 2]
        parts = wrong[0, :, -1].view(PARTS, -1).abs().sum(1)
        assert (parts[: -(-count // 64) % PARTS or PARTS] == 0).all(), (
            "codes that are there count for their parts"
        )
    assert np.abs(found - whole)[: -2 * point.stride].max(initial=0) < 1e-4
    assert np.isfinite(found).all() and len(found) == count


def test_the_loss_is_that_of_decoded_levels(
    model: ResidualAudioVQVAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = copy.deepcopy(model)
    samples = torch.from_numpy(sing(1.024, seed=2).T[None, :1].repeat(4, 0).copy())
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.full(shape, 0.5))
    step = copied.loss(samples)
    with torch.no_grad():
        codes = model.at(index_of(LEVELS), 0).analyse(samples[:1])
        chosen = [step.symbols[name][:1] for name in NAMES]
        heard = torch.cat([model.synthesise(chosen[:n]) for n in range(1, LEVELS + 1)])
        wanted = losses.spectral(heard, samples, 16_000)
    for name, term in wanted.items():
        assert float(step.terms[name]) == pytest.approx(float(term), rel=1e-4), name
    for level, name in enumerate(NAMES):  # vectors, since so small a codebook may have one of them twice
        mine, theirs = (model.vectors(level, found) for found in (step.symbols[name][:1], codes[name]))
        assert float((mine - theirs).abs().max()) < 1e-3, name


def test_bits_follow_the_training(model: ResidualAudioVQVAE) -> None:
    copied = copy.deepcopy(model)
    samples = torch.from_numpy(sing(1.024, seed=2).T[None, :1].copy())
    step = copied.loss(samples)
    copied.update(step, 0.5, torch.Generator())
    for level in (1, 2, 3):
        for mine, before in zip(copied.quantizers_of(level), model.quantizers_of(level), strict=True):
            shares = mine.ema_count / mine.ema_count.sum()
            assert not torch.equal(mine.bits, before.bits)
            assert torch.allclose(mine.bits, -shares.clamp(min=2**-10 / 16).log2(), atol=1e-4)


# files


def test_each_level_comes_nearer(model: ResidualAudioVQVAE, song: media.Audio) -> None:
    """Levels 2 and 4 to the envelope, level 3 to the latents."""
    samples = torch.from_numpy(song.signal[None, :, :16384])
    with torch.no_grad():
        codes = [*model.at(index_of(LEVELS)).analyse(samples).values()]
        vectors = [model.vectors(level, plane) for level, plane in enumerate(codes)]
        latents = model.first.latents(samples)
        wanted = model.envelope(samples) - model.envelope(model.reconstruct(vectors[0]))
        near = [float((latents - sum(vectors[:n:2])).square().mean()) for n in (1, 3)]
        left = [float((wanted - e).square().mean()) for e in (0, vectors[1], vectors[1] + vectors[3])]
        heard = [model.envelope(model.synthesise(codes[:n])) for n in range(1, LEVELS + 1)]
    assert near[1] < 0.8 * near[0]
    assert left[1] < 0.6 * left[0] and left[2] < 0.9 * left[1]
    errors = [float((found - model.envelope(samples)).square().mean()) for found in heard]
    assert errors[1] < 0.7 * errors[0] and errors[3] < errors[2]


def test_a_search_comes_nearer_in_spectra() -> None:
    """Speech by the shipped model, with any number of levels; the cheapest codes of speech too short."""
    shipped = weights.load("rvqvae-audio", "cpu")
    assert isinstance(shipped, ResidualAudioVQVAE)
    speech = media.read_audio(Path(__file__).parents[1] / "docs" / "speech.flac", 16_000)
    samples = torch.from_numpy(speech.signal[None, :1, 16_384:32_768])

    def distance(levels: int, effort: int) -> float:
        point = shipped.at(index_of(levels), effort)
        with torch.no_grad():
            found = point.synthesise(point.analyse(samples))
        return float(shipped.first.spectral_distance(found, samples))

    for levels in range(1, LEVELS + 1):
        nearest = distance(levels, 1)
        assert all(distance(levels, effort) < 0.97 * nearest for effort in (2, 3)), levels
    short = [shipped.at(index_of(LEVELS), n).analyse(samples[..., :1024]) for n in (1, 2)]
    assert all(torch.equal(short[0][name], short[1][name]) for name in short[0])


def test_the_decoder_learns_at_all_levels(model: ResidualAudioVQVAE, talks: Path) -> None:
    """The loss is that of 1 to 4 levels in turn, and its gradient reaches decoder and codebooks alone."""
    copied = copy.deepcopy(model).train()
    copied.first.decoder.requires_grad_(True)
    for level in (1, 2, 3):
        for quantizer in copied.quantizers_of(level):
            quantizer.codebook.requires_grad_(True)
    samples = torch.from_numpy(sing(1.024, seed=2).T[None, :1].repeat(8, 0).copy())
    torch.manual_seed(0)
    step = copied.loss(samples)
    step.loss.backward()
    assert copied.first.decoder[0].weight.grad.abs().sum() > 0
    assert all(q.codebook.grad.abs().sum() > 0 for level in (1, 2, 3) for q in copied.quantizers_of(level))
    assert all(p.grad is None for p in copied.first.encoder.parameters())


def test_files_grow_with_the_levels(ladder: str, song: media.Audio) -> None:
    sizes = [len(pipeline.encode(song, model=ladder, quality=n)) for n in range(1, LEVELS + 1)]
    assert sizes == sorted(sizes) and len({*sizes}) == LEVELS


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


def test_effort_chooses_codes_by_the_bits_of_the_learned_prior(
    learned: training.Run, song: media.Audio
) -> None:
    """As all codes tried one by one do, given the codes of the nearest."""
    found, samples = weights.load(str(learned.best), "cpu"), torch.from_numpy(song.signal[None, :, :16384])
    assert isinstance(found, ResidualAudioVQVAE)
    name, quantizer = NAMES[2], found.second
    bits = search_audio.bits_given(found.priors[LEARNED].by_plane[name])
    assert bits is not None
    with torch.no_grad():
        plain, chosen = (found.at(index_of(3), effort).analyse(samples) for effort in (0, 1))
        before = {**chosen, name: plain[name]}
        rest = found.first.latents(samples) - found.vectors(0, chosen["level1"])
        assert torch.equal(plain[name], quantizer.encode(rest))
        distances = torch.cdist(rest[0].T, quantizer.codebook).square()
        wanted = (distances + quantizer.distance_per_bit * bits(before)[0].T).argmin(1)
    assert torch.equal(chosen[name][0], wanted) and not torch.equal(plain[name], chosen[name])
    taken = [float(bits(before).gather(1, codes[name][:, None]).sum()) for codes in (plain, chosen)]
    assert taken[1] < taken[0]


def test_files_with_a_learned_level(
    learned: training.Run, ladder: str, song: media.Audio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read again, and damage is noticed; `fast` does without the prior."""
    best = str(learned.best)
    plain, quick = (pipeline.encode(song, model=m, quality=4, fast=True, effort=0) for m in (ladder, best))
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
