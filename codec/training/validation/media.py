"""What validation needs of a medium: windows of files, distances, files in memory, contact sheets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import PIL.Image
import torch

from ... import media
from ...models.base import Model, OperatingPoint
from ...priors.base import Symbols
from . import audio, image


class Medium(Protocol):
    """Images, or audio.

    Attributes:
        headline: name of the figure in the events that tells of the distortion, and its label.
        sign: 1 where a larger one is better, else -1.
        rate: "bpp" or "kbps".
        rates: name -> rate in bits per pixel or sample at which figures are interpolated.
        interpolated: first part of the name of an interpolated figure -> the figure.
    """

    headline: tuple[str, str]
    sign: int
    rate: str
    rates: Mapping[str, float]
    interpolated: Mapping[str, str]

    def window(self, original: np.ndarray, point: OperatingPoint, *, short: bool = False) -> np.ndarray:
        """The part of a file that is looked at, in multiples of the stride; `short` for a contact sheet."""

    def to_tensor(self, window: np.ndarray) -> torch.Tensor:
        """Samples as models take them, [1, C, ...]."""

    def to_array(self, samples: torch.Tensor) -> np.ndarray:
        """Samples as files hold them."""

    def figures(self, decoded: np.ndarray, original: np.ndarray, point: OperatingPoint) -> dict[str, float]:
        """Distances, by the names that they have in events and cards."""

    def wrap(self, original: np.ndarray, point: OperatingPoint) -> media.Image | media.Audio:
        """A file in memory."""

    def unwrap(self, decoded: media.Image | media.Audio) -> np.ndarray:
        """The array of a file in memory, as `figures` takes it."""

    def analyse(self, original: np.ndarray, point: OperatingPoint) -> list[Symbols]:
        """Symbols of a whole file, by regions whose statistics are counted."""

    def sheet(self, pairs: Sequence[tuple[np.ndarray, np.ndarray]], point: OperatingPoint) -> PIL.Image.Image:
        """Originals above what became of them."""

    def sampled(self, model: Model, count: int) -> PIL.Image.Image:
        """What is drawn from the learned prior of a model."""


MEDIA: dict[str, Medium] = {"image": image.ImageMedium(), "audio": audio.AudioMedium()}
"""Name -> medium."""
