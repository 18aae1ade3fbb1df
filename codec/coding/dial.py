"""A picture at one place on a dial <-> the chunks of its bitstream.

Each chunk holds the latents of a region of 512 x 512 pixels, coded by the conditional Gaussian; or, where
that is not smaller, all chunks hold the pixels themselves.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ..bitstream.binary import deflate, inflate
from ..bitstream.container import LEARNED, RAW, Bitstream, Chunk, Geometry
from ..bitstream.geometry import Place
from ..errors import DamagedError, DamageWarning, ModelError
from ..models.points import Point
from ..transform import image as transform
from ..transform import tiling
from ..transform.image import Progress, samples_around
from ..transform.pixels import to_pixels

TOGETHER = 8
"""Regions of one size that are coded side by side."""

TRADE = 1 / 3
"""Pixels under a latent over their samples: what its squared error is, in those of pixels, times pixels."""

SLICES_GLANCED = 1
"""Slices of channels that a preview is made of."""


@dataclass(frozen=True)
class Written:
    """The chunks of a picture.

    Attributes:
        chunks: one for each place of the geometry.
        bits: that their codes ought to take by the prior.
        latents: int16 [h, w, M], as a decoder will have them; all zero where pixels are stored.
    """

    chunks: list[Chunk]
    bits: float
    latents: np.ndarray

    @property
    def size(self) -> int:
        """Bytes of all payloads."""
        return sum(len(chunk.payload) for chunk in self.chunks)


@dataclass
class Read:
    """What chunks hold.

    Attributes:
        latents: int16 [h, w, M].
        stored: pixels of regions that are stored as they are, uint8 [H, W, C] each, by their places.
        lost: places of chunks that were lost to damage.
    """

    latents: np.ndarray
    stored: list[tuple[Place, np.ndarray]] = field(default_factory=list)
    lost: list[Place] = field(default_factory=list)


@torch.inference_mode()
def analyse(pixels: np.ndarray, point: Point, *, progress: Progress | None = None) -> np.ndarray:
    """What the codes are rounded from: uint8 [H, W, C] -> float32 [h, w, M], in steps."""
    stride = point.stride
    height, width = -(-pixels.shape[0] // stride), -(-pixels.shape[1] // stride)
    targets = np.empty((height, width, point.prior.shape.channels), np.float32)
    cut = tiling.blocks(height, width, point.halo, tiling.area_for(stride))
    for number, block in enumerate(cut):
        found = point.analyse(samples_around(pixels, block, stride).to(point.device))
        targets[block.inner] = found[0, block.within[0], block.within[1]].cpu().numpy()
        if progress:
            progress(number + 1, len(cut))
    return targets


def write(targets: np.ndarray, point: Point, geometry: Geometry, *, effort: int = 1) -> Written:
    """Round and code what `analyse` gave.

    Args:
        targets: float32 [h, w, M].
        point: the model and its place on the dial.
        geometry: of the picture.
        effort: 0: the nearest codes; above: of a model that gains by it, those that rate and distortion
            together favour.
    """
    places = [*geometry.places]
    chunks: list[Chunk | None] = [None] * len(places)
    latents = np.zeros(targets.shape, np.int16)
    bits = 0.0
    worth = np.float32(TRADE * point.multiplier)
    trade = worth * point.steps.square().cpu().numpy() if effort and point.codec.searched else None
    for numbers in _groups(places, range(len(places))):
        regions = point.prior.code([targets[places[n]] for n in numbers], point.place, trade)
        for number, region in zip(numbers, regions, strict=True):
            chunks[number] = Chunk(LEARNED, region.payload)
            latents[places[number]] = region.latents
            bits += region.bits
    return Written([chunk for chunk in chunks if chunk is not None], bits, latents)


def store(pixels: np.ndarray, point: Point, geometry: Geometry, *, below: int) -> Written | None:
    """The pixels themselves, deflated where that is smaller; None where they take `below` bytes or more.

    Where some of the rows say that they would take twice as much, they are not tried.

    Args:
        pixels: uint8 [H, W, C].
        point: the model; its latents are not needed.
        geometry: of the picture.
        below: what they would have to beat.
    """
    if pixels.nbytes >= below and _deflated_share(pixels) * pixels.nbytes >= 2 * below:
        return None
    chunks = []
    for place in geometry.places:
        samples = np.ascontiguousarray(pixels[tiling.scaled(place, geometry.stride)]).tobytes()
        chunks.append(Chunk(RAW, min(samples, deflate(samples), key=len)))
    written = Written(chunks, 0.0, np.zeros((*geometry.grid, point.prior.shape.channels), np.int16))
    return written if written.size < below else None


def read(stream: Bitstream, point: Point, *, salvage: bool = False, slices: int | None = None) -> Read:
    """Entropy-decode all chunks.

    Args:
        stream: parsed; chunks that it lost to damage have the latents of mid-grey.
        point: the model that wrote them, at the place that the bitstream names.
        salvage: treat chunks that cannot be decoded likewise, with a DamageWarning for each.
        slices: read only so many slices of channels.

    Raises:
        DamagedError: a chunk holds what no encoder writes.
        ModelError: a chunk is coded by a prior that the model does not have.
    """
    geometry = stream.geometry
    assert isinstance(geometry, Geometry)
    places = [*geometry.places]
    found = Read(np.zeros((*geometry.grid, point.prior.shape.channels), np.int16))
    coded = []
    for number, chunk in enumerate(stream.chunks):
        if chunk is None:
            found.lost.append(places[number])
        elif chunk.prior == LEARNED:
            coded.append(number)
        elif chunk.prior == RAW:
            samples = _inflated(chunk.payload, places[number], geometry)
            if samples is None:
                _refuse(number, len(places), salvage)
                found.lost.append(places[number])
            else:
                found.stored.append((places[number], samples))
        else:
            message = f"chunk {number + 1} is coded by a prior that {stream.model} does not have"
            raise ModelError(message, "upgrade")
    for numbers in _groups(places, coded):
        payloads = [chunk.payload for n in numbers if (chunk := stream.chunks[n]) is not None]
        height, width = (part.stop - part.start for part in places[numbers[0]])
        regions = point.prior.read(payloads, point.place, height, width, slices)
        for number, region in zip(numbers, regions, strict=True):
            if region is None:
                _refuse(number, len(places), salvage)
                found.lost.append(places[number])
            else:
                found.latents[places[number]] = region
    if found.lost:
        neutral = _neutral(point)
        for place in found.lost:
            found.latents[place] = neutral
    return found


def synthesise(
    found: Read, point: Point, geometry: Geometry, *, progress: Progress | None = None
) -> np.ndarray:
    """The picture that chunks hold: uint8 [H, W, C]."""
    if len(found.stored) < geometry.chunk_count:
        pixels = transform.synthesise(found.latents, point, geometry, progress=progress)
    else:
        pixels = np.empty((geometry.height, geometry.width, geometry.channels), np.uint8)
    for where, samples in found.stored:
        pixels[tiling.scaled(where, point.stride)] = samples
    return pixels


@torch.inference_mode()
def preview(found: Read, point: Point, geometry: Geometry) -> np.ndarray:
    """A picture of an eighth of the size, from the first slice of the latents: uint8 [H', W', C]."""
    small = point.glance(torch.from_numpy(found.latents[None]).to(point.device), SLICES_GLANCED)
    if geometry.channels == 1:
        small = small.mean(1, keepdim=True)
    pixels: np.ndarray = to_pixels(small)[0]
    for where, samples in found.stored:
        rows, columns = tiling.scaled(where, point.stride // 8)
        place = pixels[rows, columns]
        whole = tiling.extend(samples, 8 * place.shape[0], 8 * place.shape[1])
        means = whole.reshape(place.shape[0], 8, place.shape[1], 8, -1).mean((1, 3))
        place[:] = np.rint(means)
    return pixels[: -(-geometry.height // 8), : -(-geometry.width // 8)]


def _groups(places: Sequence[Place], numbers: Iterable[int]) -> list[list[int]]:
    """Numbers of the regions that are coded side by side: of one size each."""
    by_size: dict[tuple[int, ...], list[int]] = {}
    for number in numbers:
        size = tuple(part.stop - part.start for part in places[number])
        by_size.setdefault(size, []).append(number)
    return [group[at : at + TOGETHER] for group in by_size.values() for at in range(0, len(group), TOGETHER)]


def _deflated_share(pixels: np.ndarray) -> float:
    """About how much of its bytes a picture keeps when it is deflated, by some of its rows."""
    rows = pixels[:: max(1, len(pixels) // 32)]
    return len(deflate(np.ascontiguousarray(rows).tobytes())) / rows.nbytes


def _inflated(payload: bytes, place: Place, geometry: Geometry) -> np.ndarray | None:
    """The stored pixels of a region; None where no encoder writes this."""
    rows, columns = tiling.scaled(place, geometry.stride)
    height = min(rows.stop, geometry.height) - rows.start
    width = min(columns.stop, geometry.width) - columns.start
    size = height * width * geometry.channels
    samples = payload if len(payload) == size else inflate(payload, size)
    if samples is None:
        return None
    return np.frombuffer(samples, np.uint8).reshape(height, width, geometry.channels)


def _refuse(number: int, count: int, salvage: bool) -> None:
    message = f"damaged in chunk {number + 1} of {count}"
    if not salvage:
        raise DamagedError(message, "--salvage")
    warnings.warn(message, DamageWarning, stacklevel=4)


def _neutral(point: Point) -> np.ndarray:
    """Latents of the middle of a mid-grey picture: int16 [M]."""
    side = point.stride * (2 * point.halo + 1)
    with torch.inference_mode():
        found = point.analyse(torch.zeros(1, 3, side, side, device=point.device))
    middle: np.ndarray = np.rint(16 * found[0, point.halo, point.halo].cpu().numpy()).astype(np.int16)
    return middle
