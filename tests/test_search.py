from __future__ import annotations

import numpy as np
import pytest
import torch
from coded import bits_by
from conftest import draw, sing
from vqcodec import training, weights
from vqcodec.bitstream.container import LEARNED, STATIC
from vqcodec.models import build, losses
from vqcodec.models.vqvae import AudioVQVAE, ImageVQVAE, audio, search_audio, search_image, wavenet
from vqcodec.transform.pixels import to_samples


@pytest.fixture(scope="module")
def codec(small: str) -> ImageVQVAE:
    return weights.load(small, "cpu")


def total_bits(codec: ImageVQVAE, codes: torch.Tensor) -> float:
    return bits_by(codec.priors[STATIC], [region.numpy().astype(np.int32) for region in codes])


def rates_of(codec: ImageVQVAE) -> search_image.Rates | None:
    return search_image.Rates.of(codec.priors[STATIC], codec.device)


def error(codec: ImageVQVAE, samples: torch.Tensor, codes: torch.Tensor) -> float:
    with torch.no_grad():
        return float((codec.synthesise(codes) - samples).square().sum())


def test_rates_are_those_of_the_coder(codec: ImageVQVAE) -> None:
    codes = torch.from_numpy(np.random.default_rng(0).integers(0, 64, (1, 9, 7)))
    rates = rates_of(codec)
    assert float(rates._own(codes).sum()) == pytest.approx(total_bits(codec, codes), rel=1e-5)


def test_choices_are_the_bits_after_each_exchange(codec: ImageVQVAE) -> None:
    rng = np.random.default_rng(1)
    codes = torch.from_numpy(rng.integers(0, 64, (1, 4, 5)))
    rates = rates_of(codec)
    for row, column in ((0, 0), (0, 4), (3, 0), (3, 4), (2, 2)):
        where = torch.zeros(4, 5, dtype=torch.bool)
        where[row, column] = True
        offered = rates.choices(codes, where)[0]
        for code in rng.integers(0, 64, 4):
            exchanged = codes.clone()
            exchanged[0, row, column] = int(code)
            change = total_bits(codec, exchanged) - total_bits(codec, codes)
            assert float(offered[code] - offered[codes[0, row, column]]) == pytest.approx(change, abs=1e-3)


def test_effort_zero_takes_the_nearest_codes(codec: ImageVQVAE) -> None:
    samples = to_samples(draw(64, 48, 5)[None])
    codes = codec.search(samples, 0, rates_of(codec))
    assert torch.equal(codes, codec.analyse(samples))


def test_effort_one_saves_bits(codec: ImageVQVAE) -> None:
    samples = to_samples(np.stack([draw(64, 64, n) for n in range(20, 40)]))
    rates = rates_of(codec)
    nearest, cheap = (codec.search(samples, effort, rates) for effort in (0, 1))
    assert total_bits(codec, cheap) < 0.99 * total_bits(codec, nearest)


@pytest.mark.parametrize("with_rates", [True, False])
def test_more_effort_costs_less(codec: ImageVQVAE, with_rates: bool) -> None:
    samples = to_samples(np.stack([draw(64, 64, n) for n in (20, 21)]))
    rates = rates_of(codec) if with_rates else None

    def cost(effort: int) -> float:
        codes = codec.search(samples, effort, rates)
        assert codes.shape == (2, 16, 16) and 0 <= codes.min() <= codes.max() < 64
        bits = total_bits(codec, codes) if with_rates else 0.0
        return error(codec, samples, codes) + search_image.ERROR_PER_BIT * bits

    costs = [cost(effort) for effort in range(4)]
    assert max(costs[2:]) < costs[1] <= costs[0]


@pytest.fixture(scope="module")
def singer(sound_prior: training.Run) -> AudioVQVAE:
    return weights.load(str(sound_prior.best), "cpu")


SONG = torch.from_numpy(sing(0.8, seed=3)).t()[None]


def distance(codec: AudioVQVAE, codes: torch.Tensor) -> float:
    with torch.no_grad():
        terms = losses.spectral(codec.synthesise(codes), SONG, codec.rate)
        return float(audio.weighted(codec.config, terms))


def test_bits_are_those_that_codes_take(singer: AudioVQVAE) -> None:
    codes = torch.from_numpy(np.random.default_rng(2).integers(0, 16, (1, 300)))
    state = torch.get_rng_state()
    bits = search_audio.bits_of(singer.priors[LEARNED], singer.quantizer.codebook)(codes)
    assert torch.equal(torch.get_rng_state(), state)
    real = bits_by(singer.priors[LEARNED], [codes[0].numpy().astype(np.int32)])
    assert float(bits.gather(1, codes[:, None]).sum()) == pytest.approx(real, rel=0.01)
    assert torch.allclose((-bits).exp2().sum(1), torch.ones(1, 300))


