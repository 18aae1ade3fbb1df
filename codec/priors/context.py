"""Context model: mean and scale of each latent, given the latents already coded.

Channels are split into slices by decreasing variance, and the positions of a slice into phases (Minnen and
Singh 2020; He et al. 2021 and 2022, "ELIC"). The inputs of a slice's trunk are all slices before it, at all
positions; those of a phase are the latents of the phases before it in the slice, around its own positions.
The first slice begins with a coarse lattice of positions, and two phases at a time make it twice as fine: the
centres of its squares, and the middles of their sides. The phases of all others are checkerboards.

    p(v) = product over slices s and phases p of p(v_sp | mean_sp, sigma_sp), functions of all before

The network is defined once, for two kinds of arithmetic: `FakeQuantized` in training, `Integer` in coding
(`exact`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from . import exact

SLICES = (16, 32, 64)
"""Channels of the first slices; the last slice has the remaining channels."""

RADIUS_FIRST, RADIUS = 2, 1
"""Radius of the spatial context in the first slice, and in the others."""

HEAD_BITS = 8
"""Fractional bits of the outputs of the heads: means in standard deviations, log2 of sigma in octaves."""


@dataclass(frozen=True)
class Shape:
    """Sizes of the context network.

    Attributes:
        channels: M.
        width: channels between the residual blocks; their 3x3 layers have nine times as many inputs.
        hidden: channels inside the residual blocks.
        blocks: residual blocks of a slice.
        near: features of each neighbour in the same slice.
        levels: n, so that the first phase of the first slice is one position in 4**n.
    """

    channels: int
    width: int
    hidden: int
    blocks: int
    near: int
    levels: int = 1

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
        """Slice and phase of each step."""
        return [(s, p) for s in range(len(self.slices)) for p in range(self.phases(s))]

    def phases(self, s: int) -> int:
        """Return the number of phases of a slice."""
        return 2 if s else 1 + 2 * self.levels

    def spacing(self, s: int, p: int) -> int:
        """Return the distance of neighbouring positions after a phase: a power of two."""
        return 1 if s else 1 << max(self.levels - (p + 1) // 2, 0)

    def layers(self) -> dict[str, tuple[int, int, int, float]]:
        """Return inputs, outputs, fractional bits of the outputs and gain of the first weights, by layer."""
        width, hidden = self.width, self.hidden
        fine, coarse = exact.ACCUMULATOR_BITS, exact.ACTIVATION_BITS
        found: dict[str, tuple[int, int, int, float]] = {}
        for s, part in enumerate(self.slices):
            count = part.stop - part.start
            found[f"{s}_first"] = (2 * part.start + 1, width, fine, 1.0)
            for number in range(self.blocks if s else 0):
                found[f"{s}_spatial{number}"] = (9 * width, hidden, coarse, 1.4)
                found[f"{s}_pointwise{number}"] = (hidden, width, fine, 0.5)
            spatial = self._spatial(s)
            found[f"{s}_near"] = (2 * count, spatial, coarse, 1.4)
            for p in range(self.phases(s)):
                if p:
                    found[f"{s}_around{p}"] = (spatial * (_window(s) ** 2 - 1), width, fine, 0.5)
                    found[f"{s}_expand{p}"] = (width, 2 * width, coarse, 1.4)
                    found[f"{s}_contract{p}"] = (2 * width, width, fine, 0.5)
                found[f"{s}_head{p}"] = (width, 2 * count, HEAD_BITS, 0.0)
        return found

    def _spatial(self, s: int) -> int:
        return self.near if s else self.near * (_window(1) ** 2 - 1) // (_window(0) ** 2 - 1)


def phase_positions(
    shape: Shape, s: int, p: int, height: int, width: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Return the positions of a phase in a flat grid, in raster order: int64 [n]."""
    if s:
        return _checkerboard(p, height, width, device)
    return _lattice(shape.spacing(s, p), p, height, width, device)


# They are cached for good, since CUDA graphs read them; those of all grids up to 32 x 32 take 9 MB. Coding
# may fill the cache, and training then needs ordinary tensors.


@cache
def _checkerboard(p: int, height: int, width: int, device: torch.device | str) -> Tensor:
    with torch.inference_mode(False):
        rows, columns = torch.arange(height)[:, None], torch.arange(width)
        return ((rows + columns) % 2 == p).flatten().nonzero().flatten().to(device)


@cache
def _lattice(spacing: int, p: int, height: int, width: int, device: torch.device | str) -> Tensor:
    with torch.inference_mode(False):
        rows, columns = torch.arange(height)[:, None], torch.arange(width)
        chosen = (rows % spacing == 0) & (columns % spacing == 0)
        rows, columns = rows // spacing % 2, columns // spacing % 2
        if p:
            chosen = chosen & ((rows == 1) & (columns == 1) if p % 2 else rows != columns)
        return chosen.flatten().nonzero().flatten().to(device)


