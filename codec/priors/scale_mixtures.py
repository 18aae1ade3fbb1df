"""Gaussian scale mixtures: the distribution of a latent around its mean, for each step and scale index.

What the context model leaves of latents has heavier tails than a Gaussian, the more the less is known: its
deviation is an estimate (Wainwright and Simoncelli 2000, "Scale mixtures of Gaussians and the statistics of
natural images"). So each step of the context model has, for each scale index i, weights of the tables of
`gaussian_tables` whose indexes are i + OFFSETS:

    P(k | step, i) = sum over j of weight[step, i, j] P(k | Gaussian of index i + OFFSETS[j])

In training the weights follow counts of symbols by one step of the EM algorithm for each batch (Cappe and
Moulines 2009, "On-line expectation-maximization algorithm for latent data models"). FORMAT-priors.md gives
the arithmetic of coding.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from . import gaussian_tables
from .base import TOTAL
from .gaussian_tables import FLOOR, SCALE_LEVELS, SCALE_MIN, Gaussian, SignedTables

OFFSETS = (-12, -6, -3, 0, 3, 6, 12)
"""Scale indexes of the components, relative to that of the mixture; within 1..SCALE_LEVELS - 1."""

MIDDLE = OFFSETS.index(0)

WEIGHT_BITS = 12
"""Fractional bits of the weights in coding."""

MIXED_LEVELS = 48
"""Scale indexes from here on have plain Gaussians: few symbols are so large."""

COUNTED = 256
"""Magnitudes of symbols that are counted in training."""

DECAY = 0.998
"""Decay of the counts, for each step of a training."""

SMALLEST = 1e-4
"""Least weight of a component before a step of the EM algorithm: one of 0 would stay 0."""

RAREST = 1e-3
"""Least symbols for each batch of a step and scale index from which weights are learned."""


# coding


@dataclass(frozen=True)
class ScaleMixture(Gaussian):
    """Probabilities of quantised latents: as `Gaussian`, by tables of a step.

    Attributes:
        mixed: tables that the scale indexes choose from.
    """

    mixed: SignedTables = field(default_factory=gaussian_tables.tables)

    @property
    def tables(self) -> SignedTables:
        """Tables that the scale indexes choose from."""
        return self.mixed


def plain(steps: int) -> NDArray[np.uint16]:
    """Return the weights of Gaussians: uint16 [steps, SCALE_LEVELS, J]."""
    weights = np.zeros((steps, SCALE_LEVELS, len(OFFSETS)), np.uint16)
    weights[:, :, MIDDLE] = 1 << WEIGHT_BITS
    return weights


def tables(weights: NDArray[np.uint16]) -> SignedTables:
    """Return the frequencies of the symbols -L..L and of the escape, for each scale index but 0.

    Let m(k) be the sum of the frequencies of the components less FLOOR, times their weights, M the sum of
    m(k) over all symbols, and L the largest of the components. A symbol has FLOOR + round(m(k) (TOTAL -
    (2 L + 2) FLOOR) / M), halves upwards; the remainder goes to symbol 0. A mixture of one component, of
    offset 0, has its table.

    Args:
        weights: of one step, [SCALE_LEVELS, J], each row summing to 2**WEIGHT_BITS.
    """
    return SignedTables([None, *(_mixture(i, row) for i, row in enumerate(weights[1:], 1))])


def _mixture(index: int, weights: NDArray[np.uint16]) -> NDArray[np.uint32]:
    gaussians, indexes = gaussian_tables.tables(), _indexes()[index]
    if weights[MIDDLE] == 1 << WEIGHT_BITS:
        return gaussians.of(index)
    used = [(int(w), gaussians.of(i)) for w, i in zip(weights, indexes, strict=True) if w]
    largest = max(len(table) // 2 - 1 for _, table in used)
    masses = np.zeros(largest + 1, np.int64)
    for weight, table in used:
        half = table[len(table) // 2 - 1 : -1].astype(np.int64)
        masses[: len(half)] += weight * (half - FLOOR)
    size, whole = TOTAL - (2 * largest + 2) * FLOOR, 2 * masses.sum() - masses[0]
    half = FLOOR + (2 * masses * size + whole) // (2 * whole)
    return gaussian_tables.mirrored(half, FLOOR, escape=True)


@cache
def _indexes() -> NDArray[np.intp]:
    """Return the scale indexes of the components of each mixture, [SCALE_LEVELS, J]."""
    each: NDArray[np.intp] = np.arange(SCALE_LEVELS)[:, None] + np.array(OFFSETS)
    return each.clip(1, SCALE_LEVELS - 1)


# training


class ScaleMixtures(nn.Module):
    """Weights of the mixtures of all steps in training.

    A training that continues has no counts of the one before: each of its mixtures counts as one symbol for
    each batch, and newer symbols outweigh them.

    Args:
        steps: number of steps of the context model.
    """

    ema_weight: Tensor
    ema_count: Tensor
    offsets: Tensor

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.register_buffer("ema_weight", torch.zeros(steps, SCALE_LEVELS, len(OFFSETS)))
        self.register_buffer("ema_count", torch.zeros(steps, SCALE_LEVELS, COUNTED))
        self.register_buffer("offsets", torch.tensor(OFFSETS) * (3 / 16), persistent=False)
        self.take(plain(steps))

    @torch.no_grad()
    def take(self, weights: NDArray[np.uint16]) -> None:
        """Continue from the weights of coding."""
        self.ema_weight.copy_(torch.from_numpy(weights.astype(np.float32)) / 2**WEIGHT_BITS)
        self.ema_count.copy_(torch.einsum("sij,ijk->sik", self.ema_weight, _masses(self.ema_weight.device)))

    def export(self) -> NDArray[np.uint16]:
        """Return the weights for coding."""
        real = self.ema_weight.double().cpu().numpy()
        rows = np.floor(real * 2**WEIGHT_BITS + 0.5).astype(np.int64).reshape(-1, len(OFFSETS))
        rows[np.arange(len(rows)), rows.argmax(1)] += 2**WEIGHT_BITS - rows.sum(1)
        whole: NDArray[np.uint16] = rows.reshape(real.shape).astype(np.uint16)
        return whole

    def of(self, step: int, log2_scale: Tensor) -> tuple[Tensor, Tensor]:
        """Return weights and log2 of the deviations of the components of a step: [...] -> [..., J] both."""
        indexes = scale_indexes(log2_scale)
        lowest, highest = ((3 * i + SCALE_MIN) / 16 for i in (1, SCALE_LEVELS - 1))
        each = (log2_scale[..., None] + self.offsets).clamp(lowest, highest)
        single = (indexes == 0) | (indexes >= MIXED_LEVELS)
        each = torch.where(single[..., None], log2_scale[..., None], each)
        return self.ema_weight[step][indexes], each

    @torch.no_grad()
    def counts(self, symbols: Tensor, log2_scale: Tensor) -> Tensor:
        """Count symbols by scale index and magnitude: -> float32 [SCALE_LEVELS, COUNTED]."""
        # Training may diverge, which the loss tells.
        magnitudes = symbols.abs().round().nan_to_num(COUNTED).clamp(max=COUNTED).long().flatten()
        at = scale_indexes(log2_scale).flatten() * COUNTED + magnitudes.clamp(max=COUNTED - 1)
        found = torch.zeros(SCALE_LEVELS * COUNTED, device=symbols.device)
        found.index_add_(0, at, (magnitudes < COUNTED).float())
        return found.view(SCALE_LEVELS, COUNTED)

    @torch.no_grad()
    def update(self, counts: Tensor) -> None:
        """Take a step of the EM algorithm, after counts [B, steps, SCALE_LEVELS, COUNTED] of a batch."""
        self.ema_count.lerp_(counts.sum(0), 1 - DECAY)
        masses, weights = _masses(counts.device), self.ema_weight.clamp(min=SMALLEST)
        mixed = torch.einsum("sij,ijk->sik", weights, masses).clamp(min=1e-12)
        weights = weights * torch.einsum("sik,ijk->sij", self.ema_count / mixed, masses)
        total = weights.sum(2, keepdim=True)
        # Where symbols have not been seen for long, weights stay as they are.
        weights = torch.where(total > RAREST, weights / total, self.ema_weight)
        self.ema_weight[:, 1:MIXED_LEVELS] = weights[:, 1:MIXED_LEVELS]


def scale_indexes(log2_scale: Tensor) -> Tensor:
    """Return the scale indexes nearest to log2 of deviations in steps: int64."""
    nearest = torch.floor((16 * log2_scale.detach() - SCALE_MIN) / 3 + 0.5)
    return nearest.nan_to_num().clamp(0, SCALE_LEVELS - 1).long()


@cache
def _masses(device: torch.device) -> Tensor:
    """Return P(+-k) of the components of each mixture, float32 [SCALE_LEVELS, J, COUNTED].

    They are kept for good, since CUDA graphs read them.
    """
    scales = [2 ** ((3 * i + SCALE_MIN) / 16) for i in range(SCALE_LEVELS)]
    each = np.stack([gaussian_tables.masses(sigma, COUNTED - 1) for sigma in scales])
    each[:, 1:] *= 2
    with torch.inference_mode(False):
        return torch.from_numpy(each[_indexes()]).float().to(device)
