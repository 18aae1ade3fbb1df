"""PixelCNN over the codes of pictures (van den Oord, Kalchbrenner, Kavukcuoglu 2016), in integers.

    p(codes) = product over (i, j) of p(code_ij | codes above, and before it in its row)

A first layer sees the codes NW, N, NE and W of each place; residual blocks see features of the same places
and of the place itself. A feature at (i, j) so depends on places that come before it in the order
t = j + 2 i, and all places of one t are coded together: a region of 128 x 128 codes takes 382 steps, not
16,384, however deep the network is. Features are kept for three steps, no longer.
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
from .base import Categorical, Codes, Positions, Step, Symbols
from .learned import LearnedPrior, Network
from .settings import setting

TAPS = 4
"""Neighbours that come before a place: NW, N, NE, W."""


@dataclass(frozen=True)
class Config(settings.Config):
    """Settings of a PixelCNN; no layer has more than 1,024 inputs.

    Attributes:
        embedding: numbers that stand for a code.
        width: channels between the residual blocks.
        hidden: channels inside them.
        blocks: residual blocks.
    """

    embedding: int = setting(32, low=1, high=255)
    width: int = setting(96, low=1, high=204)
    hidden: int = setting(48, low=1, high=1024)
    blocks: int = setting(6, low=0, high=100)


class PixelCNN(Network):
    """The network in training: codes int64 [B, h, w] -> logits [B, K, h, w] in nats."""

    def __init__(self, config: Config, codebook: Tensor) -> None:
        """Start from a codebook, [K, D]."""
        super().__init__(codebook, len(codebook), config.embedding, config.width)
        width, hidden, fine, coarse = config.width, config.hidden, exact.STREAM, exact.ACTIVATION
        self.first = exact.Linear(TAPS * config.embedding, width, coarse, fine)
        self.spatial = nn.ModuleList(
            exact.Linear((TAPS + 1) * width, hidden, coarse, coarse, 1.4) for _ in range(config.blocks)
        )
        self.pointwise = nn.ModuleList(
            exact.Linear(hidden, width, coarse, fine, 0.5) for _ in range(config.blocks)
        )

    def layers(self) -> dict[str, exact.Linear]:
        """All layers but the last, by the names that they have in coding."""
        layers: dict[str, exact.Linear] = {"first": self.first}
        for number, (spatial, pointwise) in enumerate(self._blocks()):
            layers |= {f"{number}.spatial": spatial, f"{number}.pointwise": pointwise}
        return layers

    def _blocks(self) -> Iterator[tuple[exact.Linear, exact.Linear]]:
        pairs = zip(self.spatial, self.pointwise, strict=True)
        return cast("Iterator[tuple[exact.Linear, exact.Linear]]", pairs)

    def forward(self, codes: Tensor) -> Tensor:
        """Logits of all codes of all regions, given those before."""
        x = _masked(self.first, F.embedding(codes, self.table()).permute(0, 3, 1, 2))
        for spatial, pointwise in self._blocks():
            inner = exact.activated(_masked(spatial, exact.activated(x)))
            x = exact.limited(x + _masked(pointwise, inner))
        logits: Tensor = _masked(self.logits, exact.activated(x), self.head())
        return logits

    def export(self) -> PixelCNNPrior:
        """The network in integers.

        Raises:
            ModelError: a layer is beyond what is exact.
        """
        return PixelCNNPrior(self.arrays())


class PixelCNNPrior(LearnedPrior):
    """The network in coding."""

    @property
    def blocks(self) -> int:
        """Residual blocks."""
        return sum(name.endswith(".spatial") for name in self.layers)

    def check(self) -> None:
        """As in `LearnedPrior.check`."""
        if len(self.arrays["embedding"]) != self.alphabet_size:
            raise ModelError(
                f"a prior that knows {len(self.arrays['embedding'])} of {self.alphabet_size} codes"
            )
        width = self.fits("first", TAPS * self.arrays["embedding"].shape[1])
        for number in range(self.blocks):
            self.fits(f"{number}.pointwise", self.fits(f"{number}.spatial", (TAPS + 1) * width), width)
        self.fits("logits", width)

    def scan(self, known: Sequence[Symbols], index: int) -> _Wavefront:
        """As in `LearnedPrior.scan`."""
        del index
        return _Wavefront(self, [symbols[self.plane] for symbols in known])


class _Front:
    """Features of the last three steps, by row: the neighbours of a place, zero where there are none.

    Rows of all regions follow each other, each region's behind one that stays zero. When (i, j) comes up, row
    i was at W in the step before, row i - 1 at NE in the step before, at N two before and at NW three before.
    """

    def __init__(self, rows: int, channels: int, carrier: torch.dtype) -> None:
        self.steps = torch.zeros(4, rows, channels, dtype=carrier)
        self.used: list[Tensor | None] = [None] * 4

    def neighbours(self, step: int, rows: Tensor, current: Tensor | None = None) -> Tensor:
        """[N, 4 C], or with features of the places themselves [N, 5 C]."""
        above, steps = rows - 1, self.steps
        parts = [steps[(step - ago) % 4].index_select(0, above) for ago in (3, 2, 1)]
        parts.append(steps[(step - 1) % 4].index_select(0, rows))
        return torch.cat(parts if current is None else [*parts, current], 1)

    def put(self, step: int, rows: Tensor, features: Tensor) -> None:
        """Features of a step's places, [N, C]; those of four steps before are forgotten."""
        slot = step % 4
        old = self.used[slot]
        if old is not None:
            self.steps[slot].index_fill_(0, old, 0)
        self.steps[slot].index_copy_(0, rows, features)
        self.used[slot] = rows


