"""Codes of a picture <-> the chunks of its bitstream, by whichever prior makes each smallest."""

from __future__ import annotations

import warnings

import numpy as np
import torch

from . import rangecoder, tiling
from .container import RAW, REGION, STATIC, Bitstream, Chunk
from .errors import DamagedError, DamageWarning, ModelError
from .models.base import Codec
from .priors import base


def write(codes: np.ndarray, codec: Codec) -> list[Chunk | None]:
    """Each region of codes, int32 [h, w] in all, by static tables or packed, whichever is smaller."""
    parts, bits = _split(codes), _bits(codec)
    if codec.prior is None:
        return [Chunk(RAW, rangecoder.pack_raw(part, bits)) for part in parts]
    return [
        Chunk(STATIC, payload)
        if 8 * len(payload) < bits * part.size
        else Chunk(RAW, rangecoder.pack_raw(part, bits))
        for part, payload in zip(parts, base.compress(codec.prior, parts), strict=True)
    ]


def read(stream: Bitstream, codec: Codec, *, salvage: bool = False) -> np.ndarray:
    """Entropy-decode all chunks: int32 [h, w].

    Args:
        stream: parsed; chunks that it lost to damage become the code of mid-grey.
        codec: the model that wrote them.
        salvage: treat chunks that cannot be decoded likewise, with a DamageWarning for each.

    Raises:
        DamagedError: a chunk holds what no encoder writes.
        ModelError: a chunk is coded by a prior that the model does not have.
    """
    height, width = stream.geometry.grid
    places = tiling.regions(height, width, REGION)
    shapes = [(rows.stop - rows.start, columns.stop - columns.start) for rows, columns in places]
    codes = np.full((height, width), _grey(codec) if None in stream.chunks or salvage else 0, np.int32)
    priors = {} if codec.prior is None else {STATIC: codec.prior}
    by_prior: dict[int, list[int]] = {}
    for number, chunk in enumerate(stream.chunks):
        if chunk is None:
            continue
        if chunk.prior != RAW and chunk.prior not in priors:
            message = f"chunk {number + 1} is coded by a prior that {stream.model} does not have"
            raise ModelError(message, "upgrade")
        by_prior.setdefault(chunk.prior, []).append(number)
    for key, numbers in sorted(by_prior.items()):
        payloads = [chunk.payload for n in numbers if (chunk := stream.chunks[n]) is not None]
        found = _regions(priors.get(key), payloads, [shapes[n] for n in numbers], codec)
        for number, region in zip(numbers, found, strict=True):
            if region is not None:
                codes[places[number]] = region
                continue
            message = f"damaged in chunk {number + 1} of {len(places)}"
            if not salvage:
                raise DamagedError(message, "--salvage")
            warnings.warn(message, DamageWarning, stacklevel=3)
    return codes


def ideal_bits(codes: np.ndarray, codec: Codec) -> float | None:
    """Bits that the chunks of these codes, int32 [h, w], ought to take by the model's prior; None without."""
    return None if codec.prior is None else base.cost_bits(codec.prior, _split(codes))


def _split(codes: np.ndarray) -> list[np.ndarray]:
    """The regions of a grid of codes, in the order of their chunks."""
    height, width = codes.shape
    return [np.ascontiguousarray(codes[place]) for place in tiling.regions(height, width, REGION)]


def _regions(
    prior: base.Prior | None, payloads: list[bytes], shapes: list[tuple[int, int]], codec: Codec
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


def _unpacked(payload: bytes, shape: tuple[int, int], codec: Codec) -> np.ndarray:
    codes = rangecoder.unpack_raw(payload, shape[0] * shape[1], _bits(codec))
    if codes.max() >= codec.config.codes:
        raise DamagedError(f"a code beyond the {codec.config.codes} there are")
    return codes.reshape(shape)


def _bits(codec: Codec) -> int:
    levels: int = codec.config.codes
    return max(1, (levels - 1).bit_length())


def _grey(codec: Codec) -> int:
    """The code that the encoder gives to the middle of a mid-grey picture."""
    side = codec.stride * (2 * codec.halo + 1)
    grey = torch.zeros(1, 3, side, side, device=codec.device)
    with torch.inference_mode():
        return int(codec.analyse(grey)[0, codec.halo, codec.halo])
