"""Code the symbols of all regions as chunks, each by the prior that makes it smallest, and decode them.

Where the pixels of an image, deflated, are smaller than its symbols, all chunks store pixels instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..bitstream.binary import deflate, inflate
from ..bitstream.container import LEARNED, PIXELS, RAW, Bitstream, Chunk
from ..bitstream.geometry import Geometry, ImageGeometry, Region
from ..errors import DamagedError, ModelError
from ..models.base import OperatingPoint, Plane
from ..priors.base import Array, Prior, Symbols
from . import driver, rangecoder

SLACK_BITS = 80
"""Largest excess of a payload over its cross-entropy, the prior id included, in bits."""


class _Candidate(NamedTuple):
    """A coded region, and its cross-entropy in bits."""

    chunk: Chunk
    bits: float


@dataclass(frozen=True)
class EncodedChunks:
    """The chunks of an image or audio.

    Attributes:
        chunks: one for each region of the geometry.
        symbols: of each plane, as decoded; zero where pixels are stored.
        bits: cross-entropy of the symbols under their priors.
    """

    chunks: list[Chunk]
    symbols: Symbols
    bits: float

    @property
    def size(self) -> int:
        """Bytes of all payloads."""
        return sum(len(chunk.payload) for chunk in self.chunks)


@dataclass
class DecodedChunks:
    """The decoded content of chunks.

    Attributes:
        symbols: of each plane.
        pixels: of regions stored as pixels, uint8 [H, W, C] each.
        lost: regions whose chunks are damaged; they have neutral symbols.
        damage: one phrase for each damaged chunk.
    """

    symbols: Symbols
    pixels: list[tuple[Region, NDArray[np.uint8]]] = field(default_factory=list)
    lost: list[Region] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)


def encode(
    targets: Mapping[str, Array], point: OperatingPoint, geometry: Geometry, *, fast: bool = False
) -> EncodedChunks:
    """Code each region by the prior that makes it smallest, or pack its indices at a fixed width.

    Args:
        targets: plane -> output of the analysis transform: indices int32, or latents float32 in steps.
        point: the operating point, with its priors.
        geometry: of the image or audio.
        fast: skip learned priors, where there is another way.

    Raises:
        ModelError: latents, and no prior to code them.
        ValueError: an index beyond the alphabet of its plane.
    """
    planes, regions = point.planes, [*geometry.regions]
    # Views: targets of large images are large.
    parts = [{p.name: targets[p.name][region.part(p.stride)] for p in planes} for region in regions]
    symbols = {plane.name: plane.empty(geometry.grid(plane.stride)) for plane in planes}
    best = [_packed(part, planes) for part in parts] if _all_indices(planes) else []
    for number, prior in sorted(point.model.priors.items(), reverse=True):
        if best and fast and number == LEARNED:
            continue
        chosen = [n for n in range(len(parts)) if not best or _may_win(prior, parts[n], best[n])]
        results: dict[int, _Candidate] = {}
        for batch in prior.batches([regions[n].shape(planes[0].stride) for n in chosen]):
            some = [chosen[n] for n in batch]
            coded = driver.encode(prior, [parts[n] for n in some], point.index, point.quantise)
            for n, one in zip(some, coded, strict=True):
                results[n] = _Candidate(Chunk(number, prior.prior_id + one.payload), one.bits)
                for plane in planes:
                    symbols[plane.name][regions[n].part(plane.stride)] = one.symbols[plane.name]
        if best:
            best = [min(before, results.get(n, before), key=_size) for n, before in enumerate(best)]
        else:
            best = [results[n] for n in range(len(parts))]
    if len(best) != len(parts):
        raise ModelError(f"{point.model.card.name} has no prior to code by", "copy the weights file again")
    if _all_indices(planes):  # indices are their own symbols, so packing loses nothing
        for region, part in zip(regions, parts, strict=True):
            for plane in planes:
                symbols[plane.name][region.part(plane.stride)] = part[plane.name]
    return EncodedChunks([one.chunk for one in best], symbols, sum(one.bits for one in best))


def store(
    pixels: NDArray[np.uint8], point: OperatingPoint, geometry: ImageGeometry, *, below: int
) -> EncodedChunks | None:
    """Store the pixels, deflated where that is smaller; None where they take `below` bytes or more.

    A sample of rows estimates the size first; images that would take twice as much are not deflated.

    Args:
        pixels: uint8 [H, W, C].
        point: the operating point of the file, for its planes; pixels do not depend on it.
        geometry: of the image.
        below: size in bytes to stay below.
    """
    if pixels.nbytes >= below and _deflated_share(pixels) * pixels.nbytes >= 2 * below:
        return None
    chunks = []
    for region in geometry.regions:
        samples = np.ascontiguousarray(pixels[region.samples]).tobytes()
        chunks.append(Chunk(PIXELS, min(samples, deflate(samples), key=len)))
    empty = {plane.name: plane.empty(geometry.grid(plane.stride)) for plane in point.planes}
    stored = EncodedChunks(chunks, empty, 0.0)
    return stored if stored.size < below else None


def decode(
    stream: Bitstream, point: OperatingPoint, *, salvage: bool = False, preview: bool = False
) -> DecodedChunks:
    """Entropy-decode all chunks.

    Args:
        stream: parsed; regions of missing chunks get neutral symbols.
        point: the model that encoded them, at the quality index of the bitstream.
        salvage: give regions of undecodable chunks neutral symbols too, and list them in `damage`.
        preview: decode only the steps that a preview needs.

    Raises:
        DamagedError: a chunk that no encoder writes.
        ModelError: a chunk is coded by a prior that the model does not have.
    """
    geometry, planes, regions = stream.geometry, point.planes, [*stream.geometry.regions]
    decoded = DecodedChunks({plane.name: plane.empty(geometry.grid(plane.stride)) for plane in planes})
    by_prior: dict[int, list[int]] = {}
    broken: list[int] = []
    for index, chunk in enumerate(stream.chunks):
        if chunk is None:
            decoded.lost.append(regions[index])
        else:
            _check_prior(index, chunk, stream, point)
            by_prior.setdefault(chunk.prior, []).append(index)
    for prior_number, indexes in sorted(by_prior.items()):
        prior = point.model.priors.get(prior_number)
        skip = 0 if prior is None else len(prior.prior_id)
        payloads = [chunk.payload[skip:] for n in indexes if (chunk := stream.chunks[n]) is not None]
        some = [regions[n] for n in indexes]
        if prior_number == PIXELS and isinstance(geometry, ImageGeometry):
            read = [
                _stored(payload, region, geometry) for payload, region in zip(payloads, some, strict=True)
            ]
            valid = [pixels is not None for pixels in read]
            decoded.pixels += [(region, p) for region, p in zip(some, read, strict=True) if p is not None]
        else:
            parts = [{p.name: p.empty(region.shape(p.stride)) for p in planes} for region in some]
            if prior is None:
                valid = [
                    _unpacked(payload, part, planes) for payload, part in zip(payloads, parts, strict=True)
                ]
            else:
                valid = _decoded(prior, payloads, parts, point, preview=preview)
            for region, part, ok in zip(some, parts, valid, strict=True):
                if ok:
                    for plane in planes:
                        decoded.symbols[plane.name][region.part(plane.stride)] = part[plane.name]
        broken += [n for n, ok in zip(indexes, valid, strict=True) if not ok]
    for index in sorted(broken):
        message = f"damaged in chunk {index + 1} of {len(regions)}"
        if not salvage:
            raise DamagedError(message, "decode the undamaged part with --salvage")
        decoded.damage.append(message)
        decoded.lost.append(regions[index])
    if decoded.lost:
        neutral = point.neutral()
        for region in decoded.lost:
            for plane in planes:
                decoded.symbols[plane.name][region.part(plane.stride)] = neutral[plane.name]
    return decoded


def _decoded(
    prior: Prior,
    payloads: Sequence[bytes],
    parts: Sequence[Symbols],
    point: OperatingPoint,
    *,
    preview: bool,
) -> list[bool]:
    """Fill parts by the driver, batch by batch, and return whether each payload was valid."""
    valid = [False] * len(parts)
    first = point.planes[0].name
    until = (lambda step: not point.in_preview(step)) if preview else None
    for batch in prior.batches([part[first].shape for part in parts]):
        ok = driver.decode(prior, [payloads[n] for n in batch], [parts[n] for n in batch], point.index, until)
        for n, one in zip(batch, ok, strict=True):
            valid[n] = one
    return valid


def _check_prior(index: int, chunk: Chunk, stream: Bitstream, point: OperatingPoint) -> None:
    """Refuse a chunk whose prior the model does not have.

    Raises:
        ModelError: there is none.
    """
    if chunk.prior == PIXELS and isinstance(stream.geometry, ImageGeometry):
        return
    if chunk.prior == RAW and _all_indices(point.planes):
        return
    prior = point.model.priors.get(chunk.prior)
    if prior is None and chunk.prior == RAW and isinstance(stream.geometry, ImageGeometry):
        message = f"chunk {index + 1} holds packed indices, and {stream.model} has none"
        raise ModelError(message, "files with stored pixels from before 0.1.0: encode the image again")
    if prior is None:
        message = f"chunk {index + 1} is coded by a prior that {stream.model} does not have"
        raise ModelError(message, "upgrade vqcodec, or name the weights that wrote it with -m FILE")
    if not chunk.payload.startswith(prior.prior_id):
        needs = chunk.payload[: len(prior.prior_id)].hex()
        raise ModelError(
            f"chunk {index + 1} needs the prior {needs} of {stream.model}, not {prior.prior_id.hex()}",
            "name the weights that wrote it with -m FILE",
        )


def _all_indices(planes: Sequence[Plane]) -> bool:
    return all(plane.alphabet for plane in planes)


def _may_win(prior: Prior, part: Symbols, best: _Candidate) -> bool:
    """Return whether a prior may code a region in fewer bytes than the best candidate."""
    ideal = prior.estimate_bits(part)
    return ideal is None or ideal < best.bits + SLACK_BITS


def _size(candidate: _Candidate) -> tuple[int, int]:
    """Sort by size; of equal sizes the coding that decodes faster comes first."""
    return len(candidate.chunk.payload), candidate.chunk.prior


def _packed(part: Symbols, planes: Sequence[Plane]) -> _Candidate:
    """Pack indices at a fixed width, plane by plane."""
    payload, bits = b"", 0
    for plane in planes:
        indices = part[plane.name]
        if indices.size and not 0 <= indices.min() <= indices.max() < (plane.alphabet or 0):
            raise ValueError(f"indices of {plane.name} must be in 0..{(plane.alphabet or 0) - 1}")
        payload += rangecoder.pack_raw(indices, plane.raw_bits)
        bits += plane.raw_bits * indices.size
    return _Candidate(Chunk(RAW, payload), float(bits))


def _unpacked(payload: bytes, part: Symbols, planes: Sequence[Plane]) -> bool:
    """Unpack `_packed` into the arrays of a region, and return whether an encoder may have written it."""
    at = 0
    for plane in planes:
        array = part[plane.name]
        size = -(-array.size * plane.raw_bits // 8)
        last = plane is planes[-1]
        try:
            data = payload[at:] if last else payload[at : at + size]
            indices = rangecoder.unpack_raw(data, math.prod(array.shape), plane.raw_bits)
        except DamagedError:
            return False
        if indices.size and indices.max() >= (plane.alphabet or 0):
            return False
        array[...] = indices.reshape(array.shape)
        at += size
    return True


def _deflated_share(pixels: NDArray[np.uint8]) -> float:
    """Estimate the ratio of deflated to original bytes of an image, from a sample of its rows."""
    rows = pixels[:: max(1, len(pixels) // 32)]
    return len(deflate(np.ascontiguousarray(rows).tobytes())) / rows.nbytes


def _stored(payload: bytes, region: Region, geometry: ImageGeometry) -> NDArray[np.uint8] | None:
    """Return the stored pixels of a region; None where no encoder writes this payload."""
    height, width = region.shape(1)
    size = height * width * geometry.channels
    samples = payload if len(payload) == size else inflate(payload, size)
    if samples is None:
        return None
    return np.frombuffer(samples, np.uint8).reshape(height, width, geometry.channels)
