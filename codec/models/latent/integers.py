"""A VAE of pictures of 0 and 1 in integers, for coding: the same numbers on every machine.

Bits back runs both networks on both sides, and needs equal probabilities there. The networks are layers of
whole numbers: weights have WEIGHT_BITS fractional bits, activations ACTIVATION_BITS, and sums stay below
2**53, so that a product of float64 matrices is exact in whatever order it is summed. tanh and the logistic
function are tables. These numbers are fine enough to need no training of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import cache

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ...errors import ModelError
from ...priors import latent_tables
from ...priors.base import TOTAL, Array, Frequencies

WEIGHT_BITS = 20
"""Fractional bits of weights."""

ACTIVATION_BITS = 10
"""Fractional bits of the outputs of tanh."""

TABLE_BITS = 8
"""Fractional bits of the arguments of tanh and the logistic function."""

TANH_LIMIT, LOGIT_LIMIT = 8, 16
"""Largest absolute values of these arguments."""

EXACT = 2.0**53
"""Integers below this are exact in float64."""


@dataclass(frozen=True, eq=False)
class FixedPointLinear:
    """y = floor((x W + b + 2**(shift - 1)) / 2**shift).

    Attributes:
        weight: whole numbers, float64 [I, O].
        bias: whole numbers, float64 [O].
        shift: fractional bits that are rounded off.

    Raises:
        ModelError: on construction, if a sum could reach EXACT.
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    shift: int
    largest: float

    def __post_init__(self) -> None:
        bound = np.abs(self.weight).sum(0) * self.largest + np.abs(self.bias)
        if not (bound < EXACT / 2).all():
            raise ModelError("a layer of the model is beyond what is exact in float64")

    @classmethod
    def of(cls, layer: nn.Linear, before: float, after: Array, bits: int, largest: float) -> FixedPointLinear:
        """Round the weights of a layer.

        Args:
            layer: of real numbers.
            before: what a unit of its inputs stands for.
            after: units of its outputs per 1, [O] or a number.
            bits: log2 of 1 over `before`, rounded up: the sums have WEIGHT_BITS + bits fractional bits.
            largest: absolute value of its inputs, in units.
        """
        weight = layer.weight.detach().double().cpu().numpy().T * after
        bias = layer.bias.detach().double().cpu().numpy() * after
        shift = WEIGHT_BITS + bits
        return cls(np.rint(weight * (before * 2.0**shift)), np.rint(bias * 2.0**shift), shift, largest)

    def __call__(self, x: Array) -> Array:
        """Apply the layer to whole numbers, [N, I] -> [N, O], of the type of x: float64 or int64."""
        if x.dtype == np.int64:
            return (x @ self.weight.astype(np.int64) + self.bias.astype(np.int64) + self._half) >> self.shift
        return np.floor((x @ self.weight + (self.bias + self._half)) * 2.0**-self.shift)

    @property
    def _half(self) -> int:
        return 1 << (self.shift - 1)


class IntegerVAE:
    """The networks of a VAE with a factorised Bernoulli likelihood, two hidden layers each.

    Attributes:
        pixels: P, pixels of a picture.
        units: M, latents.
        dtype: of the sums, float64 or int64; the results are the same.
    """

    def __init__(self, encoder: nn.Sequential, decoder: nn.Sequential, dtype: type = np.float64) -> None:
        """Round the networks of `vae.VAE`.

        Raises:
            ModelError: other layers, or weights beyond what is exact.
        """
        self.dtype = dtype
        inward, outward = _linear_layers(encoder), _linear_layers(decoder)
        self.pixels, self.units = inward[0].in_features, outward[0].in_features
        # Of the encoder's outputs: means in steps, log variances in scales of `latent_tables`.
        scales = 8 / (3 * math.log(2))
        units = np.repeat([latent_tables.SIGMA, scales], self.units)
        self._encoder = _rounded(inward, 1.0, 0, 1.0, units)
        self._decoder = _rounded(
            outward, 1 / latent_tables.SIGMA, 7, latent_tables.LIMIT, np.array(2.0**TABLE_BITS)
        )

    def posterior(self, pictures: NDArray[np.uint8]) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        """Compute q(z | x): pictures of 0 and 1, uint8 [N, P] -> means in steps and scales, [N, M] each."""
        found = _through(self._encoder, pictures.astype(self.dtype)).astype(np.int64)
        means, scales = np.split(found, 2, 1)
        limit = latent_tables.MEAN_LIMIT
        return (
            means.clip(-limit, limit).astype(np.int32),
            (scales + latent_tables.PRIOR).clip(1, latent_tables.PRIOR).astype(np.uint8),
        )

    def likelihood(self, latents: NDArray[np.int32]) -> Frequencies:
        """Compute p(x | z) of a picture: latents in steps, int32 [M] -> frequencies of 0 and 1, [P, 2]."""
        logits = _through(self._decoder, latents[None].astype(self.dtype))[0]
        limit = LOGIT_LIMIT << TABLE_BITS
        ones = _logistic()[logits.clip(-limit, limit).astype(np.intp) + limit]
        return np.stack((TOTAL - ones, ones), 1)


def _linear_layers(network: nn.Sequential) -> list[nn.Linear]:
    kinds = [type(layer) for layer in network if not isinstance(layer, nn.Flatten | nn.Unflatten)]
    layers = [layer for layer in network if isinstance(layer, nn.Linear)]
    if kinds != [nn.Linear, nn.Tanh, nn.Linear, nn.Tanh, nn.Linear]:
        raise ModelError("bits back is for networks of two hidden layers of tanh")
    return layers


def _rounded(
    layers: list[nn.Linear], unit: float, bits: int, largest: float, outputs: Array
) -> list[FixedPointLinear]:
    inputs = [(unit, bits, largest)] + 2 * [(2.0**-ACTIVATION_BITS, ACTIVATION_BITS, 2.0**ACTIVATION_BITS)]
    after = [np.array(2.0**TABLE_BITS)] * 2 + [outputs]
    parts = zip(layers, inputs, after, strict=True)
    return [FixedPointLinear.of(layer, unit, out, bits, most) for layer, (unit, bits, most), out in parts]


def _through(layers: list[FixedPointLinear], x: Array) -> Array:
    limit = TANH_LIMIT << TABLE_BITS
    for layer in layers[:-1]:
        x = _tanh()[layer(x).clip(-limit, limit).astype(np.intp) + limit].astype(x.dtype)
    return layers[-1](x)


@cache
def _tanh() -> NDArray[np.int32]:
    """Return round(2**ACTIVATION_BITS tanh(i / 2**TABLE_BITS)), by decimal arithmetic."""
    return _table(TANH_LIMIT, lambda x, e: (1 - 2 / (1 + e(2 * x))) * 2**ACTIVATION_BITS)


@cache
def _logistic() -> NDArray[np.uint32]:
    """Return the frequency of 1, round(TOTAL / (1 + exp(-i / 2**TABLE_BITS))), within 1..TOTAL - 1."""
    return _table(LOGIT_LIMIT, lambda x, e: TOTAL / (1 + e(-x))).clip(1, TOTAL - 1).astype(np.uint32)


def _table(limit: int, function: Callable[[Decimal, Callable[[Decimal], Decimal]], Decimal]) -> Array:
    context = Context(prec=40)
    inputs = (Decimal(i) / 2**TABLE_BITS for i in range(-limit << TABLE_BITS, (limit << TABLE_BITS) + 1))
    values = [int(function(x, context.exp).to_integral_value()) for x in inputs]
    return np.array(values, np.int32)
