"""Probabilistic PCA (Tipping and Bishop 1999): the VAE whose networks are linear, solved in closed form."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PPCA:
    """p(x | z) = N(W z + mean, noise_variance I), p(z) = N(0, I).

    Attributes:
        mean: float64 [D].
        components: float64 [M, D], orthonormal rows, by falling variance.
        variances: float64 [M], eigenvalues of the covariance along the components.
        noise_variance: mean of the discarded eigenvalues (eq. 8); 0 when M = D.
    """

    mean: Tensor
    components: Tensor
    variances: Tensor
    noise_variance: float

    @property
    def weights(self) -> Tensor:
        """W, float64 [D, M] (eq. 7 with R = I)."""
        scale = (self.variances - self.noise_variance).clamp(min=0).sqrt()
        return self.components.t() * scale


def fit(mean: Tensor, covariance: Tensor, size: int) -> PPCA:
    """Maximum-likelihood pPCA from the first two moments of the data.

    Args:
        mean: [D].
        covariance: [D, D].
        size: M, the number of components, 1 <= M <= D.

    Returns:
        The fit. Signs are fixed: the largest element of each component is positive.
    """
    variances, vectors = torch.linalg.eigh(covariance.double())
    variances, vectors = variances.flip(0).clamp(min=0), vectors.flip(1)
    components = vectors[:, :size].t().contiguous()
    largest = components.abs().argmax(1, keepdim=True)
    components = components * components.gather(1, largest).sign()
    discarded = variances[size:]
    noise = float(discarded.mean()) if len(discarded) else 0.0
    return PPCA(mean.double(), components, variances[:size], noise)


def moments(batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean [D] and covariance [D, D], float64, of vectors [N, D] given in pieces."""
    count, total, products = 0, torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for batch in batches:
        vectors = batch.double()
        count += len(vectors)
        total = total + vectors.sum(0)
        products = products + vectors.t() @ vectors
    mean = total / count
    return mean, products / count - torch.outer(mean, mean)
