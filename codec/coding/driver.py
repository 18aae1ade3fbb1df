"""Encode, decode and sample the symbols of regions by a prior.

Decoding and sampling go through the steps of the prior's scan, with one entropy model per step and region.
So does encoding of latents, which fills the same arrays on the way: the prior cannot use what a decoder
lacks. Indices are known beforehand: their probabilities are computed in parallel where the prior can.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import DamagedError
from ..priors.base import Array, Categorical, EntropyModel, Prior, Step, Symbols
from .rangecoder import RangeDecoder, RangeEncoder

MIN_SYMBOLS_PER_CALL = 32
"""Smallest number of a region's indices per call of the coder: a call costs more than a symbol."""

Quantise = Callable[[Step, Array, EntropyModel], NDArray[np.int32]]
"""Targets at the positions of a step -> symbols."""


@dataclass(frozen=True)
class CodedRegion:
    """A coded region.

    Attributes:
        payload: bytes of the range coder.
        bits: cross-entropy: the sum of -log2 of the probabilities of its symbols.
        symbols: of each plane, as decoded.
    """

    payload: bytes
    bits: float
    symbols: Symbols


def nearest(step: Step, targets: Array, model: EntropyModel) -> NDArray[np.int32]:
    """Quantise to the nearest symbols."""
    del step
    return model.quantise(targets)


def encode(
    prior: Prior, regions: Sequence[Mapping[str, Array]], index: int, quantise: Quantise = nearest
) -> list[CodedRegion]:
    """Code regions side by side, each into bytes of its own.

    Args:
        prior: of the symbols.
        regions: plane -> output of the transform: indices int32 [h, w] or [T], latents float32 [h, w, M].
        index: quality index, 0..255.
        quantise: chooses the symbols of latents; indices are symbols already.
    """
    if all(target.dtype.kind != "f" for region in regions for target in region.values()):
        coded = [_encode_in_parallel(prior, region) for region in regions]
        whole = [one for one in coded if one is not None]
        if len(whole) == len(coded):
            return whole
    known = [{plane: _empty(target) for plane, target in region.items()} for region in regions]
    scan = prior.scan(known, index)
    writers = [_Writer() for _ in regions]
    for step in scan.steps:
        work = zip(writers, regions, known, step.positions, scan.models(step), strict=True)
        for writer, targets, symbols, positions, model in work:
            chosen = quantise(step, targets[step.plane][positions], model)
            writer.put(chosen, model)
            symbols[step.plane][positions] = model.values(chosen)
    return [writer.finish(symbols) for writer, symbols in zip(writers, known, strict=True)]


def _encode_in_parallel(prior: Prior, region: Mapping[str, Array]) -> CodedRegion | None:
    """Code indices, which are their own symbols; None if the prior needs a scan."""
    symbols = {plane: np.array(target, np.int32) for plane, target in region.items()}
    parts = prior.in_parallel(symbols)
    if parts is None:
        return None
    writer = _Writer()
    for codes, model in parts:
        writer.put(codes, model)
    return writer.finish(symbols)


def decode(
    prior: Prior,
    payloads: Sequence[bytes],
    known: Sequence[Symbols],
    index: int,
    until: Callable[[Step], bool] | None = None,
) -> list[bool]:
    """Decode payloads side by side.

    Args:
        prior: the prior of the encoder.
        payloads: bytes of each region.
        known: zeros of the shapes and types of each region's planes, filled in place.
        index: quality index, 0..255.
        until: stops before the first step for which it is true; the remaining bytes are not read.

    Returns:
        For each region, whether its payload was valid. Symbols of invalid ones are in range, but meaningless.
    """
    scan = prior.scan(known, index)
    decoders = [_opened(payload) for payload in payloads]
    for step in scan.steps:
        if until is not None and until(step):
            return [decoder is not None for decoder in decoders]
        work = zip(known, step.positions, scan.models(step), strict=True)
        for region, (symbols, positions, model) in enumerate(work):
            decoder = decoders[region]
            if decoder is None:
                continue
            try:
                symbols[step.plane][positions] = model.values(decoder.decode(model))
            except DamagedError:
                decoders[region] = None
    return [_ended(decoder) for decoder in decoders]


