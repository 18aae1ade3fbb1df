"""The VQ-VAE for sounds: shapes, reach, losses, and the cures of its diseases."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from vqcodec.errors import UsageError
from vqcodec.metrics import spectra
from vqcodec.models import MODELS, build, losses
from vqcodec.models.networks import ConvNeXtBlock, GatedStack, InverseSTFT, ResidualBlock
from vqcodec.models.vqvae import AudioVQVAE, WaveNetVQVAE, audio, generation, mu_law, wavenet
from vqcodec.models.vqvae.discriminator import AudioDiscriminator

TINY = audio.Config(
    encoder_width=16,
    encoder_blocks=2,
    decoder_width=16,
    decoder_hidden=24,
    decoder_blocks=2,
    codes=32,
    decay=0.8,  # so that codes follow, and are found dead, within few steps
    unquantised=3,
)
TINY_WAVENET = wavenet.Config(
    **{k: v for k, v in vars(TINY).items() if k != "frozen"}, residual=8, skip=12, head=16, layers=5
)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.05


def tones(number: int) -> torch.Tensor:
    """Batches of chords, different for each number: [4, 1, 2560]."""
    generator = torch.Generator().manual_seed(number)
    pitch = 100 * 2 ** (5 * torch.rand(4, 3, 1, generator=generator))
    time = torch.arange(2560) / 16_000
    return 0.1 * torch.sin(2 * math.pi * pitch * time).sum(1, keepdim=True)


@pytest.mark.parametrize("name", ["vqvae-audio", "vqvae-audio-paper"])
def test_worked_shape_of_the_paper(name: str) -> None:
    model = build(MODELS[name].config)
    second = torch.zeros(1, 1, 16_000)
    codes = model.analyse(second)
    assert codes.shape == (1, 250)
    assert model.config.codes == 512
    assert 250 * math.log2(model.config.codes) == 2250, "bits a second"
    convolutions = [layer for layer in model.encoder if isinstance(layer, torch.nn.Conv1d)][:6]
    assert [(c.kernel_size, c.stride) for c in convolutions] == [((4,), (2,))] * 6
    if isinstance(model, AudioVQVAE) and not isinstance(model, WaveNetVQVAE):
        assert model.synthesise(codes).shape == second.shape


def test_latents_have_length_one() -> None:
    latents = build(TINY).latents(noise(2, 1, 640))
    assert torch.allclose(latents.norm(dim=1), torch.ones(2, 10), atol=1e-5)


def reach(network, width: int, length: int = 101) -> int:
    """How far from the middle a changed input changes the output."""
    x = torch.randn(1, width, length)
    changed = x.clone()
    changed[:, :, length // 2] += 1
    with torch.no_grad():
        difference = (network(x) - network(changed)).abs().sum((0, 1)) > 0
    return int((difference.nonzero().flatten() - length // 2).abs().max())


def test_reach_of_the_blocks() -> None:
    assert reach(ConvNeXtBlock(8, 12), 8) == 3
    assert reach(ResidualBlock(8, 8, axes=1, dilation=4), 8) == 4


def test_halo_is_enough_for_both_networks() -> None:
    torch.manual_seed(1)
    model = build(replace(TINY, encoder_blocks=4))
    torch.nn.init.normal_(model.decoder[-1].project.weight, std=0.5)
    stride, halo, codes = model.stride, model.halo, 200
    samples, middle = noise(1, 1, codes * stride), slice(80, 120)
    outer = slice(middle.start - halo, middle.stop + halo)
    with torch.no_grad():
        whole = model.latents(samples)[:, :, middle]
        part = model.latents(samples[:, :, outer.start * stride : outer.stop * stride])
        assert torch.allclose(whole, part[:, :, halo:-halo], atol=1e-5)
        chosen = torch.randint(32, (1, codes))
        whole = model.synthesise(chosen)[:, :, middle.start * stride : middle.stop * stride]
        part = model.synthesise(chosen[:, outer])[:, :, halo * stride : -halo * stride]
        assert torch.allclose(whole, part, atol=1e-5)


def test_inverse_stft_inverts_a_windowed_stft() -> None:
    """Given the spectra of Hann frames laid as the layer lays them, the samples come back."""
    size, hop, count = 256, 64, 40
    layer = InverseSTFT(size + 2, size, hop)
    x = noise(count * hop)
    padded = torch.nn.functional.pad(x, ((size - hop) // 2, size))
    frames = torch.stack([padded[t * hop : t * hop + size] for t in range(count)])
    spectrum = torch.fft.rfft(frames * torch.hann_window(size))
    wanted = torch.cat((spectrum.abs().clamp(min=1e-6).log(), spectrum.angle()), 1)
    layer.norm, layer.project = torch.nn.Identity(), torch.nn.Identity()
    back = layer(wanted.t()[None])[0, 0]
    inside = slice(size, -size)
    assert torch.allclose(back[inside], x[inside], atol=1e-4)


def test_ends_of_a_spectrum_are_real(monkeypatch: pytest.MonkeyPatch) -> None:
    """Transforms differ in what they make of an imaginary part there, cuFFT's lets it through."""
    taken: list[torch.Tensor] = []
    honest = torch.fft.irfft
    monkeypatch.setattr(torch.fft, "irfft", lambda x, n: taken.append(x) or honest(x, n))
    InverseSTFT(16, 256, 64)(noise(16 * 9).view(1, 16, 9))
    ends = taken[0].imag[..., [0, -1]]
    assert not ends.any() and taken[0].imag[..., 1:-1].all() and taken[0].real.all()


