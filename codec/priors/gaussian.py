"""The conditional Gaussian in coding: rounded latents <-> bytes, by a network of integers.

    code = round(latent / step - mean),   mean and sigma functions of all latents before (`context`)

The network's outputs, and everything made of them, are integers: means in sixteenths of a step, sigma the
number of one of 64 tables (`normal`). An encoder may choose other codes than the nearest; a decoder only
needs the same means. A region's latents depend on nothing outside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..coding.rangecoder import Encoder
from ..errors import DamagedError, ModelError
from . import exact
from . import gaussian_tables as normal
from .base import ended, opened
from .context import SCALE, Integers, Shape, Walk
from .learned import IntegerNetwork

Latents = NDArray[np.int16]
"""[h, w, M], in sixteenths of a step."""

SPREAD = 48
"""Units of the heads between one width and the next: 3 / 16 octave."""


@dataclass(frozen=True)
class Region:
    """A region in bytes.

    Attributes:
        payload: of the range coder.
        bits: that it ought to take.
        latents: as a decoder will have them.
    """

    payload: bytes
    bits: float
    latents: Latents


@dataclass(frozen=True, eq=False)
class GaussianPrior(IntegerNetwork):
    """p(latents) at every place on the dial.

    Attributes:
        arrays: its integers by name: those of the layers, and "rise" and "start", int32 [M], the line over
            the dial that gives a channel's log2(deviation / step) in 2**-20.
        shape: of the network.
    """

    shape: Shape = Shape(1, 1, 1, 0, 24)

    def check(self) -> None:
        """Refuse arrays that do not fit the shape.

        Raises:
            ModelError: they do not.
        """
        for name in ("rise", "start"):
            array = self.arrays.get(name)
            if array is None or array.dtype != np.int32 or array.shape != (self.shape.channels,):
                raise ModelError(f"a prior without a {name} of its {self.shape.channels} channels")
        for name, (inputs, outputs, _after, _gain) in self.shape.layers().items():
            self.fits(name, inputs, outputs)

    @cached_property
    def _line(self) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(self.arrays["rise"]).long(), torch.from_numpy(self.arrays["start"]).long()

    def exponents(self, place: int) -> Tensor:
        """log2(deviation / step) of every channel in sixteenths: int32 [M]."""
        rise, start = self._line
        return ((start + rise * place) >> 16).int()

    def code(
        self, targets: Sequence[NDArray[np.float32]], place: int, trade: NDArray[np.float32] | None = None
    ) -> list[Region]:
        """Round and code regions of one size.

        Args:
            targets: latents in steps, [h, w, M] each.
            place: on the dial, 0..255.
            trade: bits that a squared error of one step is worth, [M]: the code nearer to zero is taken where
                it spares more than its error is worth; None for the nearest always.
        """
        count, (height, width, size) = len(targets), targets[0].shape
        scan = _Scan(self, place, count, height, width)
        flat = np.stack(targets).reshape(-1, size)
        latents = np.empty((len(flat), size), np.int16)
        encoders, bits = [Encoder() for _ in targets], np.zeros(count)
        tables = normal.tables()
        for s, p in self.shape.steps:
            means, widths = scan.expect(s, p)
            where, part = scan.where(s, p), self.shape.slices[s]
            codes = _chosen(flat[where, part], means, widths, None if trade is None else trade[part])
            latents[where, part] = values = 16 * codes + means
            shared = zip(encoders, np.split(codes, count), np.split(widths, count), strict=True)
            for number, (encoder, mine, numbers) in enumerate(shared):
                encoder.encode_by(mine.ravel(), numbers.ravel(), tables)
                bits[number] += tables.costs(mine, numbers).sum()
            scan.put(s, p, values)
        whole = latents.reshape(count, height, width, size)
        return [Region(e.finish(), float(b), v) for e, b, v in zip(encoders, bits, whole, strict=True)]

    def read(
        self, payloads: Sequence[bytes], place: int, height: int, width: int, slices: int | None = None
    ) -> list[Latents | None]:
        """Undo `code`.

        Args:
            payloads: of regions of one size.
            place: on the dial.
            height: in latents.
            width: in latents.
            slices: read only so many, the other latents stay zero, and what is left is not looked at.

        Returns:
            [h, w, M] each; None for a region whose bytes no encoder writes.
        """
        count, size, tables = len(payloads), self.shape.channels, normal.tables()
        scan = _Scan(self, place, count, height, width)
        decoders = [opened(payload) for payload in payloads]
        latents = np.zeros((count * height * width, size), np.int16)
        for s, p in self.shape.steps:
            if s == slices:
                break
            means, widths = scan.expect(s, p)
            codes = np.zeros_like(means)
            for number, (mine, numbers) in enumerate(
                zip(np.split(codes, count), np.split(widths, count), strict=True)
            ):
                decoder = decoders[number]
                if decoder is None:
                    continue
                try:
                    mine[:] = decoder.decode_by(numbers.ravel(), tables).reshape(mine.shape)
                except DamagedError:
                    decoders[number] = None
            values = np.clip(16 * codes + means, -normal.LIMIT, normal.LIMIT)
            latents[scan.where(s, p), self.shape.slices[s]] = values
            scan.put(s, p, values)
        whole = latents.reshape(count, height, width, size)
        whole_read = [ended(d) if slices is None else d is not None for d in decoders]
        return [region if fine else None for region, fine in zip(whole, whole_read, strict=True)]

    def draw(
        self,
        place: int,
        size: tuple[int, int],
        seed: tuple[int, int],
        temperature: float = 1.0,
        known: Latents | None = None,
        kept: int = 0,
    ) -> Latents:
        """Ancestral sampling: every latent of a region from its Gaussian, given those before.

        Args:
            place: on the dial.
            size: height and width, in latents.
            seed: two numbers below 2**64: the same give the same latents on every machine.
            temperature: sigma is multiplied by it, to the nearest of the widths.
            known: latents of which the first rows are kept.
            kept: so many.
        """
        height, width = size
        scan, tables = _Scan(self, place, 1, height, width), normal.tables()
        source = np.random.Philox(key=np.array(seed, np.uint64))
        latents = np.zeros((height * width, self.shape.channels), np.int16)
        wider = round(16 / 3 * np.log2(temperature))
        for s, p in self.shape.steps:
            means, widths = scan.expect(s, p)
            widths = np.clip(widths.astype(np.int32) + wider, 0, normal.WIDTHS - 1).astype(np.uint8)
            codes = tables.drawn(source.random_raw(means.size), widths.ravel()).reshape(means.shape)
            values = np.clip(16 * codes + means, -normal.LIMIT, normal.LIMIT)
            where, part = scan.where(s, p), self.shape.slices[s]
            if known is not None:
                given = where < kept * width
                values[given] = known.reshape(len(latents), -1)[where[given], part]
            latents[where, part] = values
            scan.put(s, p, values)
        return latents.reshape(height, width, -1)


class _Scan:
    """The walk of a prior over regions of one size, in numpy's integers."""

    def __init__(self, prior: GaussianPrior, place: int, count: int, height: int, width: int) -> None:
        self._prior, self._exponents = prior, prior.exponents(place)
        condition = torch.full((count, 1), float((place - 128) // 2), dtype=prior.carrier)
        grids = (count, height, width)
        self._walk = Walk(prior.shape, prior.layers, Integers(), grids, condition)

    def where(self, s: int, p: int) -> NDArray[np.int64]:
        """Rows of flat maps that a step is about."""
        rows: NDArray[np.int64] = self._walk.where(s, p).numpy()
        return rows

    def expect(self, s: int, p: int) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        """Means in sixteenths of a step, and numbers of the widths: [N, n] each."""
        exponents = self._exponents[self._prior.shape.slices[s]]
        with exact.arithmetic():
            outputs = self._walk.expect(s, p).clamp_(-exact.STREAM_MAX, exact.STREAM_MAX).int()
            means, spreads = outputs.chunk(2, 1)
            means = normal.scaled(means, exponents, SCALE - 4)
            numbers = spreads + (exponents << 4) + (SPREAD // 2 - (normal.NARROWEST << 4))
            widths = torch.div(numbers, SPREAD, rounding_mode="floor").clamp_(0, normal.WIDTHS - 1)
        return means.numpy(), widths.to(torch.uint8).numpy()

    def put(self, s: int, p: int, values: NDArray[np.int32]) -> None:
        """What the latents of a step turned out to be, [N, n]."""
        exponents = self._exponents[self._prior.shape.slices[s]]
        with exact.arithmetic():
            whole = torch.from_numpy(values)
            over = normal.scaled(whole, -exponents, 0).clamp_(-exact.INPUT, exact.INPUT)
            told = torch.cat((over, normal.compressed(whole)), 1)
            self._walk.put(s, p, told.to(self._prior.carrier))


def export(layers: Mapping[str, exact.Linear], shape: Shape, line: tuple[Tensor, Tensor]) -> GaussianPrior:
    """The prior of a model in training.

    Args:
        layers: of `context.layers_in_training`.
        shape: of the network.
        line: rise and start over the dial, in 2**-20.

    Raises:
        ModelError: a layer is beyond what is exact.
    """
    arrays: dict[str, NDArray[Any]] = {
        name: part.cpu().numpy().astype(np.int32) for name, part in zip(("rise", "start"), line, strict=True)
    }
    for name, layer in layers.items():
        whole = layer.export()
        arrays |= {f"{name}.{part}": getattr(whole, part) for part in ("weight", "bias", "shift")}
    return GaussianPrior(arrays, shape=shape)


def _chosen(
    targets: NDArray[np.float32],
    means: NDArray[np.int32],
    widths: NDArray[np.uint8],
    trade: NDArray[np.float32] | None,
) -> NDArray[np.int32]:
    """The nearest codes, or those one nearer to zero where bits outweigh the error: [N, n]."""
    exact_codes = targets - means * np.float32(1 / 16)
    codes = np.rint(exact_codes).astype(np.int32)
    codes[widths == 0] = 0
    if trade is not None:
        tables = normal.tables()
        rows, columns = codes.nonzero()
        high, width = codes[rows, columns], widths[rows, columns]
        low = high - np.sign(high)
        wanted = exact_codes[rows, columns]
        saved = tables.costs(high, width) - tables.costs(low, width)
        added = trade[columns] * (np.square(wanted - low) - np.square(wanted - high))
        codes[rows, columns] = np.where(saved > added, low, high)
    low, high = (-(-(-normal.LIMIT - means) // 16), (normal.LIMIT - means) // 16)
    return np.clip(codes, low, high)