class _Wavefront:
    """Step t codes every (i, j) of every region with j + 2 i = t."""

    def __init__(self, prior: PixelCNNPrior, codes: Sequence[Codes]) -> None:
        self.prior, self.codes = prior, codes
        heights = [region.shape[0] for region in codes]
        self.starts = np.cumsum([1, *(height + 1 for height in heights)])[:-1]
        self._count = max((r.shape[1] + 2 * (r.shape[0] - 1) for r in codes if r.size), default=0)
        rows = sum(heights) + len(heights)
        layers, carrier = prior.layers, prior.carrier
        self.embedded = _Front(rows, prior.embedding.shape[1], carrier)
        width = len(layers["first"].bias)
        self.fronts = [_Front(rows, width, carrier) for _ in range(prior.blocks)]

    @property
    def steps(self) -> Iterator[Step]:
        return (Step(t, self.prior.plane, self._positions(t)) for t in range(self._count))

    def models(self, step: Step) -> Iterator[Categorical]:
        t = step.number
        if t:
            before = self._positions(t - 1)
            known = np.concatenate([r[where] for r, where in zip(self.codes, before, strict=True)])
            embedded = self.prior.embedding.index_select(0, torch.from_numpy(known))
            self.embedded.put(t - 1, self._rows(before), embedded)
        with exact.arithmetic():
            logits = self._logits(t, self._rows(step.positions)).numpy()
        return self.prior.categoricals(logits, [len(rows) for rows, _ in step.positions])

    def _positions(self, t: int) -> list[Positions]:
        return [_positions(region.shape, t) for region in self.codes]

    def _rows(self, positions: Sequence[Positions]) -> Tensor:
        rows = [start + inside for start, (inside, _) in zip(self.starts, positions, strict=True)]
        return torch.from_numpy(np.concatenate(rows))

    def _logits(self, step: int, rows: Tensor) -> Tensor:
        layers = self.prior.layers
        x = layers["first"](self.embedded.neighbours(step, rows))
        for number, front in enumerate(self.fronts):
            features = exact.activation(x)
            inner = layers[f"{number}.spatial"](front.neighbours(step, rows, features))
            front.put(step, rows, features)
            x = exact.added(x, layers[f"{number}.pointwise"](inner.clamp_(0, exact.INPUT)))
        return layers["logits"](exact.activation(x))


@lru_cache(maxsize=4096)
def _positions(shape: tuple[int, ...], step: int) -> Positions:
    """Rows and columns of a step; regions of one shape, and the next step, share them."""
    height, width = shape
    rows = np.arange(max(0, (step - width + 2) // 2), min(height, step // 2 + 1), dtype=np.intp)
    return rows, step - 2 * rows


def _masked(layer: exact.Linear, x: Tensor, weight: Tensor | None = None) -> Tensor:
    """A layer over the neighbours, or over each place alone, of maps: [B, C, h, w] -> [B, O, h, w]."""
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
