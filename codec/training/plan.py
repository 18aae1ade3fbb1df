"""What a training is determined by: settings, run folder, and the commands that the model card records."""

from __future__ import annotations

import copy
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from .. import weights
from ..errors import UsageError
from ..files import atomically
from ..models import (
    CLASSES,
    GROWABLE,
    MODELS,
    PRIORS,
    SHRINKABLE,
    TRAINING_ONLY,
    WHAT_IS_TRAINED,
    PriorFit,
    build,
    ppca,
    vae,
)
from . import checkpoints
from .settings import PRIOR_SETTINGS, Settings, check, defaults, from_json, held_out_share, overridden, parse

ALONE = (ppca.Config, vae.Config)
"""Settings of models whose prior is trained with them."""

CODEC_SHARE = 2 / 3
"""Of a time budget for a codec and its prior, the codec's part."""

RUNS = Path("runs")
"""Where run folders go that the user does not name."""


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
        stage: "codec"; "prior", the learned prior of the codec in `start`; or "all", one and then the other.
    """

    name: str
    folder: Path
    data: list[str]
    start: str | None
    model: Any
    settings: Settings
    chain: list[str]
    note: str
    stage: str = "codec"

    def build(self) -> Any:
        """What is trained, with fresh weights.

        Raises:
            UsageError: the weights of the codec whose prior it is are gone.
        """
        codec = None
        if self.stage == "prior":
            assert self.start is not None
            codec = copy.deepcopy(weights.load(self.start, "cpu"))
        torch.manual_seed(self.settings.seed)  # here: loading weights takes random numbers, but only once
        return build(self.model) if codec is None else PriorFit(self.model, codec)

    @property
    def seconds(self) -> float | None:
        """The time of this stage, or None: its steps are counted."""
        budget = self.settings.time_budget
        return budget * CODEC_SHARE if budget is not None and followed(self.stage, self.model) else budget

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
    stage: str = "codec",
) -> Plan:
    """The plan of a fresh run of a codec, from what `training.train` was given.

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
    model = from_json(saved.get("model", {}), MODELS[name])
    settable = {field.name for field in fields(model)}
    if start is not None:
        card = weights.read_card(weights.locate(start))
        kept = card["config"]
        _check_kin(name, type(model), card)
        if card["method"] != CLASSES[type(model)].method:
            # How the other kind of model was trained says nothing about this one.
            kept = {key: value for key, value in kept.items() if key not in TRAINING_ONLY}
        model = from_json(kept, MODELS[name])
        growable, shrinkable = GROWABLE[type(model)], SHRINKABLE[type(model)]
        settable = TRAINING_ONLY | growable | shrinkable | (settable - set(kept))
        chain = list(card["training"]["chain"])
    settings = replace(from_json(saved.get("settings", {}), defaults(model)), **given)
    model, settings = overridden(
        model, settings, overrides, settable, " that --from leaves open" if start else ""
    )
    if start is not None:
        for key in growable & overrides.keys():
            if getattr(model, key) < kept[key]:
                raise UsageError(f"{key} is {overrides[key]}, --from has {kept[key]}", "give as much or more")
        for key in shrinkable & overrides.keys():
            if getattr(model, key) > kept[key]:
                raise UsageError(f"{key} is {overrides[key]}, --from has {kept[key]}", "give as much or less")
    command = _command(data, name, start, config, given, overrides, note, stage)
    return _fresh(name, data, start, output, model, settings, [*chain, command], note, stage)


def _check_kin(name: str, kind: type, card: Mapping[str, Any]) -> None:
    """Refuse to begin as a model that has other networks.

    Raises:
        UsageError: neither method is a case of the other.
    """
    ours = CLASSES[kind]
    for theirs in CLASSES.values():
        if (theirs.medium, theirs.method) == (card["medium"], card["method"]):
            if issubclass(ours, theirs) or issubclass(theirs, ours):
                return
            break
    raise UsageError(f"{name} cannot begin as {card['name']}, a {card['method']}", "leave out --from")


