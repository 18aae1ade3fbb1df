"""Vector quantisation: continuous latents <-> codes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

CHUNK = 1 << 12
"""Vectors whose scores are computed at a time: so they stay in the cache."""

SMALLEST_ERROR = 1e-12
"""Added to squared errors that vectors are drawn by: all of them may be zero."""


def best(vectors: Tensor, directions: Tensor, offset: Tensor) -> Tensor:
    """Return argmax over k of vectors . directions_k + offset_k: [N, D], [K, D], [K] -> int64 [N]."""
    parts = torch.split(vectors, CHUNK)
    return torch.cat([_argmax(torch.addmm(offset, part, directions.t())) for part in parts])


def _argmax(scores: Tensor) -> Tensor:
    """Return the first of the largest in each row, [N, K] -> int64 [N]; on CPUs by NumPy, which is faster."""
    if scores.device.type != "cpu" or scores.dtype != torch.float32:
        return scores.argmax(1)
    return torch.from_numpy(scores.detach().numpy().argmax(1))


def nearest(vectors: Tensor, codebook: Tensor, costs: Tensor | float = 0.0) -> Tensor:
    """Return the index of the nearest code for each vector: [N, D], [K, D] -> int64 [N].

    `costs`, [K], are added to squared distances.
    """
    return best(vectors, codebook, (codebook.square().sum(1) + costs).mul(-0.5))


def as_vectors(maps: Tensor) -> Tensor:
    """Return the vectors at all positions of feature maps: [B, D, ...] -> [N, D]."""
    return maps.movedim(1, -1).flatten(0, -2)


def kmeans(vectors: Tensor, size: int, generator: torch.Generator, rounds: int = 20) -> Tensor:
    """Cluster vectors by Lloyd's algorithm, from random distinct vectors: [N, D] -> centres [size, D].

    An empty cluster is moved onto a random vector. With fewer vectors than centres, vectors are drawn
    with replacement and slightly jittered.
    """
    count, dim = vectors.shape
    if count < size:
        picks = torch.randint(count, (size,), generator=generator)
        jitter = torch.randn(size, dim, generator=generator) * 0.01 * vectors.std(unbiased=False)
        return vectors[picks] + jitter
    centres = vectors[torch.randperm(count, generator=generator)[:size]].clone()
    for _ in range(rounds):
        codes = nearest(vectors, centres)
        sums = torch.zeros_like(centres).index_add_(0, codes, vectors)
        counts = torch.bincount(codes, minlength=size).to(vectors.dtype)
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centres)
        empty = (counts == 0).nonzero().flatten()
        if len(empty):
            centres[empty] = vectors[torch.randint(count, (len(empty),), generator=generator)]
    return centres


class VectorQuantizer(nn.Module):
    """Vector quantizer: the discrete bottleneck of the VQ-VAE (van den Oord et al. 2017, section 3).

    The codebook is learned as moving averages of the vectors assigned to each code (`moving_average`,
    appendix A.1), or by the loss of eq. 3. The usage of each code is a moving average in both cases, of the
    same `decay`. A code used less than `restart_below` times the mean is dead; it is moved onto an encoder
    output, so that a poor start does not leave it unused for good.

    Shapes: latents float32 [B, D, ...]; codes int64 [B, ...]; codebook float32 [K, D]; the dots are the axes
    of an image (H, W) or of audio (T).
    """

    ema_count: Tensor
    ema_sum: Tensor

    def __init__(
        self, size: int, dim: int, *, moving_average: bool, decay: float, restart_below: float
    ) -> None:
        super().__init__()
        self.size, self.dim = size, dim
        self.moving_average, self.decay, self.restart_below = moving_average, decay, restart_below
        bound = 1 / size
        codebook = torch.empty(size, dim).uniform_(-bound, bound)
        self.codebook = nn.Parameter(codebook, requires_grad=not moving_average)
        self.register_buffer("ema_count", torch.ones(size))
        self.register_buffer("ema_sum", self.codebook.detach().clone())

    @torch.no_grad()
    def set_codebook(self, vectors: Tensor, count: Tensor | float = 1.0) -> None:
        """Set the codes, [K, D], each with a usage of `count` per step, or [K] of them."""
        self.codebook.copy_(vectors)
        self.ema_count.copy_(torch.as_tensor(count))
        self.ema_sum.copy_(vectors * self.ema_count[:, None])

    def encode(self, latents: Tensor) -> Tensor:
        """Return the nearest codes: [B, D, ...] -> int64 [B, ...]."""
        flat = as_vectors(latents)
        return nearest(flat, self.codebook).view(latents.shape[0], *latents.shape[2:])

    def decode(self, codes: Tensor) -> Tensor:
        """Look codes up: int64 [B, ...] -> float32 [B, D, ...] (channels last in memory)."""
        return nn.functional.embedding(codes, self.codebook).movedim(-1, 1)

    @torch.no_grad()
    def update(
        self,
        latents: Tensor,
        codes: Tensor,
        restart: bool,
        generator: torch.Generator,
        by_error: bool = False,
    ) -> Tensor:
        """Update the moving averages of the codebook and, on demand, revive dead codes.

        Args:
            latents: the encoder's outputs of this step, [B, D, ...].
            codes: their codes, [B, ...].
            restart: whether dead codes are moved in this step.
            generator: CPU generator of the choice of vectors.
            by_error: whether a vector is chosen as often as its squared error says, as by k-means++ (Arthur,
                Vassilvitskii 2007), and not all equally often.

        Returns:
            The codes moved, and those that had their vectors until now, int64 [2, M].
        """
        flat = as_vectors(latents.detach())
        index = codes.flatten()
        counts = torch.bincount(index, minlength=self.size).to(flat.dtype)
        self.ema_count.lerp_(counts, 1 - self.decay)
        if self.moving_average:
            sums = torch.zeros_like(self.ema_sum).index_add_(0, index, flat)
            self.ema_sum.lerp_(sums, 1 - self.decay)
            self.codebook.copy_(self.ema_sum / self.ema_count.clamp(min=1e-5)[:, None])
        moved = index.new_empty(2, 0)
        if restart:
            moved = self._revive(flat, index, generator, by_error)
        self._count()
        return moved

    def _revive(self, flat: Tensor, index: Tensor, generator: torch.Generator, by_error: bool) -> Tensor:
        """Move dead codes onto vectors [N, D] of codes [N], see `update`."""
        mean = self.ema_count.mean()
        dead = (self.ema_count < self.restart_below * mean).nonzero().flatten()
        if len(dead) and by_error:
            errors = (flat - self.codebook[index]).square().sum(1).cpu() + SMALLEST_ERROR
            picks = torch.multinomial(errors, len(dead), True, generator=generator).to(flat.device)
        else:
            picks = torch.randint(len(flat), (len(dead),), generator=generator).to(flat.device)
        self.codebook[dead] = flat[picks]
        self.ema_count[dead] = mean
        self.ema_sum[dead] = flat[picks] * mean
        return torch.stack((dead, index[picks]))

    def _count(self) -> None:
        """Compute what follows from usage: by default nothing."""


RAREST = 2**-10
"""A code counts as used at least so often, relative to the mean."""


class EntropyConstrainedQuantizer(VectorQuantizer):
    """Vector quantizer that chooses codes by squared distances and bits (Chou, Lookabaugh, Gray 1989).

    A code's bits are -log2 of its share in use. In so few dimensions a code that is a little farther away,
    but used more often, saves more bits than a smaller codebook of the same distortion would.

    Attributes:
        bits: of each code, float32 [K].
        distance_per_bit: squared distance that counts as much as a bit, float32 [1].
    """

    bits: Tensor
    distance_per_bit: Tensor

    def __init__(self, size: int, dim: int, *, decay: float) -> None:
        super().__init__(size, dim, moving_average=False, decay=decay, restart_below=0.0)
        self.register_buffer("bits", torch.full((size,), math.log2(size)))
        self.register_buffer("distance_per_bit", torch.zeros(1))

    def encode(self, latents: Tensor) -> Tensor:
        """Return the cheapest codes: [B, D, ...] -> int64 [B, ...]."""
        costs = self.distance_per_bit * self.bits
        return nearest(as_vectors(latents), self.codebook, costs).view(len(latents), *latents.shape[2:])

    @torch.no_grad()
    def fit(self, vectors: Tensor, tradeoff: float, generator: torch.Generator, rounds: int = 15) -> None:
        """Fit codes and bits to vectors by Lloyd's algorithm, from the codes that there are.

        Args:
            vectors: float32 [N, D].
            tradeoff: `distance_per_bit` over the mean square of their lengths.
            generator: CPU generator of the vectors that k-means starts from, where all codes are zero; its
                centres are then sorted by their means.
            rounds: of the algorithm.
        """
        uses = self.ema_count.sum()
        self.distance_per_bit.fill_(tradeoff * vectors.square().sum(1).mean())
        if not self.codebook.any():
            centres = kmeans(vectors.cpu(), self.size, generator, rounds)
            self.set_codebook(centres[centres.mean(1).argsort()].to(vectors.device))
            self.bits.fill_(math.log2(self.size))
        for _ in range(rounds):
            codes = nearest(vectors, self.codebook, self.distance_per_bit * self.bits)
            counts = torch.bincount(codes, minlength=self.size).to(vectors.dtype)
            sums = torch.zeros_like(self.codebook).index_add_(0, codes, vectors)
            means = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], self.codebook)
            self.set_codebook(means, counts / len(vectors) * uses)
            self._count()

    def _count(self) -> None:
        """Compute bits from usage."""
        shares = self.ema_count / self.ema_count.sum() * self.size
        self.bits.copy_(math.log2(self.size) - shares.clamp(min=RAREST).log2())
