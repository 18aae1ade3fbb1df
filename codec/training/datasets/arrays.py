"""Sets of small pictures of one size, in one file: .npy, .npz, and the idx files of MNIST, also with gzip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from ... import media
from ...errors import MediaError, TrainingError, UsageError
from ...transform.pixels import to_samples
from .files import BINARISATION, MEMORY, SPLIT, Entry, random_stream


@dataclass(frozen=True)
class Pictures:
    """Pictures of one size, held in memory.

    Attributes:
        pixels: uint8 [N, H, W, 1] or [N, H, W, 3].
        names: of the file that each came from.
        skipped: "name: why" of every file that could not be read.
        dynamic: whether pixels are drawn as 0 or 255 by every `batch`.
    """

    pixels: np.ndarray
    names: list[str]
    skipped: list[str]
    dynamic: bool = False

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def arrays(self) -> list[np.ndarray]:
        """The pictures, uint8 [H, W, 3] each."""
        return list(np.broadcast_to(self.pixels, (*self.pixels.shape[:3], 3)))

    @property
    def is_binary(self) -> bool:
        """Whether all pixels are 0 or 255."""
        return bool(np.isin(self.pixels, (0, 255)).all())

    def batch(self, step: int, *, seed: int, size: int, crop: float) -> Tensor:
        """Random pictures, whole and as they are, a function of the arguments alone.

        Args:
            step: number of the batch, or START and more.
            seed: of the training.
            size: pictures in the batch.
            crop: has no effect.

        Returns:
            float32 [size, 3, H, W] in -1..1; gray pictures three times.
        """
        del crop
        rng = random_stream(seed, step)
        chosen = self.pixels[rng.integers(len(self.pixels), size=size)]
        if self.dynamic:
            chosen = _drawn(chosen, rng)
        return to_samples(chosen).expand(-1, 3, -1, -1)

    def split(self, fraction: float, seed: int) -> tuple[Pictures, Pictures]:
        """Held-out pictures: (training, validation), at least one in each."""
        order = random_stream(seed, SPLIT).permutation(len(self))
        held = min(max(round(len(self) * fraction), 1), len(self) - 1)
        return self._chosen(np.sort(order[held:])), self._chosen(np.sort(order[:held]))

    def binarised(self, how: str, seed: int) -> Pictures:
        """Pictures of 0 and 255, as in `binarised`."""
        if how == "threshold":
            return replace(self, pixels=np.where(self.pixels < 128, np.uint8(0), np.uint8(255)))
        if how == "static":
            return replace(self, pixels=_drawn(self.pixels, random_stream(seed, BINARISATION)))
        return replace(self, dynamic=True)

    def _chosen(self, numbers: np.ndarray) -> Pictures:
        return replace(self, pixels=self.pixels[numbers], names=[self.names[n] for n in numbers])


def is_set(entry: Entry) -> bool:
    """Return whether a file has the name of a set of pictures."""
    return media.SET_NAMES.search(entry.path) is not None


def load(files: Sequence[Entry]) -> Pictures:
    """Read the sets of pictures among the files.

    Raises:
        TrainingError: none could be read, they differ in size, or they are too large for the memory.
    """
    found: dict[str, np.ndarray] = {}
    skipped: list[str] = []
    for entry in files:
        try:
            if not is_set(entry):
                raise MediaError("not a set of pictures", "give .npy, .npz or idx files")
            found[entry.name] = _pictures(entry.read())
        except MediaError as error:
            skipped.append(f"{entry.name}: {error.message}")
        except OSError as error:
            skipped.append(f"{entry.name}: {error}")
    if not found:
        raise TrainingError(
            f"no readable pictures: {skipped[0]}", "give uint8 [N, H, W] or [N, H, W, 3] in .npy, .npz or idx"
        )
    shapes = {array.shape[1:] for array in found.values()}
    if len(shapes) > 1:
        sizes = ", ".join(sorted("x".join(map(str, shape)) for shape in shapes))
        raise TrainingError(f"pictures of several sizes: {sizes}", "name one file")
    names = [name for name, array in found.items() for _ in range(len(array))]
    return Pictures(np.concatenate([*found.values()]), names, skipped)


def binarised(data: object, how: str, seed: int, *, dynamic: bool = True) -> Pictures:
    """Return a dataset as pictures of 0 and 255.

    Args:
        data: a dataset.
        how: "none", not at all; "threshold", 1 from 128 on; "static", 1 with probability v / 255, drawn once;
            "dynamic", drawn again each time that a picture is used.
        seed: of the draw.
        dynamic: whether a dynamic draw is made again for every batch; else it is made once.

    Raises:
        UsageError: other pixels that are not to be binarised, or no set of small pictures.
    """
    if not isinstance(data, Pictures):
        raise UsageError("this model is for pixels of 0 and 1", "give a set of pictures: .npy, .npz or idx")
    if how == "none":
        if not data.is_binary:
            raise UsageError("pixels other than 0 and 1", "--binarise static, dynamic or threshold")
        return data
    return data.binarised("static" if how == "dynamic" and not dynamic else how, seed)


def _drawn(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw 255 with probability v / 255, else 0: v = 0 and v = 255 stay as they are."""
    chosen = rng.integers(255, size=pixels.shape, dtype=np.uint8) < pixels
    return np.where(chosen, np.uint8(255), np.uint8(0))


def _pictures(data: bytes) -> np.ndarray:
    """Read a set as uint8 [N, H, W, 1] or [N, H, W, 3]; of 0 and 1 alone, as 0 and 255.

    Raises:
        MediaError: something else.
    """
    array = media.read_set(data, memory=MEMORY).pixels
    if array.ndim == 3:
        array = array[..., None]
    return np.ascontiguousarray(array * np.uint8(255) if array.max() <= 1 else array)
