"""The commands that model cards record, with $DATA in the place of the user's folders."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..models.base import Figures
from .settings import held_out_share

Options = Figures
"""Fields of `TrainConfig` that the user gave."""


def command_line(
    data: Sequence[str | Path],
    name: str | None,
    start: str | Path | None,
    config: str | Path | None,
    given: Options,
    overrides: Mapping[str, str],
    note: str,
    stage: str,
    plane: str = "",
) -> str:
    """The command that repeats this run, with $DATA for the folders of the user."""
    words = ["vqcodec", "train", *(_below_data(p) for p in data)]
    if name is not None:
        words += ["-m", name]
    if stage != "all":
        words += ["--stage", stage]
    if plane:
        words += ["--plane", plane]
    if start is not None:
        words += ["--from", shlex.quote(Path(start).name)]
    if config is not None:
        words += ["--config", shlex.quote(Path(config).name)]
    words += option_words(given, overrides)
    if note:
        words += ["--note", shlex.quote(note)]
    return " ".join(words)


def option_words(given: Options, overrides: Mapping[str, str]) -> list[str]:
    """Options of `training.train` as the command line takes them."""
    words = []
    for key, value in given.items():
        text = str(value)
        if key == "time_budget":
            text = f"{value / 60:g}m"
        if key == "validation" and held_out_share(value) is None:
            text = _below_data(value)
        words += ["--lr" if key == "learning_rate" else f"--{key.replace('_', '-')}", text]
    for key, value in overrides.items():
        words += ["--set", f"{key}={value}"]
    return words


def _below_data(path: str | Path) -> str:
    """What a folder of the user is called in a recorded command: quoted so that $DATA is still replaced."""
    name = Path(path).resolve().name
    return f"$DATA/{name}" if shlex.quote(name) == name else f'"$DATA/{name}"'