def test_terms_of_the_loss() -> None:
    model = build(TINY)
    samples = tones(0)
    step = model.loss(samples)
    terms = step.terms
    assert set(terms) == {"mel", "convergence", "complex", "loudness", "commitment"}
    weighted = 15 * terms["mel"] + terms["convergence"] + 3 * terms["complex"] + terms["loudness"]
    weighted = weighted + terms["commitment"]
    assert torch.isclose(step.loss, weighted)
    step.loss.backward()
    assert model.encoder[0].weight.grad.abs().sum() > 0, "gradients pass the quantizer"


def test_spectral_distances_of_known_changes() -> None:
    x = tones(1)
    same = losses.spectral(x, x, 16_000)
    assert all(float(term) < 1e-3 for term in same.values()), same
    louder = losses.spectral(2 * x, x, 16_000)
    assert float(louder["mel"]) == pytest.approx(math.log10(2), rel=0.2), (
        "a factor of 2, but for silent bands"
    )
    assert float(louder["convergence"]) == pytest.approx(1, rel=1e-3)
    assert float(louder["complex"]) > 0.2
    turned = losses.spectral(-x, x, 16_000)
    assert float(turned["mel"]) < 1e-3, "magnitudes do not see the sign"
    assert float(turned["complex"]) > 1, "phases do"


def test_loudness_follows_zwickers_law_above_the_threshold() -> None:
    """Ten times the power is 10**.23 times the loudness; below the threshold nothing is heard."""
    x = 0.05 * torch.randn(1, 1, 16_000, generator=torch.Generator().manual_seed(0))
    distances = [float(losses.loudness(gain * x, x, 16_000)) for gain in (1.0, 10**0.5, 10.0, 0.0)]
    assert distances[0] < 1e-2
    silent = distances[3]  # the loudness itself
    assert distances[1] == pytest.approx((10**0.23 - 1) * silent, rel=0.1)
    assert distances[2] == pytest.approx((10**0.46 - 1) * silent, rel=0.1)
    assert float(losses.loudness(-x, x, 16_000)) < 1e-2, "no phases"
    quiet = float(losses.loudness(1e-3 * x, x, 16_000))
    assert 0.85 * silent < quiet < silent
    times = torch.arange(16_000) / 16_000
    tone, *hums = (torch.sin(2 * torch.pi * hertz * times)[None, None] for hertz in (1000, 60, 3000))
    heard = [float(losses.loudness(0.1 * tone + 3e-4 * hum, 0.1 * tone, 16_000)) for hum in hums]
    assert heard[1] > 1.5 * heard[0], "the ear hears best near 3 kHz"
    decibels = 10 * losses._threshold(48, 16_000, torch.device("cpu"))[:, 0].log10().numpy()
    known = np.interp([1000, 3300, 7500], spectra.bark_centres(48, 16_000), decibels)
    assert np.allclose(known, [3.4, -5.0, 3.9], atol=0.4), "Terhardt's threshold"
    silence = torch.zeros_like(x)
    assert float(losses.loudness(silence, silence, 16_000)) < 1e-2
    assert float(losses.loudness(3e-6 * x, 1e-6 * x, 16_000)) < 1e-2, "not amplified without bound"
    free = x.clone().requires_grad_()
    losses.loudness(free, 0 * x, 16_000).backward()
    assert torch.isfinite(free.grad).all()


