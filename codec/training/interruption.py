"""Ctrl-C during a training: the step is finished and saved first."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interruption:
    """Whether a training was asked to end.

    Attributes:
        asked: whether it was.
    """

    def __init__(self) -> None:
        self.asked = False

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Note a Ctrl-C; a second one interrupts at once."""

        def stop(_signal: int, _frame: FrameType | None) -> None:
            if self.asked:
                raise KeyboardInterrupt
            self.asked = True

        try:
            before = signal.signal(signal.SIGINT, stop)
        except ValueError:  # not in the main thread: the caller's handler stays
            yield
            return
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
