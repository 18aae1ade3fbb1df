"""Collect what work on one input gives: fields of its record, warnings, or a failure.

An outcome is plain data: a worker process sends it to the one that prints.
"""

import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from vqcodec.errors import DamageWarning, FidelityWarning, MediaWarning, UsageError, VqcodecWarning

from .console import Failure
from .streams import OutputError

Fields = dict[str, Any]


class Details(logging.Handler):
    """Collect what the package logs, as lines that -vv prints."""

    def __init__(self, notes: list[tuple[str, int]]) -> None:
        super().__init__(logging.DEBUG)
        self._notes = notes

    def emit(self, record: logging.LogRecord) -> None:
        """Add a line, once."""
        line = record.getMessage(), 2
        if line not in self._notes:
            self._notes.append(line)


@contextmanager
def details(notes: list[tuple[str, int]]) -> Iterator[None]:
    """Collect what the package logs inside."""
    logger, handler = logging.getLogger("vqcodec"), Details(notes)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)


@dataclass
class Outcome:
    """Result of the work on one input.

    Attributes:
        name: of the input, in messages.
        fields: of its JSON record.
        warnings: about this input.
        general: warnings about the options or the model, the same for every input.
        notes: lines for `Console.note`, with their levels.
        damaged: whether a part of it was filled in.
        failure: why there is no result.
        data: the output, where it belongs into a tar; and its time.
        mtime: of the output, in a tar.
        seconds: that the work took.
    """

    name: str
    fields: Fields = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    general: list[str] = field(default_factory=list)
    notes: list[tuple[str, int]] = field(default_factory=list)
    damaged: bool = False
    failure: Failure | None = None
    data: bytes | None = None
    mtime: float | None = None
    seconds: float = 0.0

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Do a part of the work: collect its warnings, and an exception as the failure.

        Raises:
            UsageError: the options are wrong, not this input.
            OutputError, BrokenPipeError: stdout cannot be written.
        """
        started = time.perf_counter()
        with warnings.catch_warnings(record=True) as caught, details(self.notes):
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", VqcodecWarning)
            try:
                yield
            except (UsageError, BrokenPipeError, OutputError):
                raise
            except Exception as error:
                self.failure = Failure.of(error)
        self.seconds += time.perf_counter() - started
        for warning in caught:
            of_input = issubclass(warning.category, MediaWarning | DamageWarning | FidelityWarning)
            texts = self.warnings if of_input else self.general
            if str(warning.message) not in texts:
                texts.append(str(warning.message))
            self.damaged |= issubclass(warning.category, DamageWarning)
