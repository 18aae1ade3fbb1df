"""What is asked of a training -> a finished run: a fresh one, one that is resumed, or one step as a trial."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from .. import weights
from ..errors import UsageError
from ..files import atomically
from ..models.base import Json
from . import distributed
from .commands import Options
from .events import Report, TensorBoard
from .plan import Plan, new_plan, prior_plan, reserve_folder, resumed_plan
from .trainer import Run, Trainer

__all__ = ["Run", "train"]

STAGES = ("all", "codec", "prior")
"""What can be trained: the networks, the learned prior of their codes, one after the other."""

PRIOR = "prior"
"""Folder of the second stage's run in that of the first."""


def train(
    data: str | Path | Sequence[str | Path] = (),
    *,
    model: str | None = None,
    stage: str = "all",
    plane: str | None = None,
    start: str | Path | None = None,
    output: str | Path | None = None,
    resume: str | Path | None = None,
    time_budget: float | None = None,
    steps: int | None = None,
    batch: int | None = None,
    learning_rate: float | None = None,
    crop: float | None = None,
    binarise: str | None = None,
    seed: int | None = None,
    overrides: Mapping[str, str] | None = None,
    config: str | Path | None = None,
    validation: str | Path | float | None = None,
    checkpoint_every: int | None = None,
    keep_checkpoints: int | None = None,
    note: str = "",
    dry_run: bool = False,
    tensorboard: bool = False,
    device: str = "auto",
    report: Report | None = None,
) -> Run:
    """Train a model on a folder of images or audio, or on a set of small pictures.

    Args:
        data: folders, tar files, single files; one or several. Sets of small pictures are .npy, .npz or
            idx(.gz) files of uint8 [N, H, W] or [N, H, W, 3].
        model: a name of `models.MODELS`; required unless `resume`, or `stage` is "prior".
        stage: "codec", the networks; "prior", the learned prior of the codec in `start`; "all", one and then
            the other, which has a third of the time and settings of its own.
        plane: of a codec with several planes, the one whose prior the stage "prior" trains; None: one after
            the other, with the options for the first.
        start: weights to begin with (shipped name or file) instead of the linear start.
        output: run folder, new or empty; default runs/MODEL-N.
        resume: a run folder to continue, on a CPU bit for bit; its config.json gives everything but what is
            changed here.
        time_budget: seconds for all of it: the schedule is laid over what beginning and finishing leave.
        steps: of the optimiser, where there is no time budget, in each stage.
        batch: crops a step.
        learning_rate: peak of the cosine schedule; by default a tenth with a `start` of the same networks.
        crop: side of a crop in pixels, or its length in seconds.
        binarise: how bytes become 0 or 1, for models of such pixels: "static", "dynamic" or "threshold".
        seed: of every random choice.
        overrides: any other field of the model's or the training's settings, values as text.
        config: config.json of an earlier run, whose settings are the defaults.
        validation: held-out folder or tar file, or share of the files.
        checkpoint_every: steps between validations, each followed by a checkpoint.
        keep_checkpoints: how many stay on the disk.
        note: a line for the model card: what the data are, under which licence.
        tensorboard: also write the numbers of metrics.jsonl for TensorBoard, into the run folder.
        dry_run: one step, without writing anything but its report.
        device: "auto", "cpu", "cuda[:N]" or "mps".
        report: called with what is worth telling: {"event": "start" | "step" | "validation" | ...}.

    Raises:
        UsageError: contradicting or unknown options, or a run folder that is not empty.
        TrainingError: too few files, a loss that is not a number, out of memory.
        KeyboardInterrupt: interrupted; the step was finished and a checkpoint written.
    """
    report = report or _silent
    if tensorboard:
        report = TensorBoard(report)
    data = [data] if isinstance(data, str | Path) else data
    if stage not in STAGES:
        raise UsageError(f"no stage '{stage}'", " | ".join(STAGES))
    given = {
        "time_budget": time_budget,
        "steps": steps,
        "batch": batch,
        "learning_rate": learning_rate,
        "crop": crop,
        "binarise": binarise,
        "seed": seed,
        "validation": None if validation is None else str(validation),
        "checkpoint_every": checkpoint_every,
        "keep_checkpoints": keep_checkpoints,
    }
    given = {name: value for name, value in given.items() if value is not None}
    with distributed.group(weights.choose_device(device)) as ours:
        if not distributed.leads():
            report = _silent
        if resume is not None:
            if data or model or start or output or config or note or plane or stage != "all":
                raise UsageError(
                    "a run is resumed as it was",
                    "leave out data, model, stage, plane, start, output, config, note",
                )
            return _resumed(Path(resume), given, dict(overrides or {}), ours, report, dry_run=dry_run)
        named = output is not None
        if stage == "prior":
            if start is None or model or config:
                raise UsageError(
                    "a prior belongs to a codec", "--stage prior --from NAME, without -m and --config"
                )
            prior = partial(prior_plan, data, start, output, given, dict(overrides or {}), note, plane)
            plan = distributed.led(prior)
        elif plane is not None:
            raise UsageError("planes are those of priors", "--stage prior")
        else:
            fresh = partial(new_plan, data, model, start, output, config, given, dict(overrides or {}), note)
            plan = distributed.led(partial(fresh, stage))
        if dry_run:
            return Trainer(plan, ours, report).try_one_step()
        run = _run(plan, ours, report, named=named)
        return _with_prior(plan, run, ours, report)


