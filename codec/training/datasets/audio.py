"""Audio for training: random segments; for validation: whole clips."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ... import media
from ...errors import MediaError, MediaWarning, TrainingError
from ...transform.highpass import high_pass
from ...transform.loudness import factor_of, gain_of
from .augmentation import Augmentation
from .files import MEMORY, Entry, random_stream

LOUDER_DB = 6.0
"""Segments are made louder or softer by up to this."""


@dataclass(frozen=True)
class Clips:
    """Decoded clips, held in memory, one channel each.

    Attributes:
        arrays: float32 [N] each, at `rate` and the loudness that encoders bring channels to; no silent ones.
        names: of the file that each came from.
        skipped: "name: why" of every file that could not be read.
        rate: samples a second.
        multiple: segments are a multiple of this long.
        augmentation: what is done to each segment.
    """

    arrays: list[np.ndarray]
    names: list[str]
    skipped: list[str]
    rate: int = 16_000
    multiple: int = 64
    augmentation: Augmentation = Augmentation()

    def __len__(self) -> int:
        return len(self.arrays)

    def batch(self, step: int, *, seed: int, size: int, crop: float) -> Tensor:
        """Random segments, of random loudness and polarity.

        The result depends on the arguments alone, so that a resumed training sees the same data.

        Args:
            step: number of the batch, or START and more.
            seed: of the training.
            size: segments in the batch.
            crop: their length in seconds; shorter clips are followed by silence.

        Returns:
            float32 [size, 1, N] in -1..1, N a multiple of `multiple`.
        """
        rng = random_stream(seed, step)
        length = max(round(crop * self.rate / self.multiple), 1) * self.multiple
        out = np.zeros((size, 1, length), np.float32)
        for n in range(size):
            clip = self.arrays[rng.integers(len(self.arrays))]
            start = int(rng.integers(max(len(clip) - length, 0) + 1))
            before = min(start, round(self.augmentation.context * self.rate))
            piece = clip[start - before : start + length]
            piece = self.augmentation.apply(piece, before, self.rate, rng)
            peak = float(np.abs(piece).max(initial=1e-9))
            gain = min(10 ** (rng.uniform(-LOUDER_DB, LOUDER_DB) / 20), 1 / peak)
            out[n, 0, : len(piece)] = piece * (gain if rng.random() < 0.5 else -gain)
        return torch.from_numpy(out)

    def augmented(self, augmentation: Augmentation) -> Clips:
        """Return the clips, whose segments will be augmented."""
        return replace(self, augmentation=augmentation)


def load(
    files: Sequence[Entry],
    *,
    seed: int = 0,
    memory: int = MEMORY,
    whole: bool = False,
    skipped: list[str] | None = None,
    rate: int = 16_000,
    multiple: int = 64,
) -> Clips:
    """Decode the audio among the files, every channel a clip of its own, as loud as codecs have it inside.

    Args:
        files: what to read; files of another kind, and broken ones, are listed in `skipped`.
        seed: has no effect; long clips are kept from their beginning.
        memory: bytes of samples that may be held.
        whole: has no effect.
        skipped: the list to add unreadable files to, where there is one already.
        rate: samples a second that they are brought to.
        multiple: what the length of segments is a multiple of.

    Raises:
        TrainingError: no audio could be read.
    """
    del seed, whole
    clips: list[np.ndarray] = []
    names: list[str] = []
    skipped = [] if skipped is None else skipped
    allowance = max(memory // max(len(files), 1) // 4, rate)
    for name, signal in _decoded(files, rate, skipped):
        for channel in high_pass(signal[:, : allowance // len(signal)], rate):
            if gain := gain_of(channel):
                clips.append(channel * np.float32(1 / factor_of(gain)))
                names.append(name)
    if not clips:
        why = f": {skipped[0]}" if skipped else ""
        raise TrainingError(
            f"no readable audio{why}", "give a folder or tar file with WAV, FLAC, OGG or MP3 files"
        )
    return Clips(clips, names, skipped, rate, multiple)


def _decoded(files: Sequence[Entry], rate: int, skipped: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    for entry in files:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", MediaWarning)
                signal = media.read_audio(entry.read(), rate).signal
        except (MediaError, OSError) as error:
            skipped.append(f"{entry.name}: {getattr(error, 'message', error)}")
            continue
        yield entry.name, signal
