"""What is asked of a training -> a finished run: a fresh one, one that is resumed, or one step as a trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from . import weights
from .errors import UsageError
from .plans import claimed, new_plan, resumed_plan
from .trainer import Report, Run, Trainer

__all__ = ["Run", "train"]


def train(
    data: str | Path | Sequence[str | Path] = (),
    *,
    model: str | None = None,
    start: str | Path | None = None,
    output: str | Path | None = None,
    resume: str | Path | None = None,
    time_budget: float | None = None,
    steps: int | None = None,
    batch: int | None = None,
    learning_rate: float | None = None,
    crop: float | None = None,
    seed: int | None = None,
    overrides: Mapping[str, str] | None = None,
    config: str | Path | None = None,
    validation: str | Path | float | None = None,
    checkpoint_every: int | None = None,
    keep_checkpoints: int | None = None,
    note: str = "",
    dry_run: bool = False,
    device: str = "auto",
    report: Report | None = None,
) -> Run:
    """Train a codec on a folder of pictures or sounds.

    Args:
        data: folders, tar files, single files; one or several.
        model: a name of `models.MODELS`; required unless `resume`.
        start: weights to begin with (shipped name or file) instead of the linear start.
        output: run folder, new or empty; default runs/MODEL-N.
        resume: a run folder to continue exactly; its config.json gives everything but what is changed here.
        time_budget: seconds over which the schedule is laid.
        steps: of the optimiser, where there is no time budget.
        batch: crops a step.
        learning_rate: peak of the cosine schedule.
        crop: side of a crop in pixels, or its length in seconds.
        seed: of every random choice.
        overrides: any other field of the model's or the training's settings, values as text.
        config: config.json of an earlier run, whose settings are the defaults.
        validation: held-out folder or tar file, or share of the files.
        checkpoint_every: steps between validations, each followed by a checkpoint.
        keep_checkpoints: how many stay on the disk.
        note: a line for the model card: what the data are, under which licence.
        dry_run: one step, without writing anything but its report.
        device: "auto", "cpu", "cuda[:N]" or "mps".
        report: called with what is worth telling: {"event": "start" | "step" | "validation" | ...}.

    Raises:
        UsageError: contradicting or unknown options, or a run folder that is not empty.
        TrainingError: too few files, a loss that is not a number, out of memory.
        KeyboardInterrupt: interrupted; the step was finished and a checkpoint written.
    """
    tell = report or (lambda _event: None)
    data = [data] if isinstance(data, str | Path) else data
    given = {
        "time_budget": time_budget,
        "steps": steps,
        "batch": batch,
        "learning_rate": learning_rate,
        "crop": crop,
        "seed": seed,
        "validation": None if validation is None else str(validation),
        "checkpoint_every": checkpoint_every,
        "keep_checkpoints": keep_checkpoints,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if resume is not None:
        if data or model or start or output or config or note:
            raise UsageError(
                "a run is resumed as it was", "leave out data, model, start, output, config, note"
            )
        plan = resumed_plan(Path(resume), given, dict(overrides or {}))
    else:
        plan = new_plan(data, model, start, output, config, given, dict(overrides or {}), note)
    ours = weights.choose_device(device)
    if dry_run:
        return Trainer(plan, ours, tell, fresh=resume is None).try_one_step()
    if resume is not None:
        trainer = Trainer(plan, ours, tell, fresh=False)
        trainer.restore()
        return trainer.run()
    plan = claimed(plan, named=output is not None)
    try:
        trainer = Trainer(plan, ours, tell)
    except BaseException:
        plan.release()
        raise
    return trainer.run()