def used_after_training(config: audio.Config, steps: int) -> tuple[int, float]:
    """Codes that new sounds take, and their perplexity."""
    torch.manual_seed(0)
    model = build(config)
    model.start(lambda n: tones(10_000 + n), torch.Generator().manual_seed(0))
    optimiser = torch.optim.AdamW(model.encoder.parameters(), lr=1e-4)
    optimiser.add_param_group({"params": list(model.decoder.parameters())})
    if model.quantizer.codebook.requires_grad:
        optimiser.add_param_group({"params": [model.quantizer.codebook]})
    for step in range(steps):
        optimiser.zero_grad()
        done = model.loss(tones(step))
        done.loss.backward()
        optimiser.step()
        model.update(done, 0.1, torch.Generator().manual_seed(step))
    codes = torch.cat([model.analyse(tones(20_000 + n)).flatten() for n in range(8)])
    share = torch.bincount(codes, minlength=config.codes) / len(codes)
    used = share > 0
    return int(used.sum()), float((-(share[used] * share[used].log()).sum()).exp())


def test_low_use_of_the_codebook_and_its_cure() -> None:
    """A codebook that starts at random, off the latents, is one code; k-means after some steps mends it."""
    ill = replace(TINY, codebook_start="random", restart_below=0.0, codebook_update="loss")
    used, perplexity = used_after_training(ill, 30)
    cured, cured_perplexity = used_after_training(replace(TINY, unquantised=20), 30)
    assert used <= 3 and cured >= 10
    assert cured_perplexity > 3 * perplexity


def test_frozen_codes_keep_their_meaning() -> None:
    model = build(replace(TINY, frozen=True))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for step in range(3):
        done = model.loss(tones(step))
        assert "commitment" not in done.terms
        done.loss.backward()
        optimiser.step()
        model.update(done, 0.1, torch.Generator().manual_seed(step))
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed and all(name.startswith("decoder.") for name in changed)


def test_a_discriminator_learns_to_tell_and_the_decoder_hears_of_it() -> None:
    torch.manual_seed(0)
    discriminator = AudioDiscriminator("stft")
    real, unreal = tones(0), noise(4, 1, 2560)
    optimiser = torch.optim.AdamW(discriminator.parameters(), lr=3e-3)
    first = float(discriminator.loss(unreal, real).loss.detach())
    for _ in range(12):
        optimiser.zero_grad()
        discriminator.loss(unreal, real).loss.backward()
        optimiser.step()
    assert float(discriminator.loss(unreal, real).loss.detach()) < 0.5 * first
    unreal.requires_grad_()
    terms = discriminator.judge(unreal, real)
    assert float(terms["matching"].detach()) > 0.5
    assert float(discriminator.judge(real, real)["matching"].detach()) == 0
    terms["adversarial"].backward()
    assert unreal.grad is not None and unreal.grad.abs().sum() > 0


def test_a_discriminator_is_of_the_training_alone() -> None:
    model = build(replace(TINY, adversarial=1.0, frozen=True))
    step = model.loss(tones(0))
    assert {"adversarial", "matching"} < set(step.terms)
    assert model.discriminator.loss(step.kept["reconstruction"], step.kept["samples"]).loss > 0
    plain = build(TINY)
    model.load_from(plain, 1.0)
    assert torch.equal(model.decoder[0].weight, plain.decoder[0].weight)
    plain.load_from(model, 1.0)
    assert plain.discriminator is None and "reconstruction" not in plain.loss(tones(0)).kept


# the autoregressive decoder


def test_mu_law_levels() -> None:
    x = torch.tensor([-1.0, -0.5, 0.0, 0.001, 0.5, 1.0])
    levels = mu_law.to_levels(x)
    assert levels[0] == 0 and levels[2] == 128 and levels[-1] == 255
    assert torch.all(levels.diff() > 0)
    back = mu_law.from_levels(levels)
    step = (1 + 255 * x.abs()) * math.log(256) / 255 / 127.5
    assert torch.all((back - x).abs() <= step)


def test_the_gated_stack_sees_the_past_alone() -> None:
    torch.manual_seed(0)
    stack = GatedStack(4, 6, 5, layers=3, stacks=2)
    assert stack.reach == 14
    x, context = torch.randn(1, 64, 4), torch.randn(1, 4, 5)
    changed = x.clone()
    changed[0, 30] += 1
    with torch.no_grad():
        difference = (stack(x, context) - stack(changed, context)).abs().sum((0, 2)) > 0
    moved = difference.nonzero().flatten()
    assert moved.min() == 30 and moved.max() == 30 + stack.reach


