"""A PixelCNN with causal self-attention between its blocks, in integers.

    a_p = sum over q of w_pq v_q,    w_pq = softmax over q of (query_p . key_q / 4)    for each head

(Vaswani et al. 2017, eq. 1; over the codes of images Chen et al. 2018, "PixelSNAIL", and Razavi, van den
Oord, Vinyals 2019.) Position p attends to the positions q of its block of 32x32 codes that come at an earlier
step, t = column + 2 row: so the positions of one step are still coded together, and the cost of a position is
bounded. Queries come from features and coordinates; keys and values also from the code itself, which is known
by then.

Scores are sums of products of activations, softmax is a fixed-point table (`exact.shares`), and the sum over
the values stays below 2**19: all of it is exact in float32, in whatever order it is summed.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import ModelError
from . import exact, pixelcnn
from .base import Array, Codes, Positions, Step, Symbols, in_order, slanted
from .settings import setting

BLOCK = 32
"""Rows and columns of the blocks that attention stays within."""

COORDINATES = 2
"""Channels that tell a position's row and column in its block: 4 n - 62, within -62..62."""

FORBIDDEN = -1e6
"""Score of a position that is not attended to."""

GROUP = 64
"""Positions that attend together where all codes are known: their scores stay in the cache."""

REGIONS_PER_BATCH = 32
"""Regions side by side, at most: keys and values of each take several megabytes."""


@dataclass(frozen=True)
class Config(pixelcnn.Config):
    """Settings of a PixelCNN with attention; no layer has more than 1,024 inputs.

    Attributes:
        layers: of attention, evenly between the residual blocks; fewer than there are blocks.
        heads: of each layer.
        key: channels of a query and a key, of each head.
        value: channels of a value, of each head.
    """

    layers: int = setting(2, low=0, high=99)
    heads: int = setting(4, low=1, high=64)
    key: int = setting(16, low=1, high=64)
    value: int = setting(32, low=1, high=64)


