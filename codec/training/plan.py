"""Plan of a training: settings, run folder, and the commands that the model card records."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path

import torch

from .. import weights
from ..errors import UsageError
from ..files import atomically
from ..models import MODELS, build, class_for, class_of
from ..models.base import Card, Figures, Json, Model, Trainable
from ..priors import PRIORS, learned_prior_for
from ..priors.settings import Config, TrainConfig, Value
from . import checkpoints
from .commands import Options, command_line, option_words
from .prior import PriorFit
from .settings import check, held_out_share, overridden

CODEC_SHARE = 2 / 3
"""Of a time budget for a codec and its prior, the codec's part."""

PLAN_FIELDS = ("name", "data", "start", "note", "stage", "method", "plane", "goes_on")
"""What a resumed run keeps of its config.json as it is."""

PLANE_SHARE = 1 / 3
"""Of a time budget for the priors of several planes, the part of the coarser plane, which has fewer codes."""

CONTINUED = 0.1
"""Default learning rate of a run that continues the same networks, over that of a fresh one, whose schedule
would first undo what they have learned."""

RUNS = Path("runs")
"""Where run folders go that the user does not name."""


@dataclass(frozen=True)
class Plan:
    """All that a run is determined by; this is its config.json.

    Attributes:
        name: of the settings that it began with, a key of `models.MODELS`; of a prior's run, the codec's.
        folder: everything the run writes.
        data: absolute paths of folders, tar files, single files.
        start: absolute path of the weights to begin with, or None.
        model: settings of the model.
        settings: of the training.
        chain: commands that lead to these weights, those of the weights to begin with first.
        note: a line for the model card.
        stage: "codec"; "prior", the learned prior of the codec in `start`; or "all", one and then the other.
        method: of the learned prior, a key of `priors.PRIORS`, in a run of its own.
        plane: whose prior it is, of a codec with several planes.
        goes_on: whether a prior's run goes on to that of the next plane.
    """

    name: str
    folder: Path
    data: list[str]
    start: str | None
    model: Config
    settings: TrainConfig
    chain: list[str]
    note: str
    stage: str = "codec"
    method: str = ""
    plane: str = ""
    goes_on: bool = False

    def build(self) -> Trainable:
        """Make what is trained, with fresh weights.

        Raises:
            UsageError: the weights of the codec whose prior it is are gone.
        """
        codec = None
        if self.stage == "prior" and self.start is not None:
            codec = copy.deepcopy(weights.load(self.start, "cpu"))
        torch.manual_seed(self.settings.seed)  # here: loading weights takes random numbers, but only once
        return build(self.model) if codec is None else PriorFit(self.method, self.model, codec, self.plane)

    @property
    def next_plane(self) -> str | None:
        """The plane whose learned prior a run goes on to, "" of a codec that has one; None: the run ends."""
        if self.stage == "all":
            kind = class_of(self.model)
            return next(iter(kind.prior_methods), "") if kind.trains_prior_next(self.model) else None
        if not self.goes_on or self.start is None:
            return None
        planes = [*_class_of_file(self.start).prior_methods]
        after = planes.index(self.plane) + 1
        return planes[after] if after < len(planes) else None

    @property
    def share(self) -> float:
        """Of the time budget, what is this stage's own."""
        if self.next_plane is None:
            return 1.0
        return CODEC_SHARE if self.stage == "all" else PLANE_SHARE

    @property
    def default_steps(self) -> int:
        """Steps where neither they nor a time budget is given."""
        return (PRIORS[self.method] if self.stage == "prior" else MODELS[self.name]).training.steps

    @property
    def seconds(self) -> float | None:
        """The time of this stage, or None: its steps are counted."""
        budget = self.settings.time_budget
        return None if budget is None else budget * self.share

    @property
    def weights_name(self) -> str:
        """What bitstreams will call the model: the run folder's name, in the characters they allow."""
        return re.sub(r"[^A-Za-z0-9._+-]+", "-", self.folder.resolve().name).strip("._+-")[:64] or self.name

    @property
    def _json(self) -> str:
        return json.dumps({**asdict(self), "folder": str(self.folder)}, indent=2) + "\n"

    def reserve(self) -> None:
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
    given: Options,
    overrides: Mapping[str, str],
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
    entry = MODELS[name]
    default = entry.config
    model = default.with_values(saved.get("model", {}))
    limits = model.limits()
    settable, where = set(limits), f" of {name}"
    kept: Mapping[str, Value] = {}
    if start is not None:
        card = weights.read_card(weights.locate(start))
        kept, where = card.config, " that --from leaves open"
        _check_kin(name, entry.model, card)
        if card.method != entry.model.method:
            # How the other kind of model was trained says nothing about this one.
            kept = {key: v for key, v in kept.items() if key not in limits or not limits[key].training_only}
        model = default.with_values(kept)
        open_ = {key for key, x in limits.items() if x.training_only or x.may_grow or x.may_shrink}
        settable = open_ | (settable - set(kept))
        chain = list(card.training["chain"])
    settings = replace(entry.training.with_values(saved.get("settings", {})), **given)
    model, settings = overridden(model, settings, overrides, settable, where)
    structure = {key for key in kept.keys() & limits.keys() if not limits[key].training_only}
    for key in overrides.keys() & structure:
        before, now = kept[key], getattr(model, key)
        if now != before and not (limits[key].may_shrink if now < before else limits[key].may_grow):
            hint = f"give as much or {'more' if now < before else 'less'}"
            raise UsageError(f"{key} is {overrides[key]}, --from has {before}", hint)
    then = type(default)().with_values(kept)
    same = all(getattr(model, k) == getattr(then, k) for k, x in limits.items() if not x.training_only)
    if structure and same and "learning_rate" not in {*given, *overrides, *saved.get("settings", {})}:
        settings = replace(settings, learning_rate=CONTINUED * settings.learning_rate)
    command = command_line(data, name, start, config, given, overrides, note, stage)
    plan = Plan(name, Path(), [], None, model, settings, [*chain, command], note, stage)
    return _fresh(plan, data, start, output, entry.model)


