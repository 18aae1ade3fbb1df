"""`vqcodec train`: a codec of one's own."""

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from vqcodec.errors import UsageError

from . import options
from .batch import plain, use_threads
from .command import command
from .console import Bar, Console, printable, size_text, time_text

EXAMPLES = """\b
Examples:
  vqcodec train photos/ -m vqvae-image --time-budget 20m
  vqcodec train talks/ -m vqvae-audio --time-budget 1h
  vqcodec train photos/ more.tar -m vqvae-image -o runs/mine --set codes=1024
  vqcodec train photos/ -m vqvae-image --from vqvae-image --lr 1e-4
  vqcodec train photos/ --stage prior --from runs/mine/best.safetensors
  vqcodec train --resume runs/mine
"""


class Stage(StrEnum):
    """What is trained."""

    all = "all"
    codec = "codec"
    prior = "prior"


@command(progress=True)
def train(
    console: Console,
    data: Annotated[
        list[str] | None,
        typer.Argument(metavar="FOLDER|TAR", help="Pictures or sounds to learn from, folders or tar files."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "-m",
            "--model",
            metavar="NAME",
            help="What to train: vqvae-image, vqvae-audio, ...; required unless --resume.",
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="NAME|FILE", help="Start from these weights.  [default: new ones]"),
    ] = None,
    stage: Annotated[
        Stage,
        typer.Option(
            "--stage",
            metavar="all|codec|prior",
            help="The networks, the learned prior of the codec in --from, or one after the other.",
        ),
    ] = Stage.all,
    time_budget: Annotated[
        float | None,
        typer.Option(
            "--time-budget",
            parser=options.parse_duration,
            metavar="DURATION",
            help="20m, 6h: lay the schedule over this time.",
        ),
    ] = None,
    output: Annotated[
        str | None, typer.Option("-o", "--output", metavar="DIR", help="Run folder.  [default: runs/NAME-N]")
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume", metavar="DIR", help="Continue that run, on a CPU bit for bit; needs no FOLDER."
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, metavar="N", help="Optimiser steps.")] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", min=1, metavar="N", help="Crops or segments a step.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--lr", metavar="X", help="Peak of the learning rate.")
    ] = None,
    crop: Annotated[
        float | None,
        typer.Option(
            "--crop", metavar="PX|SECONDS", help="Side of the crops of pictures, length of those of sounds."
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, metavar="N", help="Of every random choice.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Any other setting, as config.json names it; repeatable."
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option("--config", metavar="FILE.json", help="A saved run's config.json, as defaults."),
    ] = None,
    validation: Annotated[
        str | None,
        typer.Option("--validation", metavar="FOLDER|FRACTION", help="Held-out files.  [default: 0.05]"),
    ] = None,
    checkpoint_every: Annotated[
        int | None, typer.Option("--checkpoint-every", min=1, metavar="N", help="Steps.  [default: 1000]")
    ] = None,
    keep_checkpoints: Annotated[
        int | None, typer.Option("--keep-checkpoints", min=1, metavar="N", help="The newest.  [default: 3]")
    ] = None,
    note: Annotated[
        str,
        typer.Option("--note", metavar="TEXT", help="For the model card: what the data are, their licence."),
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="One batch: print memory and time per step, write nothing.")
    ] = False,
    device: options.Device = "auto",
    jobs: options.Jobs = None,
) -> None:
    """Train a codec on your own pictures or sounds.

    The run folder holds config.json, metrics.jsonl, checkpoints, samples, log.txt and best.safetensors, which
    is the best model so far, with critics the newest. Ctrl-C finishes the step, saves, and says how to
    resume.
    """
    _check(data, model, config, resume, start, output, stage)
    for path in data or []:
        if not Path(path).exists():
            raise UsageError(f"{path}: no such file or folder", "name folders, tar files, pictures or sounds")
    values = _pairs(overrides or [])
    from vqcodec import training

    use_threads(jobs)
    folder = output if output is not None else resume
    with console.bar("training", 1) as bar:
        report = Reporter(console, bar, folder)
        try:
            run = training.train(
                data or [],
                model=model,
                stage=stage.value,
                start=start,
                time_budget=time_budget,
                output=output,
                resume=resume,
                steps=steps,
                batch=batch,
                learning_rate=learning_rate,
                crop=None if crop is None else plain(crop),
                seed=seed,
                overrides=values,
                config=config,
                validation=validation,
                checkpoint_every=checkpoint_every,
                keep_checkpoints=keep_checkpoints,
                note=note,
                dry_run=dry_run,
                device=device,
                report=report,
            )
        except KeyboardInterrupt:
            if report.folder is not None and report.started:
                _say_resume(console, report.folder)
            raise
    if not dry_run:
        console.record(type="done", folder=str(run.folder), best=str(run.best))
        console.note(f"use it: vqcodec encode -m {shlex.quote(str(run.best))} FILES")


