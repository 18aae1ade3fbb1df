"""Short runs, and what they leave, for the tests of training."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL
from safetensors import safe_open
from safetensors.numpy import load_file
from vqcodec import training
from vqcodec.training import trainer, validation

QUICK = {**SMALL, "linear_start": "false", "codebook_start": "random"}
"""No PCA and no k-means before the first step: for tests that do not look at the result."""


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Bit for bit holds for one number of threads; plots take most of the time of such short runs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(validation, "plot_losses", lambda folder, headline: None)
    monkeypatch.setattr(trainer, "LOG_SECONDS", math.inf)
    yield
    torch.set_num_threads(threads)


def go(data: Any, output: Any, **options: Any) -> training.Run:
    defaults: dict[str, Any] = {"steps": 4, "batch": 2, "crop": 32, "overrides": QUICK, "checkpoint_every": 2}
    defaults["stage"] = "codec"
    return training.train(data, output=output, **({"model": "vqvae-image"} | defaults | options))


def metrics(folder: Path, *kinds: str) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [event for event in events if event["event"] in kinds]


def timeless(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in event.items() if k not in ("seconds", "best")} for event in events]


def interrupt_at(event: str, step: int) -> Any:
    def report(told: dict[str, Any]) -> None:
        if (told["event"], told.get("step")) == (event, step):
            os.kill(os.getpid(), signal.SIGINT)

    return report


def same_tensors(first: Path, second: Path) -> bool:
    a, b = load_file(first), load_file(second)
    assert a.keys() == b.keys()
    return all(a[name].tobytes() == b[name].tobytes() for name in a)


def saved_steps(folder: Path) -> list[int]:
    return sorted(int(path.stem.removeprefix("step-")) for path in (folder / "checkpoints").iterdir())


def clock(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="numpy") as file:
        found: dict[str, Any] = json.loads(file.metadata()["clock"])
    return found
