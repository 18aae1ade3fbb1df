"""Networks that are integer arithmetic: the same numbers on every machine, in whatever order they are summed.

An affine layer has int8 weights and takes integers of at most INPUT. Its products and sums are integers below
2**24, so a float32 matrix product carries them without rounding; what follows is a shift by a power of two
and a floor. FORMAT.md gives the arithmetic.

Training sees the same rounding (`Linear`): a number v is held as the integer v * 2**bits, and the gradient
passes straight through (Bengio, Leonard, Courville 2013; Jacob et al. 2018, section 3).
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
"""Largest absolute value that a layer takes, and that a weight has."""

EXACT = 2**24
"""Integers below this are exact in float32."""

ACTIVATION = 4
"""Bits behind the point of activations: integers stand for sixteenths, up to 127 / 16."""

STREAM = 8
"""Bits behind the point of the sums that residual blocks add to."""

STREAM_MAX = 2**15
"""Largest absolute value of such a sum, as an integer."""

LOGIT = 4
"""Bits behind the point of logits, in nats."""

FINEST = 12
"""Bits behind the point of weights, at most."""

EXPONENTIAL = 256
"""Entries of the table of exponentials; what is further below the largest logit has the floor alone."""

RECIPROCAL = 20
"""Bits behind the point of the factor that makes a table sum to TOTAL."""


# coding


@dataclass(frozen=True, eq=False)
class Affine:
    """y = floor((W x + b) / 2**s), for each output.

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
        """What the absolute value of no partial sum exceeds: int64 [O]."""
        weights = np.abs(self.weight.astype(np.int64)).sum(1)
        bound: NDArray[np.int64] = weights * INPUT + np.abs(self.bias.astype(np.int64))
        return bound

    @cached_property
    def _carried(self) -> dict[torch.dtype, tuple[Tensor, Tensor]]:
        return {}

    def scaled(self, carrier: torch.dtype) -> tuple[Tensor, Tensor]:
        """2**-s W^T [I, O] and 2**-s b [O]: products and sums with them are as exact as those of integers."""
        if carrier not in self._carried:
            scale = torch.from_numpy(np.ldexp(1.0, -self.shift.astype(np.int32)))
            weight = (torch.from_numpy(self.weight).t() * scale).to(carrier).contiguous()
            self._carried[carrier] = weight, (torch.from_numpy(self.bias) * scale).to(carrier)
        return self._carried[carrier]

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
            # Asked again: another thread may have changed the setting meanwhile.
            if not _factors_are_shortened():
                return product.floor_()
        weight, bias = self.scaled(torch.float64)
        return torch.addmm(bias, x.double(), weight).to(x.dtype).floor_()


def activation(stream: Tensor, lowest: int = 0) -> Tensor:
    """Integers of STREAM bits -> ACTIVATION bits, clamped to lowest..INPUT."""
    half, step = 2 ** (STREAM - ACTIVATION - 1), 2.0 ** (ACTIVATION - STREAM)
    return (stream + half).mul_(step).floor_().clamp_(lowest, INPUT)  # type: ignore[no-any-return]


def added(stream: Tensor, correction: Tensor) -> Tensor:
    """Their sum, kept below STREAM_MAX; the correction's memory is used."""
    return correction.add_(stream).clamp_(-STREAM_MAX, STREAM_MAX)


def frequencies(logits: Array) -> NDArray[np.uint32]:
    """Softmax in fixed point: integers of LOGIT bits, [N, K] -> uint32 [N, K], at least 1, summing to TOTAL.

    With d the distance to the largest logit, e = round(2**16 exp(-d / 16)), S the sum of e over the codes and
    R = floor((TOTAL - K) 2**20 / S), a code has 1 + floor(e R / 2**20). What is left over goes to the first
    of the codes with the largest logit.
    """
    count = logits.shape[1]
    distance = np.minimum(logits.max(1, keepdims=True) - logits, EXPONENTIAL - 1).astype(np.intp)
    weights = _exponentials().take(distance)
    factor = ((TOTAL - count) << RECIPROCAL) // weights.sum(1, keepdims=True).astype(np.int64)
    # Products stay below 2**53: exact in float64.
    weights *= factor * 2.0**-RECIPROCAL
    np.floor(weights, out=weights)
    whole: NDArray[np.uint32] = weights.astype(np.uint32)
    whole += 1
    left = (TOTAL - whole.sum(1, dtype=np.int64)).astype(np.uint32)
    whole[np.arange(len(whole)), distance.argmin(1)] += left
    return whole


def reshaped(logits: Array, temperature: float, top_k: int | None) -> Array:
    """Integer logits for drawing: divided by a temperature, the less likely codes out of reach.

    Args:
        logits: integers of LOGIT bits, [N, K].
        temperature: its inverse is taken to the nearest 64th.
        top_k: so many codes, and those as likely as the last of them, keep their logits; None: all.
    """
    distance = np.minimum(logits.max(1, keepdims=True) - logits, 2**13)
    if top_k is not None and top_k < logits.shape[1]:
        last = np.partition(distance, top_k - 1, 1)[:, top_k - 1 : top_k]
        distance = np.where(distance > last, 2**13, distance)
    found: Array = -np.floor(distance * max(round(64 / temperature), 1) / 64)
    return found


