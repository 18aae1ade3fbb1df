"""Networks that are integer arithmetic: the same numbers on every machine, in whatever order they are summed.

An integer linear layer has int8 weights and takes integers of at most INPUT. Its products and sums are
integers below 2**24, so a float32 matrix product computes them without rounding; a shift by a power of two
and a floor follow. FORMAT-priors.md gives the arithmetic.

Quantisation-aware training rounds likewise (`QATLinear`): a real v stands for the integer v * 2**bits, and
the gradient passes straight through (Bengio, Leonard, Courville 2013; Jacob et al. 2018, section 3).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import cache, cached_property, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from ..errors import ModelError
from .base import TOTAL, Array

INPUT = 127
"""Largest absolute value of a layer's inputs, and of its weights."""

EXACT = 2**24
"""Integers below this are exact in float32."""

ACTIVATION_BITS = 4
"""Fractional bits of activations: integers in sixteenths, up to 127 / 16."""

ACCUMULATOR_BITS = 8
"""Fractional bits of accumulators, the sums to which residual blocks add."""

ACCUMULATOR_MAX = 2**15
"""Largest absolute value of an accumulator, as an integer."""

LOGIT_BITS = 4
"""Fractional bits of logits, in nats."""

WEIGHT_BITS_MAX = 12
"""Largest number of fractional bits of weights."""

SHARES = 2**12
"""Largest sum of the weights of attention: 2**12 times a value of at most INPUT stays below EXACT."""

SCORE_BITS = 6
"""log2 of the distance of two scores of attention that counts as a 16th of a nat."""

EXPONENTIALS = 256
"""Entries of the table of exponentials; a logit further below the largest one gets frequency 1."""

RECIPROCAL_BITS = 20
"""Fractional bits of the factor that makes a table sum to TOTAL."""


# coding


