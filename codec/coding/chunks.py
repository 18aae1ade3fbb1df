"""Symbols of all regions <-> the chunks of a bitstream, by whichever prior makes each smallest.

Where the samples of an image themselves, deflated, are smaller than its symbols, all chunks hold those.
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
"""By how much a payload may be longer than its ideal, the prior id included."""


class _Candidate(NamedTuple):
    """A region in bytes, and the bits that it ought to take."""

    chunk: Chunk
    bits: float


@dataclass(frozen=True)
class EncodedChunks:
    """An image or audio as chunks.

    Attributes:
        chunks: one for each region of the geometry.
        symbols: of each plane, as a decoder will have them; zero where pixels are stored.
        bits: that the chunks ought to take: the cross-entropy of the symbols under their priors.
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
    """What chunks hold.

    Attributes:
        symbols: of each plane.
        pixels: of regions that are stored as they are, uint8 [H, W, C] each.
        lost: regions whose chunks were lost to damage; they have neutral symbols.
        damage: what is damaged, in words.
    """

    symbols: Symbols
    pixels: list[tuple[Region, NDArray[np.uint8]]] = field(default_factory=list)
    lost: list[Region] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)


def encode(
    targets: Mapping[str, Array], point: OperatingPoint, geometry: Geometry, *, fast: bool = False
) -> EncodedChunks:
    """Code each region by the prior that makes it smallest, or pack it.

    Args:
        targets: plane -> what the transform gave: indices int32, or latents float32 in steps.
        point: whose priors code them.
        geometry: of the image or audio.
        fast: do without a learned prior, where there is another way.

    Raises:
        ValueError: an index that its plane does not have.
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
        raise ModelError(f"{point.model.card.name} has no prior to code by", "copy the file again")
    if _all_indices(planes):  # which are their own symbols, whatever codes them
        for region, part in zip(regions, parts, strict=True):
            for plane in planes:
                symbols[plane.name][region.part(plane.stride)] = part[plane.name]
    return EncodedChunks([one.chunk for one in best], symbols, sum(one.bits for one in best))


def store(
    pixels: NDArray[np.uint8], point: OperatingPoint, geometry: ImageGeometry, *, below: int
) -> EncodedChunks | None:
    """Store the pixels, deflated where that is smaller; None where they take `below` bytes or more.

    Where some of the rows say that they would take twice as much, they are not tried.

    Args:
        pixels: uint8 [H, W, C].
        point: the model that decodes the file; it has no part in this.
        geometry: of the image.
        below: what they would have to beat.
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
        stream: parsed; regions of chunks that it lost to damage get neutral symbols.
        point: the model that wrote them, at the quality index that the bitstream names.
        salvage: treat chunks that cannot be decoded likewise, and list them in `damage`.
        preview: read only the steps that a preview needs.

    Raises:
        DamagedError: a chunk holds what no encoder writes.
        ModelError: a chunk is coded by a prior that the model does not have.
    """
    geometry, planes, regions = stream.geometry, point.planes, [*stream.geometry.regions]
    found = DecodedChunks({plane.name: plane.empty(geometry.grid(plane.stride)) for plane in planes})
    by_prior: dict[int, list[int]] = {}
    broken: list[int] = []
    for number, chunk in enumerate(stream.chunks):
        if chunk is None:
            found.lost.append(regions[number])
        else:
            _check_prior(number, chunk, stream, point)
            by_prior.setdefault(chunk.prior, []).append(number)
    for prior_number, numbers in sorted(by_prior.items()):
        prior = point.model.priors.get(prior_number)
        skip = 0 if prior is None else len(prior.prior_id)
        payloads = [chunk.payload[skip:] for n in numbers if (chunk := stream.chunks[n]) is not None]
        some = [regions[n] for n in numbers]
        if prior_number == PIXELS and isinstance(geometry, ImageGeometry):
            read = [
                _stored(payload, region, geometry) for payload, region in zip(payloads, some, strict=True)
            ]
            sound = [pixels is not None for pixels in read]
            found.pixels += [(region, p) for region, p in zip(some, read, strict=True) if p is not None]
        else:
            parts = [{p.name: p.empty(region.shape(p.stride)) for p in planes} for region in some]
            if prior is None:
                sound = [
                    _unpacked(payload, part, planes) for payload, part in zip(payloads, parts, strict=True)
                ]
            else:
                sound = _decoded(prior, payloads, parts, point, preview=preview)
            for region, part, fine in zip(some, parts, sound, strict=True):
                if fine:
                    for plane in planes:
                        found.symbols[plane.name][region.part(plane.stride)] = part[plane.name]
        broken += [n for n, fine in zip(numbers, sound, strict=True) if not fine]
    for number in sorted(broken):
        message = f"damaged in chunk {number + 1} of {len(regions)}"
        if not salvage:
            raise DamagedError(message, "--salvage")
        found.damage.append(message)
        found.lost.append(regions[number])
    if found.lost:
        neutral = point.neutral()
        for region in found.lost:
            for plane in planes:
                found.symbols[plane.name][region.part(plane.stride)] = neutral[plane.name]
    return found


def _decoded(
    prior: Prior,
    payloads: Sequence[bytes],
    parts: Sequence[Symbols],
    point: OperatingPoint,
    *,
    preview: bool,
) -> list[bool]:
    """Fill parts by the driver, batch by batch; whether each was sound."""
    sound = [False] * len(parts)
    first = point.planes[0].name
    until = (lambda step: not point.in_preview(step)) if preview else None
    for batch in prior.batches([part[first].shape for part in parts]):
        fine = driver.decode(
            prior, [payloads[n] for n in batch], [parts[n] for n in batch], point.index, until
        )
        for n, one in zip(batch, fine, strict=True):
            sound[n] = one
    return sound


def _check_prior(number: int, chunk: Chunk, stream: Bitstream, point: OperatingPoint) -> None:
    """Refuse a chunk that the model has no prior for.

    Raises:
        ModelError: there is none.
    """
    if chunk.prior == PIXELS and isinstance(stream.geometry, ImageGeometry):
        return
    if chunk.prior == RAW and _all_indices(point.planes):
        return
    prior = point.model.priors.get(chunk.prior)
    if prior is None:
        message = f"chunk {number + 1} is coded by a prior that {stream.model} does not have"
        raise ModelError(message, "upgrade vqcodec, or name the weights that wrote it with -m")
    if not chunk.payload.startswith(prior.prior_id):
        needs = chunk.payload[: len(prior.prior_id)].hex()
        raise ModelError(
            f"chunk {number + 1} needs the prior {needs} of {stream.model}, not {prior.prior_id.hex()}",
            "name the weights that wrote it with -m FILE",
        )


def _all_indices(planes: Sequence[Plane]) -> bool:
    return all(plane.alphabet for plane in planes)


def _may_win(prior: Prior, part: Symbols, best: _Candidate) -> bool:
    """Whether a region may turn out smaller by a prior than it is."""
    ideal = prior.estimate_bits(part)
    return ideal is None or ideal < best.bits + SLACK_BITS


def _size(candidate: _Candidate) -> tuple[int, int]:
    """Smaller first; of equal size what is quicker to decode."""
    return len(candidate.chunk.payload), candidate.chunk.prior


def _packed(part: Symbols, planes: Sequence[Plane]) -> _Candidate:
    """Indices at a fixed width, plane by plane."""
    payload, bits = b"", 0
    for plane in planes:
        indices = part[plane.name]
        if indices.size and not 0 <= indices.min() <= indices.max() < (plane.alphabet or 0):
            raise ValueError(f"indices of {plane.name} must be in 0..{(plane.alphabet or 0) - 1}")
        payload += rangecoder.pack_raw(indices, plane.raw_bits)
        bits += plane.raw_bits * indices.size
    return _Candidate(Chunk(RAW, payload), float(bits))


def _unpacked(payload: bytes, part: Symbols, planes: Sequence[Plane]) -> bool:
    """Undo `_packed` into the arrays of a region; False where no encoder writes this."""
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
    """About how much of its bytes an image keeps when it is deflated, by some of its rows."""
    rows = pixels[:: max(1, len(pixels) // 32)]
    return len(deflate(np.ascontiguousarray(rows).tobytes())) / rows.nbytes


def _stored(payload: bytes, region: Region, geometry: ImageGeometry) -> NDArray[np.uint8] | None:
    """The stored pixels of a region; None where no encoder writes this."""
    height, width = region.shape(1)
    size = height * width * geometry.channels
    samples = payload if len(payload) == size else inflate(payload, size)
    if samples is None:
        return None
    return np.frombuffer(samples, np.uint8).reshape(height, width, geometry.channels)
