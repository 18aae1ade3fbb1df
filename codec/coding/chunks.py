"""Code the symbols of all regions as chunks, each by the prior that makes it smallest, and decode them.

A region whose pixels are all stored (`stored`) has an empty chunk. Symbols of several planes begin with a CRC
of the first plane, which a damaged chunk can still be decoded to.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..bitstream.container import LEARNED, PIXELS, RAW, Bitstream, Chunk, Part
from ..bitstream.geometry import Geometry, ImageGeometry, Region
from ..errors import DamagedError, ModelError
from ..models.base import OperatingPoint, Plane
from ..priors.base import Array, Prior, Step, Symbols
from . import driver, rangecoder, stored
from .stored import StoredPixels

SLACK_BITS = 80
"""Largest excess of a payload over its cross-entropy, the prior id included, in bits."""


CHECK_BYTES = 4
"""Size of the CRC of the first plane, where there are several."""


class _Candidate(NamedTuple):
    """A coded region, and its cross-entropy in bits."""

    chunk: Chunk
    bits: float


@dataclass(frozen=True)
class EncodedChunks:
    """The chunks of an image or audio.

    Attributes:
        chunks: one for each region of the geometry.
        symbols: of each plane, as decoded; zero where all pixels of a region are stored.
        bits: cross-entropy of each region's symbols under their priors.
        tiles: stored pixels.
        mask: bool [H, W], which pixels are stored; None: none.
        residuals: one per region, or none.
    """

    chunks: list[Chunk]
    symbols: Symbols
    bits: list[float]
    tiles: list[Part] = field(default_factory=list)
    mask: NDArray[np.bool_] | None = None
    residuals: list[Part] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of all payloads."""
        sizes = [len(chunk.payload) for chunk in self.chunks]
        return sum(sizes) + sum(len(part.payload) for part in (*self.residuals, *self.tiles))


@dataclass
class DecodedChunks:
    """The decoded content of chunks.

    Attributes:
        symbols: of each plane.
        stored: stored pixels, which replace those of the symbols.
        lost: regions whose chunks are damaged; they have neutral symbols.
        damage: one phrase for each chunk or tile that no encoder writes, and for each chunk that kept its
            first plane.
        has_symbols: whether a region is decoded from symbols.
    """

    symbols: Symbols
    stored: list[StoredPixels] = field(default_factory=list)
    lost: list[Region] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)
    has_symbols: bool = True


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
    (coded,) = encode_together([targets], point, [geometry], fast=fast)
    return coded


def encode_together(
    targets: Sequence[Mapping[str, Array]],
    point: OperatingPoint,
    geometries: Sequence[Geometry],
    *,
    fast: bool = False,
) -> list[EncodedChunks]:
    """Code several images or sounds as `encode` codes each, their regions side by side.

    The priors compute in integers, so the payloads do not depend on what is coded with them.
    """
    planes = point.planes
    symbols = [{p.name: p.empty(geometry.grid(p.stride)) for p in planes} for geometry in geometries]
    owners = [(file, region) for file, geometry in enumerate(geometries) for region in geometry.regions]
    # Views: targets of large images are large.
    parts = [{p.name: targets[n][p.name][region.part(p.stride)] for p in planes} for n, region in owners]
    best = [_packed(part, planes) for part in parts] if _all_indices(planes) else []
    for number, prior in sorted(point.model.priors.items(), reverse=True):
        if best and fast and number == LEARNED:
            continue
        chosen = [n for n in range(len(parts)) if not best or _may_win(prior, parts[n], best[n])]
        results: dict[int, _Candidate] = {}
        for batch in prior.batches([owners[n][1].shape(planes[0].stride) for n in chosen]):
            some = [chosen[n] for n in batch]
            coded = driver.encode(prior, [parts[n] for n in some], point.index, point.quantise)
            for n, one in zip(some, coded, strict=True):
                payload = prior.prior_id + _check(one.symbols, planes) + one.payload
                results[n] = _Candidate(Chunk(number, payload), one.bits)
                _put(one.symbols, symbols, *owners[n], planes)
        if best:
            best = [min(before, results.get(n, before), key=_size) for n, before in enumerate(best)]
        else:
            best = [results[n] for n in range(len(parts))]
    if len(best) != len(parts):
        raise ModelError(f"{point.model.card.name} has no prior to code by", "copy the weights file again")
    if _all_indices(planes):  # indices are their own symbols, so packing loses nothing
        for owner, part in zip(owners, parts, strict=True):
            _put(part, symbols, *owner, planes)
    files: list[list[_Candidate]] = [[] for _ in geometries]
    for (file, _), candidate in zip(owners, best, strict=True):
        files[file].append(candidate)
    return [
        EncodedChunks([one.chunk for one in mine], symbols[file], [one.bits for one in mine])
        for file, mine in enumerate(files)
    ]


def _put(
    part: Symbols, symbols: Sequence[Symbols], file: int, region: Region, planes: Sequence[Plane]
) -> None:
    """Place the symbols of a region into the planes of its file."""
    for plane in planes:
        symbols[file][plane.name][region.part(plane.stride)] = part[plane.name]


