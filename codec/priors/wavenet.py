"""WaveNet over the codes of audio (van den Oord et al. 2016; 2017, section 3.3), in integers.

    p(codes) = product over t of p(code_t | code_1 .. code_t-1)

A stack of causal convolutions of kernel 2 and growing dilation, each gated by tanh and sigmoid; their skip
outputs are summed and mapped to the logits. Coding stores, for each layer, as many steps as its dilation, so
a code costs one pass through the layers, for all segments of the audio at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import cache
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ..errors import ModelError
from . import exact, settings
from .base import Array, Categorical, Codes, Step, Symbols, in_time
from .learned import LearnedPrior, Network
from .settings import setting

GATE_BITS = 6
"""Fractional bits of the arguments of tanh and sigmoid."""

GATE_MAX = 511
"""Largest absolute value of an argument, as an integer: 511 / 64."""

TO_ACTIVATION = 2.0 ** (exact.ACTIVATION_BITS - exact.ACCUMULATOR_BITS)
"""Factor from the integers of an accumulator to those of an activation."""

GATED_BITS = 7
"""Fractional bits of the product of tanh and sigmoid."""


@dataclass(frozen=True)
class Config(settings.Config):
    """Settings of a WaveNet prior; no layer has more than 1,024 inputs.

    Attributes:
        width: channels of the stack.
        skip: channels of its output.
        layers, stacks: dilations 1, 2, .. 2^(layers - 1), repeated `stacks` times.
    """

    width: int = setting(128, low=1, high=512)
    skip: int = setting(128, low=1, high=1024)
    layers: int = setting(7, low=1, high=12)
    stacks: int = setting(2, low=1, high=20)


class WaveNet(Network):
    """WaveNet in training: codes int64 [B, T] -> logits [B, K, T] in nats."""

    def __init__(self, config: Config, codebook: Tensor) -> None:
        """Start from a codebook, [K, D]; the embedding's last row stands for "before the first code"."""
        super().__init__(codebook, len(codebook) + 1, config.width, config.skip)
        self.skip = config.skip
        self.dilations = [2**layer for layer in range(config.layers)] * config.stacks
        width, skip, fine, coarse = config.width, config.skip, exact.ACCUMULATOR_BITS, exact.ACTIVATION_BITS
        self.dilated = nn.ModuleList(
            exact.QATLinear(2 * width, 2 * width, coarse, GATE_BITS) for _ in self.dilations
        )
        self.output = nn.ModuleList(
            exact.QATLinear(width, width + skip, GATED_BITS, fine, 0.5) for _ in self.dilations
        )
        self.hidden = exact.QATLinear(skip, skip, coarse, fine, 1.4)

    def layers(self) -> dict[str, exact.QATLinear]:
        """Return all layers but the last, by their names in coding."""
        layers: dict[str, exact.QATLinear] = {}
        pairs = zip(self.dilated, self.output, strict=True)
        for number, (dilated, output) in enumerate(cast("Iterable[tuple[exact.QATLinear, ...]]", pairs)):
            layers |= {f"{number}.dilated": dilated, f"{number}.output": output}
        return layers | {"hidden": self.hidden}

    def forward(self, codes: Tensor) -> Tensor:
        """Compute the logits of all codes of all regions, given the codes before them."""
        count = codes.shape[1]
        before = F.pad(codes[:, :-1], (1, 0), value=len(self.codebook))
        x, total = F.embedding(before, self.table()), torch.zeros((), device=codes.device)
        parts = zip(self.dilations, self.dilated, self.output, strict=True)
        for dilation, dilated, output in parts:
            now = exact.activated(x, -exact.INPUT)
            past = F.pad(now, (0, 0, dilation, 0))[:, :count]
            signal, gate = dilated(torch.cat((past, now), 2)).chunk(2, 2)
            residual, skipped = output(_gated(signal, gate)).split((x.shape[2], self.skip), 2)
            x = exact.limited(x + residual)
            total = exact.limited(total.to(skipped) + skipped)
        hidden = exact.activated(self.hidden(exact.activated(total)))
        weight, bias = self.logits.quantized(self.head())
        logits = exact.rounded(F.linear(hidden, weight, bias), self.logits.after)
        return logits.transpose(1, 2)

    def take(self, prior: LearnedPrior) -> None:
        """Load the integers of a prior, as in `Network.take`."""
        if not isinstance(prior, WaveNetPrior) or prior.dilations != self.dilations:
            raise ValueError("other dilations")
        super().take(prior)

    def export(self) -> WaveNetPrior:
        """Return the network in integers.

        Raises:
            ModelError: a layer exceeds the exact range of float32.
        """
        return WaveNetPrior(self.arrays() | {"dilations": np.array(self.dilations, np.int32)})


