from __future__ import annotations

import numpy as np
import torch
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