class Reporter:
    """What a training tells, as lines, as records, or in the bar.

    Attributes:
        folder: the run folder, once it is known.
        started: whether there is a run that can be resumed.
    """

    def __init__(self, console: Console, bar: Bar, folder: str | None) -> None:
        self.console, self.bar, self.folder = console, bar, folder
        self.started = False

    def __call__(self, event: dict[str, Any]) -> None:
        """Tell one event."""
        self.console.record(type="event", **event)
        kind = event.get("event")
        if kind == "start":
            # The second stage has a folder in that of the run, which is the one to resume.
            self.folder, self.started = self.folder or str(event["folder"]), True
        if self.console.json:
            return
        if kind == "step" and self.console.progress:
            self.bar.item(0, short(event))
            self.bar.share(event.get("progress", 0.0))
        else:
            self.console.note(line(event))


UNITS = {"seconds": time_text, "seconds_per_step": lambda v: f"{v:.3f} s", "peak_bytes": size_text}
LEFT_OUT = {"event", "step", "progress"}


def line(event: dict[str, Any]) -> str:
    """One event in one line: "step 1200  loss 0.0123  psnr_db 27.1"."""
    words = [str(event.get("event", ""))]
    if "step" in event:
        words[0] = f"step {event['step']}" if words[0] == "step" else f"{words[0]} at step {event['step']}"
    for key, value in event.items():
        if key in LEFT_OUT or value is False:
            continue
        if key in UNITS:
            text = UNITS[key](value)
        elif isinstance(value, float):
            text = f"{value:.4g}"
        elif isinstance(value, list):
            text = f"{len(value)}: {', '.join(str(v) for v in value[:5])}" if value else "0"
        else:
            text = "" if value is True else str(value)
        words.append(f"{key.removesuffix('_db').replace('_', ' ')} {text}".rstrip())
    return "  ".join(words)


def short(event: dict[str, Any]) -> str:
    """What of a step fits beside the bar."""
    wanted = ("loss", "bits", "psnr_db", "log_mel", "codes_used")
    return line({"event": "step"} | {key: event[key] for key in ("step", *wanted) if key in event})


def _check(
    data: list[str] | None,
    model: str | None,
    config: str | None,
    resume: str | None,
    start: str | None,
    output: str | None,
    stage: Stage,
) -> None:
    """Refuse what contradicts itself.

    Raises:
        UsageError: it does.
    """
    if resume is not None:
        given: dict[str, object] = {"FOLDER": data, "-m": model, "--config": config, "--from": start}
        given |= {"-o": output, "--stage": stage is not Stage.all}
        wrong = [name for name, value in given.items() if value]
        if wrong:
            raise UsageError(
                f"--resume continues a run as it was, without {', '.join(wrong)}", "leave it out"
            )
        return
    if stage is Stage.prior:
        if start is None or model is not None or config is not None:
            raise UsageError(
                "a prior belongs to a codec", "--stage prior --from NAME, without -m and --config"
            )
    elif model is None and config is None:
        from vqcodec.models import MODELS

        raise UsageError("no model named", f"-m {' | '.join(MODELS)}, or --resume DIR")
    if not data:
        raise UsageError("nothing to train on", "name folders or tar files of pictures or sounds")


def _pairs(settings: list[str]) -> dict[str, str]:
    pairs = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {setting}: not KEY=VALUE", "--set codes=1024")
        pairs[key.strip()] = value.strip()
    return pairs


def _say_resume(console: Console, folder: str) -> None:
    console.record(type="interrupted", folder=folder)
    console.note(f"resume: vqcodec train --resume {shlex.quote(printable(folder))}")
