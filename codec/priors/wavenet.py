"""WaveNet over the codes of sounds (van den Oord et al. 2016; 2017, section 3.3), in integers.

    p(codes) = product over t of p(code_t | code_1 .. code_t-1)

A stack of causal convolutions of kernel 2 and growing dilation, each gated by tanh and sigmoid; what all of
them say is added up and becomes the logits. Coding keeps, for each layer, as many steps as its dilation, so a
code costs one pass through the layers, for all segments of a sound at once.
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

GATE = 6
"""Bits behind the point of what tanh and sigmoid take."""

GATE_MAX = 511
"""Largest absolute value of that, as an integer: 511 / 64."""

FINER = 2.0 ** (exact.ACTIVATION - exact.STREAM)
"""From the numbers of a sum to those of an activation."""

GATED = 7
"""Bits behind the point of the product of the two."""


@dataclass(frozen=True)
class Config(settings.Config):
    """Settings of a WaveNet prior; no layer has more than 1,024 inputs.

    Attributes:
        width: channels of the stack.
        skip: channels of its output.
        layers, stacks: dilations 1, 2, .. 2^(layers - 1), so many times over.
    """

    width: int = setting(128, low=1, high=512)
    skip: int = setting(128, low=1, high=1024)
    layers: int = setting(7, low=1, high=12)
    stacks: int = setting(2, low=1, high=20)


class WaveNet(Network):
    """The network in training: codes int64 [B, T] -> logits [B, K, T] in nats."""

    def __init__(self, config: Config, codebook: Tensor) -> None:
        """Start from a codebook, [K, D]; one more row of the embedding stands for "before the first code"."""
        super().__init__(codebook, len(codebook) + 1, config.width, config.skip)
        self.skip = config.skip
        self.dilations = [2**layer for layer in range(config.layers)] * config.stacks
        width, skip, fine, coarse = config.width, config.skip, exact.STREAM, exact.ACTIVATION
        self.dilated = nn.ModuleList(exact.Linear(2 * width, 2 * width, coarse, GATE) for _ in self.dilations)
        self.output = nn.ModuleList(
            exact.Linear(width, width + skip, GATED, fine, 0.5) for _ in self.dilations
        )
        self.hidden = exact.Linear(skip, skip, coarse, fine, 1.4)

    def layers(self) -> dict[str, exact.Linear]:
        """All layers but the last, by the names that they have in coding."""
        layers: dict[str, exact.Linear] = {}
        pairs = zip(self.dilated, self.output, strict=True)
        for number, (dilated, output) in enumerate(cast("Iterable[tuple[exact.Linear, ...]]", pairs)):
            layers |= {f"{number}.dilated": dilated, f"{number}.output": output}
        return layers | {"hidden": self.hidden}

    def forward(self, codes: Tensor) -> Tensor:
        """Logits of all codes of all regions, given those before."""
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
        """As in `Network.take`."""
        if not isinstance(prior, WaveNetPrior) or prior.dilations != self.dilations:
            raise ValueError("other dilations")
        super().take(prior)

    def export(self) -> WaveNetPrior:
        """The network in integers.

        Raises:
            ModelError: a layer is beyond what is exact.
        """
        return WaveNetPrior(self.arrays() | {"dilations": np.array(self.dilations, np.int32)})


class WaveNetPrior(LearnedPrior):
    """The network in coding; "dilations" int32 is one more of its arrays."""

    @property
    def dilations(self) -> list[int]:
        """Of each layer."""
        return [int(dilation) for dilation in self.arrays["dilations"]]

    def check(self) -> None:
        """As in `LearnedPrior.check`."""
        embedding, dilations = self.arrays["embedding"], self.arrays.get("dilations")
        count = sum(name.endswith(".dilated") for name in self.layers)
        if dilations is None or dilations.dtype != np.int32 or dilations.shape != (count,) or not count:
            raise ModelError(f"a prior without the dilations of its {count} layers")
        if not ((dilations > 0) & (dilations <= 2**16)).all():
            raise ModelError("dilations of a prior must be 1 to 65536")
        if len(embedding) != self.alphabet_size + 1:
            raise ModelError(f"a prior that knows {len(embedding) - 1} of {self.alphabet_size} codes")
        width = embedding.shape[1]
        skip = self.fits("0.output", width) - width
        if skip < 1:
            raise ModelError("a prior whose layers say nothing")
        for number in range(len(dilations)):
            self.fits(f"{number}.dilated", 2 * width, 2 * width)
            self.fits(f"{number}.output", width, width + skip)
        self.fits("logits", self.fits("hidden", skip))

    def network(self, codebook: Tensor) -> WaveNet:
        """The network in training with these integers, to ask about all codes at once; it learns nothing.

        Args:
            codebook: [K, D], on the device where it shall be.
        """
        width, skip, layers = self.embedding.shape[1], len(self.layers["hidden"].bias), len(self.dilations)
        with torch.random.fork_rng(devices=[]):  # fresh weights, which are replaced at once
            network = WaveNet(Config(width, skip, layers, 1), codebook.detach().cpu().float())
        network.dilations = self.dilations
        network.take(self)
        return network.requires_grad_(False).to(codebook.device)

    def scan(self, known: Sequence[Symbols], index: int) -> _Sequences:
        """As in `LearnedPrior.scan`."""
        del index
        return _Sequences(self, [symbols[self.plane] for symbols in known])


@dataclass(frozen=True)
class _Matrices:
    """What a step is computed with, in numpy: on so few numbers its calls cost a third of torch's.

    All are floating-point numbers whose products and sums are exact, with the shifts of their layers as
    factors. The convolutions are cut in two, what they make of the past and of the present: the first is
    known for all layers when a step begins.

    Attributes:
        past, present: [L, 2, C, C], for tanh and for sigmoid.
        dilated_bias: [L, 2, 1, C].
        output: [L, C, C + S].
        output_bias: [L, 1, C + S].
        last: weight and bias of "hidden" and "logits".
        tanh, sigmoid: of integers from -GATE_MAX; their product is 128 times too small.
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
        """Those of a prior, in the type that carries it."""

        def stacked(part: str) -> tuple[Array, Array]:
            found = [prior.scaled(f"{number}.{part}") for number in range(len(prior.dilations))]
            return np.stack([weight for weight, _ in found]), np.stack([bias[None] for _, bias in found])

        (dilated, dilated_bias), (output, output_bias) = stacked("dilated"), stacked("output")
        layers, width = output.shape[:2]
        by_gate = dilated.reshape(layers, 2, width, 2, width).transpose(1, 0, 3, 2, 4)
        past, present = np.ascontiguousarray(by_gate)
        dilated_bias = dilated_bias.reshape(layers, 2, 1, width)
        tanh, sigmoid = np.split(_tables(prior.carrier).numpy(), 2)
        last = [prior.scaled(name) for name in ("hidden", "logits")]
        largest = 2 ** (exact.STREAM - exact.ACTIVATION) * exact.INPUT
        largest += sum(np.abs(weight).sum(0).max() * exact.INPUT + 1 for weight in output.astype(np.float64))
        limited = bool(largest + np.abs(output_bias).sum(0).max() >= exact.STREAM_MAX)
        return cls(past, present, dilated_bias, output, output_bias, last, tanh / 128, sigmoid, limited)


