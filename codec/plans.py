"""What a training is determined by: settings, run folder, and the commands that the model card records."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from . import checkpoints, weights
from .errors import UsageError
from .files import atomically
from .models import CLASSES, MODELS, RANGES, TRAINING_ONLY, WHAT_IS_TRAINED
from .models.vqvae import image

_MANY, _TINY = 1 << 31, 1e-12
SETTINGS_RANGES: dict[str, tuple[float, float]] = {
    "steps": (1, _MANY),
    "time_budget": (_TINY, _MANY),
    "batch": (1, _MANY),
    "learning_rate": (_TINY, 1e38),
    "warmup": (0, _MANY),
    "seed": (0, _MANY - 1),
    "average": (0, 1 - 1e-9),
    "beta1": (0, 1 - 1e-9),
    "beta2": (0, 1 - 1e-9),
    "clip": (_TINY, 1e38),
    "checkpoint_every": (1, _MANY),
    "keep_checkpoints": (1, _MANY),
}
"""Setting -> the smallest and the largest value that a training can work with."""

CROPS: dict[str, tuple[float, float]] = {"image": (4, 1 << 14), "audio": (0.1, 60)}
"""Medium -> the smallest and the largest crop."""


RUNS = Path("runs")
"""Where run folders go that the user does not name."""


@dataclass(frozen=True)
class Settings:
    """How a model is trained.

    Attributes:
        steps: optimiser steps, where no time budget is given.
        time_budget: seconds over which the schedule is laid, or None; what precedes the first step is not
            counted.
        batch: crops a step.
        crop: their side in pixels, or their length in seconds.
        learning_rate: peak of the cosine schedule.
        warmup: steps over which it rises.
        seed: of every random choice.
        average: decay of the averaged weights, which are the ones kept.
        beta1, beta2: decay of AdamW's moments.
        clip: largest norm of the gradient.
        validation: held-out share of the files, or a folder or tar file.
        checkpoint_every: steps between validations, each followed by a checkpoint.
        keep_checkpoints: how many stay on the disk.
    """

    steps: int = 20_000
    time_budget: float | None = None
    batch: int = 16
    crop: float = 128
    learning_rate: float = 1e-3
    warmup: int = 100
    seed: int = 0
    average: float = 0.999
    beta1: float = 0.9
    beta2: float = 0.999
    clip: float = 1.0
    validation: str = "0.05"
    checkpoint_every: int = 1000
    keep_checkpoints: int = 3


SETTINGS = {"image": Settings(), "audio": Settings(crop=0.64, beta1=0.8, beta2=0.99)}
"""Medium -> how its models are trained unless told otherwise."""


@dataclass(frozen=True)
class Plan:
    """All that a run is determined by; this is its config.json.

    Attributes:
        name: of the settings that it began with, a key of `models.MODELS`.
        folder: everything the run writes.
        data: absolute paths of folders, tar files, single files.
        start: absolute path of the weights to begin with, or None.
        model: settings of the model.
        settings: of the training.
        chain: commands that lead to these weights, those of the weights to begin with first.
        note: a line for the model card.
    """

    name: str
    folder: Path
    data: list[str]
    start: str | None
    model: Any
    settings: Settings
    chain: list[str]
    note: str

    @property
    def weights_name(self) -> str:
        """What bitstreams will call the model: the run folder's name, in the characters they allow."""
        return re.sub(r"[^A-Za-z0-9._+-]+", "-", self.folder.resolve().name).strip("._+-")[:64] or self.name

    @property
    def _json(self) -> str:
        return json.dumps({**asdict(self), "folder": str(self.folder)}, indent=2) + "\n"

    def claim(self) -> None:
        """Make the run folder this run's own, before anything slow begins.

        Raises:
            FileExistsError: another run has it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "config.json").open("x") as file:
            file.write(self._json)

    def release(self) -> None:
        """Give the folder of a run that never began back."""
        (self.folder / "config.json").unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()
            if self.folder.parent == RUNS:
                RUNS.rmdir()

    def write(self) -> None:
        """Put config.json into the run folder."""
        with atomically(self.folder / "config.json") as file:
            file.write(self._json.encode())


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
    model = _from_json(saved.get("model", {}), MODELS[name])
    settable = {field.name for field in fields(model)}
    if start is not None:
        card = weights.read_card(weights.locate(start))
        kept = card["config"]
        if card["method"] != CLASSES[type(model)].method:
            # How the other kind of model was trained says nothing about this one.
            kept = {key: value for key, value in kept.items() if key not in TRAINING_ONLY}
        model = _from_json(kept, MODELS[name])
        settable = TRAINING_ONLY | (settable - set(kept))
        chain = list(card["training"]["chain"])
    medium = CLASSES[type(model)].medium
    settings = replace(_from_json(saved.get("settings", {}), SETTINGS[medium]), **given)
    for key, text in overrides.items():
        if key in settable:
            model = replace(model, **{key: _parse(type(model), key, text)})
        elif key in {f.name for f in fields(Settings)}:
            settings = replace(settings, **{key: _parse(Settings, key, text)})
        else:
            raise UsageError(
                f"no setting '{key}'" + (" that --from leaves open" if start else ""), "see config.json"
            )
    _check(model, settings)
    if held_out_share(settings.validation) is None:
        settings = replace(settings, validation=str(Path(settings.validation).resolve()))
    folder = Path(output) if output is not None else _free_folder(name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists", f"--resume {folder} continues it; -o names another")
    chain.append(_command(data, name, start, config, given, overrides, note))
    paths = [str(Path(p).resolve()) for p in data]
    origin = None if start is None else str(weights.locate(start).resolve())
    return Plan(name, folder, paths, origin, model, settings, chain, note)


def claimed(plan: Plan, *, named: bool) -> Plan:
    """The plan with a run folder that no other run has; one that the user did not name is exchanged.

    Raises:
        UsageError: another run has the folder that the user named.
    """
    while True:
        try:
            plan.claim()
        except FileExistsError:
            if named:
                raise UsageError(f"{plan.folder} exists", "-o names another") from None
            plan = replace(plan, folder=_free_folder(plan.name))
        else:
            return plan


def resumed_plan(folder: Path, given: dict[str, Any], overrides: dict[str, str]) -> Plan:
    """The plan of a run folder that is continued; what changes is added to the chain of commands.

    Limits can be changed, and settings in TRAINING_ONLY but those in WHAT_IS_TRAINED.

    Raises:
        UsageError: no run folder, or an option that would make it another training.
    """
    saved = _read_config(folder / "config.json")
    step = checkpoints.step_of(checkpoints.newest(folder / "checkpoints"))
    if "validation" in given and held_out_share(given["validation"]) is None:
        given = {**given, "validation": str(Path(given["validation"]).resolve())}
    changed = {k: v for k, v in given.items() if saved["settings"].get(k) != v}
    fixed = set(changed) - {"time_budget", "steps", "checkpoint_every", "keep_checkpoints"}
    fixed |= set(overrides) - (TRAINING_ONLY - WHAT_IS_TRAINED)
    if fixed:
        raise UsageError(f"--resume cannot change {', '.join(sorted(fixed))}", "start a new run with --from")
    if "steps" in changed and "time_budget" not in changed:
        changed["time_budget"] = None
    default = MODELS[saved["name"]]
    settings = replace(_from_json(saved["settings"], SETTINGS[CLASSES[type(default)].medium]), **changed)
    model = _from_json(saved["model"], default)
    model = replace(model, **{key: _parse(type(model), key, text) for key, text in overrides.items()})
    _check(model, settings)
    chain = list(saved["chain"])
    if changed or overrides:
        words = _words({k: v for k, v in changed.items() if v is not None}, overrides)
        chain.append(" ".join(["vqcodec train --resume $RUN", *words]) + f"  # from step {step}")
    return Plan(saved["name"], folder, saved["data"], saved["start"], model, settings, chain, saved["note"])


def held_out_share(validation: str) -> float | None:
    """The share of the files that `Settings.validation` states; None where it names a folder or tar file."""
    try:
        return float(validation)
    except ValueError:
        return None


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


def _from_json(values: Mapping[str, Any], default: Any) -> Any:
    unknown = set(values) - {f.name for f in fields(default)}
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


def _check(model: Any, settings: Settings) -> None:
    """Refuse what would fail hours later, or without a word about its cause.

    Raises:
        UsageError: a setting out of its range.
    """
    medium = CLASSES[type(model)].medium
    ranges = RANGES[type(model)] | SETTINGS_RANGES | {"crop": CROPS[medium]}
    for name, value in {**asdict(model), **asdict(settings)}.items():
        if name in ranges and value is not None:
            low, high = ranges[name]
            if not low <= value <= high:
                raise UsageError(f"{name} is {value}", f"give {low:g} to {high:g}")
    if isinstance(model, image.Config):
        stride = CLASSES[type(model)].stride
        if model.linear_start and model.code_dim > 3 * stride**2:
            raise UsageError(
                f"code_dim is {model.code_dim}",
                f"give 1 to {3 * stride**2}, the principal components of a block",
            )
        if settings.crop % stride:
            raise UsageError(f"crop is {settings.crop:g}", f"give a multiple of {stride}")
    share = held_out_share(settings.validation)
    if share is not None and not 0 < share < 1:
        raise UsageError(f"--validation {settings.validation}", "a folder, or a share between 0 and 1")


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
    words += _words(given, overrides)
    if note:
        words += ["--note", shlex.quote(note)]
    return " ".join(words)


def _words(given: Mapping[str, Any], overrides: Mapping[str, str]) -> list[str]:
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


def _free_folder(name: str) -> Path:
    """The first of runs/NAME-1, runs/NAME-2, ... that does not exist."""
    number = 1
    while (folder := RUNS / f"{name}-{number}").exists():
        number += 1
    return folder