def decode(
    stream: Bitstream,
    point: OperatingPoint,
    *,
    salvage: bool = False,
    preview: bool = False,
    levels: int | None = None,
) -> DecodedChunks:
    """Entropy-decode all chunks.

    Args:
        stream: parsed; regions of damaged chunks get neutral symbols, or those of their first plane.
        point: the model that encoded them, at the quality index of the bitstream.
        salvage: treat chunks that no encoder writes likewise, and list them in `damage`.
        preview: decode only the steps that a preview needs.
        levels: decode only the first planes, this many; the others are missing (`Plane.missing`).

    Raises:
        DamagedError: a chunk that no encoder writes.
        ModelError: a chunk is coded by a prior that the model does not have.
    """
    geometry, planes, regions = stream.geometry, point.planes, [*stream.geometry.regions]
    wanted = planes[:levels]

    def until(step: Step) -> bool:
        return (preview and not point.in_preview(step)) or all(step.plane != p.name for p in wanted)

    decoded = DecodedChunks({plane.name: plane.empty(geometry.grid(plane.stride)) for plane in planes})
    decoded.stored, decoded.damage = stored.decode(stream, salvage=salvage)
    whole = stored.whole_regions(decoded.stored, geometry) if isinstance(geometry, ImageGeometry) else {}
    tiles_intact = not decoded.damage and all(tile.intact for tile in stream.tiles)
    by_prior: dict[int, list[int]] = {}
    lost, reduced, invalid = set[int](), set[int](), set[int]()
    for index, chunk in enumerate(stream.chunks):
        if chunk.intact:
            _check_prior(index, chunk, stream, point)
        elif not _may_keep_a_plane(chunk, point):
            lost.add(index)
            continue
        by_prior.setdefault(chunk.prior, []).append(index)
    for number, indexes in sorted(by_prior.items()):
        some = [stream.chunks[n] for n in indexes]
        if number == PIXELS:
            for n, chunk in zip(indexes, some, strict=True):
                if not chunk.payload and n in whole:
                    continue
                lost.add(n)
                if tiles_intact:
                    invalid.add(n)
            continue
        parts = [{p.name: p.empty(regions[n].shape(p.stride)) for p in planes} for n in indexes]
        states = _decoded(point.model.priors.get(number), some, parts, point, until)
        for n, chunk, part, state in zip(indexes, some, parts, states, strict=True):
            if not state.valid and chunk.intact:
                invalid.add(n)
            if not (state.valid and chunk.intact):
                (reduced if state.first else lost).add(n)
            if state.first:
                for plane in planes:
                    there = plane in (planes[:1] if n in reduced else wanted)
                    values = part[plane.name] if there else plane.missing
                    decoded.symbols[plane.name][regions[n].part(plane.stride)] = values
    for index in sorted(invalid):
        message = f"damaged in chunk {index + 1} of {len(regions)}"
        if not salvage:
            raise DamagedError(message, "decode the undamaged part with --salvage")
        decoded.damage.append(message)
    checked = f"is decoded to its {planes[0].name} alone, which has a checksum of its own"
    decoded.damage += [f"chunk {n + 1} {checked}" for n in sorted(reduced)]
    decoded.lost = [regions[n] for n in sorted(lost)]
    decoded.has_symbols = bool(lost) or by_prior.keys() != {PIXELS}
    if lost:
        neutral = point.neutral()
        for region in decoded.lost:
            for plane in planes:
                decoded.symbols[plane.name][region.part(plane.stride)] = neutral[plane.name]
    return decoded


class _State(NamedTuple):
    """Whether all symbols of a chunk are right, as far as they were read, and those of the first plane."""

    valid: bool
    first: bool


def _decoded(
    prior: Prior | None,
    chunks: Sequence[Chunk],
    parts: Sequence[Symbols],
    point: OperatingPoint,
    until: Callable[[Step], bool],
) -> list[_State]:
    """Fill parts from payloads, batch by batch; without a prior indices are packed."""
    planes = point.planes
    start = 0 if prior is None else len(prior.prior_id)
    end = start + (CHECK_BYTES if len(planes) > 1 else 0)
    payloads = [chunk.payload[end:] for chunk in chunks]
    if prior is None:
        valid = [_unpacked(payload, part, planes) for payload, part in zip(payloads, parts, strict=True)]
    else:
        # Of a payload that is cut off, the words that are there.
        payloads = [p if c.intact else p[: len(p) // 4 * 4] for p, c in zip(payloads, chunks, strict=True)]
        valid = [False] * len(parts)
        for batch in prior.batches([part[planes[0].name].shape for part in parts]):
            some = [payloads[n] for n in batch], [parts[n] for n in batch]
            for n, ok in zip(batch, driver.decode(prior, *some, point.index, until), strict=True):
                valid[n] = ok
    states = []
    for chunk, part, ok in zip(chunks, parts, valid, strict=True):
        right = chunk.payload[start:end] == _check(part, planes)
        states.append(_State(ok and right, right and (ok or _keepable(planes))))
    return states


def _check(symbols: Symbols, planes: Sequence[Plane]) -> bytes:
    """CRC-32 of the first plane's symbols, two bytes each in raster order; of a single plane nothing."""
    if len(planes) == 1:
        return b""
    return zlib.crc32(symbols[planes[0].name].astype("<u2").tobytes()).to_bytes(CHECK_BYTES, "little")


def _may_keep_a_plane(chunk: Chunk, point: OperatingPoint) -> bool:
    """Whether the first plane of a damaged chunk is worth a try: there are more, and the prior is there."""
    prior = point.model.priors.get(chunk.prior)
    known = chunk.prior == RAW if prior is None else chunk.payload.startswith(prior.prior_id)
    return known and _keepable(point.planes)


def _keepable(planes: Sequence[Plane]) -> bool:
    """Whether the first plane can be decoded without the others."""
    return len(planes) > 1 and all(plane.missing is not None for plane in planes[1:])


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
    payload, bits = _check(part, planes), 0
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