@contextmanager
def arithmetic() -> Iterator[None]:
    """Compute without gradients and autocast; both are settings of the thread alone.

    The precision of float32 products is a setting of the process, so it is never changed: where the program
    around has asked for bfloat16 or TF32, an `Affine` computes in float64, which has no such setting. A
    change is noticed before and after each product; only one that is made and undone within a product by
    another thread is not.
    """
    with torch.inference_mode(), torch.autocast("cpu", enabled=False):
        yield


# torch.backends.mkldnn.matmul.fp32_precision, in an eighth of the time: it is asked twice for each layer.
_product_precision = partial(torch._C._get_fp32_precision_getter, "mkldnn", "matmul")


def _factors_are_shortened() -> bool:
    """Tell whether float32 products may round their factors to bfloat16 or TF32."""
    return _product_precision() not in ("none", "ieee") or _always_shortened()


@cache
def _always_shortened() -> bool:
    """Tell whether they do so whatever torch's setting, which oneDNN's environment variables can cause."""
    numbers = torch.from_numpy(np.arange(4097, 4097 + 64 * 64, dtype=np.float32).reshape(64, 64))
    one = torch.from_numpy(np.eye(64, dtype=np.float32))
    with arithmetic():
        return not torch.equal(torch.addmm(numbers[:1] * 0, numbers, one), numbers)


@cache
def _exponentials() -> NDArray[np.float64]:
    """round(2**16 exp(-d / 2**LOGIT)), d = 0 .. EXPONENTIAL - 1: float64, by decimal arithmetic."""
    context = Context(prec=40)
    values = [context.exp(Decimal(-d) / 2**LOGIT) * 2**16 for d in range(EXPONENTIAL)]
    return np.array([float(value.to_integral_value()) for value in values])


# training


def rounded(x: Tensor, bits: int) -> Tensor:
    """The nearest multiple of 2**-bits, halves upwards, with the gradient of x."""
    result: Tensor = _Rounded.apply(x, bits, -math.inf, math.inf)  # type: ignore[no-untyped-call]
    return result


class _Rounded(torch.autograd.Function):
    """Rounding to multiples of 2**-bits and clamping, both counted in them: two passes over memory."""

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
    """`activation` in training, on real numbers."""
    result: Tensor = _Rounded.apply(x, ACTIVATION, lowest, INPUT)  # type: ignore[no-untyped-call]
    return result


def limited(x: Tensor) -> Tensor:
    """The limits of `added` in training, on real numbers."""
    limit = STREAM_MAX / 2**STREAM
    return x.clamp(-limit, limit)


def embedded(table: Tensor) -> Tensor:
    """An embedding of int8 in training: multiples of 2**-ACTIVATION, at most INPUT of them."""
    return activated(table, -INPUT)


class Linear(nn.Module):
    """A linear layer that is trained to become an `Affine`.

    Args:
        inputs, outputs: channels.
        before: bits behind the point of what it takes.
        after: bits behind the point of what it gives.
        gain: of the initial weights, over 1 / sqrt(inputs).
    """

    def __init__(self, inputs: int, outputs: int, before: int, after: int, gain: float = 1.0) -> None:
        super().__init__()
        self.before, self.after = before, after
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * gain / math.sqrt(inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def quantized(self, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Weight [O, I] and bias [O] as multiples of powers of two that int8 and int32 hold.

        Args:
            weight: what to take instead of the layer's own.
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
        """[..., I] in multiples of 2**-before -> [..., O] in multiples of 2**-after."""
        return rounded(nn.functional.linear(x, *self.quantized()), self.after)

    @torch.no_grad()
    def export(self, weight: Tensor | None = None) -> Affine:
        """The layer in integers.

        Raises:
            ModelError: a sum could reach what float32 does not hold.
        """
        weight = self.weight if weight is None else weight
        bits = self._bits(weight)
        quantized, bias = self.quantized(weight)
        shift = bits + self.before - self.after
        steps = torch.round(quantized * torch.exp2(bits)[:, None])
        # Half a step, so that the floor rounds; without a shift there is nothing to round.
        offset = torch.round(bias.double() * torch.exp2(bits + self.before).double())
        offset += torch.where(shift > 0, torch.exp2(shift - 1), 0).double()
        return Affine(
            steps.cpu().numpy().astype(np.int8),
            offset.cpu().numpy().astype(np.int32),
            shift.cpu().numpy().astype(np.uint8),
        )

    @torch.no_grad()
    def take(self, layer: Affine) -> None:
        """Undo `export`, for a layer of the same shape."""
        shift = torch.from_numpy(layer.shift.astype(np.float32))
        bits = shift + self.after - self.before
        bias = torch.from_numpy(layer.bias.astype(np.float64)) - torch.where(
            shift > 0, torch.exp2(shift - 1), 0
        )
        self.weight.copy_(torch.from_numpy(layer.weight.astype(np.float32)) / torch.exp2(bits)[:, None])
        self.bias.copy_(bias / torch.exp2(bits + self.before))

    def _bits(self, weight: Tensor) -> Tensor:
        """Bits behind the point of each output's weights: as many as the largest leaves, float32 [O]."""
        largest = weight.detach().abs().amax(1).clamp(min=1e-6)
        return torch.floor(torch.log2(INPUT / largest)).clamp(max(self.after - self.before, 0), FINEST)