class Arithmetic(Protocol):
    """The arithmetic of the network."""

    def activation(self, accumulator: Tensor) -> Tensor:
        """Apply ReLU to an accumulator, and round to the precision of activations."""

    def rectified(self, outputs: Tensor) -> Tensor:
        """Apply ReLU to outputs of a layer that have the precision of activations already."""

    def added(self, accumulator: Tensor, correction: Tensor) -> Tensor:
        """Add a correction to an accumulator, within its limits."""


class FakeQuantized:
    """Real numbers, rounded as in coding; gradients pass straight through."""

    def activation(self, accumulator: Tensor) -> Tensor:  # noqa: D102
        return exact.activated(accumulator)

    def rectified(self, outputs: Tensor) -> Tensor:  # noqa: D102
        return exact.activated(outputs)

    def added(self, accumulator: Tensor, correction: Tensor) -> Tensor:  # noqa: D102
        return exact.limited(accumulator + correction)


class Integer:
    """Integers, computed in floating point."""

    def activation(self, accumulator: Tensor) -> Tensor:  # noqa: D102
        return exact.activation(accumulator)

    def rectified(self, outputs: Tensor) -> Tensor:  # noqa: D102
        return outputs.clamp_(0, exact.INPUT)

    def added(self, accumulator: Tensor, correction: Tensor) -> Tensor:  # noqa: D102
        return exact.added(accumulator, correction)


