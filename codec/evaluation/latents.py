"""Inspect a model with one latent vector per picture: what its latents carry, and what its data cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..metrics import latents
from ..models import LatentModel
from ..transform.pixels import to_samples
from ..transform.tiling import extend

BATCH = 256
"""Pictures that go through the networks at once."""

MIXTURE = 10_000
"""Pictures of the aggregate posterior, at most."""

SAMPLED = 2000
"""Pictures whose latents are sampled for the mutual information, at most."""

ROWS = 5000
"""Latents that go through the decoder at once for the importance-weighted bound."""

COLLAPSED = 0.1
"""A model is called collapsed if at most this share of its units is active."""


@dataclass(frozen=True)
class Figures:
    """Figures of a model over some pictures, in nats per picture.

    Attributes:
        pictures: N.
        elbo: -(distortion + rate).
        distortion: E_q[-log p(x | z)].
        rate: KL(q(z | x) || p(z)).
        kl: the rate of each unit.
        active: number of units that are active.
        mutual_information: of x and z under q, estimated with `mixture` pictures.
        mixture: pictures in the aggregate posterior; no estimate exceeds its logarithm.
        bits_per_dimension: by the ELBO; with a Gaussian likelihood, of bytes with uniform noise added.
        noise_variance: of a Gaussian likelihood, pixels being 0..1.
        auxiliary_rate: the rate by an auxiliary prior.
        importance: importance-weighted bound, with `samples` samples, under the prior that is sampled from.
        samples: K.
        varied: whether the pictures differ; else no unit can be active.
    """

    pictures: int
    elbo: float
    distortion: float
    rate: float
    kl: list[float]
    active: int
    mutual_information: float
    mixture: int
    bits_per_dimension: float
    noise_variance: float | None = None
    auxiliary_rate: float | None = None
    importance: float | None = None
    samples: int = 0
    varied: bool = True

    @property
    def units(self) -> int:
        """M."""
        return len(self.kl)

    @property
    def collapsed(self) -> bool:
        """Whether the decoder does nearly without the latents."""
        return self.varied and self.active <= COLLAPSED * self.units


def pictures(arrays: list[np.ndarray], model: LatentModel) -> Iterator[Tensor]:
    """Convert images to batches of a model's pictures, [B, C, S, S]; of larger ones, the middle is shrunk.

    Args:
        arrays: uint8 [H, W, 3] each.
        model: whose size of picture it is.

    Raises:
        UsageError: pixels are 0 and 1, and pictures of another size.
    """
    for start in range(0, len(arrays), BATCH):
        chosen = arrays[start : start + BATCH]
        if not model.binary:
            chosen = [_square(array, model.config.side) for array in chosen]
        if len({array.shape for array in chosen}) == 1:
            yield model.pictures(to_samples(np.stack(chosen)).to(model.device))
        else:
            yield torch.cat([model.pictures(to_samples(a[None]).to(model.device)) for a in chosen])


@torch.inference_mode()
def measure(arrays: list[np.ndarray], model: LatentModel, *, importance: int = 0, seed: int = 0) -> Figures:
    """Measure a model over images, uint8 [H, W, 3] each.

    Args:
        arrays: the images.
        model: in evaluation mode.
        importance: K, samples of the importance-weighted bound; 0: it is left out.
        seed: of all samples.

    Raises:
        UsageError: as in `pictures`.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        means, variances, samples, kl, auxiliary = [], [], [], [], []
        distortion = noisy = bound = 0.0
        for x in pictures(arrays, model):
            posterior = model.posterior(x)
            z = posterior.sample()
            means.append(posterior.mean)
            variances.append(posterior.log_variance)
            samples.append(z)
            kl.append(model.kl(posterior).double())
            if (divergence := model.auxiliary_kl(posterior)) is not None:
                auxiliary.append(divergence)
            distortion -= float(model.log_likelihood(x, z).double().sum())
            if not model.binary:
                dequantised = x + (torch.rand_like(x) - 0.5) / 255
                noisy += float(_elbo(dequantised, model).double().sum())
            if importance:
                bound += float(importance_bound(x, model, importance).sum())
    count, mixture = len(arrays), min(len(arrays), MIXTURE)
    mean, log_variance, z = (torch.cat(part) for part in (means, variances, samples))
    by_unit = torch.cat(kl).mean(0)
    rate, distortion = float(by_unit.sum()), distortion / count
    elbo = -(distortion + rate)
    dimensions = model.config.channels * model.config.side**2
    variance, levels = model.noise_variance, 2 if model.binary else 256
    bound_of_bytes = elbo if model.binary else noisy / count
    return Figures(
        count,
        elbo,
        distortion,
        rate,
        by_unit.tolist(),
        int(latents.active_units(mean).sum()),
        latents.mutual_information(mean[:mixture], log_variance[:mixture], z[: min(mixture, SAMPLED)]),
        mixture,
        latents.bits_per_dimension(bound_of_bytes, dimensions, levels),
        None if variance is None else float(variance),
        float(torch.cat(auxiliary).mean()) if auxiliary else None,
        bound / count if importance else None,
        importance,
        any(not np.array_equal(array, arrays[0]) for array in arrays[1:]),
    )


def importance_bound(x: Tensor, model: LatentModel, count: int) -> Tensor:
    """Estimate the importance-weighted bound of pictures, [B, C, S, S] -> [B], with `count` samples each."""
    posterior = model.posterior(x)
    most = max(1, ROWS // len(x))

    def log_weights() -> Iterator[Tensor]:
        for start in range(0, count, most):
            size = min(most, count - start)
            several = type(posterior)(*(v.repeat(size, 1) for v in (posterior.mean, posterior.log_variance)))
            z = several.sample()
            weights = model.log_likelihood(x.repeat(size, 1, 1, 1), z) + model.log_prior(z)
            yield (weights - several.log_density(z)).view(size, -1)

    return latents.importance_bound(log_weights())


def _elbo(x: Tensor, model: LatentModel) -> Tensor:
    posterior = model.posterior(x)
    return model.log_likelihood(x, posterior.sample()) - model.kl(posterior).sum(1)


def _square(array: np.ndarray, side: int) -> np.ndarray:
    """The middle square of an image, its side the largest multiple of `side`; smaller images are extended."""
    if array.shape[:2] == (side, side):
        return array
    size = max(min(array.shape[:2]) // side * side, side)
    top, left = (max(length - size, 0) // 2 for length in array.shape[:2])
    return extend(array[top : top + size, left : left + size], size, size)