class WaveNetPrior(LearnedPrior):
    """WaveNet in coding; its arrays include "dilations", int32 [layers]."""

    @property
    def dilations(self) -> list[int]:
        """Dilation of each layer."""
        return [int(dilation) for dilation in self.arrays["dilations"]]

    def check(self) -> None:
        """Refuse arrays that do not fit each other, as in `LearnedPrior.check`."""
        embedding, dilations = self.arrays["embedding"], self.arrays.get("dilations")
        count = sum(name.endswith(".dilated") for name in self.layers)
        if dilations is None or dilations.dtype != np.int32 or dilations.shape != (count,) or not count:
            raise ModelError(f"a prior without the dilations of its {count} layers")
        if not ((dilations > 0) & (dilations <= 2**16)).all():
            raise ModelError("dilations of a prior must be 1 to 65536")
        if len(embedding) != self.alphabet_size + 1:
            raise ModelError(
                f"a prior with embeddings of {len(embedding) - 1} instead of {self.alphabet_size} codes"
            )
        width = embedding.shape[1]
        skip = self.fits("0.output", width) - width
        if skip < 1:
            raise ModelError("a prior whose layers have no skip outputs")
        for number in range(len(dilations)):
            self.fits(f"{number}.dilated", 2 * width, 2 * width)
            self.fits(f"{number}.output", width, width + skip)
        self.fits("logits", self.fits("hidden", skip))

    def network(self, codebook: Tensor) -> WaveNet:
        """Return the network in training with these integers, frozen, for the logits of all codes at once.

        Args:
            codebook: [K, D], on the device of the result.
        """
        width, skip, layers = self.embedding.shape[1], len(self.layers["hidden"].bias), len(self.dilations)
        # The fresh weights are replaced at once: they shall not advance the program's random numbers.
        with torch.random.fork_rng(devices=[]):
            network = WaveNet(Config(width, skip, layers, 1), codebook.detach().cpu().float())
        network.dilations = self.dilations
        network.take(self)
        return network.requires_grad_(False).to(codebook.device)

    def in_parallel(self, symbols: Symbols) -> Iterator[tuple[Codes, Categorical]]:
        """Compute the network layer by layer, at all positions, as in `Prior.in_parallel`."""
        codes = symbols[self.plane]
        with exact.arithmetic():
            logits = self._logits(codes).numpy()
        yield from self.coded(codes, logits, np.arange(len(codes)))

    def _logits(self, codes: Codes) -> Tensor:
        """Return the logits of all positions of a region, [T, K]."""
        before = np.concatenate(([self.alphabet_size], codes[:-1]))[: len(codes)]
        start = 2.0 ** (exact.ACCUMULATOR_BITS - exact.ACTIVATION_BITS)
        x = self.embedding.index_select(0, torch.from_numpy(before)) * start
        total = x.new_zeros(())
        for number, dilation in enumerate(self.dilations):
            now = exact.activation(x, -exact.INPUT)
            past = F.pad(now, (0, 0, dilation, 0))[: len(now)]
            gated = _gates(self.layers[f"{number}.dilated"](torch.cat((past, now), 1)))
            outputs = self.layers[f"{number}.output"](gated)
            x, total = exact.added(x, outputs[:, : x.shape[1]]), exact.added(total, outputs[:, x.shape[1] :])
        hidden = exact.activation(self.layers["hidden"](exact.activation(total)))
        return self.layers["logits"](hidden)

    def scan(self, known: Sequence[Symbols], index: int) -> _Sequences:
        """Begin a scan, as in `Prior.scan`."""
        del index
        return _Sequences(self, [symbols[self.plane] for symbols in known])


