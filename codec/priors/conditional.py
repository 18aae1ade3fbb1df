"""A PixelCNN given a coarser plane, in integers: p(bottom | top) of VQ-VAE-2 (Razavi et al. 2019).

The coarser plane is known as a whole before the first code, so that the network over it is not causal and
runs once: residual blocks of 3x3 layers, and a last layer that spreads each position over the four below it.
What it gives is added to the sums of the PixelCNN behind its first layer (section 3.2 of the paper).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ..errors import ModelError
from . import exact, pixelcnn
from .base import Array, Codes, Positions, Step, Symbols, in_order
from .context import Arithmetic, FakeQuantized, Integer, spatial_context
from .learned import LearnedPrior, unit_embedding
from .settings import setting
from .static import FINER

WINDOW = 9
"""Positions that a layer over the coarser plane sees."""

REGIONS_PER_BATCH = 32
"""Regions side by side, at most: what is known of each takes 6 megabytes meanwhile."""


@dataclass(frozen=True)
class Config(pixelcnn.Config):
    """Settings of a PixelCNN given a coarser plane; no layer has more than 1,024 inputs.

    Attributes:
        above_embedding: numbers that stand for a coarser code.
        above_width: channels between the residual blocks over the coarser plane.
        above_hidden: channels inside them.
        above_blocks: residual blocks.
    """

    above_embedding: int = setting(32, low=1, high=113)
    above_width: int = setting(96, low=1, high=113)
    above_hidden: int = setting(48, low=1, high=1024)
    above_blocks: int = setting(3, low=0, high=100)


def spread(
    layers: Mapping[str, Callable[[Tensor], Tensor]],
    blocks: int,
    arithmetic: Arithmetic,
    embedded: Tensor,
    size: tuple[int, int],
) -> Tensor:
    """The network over the coarser plane.

    Args:
        layers: by name.
        blocks: residual blocks.
        arithmetic: that they are run in.
        embedded: coarser codes, [B, h, w, E].
        size: rows and columns of the finer plane, at most 2 h and 2 w.

    Returns:
        [B, rows, columns, C], as the first layer of the PixelCNN gives.
    """
    count, height, width, _ = embedded.shape
    grids = count, height, width
    x = layers["above_first"](spatial_context(embedded.flatten(0, 2), grids, 1))
    for number in range(blocks):
        window = spatial_context(arithmetic.activation(x), grids, 1)
        inner = arithmetic.rectified(layers[f"above_spatial{number}"](window))
        x = arithmetic.added(x, layers[f"above_pointwise{number}"](inner))
    below = layers["above_spread"](arithmetic.activation(x))
    parts = below.view(count, height, width, FINER, FINER, -1).transpose(2, 3)
    return parts.reshape(count, FINER * height, FINER * width, -1)[:, : size[0], : size[1]]


class ConditionalPixelCNN(pixelcnn.PixelCNN):
    """The network in training: codes int64 [B, h, w], those above [B, h / 2, w / 2] -> logits in nats."""

    def __init__(self, config: Config, codebook: Tensor, above: Tensor) -> None:
        """Start from the codebooks of both planes, [K, D] each."""
        super().__init__(config, codebook)
        width, hidden = config.above_width, config.above_hidden
        fine, coarse = exact.ACCUMULATOR_BITS, exact.ACTIVATION_BITS
        self.above_embedding = nn.Parameter(unit_embedding(above, len(above), config.above_embedding))
        found = {"above_first": exact.QATLinear(WINDOW * config.above_embedding, width, coarse, fine)}
        for number in range(config.above_blocks):
            found[f"above_spatial{number}"] = exact.QATLinear(WINDOW * width, hidden, coarse, coarse, 1.4)
            found[f"above_pointwise{number}"] = exact.QATLinear(hidden, width, coarse, fine, 0.5)
        found["above_spread"] = exact.QATLinear(width, FINER**2 * config.width, coarse, fine, 0.5)
        self.above_blocks, self.above = config.above_blocks, nn.ModuleDict(found)

    def layers(self) -> dict[str, exact.QATLinear]:
        """As in `PixelCNN.layers`."""
        above = {name: layer for name, layer in self.above.items() if isinstance(layer, exact.QATLinear)}
        return {**super().layers(), **above}

    def forward(self, codes: Tensor, above: Tensor | None = None) -> Tensor:
        """Logits of all codes of all regions, given those before and all those above."""
        if above is None:
            raise ValueError("codes without those above")
        embedded = self.embed(codes)
        coarse = F.embedding(above, exact.embedded(self.above_embedding))
        size = codes.shape[1], codes.shape[2]
        known = spread(self.layers(), self.above_blocks, FakeQuantized(), coarse, size)
        x = exact.limited(pixelcnn.masked(self.first, embedded) + known.permute(0, 3, 1, 2))
        return self.through(x, embedded)

    def arrays(self) -> dict[str, Array]:
        """As in `Network.arrays`, with the embedding of the codes above."""
        table = torch.round(exact.embedded(self.above_embedding).detach().cpu() * 2**exact.ACTIVATION_BITS)
        return {**super().arrays(), "above_embedding": table.numpy().astype(np.int8)}

    def export(self) -> ConditionalPixelCNNPrior:
        """As in `PixelCNN.export`."""
        return ConditionalPixelCNNPrior(self.arrays())

    @torch.no_grad()
    def take(self, prior: LearnedPrior) -> None:
        """As in `Network.take`."""
        table = prior.arrays.get("above_embedding")
        if table is None or table.shape != self.above_embedding.shape:
            raise ValueError("another embedding")
        super().take(prior)
        self.above_embedding.copy_(torch.from_numpy(table.astype(np.float32)) / 2**exact.ACTIVATION_BITS)


@dataclass(frozen=True, eq=False)
class ConditionalPixelCNNPrior(pixelcnn.PixelCNNPrior):
    """The network in coding.

    Attributes:
        above_plane: the coarser plane.
    """

    above_plane: str = "top"

    @property
    def above_blocks(self) -> int:
        """Residual blocks over the coarser plane."""
        return sum(name.startswith("above_spatial") for name in self.layers)

    def check(self) -> None:
        """As in `LearnedPrior.check`."""
        super().check()
        table = self.arrays.get("above_embedding", np.zeros(0))
        if table.dtype != np.int8 or table.ndim != 2 or (table == -128).any():
            raise ModelError("the embedding of codes above must be int8")
        width = self.fits("above_first", WINDOW * table.shape[1])
        for number in range(self.above_blocks):
            hidden = self.fits(f"above_spatial{number}", WINDOW * width)
            self.fits(f"above_pointwise{number}", hidden, width)
        self.fits("above_spread", width, FINER**2 * len(self.layers["first"].bias))

    def batches(self, shapes: Sequence[tuple[int, ...]]) -> list[list[int]]:
        """As in `Prior.batches`."""
        return in_order(len(shapes), REGIONS_PER_BATCH)

    def scan(self, known: Sequence[Symbols], index: int) -> ConditionalWavefront:
        """As in `LearnedPrior.scan`; the codes above are in place."""
        del index
        regions = [symbols[self.plane] for symbols in known]
        return ConditionalWavefront(self, regions, [symbols[self.above_plane] for symbols in known])

    def entered(self, neighbours: Tensor, symbols: Symbols) -> Tensor:
        """As in `PixelCNNPrior.entered`."""
        size = symbols[self.plane].shape[0], symbols[self.plane].shape[1]
        known = self.spread(symbols[self.above_plane], size)
        return exact.added(known, super().entered(neighbours, symbols))

    def spread(self, above: Codes, size: tuple[int, int]) -> Tensor:
        """What a region knows of the codes above: int32 [h, w] -> [rows * columns, C]."""
        table = torch.from_numpy(self.arrays["above_embedding"]).to(self.dtype)
        embedded = F.embedding(torch.from_numpy(above.astype(np.int64)), table)[None]
        with exact.arithmetic():
            return spread(self.layers, self.above_blocks, Integer(), embedded, size)[0].flatten(0, 1)


class ConditionalWavefront(pixelcnn.Wavefront):
    """As in `pixelcnn.Wavefront`, with what is known of the codes above added behind the first layer."""

    def __init__(
        self, prior: ConditionalPixelCNNPrior, codes: Sequence[Codes], above: Sequence[Codes]
    ) -> None:
        super().__init__(prior, codes)
        sizes = [(region.shape[0], region.shape[1]) for region in codes]
        self._widths = [width for _, width in sizes]
        self._offsets = np.cumsum([0, *(height * width for height, width in sizes)])
        known = [prior.spread(one, size) for one, size in zip(above, sizes, strict=True)]
        self._known = torch.cat(known) if known else torch.zeros(0, 1)

    def entered(self, step: Step, neighbours: Tensor) -> Tensor:
        """As in `Wavefront.entered`."""
        known = self._known.index_select(0, self._flat(step.positions))
        return exact.added(known, super().entered(step, neighbours))

    def _flat(self, positions: Sequence[Positions]) -> Tensor:
        parts = zip(positions, self._offsets[:-1], self._widths, strict=True)
        return torch.from_numpy(np.concatenate([offset + i * width + j for (i, j), offset, width in parts]))
