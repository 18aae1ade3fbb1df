"""Batches made while others are used."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread

from torch import Tensor


class Prefetcher:
    """Batches by number; when one is asked for, the next is begun in a thread of its own.

    Args:
        draw: makes a batch, a function of its number alone.
    """

    def __init__(self, draw: Callable[[int], Tensor]) -> None:
        self._draw = draw
        self._coming: _Coming | None = None

    def batch(self, number: int) -> Tensor:
        """The batch of this number; what making it raised is raised here."""
        coming, self._coming = self._coming, None
        if coming is None or coming.number != number:
            coming = _Coming(self._draw, number)
        batch = coming.batch()
        self._coming = _Coming(self._draw, number + 1)
        return batch


class _Coming(Thread):
    """One batch in the making."""

    def __init__(self, draw: Callable[[int], Tensor], number: int) -> None:
        super().__init__(daemon=True)
        self.number = number
        self._make = draw
        self._made: Tensor | BaseException | None = None
        self.start()

    def run(self) -> None:
        """Make it."""
        try:
            self._made = self._make(self.number)
        except BaseException as error:  # for whoever asks for the batch
            self._made = error

    def batch(self) -> Tensor:
        """Wait for it."""
        self.join()
        if isinstance(self._made, BaseException):
            raise self._made
        if self._made is None:
            raise RuntimeError("a thread that made nothing")
        return self._made
