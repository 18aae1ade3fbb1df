"""Choose which pixels of an image to store losslessly, by rate and distortion.

Drawn parts of a region are stored where that costs less than coding them, all pixels of a region where they
compress well: J = bits + lambda * squared error, with the lambda of the operating point (`Rung.cost`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .. import media
from ..bitstream.container import PIXELS, Chunk, Part
from ..bitstream.geometry import ImageGeometry, Region
from ..coding import chunks, stored
from ..coding.chunks import EncodedChunks
from ..models.base import OperatingPoint
from ..priors.base import Symbols
from ..transform import graphics, hidden
from ..transform import image as image_transform
from .ladder import Rung

SAMPLE = 128
"""Side of the busiest square of a region, which is packed to estimate the whole."""
GENEROSITY = 2.0
"""Stored pixels of at most so many times the bits of the codes are worth a trial: they are exact."""

QUICK_GENEROSITY = 1.5
"""The same of the sample packed quickly, against the limit: what is beyond it is not packed again."""

DRAWN_GENEROSITY = 4.0
"""The same of drawn parts, against their share of the codes. Text takes less; smooth skies, which repeat too,
took 4 to 34 times as much."""

PARTLY_STORED = 0.25
"""Share of stored pixels from which on all of an image is stored if that is no larger: regions are chosen one
by one, and packed together the others may take less than their codes."""

_NOTHING = EncodedChunks([Chunk(PIXELS, b"")], {}, [0.0])
"""Of a region whose pixels are all stored."""


def store_all(
    pixels: NDArray[np.uint8], point: OperatingPoint, geometry: ImageGeometry, *, fast: bool = False
) -> EncodedChunks:
    """Store all pixels.

    Args:
        pixels: uint8 [H, W, C].
        point: the operating point of the file, for its planes; pixels do not depend on it.
        geometry: of the image.
        fast: as in `stored.encode`.
    """
    tiles = stored.encode(pixels, np.ones(pixels.shape[:2], np.bool_), geometry, fast=fast)
    empty = {plane.name: plane.empty(geometry.grid(plane.stride)) for plane in point.planes}
    count = geometry.chunk_count
    return EncodedChunks([Chunk(PIXELS, b"")] * count, empty, [0.0] * count, tiles)


def choose(
    pixels: NDArray[np.uint8],
    coded: EncodedChunks,
    point: OperatingPoint,
    geometry: ImageGeometry,
    rung: Rung,
    *,
    fast: bool = False,
) -> EncodedChunks:
    """Return the chunks with those pixels stored that cost less so.

    Args:
        pixels: uint8 [H, W, C].
        coded: all of them coded.
        point: the operating point.
        geometry: of the image.
        rung: the quality of the file, which tells what errors cost.
        fast: as in `chunks.encode` and `stored.encode`.
    """
    regions = [*geometry.regions]
    mask = np.zeros(pixels.shape[:2], np.bool_)
    for region, chunk in zip(regions, coded.chunks, strict=True):
        mask[region.samples] = _candidate(pixels[region.samples], len(chunk.payload))
    tried = [n for n, region in enumerate(regions) if mask[region.samples].any()]
    if not tried:
        return coded
    tiles = stored.encode(pixels, mask, geometry, fast=fast)
    shares = _shares(pixels, mask, [regions[n] for n in tried], geometry, tiles)
    kept, bits = [*coded.chunks], [*coded.bits]
    symbols = {name: array.copy() for name, array in coded.symbols.items()}
    dropped = []
    for n, share in zip(tried, shares, strict=True):
        region, part = regions[n], mask[regions[n].samples]
        whole = bool(part.all())
        rest = _NOTHING if whole else _coded_alone(pixels, mask, region, point, geometry, fast)
        decoded = _decoded_alone(coded.symbols, region, point, geometry)
        error = np.subtract(decoded, pixels[region.samples], dtype=np.float32)
        distortion = rung.cost(float(np.square(error)[part].mean()), pixels.shape[2], point.rd_lambda)
        remaining = 8 * len(rest.chunks[0].payload)
        if share + remaining >= 8 * len(coded.chunks[n].payload) + distortion * int(part.sum()):
            dropped.append(region)
            continue
        kept[n], bits[n] = rest.chunks[0], rest.bits[0]
        for plane in point.planes:
            symbols[plane.name][region.part(plane.stride)] = rest.symbols.get(plane.name, 0)
    for region in dropped:
        mask[region.samples] = False
    if dropped:
        tiles = stored.encode(pixels, mask, geometry, fast=fast)
    chosen = EncodedChunks(kept, symbols, bits, tiles, mask)
    if PARTLY_STORED < mask.mean() < 1:
        return min(store_all(pixels, point, geometry, fast=fast), chosen, key=lambda one: one.size)
    return chosen


def _around(region: Region, geometry: ImageGeometry, margin: int) -> Region:
    """Return the region with a margin of pixels, fewer where the image ends."""
    sides = zip(region.samples, (geometry.height, geometry.width), strict=True)
    return Region(tuple(slice(max(s.start - margin, 0), min(s.stop + margin, end)) for s, end in sides))


def _alone(region: Region, geometry: ImageGeometry) -> ImageGeometry:
    """Return the geometry of an image that is a region."""
    height, width = region.shape(1)
    return ImageGeometry(width, height, geometry.channels, geometry.stride)


def _coded_alone(
    pixels: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    region: Region,
    point: OperatingPoint,
    geometry: ImageGeometry,
    fast: bool,
) -> EncodedChunks:
    """Code one region of the image without the pixels of a mask."""
    around = _around(region, geometry, point.analysis_halo * point.stride)
    alpha = np.where(mask[around.samples], np.uint8(0), np.uint8(255))
    targets = image_transform.analyse(hidden.fill(pixels[around.samples], alpha), point)
    inside = Region(region.within(around) or ())
    targets = {p.name: targets[p.name][inside.part(p.stride)] for p in point.planes}
    return chunks.encode(targets, point, _alone(region, geometry), fast=fast)


def _decoded_alone(
    symbols: Symbols, region: Region, point: OperatingPoint, geometry: ImageGeometry
) -> NDArray[np.uint8]:
    """Decode one region of the image: uint8 [h, w, C]."""
    around = _around(region, geometry, point.halo * point.stride)
    part = {p.name: symbols[p.name][around.part(p.stride)] for p in point.planes}
    decoded = image_transform.synthesise(part, point, _alone(around, geometry))
    return decoded[region.within(around) or ()]


def _candidate(pixels: NDArray[np.uint8], coded_bytes: int) -> NDArray[np.bool_]:
    """Return the pixels of a region that are worth a trial: all, those that look drawn, or none."""
    height, width, _ = pixels.shape
    part = graphics.busiest(pixels, SAMPLE)
    whole = np.ones((height, width), np.bool_)
    every = whole[: part.shape[0], : part.shape[1]]
    limit = GENEROSITY * coded_bytes * part.shape[0] * part.shape[1] / (height * width)
    tiny = every.size < SAMPLE**2  # packed in no time, and with more overhead
    tried = tiny or len(media.pack_pixels(part, every, quick=True)) <= QUICK_GENEROSITY * limit
    if tried and len(media.pack_pixels(part, every)) <= limit:
        return whole
    drawn = graphics.find(pixels)
    # A trial takes as long as coding: smooth skies, which repeat too, are sorted out by their bits per pixel.
    most = DRAWN_GENEROSITY * coded_bytes * drawn.mean()
    worth = drawn.any() and len(media.pack_pixels(pixels, drawn)) <= most
    return drawn if worth else np.zeros_like(drawn)


def _shares(
    pixels: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    regions: list[Region],
    geometry: ImageGeometry,
    tiles: list[Part],
) -> list[float]:
    """Share the bits of each tile among the regions stored in it, by what each region would take alone."""
    alone = [float(len(media.pack_pixels(pixels[r.samples], mask[r.samples]))) for r in regions]
    for tile, packed in zip(geometry.tiles, tiles, strict=True):
        inside = [n for n, region in enumerate(regions) if region.within(tile) is not None]
        total = sum(alone[n] for n in inside)
        for n in inside:
            alone[n] *= 8 * len(packed.payload) / max(total, 1)
    return alone
