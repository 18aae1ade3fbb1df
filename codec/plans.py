"""What a training is determined by: settings, run folder, and the commands that the model card records."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from . import weights
from .errors import UsageError
from .models import MODELS
from .models.vqvae import Config


@dataclass(frozen=True)
class Settings:
    """How a model is trained.

    Attributes:
        steps: optimiser steps, where no time budget is given.
        time_budget: seconds over which the schedule is laid, or None.
        batch: crops a step.
        crop: their side in pixels.
        learning_rate: peak of the cosine schedule.
        warmup: steps over which it rises.
        seed: of every random choice.
        average: decay of the averaged weights, which are the ones kept.
        clip: largest norm of the gradient.
        validation: held-out share of the files, or a folder or tar file.
        checkpoint_every: steps between validations, each followed by a checkpoint.
        keep_checkpoints: how many stay on the disk.
    """

    steps: int = 20_000
    time_budget: float | None = None
    batch: int = 16
    crop: int = 128
    learning_rate: float = 1e-3
    warmup: int = 100
    seed: int = 0
    average: float = 0.999
    clip: float = 1.0
    validation: str = "0.05"
    checkpoint_every: int = 1000
    keep_checkpoints: int = 3


@dataclass(frozen=True)
class Plan:
    """All that a run is determined by; this is its config.json."""

    name: str
    folder: Path
    data: list[str]
    start: str | None
    model: Config
    settings: Settings
    chain: list[str]
    note: str

    def write(self) -> None:
        """Put config.json into the run folder."""
        text = json.dumps({**asdict(self), "folder": str(self.folder)}, indent=2)
        weights.write_atomically(self.folder / "config.json", (text + "\n").encode())


def new_plan(
    data: Sequence[str | Path],
    name: str | None,
    start: str | Path | None,
    output: str | Path | None,
    config: str | Path | None,
    given: dict[str, Any],
    overrides: dict[str, str],
    note: str,
) -> Plan:
    """The plan of a fresh run, from what `training.train` was given.

    Raises:
        UsageError: an unknown model or setting, no data, or a run folder that is not empty.
    """
    saved = _read_config(Path(config)) if config is not None else {}
    name = name or saved.get("name")
    if name not in MODELS:
        raise UsageError(
            f"no model '{name}' to train" if name else "no model named", f"-m {' | '.join(MODELS)}"
        )
    if not data:
        raise UsageError("no folder or tar file to train on", "vqcodec train FOLDER -m " + name)
    chain: list[str] = []
    model = _from_json(Config, saved.get("model", {}), MODELS[name])
    if start is not None:
        card = weights.read_card(weights.locate(start))
        model = _from_json(Config, card["config"], MODELS[name])
        chain = list(card["training"]["chain"])
    settings = replace(_from_json(Settings, saved.get("settings", {}), Settings()), **given)
    for key, text in overrides.items():
        if key in {f.name for f in fields(Config)} and start is None:
            model = replace(model, **{key: _parse(Config, key, text)})
        elif key in {f.name for f in fields(Settings)}:
            settings = replace(settings, **{key: _parse(Settings, key, text)})
        else:
            raise UsageError(
                f"no setting '{key}'" + (" that --from leaves open" if start else ""), "see config.json"
            )
    folder = Path(output) if output is not None else _free_folder(name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists", f"--resume {folder} continues it; -o names another")
    chain.append(_command(data, name, start, given, overrides, note))
    paths = [str(Path(p).resolve()) for p in data]
    return Plan(name, folder, paths, None if start is None else str(start), model, settings, chain, note)


def resumed_plan(folder: Path, given: dict[str, Any]) -> Plan:
    """The plan of a run folder; only its limits can be changed.

    Raises:
        UsageError: no run folder, or an option that would make it another training.
    """
    saved = _read_config(folder / "config.json")
    changed = {k: v for k, v in given.items() if saved["settings"].get(k) != v}
    fixed = set(changed) - {"time_budget", "steps", "checkpoint_every", "keep_checkpoints"}
    if fixed:
        raise UsageError(f"--resume cannot change {', '.join(sorted(fixed))}", "start a new run with --from")
    settings = replace(_from_json(Settings, saved["settings"], Settings()), **changed)
    chain = list(saved["chain"])
    if changed:
        options = "".join(f" --{k.replace('_', '-')} {_duration(k, v)}" for k, v in changed.items())
        chain.append(f"vqcodec train --resume $RUN{options}")
    model = _from_json(Config, saved["model"], Config())
    return Plan(saved["name"], folder, saved["data"], saved["start"], model, settings, chain, saved["note"])


def _read_config(path: Path) -> dict[str, Any]:
    try:
        saved: dict[str, Any] = json.loads(path.read_text())
        saved["name"], saved["settings"], saved["model"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path}: not the config.json of a run", "name the folder of an earlier run"
        ) from error
    return saved


def _from_json(kind: type, values: Mapping[str, Any], default: Any) -> Any:
    known = {f.name for f in fields(kind)}
    unknown = set(values) - known
    if unknown:
        raise UsageError(f"unknown settings {', '.join(sorted(unknown))}", "made by another version?")
    return replace(default, **values)


def _parse(kind: type, key: str, text: str) -> Any:
    """The value of a setting from its text, by the field's type."""
    hint = get_type_hints(kind)[key]
    choices = getattr(hint, "__args__", ())
    if str in map(type, choices):
        if text not in choices:
            raise UsageError(f"{key} is '{text}'", f"one of {', '.join(choices)}")
        return text
    try:
        if hint is bool:
            return {"true": True, "false": False}[text.lower()]
        if hint is str:
            return text
        return int(text) if hint is int else float(text)
    except (ValueError, KeyError):
        expected = "true or false" if hint is bool else "a whole number" if hint is int else "a number"
        raise UsageError(f"{key} is '{text}'", f"give {expected}") from None


def _duration(key: str, value: Any) -> str:
    return f"{value / 60:g}m" if key == "time_budget" else str(value)


def _command(
    data: Sequence[str | Path],
    name: str,
    start: str | Path | None,
    given: Mapping[str, Any],
    overrides: Mapping[str, str],
    note: str,
) -> str:
    """The command that repeats this run, with $DATA for the folders of the user."""
    words = ["vqcodec", "train", *(f"$DATA/{Path(p).name}" for p in data), "-m", name]
    if start is not None:
        words += ["--from", Path(start).name]
    for key, value in given.items():
        text = f"$DATA/{Path(value).name}" if key == "validation" and "/" in value else _duration(key, value)
        words += ["--lr" if key == "learning_rate" else f"--{key.replace('_', '-')}", text]
    for key, text in overrides.items():
        words += ["--set", f"{key}={text}"]
    if note:
        words += ["--note", shlex.quote(note)]
    return " ".join(words)


def _free_folder(name: str) -> Path:
    number = 1
    while (folder := Path("runs") / f"{name}-{number}").exists():
        number += 1
    return folder