@dataclass(frozen=True, eq=False)
class IntegerLinear:
    """A linear layer in integers: y = floor((W x + b) / 2**s), for each output.

    Attributes:
        weight: int8 [O, I], none -128.
        bias: int32 [O], half of 2**s included, so that the floor rounds.
        shift: uint8 [O], 0..31.

    Raises:
        ModelError: on construction, if shapes or types are others, or a sum could reach EXACT.
    """

    weight: NDArray[np.int8]
    bias: NDArray[np.int32]
    shift: NDArray[np.uint8]

    def __post_init__(self) -> None:
        kinds = (self.weight.dtype, self.bias.dtype, self.shift.dtype)
        if [*map(str, kinds)] != ["int8", "int32", "uint8"]:
            raise ModelError("layers of a prior must be int8, int32 and uint8")
        count = len(self.weight)
        if self.weight.ndim != 2 or not self.bias.shape == self.shift.shape == (count,):
            raise ModelError(f"layer {self.weight.shape} with {len(self.bias)} biases")
        if (self.bound >= EXACT).any() or (self.weight == -128).any() or (self.shift > 31).any():
            raise ModelError("a layer of a prior is beyond what is exact in float32")

    @property
    def bound(self) -> NDArray[np.int64]:
        """Upper bound of the absolute value of every partial sum: int64 [O]."""
        weights = np.abs(self.weight.astype(np.int64)).sum(1)
        bound: NDArray[np.int64] = weights * INPUT + np.abs(self.bias.astype(np.int64))
        return bound

    @cached_property
    def _by_dtype(self) -> dict[torch.dtype, tuple[Tensor, Tensor]]:
        return {}

    def scaled(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return 2**-s W^T [I, O] and 2**-s b [O]; sums of products with them stay exact."""
        if dtype not in self._by_dtype:
            scale = torch.from_numpy(np.ldexp(1.0, -self.shift.astype(np.int32)))
            weight = (torch.from_numpy(self.weight).t() * scale).to(dtype).contiguous()
            self._by_dtype[dtype] = weight, (torch.from_numpy(self.bias) * scale).to(dtype)
        return self._by_dtype[dtype]

    def by_tap(self, x: Tensor, taps: int) -> Tensor:
        """Products with the weights of each of so many parts of the inputs: [N, I / taps] -> [N, taps, O].

        The layer of inputs side by side is the floor of the bias and the sum of their parts' products.
        """
        key = x.dtype, taps
        if key not in self._by_tap:
            weight = self.scaled(x.dtype)[0]
            self._by_tap[key] = weight.view(taps, x.shape[1], -1).transpose(0, 1).flatten(1).contiguous()
        return product(x, self._by_tap[key]).view(len(x), taps, -1)

    @cached_property
    def _by_tap(self) -> dict[tuple[torch.dtype, int], Tensor]:
        return {}

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            x: integers of at most INPUT in absolute value, [N, I], float32 or float64.

        Returns:
            Integers [N, O], of the type of x.
        """
        if x.dtype is torch.float32 and not _factors_are_shortened():
            weight, bias = self.scaled(torch.float32)
            product = torch.addmm(bias, x, weight)
            # Check again: another thread may have changed the setting meanwhile.
            if not _factors_are_shortened():
                return product.floor_()
        weight, bias = self.scaled(torch.float64)
        return torch.addmm(bias, x.double(), weight).to(x.dtype).floor_()


def activation(accumulator: Tensor, lowest: int = 0) -> Tensor:
    """Round integers from ACCUMULATOR_BITS to ACTIVATION_BITS fractional bits, and clamp to lowest..INPUT."""
    half, step = 2 ** (ACCUMULATOR_BITS - ACTIVATION_BITS - 1), 2.0 ** (ACTIVATION_BITS - ACCUMULATOR_BITS)
    return (accumulator + half).mul_(step).floor_().clamp_(lowest, INPUT)  # type: ignore[no-any-return]


def added(accumulator: Tensor, correction: Tensor) -> Tensor:
    """Add a correction to an accumulator, clamped to +-ACCUMULATOR_MAX, in the correction's memory."""
    return correction.add_(accumulator).clamp_(-ACCUMULATOR_MAX, ACCUMULATOR_MAX)


def product(x: Tensor, y: Tensor) -> Tensor:
    """The matrix product of integers whose sums stay below EXACT, [..., N, M] [..., M, O], of their type."""
    if x.dtype is torch.float32 and not _factors_are_shortened():
        found = x @ y
        if not _factors_are_shortened():
            return found
    return (x.double() @ y.double()).to(x.dtype)


def shares(scores: Tensor) -> Tensor:
    """Softmax in fixed point, of attention: integers [..., N] -> integers [..., N], at most SHARES in sum.

    Scores are products of activations, in 2**-(2 ACTIVATION_BITS). With d = floor((largest - score) /
    2**SCORE_BITS), at most EXPONENTIALS - 1, e = round(2**16 exp(-d / 16)), S the sum of e and
    R = floor(SHARES 2**16 / S), a position has floor(e R / 2**16).
    """
    distance = (scores.amax(-1, keepdim=True) - scores).mul_(2.0**-SCORE_BITS)
    nearest = distance.clamp_(max=EXPONENTIALS - 1).int().view(-1)
    weights = _exponentials_on(scores.device).index_select(0, nearest).view(scores.shape)
    # The largest weight is 2**16, so that products are at most SHARES * 2**16.
    factor = (SHARES << 16) // weights.sum(-1, keepdim=True)
    return weights.mul_(factor.int()).bitwise_right_shift_(16).to(scores.dtype)


def frequencies(logits: Array) -> NDArray[np.uint32]:
    """Compute the softmax in fixed point: frequencies of at least 1 that sum to TOTAL.

    With d the distance to the largest logit, e = round(2**16 exp(-d / 16)), S the sum of e over the codes and
    R = floor((TOTAL - K) 2**20 / S), a code has frequency 1 + floor(e R / 2**20). The remainder goes to the
    first of the codes with the largest logit.

    Args:
        logits: integers with LOGIT_BITS fractional bits, [N, K].

    Returns:
        uint32 [N, K].
    """
    count = logits.shape[1]
    distance = (logits.max(1, keepdims=True) - logits).astype(np.intp)
    weights = _exponentials().take(distance, mode="clip")
    factor = ((TOTAL - count) << RECIPROCAL_BITS) // weights.sum(1, keepdims=True).astype(np.int64)
    # Products stay below 2**53: exact in float64, and a conversion to integers is their floor.
    weights *= factor * 2.0**-RECIPROCAL_BITS
    whole: NDArray[np.uint32] = weights.astype(np.int32).view(np.uint32)
    whole += 1
    left = TOTAL - whole.sum(1, dtype=np.uint32)
    whole[np.arange(len(whole)), logits.argmax(1)] += left
    return whole


def reshaped(logits: Array, temperature: float, top_k: int | None) -> Array:
    """Divide logits by a temperature, and exclude all but the likeliest codes, for sampling.

    Args:
        logits: integers with LOGIT_BITS fractional bits, [N, K].
        temperature: its inverse is rounded to the nearest 64th.
        top_k: keep this many codes, and those as likely as the last of them; None: all.

    Returns:
        Integer logits relative to the largest, [N, K].
    """
    distance = np.minimum(logits.max(1, keepdims=True) - logits, 2**13)
    if top_k is not None and top_k < logits.shape[1]:
        last = np.partition(distance, top_k - 1, 1)[:, top_k - 1 : top_k]
        distance = np.where(distance > last, 2**13, distance)
    logits = -np.floor(distance * max(round(64 / temperature), 1) / 64)
    return logits


@contextmanager
def arithmetic() -> Iterator[None]:
    """Disable gradients and autocast, both of which are settings of the thread alone.

    The precision of float32 products is a setting of the process, so it is never changed: where the calling
    program has chosen bfloat16 or TF32, an `IntegerLinear` computes in float64, which has no such setting.
    The setting is checked before and after each product; only a change that another thread makes and undoes
    within one product goes unnoticed.
    """
    with torch.inference_mode(), torch.autocast("cpu", enabled=False):
        yield


# torch.backends.mkldnn.matmul.fp32_precision, in an eighth of the time: each layer reads it twice.
_product_precision = partial(torch._C._get_fp32_precision_getter, "mkldnn", "matmul")


def _factors_are_shortened() -> bool:
    """Return whether float32 products may round their factors to bfloat16 or TF32."""
    return _product_precision() not in ("none", "ieee") or _always_shortened()


@cache
def _always_shortened() -> bool:
    """Return whether they do so whatever torch's setting, because of oneDNN's environment variables."""
    factors = torch.from_numpy(np.arange(4097, 4097 + 64 * 64, dtype=np.float32).reshape(64, 64))
    one = torch.from_numpy(np.eye(64, dtype=np.float32))
    with arithmetic():
        return not torch.equal(torch.addmm(factors[:1] * 0, factors, one), factors)


@cache
def _exponentials() -> NDArray[np.float64]:
    """Return round(2**16 exp(-d / 2**LOGIT_BITS)), d = 0 .. EXPONENTIALS - 1, by decimal arithmetic."""
    context = Context(prec=40)
    values = [context.exp(Decimal(-d) / 2**LOGIT_BITS) * 2**16 for d in range(EXPONENTIALS)]
    return np.array([float(value.to_integral_value()) for value in values])


@cache
def _exponentials_on(device: torch.device) -> Tensor:
    """The same as an int32 tensor; kept for good, since CUDA graphs read it."""
    with torch.inference_mode(False):  # a training may ask after a coder
        return torch.from_numpy(_exponentials().astype(np.int32)).to(device)


# training


def rounded(x: Tensor, bits: int, low: float = -math.inf, high: float = math.inf) -> Tensor:
    """Round to the nearest multiple of 2**-bits, halves upwards, and clamp to limits in these units.

    The gradient is that of x, within the limits.
    """
    result: Tensor = _Rounded.apply(x, bits, low, high)  # type: ignore[no-untyped-call]
    return result


class _Rounded(torch.autograd.Function):
    """Rounding to multiples of 2**-bits and clamping, with limits in these units: two passes over memory."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, bits: int, low: float, high: float) -> Tensor:
        whole = (x * 2.0**bits).add_(0.5).floor_()
        if high < math.inf:
            ctx.save_for_backward((whole >= low) & (whole <= high))
            whole.clamp_(low, high)
        return whole.mul_(2.0**-bits)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        masks = ctx.saved_tensors  # type: ignore[attr-defined]
        return gradients[0] * masks[0] if masks else gradients[0], None, None, None


def activated(x: Tensor, lowest: int = 0) -> Tensor:
    """Apply `activation` to real numbers, in training."""
    return rounded(x, ACTIVATION_BITS, lowest, INPUT)


def limited(x: Tensor) -> Tensor:
    """Clamp real numbers to the limits of `added`, in training."""
    limit = ACCUMULATOR_MAX / 2**ACCUMULATOR_BITS
    return x.clamp(-limit, limit)


def embedded(table: Tensor) -> Tensor:
    """Round an embedding to int8 in training: multiples of 2**-ACTIVATION_BITS, at most INPUT of them."""
    return activated(table, -INPUT)


class QATLinear(nn.Module):
    """A linear layer in quantisation-aware training, to be exported as an `IntegerLinear`.

    Args:
        inputs, outputs: channels.
        before: fractional bits of its inputs.
        after: fractional bits of its outputs.
        gain: of the initial weights, relative to 1 / sqrt(inputs).
    """

    def __init__(self, inputs: int, outputs: int, before: int, after: int, gain: float = 1.0) -> None:
        super().__init__()
        self.before, self.after = before, after
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * gain / math.sqrt(inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def quantized(self, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return weight [O, I] and bias [O], rounded to multiples of powers of two that int8 and int32 hold.

        Args:
            weight: used instead of the layer's own.
        """
        weight = self.weight if weight is None else weight
        bits = self._bits(weight)
        scale = torch.exp2(bits)[:, None]
        detached = weight.detach()
        steps = torch.floor(detached * scale + 0.5).clamp(-INPUT, INPUT)
        weight = weight + (steps / scale - detached)
        fine = torch.exp2(bits + self.before)
        bias = self.bias + (torch.floor(self.bias.detach() * fine + 0.5) / fine - self.bias.detach())
        return weight, bias

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., I] in multiples of 2**-before to [..., O] in multiples of 2**-after."""
        return rounded(nn.functional.linear(x, *self.quantized()), self.after)

    @torch.no_grad()
    def export(self, weight: Tensor | None = None) -> IntegerLinear:
        """Return the layer in integers.

        Raises:
            ModelError: a sum could be inexact in float32.
        """
        weight = self.weight if weight is None else weight
        bits = self._bits(weight)
        quantized, bias = self.quantized(weight)
        shift = bits + self.before - self.after
        steps = torch.round(quantized * torch.exp2(bits)[:, None])
        # Half a step, so that the floor rounds; without a shift there is nothing to round.
        offset = torch.round(bias.double() * torch.exp2(bits + self.before).double())
        offset += torch.where(shift > 0, torch.exp2(shift - 1), 0).double()
        return IntegerLinear(
            steps.cpu().numpy().astype(np.int8),
            offset.cpu().numpy().astype(np.int32),
            shift.cpu().numpy().astype(np.uint8),
        )

    @torch.no_grad()
    def take(self, layer: IntegerLinear) -> None:
        """Undo `export`, for a layer of the same shape."""
        shift = torch.from_numpy(layer.shift.astype(np.float32))
        bits = shift + self.after - self.before
        bias = torch.from_numpy(layer.bias.astype(np.float64)) - torch.where(
            shift > 0, torch.exp2(shift - 1), 0
        )
        self.weight.copy_(torch.from_numpy(layer.weight.astype(np.float32)) / torch.exp2(bits)[:, None])
        self.bias.copy_(bias / torch.exp2(bits + self.before))

    def _bits(self, weight: Tensor) -> Tensor:
        """Return the fractional bits of each output's weights, as its largest weight allows: float32 [O]."""
        largest = weight.detach().abs().amax(1).clamp(min=1e-6)
        return torch.floor(torch.log2(INPUT / largest)).clamp(
            max(self.after - self.before, 0), WEIGHT_BITS_MAX
        )