def sample(
    prior: Prior,
    known: Sequence[Symbols],
    prefix: Mapping[str, int],
    seeds: Sequence[tuple[int, int]],
    index: int,
) -> list[Symbols]:
    """Draw symbols from a prior, region by region side by side: ancestral sampling.

    Args:
        prior: of the symbols.
        known: planes of each region, with the symbols of the prefix.
        prefix: plane -> rows of an image, or positions of audio, from the first on, that stay as they are.
        seeds: two integers below 2**64 per region; equal seeds give equal symbols on every machine.
        index: quality index, 0..255.

    Returns:
        Symbols of each region.
    """
    samples = [{plane: _first(array, prefix[plane]) for plane, array in region.items()} for region in known]
    scan = prior.scan(samples, index)
    sources = [np.random.Philox(key=np.array(seed, np.uint64)) for seed in seeds]
    for step in scan.steps:
        work = zip(sources, samples, step.positions, scan.models(step), strict=True)
        for source, symbols, positions, model in work:
            array, values = symbols[step.plane], model.values(model.sample(source))
            keep = (positions[0] < prefix[step.plane]).reshape(-1, *[1] * (values.ndim - 1))
            array[positions] = np.where(keep, array[positions], values)
    return samples


class _Writer:
    """RangeEncoder of a region, which collects the indices of small steps."""

    def __init__(self) -> None:
        self.encoder, self.bits = RangeEncoder(), 0.0
        self._symbols: list[NDArray[np.int32]] = []
        self._frequencies: list[NDArray[np.uint32]] = []
        self._waiting = 0

    def put(self, symbols: NDArray[np.int32], model: EntropyModel) -> None:
        if not isinstance(model, Categorical):
            self._write(symbols, model)
            return
        if self._frequencies and self._frequencies[0].shape[1] != model.frequencies.shape[1]:
            self._flush()  # another plane, of another alphabet
        self._symbols.append(symbols)
        self._frequencies.append(model.frequencies)
        self._waiting += len(symbols)
        if self._waiting >= MIN_SYMBOLS_PER_CALL:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            self._symbols, self._frequencies = [], []
            return
        symbols, frequencies = self._symbols[0], self._frequencies[0]
        if len(self._symbols) > 1:
            symbols, frequencies = np.concatenate(self._symbols), np.concatenate(self._frequencies)
        self._symbols, self._frequencies, self._waiting = [], [], 0
        self._write(symbols, Categorical(frequencies))

    def _write(self, symbols: NDArray[np.int32], model: EntropyModel) -> None:
        self._flush()
        self.encoder.encode(symbols, model)
        self.bits += model.bits(symbols)

    def finish(self, symbols: Symbols) -> CodedRegion:
        self._flush()
        return CodedRegion(self.encoder.finish(), self.bits, symbols)


def _empty(target: Array) -> Array:
    """Return zeros for the symbols of a target: int16 for latents, int32 for indices."""
    return np.zeros(target.shape, np.int16 if target.dtype.kind == "f" else np.int32)


def _first(array: Array, count: int) -> Array:
    """Return a copy whose rows after the first `count` are zero."""
    copy = array.copy()
    copy[count:] = 0
    return copy


def _opened(payload: bytes) -> RangeDecoder | None:
    """Return a decoder at the first word of a payload; None for an incomplete number of words."""
    try:
        return RangeDecoder(payload)
    except DamagedError:
        return None


def _ended(decoder: RangeDecoder | None) -> bool:
    """Return whether decoding succeeded, and has read all of the payload."""
    try:
        if decoder is not None:
            decoder.finish()
    except DamagedError:
        return False
    return decoder is not None