def _check_kin(name: str, ours: type[Model], card: Card) -> None:
    """Refuse to begin as a model that has other networks.

    Raises:
        UsageError: neither method is a case of the other.
    """
    theirs = class_for(card.medium, card.method)
    if theirs is None or not ours.can_start_as(theirs):
        raise UsageError(f"{name} cannot begin as {card.name}, a {card.method}", "leave out --from")


def prior_plan(
    data: Sequence[str | Path],
    start: str | Path,
    output: str | Path | None,
    given: Options,
    overrides: Mapping[str, str],
    note: str,
    plane: str | None = None,
    *,
    goes_on: bool = False,
) -> Plan:
    """The plan of a fresh run for the learned prior of the codec in `start`.

    Args:
        data: folders, tar files, single files.
        start: the codec.
        output: run folder.
        given: options of the training.
        overrides: settings by name, as text.
        note: a line for the model card.
        plane: of a codec with several planes; None: the first, and then the others.
        goes_on: whether the run goes on to the plane after `plane`.

    Raises:
        UsageError: an unknown codec or setting, no data, or a run folder that is not empty.
    """
    if not data:
        raise UsageError(
            "no folder or tar file to train on", "vqcodec train FOLDER --stage prior --from NAME"
        )
    card = weights.read_card(weights.locate(start))
    kind = class_for(card.medium, card.method)
    methods = {} if kind is None else kind.prior_methods
    command = command_line(data, None, start, None, given, overrides, note, "prior", plane or "")
    goes_on, plane = bool(methods) and (goes_on or plane is None), plane or next(iter(methods), "")
    if plane not in (methods or {""}):
        raise UsageError(f"no plane '{plane}'", " | ".join(methods) or "leave out --plane")
    before = card.learned or {}
    if methods:
        before = before.get("planes", {}).get(plane, {})
    method = before.get("method") or methods.get(plane) or learned_prior_for(card.medium)
    if kind is None or method not in PRIORS:
        raise UsageError(f"no priors for {card.medium}", f"{', '.join(PRIORS)}")
    entry = PRIORS[method]
    model = entry.config.with_values(before.get("config", {}))
    settings = replace(entry.training, **given)
    model, settings = overridden(model, settings, overrides, set(model.limits()), " of priors")
    chain = [*before.get("training", {}).get("chain", []), command]
    plan = Plan(card.name, Path(), [], None, model, settings, chain, note, "prior", method, plane, goes_on)
    return _fresh(plan, data, start, output, kind)