class _Sequences:
    """Step t codes the t-th code of every region that is so long."""

    def __init__(self, prior: WaveNetPrior, codes: Sequence[Codes]) -> None:
        self.prior, self.codes, self.matrices = prior, codes, _Matrices.of(prior)
        self.lengths = np.array([len(region) for region in codes], np.intp)
        longest = max((len(region) for region in codes), default=0)
        # What lies further back than the first code is zero: no ring need be longer than the walk.
        self.dilations = np.minimum(prior.dilations, max(longest, 1))
        kind, count = self.matrices.past.dtype, len(codes)
        layers, _, width, _ = self.matrices.past.shape
        self.embedding = prior.embedding.numpy() * kind.type(2 ** (exact.STREAM - exact.ACTIVATION))
        self.ring = np.zeros((self.dilations.max(), layers, count, width), kind)
        self.last = np.full(count, prior.alphabet_size)
        self.sums, self.said = np.empty((2, count, self.matrices.output.shape[2]), kind)
        self.mixed = np.empty((2, count, width), kind)
        # Arrays, since numpy takes longer to look at a number than to add two of these.
        self.half, self.least, self.most = (
            np.full((count, width), value, kind) for value in (0.5, -exact.INPUT, exact.INPUT)
        )
        self.middle = np.full_like(self.mixed, GATE_MAX)

    @property
    def steps(self) -> Iterator[Step]:
        return in_time(self.prior.plane, self.lengths.tolist())

    def models(self, step: Step) -> Iterator[Categorical]:
        t = step.number
        going = t < self.lengths
        if t:
            self.last = np.array([r[min(t, len(r)) - 1] if len(r) else 0 for r in self.codes])
        return self.prior.categoricals(self._logits(t)[going], going.astype(int).tolist())

    def _logits(self, step: int) -> Array:
        numbers, width = self.matrices, self.ring.shape[3]
        sums, said, mixed = self.sums, self.said, self.mixed
        slots = (step - self.dilations) % len(self.ring)
        past = np.matmul(self.ring[slots, np.arange(len(slots))][:, None], numbers.past)
        past += numbers.dilated_bias
        # What goes on to the next layer, and what all layers add to the output: both are sums with one limit.
        sums[:, :width], sums[:, width:] = self.embedding[self.last], 0
        ring = self.ring[step % len(self.ring)]
        flow = sums[:, :width]
        for layer, now in enumerate(ring):
            np.multiply(flow, FINER, out=now)
            now += self.half
            np.floor(now, out=now)
            np.maximum(now, self.least, out=now)
            np.minimum(now, self.most, out=now)
            np.matmul(now, numbers.present[layer], out=mixed)
            mixed += past[layer]
            np.floor(mixed, out=mixed)
            mixed += self.middle
            index = mixed.astype(np.intp)
            gated = numbers.tanh.take(index[0], mode="clip")
            gated *= numbers.sigmoid.take(index[1], mode="clip")
            gated += self.half
            np.floor(gated, out=gated)
            np.matmul(gated, numbers.output[layer], out=said)
            said += numbers.output_bias[layer]
            np.floor(said, out=said)
            sums += said
            if numbers.limited:
                np.clip(sums, -exact.STREAM_MAX, exact.STREAM_MAX, out=sums)
        found: Array = sums[:, width:]
        for weight, bias in numbers.last:
            active = np.floor(found * FINER + 0.5).clip(0, exact.INPUT)
            found = np.floor(active @ weight + bias)
        return found


