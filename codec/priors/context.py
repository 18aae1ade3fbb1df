"""What a latent is expected to be, given those before it: the network behind the conditional Gaussian.

Channels are cut into slices by falling variance, and the places of a slice into phases (Minnen and Singh
2020; He et al. 2021 and 2022, "ELIC"). A slice's trunk sees all slices before it, at all places; each phase
sees what the phases before it have of the slice, around its own places. The first slice, with nothing before
it, has three phases: one place in four, the one diagonally opposite, the other two; all others are
checkerboards.

    p(v) = product over slices s and phases p of N(mean_sp, sigma_sp), a function of all before

The walk is written once, for two kinds of numbers: `Reals` in training, `Integers` in coding (`exact`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from . import exact

SLICES = (16, 32, 64)
"""Channels of the first slices; the last has the rest."""

NEAR, NEARER = 2, 1
"""Places to each side that the phases of the first slice see, and those of others."""

SCALE = 8
"""Bits behind the point of what the heads give: means in standard deviations, log2 of sigma in octaves."""


@dataclass(frozen=True)
class Shape:
    """Sizes of the network.

    Attributes:
        channels: M.
        width: channels between the residual blocks; nine times it are the inputs of a layer.
        hidden: channels inside them.
        blocks: residual blocks of a slice.
        near: features of a neighbour in the same slice.
    """

    channels: int
    width: int
    hidden: int
    blocks: int
    near: int

    @property
    def slices(self) -> list[slice]:
        """Channels of each slice."""
        ends = [0]
        for size in SLICES:
            ends.append(min(ends[-1] + size, self.channels))
        ends.append(self.channels)
        return [slice(a, b) for a, b in zip(ends, ends[1:], strict=False) if a < b]

    @property
    def steps(self) -> list[tuple[int, int]]:
        """Slice and phase of each step of the walk."""
        return [(s, p) for s in range(len(self.slices)) for p in range(phases(s))]

    def layers(self) -> dict[str, tuple[int, int, int, float]]:
        """Name -> inputs, outputs, bits behind the point of its outputs, gain of the first weights."""
        width, hidden = self.width, self.hidden
        fine, coarse = exact.STREAM, exact.ACTIVATION
        found: dict[str, tuple[int, int, int, float]] = {}
        for s, part in enumerate(self.slices):
            count = part.stop - part.start
            found[f"{s}_first"] = (2 * part.start + 1, width, fine, 1.0)
            for number in range(self.blocks if s else 0):
                found[f"{s}_spatial{number}"] = (9 * width, hidden, coarse, 1.4)
                found[f"{s}_pointwise{number}"] = (hidden, width, fine, 0.5)
            near = self._near(s)
            found[f"{s}_near"] = (2 * count, near, coarse, 1.4)
            for p in range(phases(s)):
                if p:
                    found[f"{s}_around{p}"] = (near * (_window(s) ** 2 - 1), width, fine, 0.5)
                    found[f"{s}_expand{p}"] = (width, 2 * width, coarse, 1.4)
                    found[f"{s}_contract{p}"] = (2 * width, width, fine, 0.5)
                found[f"{s}_head{p}"] = (width, 2 * count, SCALE, 0.0)
        return found

    def _near(self, s: int) -> int:
        return self.near if s else self.near * (_window(1) ** 2 - 1) // (_window(0) ** 2 - 1)


def phases(s: int) -> int:
    """Phases of a slice."""
    return 2 if s else 3


@cache
def places(s: int, p: int, height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """Where the latents of a phase are in a grid, in raster order: int64 [n].

    Kept for good, since CUDA graphs read them; of all grids up to 32 x 32 they take 9 MB.
    """
    with torch.inference_mode(False):  # what is kept may be first asked for by a coder, then by a training
        return _places(s, p, height, width).to(device)


def _places(s: int, p: int, height: int, width: int) -> Tensor:
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    odd = (rows + columns) % 2
    if s:
        chosen = odd == p
    elif p < 2:
        chosen = (rows % 2 == p) & (columns % 2 == p)
    else:
        chosen = odd == 1
    return chosen.flatten().nonzero().flatten()


class Numbers(Protocol):
    """A kind of numbers that the network can be run on."""

    def activation(self, stream: Tensor) -> Tensor:
        """ReLU of a sum, in the precision that layers take."""

    def rectified(self, outputs: Tensor) -> Tensor:
        """ReLU of the outputs of a layer that are in this precision already."""

    def added(self, stream: Tensor, correction: Tensor) -> Tensor:
        """Their sum within its limits."""


class Reals:
    """Real numbers, rounded as integers will be; gradients pass."""

    def activation(self, stream: Tensor) -> Tensor:  # noqa: D102
        return exact.activated(stream)

    def rectified(self, outputs: Tensor) -> Tensor:  # noqa: D102
        return exact.activated(outputs)

    def added(self, stream: Tensor, correction: Tensor) -> Tensor:  # noqa: D102
        return exact.limited(stream + correction)


class Integers:
    """Integers, carried by floating-point numbers."""

    def activation(self, stream: Tensor) -> Tensor:  # noqa: D102
        return exact.activation(stream)

    def rectified(self, outputs: Tensor) -> Tensor:  # noqa: D102
        return outputs.clamp_(0, exact.INPUT)

    def added(self, stream: Tensor, correction: Tensor) -> Tensor:  # noqa: D102
        return exact.added(stream, correction)


class Walk:
    """One walk of the network over grids of one size, side by side.

    Maps are flat, [B h w, C]: all places of the first grid in raster order, then those of the second.

    Args:
        shape: of the network.
        layers: name -> what maps [N, I] to [N, O].
        numbers: that they are given in.
        grids: B, h, w.
        condition: [B, 1], the place on the dial as layers take it.
    """

    def __init__(
        self,
        shape: Shape,
        layers: Mapping[str, Callable[[Tensor], Tensor]],
        numbers: Numbers,
        grids: tuple[int, int, int],
        condition: Tensor,
    ) -> None:
        self.shape, self.layers, self.numbers, self.grids = shape, layers, numbers, grids
        count, height, width = grids
        self._inputs = [condition[:, None].expand(-1, height * width, -1).flatten(0, 1)]
        self._first = torch.arange(count, device=condition.device)[:, None] * (height * width)
        self._trunk = self._current = self._near = condition

    def where(self, s: int, p: int) -> Tensor:
        """Rows of the maps that a phase is about: int64 [N]."""
        inside = places(s, p, *self.grids[1:], self._first.device)
        return (self._first + inside).flatten()

    def expect(self, s: int, p: int) -> Tensor:
        """Means and logarithms of sigma for a step, side by side: [N, 2 n], in 2**-SCALE."""
        layers, numbers, where = self.layers, self.numbers, self.where(s, p)
        if p == 0:
            self._trunk = self._features(s)
        x = self._trunk.index_select(0, where)
        if p:
            window = around(self._near, self.grids, _reach(s), centre=False).index_select(0, where)
            x = numbers.added(x, layers[f"{s}_around{p}"](window))
            inner = numbers.rectified(layers[f"{s}_expand{p}"](numbers.activation(x)))
            x = numbers.added(x, layers[f"{s}_contract{p}"](inner))
        return layers[f"{s}_head{p}"](numbers.activation(x))

    def put(self, s: int, p: int, features: Tensor) -> None:
        """What the latents of a step turned out to be: [N, 2 n], as layers take them."""
        where = self.where(s, p)
        if p == 0:
            self._current = features.new_zeros(len(self._inputs[0]), features.shape[1])
        self._current = self._current.index_copy(0, where, features)
        if p == phases(s) - 1:
            self._inputs.append(self._current)
            return
        near = self.numbers.rectified(self.layers[f"{s}_near"](features))
        if p == 0:
            self._near = near.new_zeros(len(self._inputs[0]), near.shape[1])
        self._near = self._near.index_copy(0, where, near)

    def _features(self, s: int) -> Tensor:
        layers, numbers = self.layers, self.numbers
        x = layers[f"{s}_first"](torch.cat(self._inputs, 1))
        for number in range(self.shape.blocks if s else 0):
            window = around(numbers.activation(x), self.grids, 1, centre=True)
            inner = numbers.rectified(layers[f"{s}_spatial{number}"](window))
            x = numbers.added(x, layers[f"{s}_pointwise{number}"](inner))
        return x


def around(maps: Tensor, grids: tuple[int, int, int], reach: int, *, centre: bool) -> Tensor:
    """Features of all places in a square window, zero beyond the grid: [B h w, C] -> [B h w, n C]."""
    count, height, width = grids
    size = 2 * reach + 1
    padded = F.pad(maps.view(count, height, width, -1), (0, 0, reach, reach, reach, reach))
    parts = [
        padded[:, top : top + height, left : left + width]
        for top in range(size)
        for left in range(size)
        if centre or (top, left) != (reach, reach)
    ]
    return torch.cat(parts, 3).flatten(0, 2)


def layers_in_training(shape: Shape) -> torch.nn.ModuleDict:
    """The layers with fresh weights; the heads say nothing yet."""
    found: dict[str, Any] = {}
    for name, (inputs, outputs, after, gain) in shape.layers().items():
        found[name] = exact.Linear(inputs, outputs, exact.ACTIVATION, after, gain)
    return torch.nn.ModuleDict(found)


def first_channels(layers: Mapping[str, Tensor], old: Shape, new: Shape) -> dict[str, Tensor]:
    """Weights and biases of layers in training without what is about channels that another shape lacks."""
    found = {}
    for name, tensor in layers.items():
        s, _, kind = name.partition("_")
        if int(s) >= len(new.slices):
            continue
        sizes = [part.stop - part.start for part in (old.slices[int(s)], new.slices[int(s)])]
        if kind.startswith("head"):
            tensor = tensor.view(2, sizes[0], *tensor.shape[1:])[:, : sizes[1]].flatten(0, 1)
        elif kind == "near.weight":
            tensor = tensor.view(-1, 2, sizes[0])[:, :, : sizes[1]].flatten(1)
        found[name] = tensor
    return found


def _reach(s: int) -> int:
    return NEARER if s else NEAR


def _window(s: int) -> int:
    return 2 * _reach(s) + 1
