"""Choose which pixels of an image to store losslessly, by rate and distortion.

Drawn parts of a region are stored where that costs less than coding them, all pixels of a region where they
compress well: J = bits + lambda * squared error, with the lambda of the operating point (`Rung.cost`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .. import media
from ..bitstream.container import PIXELS, Chunk, Part
from ..bitstream.geometry import ImageGeometry
from ..coding import stored
from ..coding.chunks import EncodedChunks
from ..models.base import OperatingPoint
from ..transform import graphics, hidden
from ..transform import image as image_transform
from .ladder import Rung

SAMPLE = 128
"""Side of the busiest square of a region, which is packed to estimate the whole."""
GENEROSITY = 2.0
"""Stored pixels of at most so many times the bits of the codes are worth a trial: they are exact."""

DRAWN_GENEROSITY = 4.0
"""The same of drawn parts, against their share of the codes. Text takes less; smooth skies, which repeat too,
took 4 to 34 times as much."""

Code = Callable[[NDArray[np.uint8]], EncodedChunks]
"""Codes pixels, uint8 [H, W, C], at an operating point."""


def store_all(pixels: NDArray[np.uint8], point: OperatingPoint, geometry: ImageGeometry) -> EncodedChunks:
    """Store all pixels.

    Args:
        pixels: uint8 [H, W, C].
        point: the operating point of the file, for its planes; pixels do not depend on it.
        geometry: of the image.
    """
    tiles = stored.encode(pixels, np.ones(pixels.shape[:2], np.bool_), geometry)
    empty = {plane.name: plane.empty(geometry.grid(plane.stride)) for plane in point.planes}
    count = geometry.chunk_count
    return EncodedChunks([Chunk(PIXELS, b"")] * count, empty, [0.0] * count, tiles)


def choose(
    pixels: NDArray[np.uint8],
    coded: EncodedChunks,
    point: OperatingPoint,
    geometry: ImageGeometry,
    code: Code,
    rung: Rung,
) -> EncodedChunks:
    """Return the chunks with those pixels stored that cost less so.

    Args:
        pixels: uint8 [H, W, C].
        coded: all of them coded.
        point: the operating point.
        geometry: of the image.
        code: codes pixels at the operating point.
        rung: the quality of the file, which tells what errors cost.
    """
    regions = [*geometry.regions]
    masks = [
        _candidate(pixels[region.samples], len(chunk.payload))
        for region, chunk in zip(regions, coded.chunks, strict=True)
    ]
    if not any(mask.any() for mask in masks):
        return coded
    decoded = image_transform.synthesise(coded.symbols, point, geometry)
    mask = np.zeros(pixels.shape[:2], np.bool_)
    for region, part in zip(regions, masks, strict=True):
        mask[region.samples] = part
    rest = coded
    if any(part.any() and not part.all() for part in masks):
        rest = code(hidden.fill(pixels, np.where(mask, np.uint8(0), np.uint8(255))))
    tiles = stored.encode(pixels, mask, geometry)
    shares = _shares(pixels, masks, geometry, tiles)
    chunks, bits = [*coded.chunks], [*coded.bits]
    symbols = {name: array.copy() for name, array in coded.symbols.items()}
    for n, (region, part) in enumerate(zip(regions, masks, strict=True)):
        if not part.any():
            continue
        error = np.subtract(decoded[region.samples], pixels[region.samples], dtype=np.float32)
        distortion = rung.cost(float(np.square(error)[part].mean()), pixels.shape[2], point.rd_lambda)
        whole = bool(part.all())
        remaining = 0 if whole else 8 * len(rest.chunks[n].payload)
        if shares[n] + remaining >= 8 * len(coded.chunks[n].payload) + distortion * int(part.sum()):
            mask[region.samples] = False
            continue
        chunks[n], bits[n] = (Chunk(PIXELS, b""), 0.0) if whole else (rest.chunks[n], rest.bits[n])
        for plane in point.planes:
            position = region.part(plane.stride)
            symbols[plane.name][position] = 0 if whole else rest.symbols[plane.name][position]
    if not all(mask[region.samples].any() for region, part in zip(regions, masks, strict=True) if part.any()):
        tiles = stored.encode(pixels, mask, geometry)
    return EncodedChunks(chunks, symbols, bits, tiles, mask)


def _candidate(pixels: NDArray[np.uint8], coded_bytes: int) -> NDArray[np.bool_]:
    """Return the pixels of a region that are worth a trial: all, those that look drawn, or none."""
    height, width, _ = pixels.shape
    part = graphics.busiest(pixels, SAMPLE)
    whole = np.ones((height, width), np.bool_)
    packed = media.pack_pixels(part, whole[: part.shape[0], : part.shape[1]])
    if len(packed) * height * width <= GENEROSITY * coded_bytes * part.shape[0] * part.shape[1]:
        return whole
    drawn = graphics.find(pixels)
    # A trial takes as long as coding: smooth skies, which repeat too, are sorted out by their bits per pixel.
    most = DRAWN_GENEROSITY * coded_bytes * drawn.mean()
    worth = drawn.any() and len(media.pack_pixels(pixels, drawn)) <= most
    return drawn if worth else np.zeros_like(drawn)


def _shares(
    pixels: NDArray[np.uint8], masks: list[NDArray[np.bool_]], geometry: ImageGeometry, tiles: list[Part]
) -> list[float]:
    """Share the bits of each tile among its regions, by what each region would take alone."""
    regions = [*geometry.regions]
    alone = [
        float(len(media.pack_pixels(pixels[region.samples], mask)))
        for region, mask in zip(regions, masks, strict=True)
    ]
    for tile, packed in zip(geometry.tiles, tiles, strict=True):
        inside = [n for n, region in enumerate(regions) if region.within(tile) is not None]
        total = sum(alone[n] for n in inside)
        for n in inside:
            alone[n] *= 8 * len(packed.payload) / max(total, 1)
    return alone
