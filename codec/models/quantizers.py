"""Vector quantisation: continuous latents <-> codes."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def nearest(vectors: Tensor, codebook: Tensor) -> Tensor:
    """Return the index of the nearest code for each vector: [N, D], [K, D] -> int64 [N]."""
    offset, directions = codebook.square().sum(1).mul(-0.5), codebook.t()
    parts = torch.split(vectors, 1 << 14)  # bounds the [N, K] scores, and keeps them in the cache
    return torch.cat([torch.addmm(offset, part, directions).argmax(1) for part in parts])


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
    def set_codebook(self, vectors: Tensor, count: float = 1.0) -> None:
        """Set the codes, [K, D], each with a usage of `count` per step."""
        self.codebook.copy_(vectors)
        self.ema_count.fill_(count)
        self.ema_sum.copy_(vectors * count)

    def encode(self, latents: Tensor) -> Tensor:
        """Return the nearest codes: [B, D, ...] -> int64 [B, ...]."""
        flat = as_vectors(latents)
        return nearest(flat, self.codebook).view(latents.shape[0], *latents.shape[2:])

    def decode(self, codes: Tensor) -> Tensor:
        """Look codes up: int64 [B, ...] -> float32 [B, D, ...] (channels last in memory)."""
        return nn.functional.embedding(codes, self.codebook).movedim(-1, 1)

    @torch.no_grad()
    def update(self, latents: Tensor, codes: Tensor, restart: bool, generator: torch.Generator) -> int:
        """Update the moving averages of the codebook and, on demand, revive dead codes.

        Args:
            latents: the encoder's outputs of this step, [B, D, ...].
            codes: their codes, [B, ...].
            restart: whether dead codes are moved in this step.
            generator: CPU generator of the choice of vectors.

        Returns:
            The number of codes moved.
        """
        flat = as_vectors(latents.detach())
        index = codes.flatten()
        counts = torch.bincount(index, minlength=self.size).to(flat.dtype)
        self.ema_count.lerp_(counts, 1 - self.decay)
        if self.moving_average:
            sums = torch.zeros_like(self.ema_sum).index_add_(0, index, flat)
            self.ema_sum.lerp_(sums, 1 - self.decay)
            self.codebook.copy_(self.ema_sum / self.ema_count.clamp(min=1e-5)[:, None])
        if not restart:
            return 0
        mean = self.ema_count.mean()
        dead = (self.ema_count < self.restart_below * mean).nonzero().flatten()
        if len(dead):
            picks = torch.randint(len(flat), (len(dead),), generator=generator).to(flat.device)
            self.codebook[dead] = flat[picks]
            self.ema_count[dead] = mean
            self.ema_sum[dead] = flat[picks] * mean
        return len(dead)