def _gates(mixed: Tensor) -> Tensor:
    """Integers of GATE bits, [N, 2 C] -> floor((127 tanh a * 127 sigmoid b + 64) / 128), [N, C]."""
    count, both = mixed.shape
    index = mixed.clamp_(-GATE_MAX, GATE_MAX).int().view(count, 2, both // 2)
    index[:, 0] += GATE_MAX
    index[:, 1] += 3 * GATE_MAX + 1
    told = _tables(mixed.dtype, mixed.device).index_select(0, index.view(-1))
    signal, gate = told.view(index.shape).unbind(1)
    return (signal * gate).add_(64).mul_(1 / 128).floor_()


@cache
def _tables(carrier: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
    """round(127 tanh(i / 64)), then round(127 sigmoid(i / 64)), i = -511 .. 511, by decimal arithmetic."""
    context = Context(prec=40)
    numbers = [Decimal(i) / 2**GATE for i in range(-GATE_MAX, GATE_MAX + 1)]
    tanhs = [1 - 2 / (1 + context.exp(2 * number)) for number in numbers]
    sigmoids = [1 / (1 + context.exp(-number)) for number in numbers]
    whole = [float((127 * v).to_integral_value()) for v in tanhs + sigmoids]
    return torch.tensor(whole, dtype=carrier, device=device)


def _gated(signal: Tensor, gate: Tensor) -> Tensor:
    """The same in training, on real numbers; the gradient is that of tanh and sigmoid."""
    limit = GATE_MAX / 2**GATE
    smooth = signal.clamp(-limit, limit).tanh() * gate.clamp(-limit, limit).sigmoid()
    with torch.no_grad():
        width = signal.shape[-1]
        mixed = torch.cat((signal, gate), -1).view(-1, 2 * width).mul_(2**GATE)
        hard = _gates(mixed).view(signal.shape).mul_(2.0**-GATED)
    return smooth + (hard - smooth).detach()
