"""Codes of a picture or sound <-> the chunks of its bitstream, by whichever prior makes each smallest."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch

from ..bitstream.container import LEARNED, RAW, STATIC, Bitstream, Chunk
from ..bitstream.geometry import AnyGeometry, Place
from ..errors import DamagedError, DamageWarning, ModelError
from ..models.base import Codec
from ..priors import base
from . import rangecoder

SLACK = 80
"""Bits by which a payload may be longer than what its codes ought to take, the mark of a prior included."""

TOGETHER = 256
"""Chunks that are coded at a time: of a sound, each takes about half a megabyte meanwhile."""


@dataclass(frozen=True)
class Written:
    """The chunks of some codes.

    Attributes:
        chunks: one for each place of the geometry.
        bits: that they ought to take by the priors that they are coded by.
    """

    chunks: list[Chunk | None]
    bits: float


def write(codes: np.ndarray, codec: Codec, geometry: AnyGeometry, *, fast: bool = False) -> Written:
    """Each region of codes by the learned prior, by static tables, or packed: the smallest wins.

    Args:
        codes: int32 of the geometry's grid.
        codec: the model whose priors code them.
        geometry: of the picture or sound.
        fast: do without the learned prior.
    """
    parts, width = _split(codes, geometry), _bits(codec)
    best = [(Chunk(RAW, rangecoder.pack_raw(part, width)), float(width * part.size)) for part in parts]
    if codec.learned is not None and not fast:
        _improve(best, LEARNED, codec.learned, parts, [*range(len(parts))], codec)
    if codec.prior is not None:
        # Coded only where it may turn out smaller.
        ideal = [codec.prior.bits(part) for part in parts]
        near = [n for n, (_, bits) in enumerate(best) if ideal[n] < bits + SLACK]
        _improve(best, STATIC, codec.prior, parts, near, codec)
    return Written([chunk for chunk, _ in best], sum(bits for _, bits in best))


def _improve(
    best: list[tuple[Chunk, float]],
    key: int,
    prior: base.Prior,
    parts: list[np.ndarray],
    numbers: list[int],
    codec: Codec,
) -> None:
    """Code these regions by a prior, and keep what is smaller, or as small and quicker to decode."""
    mark = _mark(key, codec)
    for at in range(0, len(numbers), TOGETHER):
        some = numbers[at : at + TOGETHER]
        for number, one in zip(some, base.coded(prior, [parts[n] for n in some]), strict=True):
            chunk, before = Chunk(key, mark + one.payload), best[number][0]
            if (len(chunk.payload), key) < (len(before.payload), before.prior):
                best[number] = chunk, one.bits


def read(
    stream: Bitstream, codec: Codec, *, salvage: bool = False, lost: list[Place] | None = None
) -> np.ndarray:
    """Entropy-decode all chunks: int32 of the geometry's grid; zero where there are none.

    Args:
        stream: parsed; chunks that it lost to damage become the code of mid-grey, or of silence.
        codec: the model that wrote them.
        salvage: treat chunks that cannot be decoded likewise, with a DamageWarning for each.
        lost: a list that the places of such chunks are added to.

    Raises:
        DamagedError: a chunk holds what no encoder writes.
        ModelError: a chunk is coded by a prior that the model does not have.
    """
    places = list(stream.geometry.places)
    codes = np.zeros(stream.geometry.grid, np.int32)
    lost = [] if lost is None else lost
    priors = _priors(codec)
    by_prior: dict[int, list[int]] = {}
    for number, chunk in enumerate(stream.chunks):
        if chunk is None:
            lost.append(places[number])
            continue
        if chunk.prior != RAW and chunk.prior not in priors:
            message = f"chunk {number + 1} is coded by a prior that {stream.model} does not have"
            raise ModelError(message, "upgrade")
        mark = _mark(chunk.prior, codec)
        if not chunk.payload.startswith(mark):
            needs = chunk.payload[: len(mark)].hex()
            raise ModelError(
                f"chunk {number + 1} needs the prior {needs} of {stream.model}, not {mark.hex()}", "-m FILE"
            )
        by_prior.setdefault(chunk.prior, []).append(number)
    for key, numbers in sorted(by_prior.items()):
        skip = len(_mark(key, codec))
        payloads = [chunk.payload[skip:] for n in numbers if (chunk := stream.chunks[n]) is not None]
        shapes = [codes[places[n]].shape for n in numbers]
        found = _regions(priors.get(key), payloads, shapes, codec)
        for number, region in zip(numbers, found, strict=True):
            if region is not None:
                codes[places[number]] = region
                continue
            message = f"damaged in chunk {number + 1} of {len(places)}"
            if not salvage:
                raise DamagedError(message, "--salvage")
            warnings.warn(message, DamageWarning, stacklevel=3)
            lost.append(places[number])
    for place in lost:
        codes[place] = _neutral(codec)
    return codes


def _priors(codec: Codec) -> dict[int, base.Prior]:
    """Number in a chunk -> prior of the model."""
    both = {STATIC: codec.prior, LEARNED: codec.learned}
    return {key: prior for key, prior in both.items() if prior is not None}


def _mark(key: int, codec: Codec) -> bytes:
    """What a payload begins with: a learned prior's fingerprint, since a model may be given a new one."""
    return codec.learned.mark if key == LEARNED and codec.learned is not None else b""


def _split(codes: np.ndarray, geometry: AnyGeometry) -> list[np.ndarray]:
    """The regions of a grid of codes, in the order of their chunks."""
    return [np.ascontiguousarray(codes[place]) for place in geometry.places]


def _regions(
    prior: base.Prior | None, payloads: list[bytes], shapes: list[tuple[int, ...]], codec: Codec
) -> list[np.ndarray | None]:
    """Decode payloads, without prior packed ones; None for each that no encoder writes."""
    if prior is not None:
        return [*base.salvaged(prior, payloads, shapes)]
    return [_unpacked(data, shape, codec) for data, shape in zip(payloads, shapes, strict=True)]


def _unpacked(payload: bytes, shape: tuple[int, ...], codec: Codec) -> np.ndarray | None:
    try:
        codes = rangecoder.unpack_raw(payload, math.prod(shape), _bits(codec))
    except DamagedError:
        return None
    return codes.reshape(shape) if codes.max() < codec.config.codes else None


def _bits(codec: Codec) -> int:
    levels: int = codec.config.codes
    return max(1, (levels - 1).bit_length())


def _neutral(codec: Codec) -> int:
    """The code that the encoder gives to the middle of a mid-grey picture, or of silence."""
    side = codec.stride * (2 * codec.halo + 1)
    nothing = torch.zeros(1, codec.channels, *[side] * codec.axes, device=codec.device)
    with torch.inference_mode():
        return int(codec.analyse(nothing)[(0, *[codec.halo] * codec.axes)])
