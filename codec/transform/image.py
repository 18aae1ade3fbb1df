"""Transform images to targets, and symbols to images, block by block."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..bitstream.geometry import ImageGeometry
from ..models.base import OperatingPoint, Progress
from ..priors.base import Array, Symbols
from . import tiling
from .pixels import to_pixels, to_samples

PREVIEW = 8
"""Pixels of the image per pixel of a preview, along each axis."""


@torch.inference_mode(False)
@torch.no_grad()
def analyse(
    pixels: NDArray[np.uint8],
    point: OperatingPoint,
    *,
    area: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Array]:
    """Compute the targets of an image, block by block.

    Args:
        pixels: uint8 [H, W, C].
        point: the operating point.
        area: largest number of positions of the coarsest plane in a block; by default those of 1 megapixel.
        progress: called with the number of blocks done and of all blocks.

    Returns:
        Plane -> int32 [h, w] or float32 [h, w, M], h = ceil(H / stride) and so on.
    """
    stride = point.stride
    height, width = -(-pixels.shape[0] // stride), -(-pixels.shape[1] // stride)
    geometry = ImageGeometry(pixels.shape[1], pixels.shape[0])
    targets: dict[str, Array] = {}
    blocks = tiling.blocks(height, width, point.analysis_halo, area or tiling.area_for(stride))
    for number, block in enumerate(blocks):
        found = point.analyse(_samples_around(pixels, block, stride).to(point.device))
        for plane in point.planes:
            values = found[plane.name][0].cpu().numpy()
            if plane.name not in targets:
                kind = np.int32 if plane.alphabet else np.float32
                targets[plane.name] = np.empty((*geometry.grid(plane.stride), *values.shape[2:]), kind)
            scale = stride // plane.stride
            target = targets[plane.name][tiling.scaled(block.inner, scale)]
            target[...] = values[tiling.scaled(block.within, scale)][: target.shape[0], : target.shape[1]]
        if progress:
            progress(number + 1, len(blocks))
    return targets


@torch.inference_mode()
def synthesise(
    symbols: Symbols,
    point: OperatingPoint,
    geometry: ImageGeometry,
    *,
    area: int | None = None,
    progress: Progress | None = None,
) -> NDArray[np.uint8]:
    """Reconstruct an image from symbols, block by block: uint8 [H, W, C].

    Args:
        symbols: of each plane.
        point: the operating point of the symbols.
        geometry: of the image.
        area: largest number of positions of the coarsest plane in a block; by default those of 1 megapixel.
        progress: called with the number of blocks done and of all blocks.
    """
    stride = point.stride
    pixels = np.empty((geometry.height, geometry.width, geometry.channels), np.uint8)
    blocks = tiling.blocks(*geometry.grid(stride), point.halo, area or tiling.area_for(stride))
    for number, block in enumerate(blocks):
        decoded = point.synthesise(_symbols_around(symbols, block, point))
        rows, columns = tiling.scaled(block.within, stride)
        decoded = decoded[:, :, rows, columns]
        target = pixels[tiling.scaled(block.inner, stride)]
        target[:] = _to_channels(decoded, geometry)[: target.shape[0], : target.shape[1]]
        if progress:
            progress(number + 1, len(blocks))
    return pixels


def set_known(
    symbols: Symbols, known: Mapping[int, NDArray[np.uint8]], point: OperatingPoint, geometry: ImageGeometry
) -> None:
    """Give regions whose pixels are known the symbols of these, where a region that is coded borders on them.

    What is decoded at a border depends on the symbols on its other side.

    Args:
        symbols: of each plane, changed in place.
        known: number of a region -> its pixels, uint8 [h, w, C].
        point: the operating point of the symbols.
        geometry: of the image.
    """
    regions = [*geometry.regions] if known else []
    for number, pixels in known.items():
        around = (slice(axis.start - 1, axis.stop + 1) for axis in regions[number].samples)
        if all(neighbour in known for neighbour in geometry.numbers(*around)):
            continue
        sides = zip(regions[number].samples, (geometry.height, geometry.width), strict=True)
        margin = point.stride * point.analysis_halo
        # Where the image goes on its last pixels are repeated: latents at its ends are others.
        more = [(margin * (axis.start > 0), margin * (axis.stop < end)) for axis, end in sides]
        targets = analyse(np.pad(pixels, [*more, (0, 0)], "edge"), point)
        for plane in point.planes:
            part = symbols[plane.name][regions[number].part(plane.stride)]
            top, left = (before // plane.stride for before, _ in more)
            part[...] = plane.symbols(targets[plane.name])[top:, left:][: part.shape[0], : part.shape[1]]


@torch.inference_mode()
def preview(symbols: Symbols, point: OperatingPoint, geometry: ImageGeometry) -> NDArray[np.uint8] | None:
    """Return a preview, uint8 [ceil(H / 8), ceil(W / 8), C]; None: the model has none."""
    stride = point.stride
    pixels = np.empty((*geometry.grid(PREVIEW), geometry.channels), np.uint8)
    for block in tiling.blocks(*geometry.grid(stride), point.halo, tiling.area_for(stride)):
        small = point.preview(_symbols_around(symbols, block, point))
        if small is None:
            return None
        scale = stride // PREVIEW
        part = pixels[tiling.scaled(block.inner, scale)]
        found = _to_channels(small, geometry)[tiling.scaled(block.within, scale)]
        part[...] = found[: part.shape[0], : part.shape[1]]
    return pixels


def overlay(
    small: NDArray[np.uint8], samples: NDArray[np.uint8], mask: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Mix the means of squares of PREVIEW x PREVIEW pixels, as far as they are there, into a preview.

    Args:
        small: uint8 [ceil(H / 8), ceil(W / 8), C], what stands where pixels are not there.
        samples: uint8 [H, W, C].
        mask: bool [H, W], which pixels are there.
    """
    there = _means(mask[:, :, None])
    mixed = _means(samples * mask[:, :, None]) + (1 - there) * small
    rounded: NDArray[np.uint8] = np.rint(mixed).astype(np.uint8)
    return rounded


