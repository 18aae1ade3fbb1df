"""Resample audio block by block, and check what audio may be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import soxr

from ..errors import MediaError

BLOCK = 1 << 16
"""Frames that are read, resampled or written together."""

LOWEST_RATE, HIGHEST_RATE = 8_000, 192_000
MAX_CHANNELS = 255


def check(rate: int, channels: int, frames: int = 1) -> None:
    """Refuse audio of a rate, or with channels or frames, that cannot be coded.

    Raises:
        MediaError: outside the limits.
    """
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise MediaError(f"{rate:,} samples a second", f"resample it to {LOWEST_RATE:,} to {HIGHEST_RATE:,}")
    if not 1 <= channels <= MAX_CHANNELS:
        raise MediaError(f"{channels} channels, limit {MAX_CHANNELS}", "split the file")
    if frames < 1:
        raise MediaError("no samples", "give one or more; if there should be some, copy the file again")


def to_signal(
    blocks: Iterable[np.ndarray], channels: int, rate: int, signal_rate: int, reserved: int
) -> tuple[np.ndarray, int]:
    """Resample blocks [n, C] to a signal float32 [C, N] at `signal_rate`; also return the number of frames.

    Args:
        blocks: at `rate`.
        channels: C.
        rate: samples a second.
        signal_rate: likewise.
        reserved: frames for which memory is allocated at first.
    """
    frames = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal frames
        for block in blocks:
            if not np.isfinite(block).all():
                what = "NaN" if np.isnan(block).any() else "infinite"
                raise MediaError(f"{what} samples", "repair the file first")
            frames += len(block)
            yield block

    # The resampler may round the length differently.
    spare = 1 << 10
    signal = np.zeros((channels, length(reserved, rate, signal_rate) + spare), np.float32)
    at = 0
    for piece in resampled(counted(), channels, rate, signal_rate):
        if at + len(piece) > signal.shape[1] - spare // 2:
            signal = np.pad(signal, ((0, 0), (0, signal.shape[1] + len(piece))))
        signal[:, at : at + len(piece)] = piece.T
        at += len(piece)
    return signal[:, : length(frames, rate, signal_rate)], frames


def length(frames: int, rate: int, wanted: int) -> int:
    """Return the number of samples at the wanted rate that cover `frames`."""
    return -(-frames * wanted // rate)


def resampled(blocks: Iterable[np.ndarray], channels: int, rate: int, wanted: int) -> Iterator[np.ndarray]:
    """Resample blocks [n, C]."""
    if rate == wanted:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate, wanted, channels, dtype="float32")
    for block in blocks:
        yield stream.resample_chunk(np.ascontiguousarray(block))
    yield stream.resample_chunk(np.zeros((0, channels), np.float32), last=True)
