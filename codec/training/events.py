"""Events of a training, and TensorBoard's copy of their numbers."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..models.base import Json

Event = Json
"""{"event": "start" | "step" | "validation" | ...} and what belongs to it."""

Report = Callable[[Event], None]


class TensorBoard:
    """Report that also writes the numbers of events for TensorBoard, into a folder of the run.

    Records are appended one by one: an interrupted run leaves no thread and no open file.

    Args:
        report: called with every event.

    Raises:
        UsageError: the package is not installed.
    """

    FOLDER = "tensorboard"

    def __init__(self, report: Report) -> None:
        try:
            from tensorboard.compat.proto import event_pb2
            from tensorboard.summary.writer.record_writer import RecordWriter
        except ImportError as error:
            hint = "pip install 'vqcodec[tensorboard]', or leave out --tensorboard"
            raise UsageError("TensorBoard is not installed", hint) from error
        self._report, self._record, self._writer = report, event_pb2.Event, RecordWriter
        self._path: Path | None = None

    def __call__(self, event: Event) -> None:
        """Write the numbers of an event at its step, and pass it on."""
        if event["event"] == "start":
            folder = Path(event["folder"]) / self.FOLDER
            folder.mkdir(exist_ok=True)
            self._path = folder / f"events.out.tfevents.{time.time_ns()}"
            self._write(file_version="brain.Event:2")
        if self._path is not None and "step" in event:
            values = [
                {"tag": f"{event['event']}/{name}", "simple_value": value}
                for name, value in numbers(event).items()
            ]
            self._write(step=event["step"], summary={"value": values})
        self._report(event)

    def _write(self, **fields: Any) -> None:
        assert self._path is not None
        with self._path.open("ab") as file:
            record = self._record(wall_time=time.time(), **fields)
            self._writer(file).write(record.SerializeToString())


def numbers(event: Event) -> dict[str, float]:
    """Return the numbers of an event by name; those of a list are numbered."""
    found: dict[str, float] = {}
    for name, value in event.items():
        several = enumerate(value) if isinstance(value, list) else [("", value)]
        for place, one in several:
            if isinstance(one, int | float) and not isinstance(one, bool) and name != "step":
                found[f"{name}_{place}" if place != "" else name] = float(one)
    return found
