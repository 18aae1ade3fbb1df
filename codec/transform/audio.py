"""Transform audio to targets, and symbols to audio, channel by channel and block by block.

Channels are coded one by one, each normalised to the loudness of the training data; two equal channels are
coded as one, silent channels not at all. Two channels that differ little are predicted from one (`stereo`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..bitstream.geometry import SEGMENT, AudioGeometry, Region
from ..models.base import OperatingPoint, Progress
from ..priors.base import Array, Symbols
from . import loudness, stereo, tiling
from .loudness import Loudness
from .stereo import Cues


def analyse(
    signal: NDArray[np.float32],
    point: OperatingPoint,
    geometry: AudioGeometry,
    levels: Sequence[Loudness],
    *,
    progress: Progress | None = None,
) -> dict[str, Array]:
    """Compute the targets of all channels.

    Args:
        signal: float32 [C, N], at the rate of the model.
        point: the operating point.
        geometry: of the audio.
        levels: loudness of each channel.
        progress: called with the number of blocks done and of all blocks.

    Returns:
        Plane -> int32 [C, T] or float32 [C, T, M]; of silent channels zero.
    """
    kinds = {p.name: np.int32 if p.alphabet else np.float32 for p in point.planes}
    targets = {p.name: p.empty(geometry.grid(p.stride)).astype(kinds[p.name]) for p in point.planes}
    for done, channel in enumerate(geometry.audible):
        part = _part(progress, done, len(geometry.audible))
        found = analyse_signal(signal[channel], point, level=levels[channel], progress=part)
        for name, values in found.items():
            targets[name][channel] = values
    return targets


def synthesise(
    symbols: Symbols,
    point: OperatingPoint,
    geometry: AudioGeometry,
    levels: Sequence[Loudness],
    cues: Sequence[Cues] = (),
    lost: Sequence[Region] = (),
    *,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Reconstruct all channels from symbols: float32 [C, N].

    Args:
        symbols: of each plane, [C, T] or [C, T, M].
        point: the operating point of the symbols.
        geometry: of the audio.
        levels: loudness of each channel.
        cues: by which both channels are predicted from the mid; none: they are not.
        lost: regions that become silent.
        progress: called with the number of blocks done and of all blocks.
    """
    signal = np.zeros((geometry.channels, geometry.samples), np.float32)
    block = SEGMENT * geometry.stride
    for done, number in enumerate(geometry.audible):
        part = _part(progress, done, len(geometry.audible))
        mine = {name: array[number] for name, array in symbols.items()}
        channel = synthesise_signal(mine, point, geometry.samples, seed=number, progress=part)
        for start in range(0, len(channel), block):
            stop = min(start + block, len(channel))
            factors = np.float32(levels[number].factors(start, stop))
            np.multiply(channel[start:stop], factors, out=signal[number, start:stop])
    for region in lost:
        signal[region.part(1)] = 0
    if cues:
        return stereo.upmix(signal[0], cues)
    return loudness.to_left_right(signal) if geometry.mid_side else signal


@torch.inference_mode(False)
@torch.no_grad()
def analyse_signal(
    signal: NDArray[np.float32],
    point: OperatingPoint,
    *,
    level: Loudness | None = None,
    longest: int = SEGMENT,
    progress: Progress | None = None,
) -> dict[str, Array]:
    """Compute the targets of one channel, block by block.

    Args:
        signal: float32 [N], at the rate of the model.
        point: the operating point.
        level: loudness of the channel; None: that of the training data.
        longest: largest number of positions of the coarsest plane in a block.
        progress: called with the number of blocks done and of all blocks.

    Returns:
        Plane -> int32 [T] or float32 [T, M], T = ceil(N / stride).
    """
    stride = point.stride
    targets: dict[str, Array] = {}
    # Blocks overlap in a search: codes at the end of a block are chosen together with those of the next one.
    spans = tiling.spans(-(-len(signal) // stride), point.analysis_halo, longest)
    for number, span in enumerate(spans):
        (outer,) = tiling.scaled((span.outer,), stride)
        window = signal[outer]
        if level is not None:
            window = window * np.float32(1 / level.factors(outer.start, outer.start + len(window)))
        window = np.pad(window, (0, -len(window) % stride))
        found = point.analyse(torch.from_numpy(window)[None, None].to(point.device))
        for plane in point.planes:
            values = found[plane.name][0].cpu().numpy()
            if plane.name not in targets:
                kind = np.int32 if plane.alphabet else np.float32
                targets[plane.name] = np.empty((-(-len(signal) // plane.stride), *values.shape[1:]), kind)
            scale = stride // plane.stride
            (inner,), (within,) = tiling.scaled((span.inner,), scale), tiling.scaled((span.within,), scale)
            target = targets[plane.name][inner]
            target[...] = values[within][: len(target)]
        if progress:
            progress(number + 1, len(spans))
    return targets


@torch.inference_mode()
def synthesise_signal(
    symbols: Symbols,
    point: OperatingPoint,
    count: int,
    *,
    seed: int = 0,
    longest: int = SEGMENT,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Reconstruct one channel from symbols: float32 [count].

    Args:
        symbols: of each plane, [T] or [T, M].
        point: the operating point of the symbols.
        count: number of samples.
        seed: of an autoregressive decoder.
        longest: largest number of positions of the coarsest plane in a block.
        progress: called with the number of blocks done and of all blocks.
    """
    stride = point.stride
    length = -(-count // stride)
    if point.whole:
        every = {name: _tensor(array, point) for name, array in symbols.items()}
        whole: NDArray[np.float32] = point.synthesise(every, seed, progress)[0, 0, :count].cpu().numpy()
        return whole
    signal = np.empty(count, np.float32)
    spans = tiling.spans(length, point.halo, longest)
    for number, span in enumerate(spans):
        window = {}
        for plane in point.planes:
            scale = stride // plane.stride
            part = symbols[plane.name][tiling.scaled((span.outer,), scale)]
            wanted = scale * (span.outer.stop - span.outer.start)
            window[plane.name] = _tensor(extended(part, wanted, scale, plane.missing), point)
        decoded = point.synthesise(window, seed)[0, 0].cpu().numpy()
        target = signal[tiling.scaled((span.inner,), stride)]
        target[:] = decoded[tiling.scaled((span.within,), stride)][: len(target)]
        if progress:
            progress(number + 1, len(spans))
    return signal


def extended(symbols: Array, count: int, period: int, missing: int | None) -> Array:
    """Continue symbols beyond the end of the audio, to whole blocks, by those of the block before.

    Args:
        symbols: of one plane, [T] or [T, M].
        count: positions wanted, at least T.
        period: positions in a block; symbols at different ones may be of different codebooks.
        missing: stands for symbols of a first block that are not known; None: the last one does.

    Returns:
        [count] or [count, M].
    """
    at = np.arange(count)
    at -= -(-np.maximum(at - len(symbols) + 1, 0) // period) * period
    found = symbols[np.where(at < 0, len(symbols) - 1, at)]
    if missing is not None:
        found[at < 0] = missing
    return found


def _tensor(symbols: Array, point: OperatingPoint) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(symbols)[None]).to(point.device)


def _part(progress: Progress | None, number: int, count: int) -> Progress | None:
    """Return the progress of one of several equal parts."""
    if progress is None:
        return None
    return lambda done, whole: progress(number * whole + done, count * whole)