class AttentivePixelCNN(pixelcnn.PixelCNN):
    """The network in training: codes int64 [B, h, w] -> logits [B, K, h, w] in nats."""

    def __init__(self, config: Config, codebook: Tensor) -> None:
        """Start from a codebook, [K, D]."""
        super().__init__(config, codebook)
        self.heads, width, coarse = config.heads, config.width, exact.ACTIVATION_BITS
        keys, values = config.heads * config.key, config.heads * config.value
        known = width + config.embedding
        found: dict[str, exact.QATLinear] = {}
        for n in {(a + 1) * config.blocks // (config.layers + 1) for a in range(config.layers)}:
            found[f"{n}_query"] = exact.QATLinear(width + COORDINATES, keys, coarse, coarse)
            found[f"{n}_key"] = exact.QATLinear(known + COORDINATES, keys, coarse, coarse)
            found[f"{n}_value"] = exact.QATLinear(known, values, coarse, coarse)
            found[f"{n}_output"] = exact.QATLinear(values, width, coarse, exact.ACCUMULATOR_BITS, 0.5)
        self.attention = nn.ModuleDict(found)

    def layers(self) -> dict[str, exact.QATLinear]:
        """As in `PixelCNN.layers`: in coding "2_query" is "2.query"."""
        found = {
            name.replace("_", "."): layer
            for name, layer in self.attention.items()
            if isinstance(layer, exact.QATLinear)
        }
        return {**super().layers(), **found}

    def before_block(self, number: int, x: Tensor, embedded: Tensor) -> Tensor:
        """As in `PixelCNN.before_block`: attention, block of positions by block."""
        if f"{number}_query" not in self.attention:
            return x
        features, height, width = exact.activated(x), x.shape[2], x.shape[3]
        rows = []
        for top in range(0, height, BLOCK):
            row = []
            for left in range(0, width, BLOCK):
                part = (..., slice(top, top + BLOCK), slice(left, left + BLOCK))
                row.append(self._attended(number, features[part], embedded[part]))
            rows.append(torch.cat(row, 3))
        return exact.limited(x + torch.cat(rows, 2))

    def _attended(self, number: int, features: Tensor, embedded: Tensor) -> Tensor:
        """Attention in one block: [B, C, h, w], [B, E, h, w] -> [B, C, h, w]."""
        count, _, height, width = features.shape
        places, before = _grid(height, width, features.device)
        places = places.expand(count, -1, -1)
        maps, codes = (x.flatten(2).transpose(1, 2) for x in (features, embedded))

        def heads(kind: str, *inputs: Tensor) -> Tensor:
            found = exact.activated(self.attention[f"{number}_{kind}"](torch.cat(inputs, 2)), -exact.INPUT)
            return found.view(count, height * width, self.heads, -1).transpose(1, 2)

        query, key = heads("query", maps, places), heads("key", maps, codes, places)
        mixed = attend(query, key, heads("value", maps, codes), before)
        mixed = exact.activated(mixed.transpose(1, 2).flatten(2), -exact.INPUT)
        output: Tensor = self.attention[f"{number}_output"](mixed)
        return output.transpose(1, 2).view(count, -1, height, width)

    def arrays(self) -> dict[str, Array]:
        """As in `Network.arrays`, with the number of heads."""
        return {**super().arrays(), "heads": np.array([self.heads], np.int32)}

    def export(self) -> AttentivePixelCNNPrior:
        """As in `PixelCNN.export`."""
        return AttentivePixelCNNPrior(self.arrays())


def attend(query: Tensor, key: Tensor, value: Tensor, before: Tensor) -> Tensor:
    """Attention in training: softmax while gradients are taken, the weights of coding in validation.

    The two differ by less than activations are rounded, and a step of the training is five times as fast.

    Args:
        query: [B, H, N, D], multiples of 2**-ACTIVATION_BITS.
        key: the same.
        value: [B, H, N, V].
        before: bool [N, N], which positions (second axis) a position attends to; zero where there are none.

    Returns:
        [B, H, N, V], before rounding.
    """
    if not torch.is_grad_enabled():
        scores = (query @ key.transpose(-1, -2)).masked_fill_(~before, FORBIDDEN)
        return (exact.shares(scores * 2.0 ** (2 * exact.ACTIVATION_BITS)) * before / exact.SHARES) @ value
    # The fused kernel wants vectors of one size.
    size = max(query.shape[-1], value.shape[-1])
    query, key, padded = (F.pad(x, (0, size - x.shape[-1])) for x in (query, key, value))
    mask = torch.zeros_like(before, dtype=query.dtype).masked_fill_(~before, FORBIDDEN)
    scale = 2.0 ** (2 * exact.ACTIVATION_BITS - exact.SCORE_BITS - 4)
    mixed = F.scaled_dot_product_attention(query, key, padded, attn_mask=mask, scale=scale)
    return mixed[..., : value.shape[-1]] * before.any(1)[:, None]


class AttentivePixelCNNPrior(pixelcnn.PixelCNNPrior):
    """The network in coding."""

    @property
    def heads(self) -> int:
        """Of each layer of attention."""
        return int(self.arrays["heads"][0])

    def check(self) -> None:
        """As in `LearnedPrior.check`."""
        super().check()
        heads = self.arrays.get("heads", np.zeros(0))
        if heads.dtype != np.int32 or heads.shape != (1,) or heads[0] < 1:
            raise ModelError("the heads of a prior must be one int32")
        width, embedding = len(self.layers["first"].bias), self.arrays["embedding"].shape[1]
        for name in self.layers:
            number, _, kind = name.partition(".")
            if kind != "query":
                continue
            if not number.isdigit() or int(number) >= self.blocks:
                raise ModelError(f"{name} of a prior of {self.blocks} blocks")
            keys = self.fits(name, width + COORDINATES)
            self.fits(f"{number}.key", width + embedding + COORDINATES, keys)
            values = self.fits(f"{number}.value", width + embedding)
            self.fits(f"{number}.output", values, width)
            if keys % heads[0] or values % heads[0]:
                raise ModelError(f"{name} of a prior does not split into {heads[0]} heads")
            if keys // int(heads[0]) * exact.INPUT**2 >= exact.EXACT:
                raise ModelError(f"{name} of a prior is beyond what is exact in float32")

    def before_block(self, number: int, x: Tensor, embedded: Tensor, shape: tuple[int, int]) -> Tensor:
        """As in `PixelCNNPrior.before_block`: attention, block of positions by block."""
        if f"{number}.query" not in self.layers:
            return x
        height, width = shape
        found = torch.empty_like(x).view(height, width, -1)
        maps, codes = exact.activation(x).view(height, width, -1), embedded.view(height, width, -1)
        for top in range(0, height, BLOCK):
            for left in range(0, width, BLOCK):
                part = slice(top, top + BLOCK), slice(left, left + BLOCK)
                found[part] = self._attended(number, maps[part], codes[part])
        return exact.added(x, found.view(x.shape))

    def _attended(self, number: int, features: Tensor, embedded: Tensor) -> Tensor:
        """Attention in one block of a region: [h, w, C], [h, w, E] -> [h, w, C]."""
        height, width, _ = features.shape
        order = slanted((height, width), 2)
        rows, columns = (torch.from_numpy(axis) for axis in np.divmod(order, width))
        time, places = columns + 2 * rows, _coordinates(rows, columns).to(features.dtype)
        maps, codes = features[rows, columns], embedded[rows, columns]

        def heads(kind: str, *inputs: Tensor) -> Tensor:
            return _by_head(self.layers[f"{number}.{kind}"](torch.cat(inputs, 1)), self.heads)

        queries, values = heads("query", maps, places), heads("value", maps, codes)
        keys, parts = heads("key", maps, codes, places).transpose(1, 2), []
        for first in range(0, len(time), GROUP):
            group, last = slice(first, first + GROUP), first + GROUP
            # Positions earlier than all of the group need no mask.
            some = slice(int(torch.searchsorted(time, time[first])), last)
            before = time[some] < time[group, None]
            scores = exact.product(queries[:, group], keys[..., :last])
            scores[..., some].masked_fill_(~before, FORBIDDEN * 2.0 ** (2 * exact.ACTIVATION_BITS))
            shares = exact.shares(scores)
            shares[..., some].mul_(before)
            parts.append(_mixed(shares, values[:, :last]))
        found = torch.empty_like(features).flatten(0, 1)
        found[torch.from_numpy(order)] = self.layers[f"{number}.output"](torch.cat(parts))
        return found.view(features.shape)

    def batches(self, shapes: Sequence[tuple[int, ...]]) -> list[list[int]]:
        """As in `Prior.batches`."""
        return in_order(len(shapes), REGIONS_PER_BATCH)

    def scan(self, known: Sequence[Symbols], index: int) -> AttentiveWavefront:
        """As in `LearnedPrior.scan`."""
        del index
        return AttentiveWavefront(self, [symbols[self.plane] for symbols in known])


@dataclass
class _Alike:
    """Blocks of one place in their regions and one shape: coded together, step by step.

    Attributes:
        count: number of blocks.
        size: positions of each.
        known: positions of each that are coded.
    """

    count: int
    size: int
    known: int = 0


_Group = tuple[int, Tensor]
"""Which of the kinds of blocks, and rows of their positions among those of a step, int64 [blocks, n]."""


class _Memory:
    """Keys and values of the coded positions of a layer, by block, in the order of coding."""

    def __init__(
        self, layers: Mapping[str, exact.IntegerLinear], heads: int, alike: Sequence[_Alike]
    ) -> None:
        self.layers, self.heads, self.alike = layers, heads, alike
        self.features: Tensor | None = None
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    def put(self, embedded: Tensor, places: Tensor, groups: Sequence[_Group]) -> None:
        """Keep the positions of the step before, whose codes are known now."""
        if self.features is None:
            return
        known = torch.cat((self.features, embedded), 1)
        keys, values = self.layers["key"](torch.cat((known, places), 1)), self.layers["value"](known)
        for number, rows in groups:
            blocks, parts = self.alike[number], [self._split(found, rows) for found in (keys, values)]
            if number not in self._kept:
                # Room for all of a block: to append would copy them at every step.
                room = [part.new_empty(*part.shape[:2], blocks.size, part.shape[3]) for part in parts]
                self._kept[number] = room[0], room[1]
            for kept, part in zip(self._kept[number], parts, strict=True):
                kept[:, :, blocks.known : blocks.known + rows.shape[1]] = part

    def attend(self, features: Tensor, places: Tensor, groups: Sequence[_Group]) -> Tensor:
        """What the layer adds at the positions of a step: [N, C] -> [N, C]."""
        self.features = features
        queries = self.layers["query"](torch.cat((features, places), 1))
        mixed = features.new_zeros(len(features), self.layers["output"].weight.shape[1])
        for number, rows in groups:
            if count := self.alike[number].known:
                keys, values = (kept[:, :, :count] for kept in self._kept[number])
                scores = exact.product(self._split(queries, rows), keys.transpose(2, 3))
                mixed.index_copy_(0, rows.flatten(), _mixed(exact.shares(scores), values).flatten(0, 1))
        return self.layers["output"](mixed)

    def _split(self, outputs: Tensor, rows: Tensor) -> Tensor:
        """Activations of rows [B, n] by head: [N, H D] -> [B, H, n, D]."""
        return _by_head(outputs.index_select(0, rows.flatten()).view(*rows.shape, -1), self.heads)


def _by_head(outputs: Tensor, heads: int) -> Tensor:
    """Activations by head: [..., N, H D] -> [..., H, N, D]."""
    found = outputs.clamp_(-exact.INPUT, exact.INPUT)
    return found.view(*found.shape[:-1], heads, -1).transpose(-3, -2)


def _mixed(weights: Tensor, values: Tensor) -> Tensor:
    """Weighted means: [..., H, N, M], [..., H, M, V] -> [..., N, H V]."""
    sums = exact.product(weights, values)
    means = sums.add_(exact.SHARES // 2).mul_(1 / exact.SHARES).floor_()
    return means.transpose(-3, -2).flatten(-2)


class AttentiveWavefront(pixelcnn.Wavefront):
    """As in `pixelcnn.Wavefront`, with attention before some of the blocks."""

    def __init__(self, prior: AttentivePixelCNNPrior, codes: Sequence[Codes]) -> None:
        super().__init__(prior, codes)
        kinds = ("query", "key", "value", "output")
        self._numbers, self._alike = _numbered([region.shape[:2] for region in codes])
        self._first = np.cumsum([0, *(blocks.count for blocks in self._alike)])
        self._of_step: tuple[int, list[_Group]] = -1, []
        self.memories = {
            n: _Memory({kind: prior.layers[f"{n}.{kind}"] for kind in kinds}, prior.heads, self._alike)
            for n in range(prior.blocks)
            if f"{n}.query" in prior.layers
        }

    def take(self, positions: Sequence[Positions], step: int, embedded: Tensor) -> None:
        """As in `Wavefront.take`: keys and values are kept."""
        super().take(positions, step, embedded)
        places, groups = self._coordinates(positions), self._groups(step, positions)
        for memory in self.memories.values():
            memory.put(embedded, places, groups)
        for number, rows in groups:
            self._alike[number].known += rows.shape[1]

    def before_block(self, number: int, x: Tensor, step: Step) -> Tensor:
        """As in `Wavefront.before_block`."""
        if number not in self.memories:
            return x
        places, groups = self._coordinates(step.positions), self._groups(step.number, step.positions)
        return exact.added(x, self.memories[number].attend(exact.activation(x), places, groups))

    def _coordinates(self, positions: Sequence[Positions]) -> Tensor:
        """Coordinates of the positions of all regions, [N, COORDINATES]."""
        rows, columns = (torch.from_numpy(np.concatenate(axis)) for axis in zip(*positions, strict=True))
        return _coordinates(rows, columns).to(self.prior.dtype)

    def _groups(self, step: int, positions: Sequence[Positions]) -> list[_Group]:
        """Which rows of the positions of a step lie in which blocks."""
        if self._of_step[0] != step:
            parts = zip(positions, self._numbers, strict=True)
            numbers = np.concatenate([of[rows // BLOCK, columns // BLOCK] for (rows, columns), of in parts])
            order = np.argsort(numbers, kind="stable")
            borders = itertools.pairwise(np.searchsorted(numbers[order], self._first))
            groups = [
                (number, torch.from_numpy(order[start:end].reshape(self._alike[number].count, -1)))
                for number, (start, end) in enumerate(borders)
                if end > start
            ]
            self._of_step = step, groups
        return self._of_step[1]


def _numbered(shapes: Sequence[tuple[int, ...]]) -> tuple[list[NDArray[np.intp]], list[_Alike]]:
    """Number the blocks of regions, so that those that are alike follow each other.

    Returns:
        The number of each block, [blocks down, blocks across] of each region, and the kinds of blocks.
    """
    numbers = [np.zeros([-(-side // BLOCK) for side in shape], np.intp) for shape in shapes]
    kinds: dict[tuple[int, ...], list[int]] = {}
    for region, (of, (height, width)) in enumerate(zip(numbers, shapes, strict=True)):
        for row, column in np.ndindex(of.shape):
            sides = min(BLOCK, height - BLOCK * row), min(BLOCK, width - BLOCK * column)
            kinds.setdefault((row, column, *sides), []).append(region)
    next_number = itertools.count()
    for (row, column, *_), regions in kinds.items():
        for region in regions:
            numbers[region][row, column] = next(next_number)
    return numbers, [_Alike(len(regions), kind[2] * kind[3]) for kind, regions in kinds.items()]


@cache
def _grid(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """A block in training: coordinates [N, COORDINATES] in activations, and who comes before whom, [N, N].

    Kept for good, since CUDA graphs read them: a megabyte for each shape of at most BLOCK x BLOCK.
    """
    with torch.inference_mode(False):
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        places = (_coordinates(rows, columns) * 2.0**-exact.ACTIVATION_BITS).flatten(0, 1)
        time = (columns + 2 * rows).flatten()
        return places.to(device), (time[None, :] < time[:, None]).to(device)


def _coordinates(rows: Tensor, columns: Tensor) -> Tensor:
    """Row and column in their block, 4 n - 62: [...] -> float32 [..., COORDINATES]."""
    return torch.stack((rows % BLOCK, columns % BLOCK), -1).float() * 4 - 62
