"""PixelCNN over the codes of images (van den Oord, Kalchbrenner, Kavukcuoglu 2016), in integers.

    p(codes) = product over (i, j) of p(code_ij | codes above, and before it in its row)

The inputs of the first layer are the codes NW, N, NE and W of each position; those of the residual blocks are
features at these neighbours and at the position itself. So a feature at (i, j) depends on positions earlier
in the order t = j + 2 i, and all positions of one t are coded together: a region of 128 x 128 codes takes 382
steps, not 16,384, however deep the network is. Features are stored for four steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ..errors import ModelError
from . import exact, settings
from .base import Categorical, Codes, Positions, Step, Symbols, slanted
from .learned import LearnedPrior, Network
from .settings import setting

TAPS = 4
"""Causal neighbours of a position: NW, N, NE, W."""

STEPS = 4
"""For which features are kept: NW was visited three steps ago."""


@dataclass(frozen=True)
class Config(settings.Config):
    """Settings of a PixelCNN; no layer has more than 1,024 inputs.

    Attributes:
        embedding: dimensions of the embedding of a code.
        width: channels between the residual blocks.
        hidden: channels inside them.
        blocks: residual blocks.
    """

    embedding: int = setting(32, low=1, high=255)
    width: int = setting(96, low=1, high=204)
    hidden: int = setting(48, low=1, high=1024)
    blocks: int = setting(6, low=0, high=100)


class PixelCNN(Network):
    """PixelCNN in training: codes int64 [B, h, w] -> logits [B, K, h, w] in nats."""

    def __init__(self, config: Config, codebook: Tensor) -> None:
        """Start from a codebook, [K, D]."""
        super().__init__(codebook, len(codebook), config.embedding, config.width)
        width, hidden, fine, coarse = (
            config.width,
            config.hidden,
            exact.ACCUMULATOR_BITS,
            exact.ACTIVATION_BITS,
        )
        self.first = exact.QATLinear(TAPS * config.embedding, width, coarse, fine)
        self.spatial = nn.ModuleList(
            exact.QATLinear((TAPS + 1) * width, hidden, coarse, coarse, 1.4) for _ in range(config.blocks)
        )
        self.pointwise = nn.ModuleList(
            exact.QATLinear(hidden, width, coarse, fine, 0.5) for _ in range(config.blocks)
        )

    def layers(self) -> dict[str, exact.QATLinear]:
        """Return all layers but the last, by their names in coding."""
        layers: dict[str, exact.QATLinear] = {"first": self.first}
        for number, (spatial, pointwise) in enumerate(self._blocks()):
            layers |= {f"{number}.spatial": spatial, f"{number}.pointwise": pointwise}
        return layers

    def _blocks(self) -> Iterator[tuple[exact.QATLinear, exact.QATLinear]]:
        pairs = zip(self.spatial, self.pointwise, strict=True)
        return cast("Iterator[tuple[exact.QATLinear, exact.QATLinear]]", pairs)

    def forward(self, codes: Tensor) -> Tensor:
        """Compute the logits of all codes of all regions, given the codes before them."""
        embedded = self.embed(codes)
        return self.through(masked(self.first, embedded), embedded)

    def embed(self, codes: Tensor) -> Tensor:
        """Return the embedding of codes: int64 [B, h, w] -> [B, E, h, w]."""
        return F.embedding(codes, self.table()).permute(0, 3, 1, 2)

    def through(self, x: Tensor, embedded: Tensor) -> Tensor:
        """Compute all that follows the first layer: [B, C, h, w] and the embedding -> logits."""
        for number, (spatial, pointwise) in enumerate(self._blocks()):
            x = self.before_block(number, x, embedded)
            inner = exact.activated(masked(spatial, exact.activated(x)))
            x = exact.limited(x + masked(pointwise, inner))
        logits: Tensor = masked(self.logits, exact.activated(x), self.head())
        return logits

    def before_block(self, number: int, x: Tensor, embedded: Tensor) -> Tensor:
        """What is done before a residual block: by default nothing."""
        del number, embedded
        return x

    def export(self) -> PixelCNNPrior:
        """Return the network in integers.

        Raises:
            ModelError: a layer exceeds the exact range of float32.
        """
        return PixelCNNPrior(self.arrays())


class PixelCNNPrior(LearnedPrior):
    """PixelCNN in coding."""

    @property
    def blocks(self) -> int:
        """Number of residual blocks."""
        return sum(name.endswith(".spatial") for name in self.layers)

    def check(self) -> None:
        """Refuse arrays that do not fit each other, as in `LearnedPrior.check`."""
        if len(self.arrays["embedding"]) != self.alphabet_size:
            raise ModelError(
                f"a prior with embeddings of {len(self.arrays['embedding'])} "
                f"instead of {self.alphabet_size} codes"
            )
        width = self.fits("first", TAPS * self.arrays["embedding"].shape[1])
        for number in range(self.blocks):
            self.fits(f"{number}.pointwise", self.fits(f"{number}.spatial", (TAPS + 1) * width), width)
        self.fits("logits", width)

    def in_parallel(self, symbols: Symbols) -> Iterator[tuple[Codes, Categorical]]:
        """Compute the network layer by layer, at all positions, as in `Prior.in_parallel`."""
        codes = symbols[self.plane]
        with exact.arithmetic():
            logits = self._logits(symbols).numpy()
        yield from self.coded(codes.ravel(), logits, slanted(codes.shape, 2))

    def _logits(self, symbols: Symbols) -> Tensor:
        """Return the logits of all positions of a region, [h w, K]."""
        codes, layers = symbols[self.plane], self.layers
        shape = codes.shape[0], codes.shape[1]
        embedded = self.embedding.index_select(0, torch.from_numpy(codes.ravel()))
        x = self.entered(around(embedded, shape), symbols)
        for number in range(self.blocks):
            x = self.before_block(number, x, embedded, shape)
            # Products are summed in place of features side by side: less memory to go through.
            products = layers[f"{number}.spatial"].by_tap(exact.activation(x), TAPS + 1)
            inner = self._summed(number, products.view(*shape, TAPS + 1, -1))
            x = exact.added(x, layers[f"{number}.pointwise"](inner.clamp_(0, exact.INPUT)))
        return layers["logits"](exact.activation(x))

    def _summed(self, number: int, products: Tensor) -> Tensor:
        """Sum the products of neighbours, [h, w, TAPS + 1, C], to what a spatial layer gives, [h w, C]."""
        north_west, north, north_east, west, own = products.unbind(2)
        inner = own + self.layers[f"{number}.spatial"].scaled(products.dtype)[1]
        inner[1:, 1:] += north_west[:-1, :-1]
        inner[1:] += north[:-1]
        inner[1:, :-1] += north_east[:-1, 1:]
        inner[:, 1:] += west[:, :-1]
        return inner.floor_().flatten(0, 1)

    def entered(self, neighbours: Tensor, symbols: Symbols) -> Tensor:
        """Return what the first layer gives at all positions of a region, [h w, C]."""
        del symbols
        return self.layers["first"](neighbours)

    def before_block(self, number: int, x: Tensor, embedded: Tensor, shape: tuple[int, int]) -> Tensor:
        """Return what a residual block gets at all positions of a region, [h w, C]: by default x."""
        del number, embedded, shape
        return x

    def scan(self, known: Sequence[Symbols], index: int) -> Wavefront:
        """Begin a scan, as in `Prior.scan`."""
        del index
        return Wavefront(self, [symbols[self.plane] for symbols in known])


def around(features: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return the causal neighbours of all positions of a region, zero outside: [h w, C] -> [h w, TAPS C]."""
    height, width = shape
    padded = F.pad(features.view(height, width, -1), (0, 0, 1, 1, 1, 0))
    above = [padded[:height, start : start + width] for start in range(3)]
    return torch.cat((*above, padded[1:, :width]), 2).flatten(0, 1)