@dataclass(frozen=True)
class _Matrices:
    """Weights of a step, in numpy: on arrays this small its calls cost a third of torch's.

    All are floating-point numbers whose products and sums are exact, with the shifts of their layers as
    factors. The convolutions are split into their past and their present tap: the past of all layers is
    available when a step begins.

    Attributes:
        past, present: both taps of the convolutions, [L, 2, C, C], for tanh and for sigmoid.
        dilated_bias: [L, 2, 1, C].
        output: [L, C, C + S].
        output_bias: [L, 1, C + S].
        last: weight and bias of "hidden" and "logits".
        tanh, sigmoid: tables for the integers from -GATE_MAX up; tanh is divided by 128.
        limited: whether a sum could reach STREAM_MAX, as the weights are.
    """

    past: Array
    present: Array
    dilated_bias: Array
    output: Array
    output_bias: Array
    last: list[tuple[Array, Array]]
    tanh: Array
    sigmoid: Array
    limited: bool

    @classmethod
    def of(cls, prior: WaveNetPrior) -> _Matrices:
        """Return the matrices of a prior, in its dtype."""

        def stacked(part: str) -> tuple[Array, Array]:
            found = [prior.scaled(f"{number}.{part}") for number in range(len(prior.dilations))]
            return np.stack([weight for weight, _ in found]), np.stack([bias[None] for _, bias in found])

        (dilated, dilated_bias), (output, output_bias) = stacked("dilated"), stacked("output")
        layers, width = output.shape[:2]
        by_gate = dilated.reshape(layers, 2, width, 2, width).transpose(1, 0, 3, 2, 4)
        past, present = np.ascontiguousarray(by_gate)
        dilated_bias = dilated_bias.reshape(layers, 2, 1, width)
        tanh, sigmoid = np.split(_tables(prior.dtype).numpy(), 2)
        last = [prior.scaled(name) for name in ("hidden", "logits")]
        largest = 2 ** (exact.ACCUMULATOR_BITS - exact.ACTIVATION_BITS) * exact.INPUT
        largest += sum(np.abs(weight).sum(0).max() * exact.INPUT + 1 for weight in output.astype(np.float64))
        limited = bool(largest + np.abs(output_bias).sum(0).max() >= exact.ACCUMULATOR_MAX)
        return cls(past, present, dilated_bias, output, output_bias, last, tanh / 128, sigmoid, limited)