class ContextModel:
    """One pass of the network over grids of one size, side by side, step by step.

    Maps are flat, [B h w, C]: all positions of the first grid in raster order, then those of the second.

    Args:
        shape: of the network.
        layers: by name, each maps [N, I] to [N, O].
        arithmetic: of training, or of coding.
        grids: B, h, w.
        condition: [B, 1], the quality index, scaled as an input of layers.
        parts: int64 [B, h, w], the number of each position's part: positions of other parts count as beyond
            the grid; None: all positions are of one part.
    """

    def __init__(
        self,
        shape: Shape,
        layers: Mapping[str, Callable[[Tensor], Tensor]],
        arithmetic: Arithmetic,
        grids: tuple[int, int, int],
        condition: Tensor,
        parts: Tensor | None = None,
    ) -> None:
        self.shape, self.layers, self.arithmetic, self.grids = shape, layers, arithmetic, grids
        self._parts = parts
        count, height, width = grids
        self._inputs = [condition[:, None].expand(-1, height * width, -1).flatten(0, 1)]
        self._first = torch.arange(count, device=condition.device)[:, None] * (height * width)
        self._trunk = self._current = self._spatial = condition

    def grid_positions(self, s: int, p: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return rows and columns of the positions of a phase in each grid."""
        width = max(self.grids[2], 1)
        rows, columns = np.divmod(phase_positions(self.shape, s, p, *self.grids[1:]).numpy(), width)
        return rows, columns

    def positions(self, s: int, p: int) -> Tensor:
        """Return the rows of the maps at the positions of a phase: int64 [N]."""
        inside = phase_positions(self.shape, s, p, *self.grids[1:], self._first.device)
        return (self._first + inside).flatten()

    def params(self, s: int, p: int) -> Tensor:
        """Compute means and log2 of sigma for a step: [N, 2 n], in 2**-HEAD_BITS."""
        layers, arithmetic, positions = self.layers, self.arithmetic, self.positions(s, p)
        if p == 0:
            self._trunk = self._features(s)
        x = self._trunk.index_select(0, positions)
        if p:
            window = self._around(self._spatial, positions, _radius(s), self.shape.spacing(s, p))
            x = arithmetic.added(x, layers[f"{s}_around{p}"](window))
            inner = arithmetic.rectified(layers[f"{s}_expand{p}"](arithmetic.activation(x)))
            x = arithmetic.added(x, layers[f"{s}_contract{p}"](inner))
        return layers[f"{s}_head{p}"](arithmetic.activation(x))

    def update(self, s: int, p: int, features: Tensor) -> None:
        """Add the features of the latents of a step, [N, 2 n], to the context of later steps."""
        positions = self.positions(s, p)
        if p == 0:
            self._current = features.new_zeros(len(self._inputs[0]), features.shape[1])
        self._current = self._current.index_copy(0, positions, features)
        if p == self.shape.phases(s) - 1:
            self._inputs.append(self._current)
            return
        spatial = self.arithmetic.rectified(self.layers[f"{s}_near"](features))
        if p == 0:
            self._spatial = spatial.new_zeros(len(self._inputs[0]), spatial.shape[1])
        self._spatial = self._spatial.index_copy(0, positions, spatial)

    def _features(self, s: int) -> Tensor:
        layers, arithmetic = self.layers, self.arithmetic
        x = layers[f"{s}_first"](torch.cat(self._inputs, 1))
        for number in range(self.shape.blocks if s else 0):
            window = self._context(arithmetic.activation(x), 1)
            inner = arithmetic.rectified(layers[f"{s}_spatial{number}"](window))
            x = arithmetic.added(x, layers[f"{s}_pointwise{number}"](inner))
        return x

    def _context(self, maps: Tensor, radius: int) -> Tensor:
        """Gather features in a square window, zero beyond the part of each position: as `spatial_context`."""
        window = spatial_context(maps, self.grids, radius)
        if self._parts is None:
            return window
        own = self._parts.flatten()[:, None] + 1
        inside = spatial_context(own, self.grids, radius) == own
        return (window.view(*inside.shape, -1) * inside[:, :, None]).flatten(1)

    def _around(self, maps: Tensor, positions: Tensor, radius: int, spacing: int) -> Tensor:
        """Gather features around some positions, zero beyond the part of each: [B h w, C] -> [N, n C].

        Args:
            maps: [B h w, C].
            positions: rows of them, int64 [N].
            radius: of the square window, in units of the spacing; its middle is left out.
            spacing: distance of the positions of the window.
        """
        count, height, width = self.grids
        reach = radius * spacing
        across = width + 2 * reach
        grid, inside = positions // max(height * width, 1), positions % max(height * width, 1)
        corner = (grid * (height + 2 * reach) + inside // max(width, 1)) * across + inside % max(width, 1)
        side = spacing * torch.arange(2 * radius + 1, device=corner.device)
        offsets = (side[:, None] * across + side).flatten()
        middle = len(offsets) // 2
        rows = corner[:, None] + torch.cat((offsets[:middle], offsets[middle + 1 :]))

        def gathered(found: Tensor) -> Tensor:
            padded = F.pad(found.view(count, height, width, -1), (0, 0, reach, reach, reach, reach))
            return padded.flatten(0, 2).index_select(0, rows.flatten()).view(*rows.shape, padded.shape[3])

        window = gathered(maps)
        if self._parts is not None:
            own = self._parts.flatten()[:, None] + 1
            window = window * (gathered(own) == own.index_select(0, positions)[:, None])
        return window.flatten(1)


def spatial_context(maps: Tensor, grids: tuple[int, int, int], radius: int) -> Tensor:
    """Gather features in a square window, zero beyond the grid: [B h w, C] -> [B h w, n C]."""
    count, height, width = grids
    size = 2 * radius + 1
    padded = F.pad(maps.view(count, height, width, -1), (0, 0, radius, radius, radius, radius))
    parts = [
        padded[:, top : top + height, left : left + width] for top in range(size) for left in range(size)
    ]
    return torch.cat(parts, 3).flatten(0, 2)


def features(values: Tensor, log2_gains: Tensor) -> Tensor:
    """Compute the features of latents in the context model: divided by their deviation, and compressed.

    Args:
        values: latents in steps, [N, n].
        log2_gains: log2 of the ratio of deviation to step.

    Returns:
        [N, 2 n].
    """
    return exact.embedded(torch.cat((values * torch.exp2(-log2_gains), torch.asinh(values)), 1))


def condition(index: Tensor) -> Tensor:
    """Scale the quality index to the condition of the context model: [B] -> [B, 1], in sixteenths."""
    scaled: Tensor = torch.floor((index - 128) / 2)[:, None] / 2**exact.ACTIVATION_BITS
    return scaled


def layers_in_training(shape: Shape) -> torch.nn.ModuleDict:
    """Return the layers with fresh weights, zero in the heads."""
    found: dict[str, torch.nn.Module] = {}
    for name, (inputs, outputs, after, gain) in shape.layers().items():
        found[name] = exact.QATLinear(inputs, outputs, exact.ACTIVATION_BITS, after, gain)
    return torch.nn.ModuleDict(found)


def fitted(layers: Mapping[str, Tensor], old: Shape, new: Shape) -> dict[str, Tensor]:
    """Return the weights of layers in training for a shape of fewer channels or more levels.

    The finest phases keep their weights, and coarser ones start with those of the coarsest that there are:
    neighbours at twice the distance differ alike, but for more.
    """
    found = {}
    for name in new.layers():
        for part in ("weight", "bias"):
            known = _before(name, old, new)
            found[f"{name}.{part}"] = _first_channels(f"{known}.{part}", layers[f"{known}.{part}"], old, new)
    return found


def step_before(step: tuple[int, int], old: Shape, new: Shape) -> tuple[int, int]:
    """Return the slice and phase, of a shape of fewer levels, whose weights a step starts with."""
    s, p = step
    added = 2 * (new.levels - old.levels)
    if s or not p or not added:
        return step
    return s, p - added if p > added else 2 - p % 2


def _before(name: str, old: Shape, new: Shape) -> str:
    kind = name.rstrip("0123456789")
    if kind not in ("0_around", "0_expand", "0_contract", "0_head"):
        return name
    _, phase = step_before((0, int(name.removeprefix(kind))), old, new)
    return f"{kind}{phase}"


def _first_channels(name: str, tensor: Tensor, old: Shape, new: Shape) -> Tensor:
    s, _, kind = name.partition("_")
    sizes = [part.stop - part.start for part in (old.slices[int(s)], new.slices[int(s)])]
    if kind.startswith("head"):
        return tensor.view(2, sizes[0], *tensor.shape[1:])[:, : sizes[1]].flatten(0, 1)
    if kind == "near.weight":
        return tensor.view(-1, 2, sizes[0])[:, :, : sizes[1]].flatten(1)
    return tensor


def _radius(s: int) -> int:
    return RADIUS if s else RADIUS_FIRST


def _window(s: int) -> int:
    return 2 * _radius(s) + 1