class _Front:
    """Features of the last three steps and this one, by row: zero where there are none.

    The rows of all regions follow each other, each region's after one row that stays zero. Before (i, j), row
    i visited W one step ago; row i - 1 visited NE one step ago, N two steps ago and NW three steps ago.
    """

    def __init__(self, rows: int, channels: int, dtype: torch.dtype) -> None:
        self.kept = torch.zeros(STEPS * rows, channels, dtype=dtype)
        self.used: list[Tensor | None] = [None] * STEPS

    @staticmethod
    def places(step: int, rows: Tensor, count: int) -> Tensor:
        """Rows of `kept` of the neighbours NW, N, NE, W and the positions themselves, int64 [N, TAPS + 1].

        Args:
            step: of the positions.
            rows: of the positions, int64 [N].
            count: number of all rows.
        """
        shifts = torch.tensor([(step - ago) % STEPS * count for ago in (3, 2, 1, 1, 0)])
        return rows[:, None] - torch.tensor([1, 1, 1, 0, 0]) + shifts

    def neighbours(self, places: Tensor) -> Tensor:
        """Return features side by side: places [N, n] -> [N, n C]."""
        count, near = places.shape
        return self.kept.index_select(0, places.flatten()).view(count, near * self.kept.shape[1])

    def put(self, step: int, places: Tensor, features: Tensor) -> None:
        """Store features at a step's positions, [N, C], over those of four steps before."""
        own = places[:, TAPS]
        old = self.used[step % STEPS]
        if old is not None:
            self.kept.index_fill_(0, old, 0)
        self.kept.index_copy_(0, own, features)
        self.used[step % STEPS] = own


