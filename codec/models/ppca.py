"""Probabilistic PCA (Tipping and Bishop 1999): the VAE whose networks are linear, solved in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from . import variable_rate
from .quantizers import as_vectors


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

    @property
    def kl(self) -> Tensor:
        """Return E KL(q(z_i | x) || p(z_i)) over the data, 1/2 ln(lambda_i / s2), in nats: float64 [M].

        It is also the mutual information of z_i and x, and 0 of a unit whose variance is that of the noise.
        """
        return 0.5 * (self.variances / self.noise_variance).log()

    @property
    def evidence(self) -> float:
        """Return the mean of log p(x) over the data that it was fitted to, in nats (eq. 4 at its maximum)."""
        size, dimension = self.components.shape
        logarithms = float(self.variances.log().sum()) + (dimension - size) * math.log(self.noise_variance)
        return -0.5 * (dimension * (math.log(2 * math.pi) + 1) + logarithms)

    def with_noise(self, variance: float) -> PPCA:
        """Return the best model of another noise variance.

        A unit lives if its eigenvalue exceeds the variance. This is also the beta-VAE in the linear case, for
        a variance of beta times that of the likelihood (Lucas et al. 2019).
        """
        return replace(self, variances=self.variances.clamp(min=variance), noise_variance=variance)

    def posterior(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Return p(z | x) = N(B^-1 W^T (x - mean), noise_variance B^-1) (section 3).

        B = W^T W + noise_variance I is diagonal here, since the components are orthogonal.

        Args:
            vectors: [N, D].

        Returns:
            Means float64 [N, M], and the variances, common to all vectors, [M].
        """
        precision = self.variances.clamp(min=1e-300)
        means: Tensor = (vectors.double() - self.mean) @ self.weights / precision
        return means, self.noise_variance / precision

    def log_likelihood(self, vectors: Tensor) -> Tensor:
        """Return log p(x) in nats under N(mean, W W^T + noise_variance I) (eq. 4): [N, D] -> float64 [N].

        Infinite for a model without noise and x outside its subspace.
        """
        size, dimension = self.components.shape
        centred = vectors.double() - self.mean
        inside = centred @ self.components.t()
        distance = (inside.square() / self.variances).sum(1)
        determinant = self.variances.log().sum()
        if size < dimension:
            outside = centred.square().sum(1) - inside.square().sum(1)
            distance = distance + outside.clamp(min=0) / self.noise_variance
            determinant = determinant + (dimension - size) * math.log(self.noise_variance)
        likelihood: Tensor = -0.5 * (dimension * math.log(2 * math.pi) + determinant + distance)
        return likelihood

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw vectors from the model: float64 [count, D]."""
        size, dimension = self.components.shape
        latent = torch.randn(count, size, generator=generator, dtype=torch.float64)
        noise = torch.randn(count, dimension, generator=generator, dtype=torch.float64)
        drawn: Tensor = latent @ self.weights.t() + self.mean + noise * self.noise_variance**0.5
        return drawn


def fit(mean: Tensor, covariance: Tensor, size: int) -> PPCA:
    """Fit pPCA by maximum likelihood to the first two moments of the data.

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
    """Return mean [D] and covariance [D, D], float64, of batches of vectors [N, D]."""
    count, total, products = 0, torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for batch in batches:
        vectors = batch.double()
        count += len(vectors)
        total = total + vectors.sum(0)
        products = products + vectors.t() @ vectors
    mean = total / count
    return mean, products / count - torch.outer(mean, mean)


@dataclass(frozen=True)
class Pixels:
    """Principal components of square blocks of pixels.

    Attributes:
        colour: mean of each channel, 8-bit values less 127.5: float32 [3].
        basis: orthonormal, float32 [M, 3 * side**2], a block's channels outermost.
        deviations: of the coefficients, float32 [M].
    """

    colour: Tensor
    basis: Tensor
    deviations: Tensor


BLOCK = 16
"""Side of the blocks, in pixels."""


def of_pixels(draw: Callable[[int], Tensor], size: int, batches: int = 64) -> Pixels:
    """Fit pPCA to blocks of the pixels of training crops.

    Args:
        draw: returns the n-th batch of samples, [B, 3, H, W] in -1..1.
        size: M.
        batches: number of batches.
    """

    def blocks() -> Iterator[Tensor]:
        for batch in range(batches):
            yield as_vectors(F.pixel_unshuffle(draw(batch) * 127.5, BLOCK))

    mean, covariance = moments(blocks())
    linear = fit(mean, covariance, size)
    return Pixels(
        mean.view(3, -1).mean(1).float(),
        linear.components.float(),
        linear.variances.clamp(min=1e-2).sqrt().float(),
    )


@dataclass(frozen=True)
class Config(variable_rate.VariableRateConfig):
    """Settings of pPCA as a codec.

    Attributes:
        components: M, coefficients of a block, at most 628 of 768.
        context_width, context_hidden, context_blocks, context_near, context_levels: of the prior, see
            `context.Shape`.
    """


class PPCACodec(variable_rate.VariableRateVAE):
    """pPCA as a codec: the principal components of blocks of pixels are quantised and coded.

    The weights of the transform come from `fit`, in closed form; training fits the prior alone.
    """

    method = "pPCA"
    uses_rdoq = True
    networks = ("basis",)
    decoding = ("basis", "deviation", "mean", "learned.")
    config: Config
    basis: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.register_buffer("basis", torch.zeros(config.components, 3 * BLOCK**2, 1, 1))
        # The uniform quantizer: the same step for all channels.
        self.offset.requires_grad_(False)
        self.slope.requires_grad_(False)

    @property
    def halo(self) -> int:
        """Blocks around a block on which it depends: none."""
        return 0

    def analysis(self, pixels: Tensor, index: Tensor) -> Tensor:
        """Project blocks onto the components, as in `VariableRateVAE.analysis`."""
        del index
        return F.conv2d(F.pixel_unshuffle(pixels, BLOCK), self.basis)

    def synthesis(self, latents: Tensor, index: Tensor) -> Tensor:
        """Sum the components of blocks, as in `VariableRateVAE.synthesis`."""
        del index
        return F.pixel_shuffle(F.conv_transpose2d(latents, self.basis), BLOCK)

    def preview(self, latents: Tensor) -> Tensor:
        """Compute means of 8 x 8 pixels, as in `VariableRateVAE.preview`."""
        size = latents.shape[1]
        means = self.basis[:size].view(size, 3, 2, 8, 2, 8).mean((3, 5))
        return F.conv_transpose2d(latents, means, stride=2)

    @torch.no_grad()
    def start(self, draw: Callable[[int], Tensor], generator: torch.Generator) -> None:
        """Fit the transform in closed form.

        Args:
            draw: returns the n-th batch of samples, [B, 3, H, W].
            generator: unused.
        """
        del generator
        linear = of_pixels(draw, self.config.components)
        self.set_moments(linear.colour, linear.deviations)
        self.basis.copy_(linear.basis[:, :, None, None])
