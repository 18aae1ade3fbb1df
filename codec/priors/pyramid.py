"""Prior of pixels: an image from coarse to fine, each pixel given all coarser ones, in integers.

Every second pixel along each axis is a coarser image, coded first (Cao, Wu, Krahenbuhl 2020, "Lossless image
compression through super-resolution"). The pixels between follow in three phases, each given those before it:

    e o     even rows, even columns: known       odd, odd        phase "oo", between four known diagonally
    o o     (interlacing, as in Adam7 and FLIF)  even, odd       phase "eo", between four at its sides
                                                 odd, even       phase "oe", likewise

All pixels of a phase are coded together. A convolutional network over the known pixels gives features of
every position; for each colour in turn, green first, a small network of them and of the colours known there
corrects the mean of the four neighbours, and gives a scale and a tail (`logistic`).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ModelError
from . import exact, logistic
from .base import Array, Prior, Step, Symbols
from .exact_convolutions import INPUT, ZERO, Carrier, IntegerConv2d, best_carrier, signed
from .gaussian_tables import LATENT_UNIT
from .logistic import Logistic

PREFIX = "pyramid."
"""Prefix of the names of its arrays in a weights file."""

PLANE = "pixels"

START = 8
"""Largest side of the image that the pyramid begins with."""

START_SCALE = 35
"""Scale of the pixels of that image, around MIDDLE."""

MIDDLE = 128
"""Middle of the levels: what the networks take is less by it."""

PHASES = ("oo", "eo", "oe")
"""Rows and columns, even or odd, of the pixels of a phase."""

ORDER = (1, 0, 2)
"""Colours in coding order: green, red, blue."""

SETS = ("fine", "coarse")
"""Networks of the finest level, and of all others."""

BORDER = 2
"""Pixels around a position that the first layer sees, in each plane."""

ACTIVATION, OUTPUT_BITS = 4, 6
"""Fractional bits of the inputs of layers, and of outputs."""

LARGEST = 508
"""Largest difference of a pixel from the mean around it, in fourths of a level."""

ERROR_UNITS = 4, 1
"""An error of a colour that is known enters a layer twice: in units of which so many are a level."""

SCALE_UNITS, SCALE_MIDDLE = 8, 20
"""Units of an output per scale, and the scale of 0."""

TAIL_UNITS, TAIL_MIDDLE = 32, 1
"""Units of an output per tail, and the tail of 0."""

STRIP = 1 << 16
"""Positions whose features are computed together."""


@dataclass(frozen=True)
class Shape:
    """Size of the networks.

    Attributes:
        width: channels of features.
        layers: 3x3 layers behind the first one.
        hidden: channels of the networks of each colour.
    """

    width: int
    layers: int
    hidden: int

    def sizes(self) -> dict[str, tuple[int, int, int]]:
        """Return outputs, inputs and side of the kernel of every layer."""
        found = {}
        for part in (f"{one}.{phase}" for one in SETS for phase in PHASES):
            for name, outputs in (("linear", 3), ("first", self.width)):
                found[f"{part}.{name}"] = outputs, 3 * (1 + PHASES.index(part[-2:])), 2 * BORDER + 1
            for number in range(self.layers):
                found[f"{part}.body{number}"] = self.width, self.width, 3
            for known in range(len(ORDER)):
                found[f"{part}.hidden{known}"] = self.hidden, 2 * known + 2 * self.width, 1
                found[f"{part}.out{known}"] = 3, self.hidden, 1
        return found

    def before(self, name: str) -> list[int]:
        """Return the fractional bits of the inputs of a layer, of each channel."""
        return [ACTIVATION] * self.sizes()[name][1]

    @staticmethod
    def padding(name: str) -> int:
        """Return the rows and columns of zeros around the inputs of a layer."""
        return int(".body" in name)

    @staticmethod
    def zeros(name: str) -> list[float]:
        """Return the integers that stand for zero in the first inputs of a layer: errors of known colours."""
        return [float(ZERO)] * 2 * int(name[-1]) if name[:-1].endswith("hidden") else []

    @staticmethod
    def after(name: str) -> int:
        """Return the fractional bits of the outputs of a layer."""
        return OUTPUT_BITS if name.endswith("linear") or name[:-1].endswith("out") else ACTIVATION

    @staticmethod
    def largest(name: str) -> int:
        """Return the largest absolute value of an input of a layer."""
        return LARGEST if name.endswith(("linear", "first")) else INPUT


def level_count(height: int, width: int) -> int:
    """Return the number of levels of the pyramid, besides the image it begins with."""
    return max(-(-max(height, width) // START) - 1, 0).bit_length()


def part(level: int, phase: str) -> tuple[slice, slice]:
    """Return the rows and columns of a phase, or of "ee", at a level, 0 the finest."""
    step = 1 << level
    rows, columns = (slice(step if axis == "o" else 0, None, 2 * step) for axis in phase)
    return rows, columns


def extended(plane: Tensor, first: Tensor) -> Tensor:
    """Extend a plane to the size of the first one by its last row and column; an empty one is the first.

    The first plane, "ee", has at most one row and one column more.
    """
    if not plane.numel():
        return first
    more = [first.shape[-1] - plane.shape[-1], first.shape[-2] - plane.shape[-2]]
    return F.pad(plane, (0, more[0], 0, more[1]), mode="replicate") if any(more) else plane


def around(planes: Sequence[Tensor]) -> Tensor:
    """Sum the four pixels next to each position of the phase after the planes: [B, 3, h, w] each -> the same.

    Args:
        planes: "ee", and those of the phases before, of one size.
    """
    even = planes[0]
    if len(planes) == 1:
        pairs = even + _next(even, -1)
        return pairs + _next(pairs, -2)
    odd, axes = planes[1], (-1, -2) if len(planes) == 2 else (-2, -1)
    return even + _next(even, axes[0]) + odd + _before(odd, axes[1])


def differences(planes: Sequence[Tensor], sums: Tensor) -> Tensor:
    """Return what the first layers take: pixels less the mean of `around`, in fourths of a level.

    Args:
        planes: [B, 3, h, w] each.
        sums: of `around`.
    """
    return torch.cat([4 * plane - sums for plane in planes], 1).clamp_(-LARGEST, LARGEST)


def _next(plane: Tensor, axis: int) -> Tensor:
    """Return what follows each pixel along an axis; the last follows itself."""
    size = plane.shape[axis]
    return torch.cat((plane.narrow(axis, 1, size - 1), plane.narrow(axis, size - 1, 1)), axis)


def _before(plane: Tensor, axis: int) -> Tensor:
    """Return what precedes each pixel along an axis; the first precedes itself."""
    size = plane.shape[axis]
    return torch.cat((plane.narrow(axis, 0, 1), plane.narrow(axis, 0, size - 1)), axis)


def expected(mean: Tensor, errors: Sequence[Tensor]) -> Tensor:
    """Return the mean of a colour given the errors of those known, which it shares: [B, h, w].

    Args:
        mean: that the linear prediction gives.
        errors: pixels less these means, of the colours known.
    """
    return torch.stack([*errors]).mean(0) + mean if errors else mean


@dataclass(frozen=True, eq=False)
class PyramidPrior(Prior):
    """p(pixels of an image), gray or colour.

    Attributes:
        arrays: "NAME.weight", "NAME.bias", "NAME.shift" of every layer.
        shape: of the networks.
        carrier: what computes; the result is the same.

    Raises:
        ModelError: on construction, if an array is missing or has another shape or type.
    """

    arrays: Mapping[str, Array]
    shape: Shape
    carrier: Carrier = field(default_factory=lambda: best_carrier("cpu"))

    def __post_init__(self) -> None:
        for name, (outputs, inputs, side) in self.shape.sizes().items():
            found = self.layers[name].weight.shape
            if found != (outputs, inputs, side, side):
                raise ModelError(f"{name} of the pyramid is {found}, not {(outputs, inputs, side, side)}")

    @cached_property
    def layers(self) -> dict[str, IntegerConv2d]:
        """Layers by name."""
        try:
            return {
                name: IntegerConv2d(
                    self.arrays[f"{name}.weight"],
                    self.arrays[f"{name}.bias"],
                    self.arrays[f"{name}.shift"],
                    Shape.padding(name),
                    Shape.largest(name),
                )
                for name in self.shape.sizes()
            }
        except KeyError as missing:
            raise ModelError(f"a pyramid without {missing.args[0]}") from None

    def with_carrier(self, carrier: Carrier) -> Self:
        """Return the same networks computed otherwise."""
        return replace(self, carrier=carrier)

    def to_tensors(self) -> dict[str, Array]:
        """Return its integers by their names in a weights file."""
        return {PREFIX + name: array for name, array in self.arrays.items()}

    def batches(self, shapes: Sequence[tuple[int, ...]]) -> list[list[int]]:
        """Take regions one by one: each has positions enough."""
        return [[n] for n in range(len(shapes))]

    def scan(self, known: Sequence[Symbols], index: int) -> _Scan:
        """Begin a scan of one region, int16 [h, w, 1 or 3] in sixteenths of a level, as in `Prior.scan`."""
        del index
        (symbols,) = known
        return _Scan(self, symbols[PLANE])

    def features(self, name: str, differences: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the linear prediction and the features of every position, strip by strip.

        Args:
            name: of the networks, "SET.PHASE".
            differences: [1, 3 n, h, w].

        Returns:
            float32 [1, 3, h, w] in sixteenths of a level, and uint8 [1, 2 width, h, w].
        """
        height, width = differences.shape[2:]
        bordered = F.pad(differences, [BORDER] * 4, mode="replicate")
        linear, first = self.layers[f"{name}.linear"], self.layers[f"{name}.first"]
        halo, rows = self.shape.layers, max(STRIP // width, 1)
        predictions, features = [], []
        for top in range(0, height, rows):
            start, end = max(top - halo, 0), min(top + rows + halo, height)
            inside = slice(top - start, top - start + rows)
            strip = bordered[:, :, start : end + 2 * BORDER]
            predictions.append(linear.exact(strip, self.carrier)[:, :, inside])
            x = near = first.activated(strip, self.carrier)
            for number in range(self.shape.layers):
                x = self.layers[f"{name}.body{number}"].activated(x, self.carrier)
            features.append(torch.cat((near[:, :, inside], x[:, :, inside]), 1))
        return torch.cat(predictions, 2).add_(0.5).floor_(), torch.cat(features, 2)


class _Scan:
    """Scan of one region."""

    def __init__(self, prior: PyramidPrior, pixels: NDArray[np.int16]) -> None:
        self._prior, self._pixels = prior, pixels
        self._colours = ORDER if pixels.shape[2] == 3 else (0,)
        self._levels = level_count(*pixels.shape[:2])
        self._rest = self._models()

    @property
    def steps(self) -> Iterator[Step]:
        """As in `Scan.steps`."""
        try:
            yield self._step(0, (slice(None, None, 1 << self._levels),) * 2, slice(None))
            number = 1
            for level, phase in self._parts():
                for colour in self._colours:
                    yield self._step(number, part(level, phase), slice(colour, colour + 1))
                    number += 1
        finally:  # it refers to this scan, and its features are large
            self._rest.close()

    def _parts(self) -> Iterator[tuple[int, str]]:
        """Yield level and phase of all pixels but those of the first step."""
        for level in reversed(range(self._levels)):
            for phase in PHASES:
                if self._pixels[part(level, phase)].size:
                    yield level, phase

    def _step(self, number: int, place: tuple[slice, slice], colours: slice) -> Step:
        sizes = zip(place, self._pixels.shape, strict=False)
        rows, columns = (np.arange(*axis.indices(size)) for axis, size in sizes)
        return Step(number, PLANE, [(rows[:, None], columns[None, :], colours)])

    def models(self, step: Step) -> Iterator[Logistic]:
        """As in `Scan.models`."""
        if step.number == 0:
            rows, columns, _ = step.positions[0]
            shape = rows.size, columns.size, len(self._colours)
            yield logistic.model(*(np.full(shape, x, np.int32) for x in (16 * MIDDLE, START_SCALE, 0)))
        else:
            yield next(self._rest)

    def _models(self) -> Generator[Logistic, None, None]:
        """Yield the models of all steps but the first, each when its turn has come."""
        for level, phase in self._parts():
            rows, columns = part(level, phase)
            height, width = self._pixels[rows, columns].shape[:2]
            name = f"{SETS[min(level, 1)]}.{phase}"
            with exact.arithmetic():
                planes = self._planes(level, PHASES.index(phase))
                sums = around(planes)
                prediction, features = self._prior.features(name, differences(planes, sums))
                means = sums.mul_(LATENT_UNIT // 4).add_(MIDDLE * LATENT_UNIT).add_(prediction)
                means, features = means[0, :, :height, :width], features[:, :, :height, :width]
            errors: list[Tensor] = []
            for colour in self._colours:
                with exact.arithmetic():
                    found = self._model(name, expected(means[colour], errors), errors, features)
                yield logistic.model(*(array[:, :, None] for array in found))
                pixels = self._pixels[rows, columns, colour].astype(np.float32)
                errors.append(torch.from_numpy(pixels) - means[colour])

    def _planes(self, level: int, count: int) -> list[Tensor]:
        """Return the planes known before a phase, three colours each, of one size, less MIDDLE."""
        found: list[Tensor] = []
        for phase in ("ee", *PHASES[:count]):
            pixels = self._pixels[part(level, phase)].astype(np.float32)
            plane = torch.from_numpy(pixels).mul_(1 / LATENT_UNIT).sub_(MIDDLE)
            plane = plane.permute(2, 0, 1)[None].expand(-1, 3, -1, -1)
            found.append(extended(plane, found[0]) if found else plane)
        return found

    def _model(
        self, name: str, mean: Tensor, errors: Sequence[Tensor], features: Tensor
    ) -> Iterator[NDArray[np.int32]]:
        """Return mean, scale and tail of a colour: [h, w] each."""
        layers, carrier = self._prior.layers, self._prior.carrier
        inputs = [signed(error, units / LATENT_UNIT)[None, None] for error in errors for units in ERROR_UNITS]
        x = torch.cat((*inputs, features), 1).contiguous(memory_format=torch.channels_last)
        x = layers[f"{name}.hidden{len(errors)}"].activated(x, carrier)
        outputs = layers[f"{name}.out{len(errors)}"].exact(x, carrier)[0].add_(0.5).floor_()
        scale = (outputs[1] * (1 / SCALE_UNITS)).floor_().add_(SCALE_MIDDLE).clamp_(0, logistic.SCALES - 1)
        tail = (outputs[2] * (1 / TAIL_UNITS)).floor_().add_(TAIL_MIDDLE).clamp_(0, logistic.TAILS - 1)
        mean = (mean + outputs[0]).floor_().clamp_(0, 255 * LATENT_UNIT)
        return (x.int().numpy() for x in (mean, scale, tail))
