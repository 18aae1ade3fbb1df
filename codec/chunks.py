"""Codes of a picture or sound <-> the chunks of its bitstream, by whichever prior makes each smallest."""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch

from . import rangecoder
from .container import RAW, STATIC, Bitstream, Chunk
from .errors import DamagedError, DamageWarning, ModelError
from .geometry import AnyGeometry, Place
from .models.base import Codec
from .priors import base


def write(codes: np.ndarray, codec: Codec, geometry: AnyGeometry) -> list[Chunk | None]:
    """Each region of codes, int32 of the geometry's grid, by static tables or packed: the smaller wins."""
    parts, bits = _split(codes, geometry), _bits(codec)
    if codec.prior is None:
        return [Chunk(RAW, rangecoder.pack_raw(part, bits)) for part in parts]
    return [
        Chunk(STATIC, payload)
        if 8 * len(payload) < bits * part.size
        else Chunk(RAW, rangecoder.pack_raw(part, bits))
        for part, payload in zip(parts, base.compress(codec.prior, parts), strict=True)
    ]


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
    priors = {} if codec.prior is None else {STATIC: codec.prior}
    by_prior: dict[int, list[int]] = {}
    for number, chunk in enumerate(stream.chunks):
        if chunk is None:
            lost.append(places[number])
            continue
        if chunk.prior != RAW and chunk.prior not in priors:
            message = f"chunk {number + 1} is coded by a prior that {stream.model} does not have"
            raise ModelError(message, "upgrade")
        by_prior.setdefault(chunk.prior, []).append(number)
    for key, numbers in sorted(by_prior.items()):
        payloads = [chunk.payload for n in numbers if (chunk := stream.chunks[n]) is not None]
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


def ideal_bits(codes: np.ndarray, codec: Codec, geometry: AnyGeometry) -> float | None:
    """Bits that the chunks of these codes ought to take by the model's prior; None without one."""
    return None if codec.prior is None else base.cost_bits(codec.prior, _split(codes, geometry))


def _split(codes: np.ndarray, geometry: AnyGeometry) -> list[np.ndarray]:
    """The regions of a grid of codes, in the order of their chunks."""
    return [np.ascontiguousarray(codes[place]) for place in geometry.places]


def _regions(
    prior: base.Prior | None, payloads: list[bytes], shapes: list[tuple[int, ...]], codec: Codec
) -> list[np.ndarray | None]:
    """Decode payloads, without prior packed ones, at once if all are sound; None for each that is not."""
    try:
        if prior is None:
            return [_unpacked(data, shape, codec) for data, shape in zip(payloads, shapes, strict=True)]
        return [*base.decompress(prior, payloads, shapes)]
    except DamagedError:
        if len(payloads) == 1:
            return [None]
        pairs = zip(payloads, shapes, strict=True)
        return [_regions(prior, [data], [shape], codec)[0] for data, shape in pairs]


def _unpacked(payload: bytes, shape: tuple[int, ...], codec: Codec) -> np.ndarray:
    codes = rangecoder.unpack_raw(payload, math.prod(shape), _bits(codec))
    if codes.max() >= codec.config.codes:
        raise DamagedError(f"a code beyond the {codec.config.codes} there are")
    return codes.reshape(shape)


def _bits(codec: Codec) -> int:
    levels: int = codec.config.codes
    return max(1, (levels - 1).bit_length())


def _neutral(codec: Codec) -> int:
    """The code that the encoder gives to the middle of a mid-grey picture, or of silence."""
    side = codec.stride * (2 * codec.halo + 1)
    nothing = torch.zeros(1, codec.channels, *[side] * codec.axes, device=codec.device)
    with torch.inference_mode():
        return int(codec.analyse(nothing)[(0, *[codec.halo] * codec.axes)])