class _Sequences:
    """Scan by time: step t visits the t-th code of every region that has one."""

    def __init__(self, prior: WaveNetPrior, codes: Sequence[Codes]) -> None:
        self.prior, self.codes, self.matrices = prior, codes, _Matrices.of(prior)
        self.lengths = np.array([len(region) for region in codes], np.intp)
        longest = max((len(region) for region in codes), default=0)
        # Features before the first code are zero: no ring need be longer than the longest region.
        self.dilations = np.minimum(prior.dilations, max(longest, 1))
        kind, count = self.matrices.past.dtype, len(codes)
        layers, _, width, _ = self.matrices.past.shape
        self.embedding = prior.embedding.numpy() * kind.type(
            2 ** (exact.ACCUMULATOR_BITS - exact.ACTIVATION_BITS)
        )
        self.ring = np.zeros((self.dilations.max(), layers, count, width), kind)
        self.last = np.full(count, prior.alphabet_size)
        self.sums, self.outputs = np.empty((2, count, self.matrices.output.shape[2]), kind)
        self.arguments = np.empty((2, count, width), kind)
        # Arrays, since numpy takes longer to convert a Python number than to add two of these.
        self.half, self.lowest, self.highest = (
            np.full((count, width), value, kind) for value in (0.5, -exact.INPUT, exact.INPUT)
        )
        self.middle = np.full_like(self.arguments, GATE_MAX)

    @property
    def steps(self) -> Iterator[Step]:
        return in_time(self.prior.plane, self.lengths.tolist())

    def models(self, step: Step) -> Iterator[Categorical]:
        t = step.number
        active = t < self.lengths
        if t:
            self.last = np.array([r[min(t, len(r)) - 1] if len(r) else 0 for r in self.codes])
        return self.prior.categoricals(self._logits(t)[active], active.astype(int).tolist())

    def _logits(self, step: int) -> Array:
        matrices, width = self.matrices, self.ring.shape[3]
        sums, outputs, arguments = self.sums, self.outputs, self.arguments
        slots = (step - self.dilations) % len(self.ring)
        past = np.matmul(self.ring[slots, np.arange(len(slots))][:, None], matrices.past)
        past += matrices.dilated_bias
        # The input of the next layer and the skip outputs of all layers: accumulators with the same limit.
        sums[:, :width], sums[:, width:] = self.embedding[self.last], 0
        ring = self.ring[step % len(self.ring)]
        residual = sums[:, :width]
        for layer, present in enumerate(ring):
            np.multiply(residual, TO_ACTIVATION, out=present)
            present += self.half
            np.floor(present, out=present)
            np.maximum(present, self.lowest, out=present)
            np.minimum(present, self.highest, out=present)
            np.matmul(present, matrices.present[layer], out=arguments)
            arguments += past[layer]
            np.floor(arguments, out=arguments)
            arguments += self.middle
            index = arguments.astype(np.intp)
            gated = matrices.tanh.take(index[0], mode="clip")
            gated *= matrices.sigmoid.take(index[1], mode="clip")
            gated += self.half
            np.floor(gated, out=gated)
            np.matmul(gated, matrices.output[layer], out=outputs)
            outputs += matrices.output_bias[layer]
            np.floor(outputs, out=outputs)
            sums += outputs
            if matrices.limited:
                np.clip(sums, -exact.ACCUMULATOR_MAX, exact.ACCUMULATOR_MAX, out=sums)
        logits: Array = sums[:, width:]
        for weight, bias in matrices.last:
            active = np.floor(logits * TO_ACTIVATION + 0.5).clip(0, exact.INPUT)
            logits = np.floor(active @ weight + bias)
        return logits


def _gates(arguments: Tensor) -> Tensor:
    """Return floor((127 tanh a * 127 sigmoid b + 64) / 128), [N, C], of GATE_BITS integers [N, 2 C]."""
    count, both = arguments.shape
    index = arguments.clamp_(-GATE_MAX, GATE_MAX).int().view(count, 2, both // 2)
    index[:, 0] += GATE_MAX
    index[:, 1] += 3 * GATE_MAX + 1
    values = _tables(arguments.dtype, arguments.device).index_select(0, index.view(-1))
    signal, gate = values.view(index.shape).unbind(1)
    return (signal * gate).add_(64).mul_(1 / 128).floor_()


@cache
def _tables(dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
    """Return round(127 tanh(i / 64)), round(127 sigmoid(i / 64)), i = -511 .. 511, by decimal arithmetic."""
    context = Context(prec=40)
    inputs = [Decimal(i) / 2**GATE_BITS for i in range(-GATE_MAX, GATE_MAX + 1)]
    tanhs = [1 - 2 / (1 + context.exp(2 * x)) for x in inputs]
    sigmoids = [1 / (1 + context.exp(-x)) for x in inputs]
    whole = [float((127 * v).to_integral_value()) for v in tanhs + sigmoids]
    return torch.tensor(whole, dtype=dtype, device=device)


def _gated(signal: Tensor, gate: Tensor) -> Tensor:
    """Compute `_gates` on real numbers, in training, with the gradient of tanh and sigmoid."""
    limit = GATE_MAX / 2**GATE_BITS
    smooth = signal.clamp(-limit, limit).tanh() * gate.clamp(-limit, limit).sigmoid()
    with torch.no_grad():
        width = signal.shape[-1]
        arguments = torch.cat((signal, gate), -1).view(-1, 2 * width).mul_(2**GATE_BITS)
        hard = _gates(arguments).view(signal.shape).mul_(2.0**-GATED_BITS)
    return smooth + (hard - smooth).detach()
