"""What a training is determined by: settings, run folder, and the commands that the model card records."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from . import checkpoints, weights
from .errors import UsageError
from .files import atomically
from .models import MODELS
from .models.vqvae import VQVAE, Config

TRAINING_ONLY = {"commitment", "decay", "restart_below", "restart_until"}
"""Settings of a model that do not change what its weights mean."""

_MANY, _TINY, _ALMOST_ONE = 1 << 31, 1e-12, 1 - 1e-9
RANGES: dict[str, tuple[float, float]] = {
    "steps": (1, _MANY),
    "time_budget": (_TINY, _MANY),
    "batch": (1, _MANY),
    "crop": (VQVAE.stride, 1 << 14),
    "learning_rate": (_TINY, 1e38),
    "warmup": (0, _MANY),
    "seed": (0, _MANY - 1),
    "average": (0, _ALMOST_ONE),
    "clip": (_TINY, 1e38),
    "checkpoint_every": (1, _MANY),
    "keep_checkpoints": (1, _MANY),
    "encoder_width": (1, 1 << 14),
    "encoder_hidden": (1, 1 << 14),
    "encoder_blocks": (0, 100),
    "decoder_width": (1, 1 << 14),
    "decoder_hidden": (1, 1 << 14),
    "decoder_blocks": (0, 100),
    "codes": (2, (1 << 16) - 1),
    "code_dim": (1, 3 * VQVAE.stride**2),
    "decay": (0, _ALMOST_ONE),
    "restart_below": (0, 1),
    "restart_until": (0, 1),
    "commitment": (0, 1e38),
}
"""Setting -> the smallest and the largest value that a training can work with."""


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

    @property
    def weights_name(self) -> str:
        """What bitstreams will call the model: the run folder's name, in the characters they allow."""
        return re.sub(r"[^A-Za-z0-9._+-]+", "-", self.folder.resolve().name).strip("._+-")[:64] or self.name

    def write(self) -> None:
        """Put config.json into the run folder."""
        text = json.dumps({**asdict(self), "folder": str(self.folder)}, indent=2)
        with atomically(self.folder / "config.json") as file:
            file.write((text + "\n").encode())


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
        if key in (TRAINING_ONLY if start is not None else {f.name for f in fields(Config)}):
            model = replace(model, **{key: _parse(Config, key, text)})
        elif key in {f.name for f in fields(Settings)}:
            settings = replace(settings, **{key: _parse(Settings, key, text)})
        else:
            raise UsageError(
                f"no setting '{key}'" + (" that --from leaves open" if start else ""), "see config.json"
            )
    _check(model, settings)
    if not _is_number(settings.validation):
        settings = replace(settings, validation=str(Path(settings.validation).resolve()))
    folder = Path(output) if output is not None else _free_folder(name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists", f"--resume {folder} continues it; -o names another")
    chain.append(_command(data, name, start, config, given, overrides, note))
    paths = [str(Path(p).resolve()) for p in data]
    origin = None if start is None else str(weights.locate(start).resolve())
    return Plan(name, folder, paths, origin, model, settings, chain, note)


def resumed_plan(folder: Path, given: dict[str, Any], overrides: dict[str, str]) -> Plan:
    """The plan of a run folder that is continued; what changes is added to the chain of commands.

    Limits can be changed, and settings in TRAINING_ONLY.

    Raises:
        UsageError: no run folder, or an option that would make it another training.
    """
    saved = _read_config(folder / "config.json")
    step = checkpoints.step_of(checkpoints.newest(folder / "checkpoints"))
    if not _is_number(given.get("validation", "0")):
        given = {**given, "validation": str(Path(given["validation"]).resolve())}
    changed = {k: v for k, v in given.items() if saved["settings"].get(k) != v}
    fixed = set(changed) - {"time_budget", "steps", "checkpoint_every", "keep_checkpoints"}
    fixed |= set(overrides) - TRAINING_ONLY
    if fixed:
        raise UsageError(f"--resume cannot change {', '.join(sorted(fixed))}", "start a new run with --from")
    if "steps" in changed and "time_budget" not in changed:
        changed["time_budget"] = None
    settings = replace(_from_json(Settings, saved["settings"], Settings()), **changed)
    model = _from_json(Config, saved["model"], Config())
    model = replace(model, **{key: _parse(Config, key, text) for key, text in overrides.items()})
    _check(model, settings)
    chain = list(saved["chain"])
    if changed or overrides:
        limits = {k: v for k, v in changed.items() if v is not None}
        options = "".join(f" --{k.replace('_', '-')} {_duration(k, v)}" for k, v in limits.items())
        options += "".join(f" --set {k}={v}" for k, v in overrides.items())
        chain.append(f"vqcodec train --resume $RUN{options}  # from step {step}")
    return Plan(saved["name"], folder, saved["data"], saved["start"], model, settings, chain, saved["note"])


def _read_config(path: Path) -> dict[str, Any]:
    try:
        saved: dict[str, Any] = json.loads(path.read_text())
        if not {f.name for f in fields(Plan)} <= saved.keys():
            raise ValueError("fields are missing")
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


def _check(model: Config, settings: Settings) -> None:
    """Refuse what would fail hours later, or without a word about its cause.

    Raises:
        UsageError: a setting out of its range.
    """
    for name, value in {**asdict(model), **asdict(settings)}.items():
        if name in RANGES and value is not None:
            low, high = RANGES[name]
            if not low <= value <= high:
                raise UsageError(f"{name} is {value}", f"give {low:g} to {high:g}")
    if settings.crop % VQVAE.stride:
        raise UsageError(f"crop is {settings.crop}", f"give a multiple of {VQVAE.stride}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _duration(key: str, value: Any) -> str:
    return f"{value / 60:g}m" if key == "time_budget" else str(value)


def _command(
    data: Sequence[str | Path],
    name: str,
    start: str | Path | None,
    config: str | Path | None,
    given: Mapping[str, Any],
    overrides: Mapping[str, str],
    note: str,
) -> str:
    """The command that repeats this run, with $DATA for the folders of the user."""
    words = ["vqcodec", "train", *(_below_data(p) for p in data), "-m", name]
    if start is not None:
        words += ["--from", shlex.quote(Path(start).name)]
    if config is not None:
        words += ["--config", shlex.quote(Path(config).name)]
    for key, value in given.items():
        named = key == "validation" and not _is_number(value)
        text = _below_data(value) if named else _duration(key, value)
        words += ["--lr" if key == "learning_rate" else f"--{key.replace('_', '-')}", text]
    for key, text in overrides.items():
        words += ["--set", f"{key}={text}"]
    if note:
        words += ["--note", shlex.quote(note)]
    return " ".join(words)


def _below_data(path: str | Path) -> str:
    """What a folder of the user is called in a recorded command: quoted so that $DATA is still replaced."""
    name = Path(path).resolve().name
    return f"$DATA/{name}" if shlex.quote(name) == name else f'"$DATA/{name}"'


def _free_folder(name: str) -> Path:
    number = 1
    while (folder := Path("runs") / f"{name}-{number}").exists():
        number += 1
    return folder