@pytest.mark.parametrize("guided", [True, False])
def test_drawing_with_caches_equals_the_network(guided: bool) -> None:
    """Every drawn level is the one that the whole network, all samples at once, gives this random number."""
    torch.manual_seed(0)
    model = build(replace(TINY_WAVENET, guided=guided)).eval()
    rng = np.random.default_rng(0)
    codes, numbers = rng.integers(0, 32, 12).astype(np.int32), rng.random((1, 12 * 64), dtype=np.float32)
    with torch.inference_mode():
        context, guide = generation._conditions(codes[None], model, 0)
        assert guide.any() is np.bool_(guided)
        cache = generation._Cache(generation._Weights.of(model), 1)
        levels = cache.run(context, guide, numbers, 64, 0.7)
        quantized = model.quantizer.decode(torch.from_numpy(codes.astype(np.int64))[None])
        logits = model.decoder(quantized, torch.from_numpy(levels)) / 0.7
    rising = logits.softmax(2).cumsum(2)
    again = (rising < torch.from_numpy(numbers)[..., None]).sum(2).numpy()
    assert (again != levels).mean() < 0.005, "but for numbers that fall on the edge of a level"
    assert len(np.unique(levels)) > 20


def test_segments_do_not_depend_on_how_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "SEGMENT_CODES", 10)
    monkeypatch.setattr(generation, "BATCH", 4)
    model = build(TINY_WAVENET).eval()
    codes = np.random.default_rng(0).integers(0, 32, 65).astype(np.int32)
    # The trunk sees codes on both sides: a shorter sound must end where that no longer matters.
    whole = generation.generate(codes, model, seed=5)
    again = generation.generate(codes, model, seed=5)
    shorter = generation.generate(codes[:60], model, seed=5)[: 60 * 64 - 7]
    assert whole.shape == (65 * 64,) and shorter.shape == (60 * 64 - 7,)
    assert np.array_equal(whole, again)
    same = 30 * 64
    assert np.array_equal(whole[:same], shorter[:same])
    assert not np.array_equal(whole, generation.generate(codes, model, seed=6))
    assert np.abs(whole).max() <= 1


def test_likelihood_of_a_constant_is_learned() -> None:
    torch.manual_seed(0)
    model = build(replace(TINY_WAVENET, frozen=True))
    silence = torch.zeros(2, 1, 640)
    assert model.loss(silence).terms["nll"].item() == pytest.approx(math.log(256), rel=0.2), (
        "at first any level"
    )
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(20):
        optimiser.zero_grad()
        model.loss(silence).loss.backward()
        optimiser.step()
    assert model.loss(silence).terms["nll"] < 0.2


def test_a_second_decoder_starts_from_a_codec() -> None:
    codec, second = build(TINY), build(TINY_WAVENET)
    with pytest.raises(UsageError, match="needs the encoder"):
        second.start(tones, torch.Generator())
    second.load_from(codec, 1.0)
    assert torch.equal(second.analyse(tones(3)), codec.analyse(tones(3)))
    latents = codec.quantizer.codebook.t()[None]
    features = second.decoder.trunk(latents)
    assert torch.equal(second.decoder.waveform(features), codec.reconstruct(latents)), "its guide"
    third = build(TINY_WAVENET)
    third.load_from(second, 1.0)
    assert torch.equal(third.decoder.logits.weight, second.decoder.logits.weight)


def test_the_paper_trains_all_parts_together() -> None:
    config = replace(TINY_WAVENET, guided=False, frozen=False, codebook_update="loss", normalise=False)
    model = build(config)
    step = model.loss(tones(0))
    assert set(step.terms) == {"nll", "commitment", "codebook"}
    step.loss.backward()
    for part in (model.encoder[0].weight, model.quantizer.codebook, model.decoder.logits.weight):
        assert part.grad.abs().sum() > 0


def test_mel_bands_are_none_of_them_empty() -> None:
    for window, bands in losses.MEL_BANDS.items():
        assert spectra.mel_bank(window, bands, 16_000).sum(1).min() > 0


def test_mu_law_levels_of_samples_beyond_the_range() -> None:
    assert mu_law.to_levels(torch.tensor([-1.5, 1.0, 1.5])).tolist() == [0, 255, 255]