def test_audio_comes_nearer(singer: AudioVQVAE) -> None:
    nearest = singer.analyse(SONG)
    for effort in (0, 1):
        assert torch.equal(search_audio.find_codes(singer, SONG, effort, None), nearest)
    for effort in (2, 3):
        codes = search_audio.find_codes(singer, SONG, effort, None)
        assert torch.equal(codes, search_audio.find_codes(singer, SONG, effort, None))
        assert codes.shape == nearest.shape and 0 <= codes.min() <= codes.max() < 16
        assert distance(singer, codes) < 0.9 * distance(singer, nearest)


def test_steps_are_those_of_adam(singer: AudioVQVAE, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients are those of the decoded codes, passed straight through."""
    monkeypatch.setattr(search_audio, "STEP_SIZE", 0.27)
    steps, rms, seen = 10, float(singer.quantizer.codebook.square().mean().sqrt()), []

    def choose(targets: torch.Tensor, before: torch.Tensor | None, step: int) -> torch.Tensor:
        assert step == len(seen) and (before is None) == (step == 0)
        seen.append(targets)
        return singer.quantizer.encode(targets)

    def error(vectors: torch.Tensor) -> torch.Tensor:
        return singer.spectral_distance(singer.reconstruct(vectors), SONG)

    start = singer.latents(SONG).detach()
    search_audio.descend(start, lambda latents: latents, choose, singer.quantizer.decode, error, steps, rms)
    latents = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([latents], betas=search_audio.BETAS)
    assert len(seen) == steps + 1
    for step, moved in enumerate(seen[:-1]):
        assert torch.allclose(latents, moved, atol=1e-5)
        vectors = singer.quantizer.decode(singer.quantizer.encode(moved)).detach().requires_grad_()
        latents.grad = torch.autograd.grad(error(vectors), vectors)[0]
        size = search_audio.STEP_SIZE * rms / steps**0.5
        optimiser.param_groups[0]["lr"] = size * (1 - 0.9 * step / steps)
        optimiser.step()


def test_without_normalised_latents() -> None:
    torch.manual_seed(1)
    model = build(
        audio.Config(
            codes=16,
            encoder_width=8,
            encoder_blocks=1,
            decoder_width=8,
            decoder_hidden=8,
            decoder_blocks=1,
            normalise=False,
        )
    ).eval()
    codes = search_audio.find_codes(model, SONG, 2, None)
    assert distance(model, codes) <= distance(model, model.analyse(SONG))


def test_audio_prefers_likely_codes(singer: AudioVQVAE) -> None:
    def bits(codes: torch.Tensor) -> torch.Tensor:
        return 7 * (torch.arange(16) % 2)[:, None].expand(1, 16, codes.shape[1]).float()

    unlikely = [
        float((search_audio.find_codes(singer, SONG, 2, given) % 2).float().mean()) for given in (None, bits)
    ]
    assert unlikely[1] < 0.8 * unlikely[0]


@pytest.mark.parametrize("count", [64, 1024, 1088])
def test_short_audio(singer: AudioVQVAE, count: int) -> None:
    """The longest window cannot be mirrored at the ends of the first two."""
    samples = SONG[..., :count]
    codes = search_audio.find_codes(singer, samples, 2, None)
    assert codes.shape == (1, count // 64)
    assert count > 1024 or torch.equal(codes, singer.analyse(samples))


def test_an_autoregressive_decoder_cannot_be_searched_through() -> None:
    model = build(wavenet.Config(encoder_width=8, encoder_blocks=1, decoder_width=8, decoder_hidden=8))
    assert not any(model.searches(effort) for effort in range(4))
    for effort in (0, 3):
        assert torch.equal(model.at(0, effort).analyse(SONG)["codes"], model.analyse(SONG))


def test_what_is_no_number_leaves_the_nearest_codes(singer: AudioVQVAE) -> None:
    samples = torch.full((1, 1, 6400), torch.nan)
    codes = search_audio.find_codes(singer, samples, 2, None)
    assert torch.equal(codes, singer.analyse(samples))


def test_operating_points_search_as_their_effort_says(codec: ImageVQVAE, singer: AudioVQVAE) -> None:
    """With the bits of the model's own priors."""
    samples = to_samples(draw(64, 48, 5)[None])
    rates, bits = rates_of(codec), search_audio.bits_of(singer.priors[LEARNED], singer.quantizer.codebook)
    for effort in range(4):
        wanted = codec.search(samples, effort, rates)
        assert torch.equal(codec.at(0, effort).analyse(samples)["codes"], wanted)
        wanted = search_audio.find_codes(singer, SONG, effort, bits)
        assert torch.equal(singer.at(0, effort).analyse(SONG)["codes"], wanted)
    for model, searching in ((codec, {2, 3}), (singer, {2, 3})):
        halos = [model.at(0, effort).analysis_halo for effort in range(4)]
        assert halos == [model.halo * (2 if effort in searching else 1) for effort in range(4)]
