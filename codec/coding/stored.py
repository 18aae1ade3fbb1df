"""Store pixels of an image losslessly, tile by tile, on top of what the chunks code, and read them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .. import media
from ..bitstream.container import LEARNED_PIXELS, Bitstream, Part
from ..bitstream.geometry import ImageGeometry, Region
from ..errors import confined
from . import learned_pixels

WORTH_A_TRIAL = 1.5
"""Bits per sample of lossless WebP from which on the learned coder is tried; drawings take fewer."""


@dataclass(frozen=True)
class StoredPixels:
    """The decoded pixels of a tile.

    Attributes:
        region: the tile in the image.
        samples: uint8 [H, W, C].
        mask: bool [H, W], which of the pixels are stored.
    """

    region: Region
    samples: NDArray[np.uint8]
    mask: NDArray[np.bool_]


def whole_regions(tiles: Iterable[StoredPixels], geometry: ImageGeometry) -> dict[int, NDArray[np.uint8]]:
    """Return the regions whose pixels are all stored: number -> uint8 [h, w, C]."""
    regions, found = [*geometry.regions], {}
    for tile in tiles:
        for number in geometry.numbers(*tile.region.samples):
            part = regions[number].within(tile.region)
            if part is not None and tile.mask[part].all():
                found[number] = tile.samples[part]
    return found


def encode(
    pixels: NDArray[np.uint8], mask: NDArray[np.bool_], geometry: ImageGeometry, *, fast: bool = False
) -> list[Part]:
    """Store the pixels of a mask: one tile for each of the geometry, or none where the mask is empty.

    A tile is lossless WebP, or coded by a learned prior (`learned_pixels`) where all of it is stored and that
    is smaller.

    Args:
        pixels: uint8 [H, W, C].
        mask: bool [H, W], which of them to store.
        geometry: of the image.
        fast: lossless WebP alone.
    """
    if not mask.any():
        return []
    return [Part(_packed(pixels[tile.samples], mask[tile.samples], fast)) for tile in geometry.tiles]


def _packed(pixels: NDArray[np.uint8], mask: NDArray[np.bool_], fast: bool) -> bytes:
    packed = media.pack_pixels(pixels, mask)
    if fast or not mask.all() or 8 * len(packed) < WORTH_A_TRIAL * pixels.size:
        return packed
    return min(packed, learned_pixels.pack(pixels) or packed, key=len)


def decode(stream: Bitstream, *, salvage: bool = False) -> tuple[list[StoredPixels], list[str]]:
    """Decode all tiles of stored pixels.

    Args:
        stream: parsed; tiles that are not intact are passed over.
        salvage: pass over tiles that no encoder writes as well.

    Returns:
        The tiles that store pixels, and a phrase for each that no encoder writes.

    Raises:
        DamagedError: a tile that no encoder writes.
        ModelError: a tile that is coded by other weights than those here.
    """
    found: list[StoredPixels] = []
    damage: list[str] = []
    channels = 3 if stream.geometry.flag else 1
    for number, (tile, region) in enumerate(zip(stream.tiles, stream.geometry.tiles, strict=False), 1):
        if not tile.intact or not tile.payload:
            continue
        with confined(f"tile {number} of {len(stream.tiles)}", damage, salvage=salvage):
            if tile.payload[0] == LEARNED_PIXELS:
                samples = learned_pixels.unpack(tile.payload, region.shape(1), channels)
                mask = np.ones(samples.shape[:2], np.bool_)
            else:
                samples, mask = media.unpack_pixels(tile.payload, region.shape(1), channels)
            found.append(StoredPixels(region, samples, mask))
    return found, damage