def followed(stage: str, model: Any) -> bool:
    """Whether a codec's training goes on to its prior: not where the codes are those of another codec."""
    coded_by_its_own = isinstance(model, ALONE)
    return stage == "all" and not coded_by_its_own and not getattr(model, "frozen", False)


def prior_plan(
    data: Sequence[str | Path],
    start: str | Path,
    output: str | Path | None,
    given: dict[str, Any],
    overrides: dict[str, str],
    note: str,
) -> Plan:
    """The plan of a fresh run for the learned prior of the codec in `start`.

    Raises:
        UsageError: an unknown codec or setting, no data, or a run folder that is not empty.
    """
    if not data:
        raise UsageError(
            "no folder or tar file to train on", "vqcodec train FOLDER --stage prior --from NAME"
        )
    card = weights.read_card(weights.locate(start))
    medium, before = card["medium"], card.get("learned", {})
    if medium not in PRIORS:
        raise UsageError(f"no priors for {medium}", f"for {', '.join(PRIORS)}")
    model = from_json(before.get("config", {}), PRIORS[medium])
    settings = replace(PRIOR_SETTINGS[medium], **given)
    model, settings = overridden(model, settings, overrides, {f.name for f in fields(model)}, " of priors")
    command = _command(data, None, start, None, given, overrides, note, "prior")
    chain = [*before.get("training", {}).get("chain", []), command]
    return _fresh(card["name"], data, start, output, model, settings, chain, note, "prior")


def _fresh(
    name: str,
    data: Sequence[str | Path],
    start: str | Path | None,
    output: str | Path | None,
    model: Any,
    settings: Settings,
    chain: list[str],
    note: str,
    stage: str,
) -> Plan:
    """The plan of these settings, once they are found to make sense."""
    check(model, settings)
    if held_out_share(settings.validation) is None:
        settings = replace(settings, validation=str(Path(settings.validation).resolve()))
    folder = Path(output) if output is not None else _free_folder(name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists", f"--resume {folder} continues it; -o names another")
    paths = [str(Path(p).resolve()) for p in data]
    origin = None if start is None else str(weights.locate(start).resolve())
    return Plan(name, folder, paths, origin, model, settings, chain, note, stage)


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
    fixed |= set(overrides) - ((TRAINING_ONLY - WHAT_IS_TRAINED) & set(saved["model"]))
    if fixed:
        raise UsageError(f"--resume cannot change {', '.join(sorted(fixed))}", "start a new run with --from")
    if "steps" in changed and "time_budget" not in changed:
        changed["time_budget"] = None
    default = _default(saved)
    settings = replace(from_json(saved["settings"], Settings()), **changed)
    model = from_json(saved["model"], default)
    model = replace(model, **{key: parse(type(model), key, text) for key, text in overrides.items()})
    check(model, settings)
    chain = list(saved["chain"])
    if changed or overrides:
        words = _words({k: v for k, v in changed.items() if v is not None}, overrides)
        chain.append(" ".join(["vqcodec train --resume $RUN", *words]) + f"  # from step {step}")
    kept = {key: saved[key] for key in ("name", "data", "start", "note", "stage")}
    return Plan(folder=folder, model=model, settings=settings, chain=chain, **kept)


def _default(saved: Mapping[str, Any]) -> Any:
    """The settings of the kind that a config.json describes."""
    if saved["stage"] != "prior":
        return MODELS[saved["name"]]
    for prior in PRIORS.values():
        if {f.name for f in fields(prior)} == set(saved["model"]):
            return prior
    raise UsageError("config.json describes no prior", "made by another version?")


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


def _command(
    data: Sequence[str | Path],
    name: str | None,
    start: str | Path | None,
    config: str | Path | None,
    given: Mapping[str, Any],
    overrides: Mapping[str, str],
    note: str,
    stage: str,
) -> str:
    """The command that repeats this run, with $DATA for the folders of the user."""
    words = ["vqcodec", "train", *(_below_data(p) for p in data)]
    if name is not None:
        words += ["-m", name]
    if stage != "all":
        words += ["--stage", stage]
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
