"""Gaussians of 64 widths as integer frequencies, and the integers that latents are told to networks by.

A latent is held in sixteenths of its step: v = 16 k + m, where k is the code and m its predicted mean. Ratios
of a standard deviation to a step are held as sixteenths of an octave, so that scaling is a product with one
of 16 integers and a shift. FORMAT.md gives the arithmetic.
"""

from __future__ import annotations

import math
from decimal import Context, Decimal
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..coding.rangecoder import TOTAL, Tables
from .exact import INPUT

WIDTHS = 64
"""Standard deviations that codes can have: 2**((3 i - 53) / 16) steps, 0.1 to 362."""

NARROWEST, WIDEST = -53, 3 * (WIDTHS - 1) - 53
"""log2 of the first and the last of them, in sixteenths."""

LIMIT = 2**15 - 1
"""Largest absolute value of a latent, in sixteenths of a step."""

FLOOR = 16
"""Least frequency: a likelihood of 2**-20."""

FRACTION = 14
"""Bits behind the point of the table of powers of two."""


@cache
def tables() -> Tables:
    """Frequencies of the codes -L..L and of the escape, for each width but the first.

    A code has FLOOR + round(P (TOTAL - (2 L + 2) FLOOR)), where P is the mass of a Gaussian between k - 1/2
    and k + 1/2 and L = ceil(6 sigma) + 2; what is left over goes to 0. Codes of the first width are not
    written: they are 0.
    """
    return Tables([_frequencies(2 ** ((3 * i + NARROWEST) / 16)) if i else None for i in range(WIDTHS)])


def _frequencies(sigma: float) -> NDArray[np.uint32]:
    # In float64: no scaled mass is so near to a half that another erfc could round it elsewhere (tested).
    largest = math.ceil(6 * sigma) + 2
    shares = scaled_masses(sigma, largest)
    half = FLOOR + np.floor(shares + 0.5).astype(np.int64)
    whole = np.concatenate((half[:0:-1], half, [FLOOR]))
    whole[largest] += TOTAL - whole.sum()
    return whole.astype(np.uint32)


def scaled_masses(sigma: float, largest: int) -> NDArray[np.float64]:
    """P(k) (TOTAL - (2 L + 2) FLOOR) of the codes k = 0..L."""
    tails = [0.5 * math.erfc((k - 0.5) / (sigma * math.sqrt(2))) for k in range(largest + 2)]
    masses = np.subtract(tails[:-1], tails[1:])
    return np.asarray(masses * (TOTAL - (2 * largest + 2) * FLOOR))


def scaled(values: Tensor, exponents: Tensor, shift: int) -> Tensor:
    """round(values * 2**(exponents / 16 - shift)), halves upwards, within LIMIT.

    Args:
        values: int32 below 2**15, [N, C].
        exponents: int32 broadcast to it; shift - exponents / 16 is at least -FRACTION.
        shift: to the right.
    """
    factor = _powers()[exponents & 15]
    right = FRACTION + shift - (exponents >> 4)
    right = right.clamp(0, 31)
    half = torch.where(right > 0, 1 << (right - 1).clamp(min=0), 0)
    return ((values * factor + half) >> right).clamp(-LIMIT, LIMIT)


def compressed(values: Tensor) -> Tensor:
    """round(16 asinh(v / 16)) of latents in sixteenths of a step: int32 -> int32 within INPUT."""
    size = torch.bucketize(values.abs(), _rungs(), out_int32=True, right=True)
    return torch.where(values < 0, -size, size)


@cache
def _powers() -> Tensor:
    """round(2**(FRACTION + f / 16)), f = 0..15: int32."""
    context = Context(prec=40)
    values = [context.power(2, Decimal(f) / 16) * 2**FRACTION for f in range(16)]
    return torch.tensor([int(value.to_integral_value()) for value in values], dtype=torch.int32)


@cache
def _rungs() -> Tensor:
    """The smallest v with 16 asinh(v / 16) at least j - 1/2, j = 1..INPUT: int32."""
    context = Context(prec=40)
    rungs = []
    for j in range(1, INPUT + 1):
        grown = context.exp(Decimal(2 * j - 1) / 32)
        rungs.append(math.ceil((grown - 1 / grown) * 8))
    return torch.tensor(rungs, dtype=torch.int32)
