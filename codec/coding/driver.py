"""The one loop that encodes, decodes and samples the symbols of regions by a prior.

All three walk through the steps of the prior's scan, one entropy model per step and region, and fill the same
arrays on the way, so that the prior cannot use what a decoder lacks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import DamagedError
from ..priors.base import Array, Categorical, EntropyModel, Prior, Step, Symbols
from .rangecoder import Decoder, Encoder

MIN_SYMBOLS_PER_CALL = 32
"""Indices of a region that are written together, at least: a call costs more than a symbol."""

Quantise = Callable[[Step, Array, EntropyModel], NDArray[np.int32]]
"""What a transform gave at the positions of a step -> symbols."""


@dataclass(frozen=True)
class CodedRegion:
    """A region in bytes.

    Attributes:
        payload: of the range coder.
        bits: that it ought to take: the sum of -log2 of the probabilities of its symbols.
        symbols: as a decoder will have them.
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
        prior: gives the probabilities.
        regions: plane -> what the transform gave, indices int32 [h, w] or [T], latents float32 [h, w, M].
        index: quality index, 0..255.
        quantise: chooses symbols.
    """
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


def decode(
    prior: Prior,
    payloads: Sequence[bytes],
    known: Sequence[Symbols],
    index: int,
    until: Callable[[Step], bool] | None = None,
) -> list[bool]:
    """Decode payloads side by side.

    Args:
        prior: the one that `encode` had.
        payloads: bytes of each region.
        known: zeros of the shapes and types of each region's planes, which are filled.
        index: quality index, 0..255.
        until: ends the walk before the first step that it holds for; what is left of the bytes is not read.

    Returns:
        For each region, whether its payload was sound. Symbols of others are in range, but mean nothing.
    """
    scan = prior.scan(known, index)
    decoders = [_opened(payload) for payload in payloads]
    for step in scan.steps:
        if until is not None and until(step):
            return [decoder is not None for decoder in decoders]
        work = zip(known, step.positions, scan.models(step), strict=True)
        for number, (symbols, positions, model) in enumerate(work):
            decoder = decoders[number]
            if decoder is None:
                continue
            try:
                symbols[step.plane][positions] = model.values(decoder.decode(model))
            except DamagedError:
                decoders[number] = None
    return [_ended(decoder) for decoder in decoders]


def sample(
    prior: Prior,
    known: Sequence[Symbols],
    kept: Mapping[str, int],
    seeds: Sequence[tuple[int, int]],
    index: int,
) -> list[Symbols]:
    """Draw symbols from a prior, region by region side by side: ancestral sampling.

    Args:
        prior: gives the probabilities.
        known: per region; the shapes of its planes, and the symbols that are kept.
        kept: plane -> rows of an image, or positions of audio, that stay as they are, from the first on.
        seeds: two numbers below 2**64 per region: the same give the same symbols on every machine.
        index: quality index, 0..255.
    """
    drawn = [{plane: _first(array, kept[plane]) for plane, array in region.items()} for region in known]
    scan = prior.scan(drawn, index)
    sources = [np.random.Philox(key=np.array(seed, np.uint64)) for seed in seeds]
    for step in scan.steps:
        work = zip(sources, drawn, step.positions, scan.models(step), strict=True)
        for source, symbols, positions, model in work:
            array, values = symbols[step.plane], model.values(model.sample(source))
            given = positions[0] < kept[step.plane]
            array[positions] = np.where(given.reshape(-1, *[1] * (values.ndim - 1)), array[positions], values)
    return drawn


class _Writer:
    """Codes a region; of steps with few indices some together."""

    def __init__(self) -> None:
        self.encoder, self.bits = Encoder(), 0.0
        self._symbols: list[NDArray[np.int32]] = []
        self._frequencies: list[NDArray[np.uint32]] = []
        self._waiting = 0

    def put(self, symbols: NDArray[np.int32], model: EntropyModel) -> None:
        if not isinstance(model, Categorical):
            self._write(symbols, model)
            return
        self._symbols.append(symbols)
        self._frequencies.append(model.frequencies)
        self._waiting += len(symbols)
        if self._waiting >= MIN_SYMBOLS_PER_CALL:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
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
    """Zeros for the symbols of a target: latents are held as int16, indices as they are."""
    return np.zeros(target.shape, np.int16 if target.dtype.kind == "f" else np.int32)


def _first(array: Array, kept: int) -> Array:
    """A copy whose rows behind the first `kept` are zero."""
    copy = array.copy()
    copy[kept:] = 0
    return copy


def _opened(payload: bytes) -> Decoder | None:
    """A decoder at the first word of a payload; None where that is no whole number of words."""
    try:
        return Decoder(payload)
    except DamagedError:
        return None


def _ended(decoder: Decoder | None) -> bool:
    """Whether a decoder is still there, and has read all."""
    try:
        if decoder is not None:
            decoder.finish()
    except DamagedError:
        return False
    return decoder is not None
