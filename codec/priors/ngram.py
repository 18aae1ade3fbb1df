"""A neural n-gram model given other planes of the same grid, in integers: p(level n | levels 1 to n - 1).

    p(codes of a plane) = product over t of p(code_t | code_t-N .. code_t-1, all codes of the planes before)

Of residual quantisation, the planes before are known as a whole before the first code, so that the network
over them is not causal and runs once, on blocks of `period` codes. What it gives for a position is added to
a linear map of the embeddings of the N codes before, and residual blocks map the sum to logits (Bengio et al.
2003, "A Neural Probabilistic Language Model"; the levels one after the other: Borsos et al. 2023, "AudioLM",
section 3.4). The codes of a block stand for different bands: each has embeddings and logits of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ..errors import ModelError, UsageError
from . import exact, settings
from .base import Array, Categorical, Codes, Step, Symbols, in_time
from .context import Arithmetic, FakeQuantized, Integer
from .learned import LearnedPrior, Network, unit_embedding
from .settings import setting
from .wavenet import TO_ACTIVATION

MOST_INPUTS = 1024
"""Of a layer, so that its sums stay exact."""

RADIUS_FIRST, RADIUS = 2, 1
"""Blocks to each side that the first layer over the planes before sees, and each of the residual blocks."""


@dataclass(frozen=True)
class Config(settings.Config):
    """Settings of an n-gram model given other planes; no layer has more than 1,024 inputs.

    Attributes:
        period: codes of a block.
        history: codes before its own, N, that a code is given.
        embedding: numbers that stand for each of them.
        width: channels between the residual blocks.
        hidden: channels inside them.
        blocks: residual blocks.
        known_embedding: numbers that stand for a code of a plane before.
        known_width: channels between the residual blocks over the planes before.
        known_hidden: channels inside them.
        known_blocks: residual blocks over the planes before.
    """

    period: int = setting(4, low=1, high=16)
    history: int = setting(8, low=1, high=64)
    embedding: int = setting(16, low=1, high=1024)
    width: int = setting(64, low=1, high=1024)
    hidden: int = setting(128, low=1, high=1024)
    blocks: int = setting(2, low=0, high=100)
    known_embedding: int = setting(16, low=1, high=204)
    known_width: int = setting(96, low=1, high=341)
    known_hidden: int = setting(96, low=1, high=1024)
    known_blocks: int = setting(3, low=0, high=100)


def around(x: Tensor, radius: int) -> Tensor:
    """Features of the blocks around each, zero beyond the ends: [B, n, C] -> [B, n, (2 radius + 1) C]."""
    padded = F.pad(x, (0, 0, radius, radius))
    return torch.cat([padded[:, at : at + x.shape[1]] for at in range(2 * radius + 1)], 2)


def known_features(
    layers: Mapping[str, Callable[[Tensor], Tensor]], blocks: int, arithmetic: Arithmetic, embedded: Tensor
) -> Tensor:
    """The network over the planes before.

    Args:
        layers: by name.
        blocks: residual blocks.
        arithmetic: that they are run in.
        embedded: codes of a block, of all planes, [B, n, E].

    Returns:
        [B, n, period * C], accumulators for the codes of each block.
    """

    def layer(name: str, x: Tensor) -> Tensor:
        found = layers[name](x.flatten(0, 1))
        return found.view(*x.shape[:2], found.shape[1])

    x = layer("known_first", around(embedded, RADIUS_FIRST))
    for number in range(blocks):
        window = around(arithmetic.activation(x), RADIUS)
        inner = arithmetic.rectified(layer(f"known_window{number}", window))
        x = arithmetic.added(x, layer(f"known_pointwise{number}", inner))
    return layer("known_last", arithmetic.activation(x))


def by_block(codes: Sequence[Tensor], table: Tensor, period: int) -> Tensor:
    """Look codes of planes up, those beyond the end as zeros.

    Args:
        codes: int64 [B, T] of each plane.
        table: rows by plane, position in a block, code: [planes * period * K, E].
        period: codes of a block.

    Returns:
        [B, ceil(T / period), planes * period * E].
    """
    batch, count = codes[0].shape
    first_rows = torch.arange(len(codes) * period, device=table.device) * (len(table) // len(codes) // period)
    places = torch.arange(count, device=table.device) % period
    parts = []
    for found, first in zip(codes, first_rows.view(len(codes), period), strict=True):
        embedded = F.pad(F.embedding(found + first[places], table), (0, 0, 0, -count % period))
        parts.append(embedded.view(batch, -1, period * table.shape[1]))
    return torch.cat(parts, 2)


class NGram(Network):
    """The network in training: codes int64 [B, T], of each plane before too -> logits [B, K, T] in nats."""

    def __init__(self, config: Config, codebook: Tensor, *known: Tensor) -> None:
        """Start from the codebooks of all planes, [K, D] each.

        Raises:
            ValueError: of different sizes.
            UsageError: settings that give a layer more than MOST_INPUTS.
        """
        if any(len(book) != len(codebook) for book in known) or not known:
            raise ValueError("codebooks of several sizes, or none of planes before")
        # Each position in a block has logits, and a map from the codebook to them, of its own.
        by_position = torch.kron(torch.eye(config.period), codebook)
        super().__init__(by_position, len(by_position), config.embedding, config.width)
        self.period, self.history, self.size = config.period, config.history, len(codebook)
        self.known_blocks = config.known_blocks
        self.embedding = nn.Parameter(_tables([codebook], config.embedding, config.period))
        self.known_embedding = nn.Parameter(_tables(known, config.known_embedding, config.period))
        fine, coarse = exact.ACCUMULATOR_BITS, exact.ACTIVATION_BITS
        width, hidden = config.known_width, config.known_hidden
        inputs = len(known) * config.period * config.known_embedding
        found = {"known_first": exact.QATLinear((2 * RADIUS_FIRST + 1) * inputs, width, coarse, fine)}
        for number in range(config.known_blocks):
            window = (2 * RADIUS + 1) * width
            found[f"known_window{number}"] = exact.QATLinear(window, hidden, coarse, coarse, 1.4)
            found[f"known_pointwise{number}"] = exact.QATLinear(hidden, width, coarse, fine, 0.5)
        found["known_last"] = exact.QATLinear(width, config.period * config.width, coarse, fine)
        found["enter"] = exact.QATLinear(config.history * config.embedding, config.width, coarse, fine, 0.5)
        for number in range(config.blocks):
            found[f"expand{number}"] = exact.QATLinear(config.width, config.hidden, coarse, coarse, 1.4)
            found[f"contract{number}"] = exact.QATLinear(config.hidden, config.width, coarse, fine, 0.5)
        widest = max(layer.weight.shape[1] for layer in found.values())
        if widest > MOST_INPUTS:
            raise UsageError(
                f"a layer of {widest:,} inputs, limit {MOST_INPUTS:,}",
                "smaller embeddings, history or period",
            )
        self.blocks, self.parts = config.blocks, nn.ModuleDict(found)

    def layers(self) -> dict[str, exact.QATLinear]:
        """As in `Network.layers`."""
        return {name: layer for name, layer in self.parts.items() if isinstance(layer, exact.QATLinear)}

    def forward(self, codes: Tensor, *known: Tensor) -> Tensor:
        """Logits of all codes of all regions, given those before and those of the planes before."""
        (batch, count), layers, arithmetic = codes.shape, self.layers(), FakeQuantized()
        embedded = by_block(known, exact.embedded(self.known_embedding), self.period)
        features = known_features(layers, self.known_blocks, arithmetic, embedded)
        own = by_block([codes], self.table(), self.period).view(batch, -1, self.embedding.shape[1])
        before = F.pad(own, (0, 0, self.history, 0))
        window = torch.cat([before[:, at : at + own.shape[1]] for at in range(self.history)], 2)
        x = arithmetic.added(features.view(batch, own.shape[1], -1), layers["enter"](window))
        for number in range(self.blocks):
            inner = arithmetic.rectified(layers[f"expand{number}"](arithmetic.activation(x)))
            x = arithmetic.added(x, layers[f"contract{number}"](inner))
        weight, bias = self.logits.quantized(self.head())
        last = arithmetic.activation(x).view(-1, self.period, x.shape[2]).transpose(0, 1)
        by_position = bias.view(self.period, 1, -1), last, weight.view(self.period, self.size, -1).mT
        logits = exact.rounded(torch.baddbmm(*by_position), self.logits.after)
        return logits.transpose(0, 1).reshape(batch, -1, self.size)[:, :count].transpose(1, 2)

    def histogram(self, codes: Tensor) -> Tensor:
        """As in `Network.histogram`, by position in a block."""
        places = torch.arange(codes.shape[1], device=codes.device) % self.period
        return super().histogram(codes + places * self.size)

    def arrays(self) -> dict[str, Array]:
        """As in `Network.arrays`, with the embeddings of the planes before."""
        table = torch.round(exact.embedded(self.known_embedding).detach().cpu() * 2**exact.ACTIVATION_BITS)
        return {**super().arrays(), "known_embedding": table.numpy().astype(np.int8)}

    def export(self) -> NGramPrior:
        """As in `Network.export`."""
        return NGramPrior(self.arrays())

    @torch.no_grad()
    def take(self, prior: LearnedPrior) -> None:
        """As in `Network.take`."""
        table = prior.arrays.get("known_embedding")
        if table is None or table.shape != self.known_embedding.shape:
            raise ValueError("another embedding")
        super().take(prior)
        self.known_embedding.copy_(torch.from_numpy(table.astype(np.float32)) / 2**exact.ACTIVATION_BITS)


def _tables(codebooks: Sequence[Tensor], size: int, period: int) -> Tensor:
    """Embeddings to start from: a random map of each codebook for each position in a block, in one table."""
    maps = ((book, torch.randn(book.shape[1], size)) for book in codebooks for _ in range(period))
    return torch.cat([unit_embedding(book @ random, len(book), size) for book, random in maps])


class NGramPrior(LearnedPrior):
    """The network in coding, given the planes that are coded before its own.

    Its arrays include "known_embedding", int8, rows by plane, position in a block, code; those of "embedding"
    and "logits" are by position in a block, code.
    """

    @property
    def period(self) -> int:
        """Codes of a block."""
        return len(self.layers["known_last"].bias) // len(self.layers["enter"].bias)

    @property
    def alphabet_size(self) -> int:
        """Size K of the codebook."""
        return len(self.layers["logits"].bias) // self.period

    @property
    def known_count(self) -> int:
        """Number of planes before."""
        return len(self.arrays["known_embedding"]) // len(self.arrays["embedding"])

    def count(self, kind: str) -> int:
        """Number of layers of a kind."""
        return sum(name.startswith(kind) for name in self.layers)

    def check(self) -> None:
        """As in `LearnedPrior.check`."""
        embedding, table = self.arrays["embedding"], self.arrays.get("known_embedding", np.zeros(0))
        if table.dtype != np.int8 or table.ndim != 2 or (table == -128).any():
            raise ModelError("the embedding of codes of other planes must be int8")
        if not len(embedding) or len(table) % len(embedding) or not len(table):
            raise ModelError(f"embeddings of {len(embedding)} and of {len(table)} codes")
        enter, size = self.layers.get("enter"), embedding.shape[1]
        if enter is None or not enter.weight.size or not size or enter.weight.shape[1] % size:
            raise ModelError("a prior without the layer of the codes before")
        width = len(enter.bias)
        for number in range(self.count("expand")):
            self.fits(f"contract{number}", self.fits(f"expand{number}", width), width)
        last = self.layers.get("known_last")
        if last is None or not len(last.bias) or len(last.bias) % width or len(embedding) % self.period:
            raise ModelError("a prior whose blocks have no whole number of codes")
        inputs = self.known_count * self.period * table.shape[1]
        known = self.fits("known_first", (2 * RADIUS_FIRST + 1) * inputs)
        for number in range(self.count("known_window")):
            hidden = self.fits(f"known_window{number}", (2 * RADIUS + 1) * known)
            self.fits(f"known_pointwise{number}", hidden, known)
        self.fits("known_last", known)
        self.fits("logits", width, len(embedding))

    def in_parallel(self, symbols: Symbols) -> Iterator[tuple[Codes, Categorical]]:
        """Compute the network layer by layer, at all positions, as in `Prior.in_parallel`."""
        codes = symbols[self.plane]
        if len(codes):
            yield from self.coded(codes, self.logits_of(symbols), np.arange(len(codes)))

    def logits_of(self, symbols: Symbols) -> Array:
        """Compute the logits of all codes of a region, times 2**LOGIT_BITS: int32 [T] by plane -> [T, K]."""
        codes, layers = symbols[self.plane], _Layers(self)
        size, places = self.arrays["embedding"].shape[1], np.arange(len(codes)) % self.period
        history = self.layers["enter"].weight.shape[1] // size
        embedded = np.pad(self.embedding.numpy()[places * self.alphabet_size + codes], ((history, 0), (0, 0)))
        window = np.concatenate([embedded[at : at + len(codes)] for at in range(history)], 1)
        active = layers.active(self.features(_before(symbols, self)), window)
        logits = np.empty((len(codes), self.alphabet_size), active.dtype)
        for place in range(self.period):
            logits[place :: self.period] = layers.logits(active[place :: self.period], place)
        return logits

    def scan(self, known: Sequence[Symbols], index: int) -> _Sequences:
        """As in `LearnedPrior.scan`; the codes of the planes before are in place."""
        del index
        return _Sequences(self, known)

    def features(self, known: Sequence[Codes]) -> Array:
        """What a region knows of the planes before: int32 [T] each -> accumulators [T, C]."""
        codes = [torch.from_numpy(plane.astype(np.int64))[None] for plane in known]
        table = torch.from_numpy(self.arrays["known_embedding"]).to(self.dtype)
        with exact.arithmetic():
            embedded = by_block(codes, table, self.period)
            found = known_features(self.layers, self.count("known_window"), Integer(), embedded)
        features: Array = found.view(-1, len(self.layers["enter"].bias))[: len(known[0])].numpy()
        return features


class _Sequences:
    """Scan by time: step t visits the t-th code of every region that has one."""

    def __init__(self, prior: NGramPrior, known: Sequence[Symbols]) -> None:
        self.prior, self.codes = prior, [symbols[prior.plane] for symbols in known]
        self.lengths = np.array([len(region) for region in self.codes], np.intp)
        self.embedding = prior.embedding.numpy()
        kind, width = self.embedding.dtype, len(prior.layers["enter"].bias)
        self.known = np.zeros((self.lengths.max(initial=0), len(known), width), kind)
        for number, (symbols, length) in enumerate(zip(known, self.lengths, strict=True)):
            if length:
                self.known[:length, number] = prior.features(_before(symbols, prior))
        # The embeddings of the codes before, the oldest first.
        self.window = np.zeros((len(known), prior.layers["enter"].weight.shape[1]), kind)
        self.layers = _Layers(prior)

    @property
    def steps(self) -> Iterator[Step]:
        return in_time(self.prior.plane, self.lengths.tolist())

    def models(self, step: Step) -> Iterator[Categorical]:
        t, prior = step.number, self.prior
        active = t < self.lengths
        if t:
            last = np.array([r[min(t, len(r)) - 1] if len(r) else 0 for r in self.codes])
            size = self.embedding.shape[1]
            self.window[:, :-size] = self.window[:, size:]
            self.window[:, -size:] = self.embedding[(t - 1) % prior.period * prior.alphabet_size + last]
        logits = self.layers.logits(self.layers.active(self.known[t], self.window), t)
        return prior.categoricals(logits[active], active.astype(int).tolist())


class _Layers:
    """Layers behind the network over the planes before, as `LearnedPrior.scaled`."""

    def __init__(self, prior: NGramPrior) -> None:
        self.period, self.enter = prior.period, prior.scaled("enter")
        blocks = range(prior.count("expand"))
        self.blocks = [(prior.scaled(f"expand{n}"), prior.scaled(f"contract{n}")) for n in blocks]
        weight, bias = prior.scaled("logits")
        parts = zip(np.split(weight, prior.period, 1), np.split(bias, prior.period), strict=True)
        self.last = [(np.ascontiguousarray(part), offset) for part, offset in parts]

    def active(self, known: Array, window: Array) -> Array:
        """Compute the inputs of the last layer: [N, C]; embeddings of the codes before: [N, history E]."""
        x = _added(known, _layer(window, self.enter))
        for expand, contract in self.blocks:
            inner = _layer(_activation(x), expand)
            x = _added(x, _layer(inner.clip(0, exact.INPUT, out=inner), contract))
        return _activation(x)

    def logits(self, active: Array, place: int) -> Array:
        """Compute the logits of codes at one place in their blocks: [N, K]."""
        return _layer(active, self.last[place % self.period])


def _before(symbols: Symbols, prior: NGramPrior) -> list[Codes]:
    """The codes of a region's planes before that of a prior, in the order of coding."""
    names = [*symbols]
    found: list[Codes] = [symbols[name] for name in names[: names.index(prior.plane)]]
    if len(found) != prior.known_count:
        raise ModelError(f"a prior given {prior.known_count} planes, of which there are {len(found)}")
    return found


def _layer(x: Array, parts: tuple[Array, Array]) -> Array:
    """Apply a layer: exact, see `exact.IntegerLinear`; in numpy, whose calls cost less on so few rows."""
    outputs: Array = x @ parts[0]
    outputs += parts[1]
    return np.floor(outputs, out=outputs)


def _activation(accumulator: Array) -> Array:
    """As `exact.activation`."""
    active: Array = accumulator * TO_ACTIVATION
    active += 0.5
    np.floor(active, out=active)
    return active.clip(0, exact.INPUT, out=active)


def _added(accumulator: Array, correction: Array) -> Array:
    """As `exact.added`."""
    correction += accumulator
    return correction.clip(-exact.ACCUMULATOR_MAX, exact.ACCUMULATOR_MAX, out=correction)
