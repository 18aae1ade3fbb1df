from __future__ import annotations

import numpy as np
import torch
from sklearn.decomposition import PCA
from vqcodec.models import ppca


def sample(count: int = 4000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(6, 2, generator=generator, dtype=torch.float64) * 3
    latent = torch.randn(count, 2, generator=generator, dtype=torch.float64)
    noise = torch.randn(count, 6, generator=generator, dtype=torch.float64) * 0.5
    return latent @ weights.t() + noise + torch.arange(6)


def test_moments_of_pieces_are_those_of_the_whole() -> None:
    data = sample()
    mean, covariance = ppca.moments([data[:1000], data[1000:]])
    assert torch.allclose(mean, data.mean(0))
    assert np.allclose(covariance.numpy(), np.cov(data.numpy().T, bias=True))


def test_fit_is_the_singular_value_decomposition() -> None:
    data = sample()
    fit = ppca.fit(*ppca.moments([data]), 2)
    _, singular, right = np.linalg.svd(data.numpy() - data.numpy().mean(0), full_matrices=False)
    assert np.allclose(fit.variances, singular[:2] ** 2 / len(data))
    assert np.allclose(np.abs(fit.components.numpy() @ right[:2].T), np.eye(2), atol=1e-8)
    assert np.isclose(fit.noise_variance, (singular[2:] ** 2 / len(data)).mean())


def test_model_covariance_matches_the_data_it_was_fitted_to() -> None:
    data = sample(100_000)
    fit = ppca.fit(*ppca.moments([data]), 2)
    modelled = fit.weights @ fit.weights.t() + fit.noise_variance * torch.eye(6, dtype=torch.float64)
    assert np.allclose(modelled, np.cov(data.numpy().T), atol=0.05)
    assert np.isclose(fit.noise_variance, 0.25, atol=0.01)


def test_all_components_leave_no_noise() -> None:
    assert ppca.fit(*ppca.moments([sample()]), 6).noise_variance == 0


def test_likelihood_and_noise_are_those_of_scikit_learn() -> None:
    data = sample(500)
    theirs = PCA(2).fit(data.numpy())
    mean, covariance = ppca.moments([data])
    ours = ppca.fit(mean, covariance * len(data) / (len(data) - 1), 2)  # it divides by n - 1
    assert np.isclose(ours.noise_variance, theirs.noise_variance_)
    assert np.allclose(ours.log_likelihood(data), theirs.score_samples(data.numpy()))
    assert np.isclose(float(ours.log_likelihood(data).mean()), theirs.score(data.numpy()))


def test_posterior_is_that_of_the_joint_gaussian() -> None:
    data = sample(50)
    fit = ppca.fit(*ppca.moments([sample()]), 2)
    weights, noise = fit.weights.numpy(), fit.noise_variance
    covariance = weights @ weights.T + noise * np.eye(6)
    gain = weights.T @ np.linalg.inv(covariance)  # of z and x, jointly Gaussian
    means, variances = fit.posterior(data)
    assert np.allclose(means, (data - fit.mean).numpy() @ gain.T)
    assert np.allclose(np.diag(variances), np.eye(2) - gain @ weights)


def test_samples_have_the_covariance_of_the_model() -> None:
    fit = ppca.fit(*ppca.moments([sample()]), 2)
    drawn = fit.sample(200_000, torch.Generator().manual_seed(1))
    modelled = fit.weights @ fit.weights.t() + fit.noise_variance * torch.eye(6, dtype=torch.float64)
    assert np.allclose(np.cov(drawn.numpy().T), modelled, atol=0.2)
    assert np.allclose(drawn.mean(0), fit.mean, atol=0.05)
    assert torch.equal(drawn, fit.sample(200_000, torch.Generator().manual_seed(1)))


def test_likelihood_without_noise_is_a_gaussian() -> None:
    data = sample(300)
    fit = ppca.fit(*ppca.moments([data]), 6)
    reference = torch.distributions.MultivariateNormal(
        fit.mean, torch.from_numpy(np.cov(data.numpy().T, bias=True))
    )
    assert np.allclose(fit.log_likelihood(data), reference.log_prob(data))


def test_the_largest_element_of_a_component_is_positive() -> None:
    generator = torch.Generator().manual_seed(3)
    data = torch.randn(500, 12, generator=generator, dtype=torch.float64) * torch.arange(1, 13)
    components = ppca.fit(*ppca.moments([data]), 8).components
    assert (components.gather(1, components.abs().argmax(1, keepdim=True)) > 0).all()