class Wavefront:
    """Scan along slanted lines: step t visits every (i, j) of every region with j + 2 i = t."""

    def __init__(self, prior: PixelCNNPrior, codes: Sequence[Codes]) -> None:
        self.prior, self.codes = prior, codes
        heights = [region.shape[0] for region in codes]
        self.starts = np.cumsum([1, *(height + 1 for height in heights)])[:-1]
        self._count = max((r.shape[1] + 2 * (r.shape[0] - 1) for r in codes if r.size), default=0)
        self._rows = rows = sum(heights) + len(heights)
        layers, dtype = prior.layers, prior.dtype
        self.embedded = _Front(rows, prior.embedding.shape[1], dtype)
        width = len(layers["first"].bias)
        self.fronts = [_Front(rows, width, dtype) for _ in range(prior.blocks)]

    @property
    def steps(self) -> Iterator[Step]:
        """As in `Scan.steps`."""
        return (Step(t, self.prior.plane, self._positions(t)) for t in range(self._count))

    def models(self, step: Step) -> Iterator[Categorical]:
        """As in `Scan.models`."""
        t = step.number
        with exact.arithmetic():
            if t:
                before = self._positions(t - 1)
                pairs = zip(self.codes, before, strict=True)
                codes = np.concatenate([region[positions] for region, positions in pairs])
                self.take(before, t - 1, self.prior.embedding.index_select(0, torch.from_numpy(codes)))
            logits = self._logits(step, self._places(t, step.positions)).numpy()
        return self.prior.categoricals(logits, [len(rows) for rows, _ in step.positions])

    def _positions(self, t: int) -> list[Positions]:
        return [_positions(region.shape, t) for region in self.codes]

    def _places(self, step: int, positions: Sequence[Positions]) -> Tensor:
        rows = [start + inside for start, (inside, _) in zip(self.starts, positions, strict=True)]
        return _Front.places(step, torch.from_numpy(np.concatenate(rows)), self._rows)

    def take(self, positions: Sequence[Positions], step: int, embedded: Tensor) -> None:
        """Take the embedding of the codes of a step, [N, E], once they are known."""
        self.embedded.put(step, self._places(step, positions), embedded)

    def entered(self, step: Step, neighbours: Tensor) -> Tensor:
        """What the first layer gives at the positions of a step: [N, TAPS E] -> [N, C]."""
        del step
        return self.prior.layers["first"](neighbours)

    def before_block(self, number: int, x: Tensor, step: Step) -> Tensor:
        """What is done before a residual block: by default nothing."""
        del number, step
        return x

    def _logits(self, step: Step, places: Tensor) -> Tensor:
        layers = self.prior.layers
        x = self.entered(step, self.embedded.neighbours(places[:, :TAPS]))
        for number, front in enumerate(self.fronts):
            x = self.before_block(number, x, step)
            front.put(step.number, places, exact.activation(x))
            inner = layers[f"{number}.spatial"](front.neighbours(places))
            x = exact.added(x, layers[f"{number}.pointwise"](inner.clamp_(0, exact.INPUT)))
        return layers["logits"](exact.activation(x))


@lru_cache(maxsize=4096)
def _positions(shape: tuple[int, ...], step: int) -> Positions:
    """Return rows and columns of a step, shared by regions of one shape and by the next step."""
    height, width = shape
    rows = np.arange(max(0, (step - width + 2) // 2), min(height, step // 2 + 1), dtype=np.intp)
    return rows, step - 2 * rows


def masked(layer: exact.QATLinear, x: Tensor, weight: Tensor | None = None) -> Tensor:
    """Apply a layer to the neighbours, or to each position alone: [B, C, h, w] -> [B, O, h, w]."""
    weight, bias = layer.quantized(weight)
    outputs, inputs = weight.shape
    taps = inputs // x.shape[1]
    if taps == 1:
        # Channels come last in memory: a 1x1 convolution is a matrix product.
        product = F.linear(x.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)
        return exact.rounded(product, layer.after)
    by_tap = weight.view(outputs, taps, x.shape[1]).transpose(1, 2)
    kernel = F.pad(by_tap, (0, 6 - taps)).reshape(outputs, x.shape[1], 2, 3)
    kernel = kernel.contiguous(memory_format=torch.channels_last)
    around = F.pad(x, (1, 1, 1, 0)).contiguous(memory_format=torch.channels_last)
    return exact.rounded(F.conv2d(around, kernel, bias), layer.after)
