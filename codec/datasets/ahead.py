"""Batches made while others are used."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor


class Ahead:
    """Batches by number; when one is asked for, the next is begun in another thread.

    Args:
        draw: makes a batch, a function of its number alone.
    """

    def __init__(self, draw: Callable[[int], Tensor]) -> None:
        self._draw = draw
        self._worker = ThreadPoolExecutor(1)
        self._coming: dict[int, Future[Tensor]] = {}

    def batch(self, number: int) -> Tensor:
        """The batch of this number."""
        coming = self._coming.pop(number, None) or self._worker.submit(self._draw, number)
        self._coming = {number + 1: self._worker.submit(self._draw, number + 1)}
        return coming.result()
