"""What a model with one latent vector per picture uses its latents for.

Posteriors are N(mean, diag exp(log_variance)). All figures are in nats per picture. N is the number of
pictures, M that of units.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

ACTIVE_VARIANCE = 0.01
"""A unit is active if its posterior mean varies more over the data (Burda et al. 2016)."""

ROWS = 512
"""Samples whose densities under all posteriors are computed at once."""


def active_units(means: Tensor) -> Tensor:
    """Return which units are active, bool [M], from the posterior means of the data, [N, M]."""
    return means.double().var(0, correction=0) > ACTIVE_VARIANCE


def mutual_information(mean: Tensor, log_variance: Tensor, z: Tensor) -> float:
    """Estimate the mutual information of x and z under q, in nats (Hoffman and Johnson 2016).

    I = E_x E_q [log q(z | x) - log q(z)], where the aggregate posterior q(z) is the mixture of the posteriors
    of all N pictures. No estimate of this kind exceeds ln N.

    Args:
        mean: of the posteriors, [N, M].
        log_variance: of the posteriors, [N, M].
        z: a sample of each of the first posteriors, [n, M].
    """
    mean, log_variance, z = mean.double(), log_variance.double(), z.double()
    precision = (-log_variance).exp()
    constant = -0.5 * (log_variance + mean.square() * precision).sum(1)  # without ln 2 pi, which cancels
    total = 0.0
    for start in range(0, len(z), ROWS):
        rows = z[start : start + ROWS]
        # log q(z | x_j) of all pairs, by products of matrices.
        densities = constant + rows @ (mean * precision).t() - 0.5 * rows.square() @ precision.t()
        own = densities.diagonal(start)[: len(rows)]
        total += float((own - densities.logsumexp(1) + math.log(len(mean))).sum())
    return total / len(z)


def importance_bound(log_weights: Iterable[Tensor]) -> Tensor:
    """Return log 1/K sum_k w_k, w = p(x, z) / q(z | x), in nats (Burda et al. 2016, eq. 8).

    Args:
        log_weights: log w of some samples each, [k, B].

    Returns:
        [B]; its expectation grows with K, from the ELBO at K = 1 to log p(x).
    """
    count, total = 0, torch.empty(0)
    for part in log_weights:
        summed = part.double().logsumexp(0)
        total = torch.logaddexp(total, summed) if count else summed
        count += len(part)
    return total - math.log(count)


def bits_per_dimension(nats: float, dimensions: int, levels: int) -> float:
    """Return the bits of a pixel from a log-likelihood per picture.

    Args:
        nats: log p(x), where a level is 1 / (levels - 1) wide; of 2 levels, log P(x).
        dimensions: pixels and channels of a picture.
        levels: number of values of a pixel.
    """
    return -nats / (dimensions * math.log(2)) + (math.log2(levels - 1) if levels > 2 else 0.0)