def _means(values: NDArray[np.generic]) -> NDArray[np.float64]:
    """Average squares of PREVIEW x PREVIEW values, after repeating the last row and column."""
    height, width = -(-values.shape[0] // PREVIEW), -(-values.shape[1] // PREVIEW)
    whole = tiling.extend(values, PREVIEW * height, PREVIEW * width)
    means: NDArray[np.float64] = whole.reshape(height, PREVIEW, width, PREVIEW, -1).mean((1, 3))
    return means


def _samples_around(pixels: NDArray[np.uint8], block: tiling.Block, stride: int) -> Tensor:
    """Return the samples of a block with its halo: uint8 [H, W, C] -> [1, 3, h', w'] in -1..1."""
    window = pixels[tiling.scaled(block.outer, stride)]
    window = tiling.pad_to_multiple(np.broadcast_to(window, (*window.shape[:2], 3)), stride)
    return to_samples(window[None])


def _symbols_around(symbols: Symbols, block: tiling.Block, point: OperatingPoint) -> dict[str, Tensor]:
    """Return the symbols of a block with its halo, [1, h', w', ...] of each plane."""
    rows, columns = block.outer
    found = {}
    for plane in point.planes:
        scale = point.stride // plane.stride
        window = symbols[plane.name][tiling.scaled((rows, columns), scale)]
        if scale > 1:  # a finer plane may end within the last positions of the coarsest
            size = scale * (rows.stop - rows.start), scale * (columns.stop - columns.start)
            window = tiling.extend(window.reshape(*window.shape[:2], -1), *size).reshape(
                *size, *window.shape[2:]
            )
        found[plane.name] = torch.from_numpy(np.ascontiguousarray(window)[None]).to(point.device)
    return found


def _to_channels(samples: Tensor, geometry: ImageGeometry) -> NDArray[np.uint8]:
    """Convert samples [1, 3, H, W] to uint8 [H, W, C]; gray is the mean of the colours."""
    if geometry.channels == 1:
        samples = samples.mean(1, keepdim=True)
    pixels: NDArray[np.uint8] = to_pixels(samples)[0]
    return pixels
