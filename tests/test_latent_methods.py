"""Methods with one latent vector per picture, by what is known in closed form."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import lambertw
from torch import Tensor
from vqcodec.evaluation import latents as evaluation
from vqcodec.metrics import latents
from vqcodec.models import MODELS, build, ppca
from vqcodec.models.latent import VAE, Posterior, beta_vae, delta_vae, vae, vae_gan

SIDE = 6


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """Gradients are computed where a test asks for them."""
    torch.manual_seed(0)
    with torch.no_grad():
        yield


def gaussian_pictures(count: int = 1000) -> Tensor:
    """Pictures of a Gaussian model with 3 factors, float32 [count, 1, SIDE, SIDE], about 0.5."""
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(SIDE**2, 3, generator=generator) * torch.tensor([0.5, 0.3, 0.2])
    x = 0.5 + torch.randn(count, 3, generator=generator) @ weights.t()
    return (x + 0.25 * torch.randn(x.shape, generator=generator)).view(-1, 1, SIDE, SIDE)


def linear_model(units: int = 3, **options: object) -> VAE:
    config = vae.Config(side=SIDE, units=units, likelihood="gaussian", network="linear", **options)
    return VAE(config).eval()


def fitted(x: Tensor, units: int = 3) -> ppca.PPCA:
    return ppca.fit(*ppca.moments([x.flatten(1)]), units)


def posteriors(count: int = 3000, units: int = 4) -> Posterior:
    scale = torch.tensor([3.0, 1.0, 0.3, 0.0])[:units]
    return Posterior(torch.randn(count, units) * scale, -torch.rand(count, units) * scale)


# pPCA, the linear case


def test_closed_forms_of_ppca() -> None:
    x = gaussian_pictures()
    fit = fitted(x)
    assert np.isclose(fit.evidence, float(fit.log_likelihood(x.flatten(1)).mean()))
    means, variance = fit.posterior(x.flatten(1))
    kl = 0.5 * (means.square() + variance - 1 - variance.log()).mean(0)
    assert torch.allclose(fit.kl, kl), "the mean of the KL over the data"
    noisy = fitted(x, SIDE**2).with_noise(2.0)
    alive = int((noisy.kl > 0).sum())
    assert alive == int((fitted(x, SIDE**2).variances > 2.0).sum()) in range(1, 4)
    best = max(
        (float(fit.log_likelihood(x.flatten(1)).mean()), size)
        for size in range(1, 6)
        for fit in [replace(fitted(x, size), noise_variance=2.0)]
        if bool((fit.variances >= 2.0).all())
    )
    # With its units the likelihood of a fixed variance is the largest.
    assert np.isclose(float(noisy.log_likelihood(x.flatten(1)).mean()), best[0]) and best[1] == alive


def test_a_linear_vae_at_the_start_is_ppca() -> None:
    x = gaussian_pictures(500)
    fit, model = fitted(gaussian_pictures()), linear_model()
    model.set_linear(fit)
    with torch.inference_mode():
        means, variances = fit.posterior(x.flatten(1))
        found = model.posterior(x)
        assert torch.allclose(found.mean.double(), means, atol=1e-4)
        assert torch.allclose(found.log_variance.exp().double(), variances.expand(500, -1), atol=1e-5)
        # The posterior is exact, so that each sample's weight is the evidence.
        bound = evaluation.importance_bound(x, model, 7)
        assert torch.allclose(bound, fit.log_likelihood(x.flatten(1)), atol=0.05)


def test_a_linear_start_is_the_best_for_the_weight_of_the_rate() -> None:
    x = gaussian_pictures()
    costs = {}
    for weight in (1.0, 3.0, 9.0):
        config = beta_vae.Config(
            side=SIDE, units=3, likelihood="gaussian", network="linear", variance=0.1, beta=weight
        )
        model = beta_vae.BetaVAE(config).eval()
        model.set_linear(fitted(x))
        assert float(model.noise_variance) == pytest.approx(0.1)
        posterior = model.posterior(x)
        distortion = -torch.stack(
            [model.log_likelihood(x, posterior.sample()).mean() for _ in range(20)]
        ).mean()
        costs[weight] = float(distortion + 3 * model.kl(posterior).sum(1).mean())
    assert costs[3.0] < min(costs[1.0], costs[9.0])


@torch.enable_grad()
def test_a_linear_vae_by_gradient_reaches_the_closed_form() -> None:
    """Within .5 nats and 1 degree, with every posterior mean and variance learned."""
    x = gaussian_pictures()
    model = linear_model(linear_start=False).train()
    optimiser = torch.optim.Adam(model.parameters(), 0.05)
    for step in range(500):
        optimiser.param_groups[0]["lr"] = 0.05 * (1 - step / 500)
        posterior = model.posterior(x)
        loss = model.kl(posterior).sum(1).mean() - model.log_likelihood(x, posterior.sample()).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    fit = fitted(x)
    with torch.no_grad():
        posterior = model.posterior(x)
        elbo = torch.stack([model.log_likelihood(x, posterior.sample()).mean() for _ in range(20)]).mean()
        elbo = elbo - model.kl(posterior).sum(1).mean()
        weights = model.decoder[0].weight.detach()
    assert fit.evidence - 0.5 < float(elbo) < fit.evidence + 0.1
    cosines = torch.linalg.svdvals(fit.components @ torch.linalg.qr(weights.double())[0])
    assert math.degrees(math.acos(min(float(cosines.min()), 1.0))) < 1
    assert abs(float(model.noise_variance.detach()) / fit.noise_variance - 1) < 0.05


# what latents carry


def test_divergence_from_the_standard_normal_is_that_of_torch() -> None:
    model, found = linear_model(4), posteriors()
    theirs = torch.distributions.kl_divergence(
        torch.distributions.Normal(found.mean, (0.5 * found.log_variance).exp()),
        torch.distributions.Normal(0.0, 1.0),
    )
    assert torch.allclose(model.kl(found), theirs, atol=1e-5)


def test_densities_are_those_of_scipy() -> None:
    found = posteriors(5)
    z = found.sample()
    theirs = stats.norm.logpdf(z.numpy(), found.mean.numpy(), (0.5 * found.log_variance).exp().numpy())
    assert np.allclose(found.log_density(z), theirs.sum(1), atol=1e-4)
    assert np.allclose(linear_model(4).log_prior(z), stats.norm.logpdf(z.numpy()).sum(1), atol=1e-5)


def test_mutual_information_of_gaussians_is_the_closed_form() -> None:
    """z = x + noise with x ~ N(0, s^2): I = 1/2 ln(1 + s^2 / noise), and KL >= I."""
    mean = torch.randn(5000, 2) * torch.tensor([2.0, 0.5])
    found = Posterior(mean, torch.full_like(mean, math.log(0.25)))
    expected = 0.5 * (math.log1p(4 / 0.25) + math.log1p(0.25 / 0.25))
    estimate = latents.mutual_information(*vars(found).values(), found.sample())
    assert abs(estimate - expected) < 0.05
    rate = float(linear_model(2).kl(found).sum(1).mean())
    assert 0 < estimate < rate
    # No estimate exceeds the logarithm of the number of pictures.
    sharp = Posterior(mean[:50], torch.full((50, 2), -20.0))
    assert np.isclose(latents.mutual_information(*vars(sharp).values(), sharp.sample()), math.log(50))


def test_active_units_are_those_whose_mean_varies() -> None:
    means = torch.randn(4000, 4) * torch.tensor([1.0, 0.11, 0.09, 0.0])
    assert latents.active_units(means).tolist() == [True, True, False, False]


def test_importance_bound_of_parts_is_that_of_the_whole() -> None:
    weights = torch.randn(50, 3).double() * 3 - 800
    whole = latents.importance_bound([weights])
    assert torch.allclose(whole, latents.importance_bound(weights.split(7)))
    assert torch.allclose(whole, (weights + 800).exp().mean(0).log() - 800)


def test_bits_per_dimension_of_uniform_pixels() -> None:
    assert np.isclose(latents.bits_per_dimension(-64 * math.log(2), 64, 2), 1)
    # The density of uniform bytes, a level being 1 / 255 wide, is 255 / 256 over 256 levels.
    assert np.isclose(latents.bits_per_dimension(64 * math.log(255 / 256), 64, 256), 8)


# likelihoods and settings


def test_likelihoods_are_those_of_scipy() -> None:
    x, z = torch.rand(3, 1, SIDE, SIDE), torch.randn(3, 3)
    model = linear_model(variance=0.2, linear_start=False)
    mean = model.decoder(z).detach()
    theirs = stats.norm.logpdf(x.numpy(), mean.numpy(), math.sqrt(0.2)).reshape(3, -1).sum(1)
    assert np.allclose(model.log_likelihood(x, z).detach(), theirs, rtol=1e-5)
    assert float(model.noise_variance) == pytest.approx(0.2)
    bits = VAE(vae.Config(side=SIDE, units=3, network="linear"))
    x, share = x.round(), bits.decode(z).detach()
    theirs = stats.bernoulli.logpmf(x.numpy(), share.numpy()).reshape(3, -1).sum(1)
    assert np.allclose(bits.log_likelihood(x, z).detach(), theirs, rtol=1e-5)
    assert bits.noise_variance is None


def test_settings_that_cannot_be_are_refused() -> None:
    from vqcodec.errors import UsageError

    for config, message in (
        (vae.Config(channels=2), "channels is 2"),
        (vae.Config(side=30, network="conv"), "side is 30"),
        (vae.Config(side=4, units=17, likelihood="gaussian"), "units is 17"),
        (delta_vae.Config(steps=5), "steps is 5"),
        (vae_gan.Config(side=4), "side is 4"),
        (vae_gan.Config(likelihood="bernoulli"), "likelihood=bernoulli"),
        (vae_gan.Config(decoder="pixelcnn"), "decoder=pixelcnn"),
        (vae_gan.Config(linear_start=True), "linear_start=True"),
        (delta_vae.Config(linear_start=True), "a delta-VAE with linear_start"),
    ):
        with pytest.raises(UsageError, match=message):
            config.check()


# beta-VAE


@torch.enable_grad()
def test_free_bits_cost_nothing_and_warm_up_rises() -> None:
    config = beta_vae.Config(side=8, units=4, hidden=8, beta=3.0, free_bits=0.5, kl_warmup=0.5)
    model = beta_vae.BetaVAE(config)
    kl = torch.tensor([[0.0, 0.2, 0.4, 2.0], [0.2, 0.2, 0.8, 4.0]], requires_grad=True)
    step = model.loss(torch.rand(2, 3, 8, 8).round() * 2 - 1)
    assert float(model.rate_cost(kl.detach())) == 0
    assert float(model.eval().rate_cost(kl.detach())) == pytest.approx(3.0 * (0.5 + 0.5 + 0.6 + 3.0))
    model.train()
    generator = torch.Generator()
    for progress, weight in ((0.25, 1.5), (0.5, 3.0), (0.9, 3.0)):
        model.update(step, progress, generator)
        cost = model.rate_cost(kl)
        assert float(cost.detach()) == pytest.approx(weight * (0.5 + 0.5 + 0.6 + 3.0))
    (gradient,) = torch.autograd.grad(cost, kl)
    assert gradient.sum(0).tolist() == [0.0, 0.0, 3.0, 3.0]


@torch.enable_grad()
@pytest.mark.parametrize(("nats", "cost", "slope"), [(3.0, 3.9, 1.0), (5.0, 5.0, 0.0)])
def test_free_bits_of_all_units_are_shared(nats: float, cost: float, slope: float) -> None:
    """Whole pictures have 2.6 and 5.2 nats: under the mean of them free bits change nothing."""
    model = beta_vae.BetaVAE(beta_vae.Config(beta=1.0, free_bits=nats, free_bits_of="all"))
    kl = torch.tensor([[0.0, 0.2, 0.4, 2.0], [0.2, 0.2, 0.8, 4.0]], requires_grad=True)
    found = model.rate_cost(kl)
    assert float(found.detach()) == pytest.approx(cost)
    (gradient,) = torch.autograd.grad(found, kl)
    assert gradient.sum(0).tolist() == [slope] * 4


# delta-VAE


@pytest.mark.parametrize("delta", [0.01, 0.25, 2.0])
def test_bounds_of_the_variance_are_the_roots(delta: float) -> None:
    low, high = delta_vae.variance_bounds(delta)
    level = -math.exp(-(2 * delta + 1))
    assert (low, high) == pytest.approx((-lambertw(level, 0).real, -lambertw(level, -1).real))
    # A posterior of mean 0 has exactly this KL there.
    for v in (low, high):
        assert 0.5 * (v - 1 - math.log(v)) == pytest.approx(delta)


def test_no_posterior_of_the_independent_form_is_nearer_than_delta() -> None:
    config = delta_vae.Config(form="independent", delta=0.3, side=8, units=5, hidden=16, decoder="factorised")
    model = delta_vae.DeltaVAE(config)
    for scale in (0.0, 1.0, 30.0):
        with torch.no_grad():
            model.encoder[-1].weight.normal_(std=scale)
            model.encoder[-1].bias.normal_(std=scale)
        kl = model.kl(model.posterior(torch.rand(200, 1, 8, 8))).detach()
        assert float(kl.min()) >= 0.3 - 1e-4
        assert scale or float(kl.max()) < 0.3 + 1e-3, "and the bound is reached"


@pytest.mark.parametrize("alpha", [0.5, 0.9, 0.95, 0.99])
def test_the_bound_of_a_process_ar1(alpha: float) -> None:
    published = {0.5: 7.061, 0.9: 19.224, 0.95: 21.102, 0.99: 23.136}[alpha]
    assert delta_vae.ar1_bound(alpha, 64) == pytest.approx(published, abs=1e-3)
    config = delta_vae.Config(alpha=alpha, steps=8, side=8, units=16, hidden=8, decoder="factorised")
    model = delta_vae.DeltaVAE(config)
    assert model.committed_rate == pytest.approx(2 * delta_vae.ar1_bound(alpha, 8))
    # The KL is that of two Gaussians; at its minimum it is the bound.
    correlation = alpha ** torch.arange(8.0).sub(torch.arange(8.0)[:, None]).abs().double()
    prior = torch.distributions.MultivariateNormal(torch.zeros(8).double(), correlation)
    inner = torch.tensor([1 - alpha**2] + 6 * [(1 - alpha**2) / (1 + alpha**2)] + [1 - alpha**2]).double()
    for mean, variance, least in (
        (torch.zeros(8).double(), inner, True),
        (torch.randn(8).double(), torch.rand(8).double() + 0.1, False),
    ):
        theirs = torch.distributions.kl_divergence(
            torch.distributions.MultivariateNormal(mean, variance.diag()), prior
        )
        # Both dimensions of a step are alike; units are steps by dimensions.
        found = Posterior(mean.repeat_interleave(2)[None], variance.log().repeat_interleave(2)[None])
        ours = model.kl(found).sum()
        assert float(ours) == pytest.approx(2 * float(theirs), rel=1e-6)
        assert (float(ours) == pytest.approx(model.committed_rate, rel=1e-6)) == least
        z = found.sample()
        density = prior.log_prob(z.view(8, 2).t()).sum()
        assert float(model.log_prior(z)) == pytest.approx(float(density), rel=1e-6)


@torch.enable_grad()
def test_an_encoder_over_rows_is_anti_causal_and_its_decoder_causal() -> None:
    config = delta_vae.Config(steps=4, side=8, units=8, hidden=8, decoder="factorised")
    model = delta_vae.DeltaVAE(config).eval()
    x = torch.rand(1, 1, 8, 8, requires_grad=True)
    (rows,) = torch.autograd.grad(model.posterior(x).mean.view(4, 2)[1].sum(), x)
    assert (rows[0, 0].abs().sum(1) > 0).tolist() == [False] * 2 + [True] * 6
    z = torch.randn(1, 8, requires_grad=True)
    (latents_,) = torch.autograd.grad(model.maps(z)[0, 0, 2:4].sum(), z)
    assert (latents_.view(4, 2).abs().sum(1) > 0).tolist() == [True, True, False, False]


def test_the_auxiliary_prior_is_the_nearest_gaussian() -> None:
    config = delta_vae.Config(steps=4, side=8, units=8, hidden=8, decoder="factorised")
    model = delta_vae.DeltaVAE(config).eval()
    with torch.no_grad():
        model.encoder[1].last.weight.normal_(std=0.3)
    x = torch.rand(500, 1, 8, 8)
    found = model.posterior(x)
    assert model.auxiliary_kl(found) is None
    model.fit_tables([{"pictures": x[:200].numpy()}, {"pictures": x[200:].numpy()}], 0)
    ours = model.auxiliary_kl(found)
    prior = torch.distributions.MultivariateNormal(
        model.auxiliary_mean.double(), scale_tril=model.auxiliary_factor.double()
    )
    theirs = torch.distributions.kl_divergence(
        torch.distributions.MultivariateNormal(
            found.mean.double(), torch.diag_embed(found.log_variance.double().exp())
        ),
        prior,
    )
    assert torch.allclose(ours, theirs, atol=1e-3)
    density = prior.log_prob(found.mean.double())
    assert torch.allclose(model.log_prior(found.mean).double(), density, rtol=1e-3)
    assert float(ours.mean()) < float(model.kl(found).sum(1).mean())
    generator = torch.Generator().manual_seed(0)
    drawn = model.sample_prior(20_000, generator).double()
    sampled = found.sample().double()
    assert torch.allclose(drawn.mean(0), sampled.mean(0), atol=0.2)
    assert torch.allclose(drawn.t().cov(), sampled.t().cov(), atol=0.3)


# VAE-GAN


@torch.enable_grad()
def test_each_loss_of_a_vae_gan_reaches_its_own_network() -> None:
    """Against gradients of each loss by itself, computed as the paper writes them, with the best variance."""
    config = vae_gan.Config(side=8, units=3, hidden=8, features=4, gamma=0.1)
    model = vae_gan.VAEGAN(config)
    samples = torch.rand(4, 1, 8, 8).expand(-1, 3, -1, -1) * 2 - 1
    torch.manual_seed(5)
    model.loss(samples).loss.backward()
    ours = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    torch.manual_seed(5)
    x = model.pictures(samples)
    posterior = model.posterior(x)
    z, prior = posterior.sample(), torch.randn(4, 3)
    discriminator = model.discriminator
    apart = (discriminator(x)[1] - discriminator(model.maps(z))[1]).square()
    like = 0.5 * apart.sum(1).mean() / apart.mean().detach()
    fooled = -sum(discriminator(model.maps(latent))[0].sigmoid().log().mean() for latent in (z, prior))
    encoder = torch.autograd.grad(
        model.kl(posterior).sum(1).mean() + like, list(model.encoder.parameters()), retain_graph=True
    )
    decoder = torch.autograd.grad(0.1 * like + fooled, list(model.decoder.parameters()))
    for name, gradient in (
        *((f"encoder.{n}", g) for (n, _), g in zip(model.encoder.named_parameters(), encoder, strict=True)),
        *((f"decoder.{n}", g) for (n, _), g in zip(model.decoder.named_parameters(), decoder, strict=True)),
    ):
        assert torch.allclose(ours[name], gradient, atol=1e-5, rtol=1e-3), name


@torch.enable_grad()
def test_the_side_that_is_ahead_waits() -> None:
    model = vae_gan.VAEGAN(vae_gan.Config(side=8, units=3, hidden=8, features=4))
    samples = torch.rand(4, 1, 8, 8).expand(-1, 3, -1, -1) * 2 - 1
    discriminator = model.discriminator
    for bias, decoder_learns, discriminator_learns in ((0.0, True, True), (5.0, True, False)):
        with torch.no_grad():
            discriminator.score.weight.zero_()
            discriminator.score.bias.fill_(bias)
        model.zero_grad()
        step = model.loss(samples)
        step.loss.backward()
        moved = any(bool(p.grad.any()) for p in model.decoder.parameters())
        assert moved == decoder_learns == bool(step.terms["decoder_learns"])
        judged = discriminator.loss(step.kept["reconstruction"], step.kept["samples"])
        assert discriminator.learns(judged) == discriminator_learns
    # One that mistakes originals costs too much, and none of its costs is small: the decoder waits.
    with torch.no_grad():
        discriminator.score.bias.fill_(-1.0)
    model.zero_grad()
    step = model.loss(samples)
    step.loss.backward()
    assert math.log1p(math.exp(-1.0)) > 0.28 and not step.terms["decoder_learns"]
    assert not any(bool(p.grad.any()) for p in model.decoder.parameters())


@pytest.mark.parametrize("name", ["vae-bits", "vae-thumbnail", "beta-vae", "delta-vae", "vae-gan"])
def test_every_named_model_takes_a_step(name: str) -> None:
    torch.set_grad_enabled(True)
    entry = MODELS[name]
    model = build(entry.config)
    side = entry.config.side * (2 if name == "vae-thumbnail" else 1)
    samples = torch.rand(2, 3, side, side).round() * 2 - 1
    step = model.loss(samples)
    step.loss.backward()
    assert math.isfinite(step.loss.item()) and {"elbo", "distortion", "rate"} <= set(step.terms)
    assert model.update(step, 0.5, torch.Generator()) == {}