def _fresh(
    plan: Plan,
    data: Sequence[str | Path],
    start: str | Path | None,
    output: str | Path | None,
    kind: type[Model],
) -> Plan:
    """Complete a plan with its paths, once its settings are found to make sense."""
    settings = plan.settings
    check(plan.model, settings, kind, starts=start is not None and plan.stage != "prior")
    if held_out_share(settings.validation) is None:
        settings = replace(settings, validation=str(Path(settings.validation).resolve()))
    folder = Path(output) if output is not None else _free_folder(plan.name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists", f"--resume {folder} continues it; -o names another")
    paths = [str(Path(p).resolve()) for p in data]
    origin = None if start is None else str(weights.locate(start).resolve())
    return replace(plan, folder=folder, data=paths, start=origin, settings=settings)


def reserve_folder(plan: Plan, *, named: bool) -> Plan:
    """Take a run folder that no other run has; one that the user did not name is exchanged.

    Raises:
        UsageError: another run has the folder that the user named.
    """
    while True:
        try:
            plan.reserve()
        except FileExistsError:
            if named:
                raise UsageError(f"{plan.folder} exists", "-o names another") from None
            plan = replace(plan, folder=_free_folder(plan.name))
        else:
            return plan


def resumed_plan(folder: Path, given: Options, overrides: Mapping[str, str]) -> Plan:
    """The plan of a run folder that is continued; what changes is added to the chain of commands.

    Limits can be changed, `keep`, and settings that are `training_only` but not `fixed_on_resume`.

    Raises:
        UsageError: no run folder, or an option that would make it another training.
    """
    saved = _read_config(folder / "config.json")
    step = checkpoints.step_of(checkpoints.newest(folder / "checkpoints"))
    if "validation" in given and held_out_share(given["validation"]) is None:
        given = {**given, "validation": str(Path(given["validation"]).resolve())}
    changed = {k: v for k, v in given.items() if saved["settings"].get(k) != v}
    fixed = set(changed) - {"time_budget", "steps", "checkpoint_every", "keep_checkpoints"}
    default, kind = _default(saved)
    limits = default.limits()
    free = {key for key, x in limits.items() if x.training_only and not x.fixed_on_resume}
    fixed |= set(overrides) - free - {"keep"}
    if fixed:
        raise UsageError(f"--resume cannot change {', '.join(sorted(fixed))}", "start a new run with --from")
    if "steps" in changed and "time_budget" not in changed:
        changed["time_budget"] = None
    settings = replace(TrainConfig().with_values(saved["settings"]), **changed)
    model, settings = overridden(default.with_values(saved["model"]), settings, overrides, free, "")
    check(model, settings, kind, starts=True)
    chain = list(saved["chain"])
    if changed or overrides:
        words = option_words({k: v for k, v in changed.items() if v is not None}, overrides)
        chain.append(" ".join(["vqcodec train --resume $RUN", *words]) + f"  # from step {step}")
    kept = {key: saved[key] for key in PLAN_FIELDS if key in saved}
    if saved["stage"] == "prior":
        kept["method"] = _prior_method(saved)
    return Plan(folder=folder, model=model, settings=settings, chain=chain, **kept)


def _class_of_file(path: str) -> type[Model]:
    """The class of the codec in a weights file.

    Raises:
        UsageError: no such file, or none that is known here.
    """
    card = weights.read_card(weights.locate(path))
    kind = class_for(card.medium, card.method)
    if kind is None:
        raise UsageError(f"{path} is a {card.method}", "made by another version?")
    return kind


def _default(saved: Figures) -> tuple[Config, type[Model]]:
    """Default settings, for those that are newer than a config.json, and the class of the codec.

    Raises:
        UsageError: none that is known here, or the codec whose prior it is is gone.
    """
    hint = "made by another version?"
    if saved["stage"] != "prior":
        if saved["name"] not in MODELS:
            raise UsageError(f"config.json describes no model, but '{saved['name']}'", hint)
        return type(MODELS[saved["name"]].config)(), MODELS[saved["name"]].model
    card = weights.read_card(weights.locate(saved["start"]))
    kind = class_for(card.medium, card.method)
    method = _prior_method(saved)
    if method not in PRIORS or kind is None:
        raise UsageError("config.json describes no prior", hint)
    return PRIORS[method].config, kind


def _prior_method(saved: Figures) -> str:
    """The method of the prior of a run; config.json files from before 0.1.0 do not name it."""
    card = weights.read_card(weights.locate(saved["start"]))
    return str(saved.get("method") or (card.learned or {}).get("method") or learned_prior_for(card.medium))


def _read_config(path: Path) -> Json:
    try:
        saved: Json = json.loads(path.read_text())
        if not {f.name for f in fields(Plan) if f.default is MISSING} <= saved.keys():
            raise ValueError("fields are missing")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path}: not the config.json of a run", "name the folder of an earlier run"
        ) from error
    return saved


def _free_folder(name: str) -> Path:
    """The first of runs/NAME-1, runs/NAME-2, ... that does not exist."""
    number = 1
    while (folder := RUNS / f"{name}-{number}").exists():
        number += 1
    return folder