def _run(plan: Plan, device: str, report: Report, *, named: bool) -> Run:
    """Train from the first step to the end."""
    # One process takes the folder, and all go on with it.
    plan = distributed.led(partial(reserve_folder, plan, named=named))
    try:
        trainer = Trainer(plan, device, report)
    except BaseException:
        plan.release()
        raise
    return trainer.run()


def _resumed(
    folder: Path,
    given: Options,
    overrides: Mapping[str, str],
    device: str,
    report: Report,
    *,
    dry_run: bool,
) -> Run:
    """Continue from the newest checkpoint to the end, in whichever stage the run was interrupted."""
    folders = distributed.led(partial(_stages, folder))
    plan = resumed_plan(folders[-1], given, overrides)
    trainer = Trainer(plan, device, report, fresh=False)
    if dry_run:
        return trainer.try_one_step()
    trainer.restore()
    run = _with_prior(plan, trainer.run(), device, report)
    for outer in reversed(folders[:-1]):
        run = distributed.led(partial(_replace_best, outer, run))
    return run


def _stages(folder: Path) -> list[Path]:
    """Return the folders of the stages of a run that have begun, the outermost first."""
    while folder.name == PRIOR and (folder.parent / "config.json").is_file():
        folder = folder.parent
    folders = [folder]
    while (inner := folders[-1] / PRIOR).is_dir():
        if not any((inner / "checkpoints").glob("*")):
            shutil.rmtree(inner)  # it never came to a checkpoint: begin that stage again
            break
        folders.append(inner)
    return folders


def _with_prior(plan: Plan, run: Run, device: str, report: Report) -> Run:
    """Go on to the learned prior, of one plane after the other, where the plan says so."""
    plane = plan.next_plane
    if plane is None:
        return run
    settings = plan.settings
    kept: Json = {
        name: getattr(settings, name)
        for name in ("seed", "validation", "checkpoint_every", "keep_checkpoints")
    }
    if settings.time_budget is not None:
        kept["time_budget"] = settings.time_budget * (1 - plan.share)
    elif settings.steps != plan.default_steps:
        kept["steps"] = settings.steps
    folder, one = plan.folder / PRIOR, plane or None
    planned = partial(prior_plan, plan.data, run.best, folder, kept, {}, plan.note, one, goes_on=True)
    prior = distributed.led(planned)
    earlier = [] if plan.start is None else weights.read_card(plan.start).training["chain"]
    chain = plan.chain if plan.stage == "prior" else plan.chain[len(earlier) :]
    prior = replace(prior, chain=chain)  # these commands train all stages
    inner = _with_prior(prior, _run(prior, device, report, named=True), device, report)
    best = distributed.led(partial(_replace_best, plan.folder, inner))
    return replace(best, improved=run.improved or inner.improved)


def _replace_best(folder: Path, run: Run) -> Run:
    """Put the codec with its prior in the place of the codec without."""
    best = folder / run.best.name
    for suffix in (".safetensors", ".json"):
        with atomically(best.with_suffix(suffix)) as file:
            file.write(run.best.with_suffix(suffix).read_bytes())
    return replace(run, folder=folder, best=best)


def _silent(_event: object) -> None:
    """Report nothing."""
